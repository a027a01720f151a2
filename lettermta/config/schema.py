"""Every section and key there is, declared once: the reader, ``etc/mta.ini`` and ``docs/configuration.md`` follow from this module.

A new key is one line in its section's class; a new section is one class and one line in :class:`Config`. A section's name in the file
is its class's name in lower case, and the docstring is what the operator reads about it. A key enters the schema when it works.

Sections can also be made in Python, by keywords; whatever is left out has the same default as in the file. The kinds and what a section
objects to are then not asked.
"""

from __future__ import annotations

import enum
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

import attrs
from attrs import frozen

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.kinds import AMQPAddress, HostPort, Kind, Network, Rate
from lettermta.config.reply_rules import ReplyRule

T = TypeVar("T")


def _machine_name() -> str:
    return socket.gethostname()  # and not getfqdn(), which asks DNS and may block


class Security(enum.StrEnum):
    """How a listener's channel becomes encrypted."""

    STARTTLS = "starttls"
    TLS = "tls"
    AUTO = "auto"


class Role(enum.StrEnum):
    """What mail a listener takes."""

    SUBMISSION = "submission"
    BOUNCES = "bounces"
    BOTH = "both"


class BareLineEnds(enum.StrEnum):
    """What becomes of a CR or LF in content that is not part of a CRLF."""

    REFUSE = "refuse"
    REPAIR = "repair"


class EightBitHeaders(enum.StrEnum):
    """What becomes of a header with bytes above 127 that came without SMTPUTF8."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class PolicyFailure(enum.StrEnum):
    """What becomes of a message over which a policy came to no verdict."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class Unroutable(enum.StrEnum):
    """What becomes of an event that no queue of the broker is bound for."""

    WAIT = "wait"
    DROP = "drop"


class AuthBeforeTLS(enum.StrEnum):
    """The SASL mechanisms that a listener offers in clear."""

    NONE = "none"
    CRAM_MD5 = "cram-md5"
    ALL = "all"


class TLSVersion(enum.StrEnum):
    """The TLS versions that may be the lowest."""

    V1_2 = "TLSv1.2"
    V1_3 = "TLSv1.3"


class DeliveryTLS(enum.StrEnum):
    """What delivery wants of TLS."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    OFF = "off"


class Validating(enum.StrEnum):
    """Whether name servers are believed what they say of DNSSEC."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"


@frozen
class Key:
    """All there is to know of a key: its name, its kind and what the operator reads."""

    name: str
    kind: Kind[Any]
    doc: str
    default: str | Callable[[], str] | None
    """The default as it would be written in the file, or what makes it; None: the key is required."""
    shown: str
    """The default in words, when it isn't a fixed text."""
    example: str
    postfix: str
    """What Postfix calls it."""
    titles: bool
    """Its value is not on a line of its own but in the section's header, behind the section's name."""
    rest: bool = False
    """Not a key but all those that the section has and the schema doesn't know, as a mapping of texts."""

    def default_text(self) -> str:
        """The default as it would be written in the file; only for keys that have one."""
        assert self.default is not None
        return self.default if isinstance(self.default, str) else self.default()


def key(
    kind: Kind[T],
    doc: str,
    *,
    default: str | Callable[[], str] | None = None,
    shown: str = "",
    example: str = "",
    postfix: str = "",
    titles: bool = False,
) -> T:
    """Declare a key, as the value of a class's attribute; see :class:`Key`."""
    metadata = {"kind": kind, "doc": doc, "default": default, "shown": shown, "example": example, "postfix": postfix, "titles": titles}
    if default is None:
        field = attrs.field(metadata=metadata)
    else:
        field = attrs.field(metadata=metadata, factory=lambda: kind.parse(default if isinstance(default, str) else default(), Path("/")))
    return field  # type: ignore[no-any-return]


def rest(doc: str, *, example: str) -> Mapping[str, str]:
    """Declare that a section takes keys of any name, for somebody else to judge; ``example`` is one of them with its value."""
    told = {"kind": kinds.TEXT, "doc": doc, "default": "", "shown": "", "example": example, "postfix": ""}
    return attrs.field(metadata={**told, "titles": False, "rest": True}, factory=dict)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(key, rest))
class Section:
    """A section of the file; each subclass is a frozen attrs class whose fields are its keys."""

    least: ClassVar[int] = 0
    """How many the file must have, of those with a name."""

    def __init_subclass__(cls) -> None:
        attrs.frozen(cls, kw_only=True, slots=False)

    @classmethod
    def declared(cls) -> list[Key]:
        """The section's keys, in their order."""
        return [Key(field.name, **field.metadata) for field in attrs.fields(cls)]  # type: ignore[arg-type]

    @classmethod
    def written(cls) -> list[Key]:
        """Those keys that have a line of their own."""
        return [key for key in cls.declared() if not key.titles and not key.rest]

    @classmethod
    def open_to(cls) -> Key | None:
        """What stands for keys of any name, in a section that takes them."""
        return next((key for key in cls.declared() if key.rest), None)

    @classmethod
    def named(cls) -> bool:
        """Whether the file may have several of them, each with a name: ``[listener smtp]``."""
        return any(key.titles for key in cls.declared())

    def objections(self) -> Iterable[Objection]:
        """What is wrong with the values together."""
        return ()


class Mta(Section):
    """This machine and this process."""

    hostname: str = key(
        kinds.HOSTNAME,
        "The name in the banner, in EHLO and in Received. Receivers want it to be public and to agree with reverse DNS.",
        default=_machine_name,
        shown="this machine's name",
        example="mta.example.com",
        postfix="myhostname",
    )
    state_dir: Path = key(
        kinds.PATH,
        "The folder for spool, accounts, keys and the control socket, on a local disk. lettermta must be able to write it.",
        default="/var/lib/lettermta",
        postfix="queue_directory, data_directory",
    )
    workers: int = key(kinds.WORKERS, "Number of processes. Only 1 works as of now.", default="1")


class Tls(Section):
    """Encryption on the way in.

    Without a certificate, a self-signed one is made under state_dir at the first start: good enough to try things, refused by clients
    that verify.
    """

    certificate: tuple[Path, ...] = key(
        kinds.FILES,
        "PEM files, each with a certificate and its chain. Several are chosen from by the name that the client asks for (SNI).",
        default="",
        example="/etc/lettermta/fullchain.pem",
        postfix="smtpd_tls_chain_files, smtpd_tls_cert_file",
    )
    private_key: tuple[Path, ...] = key(
        kinds.FILES,
        "PEM files with the certificates' private keys, in the same order, of mode 0600 or 0640. RSA and ECDSA pairs for the same names "
        "are both served.",
        default="",
        example="/etc/lettermta/privkey.pem",
        postfix="smtpd_tls_key_file",
    )
    minimum: TLSVersion = key(
        kinds.choice(TLSVersion), "The lowest TLS version that clients may use.", default="TLSv1.2", postfix="smtpd_tls_protocols"
    )
    ciphers: str = key(
        kinds.CIPHERS,
        "The ciphers for TLS 1.2; those of TLS 1.3 are all good.",
        default=kinds.MODERN_CIPHERS,
        postfix="tls_high_cipherlist",
    )

    def objections(self) -> Iterable[Objection]:
        """Certificates and keys come in pairs."""
        certificates, keys = len(self.certificate), len(self.private_key)
        if certificates != keys:
            yield Objection(
                "private_key" if keys else "certificate",
                f"the number of certificates is {certificates}, that of private keys {keys}",
                "one private_key for each certificate, in the same order",
            )


class Listener(Section):
    """Ports where applications submit mail. There may be several of these sections, each with a name; at least one is needed."""

    least = 1

    name: str = key(kinds.NAME, "What logs and counters call the listener.", titles=True)
    ports: tuple[int, ...] = key(kinds.PORTS, "TCP ports to listen on.", postfix="the service's line in master.cf")
    addresses: tuple[str, ...] = key(
        kinds.ADDRESSES,
        "The local addresses to listen on: 0.0.0.0 is every IPv4 address, :: every IPv6 address.",
        default="0.0.0.0, ::",
        postfix="inet_interfaces",
    )
    security: Security = key(
        kinds.choice(Security),
        "starttls begins in clear and offers STARTTLS; tls is encrypted from the first byte; auto is both on one port: the client's "
        "first byte decides.",
        default="starttls",
        postfix="smtpd_tls_security_level, smtpd_tls_wrappermode",
    )
    auth_before_tls: AuthBeforeTLS = key(
        kinds.choice(AuthBeforeTLS),
        "What a client may log in with before the channel is encrypted: nothing, only CRAM-MD5 (which doesn't send the token), or "
        "anything (for a private wire).",
        default="none",
        postfix="smtpd_tls_auth_only",
    )
    detection_time: float = key(
        kinds.DURATION,
        "With security = auto: how long a client may stay silent before it gets the banner in clear.",
        default="500ms",
    )
    trusted_networks: tuple[Network, ...] = key(
        kinds.TRUSTED_NETWORKS,
        "Clients in these networks submit without logging in, for trusted_project: meant for machines that can't log in.",
        default="",
        example="192.0.2.0/28",
        postfix="mynetworks",
    )
    trusted_project: str = key(kinds.PROJECT, "The project that clients in trusted_networks submit for.", default="", example="printers")
    proxy_protocol_from: tuple[Network, ...] = key(
        kinds.NETWORKS,
        "Load balancers whose connections begin with a PROXY header (version 1 or 2) that tells the client's address. Nobody else's may.",
        default="",
        example="192.0.2.7/32",
        postfix="smtpd_upstream_proxy_protocol",
    )
    role: Role = key(
        kinds.choice(Role),
        "submission takes mail from those who log in; bounces only what comes back to a return path; both does both.",
        default="submission",
    )

    def objections(self) -> Iterable[Objection]:
        """Trust names both who and for whom; an address is listened on once."""
        if self.trusted_networks and not self.trusted_project:
            yield Objection("trusted_networks", "there is no trusted_project for them", "both or neither")
        if self.trusted_project and not self.trusted_networks:
            yield Objection("trusted_project", "there are no trusted_networks for it", "both or neither")
        for number, address in enumerate(self.addresses):
            if any(overlap(address, other) for other in self.addresses[:number]):
                yield Objection(
                    "addresses", "overlaps another address of this listener", "0.0.0.0 or single IPv4 addresses, likewise ::", address
                )


class Submission(Section):
    """Who logs in, and what submitted mail must be like."""

    usernames: tuple[str, ...] = key(
        kinds.USERNAMES,
        "The user names that log in; the password is always a project's token. They are compared exactly.",
        default="lettermint, lettr",
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


class Dns(Section):
    """The resolver that delivery asks."""

    servers: tuple[HostPort, ...] = key(
        kinds.NAME_SERVERS,
        "Name servers, asked in this order.",
        default="",
        shown="those of /etc/resolv.conf",
        example="127.0.0.1, 192.0.2.53:5300",
    )
    timeout: float = key(kinds.DURATION, "How long to wait for an answer.", default="5s")
    validating: Validating = key(
        kinds.choice(Validating),
        "Whether the servers validate DNSSEC, and the path to them is safe, so that what they say of it (the AD bit) is believed, as "
        "DANE needs it. auto is yes where servers names only addresses of this machine (127.0.0.0/8, ::1), else no.",
        default="auto",
        postfix="smtp_dns_support_level = dnssec",
    )

    @property
    def trusted(self) -> bool:
        """Whether the AD bit is believed."""
        if self.validating is Validating.AUTO:
            return bool(self.servers) and all(ip_address(server.host).is_loopback for server in self.servers)
        return self.validating is Validating.YES


class Delivery(Section):
    """The way out: to the MX of each recipient's domain, or through a relay."""

    port: int = key(kinds.PORT, "The port of the receivers' hosts.", default="25")
    relayhost: HostPort | None = key(
        kinds.RELAY,
        "Send everything through this host instead of each domain's MX. A name is looked up as a host, not as a domain with MX records.",
        default="",
        example="smtp.example.com:587",
        postfix="relayhost = [smtp.example.com]:587",
    )
    schedule: tuple[float, ...] = key(
        kinds.DURATIONS,
        "Delays between attempts, each a little varied at random. The last one repeats until lifetime is over. A route may have its own.",
        default="5m, 15m, 30m, 1h, 2h, 4h",
        postfix="minimal_backoff_time, maximal_backoff_time",
    )
    lifetime: float = key(
        kinds.DURATION,
        "How long to try before the message fails as expired. A route may have its own.",
        default="5d",
        postfix="maximal_queue_lifetime",
    )
    bounce: bool = key(
        kinds.BOOLEAN,
        "Send reports (bounces) to the senders of mail that fails, as NOTIFY asks. With no, events alone tell what became of mail.",
        default="yes",
    )
    suppress_bounced: bool = key(
        kinds.BOOLEAN,
        "Suppress, for its project, an address of which its own server said that there is no such mailbox.",
        default="yes",
    )
    bounce_host: str | None = key(
        kinds.DOMAIN,
        "The host that the return paths of domains (rp.example.com) are an alias of: bounces come back to it.",
        default="",
        shown="mta.hostname",
        example="bounces.example.com",
    )
    delay_warning: float | None = key(
        kinds.optional(kinds.DURATION),
        "Tell the sender, once for each recipient, when it has been deferred for so long. Empty: never.",
        default="",
        example="4h",
        postfix="delay_warning_time",
    )
    tls: DeliveryTLS = key(
        kinds.choice(DeliveryTLS),
        "opportunistic uses STARTTLS where it is offered; require sends nothing in clear; off never uses it.",
        default="opportunistic",
        postfix="smtp_tls_security_level",
    )
    dane: bool = key(
        kinds.BOOLEAN,
        "Obey the TLSA records of receivers' hosts (RFC 7672). They are looked up only where [dns] validating holds.",
        default="yes",
        postfix="smtp_tls_security_level = dane",
    )
    mta_sts: bool = key(
        kinds.BOOLEAN,
        "Obey the MTA-STS policies of receivers' domains (RFC 8461), which are fetched by HTTPS. Where both are there, DANE counts.",
        default="yes",
        postfix="smtp_tls_policy_maps, by a server of its own",
    )
    tls_report_from: str | None = key(
        kinds.MAIL_ADDRESS,
        "Who reports to receivers' domains how TLS to their hosts went (RFC 8460): an address in a domain of a project, by whose keys "
        "reports are signed. Empty: no reports are sent, and lettermta-admin tlsrpt shows them all the same.",
        default="",
        shown="nobody",
        example="tls-reports@example.com",
    )
    tls_report_organization: str | None = key(
        kinds.TEXT, "How these reports call us.", default="", shown="mta.hostname", example="Example Ltd"
    )
    tls_ca_file: Path | None = key(
        kinds.AUTHORITIES,
        "A PEM file of the authorities that verify certificates on the way out, and those of MTA-STS policies' web servers.",
        default="",
        shown="the system's",
        example="/etc/ssl/certs/ca-certificates.crt",
        postfix="smtp_tls_CAfile",
    )
    allow_networks: tuple[Network, ...] = key(
        kinds.NETWORKS,
        "Loopback and private addresses in these networks are delivered to as well; all others of that sort are refused.",
        default="",
        example="10.0.0.0/8",
    )
    connect_timeout: float = key(
        kinds.DURATION, "How long a host may take to accept a connection.", default="30s", postfix="smtp_connect_timeout"
    )
    banner_timeout: float = key(
        kinds.DURATION, "How long a host may take to greet us once we are connected.", default="5m", postfix="smtp_helo_timeout"
    )
    command_timeout: float = key(
        kinds.DURATION, "How long a host may take to answer a command.", default="5m", postfix="smtp_mail_timeout, smtp_rcpt_timeout"
    )
    data_start_timeout: float = key(
        kinds.DURATION, "How long a host may take to answer DATA.", default="2m", postfix="smtp_data_init_timeout"
    )
    data_block_timeout: float = key(
        kinds.DURATION, "How long a host may take over a piece of a message's content.", default="3m", postfix="smtp_data_xfer_timeout"
    )
    data_timeout: float = key(
        kinds.DURATION, "How long a host may take to answer the end of a message.", default="10m", postfix="smtp_data_done_timeout"
    )
    complaint_addresses: tuple[str, ...] = key(
        kinds.MAIL_ADDRESSES,
        "Addresses, besides the return paths, where providers may send complaints about mail (feedback loops, RFC 5965). Listeners with "
        "the role bounces or both take them.",
        default="",
        example="fbl@bounces.example.com",
    )
    reply_classes: tuple[ReplyRule, ...] = key(
        kinds.REPLY_RULES,
        "A file of rules that tell what refusals are about (events, counters, shaping); they go before those that are shipped.",
        default="",
        shown="the shipped rules alone",
        example="/etc/lettermta/reply-classes.toml",
    )
    source_addresses: tuple[str, ...] = key(
        kinds.SOURCES,
        "The local addresses that mail leaves from, in turn, where its route names no pool: for names of their own see [source …].",
        default="",
        shown="what the system chooses",
        example="192.0.2.10, 2001:db8::10",
        postfix="smtp_bind_address, smtp_bind_address6",
    )
    pool: str | None = key(
        kinds.optional(kinds.NAME),
        "The [pool …] that mail leaves from where its route names none.",
        default="",
        shown="none",
        example="transactional",
    )
    throttle_rules: Path | None = key(
        kinds.optional(kinds.READABLE_FILE),
        "A file of [throttle NAME] sections: replies at which a whole destination is left alone for a while. They come before those that "
        "lettermta brings along, which docs/delivery.md shows.",
        default="",
        example="/etc/lettermta/throttles.ini",
    )
    capture_all: bool = key(
        kinds.BOOLEAN,
        "Send nothing: keep every message in a Maildir under state_dir/capture, whatever its route says. For development.",
        default="no",
    )


class Shaping(Section):
    """How much mail a receiver gets at once.

    The name is a recipient's domain or the name of an MX host, or a pattern of either (* and ?). Where several sections match, each key is
    taken from the most specific one that sets it: a whole name before a pattern, the domain before its MX hosts, a longer pattern before a
    shorter one; and what comes with lettermta for the large receivers stands behind a section of yours of the same name.
    """

    pattern: str = key(kinds.PATTERN, "Whom it is for: a domain, the name of an MX host, or a pattern.", example="gmail.com", titles=True)
    connections: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Most connections at once. There are fewer for a while when the receiver turns mail or connections away for now.",
        default="",
        shown="20",
        example="5",
        postfix="default_destination_concurrency_limit",
    )
    messages_per_connection: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Messages after which a connection is ended.",
        default="",
        shown="1000",
        example="50",
        postfix="smtp_connection_reuse_count_limit",
    )
    rate: Rate | None = key(
        kinds.optional(kinds.RATE),
        "Most messages in a second, minute or hour, sent at even intervals.",
        default="",
        shown="no limit",
        example="100/m",
        postfix="default_destination_rate_delay",
    )
    recipients_per_message: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Recipients that a message may have; one with more goes in several transactions.",
        default="",
        shown="100",
        example="20",
        postfix="default_destination_recipient_limit",
    )
    schedule: tuple[float, ...] | None = key(
        kinds.optional(kinds.DURATIONS),
        "Delays between attempts at this receiver, whatever the route's own are.",
        default="",
        shown="that of the route, or of [delivery]",
        example="15m, 1h, 4h",
    )
    idle_time: float | None = key(
        kinds.optional(kinds.DURATION),
        "How long a connection is kept when there is nothing to send.",
        default="",
        shown="10s",
        example="2s",
        postfix="smtp_connection_cache_time_limit",
    )
    tls: DeliveryTLS | None = key(
        kinds.optional(kinds.choice(DeliveryTLS)),
        "What this receiver's hosts must do of TLS, as in [delivery] tls. For require name the domain: who its MX hosts are is not certain "
        "without DNSSEC.",
        default="",
        shown="that of the route, or of [delivery]",
        example="require",
        postfix="smtp_tls_policy_maps",
    )
    together: bool | None = key(
        kinds.optional(kinds.BOOLEAN),
        "Whether all that this section matches counts as one destination, though the MX hosts have different names.",
        default="",
        shown="no",
        example="yes",
    )


class Source(Section):
    """An address of this machine that mail leaves from, with the name it has there. Routes choose among them by pools."""

    name: str = key(kinds.NAME, "What pools and logs call it.", example="mta1", titles=True)
    addresses: tuple[str, ...] = key(
        kinds.ADDRESSES,
        "Local addresses: one IPv4 address, one IPv6 address, or one of each. Where it has none of a family, that family is not used.",
        example="192.0.2.10, 2001:db8::10",
        postfix="smtp_bind_address, smtp_bind_address6",
    )
    hostname: str | None = key(
        kinds.DOMAIN,
        "The name in EHLO. Receivers want it to agree with the reverse DNS of the addresses.",
        default="",
        shown="mta.hostname",
        example="mta1.example.com",
        postfix="smtp_helo_name",
    )
    warm_up: tuple[int, ...] | None = key(
        kinds.optional(kinds.PLAN),
        "A new address: how many messages each receiver gets from it at the most on its first day, on its second day and so on. What is "
        "more goes by the pool's other addresses. Behind the last number there is no limit.",
        default="",
        example="50, 100, 250, 500, 1000, 2500, 5000, 10000",
    )
    warm_up_from: date | None = key(
        kinds.optional(kinds.DAY),
        "The first day of the plan (UTC).",
        default="",
        shown="the day of the first message",
        example="2026-12-01",
    )

    def objections(self) -> Iterable[Objection]:
        """Which address of a family is used would be anyone's guess."""
        for version in (4, 6):
            if len([each for each in self.addresses if ip_address(each).version == version]) > 1:
                yield Objection(
                    "addresses", f"there are several of IPv{version}", "one of each at the most, and another [source …] for the next one"
                )
        if self.warm_up_from is not None and self.warm_up is None:
            yield Objection("warm_up_from", "there is no warm_up", "both, or warm_up alone")


class Pool(Section):
    """Sources that mail of a route leaves from, in turn (lettermta-admin route update --pool NAME)."""

    name: str = key(kinds.NAME, "What routes call it.", example="transactional", titles=True)
    sources: tuple[str, ...] = key(kinds.NAMES, "The names of its [source …] sections.", example="mta1, mta2")


class Throttle(Section):
    """A reply at which the whole destination is left alone for a while; what isn't given matches anything.

    These sections have files of their own: the one that comes with lettermta, and ``[delivery] throttle_rules``. The first one that
    matches counts.
    """

    name: str = key(kinds.NAME, "What the log calls the rule.", example="shop", titles=True)
    mx: tuple[str, ...] = key(kinds.PATTERNS, "The hosts that say so, by name or pattern.", default="", example="*.yahoodns.net")
    codes: tuple[str, ...] = key(kinds.CODES, "Reply codes.", default="", shown="4??", example="421, 45?")
    enhanced: tuple[str, ...] = key(kinds.ENHANCED_CODES, "Enhanced codes (RFC 3463).", default="", example="4.7.*")
    text: re.Pattern[str] | None = key(kinds.optional(kinds.EXPRESSION), "What the reply's text holds.", default="", example="rate limit")
    pause: float | None = key(
        kinds.optional(kinds.DURATION),
        "How long the destination is left alone. Twice as long each time in a row, up to eight times as long.",
        default="",
        shown="not at all: such a reply says nothing about the destination",
        example="5m",
    )

    def objections(self) -> Iterable[Objection]:
        """A rule that matches everything would stop all mail at the first greylisting."""
        if not (self.codes or self.enhanced or self.text):
            yield Objection("name", "the rule would match whatever is temporary", "codes, enhanced or text in it")


class Events(Section):
    """Who is told what became of the mail."""

    json_log: Path | None = key(
        kinds.FILE, "A file that gets one line of JSON for each event.", default="", example="/var/log/lettermta/events.jsonl"
    )
    json_log_size: int | None = key(
        kinds.optional(kinds.SIZE),
        "When the event log would get larger than that, a new one is begun and the old one is called .1, the one before it .2 and so on. "
        "Empty: lettermta does not rotate it; whoever else renames it gets a new one too.",
        default="",
        example="100MB",
    )
    json_log_keep: int = key(kinds.NUMBER, "How many event logs are kept besides the one at hand, with json_log_size.", default="10")
    retention: float = key(
        kinds.DURATION, "How long events are kept to be read again; what a reader has yet to take is kept longer.", default="7d"
    )
    webhook_concurrency: int = key(kinds.NUMBER, "Requests that may be under way at the same time for each webhook.", default="10")
    webhook_schedule: tuple[float, ...] = key(
        kinds.DURATIONS,
        "Delays before the second and each further attempt to tell a webhook of an event; behind the last one it is given up.",
        default="5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h",
    )
    webhook_allow_networks: tuple[Network, ...] = key(
        kinds.NETWORKS,
        "Loopback and private addresses in these networks may be endpoints of webhooks; all others of that sort are refused.",
        default="",
        example="10.0.0.0/8",
    )
    webhook_retention: float = key(kinds.DURATION, "How long records of deliveries to webhooks are kept.", default="7d")
    hooks: tuple[str, ...] = key(
        kinds.HOOKS, "Python classes (IEventHook) that get every event.", default="", example="shop_hooks.BounceList"
    )


class Hook(Section):
    """What the hook of that name in [events] is made with; needed only where its class takes arguments."""

    name: str = key(kinds.DOTTED, "The hook as it is named in [events] hooks.", example="shop_hooks.BounceList", titles=True)
    settings: Mapping[str, str] = rest(
        "Each key is handed, as text, to the argument of that name when the class is called.", example="path = /var/lib/shop/bounced.txt"
    )


class Amqp(Section):
    """Events to an AMQP 0-9-1 broker such as RabbitMQ, each confirmed by it. It needs an extra package: pip install lettermta[amqp]."""

    url: AMQPAddress | None = key(
        kinds.AMQP,
        "The broker; amqps is TLS with its certificate verified. Without it, no events are published.",
        default="",
        example="amqps://lettermta@broker.example.com/mail",
    )
    password_file: Path | None = key(
        kinds.FILE,
        "A file whose first line is the password, in place of the one in the URL; read at each connection.",
        default="",
        example="/etc/lettermta/amqp.password",
    )
    exchange: str = key(kinds.EXCHANGE, "Where events are published.", default="lettermta")
    declare: bool = key(kinds.BOOLEAN, "Have the exchange made if it isn't there: durable, of type topic.", default="yes")
    routing_key: str = key(
        kinds.ROUTING_KEY,
        "The routing key, made of the slugs of project and route and the event's name.",
        default="{project}.{route}.{event}",
    )
    unroutable: Unroutable = key(
        kinds.choice(Unroutable),
        "An event that no queue is bound for: wait tries again until there is one, and all later events wait too; drop passes over it.",
        default="wait",
    )
    ca: Path | None = key(
        kinds.FILE, "PEM file of the authorities that the broker's certificate may come from.", default="", shown="the system's"
    )
    certificate: Path | None = key(
        kinds.FILE,
        "PEM file of our certificate and its key, for a broker that asks for one.",
        default="",
        example="/etc/lettermta/amqp.pem",
    )

    def objections(self) -> Iterable[Objection]:
        """What is about a broker needs one, and what is about TLS needs amqps."""
        for name in ("password_file", "ca", "certificate"):
            if getattr(self, name) is not None and self.url is None:
                yield Objection(name, "there is no url that it would be for", "url with it")
        for name in ("ca", "certificate"):
            if getattr(self, name) is not None and self.url is not None and not self.url.tls:
                yield Objection(name, "the url is not one of amqps", "amqps://… with it")


class Http(Section):
    """Counters, health and readiness over HTTP, for monitoring.

    There is neither a login nor TLS: listen only where nobody but your own machines gets to.
    """

    listen: tuple[HostPort, ...] = key(
        kinds.LISTEN,
        "Where GET /metrics, /health and /ready are answered.",
        default="",
        shown="nowhere",
        example="127.0.0.1:9110, [::1]:9110",
    )

    def objections(self) -> Iterable[Objection]:
        """An address and port are listened on once."""
        for number, one in enumerate(self.listen):
            if any(one.port == other.port and overlap(one.host, other.host) for other in self.listen[:number]):
                yield Objection("listen", "overlaps another one", "each port once for an address", str(one))


def overlap(one: str, other: str) -> bool:
    """Whether two addresses to listen on have one in common; the unspecified address is all of its family."""
    first, second = ip_address(one), ip_address(other)
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)


@frozen(kw_only=True)
class Config:
    """The whole file. Paths in it are absolute, durations are in seconds, sizes in octets."""

    path: Path
    mta: Mta = attrs.field(factory=Mta, metadata={"section": Mta})
    tls: Tls = attrs.field(factory=Tls, metadata={"section": Tls})
    listeners: tuple[Listener, ...] = attrs.field(default=(), metadata={"section": Listener})
    submission: Submission = attrs.field(factory=Submission, metadata={"section": Submission})
    policies: tuple[Policy, ...] = attrs.field(default=(), metadata={"section": Policy})
    limits: Limits = attrs.field(factory=Limits, metadata={"section": Limits})
    dns: Dns = attrs.field(factory=Dns, metadata={"section": Dns})
    delivery: Delivery = attrs.field(factory=Delivery, metadata={"section": Delivery})
    shaping: tuple[Shaping, ...] = attrs.field(default=(), metadata={"section": Shaping})
    sources: tuple[Source, ...] = attrs.field(default=(), metadata={"section": Source})
    pools: tuple[Pool, ...] = attrs.field(default=(), metadata={"section": Pool})
    events: Events = attrs.field(factory=Events, metadata={"section": Events})
    hooks: tuple[Hook, ...] = attrs.field(default=(), metadata={"section": Hook})
    amqp: Amqp = attrs.field(factory=Amqp, metadata={"section": Amqp})
    http: Http = attrs.field(factory=Http, metadata={"section": Http})

    throttles: tuple[Throttle, ...] = ()
    """What ``[delivery] throttle_rules`` holds."""

    @property
    def takes_returns(self) -> bool:
        """Whether a listener takes what comes back to return paths."""
        return any(listener.role is not Role.SUBMISSION for listener in self.listeners)

    @classmethod
    def sections(cls) -> dict[str, tuple[str, type[Section]]]:
        """The sections' names in the file, in their order, each with its attribute here and its class."""
        parts = [(field.name, field.metadata.get("section")) for field in attrs.fields(cls)]
        return {part.__name__.lower(): (name, part) for name, part in parts if part is not None}
