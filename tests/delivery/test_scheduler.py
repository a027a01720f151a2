"""The scheduler: what is due goes out once, what came of it is on record, and nobody is forgotten."""

from __future__ import annotations

import random

import pytest
from attrs import evolve
from twisted.internet.defer import fail
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from lettermta.config import Rate
from lettermta.delivery import lane, recorder, scheduler
from lettermta.delivery.recorder import RECORD_AGAIN_SECONDS
from lettermta.delivery.reporter import ReportRules
from lettermta.delivery.scheduler import STOP_SECONDS
from lettermta.delivery.shaping import Limits
from lettermta.interfaces import IChannel, ISpoolListener, ITransport
from lettermta.message import Reply, State, Verdict
from lettermta.testing.spool import MemorySpool

from .scripted import LATER, LOST, NEVER, NO_LIMITS, OK, Channel, Place, StagedSpool, World, accept, answer, make_message, unreachable


def test_the_pieces_provide_their_interfaces():
    world = World()
    verifyObject(ISpoolListener, world.scheduler)
    verifyObject(ITransport, Place("x"))
    verifyObject(IChannel, Channel(Place("x")))


def test_a_new_message_goes_out_and_leaves_the_spool():
    world = World().start()
    message = world.submit("jane@example.com")
    assert world.place("example.com").attempts == [("jane@example.com",)]
    assert world.told(message) == ["sent", "delivered"]
    assert not world.spool.stored
    world.assert_at_rest()


def test_recipients_of_one_domain_share_an_attempt_and_others_do_not():
    world = World().start()
    world.submit("a@one.example", "b@two.example", "c@ONE.example", "d@two.example")
    assert world.place("one.example").attempts == [("a@one.example", "c@ONE.example")]
    assert world.place("two.example").attempts == [("b@two.example", "d@two.example")]
    world.assert_at_rest()


def test_a_deferred_recipient_is_tried_again_on_schedule():
    world = World().start()
    place = world.place("example.com")
    place.answer = answer(LATER)
    message = world.submit("jane@example.com")
    assert world.told(message) == ["soft_bounced"]
    [recipient] = world.recipients()
    assert (recipient.state, recipient.attempts, recipient.due) == (State.DEFERRED, 1, world.now() + 60)
    world.clock.advance(59)
    assert len(place.attempts) == 1
    world.clock.advance(1)
    assert len(place.attempts) == 2
    world.clock.advance(299)
    place.answer = accept
    assert len(place.attempts) == 2
    world.clock.advance(1)
    assert world.told(message) == ["soft_bounced", "soft_bounced", "sent", "delivered"]
    world.assert_at_rest()


def test_sent_is_told_once_over_several_attempts():
    world = World().start()
    world.place("example.com").answer = answer(LATER, handed_over=True)
    message = world.submit("jane@example.com")
    world.clock.advance(60)
    world.place("example.com").answer = accept
    world.clock.advance(300)
    assert world.told(message) == ["sent", "soft_bounced", "soft_bounced", "delivered"]


def test_a_last_attempt_is_made_at_expiry_and_then_the_recipient_has_failed():
    world = World().start()
    place = world.place("example.com")
    place.answer = answer(LATER)
    message = world.submit("jane@example.com", lifetime=200.0)
    world.clock.pump([1.0] * 199)
    assert len(place.attempts) == 2
    world.clock.advance(1)
    assert len(place.attempts) == 3
    assert world.told(message) == ["soft_bounced", "soft_bounced", "failed"]
    assert not world.spool.stored
    world.assert_at_rest()


def test_mixed_answers_leave_only_the_deferred_in_the_queue():
    """HARD-CASES row 17: what one recipient's server says changes nothing for the others."""
    world = World().start()
    place = world.place("example.com")
    replies = {"a": OK, "b": NEVER, "c": LATER}
    place.answer = lambda entry, recipient: Verdict(recipient, replies[recipient.address[0]], handed_over=True)
    world.submit("a@example.com", "b@example.com", "c@example.com")
    place.answer = accept
    world.clock.advance(60)
    assert place.attempts == [("a@example.com", "b@example.com", "c@example.com"), ("c@example.com",)]
    assert not world.spool.stored
    world.assert_at_rest()


def test_what_is_deferred_apart_is_tried_apart():
    """The first one's end must not make the lane forget the second one."""
    world = World().start()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("a@example.com")
    world.clock.advance(30)
    world.submit("b@example.com")
    place.answer = accept
    world.clock.advance(30)
    assert place.recipients == ["a@example.com", "b@example.com", "a@example.com"]
    world.clock.advance(30)
    assert place.recipients == ["a@example.com", "b@example.com", "a@example.com", "b@example.com"]
    world.assert_at_rest()


def test_a_deferred_recipient_of_a_busy_lane_is_not_forgotten():
    """What is in hand all the time must not hide when the rest is due."""
    world = World().start()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("a@example.com")
    world.clock.advance(30)
    world.submit("b@example.com")
    place.answer = accept
    place.holding = True
    for _ in range(12):
        world.submit("stream@example.com")
        world.clock.advance(6)
        for channel in place.open_channels[:-1]:
            if channel.held and len([one for one in place.open_channels if one.held]) > 1:
                channel.finish()
        assert world.scheduler._hand > 0
    assert place.recipients.count("a@example.com") == 2
    assert place.recipients.count("b@example.com") == 2


def test_what_is_scheduled_goes_out_at_its_time_and_not_before():
    """FUTURERELEASE (RFC 4865)."""
    world = World().start()
    message = evolve(make_message(world.spool, ["jane@example.com"], world.now()), hold_until=world.now() + 3600)
    world.spool.store(message, [])
    world.submit("joe@example.com")
    world.clock.pump([60.0] * 59)
    assert world.place("example.com").recipients == ["joe@example.com"]
    world.clock.advance(60)
    assert world.place("example.com").recipients == ["joe@example.com", "jane@example.com"]
    world.assert_at_rest()


def test_a_restart_takes_up_what_is_due_and_what_is_deferred():
    world = World()
    for number in range(3):
        world.submit(f"u{number}@one.example", f"u{number}@two.example")
    world.place("two.example").answer = answer(LATER)
    world.start()
    assert sorted(world.place("one.example").recipients) == ["u0@one.example", "u1@one.example", "u2@one.example"]
    world.scheduler.stop()
    world.place("two.example").answer = accept
    world.scheduler = world.new_scheduler()
    world.start()
    assert len(world.place("two.example").attempts) == 3
    world.clock.advance(60)
    assert len(world.place("two.example").attempts) == 6
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_backlog_of_thousands_goes_out_once_each_in_bounded_memory():
    world = World()
    for number in range(5000):
        world.submit(f"u{number}@d{number % 3}.example")
    largest = 0
    for place in map(world.place, ("d0.example", "d1.example", "d2.example")):
        place.holding = True
    world.start()
    finished = 0
    while busy := [channel for place in world.places.values() for channel in place.open_channels if channel.held]:
        largest = max(largest, max(len(one) for one in world.scheduler._lanes.values()))
        for channel in busy:
            channel.finish()
            finished += 1
    assert finished == 5000
    assert largest <= lane.WINDOW
    assert sorted(a for place in world.places.values() for a in place.recipients) == sorted(f"u{n}@d{n % 3}.example" for n in range(5000))
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_backlog_goes_out_where_everything_answers_at_once():
    """However much is done within one call, the stack doesn't grow."""
    world = World()
    for number in range(1500):
        world.submit(f"u{number}@example.com")
    world.start()
    assert len(world.place("example.com").attempts) == 1500
    assert world.place("example.com").opened <= NO_LIMITS.connections
    world.assert_at_rest()


def test_all_lanes_together_hold_a_bounded_hand(monkeypatch):
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 40)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    spool = StagedSpool()
    world = World(spool)
    for number in range(1000):
        world.submit(f"u{number}@d{number % 50}.example")
    for number in range(50):
        world.place(f"d{number}.example").holding = True
    spool.settle()
    world.scheduler.start()
    spool.settle()
    world.clock.advance(0)
    while True:
        spool.settle()
        assert world.scheduler._hand <= 40 + 10
        busy = [channel for place in world.places.values() for channel in place.open_channels if channel.held]
        if not busy:
            break
        random.Random(1).choice(busy).finish()
    assert sum(len(place.attempts) for place in world.places.values()) == 1000
    assert not spool.stored
    for _ in range(20):
        world.clock.advance(1.0)
        spool.settle()
    world.assert_at_rest()


def test_what_is_to_be_found_dead_is_not_read_from_the_spool_first(monkeypatch):
    """A start on a deep queue for many dead destinations reads about as much of it as memory has room for, not a window for each."""

    class Counting(MemorySpool):
        asked = 0

        def due(self, lane, now, limit):
            self.asked += limit
            return super().due(lane, now, limit)

    monkeypatch.setattr(scheduler, "LARGEST_HAND", 1000)
    world = World(Counting(), delays=(100_000.0,))
    for number in range(2500):
        world.submit(f"u{number}@dead{number % 50}.example")
    for number in range(50):
        world.place(f"dead{number}.example").holding_opens = True
    world.start()
    assert all(world.place(f"dead{number}.example").opening for number in range(50)), "each of them is tried"
    assert world.spool.asked <= 1000


def test_of_many_domains_that_wait_only_the_names_are_in_memory(monkeypatch):
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 20)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 5)
    world = World()
    names = [f"d{number}.example" for number in range(200)]
    for name in names * 3:
        world.place(name).holding = True
        world.submit(f"u@{name}")
    world.start()
    assert len(world.scheduler._hungry) > 150
    assert len(world.scheduler._lanes) <= 20
    while busy := [channel for name in names for channel in world.place(name).open_channels if channel.held]:
        busy[0].finish()
    world.clock.pump([1.0] * 30)
    assert not world.spool.stored
    world.assert_at_rest()


def test_dead_destinations_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(scheduler, "MAX_CHANNELS", 10)
    monkeypatch.setattr(scheduler, "MOST_DEAD", 30)
    world = World(delays=(10_000.0,)).start()
    for number in range(500):
        world.place(f"d{number}.example").fault = unreachable()
        world.submit(f"u@d{number}.example")
    assert len(world.scheduler._destinations) <= 2 * 30 + 1
    world.clock.pump([60.0] * 30)
    world.submit("u@d0.example")
    assert world.place("d0.example").asked_open >= 2


def test_attempts_that_are_faster_than_the_spool_wait_for_it(monkeypatch):
    """Memory is bounded, and so is what a crash can make arrive twice."""
    monkeypatch.setattr(recorder, "MOST_UNRECORDED", 30)
    spool = StagedSpool()
    world = World(spool)
    for number in range(500):
        world.submit(f"u{number}@d{number % 5}.example")
    spool.settle()
    world.scheduler.start()
    spool.settle()
    world.clock.advance(0)
    for _ in range(10_000):
        while spool.reads or spool.calls:
            if spool.reads:
                spool.read_one()
            else:
                spool.call_one()
        assert len(spool.writes) <= 30 + 5 * NO_LIMITS.connections
        if not spool.writes:
            break
        spool.write_one()
    assert sum(len(place.attempts) for place in world.places.values()) == 500
    assert not spool.stored
    spool.settle()
    for _ in range(20):
        world.clock.advance(1.0)
        spool.settle()
    world.assert_at_rest()


def test_a_message_that_was_stored_while_the_spool_was_asked_is_not_forgotten():
    """The answer was read before the message was there, and nothing else is in hand that could bring it up."""
    spool = StagedSpool()
    world = World(spool)
    world.scheduler.start()
    spool.settle()
    place = world.place("example.com")
    world.scheduler._leave(next(iter(_lanes(world, "jane@example.com"))))
    spool.read_one()
    world.submit("jane@example.com")
    spool.write_one()
    spool.calls.rotate(-1)
    spool.settle()
    assert place.recipients == ["jane@example.com"]


def _lanes(world, address):
    from lettermta.message import Lane, domain_of

    return [Lane("r1", domain_of(address))]


def test_nobody_is_sent_twice_by_a_stale_answer_of_the_spool():
    """The spool read that the recipient is due, then its delivery was recorded, then the answer arrived."""
    spool = StagedSpool()
    world = World(spool)
    place = world.place("example.com")
    place.holding = True
    world.scheduler.start()
    world.submit("a@example.com")
    spool.settle()
    world.scheduler._leave(next(iter(world.scheduler._lanes)))
    spool.read_one()  # a is still waiting in this answer
    place.channels[0].finish()
    spool.write_one()
    spool.calls.rotate(-1)  # the record is told before the older answer
    spool.settle()
    assert place.recipients == ["a@example.com"]
    spool.settle()
    assert not spool.stored


def test_what_can_not_be_recorded_is_kept_in_hand_and_not_sent_again():
    """HARD-CASES row 16: the other side has it."""
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    message = world.submit("jane@example.com")
    world.spool.broken = OSError("no space left")
    with capturedLogs() as logged:
        place.channels[0].finish()
        world.clock.pump([1.0] * 30)
    assert any(message.id == event.get("id") for event in logged)
    assert len(place.attempts) == 1
    assert world.scheduler._hand == 1
    world.spool.broken = None
    world.clock.advance(RECORD_AGAIN_SECONDS)
    assert world.told(message) == ["sent", "delivered"]
    assert len(place.attempts) == 1
    world.assert_at_rest()


def test_an_outcome_that_could_not_be_recorded_is_tried_a_last_time_at_the_stop():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    message = world.submit("jane@example.com")
    world.spool.broken = OSError("no space left")
    with capturedLogs():
        place.channels[0].finish()
    world.spool.broken = None
    world.scheduler.stop()
    assert world.told(message) == ["sent", "delivered"]
    assert not world.clock.getDelayedCalls()


def test_a_stop_leaves_no_timer_also_when_nothing_can_be_recorded():
    world = World().start()
    world.place("example.com").holding = True
    world.submit("jane@example.com")
    world.spool.broken = OSError("no space left")
    with capturedLogs():
        world.place("example.com").channels[0].finish()
        world.scheduler.stop()
    assert not world.clock.getDelayedCalls()


def test_a_message_without_content_is_quarantined_and_nothing_is_sent():
    """HARD-CASES row 14."""

    class Hollow(MemorySpool):
        def load(self, entry):
            return fail(LookupError("there is none"))

    world = World(Hollow()).start()
    world.place("example.com").fault = None
    with capturedLogs() as logged:
        world.submit("jane@example.com")
    [recipient] = world.recipients()
    assert (recipient.state, recipient.last_reply) == (State.QUARANTINED, "there is none")
    assert world.place("example.com").attempts == []
    assert any("quarantined" in event["log_format"] for event in logged)
    world.clock.advance(10_000)
    world.assert_at_rest()


def test_content_that_can_not_be_read_now_is_tried_later():
    class Failing(MemorySpool):
        faulty = True

        def load(self, entry):
            return fail(OSError("I/O error")) if self.faulty else super().load(entry)

    world = World(Failing()).start()
    with capturedLogs():
        message = world.submit("jane@example.com")
    [recipient] = world.recipients()
    assert recipient.state is State.DEFERRED
    assert world.told(message) == [], "nobody outside said anything"
    world.spool.faulty = False
    world.clock.advance(60)
    assert world.told(message) == ["sent", "delivered"]
    world.assert_at_rest()


def test_a_spool_that_can_not_be_asked_is_asked_again():
    class Failing(MemorySpool):
        faulty = ""

        def due(self, *arguments):
            return fail(OSError("I/O error")) if self.faulty == "due" else super().due(*arguments)

        def next_due(self, *arguments):
            return fail(OSError("I/O error")) if self.faulty == "next_due" else super().next_due(*arguments)

    for faulty in ("due", "next_due"):
        world = World(Failing())
        world.submit("a@example.com")
        world.spool.faulty = faulty
        with capturedLogs():
            world.start()
        world.spool.faulty = ""
        world.clock.advance(RECORD_AGAIN_SECONDS)
        assert world.place("example.com").recipients == ["a@example.com"]
        world.assert_at_rest()


def test_mail_goes_by_its_route_as_that_is_now():
    world = World().start()
    world.ways["r1"] = "old"
    world.place("old").answer = answer(LATER)
    world.submit("jane@example.com")
    world.ways["r1"] = "new"
    world.clock.advance(60)
    assert len(world.place("old").attempts) == 1
    assert world.place("new").recipients == ["jane@example.com"]
    world.assert_at_rest()


def test_what_waits_for_an_old_way_goes_the_new_one_with_the_next_of_its_lane():
    world = World().start()
    world.ways["r1"] = "old"
    world.place("old").holding_opens = True
    world.submit("a@example.com")
    world.submit("b@example.com")
    world.ways["r1"] = "new"
    world.submit("c@example.com")
    assert world.place("new").recipients == ["a@example.com", "b@example.com", "c@example.com"]
    for opening in world.place("old").opening:
        opening.callback(world.place("old").channel())
    assert world.place("old").attempts == []
    world.assert_at_rest()


def test_a_stop_waits_for_the_attempts_under_way():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    message = world.submit("jane@example.com")
    world.submit("joe@elsewhere.example")
    stopped = []
    world.scheduler.stop().addCallback(stopped.append)
    assert not stopped
    assert world.place("elsewhere.example").open_channels == []
    place.channels[0].finish()
    assert stopped
    assert world.told(message) == ["sent", "delivered"]
    assert place.channels[0].closed
    assert not world.clock.getDelayedCalls()


def test_a_stop_begins_nothing_new():
    spool = StagedSpool()
    world = World(spool)
    world.submit("a@example.com")
    spool.settle()
    world.scheduler.start()
    spool.settle()
    world.clock.advance(0)  # the alarm: the spool is asked
    world.scheduler.stop()
    world.submit("b@example.com")
    spool.settle()
    assert world.places == {}
    assert not world.clock.getDelayedCalls()


def test_what_an_attempt_gives_back_while_we_stop_is_not_begun_again():
    world = World().start()
    old = world.place("example.com")
    world.submit("a@example.com")
    old.holding = True
    world.submit("b@example.com")
    stopped = []
    world.scheduler.stop().addCallback(stopped.append)
    world.ways["example.com"] = "new.test"
    channel = old.channels[0]
    channel.usable = False
    channel.finish([Verdict(one, LOST, remote=False) for one in channel.held[0].recipients])
    assert stopped
    assert not world.place("new.test").asked_open
    assert not world.clock.getDelayedCalls()


def test_a_stop_is_bounded_when_an_attempt_hangs():
    world = World().start()
    world.place("example.com").holding = True
    world.submit("jane@example.com")
    stopped: list[object] = []
    with capturedLogs() as logged:
        world.scheduler.stop().addCallback(stopped.append)
        world.clock.advance(STOP_SECONDS - 1)
        assert not stopped
        world.clock.advance(1)
    assert stopped
    assert not world.clock.getDelayedCalls()
    assert not [event for event in logged if event.get("isError")]


def test_destinations_that_are_not_in_use_are_forgotten():
    world = World().start()
    for number in range(5000):
        world.submit(f"u@d{number}.example")
        if number % 100 == 0:
            world.clock.advance(30)
    assert len(world.scheduler._destinations) <= 2 * scheduler.MAX_CHANNELS + 100
    assert sum(len(place.attempts) for place in world.places.values()) == 5000
    world.assert_at_rest()


def world_with_skew() -> tuple[World, list[float]]:
    """A world whose wall clock is behind by what stands in the list."""
    world = World()
    skew = [0.0]
    true = world.now
    world.now = lambda: true() - skew[0]  # type: ignore[method-assign]
    world.scheduler = world.new_scheduler()
    return world.start(), skew


@pytest.mark.parametrize("back", [30.0, 3600.0, 90 * 86_400.0])
def test_what_was_put_off_waits_no_longer_when_the_wall_clock_is_set_back(back):
    """HARD-CASES row 27."""
    world, skew = world_with_skew()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("jane@example.com", "joe@example.com")
    world.submit("ann@example.org")
    place.answer = accept
    skew[0] = back
    with capturedLogs() as logged:
        world.clock.advance(59)
        assert len(place.attempts) == 1
        world.clock.advance(2)
    assert len(place.attempts) == 2
    assert [event["seconds"] for event in logged if "the clock was set back" in event["log_format"]] == [pytest.approx(back)]
    world.assert_at_rest()


def test_a_clock_that_is_set_forward_and_back_again_holds_up_nothing():
    """HARD-CASES row 27: a mistake, and its mending."""
    world, skew = world_with_skew()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("jane@example.com")
    skew[0] = -86_400.0
    with capturedLogs():
        world.clock.advance(61)
        assert len(place.attempts) == 2, "due, by the clock of now"
        skew[0] = 0.0
        place.answer = accept
        world.clock.advance(301)
    assert len(place.attempts) == 3
    world.assert_at_rest()


def test_what_is_for_later_goes_by_the_wall_clock_however_that_is_set():
    world, skew = world_with_skew()
    message = evolve(make_message(world.spool, ["jane@example.com"], world.now()), hold_until=world.now() + 600.0)
    world.spool.store(message, [])
    skew[0] = 3600.0
    with capturedLogs():
        world.clock.advance(700)
        assert world.place("example.com").attempts == []
        world.clock.advance(3600)
    assert len(world.place("example.com").attempts) == 1


def test_what_can_not_be_made_due_earlier_now_is_tried_again():
    world, skew = world_with_skew()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("jane@example.com")
    place.answer = accept
    skew[0] = 3600.0
    world.spool.broken = OSError("no space left")
    with capturedLogs():
        world.clock.advance(61)
        world.spool.broken = None
        world.clock.advance(61)
    assert len(place.attempts) == 2


def test_a_minute_is_the_longest_that_nobody_looks_at_the_clock():
    world, skew = world_with_skew()
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.delays = (7200.0,)
    world.submit("jane@example.com")
    place.answer = accept
    skew[0] = -7200.0
    world.clock.advance(61)
    assert len(place.attempts) == 2
    world.assert_at_rest()


# -- fairness (HARD-CASES row 35)


@pytest.mark.parametrize("domains", [1, 300], ids=["one domain", "many domains by one way"])
def test_another_projects_first_message_waits_for_one_of_each_channel_at_the_most(domains):
    world = World().start()
    for number in range(domains):
        world.ways[f"d{number}.example"] = "relay"
    world.ways["d.example"] = "relay"
    place = world.place("relay")
    place.holding = True
    for number in range(3000):
        world.submit(f"u{number}@d{number % domains}.example", route="r1")
    before = len(place.attempts)
    world.submit("late@d.example", route="r2")
    channels = place.open_channels
    assert len(channels) == NO_LIMITS.connections
    for channel in channels:
        channel.finish()
        if "late@d.example" in place.recipients:
            break
    assert "late@d.example" in place.recipients[before : before + len(channels)]


def test_a_route_with_its_own_schedule_is_tried_by_that():
    world = World().start()
    world.schedules["r2"] = (10.0,)
    place = world.place("example.com")
    place.answer = answer(LATER)
    world.submit("usual@example.com", route="r1")
    world.submit("hasty@example.com", route="r2")
    world.clock.advance(10)
    assert place.recipients.count("hasty@example.com") == 2
    assert place.recipients.count("usual@example.com") == 1
    world.clock.advance(50)
    assert place.recipients.count("usual@example.com") == 2


def test_destinations_that_cannot_be_reached_do_not_hold_all_the_memory(monkeypatch):
    """Forty domains whose hosts don't answer, each with a backlog, and one that does: its mail goes out at once, and all of it."""
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 400)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    world = World(delays=(100_000.0,)).start()
    for number in range(40):
        world.place(f"dead{number}.example").holding_opens = True
        for each in range(30):
            world.submit(f"u{each}@dead{number}.example")
    assert world.scheduler._hand == 400
    alive = world.place("alive.example")
    for number in range(100):
        world.submit(f"u{number}@alive.example")
    assert len(alive.attempts) == 100
    assert world.scheduler._hand <= 200
    for _ in range(3):  # while the openings fail, one after the other, and what is left comes up
        for number in range(40):
            place = world.place(f"dead{number}.example")
            openings, place.opening = place.opening, []
            for opening in openings:
                opening.errback(unreachable())
        world.submit("more@alive.example")
        world.clock.advance(61)
    assert alive.recipients.count("more@alive.example") == 3
    for number in range(40):
        place = world.place(f"dead{number}.example")
        place.holding_opens = False
        openings, place.opening = place.opening, []
        for opening in openings:
            opening.callback(place.channel())
    world.clock.pump([60.0] * 2000)
    assert not world.spool.stored, "nothing that was left to the spool is forgotten"
    world.assert_at_rest()


# -- any order of things


TOO_MANY = Reply(452, "4.5.3", "Too many recipients")
LEAVING = Reply(421, "4.3.2", "Enough for one connection")


class Chaos:
    """Things happen in any order, and then all is well: then everybody has it, once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.spool = StagedSpool()
        rules = ReportRules("mta.example.org", warn_after=20.0, per_minute=1000) if seed % 2 else None
        self.world = World(self.spool, delays=(5.0, 20.0), reporter=rules)
        self.names = [f"d{number}.example" for number in range(self.random.randint(1, 4))]
        self.routes = ["r1", "r2"][: self.random.randint(1, 2)]
        if self.random.random() < 0.3:
            self.world.ways.update(dict.fromkeys(self.names, "relay"))
        for name in [*self.names, "relay", "example.net"]:
            place = self.world.place(name)
            place.holding = place.holding_opens = True
            place.ahead = self.random.random() < 0.5
            if self.random.random() < 0.5:
                rate = self.random.choice((None, Rate(2, "s")))
                self.world.limits[name] = Limits(
                    connections=self.random.randint(1, 3), recipients_per_message=self.random.randint(1, 3), rate=rate
                )
            self.world.flows[name] = self.random.choice((name, "shared"))
        self.stored = 0

    def step(self) -> None:
        spool, world = self.spool, self.world
        openings = [place for place in world.places.values() if place.opening]
        busy = [channel for place in world.places.values() for channel in place.open_channels if channel.held]
        kept = [channel for place in world.places.values() for channel in place.open_channels if not channel.held and channel.usable]
        possible = [self.submit, self.advance]
        possible += [spool.write_one] * 3 if spool.writes else []
        possible += [spool.read_one] * 3 if spool.reads else []
        possible += [spool.call_one] * 6 if spool.calls else []
        possible += [lambda: self.open(openings)] * 2 if openings else []
        possible += [lambda: self.finish(busy)] * 3 if busy else []
        if kept and self.random.random() < 0.1:
            possible.append(lambda: setattr(self.random.choice(kept), "usable", False))
        if self.random.random() < 0.03:
            spool.broken = None if spool.broken else OSError("no space left")
        if self.random.random() < 0.02:
            self.world.ways[self.random.choice(self.names)] = self.random.choice(self.names)
        self.random.choice(possible)()

    def submit(self) -> None:
        if self.spool.broken is None:
            names = self.random.sample(self.names, self.random.randint(1, len(self.names)))
            recipients = [f"u{self.stored}-{i}@{name}" for name in names for i in range(self.random.randint(1, 3))]
            self.world.submit(*recipients, route=self.random.choice(self.routes))
            self.stored += 1

    def advance(self) -> None:
        self.world.clock.advance(self.random.choice((0.0, 0.1, 1.0, 5.0, 30.0)))

    def open(self, places) -> None:
        place = self.random.choice(places)
        opening = place.opening.pop(self.random.randrange(len(place.opening)))
        if self.random.random() < 0.6:
            opening.callback(place.channel())
        else:
            opening.errback(unreachable())

    def finish(self, busy) -> None:
        channel = self.random.choice(busy)
        entry, _ = channel.held
        fate = self.random.random()
        if fate < 0.1:
            channel.usable = False
            reply, remote = self.random.choice(((LOST, False), (LEAVING, True)))
            channel.finish([Verdict(one, reply, remote) for one in entry.recipients])
        elif fate < 0.2:
            channel.usable = False
            channel.finish([Verdict(one, LOST, remote=False, handed_over=True) for one in entry.recipients])
        else:
            replies = [self.random.choice((OK, OK, LATER, NEVER, TOO_MANY)) for _ in entry.recipients]
            told = zip(entry.recipients, replies, strict=True)
            channel.finish([Verdict(one, reply, handed_over=reply is not TOO_MANY) for one, reply in told])

    def heal(self) -> None:
        spool, world = self.spool, self.world
        spool.broken = None
        for place in world.places.values():
            place.holding = place.holding_opens = False
            for channel in place.open_channels:
                while channel.held:
                    channel.finish()
            openings, place.opening = place.opening, []
            for opening in openings:
                opening.callback(place.channel())
        for _ in range(200):
            spool.settle()
            world.clock.advance(1.0)
            if not (spool.stored or spool.writes or spool.calls or spool.reads):
                break
        for _ in range(30):
            spool.settle()
            world.clock.advance(1.0)
        spool.settle()


@pytest.mark.parametrize("seed", range(120))
def test_whatever_happens_everybody_gets_it_once(seed, monkeypatch):
    monkeypatch.setattr(scheduler, "LARGEST_HAND", random.Random(seed).choice((2, 6, 1000)))
    window = random.Random(seed).choice((1, 3, 500))
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", window)
    monkeypatch.setattr(scheduler, "MAX_CHANNELS", random.Random(seed + 1).choice((1, 2, 500)))
    chaos = Chaos(seed)
    with capturedLogs() as logged:
        chaos.world.scheduler.start()
        for _ in range(400):
            chaos.step()
        chaos.heal()
    assert not [event["log_failure"] for event in logged if "log_failure" in event and "no space" not in str(event["log_failure"])]
    assert not chaos.spool.stored, f"forgotten: {[one.address for one in chaos.world.recipients()]}"
    accepted = sum(sum(place.accepted.values()) for place in chaos.world.places.values())
    refused = sum(sum(place.refused.values()) for place in chaos.world.places.values())
    assert accepted + refused == chaos.spool._recipients
    # No event tells of reports; they are for failures, and where there were none maybe for delays.
    reports = chaos.world.places["example.net"]
    assert chaos.world.told().count("delivered") == accepted - sum(reports.accepted.values())
    told = chaos.world.told().count("hard_bounced")
    assert told == refused - sum(reports.refused.values())
    assert seed % 2 == 1 or not reports.attempts
    assert seed % 2 == 0 or not told or reports.attempts
    chaos.world.assert_at_rest()
