"""What has happened shows in the metrics: one test for each part that counts, through what a scrape sees."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lettermta import metrics
from lettermta.accounts.directory import Directory
from lettermta.accounts.schema import DATABASE
from lettermta.accounts.store import AccountStore
from lettermta.delivery.exchange import Exchange, Exchanges, Lookup
from lettermta.delivery.resolver import Resolver
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.event import CREATED, Event
from lettermta.events.dispatcher import RETENTION, TRIM_EVERY, Dispatcher
from lettermta.interfaces import ISpoolListener
from lettermta.message import Unreachable
from lettermta.testing.dns import DNSAuthority
from lettermta.testing.mx import RemoteMX
from tests.events.conftest import NotingSink
from tests.test_metrics import exposed


def ours() -> dict[tuple[str, ...], float]:
    return {key: value for key, value in exposed(metrics.REGISTRY).items() if key[0].startswith("lettermta_")}


@contextmanager
def grown() -> Iterator[dict[str, float]]:
    """By how much each counter grows, histograms' counts too: ``{"lettermta_x_total result=good": 1.0}``."""
    before = ours()
    growth: dict[str, float] = {}
    yield growth
    for key, value in ours().items():
        if key[0].endswith(("_total", "_count")) and value != before.get(key, 0):
            growth[" ".join(key)] = value - before.get(key, 0)


def measured(name: str, *labels: str) -> float:
    return ours()[(name, *labels)]


class Outbox:
    """As much of a spool as the readers of its events ask for."""

    def __init__(self) -> None:
        self.stored: list[tuple[int, Event]] = []
        self.listeners: list[ISpoolListener] = []
        self.subscribe = self.listeners.append

    def store(self, count: int) -> None:
        first = len(self.stored) + 1
        new = [(number, Event(str(number), CREATED, "m", 0.0, b"{}")) for number in range(first, first + count)]
        self.stored += new
        for listener in self.listeners:
            listener.events_stored(new)

    def events(self, after, limit):
        return succeed([pair for pair in self.stored if pair[0] > after][:limit])

    def cursor(self, sink):
        return succeed(0)

    def advance(self, sink, sequence):
        return succeed(None)

    def retire(self, sinks):
        return succeed([])

    def trim(self, before):
        count = sum(event.created < before for _, event in self.stored)
        self.stored = [pair for pair in self.stored if pair[1].created >= before]
        return succeed(count)


class TestEvents:
    """The readers of the outbox."""

    @pytest.fixture
    def clock(self):
        return Clock()

    @pytest.fixture
    def spool(self):
        return Outbox()

    def begin(self, spool, clock, *sinks, **options):
        dispatcher = Dispatcher(spool, sinks, clock, now=clock.seconds, **options)
        dispatcher.start()
        clock.pump([0.1] * 3)
        return dispatcher

    def test_each_event_taken_is_counted_for_its_reader(self, spool, clock):
        self.begin(spool, clock, NotingSink("one"), NotingSink("two"))
        with grown() as growth:
            spool.store(3)
            clock.pump([0.1] * 20)
        assert growth == {"lettermta_events_told_total sink=one": 3, "lettermta_events_told_total sink=two": 3}

    def test_a_reader_that_fails_falls_behind_for_all_to_see(self, spool, clock):
        sink = NotingSink("failing")
        dispatcher = self.begin(spool, clock, sink)
        sink.answer = lambda events: succeed(1)
        with grown() as growth:
            spool.store(4)
            clock.pump([0.1] * 5)
        assert growth == {"lettermta_events_told_total sink=failing": 1, "lettermta_events_failed_total sink=failing": 1}
        dispatcher.measure()
        assert measured("lettermta_events_behind", "sink=failing") == 3
        assert measured("lettermta_events_working", "sink=failing") == 0
        sink.answer = lambda events: succeed(len(events))
        clock.pump([1.0, 0.1, 0.1, 0.1])
        dispatcher.measure()
        assert measured("lettermta_events_behind", "sink=failing") == 0
        assert measured("lettermta_events_working", "sink=failing") == 1

    def test_forgotten_events_are_counted(self, spool, clock):
        self.begin(spool, clock, NotingSink())
        spool.store(1)
        clock.pump([1.0] * 5)
        with grown() as growth:
            clock.pump([TRIM_EVERY] * (int(RETENTION / TRIM_EVERY) + 2))
        assert growth["lettermta_events_forgotten_total"] == 1


def test_accounts_that_can_not_be_read_are_seen(tmp_path):
    directory = Directory(tmp_path)
    with AccountStore(tmp_path) as store, grown() as growth:
        store.create_project("demo")
        assert directory.project_by_slug("demo") is not None
        assert directory.project_by_slug("demo") is not None
    assert growth == {"lettermta_accounts_read_total result=succeeded": 1}
    damaging = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    with grown() as growth:
        damaging.execute("UPDATE route SET kind = 'unheard-of'")
        assert directory.project_by_slug("demo") is not None
    assert growth == {"lettermta_accounts_read_total result=failed": 1}
    assert measured("lettermta_accounts_stale") == 1
    damaging.execute("UPDATE route SET kind = 'transactional'")
    assert directory.project_by_slug("demo") is not None
    assert measured("lettermta_accounts_stale") == 0
    damaging.close()
    directory.close()


def opened(transport) -> dict[str, float]:
    with grown() as growth:
        transport.open().addErrback(lambda failure: failure.trap(Unreachable))
    return growth


def test_the_void_is_always_open():
    assert opened(DiscardTransport()) == {"lettermta_channels_opened_total result=opened transport=discard": 1}


class Refusing:
    """A resolver that knows nobody."""

    def mx(self, domain):
        from lettermta.delivery.resolver import NoSuchDomain

        return fail(NoSuchDomain(domain))


def test_a_domain_that_does_not_exist_is_a_permanent_failure_to_open():
    transport = Lookup("gone.test", Refusing(), DeliverySettings("out.test"), Exchanges(Clock()))
    assert opened(transport) == {"lettermta_channels_opened_total result=permanent transport=mx": 1}


def test_an_opening_that_is_given_up_is_counted_as_such():
    class Silent:
        def mx(self, domain):
            return Deferred()

    with grown() as growth:
        opening = Lookup("in.test", Silent(), DeliverySettings("out.test"), Exchanges(Clock())).open()
        opening.addErrback(lambda failure: None)
        opening.cancel()
    assert growth == {"lettermta_channels_opened_total result=canceled transport=mx": 1}


ZONE = {"in.test": {"MX": [(10, "mx.in.test")]}, "mx.in.test": {"A": ["127.0.0.1"]}, "broken.test": "SERVFAIL"}


class OnLoopback(TestCase):
    """Look-ups and connections, with a DNS server and an MX of the test's own."""

    timeout = 10

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        authority = DNSAuthority(ZONE)
        self.resolver = Resolver(reactor, [("127.0.0.1", authority.listen(reactor))], 5)
        self.addCleanup(authority.stop)

    def transport(self, port: int) -> MXTransport:
        settings = DeliverySettings("out.test", port=port, allow_networks=("127.0.0.0/8",), connect_timeout=5)
        return MXTransport(self.reactor, Exchange("in.test", (("mx.in.test",),)), self.resolver, settings)

    async def test_look_ups_are_counted_by_what_they_come_to(self):
        with grown() as growth:
            await gatherResults([self.resolver.mx("in.test"), self.resolver.mx("in.test")])
            await self.resolver.mx("in.test")
            await self.resolver.mx("mx.in.test")
            await self.assertFailure(self.resolver.mx("nowhere.test"), Exception)
            await self.assertFailure(self.resolver.mx("broken.test"), Exception)
            await self.assertFailure(self.resolver.mx("no name"), Exception)
        self.assertEqual(
            growth,
            {
                "lettermta_dns_lookups_total result=found type=MX": 1,
                "lettermta_dns_lookups_total result=joined type=MX": 1,
                "lettermta_dns_lookups_total result=cached type=MX": 1,
                "lettermta_dns_lookups_total result=empty type=MX": 1,
                "lettermta_dns_lookups_total result=no_such_domain type=MX": 2,
                "lettermta_dns_lookups_total result=failed type=MX": 1,
                "lettermta_dns_tries_failed_total cause=SERVFAIL": 1,
                "lettermta_dns_seconds_count": 4,
            },
        )
        self.resolver.measure()
        self.assertGreater(measured("lettermta_dns_cache_entries"), 0)

    async def test_connections_are_counted_by_what_they_come_to(self):
        mx = RemoteMX()
        port = mx.listen(self.reactor)
        with grown() as growth:
            channel = await self.transport(port).open()
            channel.close()
        self.assertEqual(growth["lettermta_channels_opened_total result=opened transport=mx"], 1)
        self.assertEqual(growth["lettermta_connections_out_total result=ready"], 1)
        self.assertEqual(growth["lettermta_tls_out_total version=none"], 1)
        mx.script("CONNECT", "554 5.7.1 not you")
        with grown() as growth:
            await self.assertFailure(self.transport(port).open(), Unreachable)
        self.assertEqual(growth["lettermta_connections_out_total result=turned_away"], 1)
        self.assertEqual(growth["lettermta_channels_opened_total result=temporary transport=mx"], 1)
        await mx.stop()
        with grown() as growth:
            await self.assertFailure(self.transport(port).open(), Unreachable)
        self.assertEqual(growth["lettermta_connections_out_total result=refused"], 1)
