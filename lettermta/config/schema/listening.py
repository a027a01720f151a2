"""Where lettermta listens: for mail, for questions over HTTP, and for who unsubscribes."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.kinds import HostPort, Network
from lettermta.config.schema.declaring import Section, key


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


class AuthBeforeTLS(enum.StrEnum):
    """The SASL mechanisms that a listener offers in clear."""

    NONE = "none"
    CRAM_MD5 = "cram-md5"
    ALL = "all"


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


class Http(Section):
    """Counters, health and readiness over HTTP, for monitoring.

    There is no login: listen only where nobody but your own machines gets to.
    """

    listen: tuple[HostPort, ...] = key(
        kinds.LISTEN,
        "Where GET /metrics, /health and /ready are answered.",
        default="",
        shown="nowhere",
        example="127.0.0.1:9110, [::1]:9110",
    )
    tls: bool = key(kinds.BOOLEAN, "Answer by HTTPS, with the certificates of [tls].", default="no")

    def objections(self) -> Iterable[Objection]:
        """An address and port are listened on once."""
        yield from _overlapping(self.listen)


class Unsubscribe(Section):
    """Links to unsubscribe, for mail of broadcast routes that has no List-Unsubscribe of its own (RFC 8058, suppression.md).

    They lead to a web server with TLS, which hands what is asked for below url on to listen.
    """

    url: str | None = key(
        kinds.HTTPS_URL,
        "What all links begin with, as the public gets there.",
        default="",
        shown="no links",
        example="https://news.example.com/unsubscribe",
    )
    listen: tuple[HostPort, ...] = key(
        kinds.LISTEN,
        "Where the web server hands requests to, in plain HTTP. Nothing else is answered there.",
        default="",
        shown="nowhere",
        example="127.0.0.1:9120",
    )

    def objections(self) -> Iterable[Objection]:
        """Links have to lead somewhere, and nobody comes where no link leads."""
        if self.url is not None and not self.listen:
            yield Objection("url", "there is no listen, so nobody would answer", "listen with it")
        if self.url is None and self.listen:
            yield Objection("listen", "there is no url, so no mail would have a link", "url with it")
        yield from _overlapping(self.listen)


def _overlapping(listen: Sequence[HostPort]) -> Iterable[Objection]:
    """An address and port are listened on once."""
    for number, one in enumerate(listen):
        if any(one.port == other.port and overlap(one.host, other.host) for other in listen[:number]):
            yield Objection("listen", "overlaps another one", "each port once for an address", str(one))


def overlap(one: str, other: str) -> bool:
    """Whether two addresses to listen on have one in common; the unspecified address is all of its family."""
    first, second = ip_address(one), ip_address(other)
    return first.version == second.version and (first == second or first.is_unspecified or second.is_unspecified)
