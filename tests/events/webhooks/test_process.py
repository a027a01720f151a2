"""The daemon's end of the process that sends webhooks: what it hands over, and that nothing is passed by when the process dies or hangs."""

from __future__ import annotations

import errno
import os
from typing import Any

import orjson
import pytest
from attrs import evolve
from twisted.internet.error import ConnectionLost, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lettermta.accounts.webhooks import GONE_REASON, Webhook
from lettermta.event import Event
from lettermta.events.sink import SinkFailed
from lettermta.events.webhooks.frames import Frames, Kind, packed, unpacked
from lettermta.events.webhooks.process import END_SECONDS, MOST_UNTAKEN, STUCK_SECONDS, WebhookSink
from tests.events.webhooks.place import event
from tests.test_counts import grown, measured

HOOK = Webhook("w1", "p", "https://shop.example/", 0.0, "s")


class Child:
    """A process that was started: what it was told, and how it behaves."""

    def __init__(self, reactor: Processes, protocol: Any) -> None:
        self.reactor, self.protocol = reactor, protocol
        self.pid = 4711
        self.transport = StringTransport()
        self.frames: Frames | None = None
        self.signals: list[str] = []

    def signalProcess(self, name: str) -> None:
        self.signals.append(name)

    def told(self) -> list[tuple[Kind, bytes]]:
        """The frames that it got since it was asked last."""
        got: list[tuple[Kind, bytes]] = []
        reader = Frames(lambda kind, body: got.append((kind, body)), lambda: None)
        reader.makeConnection(StringTransport())
        reader.dataReceived(self.transport.value())
        self.transport.clear()
        return got

    def says(self, kind: Kind, body: bytes = b"") -> None:
        assert self.frames is not None
        writer = Frames(lambda kind, body: None, lambda: None)
        transport = StringTransport()
        writer.makeConnection(transport)
        writer.send(kind, body)
        self.frames.dataReceived(transport.value())

    def dies(self) -> None:
        assert self.frames is not None
        self.frames.connectionLost(Failure(ConnectionLost()))
        self.protocol.processEnded(Failure(ProcessTerminated(1)))


class Processes(Clock):
    """As much of a reactor as starts processes."""

    def __init__(self) -> None:
        super().__init__()
        self.children: list[Child] = []
        self.refusing = False

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> Child:
        if self.refusing:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        assert os.fstat(childFDs[3])
        self.children.append(Child(self, protocol))
        return self.children[-1]

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        child = self.children[-1]
        child.frames = factory.buildProtocol(None)
        child.frames.makeConnection(child.transport)
        child.transport.loseConnection = child.dies

    @property
    def child(self) -> Child:
        return self.children[-1]


class WebhookSinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Processes()
        self.webhooks: dict[str, Webhook] = {"w1": HOOK}
        self.gone: list[Webhook] = []
        self.sink = WebhookSink(lambda: self.webhooks, {"state_dir": "/x"}, self.gone.append, self.reactor)
        self.sink.open()

    def deliver(self, *events: Event) -> int | None:
        """How many were taken; None while it waits."""
        taken = self.sink.deliver(list(enumerate(events, 1)))
        return self.successResultOf(taken) if taken.called else None

    def test_events_are_handed_over_and_are_safe_once_a_sync_is_answered(self) -> None:
        one, two = event(), event("message.delivered")
        assert self.deliver(one, two) == 2
        assert self.reactor.child.told() == [
            (Kind.SETTINGS, orjson.dumps({"state_dir": "/x"})),
            (Kind.EVENTS, packed([one.payload, two.payload])),
        ]
        synced = self.sink.sync()
        assert self.reactor.child.told() == [(Kind.SYNC, b"")]
        self.assertNoResult(synced)
        self.reactor.child.says(Kind.TAKEN, str(len(packed([one.payload, two.payload]))).encode())
        self.reactor.child.says(Kind.SYNCED)
        self.successResultOf(synced)
        self.successResultOf(self.sink.sync())
        assert self.reactor.child.told() == [], "there is nothing new to sync"

    def test_without_a_webhook_that_is_on_nothing_is_handed_over_and_no_process_runs(self) -> None:
        idle = Processes()
        sink = WebhookSink(dict, {}, self.gone.append, idle)
        sink.open()
        assert self.successResultOf(sink.deliver([(1, event())])) == 1
        self.successResultOf(sink.sync())
        assert idle.children == []
        self.webhooks = {"w1": evolve(HOOK, disabled=1.0)}
        assert self.deliver(event()) == 1
        assert [kind for kind, _ in self.reactor.child.told()] == [Kind.SETTINGS]

    def test_what_a_process_that_died_had_not_synced_is_told_again(self) -> None:
        self.deliver(event())
        synced = self.sink.sync()
        self.reactor.child.dies()
        self.failureResultOf(synced, SinkFailed)
        assert self.deliver(event()) == 0, "no process yet"
        self.reactor.advance(2)
        assert len(self.reactor.children) == 2
        assert self.deliver(event()) == 1
        self.flushLoggedErrors()

    def test_one_that_died_between_two_syncs_fails_the_next_one_once(self) -> None:
        self.deliver(event())
        self.reactor.child.dies()
        self.reactor.advance(2)
        assert self.deliver(event()) == 0, "first what was lost has to be told again"
        self.failureResultOf(self.sink.sync(), SinkFailed)
        assert self.deliver(event()) == 1
        assert [kind for kind, _ in self.reactor.child.told()] == [Kind.SETTINGS, Kind.EVENTS]

    def test_what_was_lost_stays_so_however_many_die_behind_it(self) -> None:
        self.deliver(event())
        for _ in range(2):
            self.reactor.child.dies()
            self.reactor.advance(5)
        assert len(self.reactor.children) == 3
        self.failureResultOf(self.sink.sync(), SinkFailed)

    def test_one_that_dies_at_once_is_started_more_and_more_seldom(self) -> None:
        with grown() as growth:
            for _ in range(100):
                if self.sink.pid is not None:
                    self.reactor.child.dies()
                self.reactor.advance(1)
        assert 5 <= len(self.reactor.children) <= 12
        assert "times in a row" in (self.sink.complaint() or "")
        assert growth["lettermta_webhook_restarts_total"] == len(self.reactor.children) - (self.sink.pid is not None)

    def test_one_that_cant_be_started_is_tried_again(self) -> None:
        """With no descriptor or no memory left for a moment, webhooks are not over for good."""
        self.reactor.child.dies()
        self.reactor.refusing = True
        self.reactor.advance(5)
        self.reactor.advance(5)
        assert self.deliver(event()) == 0
        self.reactor.refusing = False
        for _ in range(20):
            self.reactor.advance(1)
        assert len(self.reactor.children) == 2
        assert self.deliver(event()) == 1

    def test_one_that_closes_its_end_and_does_not_end_is_killed(self) -> None:
        child = self.reactor.child
        assert child.frames is not None
        child.frames.connectionLost(Failure(ConnectionLost()))
        self.reactor.advance(END_SECONDS + 1)
        assert child.signals == ["KILL"]
        child.protocol.processEnded(Failure(ProcessTerminated(9)))
        for _ in range(5):
            self.reactor.advance(1)
        assert len(self.reactor.children) == 2
        self.reactor.advance(100)
        assert self.reactor.child.signals == []

    def test_one_that_takes_nothing_for_long_is_killed_and_told_again(self) -> None:
        waiting = self.sink.deliver([(1, Event("e", "message.sent", "m", 0.0, b"x" * (MOST_UNTAKEN + 1)))])
        self.reactor.advance(STUCK_SECONDS + 1)
        assert self.reactor.child.signals == ["KILL"]
        self.reactor.child.dies()
        self.successResultOf(waiting)
        self.failureResultOf(self.sink.sync(), SinkFailed)

    def test_one_that_hangs_over_a_sync_is_killed(self) -> None:
        self.deliver(event())
        synced = self.sink.sync()
        self.reactor.advance(STUCK_SECONDS + 1)
        assert self.reactor.child.signals == ["KILL"]
        self.reactor.child.dies()
        self.failureResultOf(synced, SinkFailed)

    def test_one_that_takes_nothing_makes_the_outbox_wait(self) -> None:
        big = Event("e", "message.sent", "m", 0.0, b"x" * (MOST_UNTAKEN // 2))
        assert self.deliver(big) == 1
        waiting = self.sink.deliver([(2, big)])
        self.assertNoResult(waiting)
        self.reactor.child.says(Kind.TAKEN, str(len(packed([big.payload]))).encode())
        assert self.successResultOf(waiting) == 1

    def test_new_settings_are_for_a_new_process_and_what_was_not_synced_is_told_again(self) -> None:
        self.sink.renew({"state_dir": "/x"})
        assert self.reactor.child.told() == [(Kind.SETTINGS, orjson.dumps({"state_dir": "/x"}))]
        self.deliver(event())
        with grown() as growth:
            self.sink.renew({"state_dir": "/y"})
            self.reactor.advance(1)
        assert "lettermta_webhook_restarts_total" not in growth
        assert self.reactor.child.told() == [(Kind.SETTINGS, orjson.dumps({"state_dir": "/y"}))]
        assert self.deliver(event()) == 0
        self.failureResultOf(self.sink.sync(), SinkFailed)
        assert self.deliver(event()) == 1

    def test_closing_ends_the_process(self) -> None:
        closed = self.sink.close()
        self.successResultOf(closed)
        self.reactor.advance(100)
        assert len(self.reactor.children) == 1

    def test_one_that_does_not_end_is_killed(self) -> None:
        self.reactor.child.transport.loseConnection = lambda: None
        closed = self.sink.close()
        self.reactor.advance(10)
        assert self.reactor.child.signals == ["KILL"]
        self.reactor.child.dies()
        self.successResultOf(closed)

    def test_what_it_counts_shows_in_the_metrics_also_over_a_restart(self) -> None:
        def condition(**attempts: int) -> bytes:
            return orjson.dumps({"attempts": attempts, "pending": 3, "oldest": 7.5, "failing": {"w1": "fails since then: status 500"}})

        with grown() as growth:
            self.reactor.child.says(Kind.CONDITION, condition(success=5, timeout=1))
            self.reactor.child.says(Kind.CONDITION, condition(success=7, timeout=1))
            self.reactor.child.dies()
            self.reactor.advance(3)
            self.reactor.child.says(Kind.CONDITION, condition(success=2))
        assert growth["lettermta_webhook_attempts_total status=success"] == 9
        assert growth["lettermta_webhook_attempts_total status=timeout"] == 1
        assert measured("lettermta_webhook_pending") == 3
        assert measured("lettermta_webhook_oldest_seconds") == 7.5
        assert measured("lettermta_webhooks_failing") == 1
        self.webhooks = {**self.webhooks, "w2": evolve(HOOK, id="w2", disabled=1.0)}
        self.sink.measure()
        assert measured("lettermta_webhooks_off") == 1

    def test_health_tells_of_endpoints_that_fail_or_were_given_up(self) -> None:
        assert self.sink.complaint() is None
        self.webhooks = {
            "w1": HOOK,
            "w2": evolve(HOOK, id="w2", disabled=1.0, disabled_reason=GONE_REASON),
            "w3": evolve(HOOK, id="w3", disabled=1.0, disabled_reason="switched off by its owner"),
        }
        failing = {"w1": "fails since then: status 500", "deleted": "fails"}
        self.reactor.child.says(Kind.CONDITION, orjson.dumps({"attempts": {}, "pending": 0, "oldest": 0.0, "failing": failing}))
        assert self.sink.complaint() == "webhook w2 is off: its endpoint answered 410 Gone; webhook w1 fails since then: status 500"

    def test_one_that_was_given_up_is_announced(self) -> None:
        self.reactor.child.says(Kind.GONE, b"w1")
        self.reactor.child.says(Kind.GONE, b"unknown")
        assert self.gone == [HOOK]


@pytest.mark.parametrize("payloads", [[], [b""], [b"a", b"", b"ccc"]])
def test_what_is_packed_is_unpacked(payloads: list[bytes]) -> None:
    assert unpacked(packed(payloads)) == payloads
