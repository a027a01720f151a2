"""Mail through a host that the operator named: a smarthost of a route, or ``[delivery] relayhost``.

Promises that credentials go out inside verified TLS or not at all. The host is taken at its word: no MX look-up, and private
addresses are fine. All that fails here is temporary: it is between the operator and the host, and no fault of the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from lettermta.delivery.resolver import DNSFailure
from lettermta.delivery.shaping import Limits
from lettermta.delivery.sources import SourcePool
from lettermta.delivery.tls.policy import HostPolicy, plain, verified
from lettermta.delivery.transports.connecting import MOST_ADDRESSES, Connector, Target, reachable_from, temporary
from lettermta.delivery.transports.counting import counted
from lettermta.delivery.transports.pooled import from_pool
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Reply, Unreachable
from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_settings import TLSMode


@implementer(ITransport)
@define(eq=False)
class SmarthostTransport:
    """The way through one host.

    With credentials TLS is required and verified, by STARTTLS unless ``tls`` is ``implicit``. ``resolver`` None: the name is looked
    up as the system does it (hosts file and all).
    """

    reactor: Any
    host: str
    port: int
    tls: TLSMode = field(converter=TLSMode)
    credentials: Credentials | None
    settings: DeliverySettings
    resolver: IResolver | None = None
    limits: Limits = field(factory=Limits)
    pool: SourcePool | None = None
    """Where channels come from; None: as the system chooses."""
    receiver: str = ""
    """What warm-up plans call this host."""
    _connector: Connector = field(init=False)
    _policy: HostPolicy = field(init=False)

    def __attrs_post_init__(self) -> None:
        secret = self.credentials is not None
        mode = TLSMode.REQUIRE if secret and self.tls is not TLSMode.IMPLICIT else self.tls
        host = self.host.strip("[]")
        self._policy = verified(host, mode, self.settings.trust) if secret else plain(host, mode)
        client, settings = self.settings.client(self.limits, credentials=self.credentials), self.settings
        self._connector = Connector(self.reactor, client, settings.connect_timeout, settings.sessions, families=settings.families)

    def open(self) -> Deferred[IChannel]:
        """A session with the host; fails with Unreachable, always temporary."""
        if self.pool is None:
            return counted("smarthost", Deferred.fromCoroutine(self._open(self._connector)))
        return counted("smarthost", Deferred.fromCoroutine(from_pool(self.pool, self.receiver, self._connector, self._open)))

    async def _open(self, connector: Connector) -> IChannel:
        addresses = await self._addresses()
        if not addresses:
            raise Unreachable(Reply(451, "4.4.4", f"The host {self.host} has no address"))
        try:
            host = self.host.strip("[]")
            ordered = self.settings.families.order(self.reactor, addresses)[:MOST_ADDRESSES]
            targets = reachable_from(connector.source, self.host, [Target(host, address, self.port) for address in ordered])
            return await connector.first(targets, self._policy)
        except Unreachable as error:
            raise temporary(error) from None

    async def _addresses(self) -> Sequence[str]:
        try:
            return [str(ip_address(self.host.strip("[]")))]
        except ValueError:
            pass
        if self.resolver is None:
            return await _system_addresses(self.reactor, self.host)
        try:
            return await self.resolver.addresses(self.host)
        except DNSFailure as error:
            raise Unreachable(Reply(451, "4.4.3", f"Looking up {self.host} failed: {error}")) from None


@implementer(IResolutionReceiver)
class _Addresses:
    """Collects what the system's resolver finds."""

    def __init__(self) -> None:
        self.found: Deferred[Sequence[str]] = Deferred()
        self._addresses: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do yet."""

    def addressResolved(self, address: IAddress) -> None:
        """One more."""
        self._addresses.append(str(getattr(address, "host", "")))

    def resolutionComplete(self) -> None:
        """That was all; none at all is how a failure looks here."""
        self.found.callback(list(dict.fromkeys(filter(None, self._addresses))))


async def _system_addresses(reactor: Any, host: str) -> Sequence[str]:
    """As the system does it, in a thread of the reactor's."""
    receiver = _Addresses()
    reactor.nameResolver.resolveHostName(receiver, host)
    return await receiver.found
