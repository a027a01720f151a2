"""Connections, sessions, logins: what clients do at the listeners, before and beside their mail."""

from lettermta.metrics.parts import EDGE, TLS_VERSIONS
from lettermta.metrics.registry import Label

LISTENER = Label("listener", "the NAME of a `[listener NAME]` section")
CONNECTIONS_ACCEPTED = EDGE.counters(
    "lettermta_connections_accepted", "Connections that a listener took on, before anything was read from them.", LISTENER
)
CONNECTIONS_REFUSED = EDGE.counters(
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
SESSIONS_OPEN = EDGE.gauges("lettermta_sessions_open", "Connections of clients that are open now.", LISTENER)
SESSIONS_ENDED = EDGE.counters(
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
TLS_HANDSHAKES = EDGE.counters(
    "lettermta_tls_handshakes",
    "TLS handshakes with clients that were completed.",
    Label("version", "the version agreed on", TLS_VERSIONS),
)
TLS_FAILURES = EDGE.counters(
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
COMMANDS_REFUSED = EDGE.counters(
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
LOGINS = EDGE.counters(
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
