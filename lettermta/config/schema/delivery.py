"""The way out, whoever the receiver is: the resolver, attempts, TLS, reports."""

from __future__ import annotations

import enum
from ipaddress import ip_address
from pathlib import Path

from lettermta.config import kinds
from lettermta.config.kinds import HostPort, Network
from lettermta.config.reply_rules import ReplyRule
from lettermta.config.schema.declaring import Section, key


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
    cache_entries: int = key(
        kinds.NUMBER,
        "Most answers that are kept, each for its time to live; some 1 KB each. lettermta_dns_lookups_total tells how many were of use.",
        default="10000",
    )
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
