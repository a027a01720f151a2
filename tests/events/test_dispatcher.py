"""The outbox's readers: every event, in order, at least once, and nobody waits for anybody."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lettermta.events.dispatcher import Dispatcher
from lettermta.events.feed import KEEP, LINGER, STOP_WITHIN, FeedState
from lettermta.events.sink import IEventSink, SinkFailed
from lettermta.interfaces import ISpool, ISpoolListener
from lettermta.testing.spool import MemorySpool

from .conftest import NotingSink, submit


def fired(deferred):
    results = []
    deferred.addBoth(results.append)
    assert results, "has not fired"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def begin(spool, clock, *sinks):
    dispatcher = Dispatcher(spool, sinks, clock)
    fired(dispatcher.start())
    return dispatcher


def test_the_pieces_provide_their_interfaces(spool, clock):
    verifyObject(IEventSink, NotingSink())
    verifyObject(ISpoolListener, Dispatcher(spool, [], clock))


def test_what_was_stored_before_the_start_is_told(spool, clock):
    sink = NotingSink()
    events = [submit(spool) for _ in range(250)]
    begin(spool, clock, sink)
    clock.pump([0.1] * 5)
    assert [event for _, event in sink.told] == events


def test_a_new_event_is_told_within_tens_of_milliseconds_and_not_read_again(spool, clock):
    sink = NotingSink()
    begin(spool, clock, sink)
    reads = spool.reads
    events = [submit(spool) for _ in range(5)]
    assert sink.told == [], "not from within the commit"
    clock.advance(LINGER)
    assert [event for _, event in sink.told] == events
    clock.advance(60)
    assert spool.reads == reads


def test_a_slow_sink_holds_bounded_memory_and_misses_nothing(spool, clock):
    slow, quick = NotingSink("slow"), NotingSink("quick")
    dispatcher = begin(spool, clock, slow, quick)
    gate: Deferred[int] = Deferred()
    slow.answer = lambda events: gate
    for _ in range(3 * KEEP):
        submit(spool)
        clock.advance(0.001)
    feed = dispatcher.feeds[0]
    assert feed.state is FeedState.CATCHING_UP
    assert feed._tail is None
    clock.pump([LINGER] * 10)
    assert quick.numbers == list(range(1, 3 * KEEP + 1)), "the others are told meanwhile"
    slow.answer = lambda events: succeed(len(events))
    gate.callback(20)
    clock.pump([LINGER] * 10)
    assert slow.numbers == list(range(1, 3 * KEEP + 1))
    assert feed.state is FeedState.LIVE


def test_a_failing_sink_is_retried_with_growing_delay_from_where_it_failed(spool, clock):
    sink, other = NotingSink("failing"), NotingSink("other")
    offered = []

    def only_three(events):
        offered.append((clock.seconds(), events[0][0]))
        return succeed(min(len(events), max(0, 4 - events[0][0])))

    sink.answer = only_three
    dispatcher = begin(spool, clock, sink, other)
    for _ in range(10):
        submit(spool)
    clock.pump([0.01] * 2000)
    assert [number for _, number in offered] == [1, 4, 4, 4, 4]
    times = [moment for moment, _ in offered]
    assert [round(later - earlier, 1) for earlier, later in pairwise(times)] == [1, 2, 4, 8]
    assert dispatcher.feeds[0].state is FeedState.BACKING_OFF
    assert dispatcher.complaint() == "readers of events fail and are tried again, the log says why: failing"
    assert other.numbers == list(range(1, 11))
    sink.answer = lambda events: succeed(len(events))
    clock.pump([16, LINGER])
    assert dispatcher.complaint() is None
    assert sink.numbers == list(range(1, 11))
    assert dispatcher.feeds[0].state is FeedState.LIVE


def test_the_delay_between_tries_is_bounded():
    retry = NotingSink().retry
    assert [retry.delay(failures) for failures in (1, 2, 9, 10, 5000)] == [1, 2, 256, 300, 300]


def test_an_unexpected_error_of_a_sink_is_logged_and_retried(spool, clock):
    sink = NotingSink()
    sink.answer = lambda events: fail(RuntimeError("a bug"))
    begin(spool, clock, sink)
    submit(spool)
    with capturedLogs() as logs:
        clock.advance(LINGER)
    assert [log["log_failure"].getErrorMessage() for log in logs] == ["a bug"]
    sink.answer = lambda events: succeed(len(events))
    clock.advance(1)
    clock.advance(LINGER)
    assert sink.numbers == [1]


def test_the_cursor_moves_once_a_second_after_a_sync(spool, clock):
    sink = NotingSink()
    begin(spool, clock, sink)
    advances = []
    advance = spool.advance
    spool.advance = lambda name, number: (sink.steps.append("advance"), advances.append(number), advance(name, number))[2]
    sink.steps.clear()
    for _ in range(300):
        submit(spool)
        clock.advance(0.01)
    clock.advance(2)
    assert sink.steps == ["sync", "advance"] * len(advances)
    assert 3 <= len(advances) <= 5
    assert spool.cursors["noting"] == 300
    clock.advance(60)
    assert len(advances) <= 5, "nothing new, nothing written"


def test_the_cursor_moves_after_a_thousand_events(spool, clock):
    sink = NotingSink()
    begin(spool, clock, sink)
    for _ in range(1050):
        submit(spool)
    clock.pump([0.01] * 12)
    assert spool.cursors["noting"] >= 1000


def test_after_a_crash_the_events_behind_the_cursor_are_told_again(spool, clock):
    first = NotingSink()
    begin(spool, clock, first)
    submit(spool)
    clock.pump([LINGER, 1])
    submit(spool)
    clock.advance(LINGER)
    assert first.numbers == [1, 2]
    second = NotingSink()
    begin(spool, Clock(), second)
    submit(spool)
    assert spool.cursors["noting"] == 1
    later = NotingSink()
    pump = Clock()
    begin(spool, pump, later)
    pump.advance(LINGER)
    assert later.numbers == [2, 3]


def test_after_a_clean_stop_nothing_is_told_twice(spool, clock):
    sink = NotingSink()
    dispatcher = begin(spool, clock, sink)
    for _ in range(250):
        submit(spool)
    fired(dispatcher.stop())
    assert sink.numbers == list(range(1, 251)), "stopping hands over what is in memory"
    assert sink.steps[-2:] == ["sync", "close"]
    assert dispatcher.feeds[0].state is FeedState.STOPPED
    assert clock.getDelayedCalls() == []
    again = NotingSink()
    begin(spool, clock, again)
    clock.advance(1)
    assert again.told == []


def test_stopping_does_not_wait_for_a_sink_that_hangs(spool, clock):
    sink, other = NotingSink("hangs"), NotingSink("other")
    sink.answer = lambda events: Deferred()
    dispatcher = begin(spool, clock, sink, other)
    submit(spool)
    clock.advance(LINGER)
    done = []
    dispatcher.stop().addCallback(done.append)
    assert done == []
    with capturedLogs() as logs:
        clock.advance(STOP_WITHIN)
    assert done == [None]
    assert [log["sink"] for log in logs] == ["hangs"]
    assert (spool.cursors["hangs"], spool.cursors["other"]) == (0, 1)


def test_stopping_while_backing_off_is_at_once(spool, clock):
    sink = NotingSink()
    sink.answer = lambda events: succeed(0)
    dispatcher = begin(spool, clock, sink)
    submit(spool)
    clock.advance(LINGER)
    assert dispatcher.feeds[0].state is FeedState.BACKING_OFF
    fired(dispatcher.stop())
    assert sink.told == []
    assert clock.getDelayedCalls() == []


def test_a_failed_sync_makes_all_behind_the_cursor_be_told_again(spool, clock):
    """HARD-CASES row 26: after a failed fsync what was written counts as lost."""
    sink = NotingSink()

    def failing():
        raise SinkFailed("no space")

    sink.synced = failing
    begin(spool, clock, sink)
    submit(spool)
    submit(spool)
    clock.advance(LINGER)
    clock.advance(1)
    assert spool.cursors["noting"] == 0
    sink.synced = lambda: None
    clock.pump([1, LINGER, 1])
    assert sink.numbers == [1, 2, 1, 2]
    assert spool.cursors["noting"] == 2


def test_a_spool_that_cannot_be_read_or_written_is_tried_again(spool, clock):
    sink = NotingSink()
    begin(spool, clock, sink)
    submit(spool)
    spool.broken = OSError("disk full")
    with capturedLogs() as logs:
        clock.pump([LINGER, 1, 1, 1])
    assert logs
    assert all(log["log_failure"].check(OSError) for log in logs)
    spool.broken = None
    submit(spool)
    clock.pump([1] * 10)
    assert set(sink.numbers) == {1, 2}
    assert spool.cursors["noting"] == 2


def test_start_fails_with_the_error_of_a_sink_that_cannot_be_opened(spool, clock):
    sink, other = NotingSink("bad"), NotingSink("good")
    sink.open = lambda: fail(PermissionError(13, "Permission denied", "/var/log/events"))
    dispatcher = Dispatcher(spool, [other, sink], clock)
    with pytest.raises(PermissionError, match="/var/log/events"):
        fired(dispatcher.start())
    assert [feed.state for feed in dispatcher.feeds] == [FeedState.STOPPED] * 2
    assert clock.getDelayedCalls() == []


def test_two_sinks_of_one_name_are_refused(spool, clock):
    with pytest.raises(ValueError, match="twin"):
        Dispatcher(spool, [NotingSink("twin"), NotingSink("twin")], clock)


def test_old_events_are_forgotten_once_every_sink_has_confirmed_them(spool, clock):
    sink, stuck = NotingSink(), NotingSink("stuck")
    stuck.answer = lambda events: succeed(0)
    day = 86_400.0
    dispatcher = Dispatcher(spool, [sink, stuck], clock, now=clock.seconds)
    fired(dispatcher.start())
    submit(spool, moment=0.0)
    clock.pump([day] * 8)
    submit(spool, moment=clock.seconds())
    clock.advance(day / 24)
    assert [number for number, _ in spool.outbox] == [1, 2], "one sink has not taken it yet"
    stuck.answer = lambda events: succeed(len(events))
    clock.pump([300.0] * 6)
    assert [number for number, _ in spool.outbox] == [2]


def test_a_round_of_forgetting_goes_on_until_nothing_is_left(spool, clock):
    """The spool forgets only so many in one commit."""
    rounds = iter([5000, 5000, 12, 0])
    asked = []
    spool.trim = lambda before: asked.append(clock.seconds()) or succeed(next(rounds))
    begin(spool, clock)
    clock.advance(600)
    clock.pump([0.5] * 10)
    assert len(asked) == 4
    assert asked == sorted(set(asked)), "each in a turn of its own"


def test_a_failure_to_forget_is_logged_and_tried_again(spool, clock):
    asked = []
    spool.trim = lambda before: asked.append(before) or fail(OSError("disk full"))
    begin(spool, clock)
    with capturedLogs() as logs:
        clock.pump([600, 600])
    assert len(asked) == len(logs) == 2


@implementer(ISpool)
class LateSpool(MemorySpool):
    """Reads and announcements come later than the commits they tell of, each at a moment of the test's choice."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[tuple[Deferred, list]] = []
        self.unannounced: list[list] = []

    def events(self, after, limit):
        answer = Deferred()
        self.reading.append((answer, [pair for pair in self.outbox if pair[0] > after][:limit]))
        return answer

    def answer(self) -> None:
        deferred, rows = self.reading.pop(0)
        deferred.callback(rows)

    def announce(self) -> None:
        numbered = self.unannounced.pop(0)
        for listener in self._listeners:
            listener.events_stored(numbered)

    def _commit(self, entries, events) -> None:
        listeners, self._listeners = self._listeners, []
        super()._commit(entries, events)
        self._listeners = listeners
        self.unannounced.append(self.outbox[-len(events) :])


def test_an_event_read_before_it_is_announced_is_told_once(clock):
    spool, sink = LateSpool(), NotingSink()
    begin(spool, clock, sink)
    submit(spool)
    spool.answer()
    submit(spool)
    spool.announce()
    clock.advance(LINGER)
    spool.announce()
    clock.advance(LINGER)
    assert sink.numbers == [1, 2]


def test_an_event_stored_during_the_last_read_is_not_lost(clock):
    spool, sink = LateSpool(), NotingSink()
    begin(spool, clock, sink)
    submit(spool)
    spool.announce()
    spool.answer()
    clock.advance(LINGER)
    assert sink.numbers == [1]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from("sssanrtdffl"), max_size=80), st.integers(1, 4))
def test_whatever_the_interleaving_every_event_is_told_in_order(moves, batch):
    """s: store, a: announce, r: a read answers, t: time passes, d: the sink takes a batch, f: part of one, n/l: many of them."""
    spool, sink, clock = LateSpool(), NotingSink(), Clock()
    sink.batch = batch
    waiting: list[tuple[Deferred, int]] = []

    def later(events):
        answer: Deferred[int] = Deferred()
        waiting.append((answer, len(events)))
        return answer

    sink.answer = later
    dispatcher = Dispatcher(spool, [sink], clock, now=lambda: 0.0)
    fired(dispatcher.start())
    for move in moves:
        if move == "s":
            submit(spool)
        elif move == "a" and spool.unannounced:
            spool.announce()
        elif move == "r" and spool.reading:
            spool.answer()
        elif move == "t":
            clock.advance(0.5)
        elif move == "l":
            clock.advance(400)
        elif move == "n":
            for _ in range(5):
                submit(spool)
        elif move in "df" and waiting:
            answer, count = waiting.pop()
            answer.callback(count if move == "d" else count // 2)
    sink.answer = lambda events: succeed(len(events))
    while waiting:
        answer, count = waiting.pop()
        answer.callback(count)
    while spool.unannounced:
        spool.announce()
    for _ in range(200):
        while spool.reading:
            spool.answer()
        clock.advance(5)
        if dispatcher.feeds[0].state is FeedState.LIVE and len(sink.told) == len(spool.outbox):
            break
    assert sink.numbers == [number for number, _ in spool.outbox]
