"""What is counted, all of it, in one place: by name and label (``docs/metrics.md`` is printed from here).

A part counts by the names below: ``metrics.SPOOL_COMMIT_FAILURES.inc()``, ``metrics.RECIPIENTS[State.DELIVERED].inc()``. What is looked
up on a hot path is taken once, in an ``__init__`` or at module level. Gauges that nobody keeps up to date are set by a part's function,
which the wiring hands to :meth:`Registry.measure`. No label holds an address, a domain, a token or an id.
"""

import platform

from lettermta import __version__
from lettermta.metrics.registry import OTHER, Family, Label, Measure, Registry

__all__ = ["OTHER", "REGISTRY", "Family", "Label", "Measure", "Registry"]

REGISTRY = Registry()
"""The metrics of this process."""

LISTENER = Label("listener", "the NAME of a `[listener NAME]` section")
_TLS_VERSIONS = {"TLSv1.2": "TLS 1.2", "TLSv1.3": "TLS 1.3"}

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

# -- connections and sessions

_edge = REGISTRY.part("Connections and sessions")

CONNECTIONS_ACCEPTED = _edge.counters(
    "lettermta_connections_accepted", "Connections that a listener took on, before anything was read from them.", LISTENER
)
CONNECTIONS_REFUSED = _edge.counters(
    "lettermta_connections_refused",
    "Connections that were ended before a session began, with or without a 421.",
    LISTENER,
    Label(
        "cause",
        "why",
        {
            "address_limit": "too many connections from its address",
            "network_limit": "too many connections from its network",
            "total_limit": "too many connections in all",
            "login_failures": "too many failed logins from its address lately",
            "proxy_header": "the PROXY header was missing, malformed, or from an address that may not send one",
            "shutting_down": "the daemon is stopping",
        },
    ),
)
SESSIONS_OPEN = _edge.gauges("lettermta_sessions_open", "Connections of clients that are open now.", LISTENER)
SESSIONS_ENDED = _edge.counters(
    "lettermta_sessions_ended",
    "Sessions that have ended, by what ended them.",
    Label(
        "cause",
        "what ended it",
        {
            "quit": "the client said QUIT",
            "lost": "the client closed the connection, or the network did",
            "timed_out": "the client took too long over a command, a piece of content, or nothing at all",
            "too_slow": "the client sent less than the least data rate",
            "errors": "too many refused commands",
            "login_failures": "too many failed logins",
            "injection": "octets came behind STARTTLS in clear",
            "tls": "the TLS handshake failed (see `lettermta_tls_failures_total`)",
            "shutting_down": "the daemon stopped",
        },
    ),
)
TLS_HANDSHAKES = _edge.counters(
    "lettermta_tls_handshakes",
    "TLS handshakes with clients that were completed.",
    Label("version", "the version agreed on", _TLS_VERSIONS),
)
TLS_FAILURES = _edge.counters(
    "lettermta_tls_failures",
    "TLS handshakes with clients that came to nothing.",
    Label(
        "cause",
        "why",
        {
            "hello_on_starttls_port": "the client began TLS at once on a port that begins in clear",
            "clear_on_tls_port": "the client began in clear on a port that begins with TLS",
            "version": "the client speaks no TLS version that is allowed here",
            "cipher": "no cipher in common",
            "certificate": "the client refused our certificate",
            "timed_out": "the client took too long",
            "closed": "the client closed the connection in the middle",
        },
    ),
)
COMMANDS_REFUSED = _edge.counters(
    "lettermta_commands_refused",
    "Replies of 4yz and 5yz to clients, to whatever it was: a command, a login, or the end of a message.",
    Label(
        "code",
        "the reply code",
        {
            "421": "the session is ended",
            "450": "not now: a mailbox or a rate",
            "451": "a local error",
            "452": "no room for the message, or too many recipients",
            "454": "TLS or the check of a login is not to be had now",
            "455": "parameters can't be met now",
            "500": "unknown command, or too long a line",
            "501": "wrong syntax",
            "502": "a command that is not implemented",
            "503": "commands out of order",
            "504": "a parameter that is not implemented, an unknown mechanism",
            "530": "a login or TLS is needed first",
            "534": "the mechanism is too weak",
            "535": "wrong credentials",
            "538": "the mechanism needs TLS",
            "550": "refused by a rule",
            "551": "the user is elsewhere",
            "552": "too large",
            "553": "an address that is not allowed",
            "554": "the transaction failed",
            "555": "unknown parameters of MAIL or RCPT",
            "556": "the domain takes no mail",
        },
    ),
)
LOGINS = _edge.counters(
    "lettermta_logins",
    "Logins that were tried. Clients are told no more than 535 or 501; this says why.",
    Label(
        "mechanism",
        "the SASL mechanism",
        {
            "PLAIN": "RFC 4616",
            "LOGIN": "user name and password in turn",
            "CRAM-MD5": "RFC 2195",
            "SCRAM-SHA-256": "RFC 7677",
            "SCRAM-SHA-256-PLUS": "RFC 7677, bound to the TLS channel",
        },
    ),
    Label(
        "result",
        "what came of it",
        {
            "succeeded": "logged in",
            "wrong_user_name": "the user name is none of `[submission] usernames`",
            "unknown_token": "no such token, or not its digest",
            "revoked": "the token has been revoked",
            "no_project": "the token's project is gone",
            "smtp_off": "SMTP is switched off for the project",
            "malformed": "the exchange did not follow the mechanism",
            "canceled": "the client gave up with `*`",
            "too_many": "refused unseen, after too many failures",
            "not_checked": "the check itself failed (454)",
        },
    ),
)

# -- submission

_submission = REGISTRY.part("Submission")

MESSAGES_ACCEPTED = _submission.counter("lettermta_messages_accepted", "Messages that got their 250: durable, each counted once.")
ACCEPTED_BYTES = _submission.counter(
    "lettermta_messages_accepted_bytes", "Octets of the accepted messages as they are stored, header and body."
)
RECIPIENTS_ACCEPTED = _submission.counter("lettermta_recipients_accepted", "Recipients of the accepted messages, duplicates taken out.")
MESSAGES_REFUSED = _submission.counters(
    "lettermta_messages_refused",
    "Messages whose content came and was refused at its end, for now or for good.",
    Label(
        "cause",
        "why",
        {
            "size": "larger than the limit, or too large a header block",
            "line_ends": "a bare CR or LF in the content",
            "header": "a header block that breaks RFC 5322 or a limit",
            "control_header": "a tag, metadata or another control header that breaks its rule",
            "route": "the project has no such route",
            "loop": "too many Received fields",
            "credentials": "the token or the project is no longer valid",
            "sender": "a sender that the project may not use",
            "idempotency": "the same idempotency key with another body, or still in progress",
            "policy": "a policy refused it",
            "policy_failure": "a policy came to no verdict, and `[submission] policy_failure` is refuse",
            "storage": "it could not be stored",
            "local": "a fault of ours",
        },
    ),
)
MESSAGES_REPEATED = _submission.counter(
    "lettermta_messages_repeated", "Messages answered by an earlier 250 for the sake of their idempotency key, and not stored again."
)
POLICY_VERDICTS = _submission.counters(
    "lettermta_policy_verdicts",
    "What the policies made of the messages that they were shown.",
    Label("policy", "its dotted name in `[submission] policies`"),
    Label(
        "verdict",
        "what it came to",
        {
            "accepted": "taken as it was",
            "changed": "taken with changes",
            "held": "taken, and kept until somebody releases it",
            "refused": "refused, for now or for good",
            "failed": "no verdict: the policy raised, or its verdict could not be carried out",
            "timed_out": "no verdict within `[submission] policy_timeout`",
        },
    ),
)

# -- spool

_spool = REGISTRY.part("Spool")

SPOOL_COMMIT_SECONDS = _spool.histogram(
    "lettermta_spool_commit_seconds",
    "Time from the begin of a transaction until its sync was done.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
SPOOL_COMMIT_UNITS = _spool.histogram(
    "lettermta_spool_commit_units",
    "How many writes (a new message, an outcome, a cursor) shared one transaction and its sync.",
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
SPOOL_COMMIT_FAILURES = _spool.counter(
    "lettermta_spool_commit_failures", "Transactions that failed and were rolled back: a full disk, an I/O error."
)
SPOOL_QUARANTINED = _spool.counter("lettermta_spool_quarantined", "Recipients put into quarantine, because their record is damaged.")
SPOOL_CONDITION = _spool.gauges(
    "lettermta_spool_condition",
    "1 for the condition that the spool is in, 0 for the others.",
    Label(
        "condition",
        "what it can do",
        {
            "working": "everything is written",
            "low": "less is free than `[limits] free_space`: no new mail, everything else is written",
            "full": "a write found no room: no new mail, the reserve is given back for everything else",
            "broken": "the disk failed: nothing is written until it works again",
        },
    ),
)
SPOOL_CONDITION["working"].set(1)
SPOOL_FREE_BYTES = _spool.gauge("lettermta_spool_free_bytes", "Octets that are free on the spool's file system for lettermta's user.")

# -- queue

_queue = REGISTRY.part("Queue")

QUEUE_RECIPIENTS = _queue.gauges(
    "lettermta_queue_recipients",
    "Recipients in the queue.",
    Label(
        "state",
        "their state",
        {
            "queued": "not tried yet",
            "scheduled": "for later, as the sender asked",
            "deferred": "tried, and to be tried again",
            "held": "held by an operator or a rule",
            "quarantined": "damaged",
        },
    ),
)
QUEUE_MESSAGES = _queue.gauge("lettermta_queue_messages", "Messages in the spool.")
QUEUE_OLDEST_SECONDS = _queue.gauge("lettermta_queue_oldest_seconds", "Age of the oldest message in the spool, 0 when it is empty.")
QUEUE_IN_HAND = _queue.gauge("lettermta_queue_in_hand", "Entries that the scheduler has in memory: waiting for a channel, or on one.")
QUEUE_LANES = _queue.gauge("lettermta_queue_lanes", "Lanes (one domain's mail of one route) that the scheduler has in memory.")
QUEUE_DESTINATIONS = _queue.gauge("lettermta_queue_destinations", "Destinations that the scheduler has in memory.")

# -- delivery

_delivery = REGISTRY.part("Delivery")

TRANSPORT = Label(
    "transport",
    "the way out",
    {"mx": "the domain's MX", "smarthost": "a route's smarthost, or the relayhost", "capture": "a Maildir", "discard": "nowhere"},
)
ATTEMPTS = _delivery.counters(
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
RECIPIENTS = _delivery.counters(
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
DEFERRALS = _delivery.counters(
    "lettermta_deferrals",
    "Times that a recipient was put off to a later attempt.",
    Label("by", "who put it off", {"remote": "a 4yz of the other side", "local": "us: no connection, no answer, a limit"}),
)
REFUSALS = _delivery.counters(
    "lettermta_refusals",
    "What attempts that did not deliver came to for their recipients, by what the refusal was about.",
    Label(
        "state", "what became of the recipient", {"deferred": "put off", "bounced": "given up at once", "expired": "given up in the end"}
    ),
    Label("class", "what it was about, by rules (inbound.md)", REPLY_CLASSES),
)
RETURNS = _delivery.counters(
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
RETURNS_REFUSED = _delivery.counters(
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
DELIVERY_SECONDS = _delivery.histogram(
    "lettermta_delivery_seconds",
    "Time from a message's acceptance until a recipient of it was delivered.",
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400),
)
REPORTS = _delivery.counters(
    "lettermta_reports",
    "Reports to senders (delivery status notifications).",
    Label(
        "kind", "what they tell", {"failure": "a recipient was given up", "delay": "it is late", "success": "it was delivered or relayed"}
    ),
    Label("result", "what came of it", {"stored": "on its way", "over_rate": "not sent: that sender has had too many in a minute"}),
)
REPORTS_FAILED = _delivery.counter("lettermta_reports_failed", "Reports that could not be delivered; only the log tells of them.")
CONVERSIONS = _delivery.counters(
    "lettermta_conversions",
    "Messages with 8-bit or binary content for a server that doesn't take it, each attempt of one once.",
    Label(
        "result",
        "what became of them",
        {"converted": "sent in 7-bit form", "refused": "ended: there is no 7-bit form of it, as it is signed or malformed"},
    ),
)
DKIM_MESSAGES = _delivery.counters(
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
CHANNELS_OPEN = _delivery.gauge("lettermta_channels_open", "Channels (outgoing connections, mostly) that are open now, idle ones included.")
CHANNELS_OPENED = _delivery.counters(
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
CONNECTIONS_OUT = _delivery.counters(
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
TLS_OUT = _delivery.counters(
    "lettermta_tls_out",
    "Outgoing sessions that were ready to send, by how they are encrypted.",
    Label("version", "the TLS version", {**_TLS_VERSIONS, "none": "in clear"}),
)
TLS_POLICIES_OUT = _delivery.counters(
    "lettermta_tls_policies_out",
    "Outgoing sessions that were ready to send, by the policy that decided on their TLS and by how far it can be relied on.",
    Label(
        "policy",
        "where the policy comes from",
        {
            "off": "the operator: never TLS",
            "opportunistic": "nobody asks for TLS: it is used where it is offered",
            "require": "the operator: TLS, with whoever answers",
            "verify": "the operator: TLS with that very host, which gets a password",
            "mta-sts-testing": "the domain's MTA-STS policy, in testing",
            "mta-sts": "the domain's MTA-STS policy, enforced",
            "dane": "the host's TLSA records",
            "dane-unusable": "TLSA records none of which can be used: TLS, with whoever answers",
        },
    ),
    Label(
        "result",
        "how far TLS can be relied on",
        {"verified": "it is that very host", "unverified": "it is whoever answered", "clear": "there is none"},
    ),
)
TLS_RESUMED_OUT = _delivery.counter("lettermta_tls_resumed_out", "Outgoing sessions whose TLS took up an earlier one.")
TLS_RESULTS = _delivery.counters(
    "lettermta_tls_results",
    "Sessions with receivers' hosts as reports on TLS count them (RFC 8460), those included that a policy forbade to begin.",
    Label("policy", "the sort of policy", {"tlsa": "DANE", "sts": "MTA-STS", "no-policy-found": "neither"}),
    Label(
        "result",
        "what came of it",
        {
            "success": "TLS as the policy asks for it",
            "starttls-not-supported": "the host offers no STARTTLS",
            "certificate-host-mismatch": "the certificate is for another name",
            "certificate-expired": "the certificate has expired",
            "certificate-not-trusted": "nobody that is trusted vouches for the certificate",
            "validation-failure": "any other reason: the handshake, no TLSA record that matches, a host that the policy does not name",
            "tlsa-invalid": "no TLSA record that can be used",
            "dnssec-invalid": "the TLSA records could not be validated",
            "sts-policy-fetch-error": "there is an MTA-STS policy, and it can't be fetched",
            "sts-policy-invalid": "the MTA-STS policy is none",
            "sts-webpki-invalid": "the certificate of the policy's web server does not verify",
        },
    ),
)
TLS_REPORTS = _delivery.counters(
    "lettermta_tls_reports",
    "Reports on TLS, one for each domain and day.",
    Label(
        "result",
        "what came of it",
        {
            "sent": "handed over, or on its way by mail",
            "unwanted": "the domain asks for none",
            "given_up": "not to be delivered for two days",
        },
    ),
)
STS_POLICIES = _delivery.gauge("lettermta_mta_sts_policies", "MTA-STS policies that are known, expired ones not yet looked at included.")
STS_FETCHES = _delivery.counters(
    "lettermta_mta_sts_fetches",
    "MTA-STS policies that were fetched, or tried to.",
    Label(
        "result",
        "what came of it",
        {
            "fetched": "it is kept, and in force",
            "sts-policy-fetch-error": "the web server could not be reached, or did not answer by a file",
            "sts-webpki-invalid": "the web server's certificate does not verify",
            "sts-policy-invalid": "what it said is no policy",
        },
    ),
)

SHAPING = Label("shaping", "the most specific `[shaping …]` section that holds for the receiver, `*` where there is none")
RECEIVER_RECIPIENTS = _delivery.counters(
    "lettermta_receiver_recipients",
    "Recipients that were attempted over a connection, by what the receiver made of them.",
    SHAPING,
    Label("result", "what it was", {"taken": "2yz", "deferred": "4yz, or no answer", "refused": "5yz"}),
)
RECEIVER_CONNECTIONS = _delivery.gauges("lettermta_receiver_connections", "Channels that are open to receivers now.", SHAPING)
RECEIVER_ALLOWED = _delivery.gauges(
    "lettermta_receiver_connections_allowed",
    "Channels that may be open now, of all receivers in memory together: fewer than configured after push-backs.",
    SHAPING,
)
RECEIVERS_PAUSED = _delivery.gauges("lettermta_receivers_paused", "Receivers that are left alone now, by a throttle rule.", SHAPING)
RECEIVERS_HELD_BACK = _delivery.gauges(
    "lettermta_receivers_held_back", "Receivers whose mail waits now for the end of a pause, or for its turn by the rate.", SHAPING
)
THROTTLES = _delivery.counters(
    "lettermta_throttles",
    "Pauses of a receiver that a throttle rule began.",
    Label("rule", "the NAME of the `[throttle NAME]` section"),
)

# -- names

_names = REGISTRY.part("Names")

DNS_LOOKUPS = _names.counters(
    "lettermta_dns_lookups",
    "Look-ups of the records of one type.",
    Label(
        "type",
        "the records' type",
        {
            "MX": "hosts of a domain",
            "A": "IPv4 addresses",
            "AAAA": "IPv6 addresses",
            "TLSA": "DANE",
            "CNAME": "aliases",
            "TXT": "policies and keys",
        },
    ),
    Label(
        "result",
        "what came of it",
        {
            "cached": "known already, whatever it is",
            "joined": "the same was being asked: one question for both",
            "found": "there are such records",
            "empty": "the name exists, and has none",
            "no_such_domain": "NXDOMAIN, or no name at all",
            "failed": "no server would tell: its mail is put off",
        },
    ),
)
DNS_SECONDS = _names.histogram(
    "lettermta_dns_seconds",
    "Time that a look-up took which servers were asked for, all tries and CNAMEs together.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
DNS_TRIES_FAILED = _names.counters(
    "lettermta_dns_tries_failed",
    "Questions to one server that got no usable answer.",
    Label(
        "cause",
        "why",
        {
            "silent": "no answer in time, or not reachable",
            "SERVFAIL": "the server failed, or the answer did not validate",
            "REFUSED": "the server does not serve us",
            "unusable": "malformed, a referral, a CNAME loop",
        },
    ),
)
DNS_CACHE_ENTRIES = _names.gauge("lettermta_dns_cache_entries", "Answers in the cache.")

# -- events

_events = REGISTRY.part("Events")

SINK = Label("sink", "the reader's name: `json_log`, or `hook:` and a dotted name of `[events] hooks`")
EVENTS_TOLD = _events.counters("lettermta_events_told", "Events that a reader of the outbox has taken, repeats included.", SINK)
EVENTS_FAILED = _events.counters(
    "lettermta_events_failed", "Times that a reader failed and was left alone for a while; what it did not take is told again.", SINK
)
EVENTS_BEHIND = _events.gauges(
    "lettermta_events_behind",
    "Events that a reader has not taken yet. After a start it counts only what is known: all of it from the first new event on.",
    SINK,
)
EVENTS_WORKING = _events.gauges("lettermta_events_working", "1 while a reader takes events, 0 while it is left alone or stopped.", SINK)
EVENTS_FORGOTTEN = _events.counter("lettermta_events_forgotten", "Events removed from the outbox behind the retention time.")

# -- webhooks

_webhooks = REGISTRY.part("Webhooks")

WEBHOOK_ATTEMPTS = _webhooks.counters(
    "lettermta_webhook_attempts",
    "Attempts to tell a webhook of an event, repeats included.",
    Label(
        "status",
        "what came of it",
        {
            "success": "2xx",
            "failed": "no answer that counts: no connection, an address that isn't allowed, a redirect",
            "client_error": "4xx",
            "server_error": "5xx",
            "timeout": "no whole answer in time",
        },
    ),
)
WEBHOOK_PENDING = _webhooks.gauge(
    "lettermta_webhook_pending", "Deliveries to webhooks that are not over, those of webhooks that are off too."
)
WEBHOOK_OLDEST_SECONDS = _webhooks.gauge("lettermta_webhook_oldest_seconds", "How long the one of them waits that waits longest.")
WEBHOOKS_FAILING = _webhooks.gauge(
    "lettermta_webhooks_failing", "Webhooks that are on and whose requests all failed for five minutes or more."
)
WEBHOOKS_OFF = _webhooks.gauge("lettermta_webhooks_off", "Webhooks that are switched off, by their owner or for a 410.")
WEBHOOK_RESTARTS = _webhooks.counter("lettermta_webhook_restarts", "Times that the process which sends webhooks ended unasked.")

# -- accounts

_accounts = REGISTRY.part("Accounts")

ACCOUNTS_READ = _accounts.counters(
    "lettermta_accounts_read",
    "Times that all accounts were read, at the start and behind each change.",
    Label("result", "what came of it", {"succeeded": "they are in force", "failed": "the ones read before stay in force"}),
)
ACCOUNTS_STALE = _accounts.gauge(
    "lettermta_accounts_stale", "1 while changes to accounts can't be read, so that a revoked token may still be good."
)

# -- suppression

_suppression = REGISTRY.part("Suppression")

_REASON = Label(
    "reason",
    "why nothing is sent there",
    {
        "spam_complaint": "the recipient complained",
        "hard_bounce": "there is no such mailbox, as its server said",
        "unsubscribe": "the recipient unsubscribed",
        "manual": "an operator said so",
    },
)
SUPPRESSIONS = _suppression.gauges("lettermta_suppressions", "Suppressions that there are.", _REASON)
SUPPRESSIONS_ADDED = _suppression.counters(
    "lettermta_suppressions_added", "Suppressions that the daemon added, once that is durable.", _REASON
)
SUPPRESSIONS_REMOVED = _suppression.counters(
    "lettermta_suppressions_removed", "Suppressions that the daemon removed, once that is durable.", _REASON
)
RECIPIENTS_SUPPRESSED = _suppression.counters(
    "lettermta_recipients_suppressed",
    "Recipients that nothing was sent to as they are suppressed.",
    Label("found", "when that was found", {"submitted": "when the message came in", "queued": "before a later attempt"}),
)

# -- process

_process = REGISTRY.part("Process")

BUILD = _process.gauges(
    "lettermta_build_info",
    "Always 1: what runs.",
    Label("version", "lettermta's version"),
    Label("python", "Python's version"),
)
BUILD[__version__, platform.python_version()].set(1)
CERTIFICATE_EXPIRES = _process.gauge(
    "lettermta_certificate_expires_seconds", "When the first of the certificates in use expires, as seconds since 1970."
)
CERTIFICATE_SELF_SIGNED = _process.gauge(
    "lettermta_certificate_self_signed",
    "1 while a self-signed certificate is in use, none being configured: clients that verify refuse it.",
)
RELOADS = _process.counters(
    "lettermta_reloads",
    "Reloads that were asked for (SIGHUP).",
    Label("result", "what came of it", {"succeeded": "in force", "refused": "faults were found, and the old state stays in force"}),
)
