"""Which policy holds for a domain's hosts: DANE, else MTA-STS, else the operator's own wish (RFC 8461 section 2).

Promises that a host is never used more weakly than what is known asks for: a host whose TLSA records can't be had, and one that an enforced
MTA-STS policy does not name, are not used (Unreachable, temporary).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from attrs import evolve, field, frozen
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.MX import MX

from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure, ascii_name
from lettermta.delivery.tls.dane import Found, Lookups, find
from lettermta.delivery.tls.mta_sts import MTASTS, NOTHING, Discovered
from lettermta.delivery.tls.policy import UNCOUNTED, HostPolicy, ITLSResults, Kind, Reported, plain
from lettermta.delivery.tls.sts_policy import Mode
from lettermta.delivery.tls.tlsa import DANE, usable
from lettermta.message import Reply, Unreachable
from lettermta.smtp.client_settings import TLSMode
from lettermta.smtp.client_tls import VALIDATION_FAILURE, ClientTLS, Fault, WebPKI

DNSSEC_INVALID, TLSA_INVALID = "dnssec-invalid", "tlsa-invalid"


@frozen
class TLSPolicies:
    """Decides. ``dane``: DANE is wanted, and the resolver's word on DNSSEC can be trusted; ``port``: where mail is sent; ``trust``: a PEM
    file of authorities, None for the system's.
    """

    resolver: Lookups
    port: int = 25
    dane: bool = False
    sts: MTASTS | None = None
    trust: Path | None = None
    results: ITLSResults = UNCOUNTED

    async def start(self) -> None:
        """Take up what is kept from before."""
        if self.sts is not None:
            await self.sts.start()

    async def stop(self) -> None:
        """Do nothing more by itself."""
        if self.sts is not None:
            self.sts.stop()

    async def of_domain(self, domain: str, wanted: TLSMode) -> DomainPolicy:
        """What holds for a domain, where the operator wants at least ``wanted``. With OFF nothing is asked. Raises Unreachable."""
        if wanted is TLSMode.OFF:
            return DomainPolicy(self, domain, wanted)
        domain = ascii_name(domain)
        discovered = NOTHING if self.sts is None else await self.sts.discover(domain)
        hosts, names = await self._authenticated(domain) if self.dane else (frozenset(), ())
        return DomainPolicy(self, domain, wanted, discovered, hosts, names)

    async def _authenticated(self, domain: str) -> tuple[frozenset[str], tuple[str, ...]]:
        """The MX hosts that DNSSEC vouches for, and the names that the domain has besides its own (RFC 7672 section 2.2.1)."""
        try:
            answer = await self.resolver.lookup(domain, RdataType.MX)
        except NoSuchDomain:
            return frozenset(), ()
        except TemporaryDNSFailure as error:
            # Not knowing whether DANE applies must not mean that it does not.
            raise Unreachable(Reply(451, "4.4.3", f"Looking up {domain} failed: {error}")) from None
        if not answer.authenticated:
            return frozenset(), ()
        records = cast(tuple[MX, ...], answer.records)
        hosts = {record.exchange.to_text(omit_final_dot=True).lower() for record in records}
        return frozenset(hosts or {domain}), (answer.name,)


@frozen
class DomainPolicy:
    """What holds for one domain, until it is asked again."""

    _policies: TLSPolicies = field(repr=False)
    domain: str
    wanted: TLSMode
    discovered: Discovered = NOTHING
    authenticated: frozenset[str] = frozenset()
    """Hosts whose names can be relied on."""
    other_names: tuple[str, ...] = ()

    @property
    def shared(self) -> str:
        """The same for domains whose sessions with a host may carry each other's mail; empty where nobody asks for more than the operator.

        Where DNSSEC vouches for the hosts a domain has sessions of its own, since its name counts when certificates are compared
        (RFC 7672 section 3.2.2). Enforced or tested MTA-STS policies are the same when they name the same hosts.
        """
        if self.wanted is TLSMode.OFF:
            return ""
        parts = [f"dnssec {self.domain}"] if self.authenticated else []
        policy = self.discovered.policy
        if policy is not None and policy.mode is not Mode.NONE:
            parts.append(f"mta-sts {policy.mode} {' '.join(sorted(policy.mx))}")
        return " ".join(parts)

    async def of_host(self, host: str) -> HostPolicy:
        """What is asked of one of the domain's hosts. Raises Unreachable when it must not be used."""
        if self.wanted is TLSMode.OFF:
            return plain(host, self.wanted)
        host = ascii_name(host)
        found = await self._tlsa(host) if host in self.authenticated else None
        if found is None:
            return self._without_dane(host, self.wanted)
        reported = Reported(self.domain, "tlsa", tuple(map(str, found.records)), base=found.base)
        records = usable(found.records)
        if records:
            judge = DANE(records, tuple(dict.fromkeys((found.base, self.domain, *self.other_names))))
            client = ClientTLS(found.base, judge, strict=True)
            return HostPolicy(Kind.DANE, TLSMode.REQUIRE, client, verify=True, reported=reported)
        policy = self._without_dane(host, TLSMode.REQUIRE)
        if policy.kind is Kind.MTA_STS:
            return policy  # it asks for more
        fault = Fault(TLSA_INVALID, f"none of the TLSA records of {found.base} can be used")
        return evolve(policy, kind=Kind.DANE_UNUSABLE, fault=fault, reported=reported)

    async def _tlsa(self, host: str) -> Found | None:
        try:
            return await find(self._policies.resolver, host, self._policies.port)
        except TemporaryDNSFailure as error:
            fault = Fault(DNSSEC_INVALID, f"Looking for TLSA records of {host} failed: {error}")
            if error.rcode == "SERVFAIL":
                self._policies.results.count(Reported(self.domain, "tlsa", base=host), fault, host, "", "")
            raise _not_used(Kind.DANE, host, fault) from None

    def _without_dane(self, host: str, wanted: TLSMode) -> HostPolicy:
        trust = self._policies.trust
        policy, problem = self.discovered.policy, self.discovered.problem
        if policy is None or policy.mode is Mode.NONE:
            reported = Reported(self.domain, "no-policy-found" if problem is None else "sts")
            alone = plain(host, wanted, authenticated=host in self.authenticated, trust=trust)
            return evolve(alone, fault=problem, reported=reported)
        reported = Reported(self.domain, "sts", policy.lines, policy.mx)
        fault = None if policy.names(host) else Fault(VALIDATION_FAILURE, f"The MTA-STS policy of {self.domain} does not name {host}")
        if policy.mode is Mode.TESTING:
            judge = WebPKI((host,)) if fault is None or host in self.authenticated else None
            return HostPolicy(Kind.MTA_STS_TESTING, wanted, ClientTLS(host, judge, trust=trust), reported=reported, fault=fault)
        if fault is not None:
            self._policies.results.count(reported, fault, host, "", "")
            raise _not_used(Kind.MTA_STS, host, fault)
        client = ClientTLS(host, WebPKI((host,)), strict=True, trust=trust)
        return HostPolicy(Kind.MTA_STS, TLSMode.REQUIRE, client, verify=True, reported=reported)


def _not_used(kind: Kind, host: str, fault: Fault) -> Unreachable:
    """Why a host is not even connected to."""
    error = Unreachable(Reply(451, "4.7.5", fault.text), host=host)
    error.details = {"host": host, "tls": {"policy": kind.value, "result": "not used", "fault": fault.text}}
    return error
