"""Which way a lane's mail leaves: by the transport of its route, as the accounts say now.

A route that was changed while its mail was queued sends it the new way. What is on the way to one place shares one key, and so one
:class:`~lettermta.delivery.destination.Destination`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Care, Route, RouteKind, RouteTLS, Smarthost, TransportKind, care_of
from lettermta.config import HostPort
from lettermta.delivery.exchange import LOOK_UP, MOST_KNOWN, Exchange, Exchanges, Lookup
from lettermta.delivery.resolver import InvalidName, ascii_name
from lettermta.delivery.schedule import Schedule
from lettermta.delivery.shaping import Limits, ShapingRules
from lettermta.delivery.sources import SourcePool, SourcePools
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.transports.capture import CaptureTransport
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.delivery.unsubscribe.links import Links
from lettermta.delivery.way import Way
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Lane, Reply, Unreachable
from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_settings import TLSMode

_MOST_SCHEDULES = 1000


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
    shaping: ShapingRules = Factory(ShapingRules)
    sources: SourcePools = Factory(SourcePools)
    links: Links | None = None
    """Put into what is captured; for all else the settings' finisher does it."""
    _schedules: dict[tuple[float, ...], Schedule] = Factory(dict)
    exchanges: Exchanges = field(init=False)
    _ways: dict[tuple[str, RouteTLS | None, str | None], tuple[Exchange, Way]] = field(factory=dict, init=False)
    """By domain, what the route asks of TLS, and its pool, with the exchange that it is for."""

    _relays: dict[str, Limits] = field(factory=dict, init=False)
    """What holds for hosts that operators named."""

    def __attrs_post_init__(self) -> None:
        self.exchanges = Exchanges(self.reactor)

    def reshape(self, shaping: ShapingRules) -> None:
        """Follow other rules from now on."""
        self.shaping = shaping
        self._ways.clear()
        self._relays.clear()

    def schedule_of(self, lane: Lane) -> Schedule:
        """When the lane's mail is tried again: the receiver's schedule comes before the route's, and that before ours."""
        route = self.directory.route_by_id(lane.route_id)
        delays: Sequence[float] | None = None
        if route is None or route.transport is TransportKind.MX:
            delays = self._limits(lane.domain, self.exchanges.last(lane.domain)).schedule
        if delays is None:
            delays = self.delays if route is None or route.schedule is None else route.schedule
        delays = tuple(delays)
        if delays not in self._schedules:
            if len(self._schedules) >= _MOST_SCHEDULES:
                self._schedules.clear()
            self._schedules[delays] = Schedule(delays)
        return self._schedules[delays]

    def lifetime_of(self, lane: Lane) -> float:
        """How long new mail of the lane is tried, in seconds."""
        route = self.directory.route_by_id(lane.route_id)
        return self.lifetime if route is None or route.lifetime is None else route.lifetime

    def broadcast(self, lane: Lane) -> bool:
        """Whether the lane's mail is of a route for broadcasts."""
        route = self.directory.route_by_id(lane.route_id)
        return route is not None and route.kind is RouteKind.BROADCAST

    def way(self, lane: Lane) -> Way:
        """Where the lane's mail goes now."""
        if self.capture_all:
            return self._capture()
        route = self.directory.route_by_id(lane.route_id)
        if route is None:
            return _alone(f"no route {lane.route_id}", NoRoute)
        if route.transport is TransportKind.CAPTURE:
            return self._capture()
        if route.transport is TransportKind.DISCARD:
            return _alone("transport discard", DiscardTransport)
        if route.pool is not None and route.pool not in self.sources.pools:
            return _alone(f"no pool {route.pool}", partial(NoPool, route.pool))
        if route.transport is TransportKind.SMARTHOST:
            return self._smarthost(route)
        if self.relayhost is not None:
            return self._relayhost(self.relayhost, route)
        exchange = self.exchanges.get(lane.domain)
        if exchange is None:
            return self._lookup(lane.domain)
        usual, care = self._exchange(exchange, route.tls, route.pool), care_of(lane.route_id)
        return usual if care is None else self._careful(usual, exchange, care)

    def _lookup(self, domain: str) -> Way:
        last = self.exchanges.last(domain)
        name = domain if last is None else self._exchange(last).flow
        return Way(domain, lambda: Lookup(domain, self.resolver, self.settings, self.exchanges, self.policies), domain, LOOK_UP, name)

    def _exchange(self, exchange: Exchange, tls: RouteTLS | None = None, pool_name: str | None = None) -> Way:
        known = self._ways.get((exchange.domain, tls, pool_name))
        if known is None or known[0] is not exchange:
            limits = self._limits(exchange.domain, exchange)
            settings = evolve(self.settings, tls=self._wanted(limits, tls))
            receiver = exchange.key if limits.named is None else f"{exchange.key} for {limits.named}"
            # What differs in TLS alone has channels of its own, and the same limits.
            key = f"{receiver} by {exchange.tls}" if exchange.tls else receiver
            if settings.tls is not self.settings.tls:
                # Where nothing was asked for, what the domain has in common with others is not known.
                key += f" tls {settings.tls}" + (f" {exchange.domain}" if self.settings.tls is TLSMode.OFF else "")
            pool = self.sources.default if pool_name is None else self.sources.pools[pool_name]
            flow = limits.together or receiver
            # Receivers count by the address that mail comes from, so each pool has limits of its own.
            key, name = _from(key, pool), _from(flow, pool)

            def transport() -> ITransport:
                latest = partial(self.exchanges.latest, exchange)
                return MXTransport(self.reactor, exchange, self.resolver, settings, self.policies, limits, pool, flow, latest=latest)

            if len(self._ways) >= MOST_KNOWN:
                self._ways.clear()
            known = self._ways[exchange.domain, tls, pool_name] = (exchange, Way(key, transport, name, limits))
        return known[1]

    def _careful(self, usual: Way, exchange: Exchange, care: Care) -> Way:
        """For mail that asks for another way than the usual one; its limits are the same. There is little of it: nothing is kept."""

        def transport() -> ITransport:
            made = usual.transport()
            assert isinstance(made, MXTransport)
            if care is Care.TLS_NOT_REQUIRED:
                return evolve(made, waived=True)
            strict = care is Care.REQUIRE_TLS
            off = self.settings.tls is TLSMode.OFF and not strict
            settings = evolve(self.settings, tls=TLSMode.OFF if off else TLSMode.OPPORTUNISTIC)
            return evolve(made, settings=settings, require_tls=strict, waived=not strict)

        return evolve(usual, key=f"{usual.key} {care.name.lower()} {exchange.domain}", transport=transport)

    def _wanted(self, limits: Limits, tls: RouteTLS | None) -> TLSMode:
        """What is to be asked of a receiver's TLS: the rule for it comes before the route, and require before all."""
        asked = [TLSMode(each.value) for each in (limits.tls, tls) if each is not None]
        return TLSMode.REQUIRE if TLSMode.REQUIRE in asked else (asked or [self.settings.tls])[0]

    def _limits(self, domain: str, exchange: Exchange | None) -> Limits:
        if not domain.isascii():
            with suppress(InvalidName):
                domain = ascii_name(domain)
        return self.shaping.limits(domain, () if exchange is None else exchange.groups[0])

    def _relay_limits(self, host: str) -> Limits:
        known = self._relays.get(host)
        if known is None:
            if len(self._relays) >= _MOST_SCHEDULES:
                self._relays.clear()
            known = self._relays[host] = self.shaping.limits(None, (host.lower(),))
        return known

    def _capture(self) -> Way:
        return _alone("transport capture", lambda: CaptureTransport(self.capture_dir, self.reactor, self.links))

    def _own_pool(self, route: Route) -> SourcePool | None:
        """To hosts that the operator named, mail leaves from a pool where its route asks for that: the default is for the world."""
        return None if route.pool is None else self.sources.pools[route.pool]

    def _relayhost(self, relayhost: HostPort, route: Route) -> Way:
        pool, limits = self._own_pool(route), self._relay_limits(relayhost.host)
        key = _from(f"relayhost {relayhost}", pool)

        def transport() -> ITransport:
            host, port, settings = relayhost.host, relayhost.port, self.settings
            return SmarthostTransport(self.reactor, host, port, settings.tls, None, settings, limits=limits, pool=pool, receiver=host)

        return Way(key, transport, key, limits)

    def _smarthost(self, route: Route) -> Way:
        smarthost = route.smarthost
        assert smarthost is not None
        # The credentials are part of the key, or a changed password would wait for the old channels to close.
        pool, limits = self._own_pool(route), self._relay_limits(smarthost.host)
        flow = _from(f"smarthost {route.slug} {smarthost.host}:{smarthost.port}", pool)
        key = f"{flow} {hash(smarthost):x}"

        def transport() -> ITransport:
            tls, credentials, host = TLSMode(smarthost.tls.value), _credentials(smarthost), smarthost.host
            return SmarthostTransport(
                self.reactor, host, smarthost.port, tls, credentials, self.settings, limits=limits, pool=pool, receiver=host
            )

        return Way(key, transport, flow, limits, flow)


def _from(key: str, pool: SourcePool | None) -> str:
    """The key of a way that leaves from a pool."""
    return key if pool is None else f"{key} from {pool.name}"


def _alone(key: str, transport: Callable[[], ITransport]) -> Way:
    """A way that no rule is about."""
    return Way(key, transport, key)


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


@implementer(ITransport)
@frozen
class NoPool:
    """The way of mail whose route names a pool that the configuration doesn't have: from another address it must not leave."""

    name: str

    def open(self) -> Deferred[IChannel]:
        """See ITransport."""
        return fail(Unreachable(Reply(451, "4.3.5", f"The configuration has no [pool {self.name}], which the message's route names")))
