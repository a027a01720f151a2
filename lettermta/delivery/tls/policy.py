"""What is asked of one host's TLS, as data: decided before a connection is made, and kept with what came of it."""

from __future__ import annotations

import enum
from pathlib import Path

from attrs import frozen
from zope.interface import Interface, implementer

from lettermta.smtp.client_settings import TLSMode
from lettermta.smtp.client_tls import ClientTLS, Fault, WebPKI


class Kind(enum.StrEnum):
    """Where a host's policy comes from, as traces and reports show it."""

    OFF = "off"
    """The operator wants no TLS."""
    OPPORTUNISTIC = "opportunistic"
    """TLS if it can be had, from whoever answers (RFC 7435)."""
    WAIVED = "waived"
    """The same, since the message sets the receiver's own policies aside (RFC 8689 section 4.2.2, RFC 8460 section 3)."""
    REQUIRE = "require"
    """The operator wants TLS, from whoever answers."""
    VERIFY = "verify"
    """The operator wants TLS from that very host: a smarthost that gets our password."""
    MTA_STS_TESTING = "mta-sts-testing"
    """Opportunistic, but what would fail is reported (RFC 8461 section 5)."""
    MTA_STS = "mta-sts"
    """TLS from a host that the domain's policy names, by the trust roots (RFC 8461 section 4)."""
    DANE = "dane"
    """TLS from a host that its TLSA records tell (RFC 7672)."""
    DANE_UNUSABLE = "dane-unusable"
    """TLS, since there are TLSA records; from whoever answers, since none of them can be used (RFC 7672 section 2.2)."""


@frozen
class Reported:
    """A policy as reports on TLS name it (RFC 8460 section 4.4)."""

    domain: str
    """Of the recipients."""
    type: str
    """``tlsa``, ``sts`` or ``no-policy-found``."""
    strings: tuple[str, ...] = ()
    """The policy's own text: the lines of an MTA-STS policy, or the TLSA records."""
    mx_hosts: tuple[str, ...] = ()
    """The names or patterns of an MTA-STS policy."""
    base: str = ""
    """The TLSA base domain of the host, where it is DANE."""

    @property
    def policy_domain(self) -> str:
        """Against which the policy is defined (RFC 8460 section 1.1): of DANE that is the host's name, not the recipients' domain."""
        return self.base or self.domain


@frozen
class HostPolicy:
    """What is asked of one host."""

    kind: Kind
    tls: TLSMode
    client: ClientTLS
    verify: bool = False
    """Whether nothing is sent unless the judge has no fault to find."""
    reported: Reported | None = None
    """None: nobody is to hear of it."""
    fault: Fault | None = None
    """What is wrong before a connection is made, and yet no reason to stay away (MTA-STS in testing)."""


class ITLSResults(Interface):
    """Is told how sessions went, for reports on TLS (RFC 8460)."""

    def count(reported: Reported, fault: Fault | None, host: str, address: str, source: str) -> None:
        """One session with a host under a policy; ``fault``: why it does not do as the policy says. Its address and ours (``source``) are
        empty where there was no connection.
        """


@implementer(ITLSResults)
@frozen
class Uncounted:
    """Where nobody is to hear of it."""

    def count(self, reported: Reported, fault: Fault | None, host: str, address: str, source: str) -> None:
        """See ITLSResults."""


UNCOUNTED = Uncounted()


def plain(host: str, tls: TLSMode, *, authenticated: bool = False, trust: Path | None = None, waived: bool = False) -> HostPolicy:
    """The operator's own wish alone. ``authenticated``: the host's name is (by DNSSEC), so that a message which asks for it can rely on
    the certificate (RFC 8689 section 4.2.1). ``waived``: what the receiver wishes was not asked for.
    """
    judge = WebPKI((host,)) if authenticated else None
    kind = {TLSMode.OFF: Kind.OFF, TLSMode.OPPORTUNISTIC: Kind.WAIVED if waived else Kind.OPPORTUNISTIC}.get(tls, Kind.REQUIRE)
    return HostPolicy(kind, tls, ClientTLS(host, judge, trust=trust))


def verified(host: str, tls: TLSMode, trust: Path | None = None) -> HostPolicy:
    """TLS as the operator wants it, from that host alone; ``tls`` is no fall-back to clear."""
    return HostPolicy(Kind.VERIFY, tls, ClientTLS(host, WebPKI((host,)), strict=True, trust=trust), verify=True)
