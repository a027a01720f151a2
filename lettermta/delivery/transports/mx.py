"""Mail straight to the recipient's domain (RFC 5321 section 5.1, null MX by RFC 7505).

Promises that not knowing is never taken for knowing: a look-up that fails defers the mail, and the domain's own address is used only when
it is certain that there is no MX record (HARD-CASES row 20). Hosts are tried by preference, equal ones in random order, at addresses
that policy permits alone. Permanent are a domain that doesn't exist, one that takes no mail, and one whose best host is ourselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.address_policy import permits
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.tls.policy import UNCOUNTED, plain
from lettermta.delivery.transports.connecting import MOST_ADDRESSES, Connector, Target, temporary
from lettermta.delivery.transports.counting import counted
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Reply, Unreachable
from lettermta.smtp.grammar import address_literal


@implementer(ITransport)
@define(eq=False)
class MXTransport:
    """The way to one domain, or to the address of an address literal like ``[192.0.2.1]``."""

    reactor: Any
    domain: str
    resolver: IResolver
    settings: DeliverySettings
    policies: TLSPolicies | None = None
    """None: the TLS that the settings ask for is all there is."""
    shuffle: Callable[[list[str]], None] = random.shuffle
    _connector: Connector = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        results = UNCOUNTED if self.policies is None else self.policies.results
        self._connector = Connector(self.reactor, settings.client(), settings.connect_timeout, settings.sessions, results)

    def open(self) -> Deferred[IChannel]:
        """A session with the best host that has one; fails with Unreachable."""
        return counted("mx", Deferred.fromCoroutine(self._open()))

    async def _open(self) -> IChannel:
        if self.domain.startswith("["):
            return await self._session(self._literal())
        hosts, implicit = await self._hosts()
        policy = None if self.policies is None else await self.policies.of_domain(self.domain, self.settings.tls)
        last: Unreachable | None = None
        tried = 0
        for host in hosts:
            try:
                targets = (await self._targets(host, implicit=implicit))[: MOST_ADDRESSES - tried]
                asked = plain(host, self.settings.tls) if policy is None else await policy.of_host(host)
            except Unreachable as error:
                if error.reply.permanent:
                    raise
                last = last or error
                continue
            tried += len(targets)
            try:
                return await self._connector.first(targets, asked)
            except Unreachable as error:
                last = temporary(error)
            if tried >= MOST_ADDRESSES:
                break
        raise last or Unreachable(Reply(451, "4.4.4", f"No host of {self.domain} has an address"))

    async def _session(self, targets: Sequence[Target]) -> IChannel:
        try:
            return await self._connector.first(targets, plain(targets[0].host, self.settings.tls))
        except Unreachable as error:
            raise temporary(error) from None

    def _literal(self) -> list[Target]:
        """The target that an address literal names (RFC 5321 section 4.1.3)."""
        address = address_literal(self.domain)
        if address is None:
            raise Unreachable(Reply(550, "5.1.2", f"{self.domain} is no address literal"))
        return self._permitted(address, [address])

    async def _hosts(self) -> tuple[list[str], bool]:
        """The hosts to try, in order, and whether that is the domain itself for want of MX records (the implicit MX)."""
        domain = self.domain
        try:
            records = list(await self.resolver.mx(domain))
        except NoSuchDomain as error:
            raise Unreachable(Reply(556, "5.1.10", f"The domain can't receive mail: {error}")) from None
        except TemporaryDNSFailure as error:
            raise Unreachable(Reply(451, "4.4.3", f"Looking up {domain} failed: {error}")) from None
        if not records:
            return self._ordered([(0, domain)]), True
        hosts = [(preference, host.rstrip(".").lower()) for preference, host in records]
        if all(not host for _, host in hosts):
            raise Unreachable(Reply(556, "5.1.10", f"{domain} takes no mail (null MX)"))
        return self._ordered([(preference, host) for preference, host in hosts if host]), False

    def _ordered(self, records: list[tuple[int, str]]) -> list[str]:
        """By preference, equal ones shuffled; what is no better than ourselves is left out (RFC 5321 section 5.1)."""
        ourselves = self.settings.hostname.rstrip(".").lower()
        own = min((preference for preference, host in records if host == ourselves), default=None)
        hosts: list[str] = []
        for preference, group in groupby(sorted(records), key=lambda record: record[0]):
            if own is not None and preference >= own:
                break
            equal = [host for _, host in group]
            self.shuffle(equal)
            hosts += [host for host in dict.fromkeys(equal) if host not in hosts]
        if not hosts:
            raise Unreachable(Reply(554, "5.4.6", f"Mail for {self.domain} would come back to us: a loop"))
        return hosts

    async def _targets(self, host: str, *, implicit: bool) -> list[Target]:
        """The addresses of one host; ``implicit``: it is the domain itself, for want of MX records."""
        try:
            addresses = list(await self.resolver.addresses(host))
        except NoSuchDomain as error:
            if implicit:
                raise Unreachable(Reply(556, "5.1.10", f"The domain can't receive mail: {error}")) from None
            raise Unreachable(Reply(451, "4.4.4", f"The MX host {host} does not exist")) from None
        except TemporaryDNSFailure as error:
            raise Unreachable(Reply(451, "4.4.3", f"Looking up {host} failed: {error}")) from None
        if addresses:
            return self._permitted(host, addresses)
        if implicit:
            raise Unreachable(Reply(550, "5.1.2", f"{host} has neither an MX record nor an address"))
        raise Unreachable(Reply(451, "4.4.4", f"The MX host {host} has no address"))

    def _permitted(self, host: str, addresses: Sequence[str]) -> list[Target]:
        targets = [Target(host, address, self.settings.port) for address in addresses if permits(address, self.settings.allow_networks)]
        if not targets:
            refused = ", ".join(addresses[:3])
            raise Unreachable(Reply(451, "4.4.4", f"{host} has no public address ({refused}), and allow_networks doesn't name it"))
        return targets
