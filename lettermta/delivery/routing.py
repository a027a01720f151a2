"""Which way a lane's mail leaves: by the transport of its route, as the accounts say now.

A route that was changed while its mail was queued sends it the new way. What is on the way to one place shares one key, and so one
:class:`~lettermta.delivery.destination.Destination`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import Factory, define, field
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Route, Smarthost, TransportKind
from lettermta.config import HostPort
from lettermta.delivery.schedule import Schedule
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.transports.capture import CaptureTransport
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Lane, Reply, Unreachable
from lettermta.smtp.client import TLSMode
from lettermta.smtp.client_auth import Credentials

_MOST_SCHEDULES = 1000

Way = tuple[str, Callable[[], ITransport]]
"""The key of a destination, and what makes the transport to it. The key of an MX destination is its domain; no other is without a blank, so
that nobody can address mail to them."""


@define(eq=False)
class Routing:
    """Knows the way of each lane. ``relayhost`` takes what would leave by MX; ``capture_all`` keeps everything at home."""

    reactor: Any
    settings: DeliverySettings
    directory: Directory
    resolver: IResolver
    policies: TLSPolicies | None = field(default=None, kw_only=True)
    """What decides on TLS beside the settings."""
    capture_dir: Path
    relayhost: HostPort | None = None
    capture_all: bool = False
    delays: Sequence[float] = (300.0,)
    """The schedule of routes without one of their own, in seconds."""
    lifetime: float = 432_000.0
    """Likewise how long their mail is tried."""
    _schedules: dict[tuple[float, ...], Schedule] = Factory(dict)

    def schedule_of(self, lane: Lane) -> Schedule:
        """When the lane's mail is tried again."""
        route = self.directory.route_by_id(lane.route_id)
        delays = tuple(self.delays if route is None or route.schedule is None else route.schedule)
        if delays not in self._schedules:
            if len(self._schedules) >= _MOST_SCHEDULES:
                self._schedules.clear()
            self._schedules[delays] = Schedule(delays)
        return self._schedules[delays]

    def lifetime_of(self, lane: Lane) -> float:
        """How long new mail of the lane is tried, in seconds."""
        route = self.directory.route_by_id(lane.route_id)
        return self.lifetime if route is None or route.lifetime is None else route.lifetime

    def way(self, lane: Lane) -> Way:
        """Where the lane's mail goes now."""
        if self.capture_all:
            return self._capture()
        route = self.directory.route_by_id(lane.route_id)
        if route is None:
            return f"no route {lane.route_id}", NoRoute
        if route.transport is TransportKind.CAPTURE:
            return self._capture()
        if route.transport is TransportKind.DISCARD:
            return "transport discard", DiscardTransport
        if route.transport is TransportKind.SMARTHOST:
            return self._smarthost(route)
        if self.relayhost is not None:
            return self._relayhost(self.relayhost)
        return lane.domain, lambda: MXTransport(self.reactor, lane.domain, self.resolver, self.settings, self.policies)

    def _capture(self) -> Way:
        return "transport capture", lambda: CaptureTransport(self.capture_dir, self.reactor)

    def _relayhost(self, relayhost: HostPort) -> Way:
        return f"relayhost {relayhost}", lambda: SmarthostTransport(
            self.reactor, relayhost.host, relayhost.port, self.settings.tls, None, self.settings
        )

    def _smarthost(self, route: Route) -> Way:
        smarthost = route.smarthost
        assert smarthost is not None
        # The credentials are part of the key, or a changed password would wait for the old channels to close.
        key = f"smarthost {route.slug} {hash(smarthost):x}"
        return key, lambda: SmarthostTransport(
            self.reactor, smarthost.host, smarthost.port, TLSMode(smarthost.tls.value), _credentials(smarthost), self.settings
        )


def _credentials(smarthost: Smarthost) -> Credentials | None:
    if smarthost.username is None or smarthost.password is None:
        return None
    return Credentials(smarthost.username, smarthost.password)


@implementer(ITransport)
class NoRoute:
    """The way of mail whose route was deleted: it waits until it expires or an operator finds it another route."""

    def open(self) -> Deferred[IChannel]:
        """See ITransport."""
        return fail(Unreachable(Reply(451, "4.3.5", "The message's route has been deleted")))
