"""What comes in: who may submit, what mail must be like, and how much of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lettermta.config import kinds
from lettermta.config.kinds import Network
from lettermta.config.schema.declaring import Section, key, rest


class BareLineEnds(enum.StrEnum):
    """What becomes of a CR or LF in content that is not part of a CRLF."""

    REFUSE = "refuse"
    REPAIR = "repair"


class EightBitHeaders(enum.StrEnum):
    """What becomes of a header with bytes above 127 that came without SMTPUTF8."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class ReceivedHeader(enum.StrEnum):
    """What the Received field that is added tells of the client (RFC 5321 section 4.4)."""

    FULL = "full"
    ANONYMOUS = "anonymous"
    NONE = "none"


class PolicyFailure(enum.StrEnum):
    """What becomes of a message over which a policy came to no verdict."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class Submission(Section):
    """Who logs in, and what submitted mail must be like."""

    usernames: tuple[str, ...] = key(
        kinds.USERNAMES,
        "The user names that log in; the password is always a project's token. They are compared exactly.",
        default="lettermint, lettr",
    )
    received_header: ReceivedHeader = key(
        kinds.choice(ReceivedHeader),
        "The Received field that is added: full tells the client's address and the name it gave, anonymous neither of the two, none adds "
        "no field (loops are found by it, so none is for mail that goes to a server of your own). A route may have its own.",
        default="full",
        postfix="header_checks that take Received out",
    )
    message_id_domain: str | None = key(
        kinds.DOMAIN, "What stands behind the @ of a Message-ID that is added or minted.", default="", shown="mta.hostname"
    )
    bare_line_ends: BareLineEnds = key(
        kinds.choice(BareLineEnds),
        "A CR or LF alone in content: refuse the message, or repair it to CRLF. Nothing but CRLF . CRLF ever ends a message.",
        default="refuse",
        postfix="smtpd_forbid_bare_newline",
    )
    eight_bit_headers: EightBitHeaders = key(
        kinds.choice(EightBitHeaders),
        "Headers with bytes above 127 that come without SMTPUTF8, which many applications send.",
        default="accept",
        postfix="strict_7bit_headers",
    )
    header_fields: int = key(kinds.NUMBER, "Most header fields of one message.", default="1000")
    policies: tuple[str, ...] = key(
        kinds.HOOKS,
        "Python classes (ISubmissionPolicy) that look at each message before it is stored, asked in this order.",
        default="",
        example="example_policies.NoPrograms",
        postfix="smtpd_milters, check_policy_service",
    )
    policy_timeout: float = key(
        kinds.DURATION, "How long each policy may take over a message.", default="5s", postfix="milter_content_timeout"
    )
    policy_failure: PolicyFailure = key(
        kinds.choice(PolicyFailure),
        "What a policy that raises or takes too long means: refuse answers 451, so that the client tries again; accept goes on without it.",
        default="refuse",
        postfix="milter_default_action",
    )


class Policy(Section):
    """What the policy of that name in [submission] is made with; needed only where its class takes arguments."""

    name: str = key(kinds.DOTTED, "The policy as it is named in [submission] policies.", example="example_policies.NoPrograms", titles=True)
    settings: Mapping[str, str] = rest(
        "Each key is handed, as text, to the argument of that name when the class is called.", example="endings = .exe .scr"
    )


class Limits(Section):
    """How much is too much."""

    message_size: int = key(
        kinds.SIZE, "Largest message, headers and encoding included; announced by SIZE.", default="25MB", postfix="message_size_limit"
    )
    recipients: int = key(kinds.NUMBER, "Most recipients of one message.", default="1000", postfix="smtpd_recipient_limit")
    connections: int = key(kinds.NUMBER, "Most connections at once, of all listeners.", default="10000", postfix="default_process_limit")
    connections_per_address: int = key(
        kinds.NUMBER,
        "Most connections at once from one address; its network (/24, IPv6: /64) may have four times as many.",
        default="100",
        postfix="smtpd_client_connection_count_limit",
    )
    exempt_networks: tuple[Network, ...] = key(
        kinds.NETWORKS,
        "Networks that the caps per address and the shutting out after failed logins do not hold for.",
        default="127.0.0.0/8, ::1/128",
        postfix="smtpd_client_event_limit_exceptions",
    )
    command_timeout: float = key(
        kinds.DURATION, "How long a client may take over a whole command, however its bytes come.", default="5m", postfix="smtpd_timeout"
    )
    data_timeout: float = key(
        kinds.DURATION, "How long a client may be silent within a message's content.", default="3m", postfix="smtpd_timeout"
    )
    minimum_rate: int = key(
        kinds.SIZE,
        "Bytes a second that content has to come at in the long run; slower senders are cut off.",
        default="500",
        postfix="smtpd_min_data_rate",
    )
    free_space: int = key(
        kinds.SIZE,
        "What is to stay free on the spool's file system: below it new mail gets 452, and what is queued still goes out.",
        default="256MB",
        postfix="queue_minfree",
    )
    errors: int = key(kinds.NUMBER, "Refused commands after which a session is ended.", default="20", postfix="smtpd_hard_error_limit")
    auth_failures: int = key(
        kinds.NUMBER,
        "Failed logins after which a session is ended and its address shut out for ten minutes.",
        default="10",
        postfix="smtpd_client_auth_rate_limit",
    )
