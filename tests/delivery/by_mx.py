"""The whole way by MX as one transport: the domain's exchange is looked up, and a channel is opened to it."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.delivery.exchange import find
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.interfaces import IChannel, IResolver, ITransport


@implementer(ITransport)
@define
class ByMX:
    reactor: Any
    domain: str
    resolver: IResolver
    settings: DeliverySettings
    policies: TLSPolicies | None = None
    require_tls: bool = False

    def open(self) -> Deferred[IChannel]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> IChannel:
        exchange = await find(self.resolver, self.domain, self.settings.hostname)
        return await MXTransport(self.reactor, exchange, self.resolver, self.settings, self.policies, require_tls=self.require_tls).open()
