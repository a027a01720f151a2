"""Mail straight to the hosts of the recipient's domain (RFC 5321 section 5.1), which :mod:`lettermta.delivery.exchange` has found.

Hosts are tried by preference, equal ones in random order, at addresses that policy permits alone (HARD-CASES row 21), IPv6 and IPv4 by
turns. Permanent is only a domain without MX records that has no address either.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.address_policy import permits
from lettermta.delivery.exchange import Exchange
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.shaping import Limits
from lettermta.delivery.sources import SourcePool
from lettermta.delivery.tls.decision import DomainPolicy, TLSPolicies
from lettermta.delivery.tls.policy import UNCOUNTED, HostPolicy, plain
from lettermta.delivery.transports.connecting import MOST_ADDRESSES, Connector, Target, reachable_from, temporary
from lettermta.delivery.transports.counting import counted
from lettermta.delivery.transports.pooled import from_pool
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Reply, Unreachable
from lettermta.smtp.client_settings import TLSMode
from lettermta.smtp.grammar import address_literal

_LOOP = "5.4.6"


@frozen
class Seen:
    """What there is to know of a host without connecting to it: ``fault`` is why it would not be used."""

    targets: Sequence[Target] = ()
    policy: HostPolicy | None = None
    fault: Reply | None = None

    @property
    def looped(self) -> bool:
        """Whether it is ourselves: neither it nor what is behind it would be tried."""
        return self.fault is not None and self.fault.enhanced == _LOOP


@implementer(ITransport)
@define(eq=False)
class MXTransport:
    """The way to one exchange, or to the address of an address literal like ``[192.0.2.1]``."""

    reactor: Any
    exchange: Exchange
    resolver: IResolver
    settings: DeliverySettings
    policies: TLSPolicies | None = None
    """None: the TLS that the settings ask for is all there is."""
    limits: Limits = field(factory=Limits)
    pool: SourcePool | None = None
    """Where channels come from; None: as the system chooses."""
    receiver: str = ""
    """What warm-up plans call this exchange."""
    require_tls: bool = field(default=False, kw_only=True)
    """A host counts only if mail with REQUIRETLS may go there: the next one is tried, and it is for good when none does (RFC 8689
    section 4.2.1).
    """
    waived: bool = field(default=False, kw_only=True)
    """The receiver's own policies are set aside, and what comes of it is not counted for reports on them."""
    shuffle: Callable[[list[str]], None] = random.shuffle
    latest: Callable[[], Exchange] | None = field(default=None, kw_only=True)
    """Tells the exchange as it is now: the same hosts, whose preferences may have changed."""
    connector: Connector | None = field(default=None, kw_only=True)
    """What opens sessions, where it is not to be made from the settings."""
    _connector: Connector = field(init=False)

    def __attrs_post_init__(self) -> None:
        if self.connector is not None:
            self._connector = self.connector
            return
        settings = self.settings
        results = UNCOUNTED if self.policies is None else self.policies.results
        client = settings.client(self.limits)
        self._connector = Connector(self.reactor, client, settings.connect_timeout, settings.sessions, results, families=settings.families)

    def open(self) -> Deferred[IChannel]:
        """A session with the best host that has one; fails with Unreachable."""
        if self.latest is not None:
            self.exchange = self.latest()
        if self.pool is None:
            return counted("mx", Deferred.fromCoroutine(self._open()))
        return counted("mx", Deferred.fromCoroutine(from_pool(self.pool, self.receiver, self._connector, self._open_by)))

    def _open_by(self, connector: Connector) -> Awaitable[IChannel]:
        return evolve(self, connector=connector)._open()

    async def _open(self) -> IChannel:
        if self.exchange.domain.startswith("["):
            return await self._session(self._reachable(self.exchange.domain, self._literal()))
        policy = await self._policy()
        last: Unreachable | None = None
        lacking: Unreachable | None = None
        tried = 0
        for host in self._hosts():
            try:
                targets = self._reachable(host, await self._targets(host))[: MOST_ADDRESSES - tried]
                asked = plain(host, self.settings.tls, waived=self.waived) if policy is None else await policy.of_host(host)
            except Unreachable as error:
                if error.reply.permanent:
                    raise
                last = last or error
                continue
            if any(self.settings.ourselves.answer(target.address, target.port) for target in targets):
                # RFC 5321 section 5.1: we are one of them by another name, and what is no better than we are would come back.
                raise last or self._loop()
            tried += len(targets)
            try:
                session = await self._connector.first(targets, asked, last)
            except Unreachable as error:
                last = temporary(error)
            else:
                if not self.require_tls or (reply := session.no_require_tls()) is None:
                    return session
                lacking = Unreachable(reply, host=host)
                lacking.details = session.details
                session.close()
            if tried >= MOST_ADDRESSES:
                break
        raise last or lacking or Unreachable(Reply(451, "4.4.4", f"No host of {self.exchange.domain} has an address"))

    async def _policy(self) -> DomainPolicy | None:
        """What holds for whoever shares our channels."""
        known = self.exchange.policy
        if self.policies is None or self.waived:
            return None
        if known is None or known.wanted is TLSMode.OFF:
            return await self.policies.of_domain(self.exchange.domain, self.settings.tls)
        return evolve(known, wanted=self.settings.tls)

    def _reachable(self, host: str, targets: Sequence[Target]) -> list[Target]:
        """Those of a family that our source has."""
        return reachable_from(self._connector.source, host, targets)

    async def look(self, host: str) -> Seen:
        """What would be tried of one host, and under which policy."""
        literal = self.exchange.domain.startswith("[")
        targets: Sequence[Target] = ()
        fault: Reply | None = None
        try:
            targets = self._literal() if literal else await self._targets(host)
        except Unreachable as error:
            fault = error.reply
        if any(self.settings.ourselves.answer(target.address, target.port) for target in targets):
            fault = self._loop().reply
        if self.policies is None or literal:
            return Seen(targets, plain(host, self.settings.tls), fault)
        try:
            policy = await self.policies.of_domain(self.exchange.domain, self.settings.tls)
            return Seen(targets, await policy.of_host(host), fault)
        except Unreachable as error:
            return Seen(targets, fault=fault or error.reply)

    def _loop(self) -> Unreachable:
        return Unreachable(Reply(554, _LOOP, f"Mail for {self.exchange.domain} would come back to us: a loop"))

    async def _session(self, targets: Sequence[Target]) -> IChannel:
        try:
            return await self._connector.first(targets, plain(targets[0].host, self.settings.tls))
        except Unreachable as error:
            raise temporary(error) from None

    def _literal(self) -> list[Target]:
        """The target that an address literal names (RFC 5321 section 4.1.3)."""
        domain = self.exchange.domain
        address = address_literal(domain)
        if address is None:
            raise Unreachable(Reply(550, "5.1.2", f"{domain} is no address literal"))
        if self.settings.ourselves.answer(address, self.settings.port):
            raise self._loop()
        return self._permitted(address, [address])

    def _hosts(self) -> Iterator[str]:
        for group in self.exchange.groups:
            equal = list(group)
            self.shuffle(equal)
            yield from equal

    async def _targets(self, host: str) -> list[Target]:
        """The addresses of one host."""
        implicit = self.exchange.implicit
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
        permitted = [address for address in addresses if permits(address, self.settings.allow_networks)]
        if not permitted:
            refused = ", ".join(addresses[:3])
            raise Unreachable(Reply(451, "4.4.4", f"{host} has no public address ({refused}), and allow_networks doesn't name it"))
        return [Target(host, address, self.settings.port) for address in self.settings.families.order(self.reactor, permitted)]
