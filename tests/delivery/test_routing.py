"""The way of a lane: by its route as the accounts say now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Care, RouteKind, RouteTLS, Smarthost, SmarthostTLS, TransportKind, with_care
from lettermta.accounts.store import AccountStore
from lettermta.config import DeliveryTLS, HostPort, Shaping
from lettermta.delivery.exchange import Exchange, Lookup
from lettermta.delivery.routing import NoRoute, Routing
from lettermta.delivery.shaping import ShapingRules
from lettermta.delivery.sources import SourcePool, SourcePools
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.transports.capture import CaptureTransport
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.message import Lane, Unreachable
from lettermta.smtp.client_settings import TLSMode


class Office:
    """Accounts that can be changed, and the routing that reads them."""

    def __init__(self, state_dir: Path) -> None:
        self.store = AccountStore(state_dir)
        self.store.create_project("demo")
        self.directory = Directory(state_dir)
        self.capture_dir = state_dir / "capture"

    def routing(self, **options) -> Routing:
        settings = DeliverySettings(hostname="mta.example")
        return Routing(Clock(), settings, self.directory, None, self.capture_dir, **options)  # type: ignore[arg-type]

    def lane(self, transport: TransportKind, domain: str = "example.com", smarthost: Smarthost | None = None) -> Lane:
        slug = f"r{len(self.store.routes('demo'))}"
        route = self.store.create_route("demo", slug, kind=RouteKind.TRANSACTIONAL, transport=transport, smarthost=smarthost, default=False)
        return Lane(route.id, domain)

    def close(self) -> None:
        self.directory.close()
        self.store.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.close()


def test_mail_of_an_mx_route_goes_to_its_domain(office: Office) -> None:
    routing = office.routing()
    lane = office.lane(TransportKind.MX)
    unknown = routing.way(lane)
    assert unknown.key == "example.com"
    assert isinstance(unknown.transport(), Lookup)
    routing.exchanges.put(Exchange("example.com", (("mx.example.com",), ("backup.example.net",))))
    known = routing.way(lane)
    made = known.transport()
    assert known.key == "mx backup.example.net mx.example.com"
    assert isinstance(made, MXTransport)
    assert made.exchange.groups == (("mx.example.com",), ("backup.example.net",))


def test_routes_that_lead_to_one_domain_share_a_destination(office: Office) -> None:
    routing = office.routing()
    assert routing.way(office.lane(TransportKind.MX)).key == routing.way(office.lane(TransportKind.MX)).key


def wanted(office: Office, rule: DeliveryTLS | None, route: RouteTLS | None, general: TLSMode) -> tuple[TLSMode, str]:
    """What is asked of a receiver's TLS, and what tells its destination from others."""
    shaping = ShapingRules([] if rule is None else [Shaping(pattern="example.com", tls=rule)], [])
    settings = DeliverySettings(hostname="mta.example", tls=general)
    routing = Routing(Clock(), settings, office.directory, None, office.capture_dir, shaping=shaping)  # type: ignore[arg-type]
    routing.exchanges.put(Exchange("example.com", (("mx.example.com",),)))
    lane = office.lane(TransportKind.MX)
    slug = next(each.slug for each in office.store.routes("demo") if each.id == lane.route_id)
    office.store.update_route("demo", slug, lambda old: evolve(old, tls=route))
    way = routing.way(lane)
    transport = way.transport()
    assert isinstance(transport, MXTransport)
    return transport.settings.tls, way.key.removeprefix("mx mx.example.com").removeprefix(" for example.com").strip()


def test_tls_is_what_the_receivers_rule_or_the_route_asks_for_and_require_comes_before_all(office: Office) -> None:
    opportunistic, require, off = TLSMode.OPPORTUNISTIC, TLSMode.REQUIRE, TLSMode.OFF
    assert wanted(office, None, None, opportunistic) == (opportunistic, "")
    assert wanted(office, None, RouteTLS.REQUIRE, opportunistic) == (require, "tls require")
    assert wanted(office, DeliveryTLS.REQUIRE, RouteTLS.OFF, opportunistic) == (require, "tls require")
    assert wanted(office, DeliveryTLS.OFF, RouteTLS.REQUIRE, opportunistic) == (require, "tls require")
    assert wanted(office, DeliveryTLS.OFF, RouteTLS.OPPORTUNISTIC, opportunistic) == (off, "tls off")
    assert wanted(office, None, RouteTLS.OPPORTUNISTIC, require) == (opportunistic, "tls opportunistic")
    assert wanted(office, None, RouteTLS.REQUIRE, off) == (require, "tls require example.com"), "policies were not looked for"


def test_mail_that_asks_for_another_way_has_channels_of_its_own_and_the_same_limits(office: Office) -> None:
    """RFC 8689 sections 4.2.1 and 4.2.2, RFC 8460 section 3."""
    policies = TLSPolicies(None)  # type: ignore[arg-type]
    routing = office.routing(policies=policies)
    routing.exchanges.put(Exchange("example.com", (("mx.example.com",),)))
    lane = office.lane(TransportKind.MX)
    marks = (str, requiring, not_required, whatever)
    ways = [routing.way(evolve(lane, route_id=mark(lane.route_id))) for mark in marks]
    assert len({way.key for way in ways}) == 4 and len({way.flow for way in ways}) == 1
    made = [way.transport() for way in ways]
    assert all(isinstance(each, MXTransport) for each in made)
    told = [(each.require_tls, each.waived) for each in made]  # type: ignore[attr-defined]
    assert told == [(False, False), (True, False), (False, True), (False, True)]
    elsewhere = office.lane(TransportKind.DISCARD)
    assert len({routing.way(evolve(elsewhere, route_id=mark(elsewhere.route_id))).key for mark in marks}) == 1


def test_what_the_operator_asks_of_tls_holds_for_mail_that_does_not_require_it(office: Office) -> None:
    """RFC 8689 section 4.2.2 sets aside what the recipient's domain asserts; a route that requires TLS is ours."""
    routing = office.routing(policies=TLSPolicies(None))  # type: ignore[arg-type]
    routing.exchanges.put(Exchange("example.com", (("mx.example.com",),)))
    lane = office.lane(TransportKind.MX)
    [slug] = [each.slug for each in office.store.routes("demo") if each.id == lane.route_id]
    office.store.update_route("demo", slug, lambda old: evolve(old, tls=RouteTLS.REQUIRE))
    made = [routing.way(evolve(lane, route_id=mark(lane.route_id))).transport() for mark in (not_required, whatever)]
    assert [each.settings.tls for each in made] == [TLSMode.REQUIRE, TLSMode.OPPORTUNISTIC]  # type: ignore[attr-defined]


def requiring(route_id: str) -> str:
    return with_care(route_id, Care.REQUIRE_TLS)


def not_required(route_id: str) -> str:
    return with_care(route_id, Care.TLS_NOT_REQUIRED)


def whatever(route_id: str) -> str:
    return with_care(route_id, Care.WHATEVER_TLS)


@pytest.mark.parametrize(
    ("kind", "made"), [(TransportKind.CAPTURE, CaptureTransport), (TransportKind.DISCARD, DiscardTransport)], ids=["capture", "discard"]
)
def test_capture_and_discard_have_one_destination_for_all_domains(office: Office, kind: TransportKind, made: type) -> None:
    routing = office.routing()
    way = routing.way(office.lane(kind, "a.example"))
    key, transport = way.key, way.transport
    assert isinstance(transport(), made)
    assert routing.way(office.lane(kind, "b.example")).key == key


@pytest.mark.parametrize("kind", [TransportKind.CAPTURE, TransportKind.DISCARD])
def test_nobody_can_address_mail_to_a_transport(office: Office, kind: TransportKind) -> None:
    """Mail for user@capture of an MX route must not meet the Maildir, nor captured mail leave for a domain of that name."""
    routing = office.routing()
    key = routing.way(office.lane(kind)).key
    assert " " in key, "no domain has a blank"
    assert routing.way(office.lane(TransportKind.MX, kind.value)).key != key


def test_a_smarthost_is_one_destination_for_all_domains_with_its_own_tls_and_login(office: Office) -> None:
    smarthost = Smarthost("relay.example", 587, SmarthostTLS.REQUIRE, "bob", "secret")
    routing = office.routing()
    lane = office.lane(TransportKind.SMARTHOST, "a.example", smarthost)
    way = routing.way(lane)
    key, transport = way.key, way.transport
    assert isinstance(transport(), SmarthostTransport)
    assert routing.way(Lane(lane.route_id, "b.example")).key == key
    assert "secret" not in key
    assert way.name == way.flow == "smarthost r1 relay.example:587"


def test_a_changed_password_is_a_new_destination(office: Office) -> None:
    routing = office.routing()
    lane = office.lane(TransportKind.SMARTHOST, smarthost=Smarthost("relay.example", 587, SmarthostTLS.REQUIRE, "bob", "old"))
    key = routing.way(lane).key
    office.store.update_route("demo", "r1", lambda route: evolve(route, smarthost=evolve(route.smarthost, password="new")))
    assert routing.way(lane).key != key


def test_a_route_that_was_changed_sends_the_new_way(office: Office) -> None:
    routing = office.routing()
    lane = office.lane(TransportKind.MX)
    office.store.update_route("demo", "r1", lambda route: evolve(route, transport=TransportKind.CAPTURE))
    assert isinstance(routing.way(lane).transport(), CaptureTransport)


def test_mail_of_a_deleted_route_waits(office: Office) -> None:
    routing = office.routing()
    lane = office.lane(TransportKind.MX)
    office.store.delete_route("demo", "r1")
    way = routing.way(lane)
    key, transport = way.key, way.transport
    assert key == f"no route {lane.route_id}"
    assert isinstance(transport(), NoRoute)
    failures: list[Unreachable] = []
    transport().open().addErrback(lambda failure: failures.append(failure.value))
    assert isinstance(failures[0], Unreachable)
    assert not failures[0].reply.permanent
    assert "route has been deleted" in failures[0].reply.text


def test_a_relayhost_takes_what_would_leave_by_mx_and_nothing_else(office: Office) -> None:
    routing = office.routing(relayhost=HostPort("relay.example", 25))
    way = routing.way(office.lane(TransportKind.MX))
    key, transport = way.key, way.transport
    assert isinstance(transport(), SmarthostTransport)
    assert routing.way(office.lane(TransportKind.MX, "b.example")).key == key
    assert isinstance(routing.way(office.lane(TransportKind.DISCARD)).transport(), DiscardTransport)


def test_capture_all_keeps_everything_at_home(office: Office) -> None:
    routing = office.routing(capture_all=True, relayhost=HostPort("relay.example", 25))
    smarthost = Smarthost("relay.example", 587)
    lanes = [office.lane(TransportKind.MX), office.lane(TransportKind.SMARTHOST, smarthost=smarthost), Lane("gone", "example.com")]
    assert all(isinstance(routing.way(lane).transport(), CaptureTransport) for lane in lanes)


def test_every_kind_of_tls_towards_a_smarthost_is_one_of_the_clients() -> None:
    assert {kind.value for kind in SmarthostTLS} <= {mode.value for mode in TLSMode}


def test_preferences_that_change_are_followed_though_the_hosts_are_the_same(office: Office) -> None:
    routing = office.routing()
    lane = office.lane(TransportKind.MX)
    routing.exchanges.put(Exchange("example.com", (("a.example",), ("b.example",))))
    transport = routing.way(lane).transport()
    routing.exchanges.put(Exchange("example.com", (("b.example",), ("a.example",))))
    assert transport.latest().groups == (("b.example",), ("a.example",))
    routing.exchanges.put(Exchange("example.com", (("c.example",),)))
    assert transport.latest().groups == (("a.example",), ("b.example",)), "other hosts are another destination"


def test_a_rule_is_found_for_an_internationalised_domain(office: Office) -> None:
    """RFC 5891: the configuration has the A-label, the address may have the U-label."""
    routing = office.routing(shaping=ShapingRules([Shaping(pattern="xn--mnchen-3ya.example", connections=2)]))
    routing.exchanges.put(Exchange("münchen.example", (("mx.example",),)))
    lane = office.lane(TransportKind.MX, "münchen.example")
    assert routing.way(lane).limits.connections == 2


def test_a_route_with_a_pool_has_channels_and_limits_of_its_own(office: Office) -> None:
    pools = SourcePools({"bulk": SourcePool("bulk", [], None)})  # type: ignore[arg-type]
    routing = office.routing(sources=pools)
    plain, pooled = office.lane(TransportKind.MX), office.lane(TransportKind.MX)
    routing.exchanges.put(Exchange("example.com", (("mx.example.com",),)))
    office.store.update_route("demo", "r2", lambda route: evolve(route, pool="bulk"))
    assert routing.way(plain).key == "mx mx.example.com"
    assert routing.way(pooled).key == routing.way(pooled).flow == "mx mx.example.com from bulk"
    assert routing.way(pooled).transport().pool is pools.pools["bulk"]


@pytest.mark.parametrize("kind", [TransportKind.SMARTHOST, TransportKind.MX])
def test_mail_leaves_from_its_routes_pool_to_a_smarthost_and_a_relayhost_too(office: Office, kind: TransportKind) -> None:
    bulk, usual = SourcePool("bulk", [], None), SourcePool("usual", [], None)  # type: ignore[arg-type]
    routing = office.routing(sources=SourcePools({"bulk": bulk, "usual": usual}, usual), relayhost=HostPort("relay.example", 25))
    lane = office.lane(kind, smarthost=Smarthost("relay.example", 25) if kind is TransportKind.SMARTHOST else None)
    plain = routing.way(lane)
    assert plain.transport().pool is None, "the default is for receivers in the world"
    office.store.update_route("demo", "r1", lambda route: evolve(route, pool="bulk"))
    pooled = routing.way(lane)
    assert pooled.transport().pool is bulk
    assert pooled.flow == f"{plain.flow} from bulk"
    assert pooled.key != plain.key


@pytest.mark.parametrize("kind", [TransportKind.SMARTHOST, TransportKind.MX])
def test_mail_of_a_route_whose_pool_is_gone_waits(office: Office, kind: TransportKind) -> None:
    routing = office.routing()
    lane = office.lane(kind, smarthost=Smarthost("relay.example", 25) if kind is TransportKind.SMARTHOST else None)
    office.store.update_route("demo", "r1", lambda route: evolve(route, pool="gone"))
    failures: list[Unreachable] = []
    routing.way(lane).transport().open().addErrback(lambda failure: failures.append(failure.value))
    assert str(failures[0].reply) == "451 4.3.5 The configuration has no [pool gone], which the message's route names"


def test_a_lanes_schedule_and_lifetime_are_its_routes_or_else_the_daemons(office: Office) -> None:
    routing = office.routing(delays=(60.0,), lifetime=86400.0)
    lane = office.lane(TransportKind.MX)
    assert 60 <= routing.schedule_of(lane).due(1, 0.0, 1e9) <= 66
    assert routing.lifetime_of(lane) == 86400.0
    office.store.update_route("demo", "r1", lambda route: evolve(route, schedule=(600.0, 1200.0), lifetime=3600.0))
    assert 600 <= routing.schedule_of(lane).due(1, 0.0, 1e9) <= 660
    assert 1200 <= routing.schedule_of(lane).due(2, 0.0, 1e9) <= 1320
    assert routing.lifetime_of(lane) == 3600.0
    gone = Lane("gone", "example.com")
    assert routing.lifetime_of(gone) == 86400.0
    assert routing.schedule_of(gone) is routing.schedule_of(Lane("gone", "other.example"))
