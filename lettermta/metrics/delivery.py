"""Attempts, what they come to for recipients, what comes back, and the channels that attempts are made on."""

from lettermta.metrics.parts import DELIVERY
from lettermta.metrics.registry import Label

REPLY_CLASSES = {
    "invalid_recipient": "there is no such mailbox",
    "invalid_domain": "the domain does not exist, or takes no mail",
    "inactive_recipient": "the mailbox is disabled or given up",
    "mailbox_full": "the mailbox is full",
    "message_too_large": "the message is too large",
    "content": "something in the message: form, attachment, virus",
    "spam_block": "the message was taken for spam",
    "reputation": "our address or domain is on a list, or in bad standing",
    "authentication": "SPF, DKIM or DMARC",
    "policy": "another rule of the other side",
    "rate": "too much for now; greylisting",
    "relay_denied": "the other side is not responsible for the domain, or wants a login",
    "dns": "a look-up failed",
    "network": "no connection, a lost one, or a loop",
    "tls": "no encryption, or not one that can be trusted",
    "protocol": "a command or a reply was not understood",
    "system": "trouble of the other side's own, or of ours",
    "expired": "somebody gave up trying",
    "undetermined": "no rule knows it",
}
"""The words of ReplyClass, as the page explains them."""

TRANSPORT = Label(
    "transport",
    "the way out",
    {"mx": "the domain's MX", "smarthost": "a route's smarthost, or the relayhost", "capture": "a Maildir", "discard": "nowhere"},
)
ATTEMPTS = DELIVERY.counters(
    "lettermta_attempts",
    "Attempts at an entry (one message to those of its recipients that share a domain), by what they came to for its recipients.",
    Label(
        "result",
        "what came of it",
        {
            "delivered": "all were taken",
            "partial": "some were taken",
            "deferred": "none was taken, and some are tried again",
            "refused": "none was taken, and none is tried again",
        },
    ),
)
RECIPIENTS = DELIVERY.counters(
    "lettermta_recipients",
    "Recipients that reached a final state, once that is durable.",
    Label(
        "state",
        "the final state",
        {
            "delivered": "the other side's 2yz is on record",
            "bounced": "a 5yz ended it, the other side's or ours",
            "expired": "its lifetime was over",
            "suppressed": "on a suppression list, so not tried",
            "canceled": "taken out by an operator or its sender",
        },
    ),
)
DEFERRALS = DELIVERY.counters(
    "lettermta_deferrals",
    "Times that a recipient was put off to a later attempt.",
    Label("by", "who put it off", {"remote": "a 4yz of the other side", "local": "us: no connection, no answer, a limit"}),
)
REFUSALS = DELIVERY.counters(
    "lettermta_refusals",
    "What attempts that did not deliver came to for their recipients, by what the refusal was about.",
    Label(
        "state", "what became of the recipient", {"deferred": "put off", "bounced": "given up at once", "expired": "given up in the end"}
    ),
    Label("class", "what it was about, by rules (inbound.md)", REPLY_CLASSES),
)
RETURNS = DELIVERY.counters(
    "lettermta_returns",
    "Messages that came back to return paths and addresses for complaints, and were taken.",
    Label(
        "kind",
        "what they were",
        {
            "failed": "a recipient was given up by another server (`message.hard_bounced`)",
            "delayed": "a recipient is late at another server (`message.soft_bounced`)",
            "arrived": "a success, of which nothing is told",
            "complaint": "the recipient took the message for spam (`message.spam_complaint`)",
            "auto_reply": "an automatic answer (`message.auto_replied`)",
            "repeated": "what was told before",
            "feedback": "a feedback report that is no complaint; kept",
            "unrecognised": "nothing that is known, or about nothing that is known; kept",
        },
    ),
)
RETURNS_REFUSED = DELIVERY.counters(
    "lettermta_returns_refused",
    "Recipients that were refused where mail may come back.",
    Label(
        "cause",
        "why",
        {
            "malformed": "no return path at all",
            "forged": "looks like a return path, and is not signed by us",
            "expired": "a return path of ours that is no longer in force",
            "rate": "too much came back within a minute",
        },
    ),
)
UNSUBSCRIPTIONS = DELIVERY.counters(
    "lettermta_unsubscriptions",
    "Links to unsubscribe that were followed, but for those of ours that somebody only looked at.",
    Label(
        "result",
        "what came of it",
        {
            "done": "the recipient has unsubscribed (`message.unsubscribed`)",
            "repeated": "what was told before, or was on the list already",
            "failed": "it could not be stored",
            "forged": "looks like a link of ours, and is not signed by us",
            "malformed": "no link at all",
        },
    ),
)
DELIVERY_SECONDS = DELIVERY.histogram(
    "lettermta_delivery_seconds",
    "Time from a message's acceptance until a recipient of it was delivered.",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400),
)
REPORTS = DELIVERY.counters(
    "lettermta_reports",
    "Reports to senders (delivery status notifications).",
    Label(
        "kind", "what they tell", {"failure": "a recipient was given up", "delay": "it is late", "success": "it was delivered or relayed"}
    ),
    Label("result", "what came of it", {"stored": "on its way", "over_rate": "not sent: that sender has had too many in a minute"}),
)
REPORTS_FAILED = DELIVERY.counter("lettermta_reports_failed", "Reports that could not be delivered; only the log tells of them.")
CONVERSIONS = DELIVERY.counters(
    "lettermta_conversions",
    "Messages with 8-bit or binary content for a server that doesn't take it, each attempt of one once.",
    Label(
        "result",
        "what became of them",
        {"converted": "sent in 7-bit form", "refused": "ended: there is no 7-bit form of it, as it is signed or malformed"},
    ),
)
DKIM_MESSAGES = DELIVERY.counters(
    "lettermta_dkim_messages",
    "Messages on their way out by SMTP, each attempt of one once, by what became of their DKIM signatures.",
    Label(
        "result",
        "what became of them",
        {
            "signed": "signed by all keys of the author's domain that sign",
            "known": "the signatures of an earlier attempt, or of one to another domain, were used again",
            "no_key": "not signed: none of the project's domains with keys is the author's, or (relaxed alignment) above it",
            "unusable_key": "put off: a key can't be read",
        },
    ),
)
CHANNELS_OPEN = DELIVERY.gauge("lettermta_channels_open", "Channels (outgoing connections, mostly) that are open now, idle ones included.")
CHANNELS_OPENED = DELIVERY.counters(
    "lettermta_channels_opened",
    "Openings of a channel to a destination, each over as many hosts and addresses as it took.",
    TRANSPORT,
    Label(
        "result",
        "what came of it",
        {
            "opened": "ready to send",
            "temporary": "not to be had now: its mail is put off",
            "permanent": "not to be had at all: no such domain, null MX, a loop",
            "canceled": "given up, since the daemon stops",
        },
    ),
)
CONNECTIONS_OUT = DELIVERY.counters(
    "lettermta_connections_out",
    "Connections tried to one address of a host, a second one in clear after a failed handshake included.",
    Label(
        "result",
        "what came of it",
        {
            "ready": "the session was ready to send",
            "refused": "nobody listens there",
            "timed_out": "it was not accepted in time",
            "unreachable": "the network gave another error",
            "tls_failed": "the TLS handshake failed",
            "turned_away": "the host answered by 4yz or 5yz before a message was begun",
            "policy": "the host has no TLS or not the certificate that its policy asks for",
            "not_ready": "the host fell silent or hung up, or gave us no login",
        },
    ),
)
