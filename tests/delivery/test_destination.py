"""Destinations: channels are shared, kept, probed and given back, and no trouble of one is another's."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from twisted.internet.defer import fail
from twisted.logger import capturedLogs

from lettermta.delivery import scheduler
from lettermta.delivery.budget import TURN
from lettermta.delivery.destination import FIRST_CHANNELS, TOLD
from lettermta.delivery.reach import FIRST_PAUSE, LONGEST_PAUSE, SPREAD
from lettermta.message import Reply, State, Unreachable, Verdict
from lettermta.testing.spool import MemorySpool

from .scripted import LOST, NO_LIMITS, World, accept, unreachable


def test_a_channel_carries_many_messages():
    world = World().start()
    for number in range(50):
        world.submit(f"u{number}@example.com")
    assert world.place("example.com").opened == 1
    assert len(world.place("example.com").attempts) == 50
    world.assert_at_rest()


def test_as_many_channels_are_opened_as_there_is_mail_up_to_a_limit():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    for number in range(3):
        world.submit(f"u{number}@example.com")
    assert place.opened == 3
    for number in range(100):
        world.submit(f"v{number}@example.com")
    assert len(place.open_channels) == NO_LIMITS.connections


def test_no_more_channels_are_opened_than_mail_waits():
    world = World().start()
    place = world.place("example.com")
    place.holding_opens = True
    world.submit("a@example.com")
    world.submit("b@example.com")
    assert len(place.opening) == 2


def test_an_idle_channel_is_kept_for_a_while():
    world = World().start()
    world.submit("a@example.com")
    world.clock.advance(NO_LIMITS.idle_time - 0.1)
    assert len(world.place("example.com").open_channels) == 1
    world.clock.advance(0.1)
    assert world.place("example.com").open_channels == []
    world.assert_at_rest()


def test_a_channel_that_is_used_now_and_then_is_kept():
    world = World().start()
    for number in range(20):
        world.submit(f"u{number}@example.com")
        world.clock.advance(NO_LIMITS.idle_time * 0.6)
    assert world.place("example.com").opened == 1


def test_of_many_idle_channels_those_that_are_not_needed_are_closed():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    for number in range(10):
        world.submit(f"u{number}@example.com")
    place.holding = False
    for channel in place.channels:
        channel.finish()
    for number in range(5):
        world.submit(f"v{number}@example.com")
        world.clock.advance(NO_LIMITS.idle_time * 0.6)
    assert len(place.open_channels) == 1
    world.assert_at_rest()


def test_a_kept_channel_that_the_other_side_closed_costs_no_attempt():
    world = World().start()
    place = world.place("example.com")
    world.submit("a@example.com")
    place.holding = True
    message = world.submit("b@example.com")
    first = place.channels[0]
    first.usable = False
    place.holding = False
    first.finish([Verdict(one, LOST, remote=False) for one in first.held[0].recipients])
    assert first.closed
    assert place.opened == 2
    assert world.told(message) == ["sent", "delivered"]
    assert not world.spool.stored
    world.assert_at_rest()


def test_421_on_a_kept_channel_costs_no_attempt_and_is_learnt_from():
    """A server that takes so many messages on a connection says so to the next one; on a new connection that is the message's own."""
    world = World().start()
    place = world.place("example.com")
    world.submit("a@example.com")
    place.holding = True
    message = world.submit("b@example.com")
    enough = Reply(421, "4.7.0", "Enough for one connection")
    first = place.channels[0]
    first.usable = False
    first.finish([Verdict(one, enough) for one in first.held[0].recipients])
    assert place.opened == 2
    assert world.scheduler._flows.known("example.com").budget.limit == NO_LIMITS.connections // 2
    second = place.channels[1]
    second.usable = False
    second.finish([Verdict(one, enough) for one in second.held[0].recipients])
    assert world.told(message) == ["soft_bounced"]
    place.holding = False
    world.clock.advance(60)
    assert world.told(message) == ["soft_bounced", "sent", "delivered"]
    world.assert_at_rest()


def test_what_a_closed_channel_gives_back_goes_where_its_domain_goes_by_now():
    """It was in two destinations' rounds then, and the second one found nothing there."""
    world = World().start()
    old, new = world.place("example.com"), world.place("new.test")
    world.submit("a@example.com")
    old.holding = new.holding = True
    world.submit("b@example.com")
    world.ways["example.com"] = "new.test"
    for name in "cdefgh":
        world.submit(f"{name}@example.com")
    first = old.channels[0]
    first.usable = False
    first.finish([Verdict(one, LOST, remote=False) for one in first.held[0].recipients])
    new.holding = old.holding = False
    while busy := [channel for channel in new.channels if channel.held]:
        busy[0].finish()
    for name in "ij":
        world.submit(f"{name}@example.com")
    assert sorted(new.recipients) == [f"{name}@example.com" for name in "bcdefghij"]
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_kept_channel_that_closed_while_idle_is_not_used():
    world = World().start()
    place = world.place("example.com")
    world.submit("a@example.com")
    place.channels[0].usable = False
    world.submit("b@example.com")
    assert place.recipients == ["a@example.com", "b@example.com"]
    assert place.channels[0].closed
    world.assert_at_rest()


def test_a_connection_lost_behind_the_content_counts():
    """Maybe the other side has it: that is an attempt, and the next one is on schedule (HARD-CASES row 22)."""
    world = World().start()
    place = world.place("example.com")
    world.submit("a@example.com")
    place.holding = True
    message = world.submit("b@example.com")
    channel = place.channels[0]
    channel.usable = False
    channel.finish([Verdict(one, LOST, remote=False, handed_over=True) for one in channel.held[0].recipients])
    [recipient] = world.recipients()
    assert (recipient.state, recipient.attempts) == (State.DEFERRED, 1)
    assert world.told(message) == ["sent"]


def test_a_new_connection_that_is_lost_counts():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    world.submit("a@example.com")
    channel = place.channels[0]
    channel.usable = False
    channel.finish([Verdict(one, LOST, remote=False) for one in channel.held[0].recipients])
    assert world.recipients()[0].attempts == 1
    assert place.opened == 1


def test_what_waits_for_an_unreachable_destination_is_deferred():
    world = World().start()
    world.place("example.com").fault = unreachable()
    message = world.submit("jane@example.com")
    [recipient] = world.recipients()
    assert (recipient.state, recipient.attempts, recipient.last_reply) == (State.DEFERRED, 1, "451 4.4.1 No answer from any host")
    assert world.told(message) == [], "no one said a word"
    world.clock.advance(60)
    assert world.recipients()[0].attempts == 2
    world.assert_at_rest()


def test_a_greeting_that_refuses_is_a_soft_bounce():
    world = World().start()
    world.place("example.com").fault = Unreachable(Reply(421, "4.3.2", "Too busy"), remote=True)
    message = world.submit("jane@example.com")
    assert world.told(message) == ["soft_bounced"]


def test_a_destination_that_can_never_be_reached_fails_its_mail_at_once():
    world = World()
    place = world.place("example.com")
    place.fault = Unreachable(Reply(556, "5.1.10", "The domain takes no mail"))
    for number in range(1200):
        world.submit(f"u{number}@example.com")
    world.start()
    assert world.told().count("failed") == 1200
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_transport_that_breaks_its_promise_stalls_nothing():
    world = World().start()
    world.place("example.com").fault = ZeroDivisionError("a fault of ours")
    with capturedLogs() as logged:
        world.submit("jane@example.com")
    assert world.recipients()[0].last_reply == "451 4.3.0 Local error"
    assert any("log_failure" in event for event in logged)
    world.place("example.com").fault = None
    world.clock.advance(60)
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_channel_that_breaks_its_promise_stalls_nothing():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    world.submit("jane@example.com")
    (_, result), place.channels[0].held = place.channels[0].held, None
    place.under_way.clear()
    with capturedLogs():
        result.errback(ZeroDivisionError("a fault of ours"))
    assert world.recipients()[0].state is State.DEFERRED
    assert place.channels[0].closed
    place.holding = False
    world.clock.advance(60)
    assert not world.spool.stored
    world.assert_at_rest()


def test_a_dead_destination_is_probed_by_one_attempt_after_growing_pauses():
    world = World(delays=(1.0,)).start()
    place = world.place("example.com")
    place.fault = unreachable()
    for number in range(200):
        world.submit(f"u{number}@example.com")
    moments: list[float] = []
    asked = place.asked_open
    for _ in range(4000):
        world.clock.advance(0.1)
        if place.asked_open > asked:
            moments.append(world.clock.seconds())
            assert place.asked_open == asked + 1, "one at a time"
            asked = place.asked_open
    pauses = [after - before for before, after in pairwise(moments)]
    for pause, most in zip(pauses, [2, 4, 8, 16, 32, *[LONGEST_PAUSE] * len(pauses)], strict=False):
        assert most * (1 - SPREAD) <= pause <= most + 0.2
    place.fault = None
    world.clock.advance(LONGEST_PAUSE)
    world.clock.advance(1.0)
    assert not world.spool.stored
    assert place.recipients.count("u7@example.com") == 1
    world.assert_at_rest()


def test_destinations_that_were_lost_together_are_not_probed_together():
    world = World(delays=(10_000.0,)).start()
    for number in range(200):
        world.place(f"d{number}.example").fault = unreachable()
        for each in range(10 * TOLD):
            world.submit(f"u{each}@d{number}.example")
    world.clock.pump([0.1] * 100)
    probed = [0.0] * 60
    for second in range(60):
        before = sum(place.asked_open for place in world.places.values())
        world.clock.advance(1.0)
        probed[second] = sum(place.asked_open for place in world.places.values()) - before
    assert max(probed) < 150


def test_a_destination_that_is_not_known_to_take_any_is_not_met_by_a_crowd():
    world = World().start()
    place = world.place("example.com")
    place.holding_opens = place.holding = True
    for number in range(30):
        world.submit(f"u{number}@example.com")
    assert len(place.opening) == FIRST_CHANNELS
    place.opening[0].callback(place.channel())
    assert len(place.opening) == NO_LIMITS.connections, "now it is known"


def test_a_dead_destination_is_remembered_while_nothing_waits_for_it(monkeypatch):
    """However many there are: what comes for it meanwhile does not find it new, and waits for the pause that it had come to."""
    monkeypatch.setattr(scheduler, "MAX_CHANNELS", 2)
    world = World(delays=(10_000.0,)).start()
    place = world.place("dead.example")
    place.fault = unreachable()
    for number in range(6):
        world.submit(f"u{number}@dead.example")
        world.clock.pump([1.0] * int(LONGEST_PAUSE))
        for other in range(10):
            world.submit(f"u@d{number}-{other}.example")
    asked = place.asked_open
    world.submit("one@dead.example")
    assert place.asked_open == asked + 1
    world.submit("more@dead.example")
    world.clock.pump([1.0] * 15)
    assert place.asked_open == asked + 1
    world.clock.pump([1.0] * int(LONGEST_PAUSE))
    assert place.asked_open == asked + 2


def test_several_channels_that_fail_together_are_one_failure():
    world = World().start()
    place = world.place("example.com")
    place.holding_opens = True
    for number in range(30):
        world.submit(f"u{number}@example.com")
    assert len(place.opening) == FIRST_CHANNELS
    for opening in place.opening[:-1]:
        opening.errback(unreachable())
    assert all(one.attempts == 0 for one in world.recipients()), "the last one may have better luck"
    place.opening[-1].errback(unreachable())
    assert [one.attempts for one in world.recipients()] == [1] * TOLD + [0] * (30 - TOLD)
    place.holding_opens = False
    world.submit("late@example.com")
    world.clock.advance(FIRST_PAUSE)
    assert place.recipients == [f"u{number}@example.com" for number in range(TOLD, 30)] + ["late@example.com"]


def test_what_waits_for_a_dead_destination_is_not_attempted_and_goes_out_when_it_is_back():
    world = World().start()
    place = world.place("example.com")
    place.fault = unreachable()
    for number in range(100):
        world.submit(f"u{number}@example.com")
    for _ in range(11):
        world.clock.advance(0.1)
    told = sum(one.attempts for one in world.recipients())
    assert told == TOLD, "those, and then one for each probe"
    assert Counter(one.state for one in world.recipients()) == {State.DEFERRED: told, State.QUEUED: 100 - told}
    place.fault = None
    world.clock.advance(2 * FIRST_PAUSE)
    assert len(place.recipients) == 100 - told
    world.clock.advance(60)
    assert sorted(place.recipients) == sorted(f"u{number}@example.com" for number in range(100))
    world.assert_at_rest()


def test_behind_the_first_few_each_probe_of_a_dead_destination_puts_off_one():
    world = World(delays=(10_000.0,)).start()
    place = world.place("example.com")
    place.fault = unreachable()
    for number in range(100):
        world.submit(f"u{number}@example.com")
    world.clock.pump([1.0] * 10)
    asked, told = place.asked_open, sum(one.attempts for one in world.recipients())
    world.clock.pump([1.0] * 300)
    assert place.asked_open >= asked + 5
    assert sum(one.attempts for one in world.recipients()) - told == place.asked_open - asked


def test_what_waits_for_a_dead_destination_expires_without_a_probe_of_its_own():
    world = World().start()
    place = world.place("example.com")
    place.fault = unreachable()
    world.submit("patient@example.com")
    for number in range(1200):
        world.submit(f"u{number}@example.com", lifetime=3600.0)
    for _ in range(59):
        world.clock.advance(LONGEST_PAUSE)
    assert world.told().count("failed") == 0
    for _ in range(5):
        world.clock.advance(LONGEST_PAUSE)
    assert world.told().count("failed") == 1200
    failed = world.events("failed")[-1].data
    assert failed["classification"] == "expired"
    assert "No answer from any host" in failed["reason"]
    assert [one.address for one in world.recipients()] == ["patient@example.com"]


def test_a_destination_that_takes_few_connections_is_served_by_those():
    world = World().start()
    place = world.place("example.com")
    place.holding_opens = True
    for number in range(30):
        world.submit(f"u{number}@example.com")
    first, *others = place.opening
    for opening in others:
        opening.errback(unreachable())
    first.callback(place.channel())
    assert len(place.attempts) == 30
    assert not world.spool.stored
    place.opening.clear()
    world.assert_at_rest()


def test_refused_connections_are_not_hammered_while_others_work():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    world.submit("a@example.com")
    place.fault = unreachable()
    asked = place.asked_open
    for number in range(100):
        world.submit(f"u{number}@example.com")
    assert place.asked_open == asked + 1
    for _ in range(101):
        place.channels[0].finish()
    assert len(place.attempts) == 101
    assert place.asked_open == asked + 1
    world.assert_at_rest()


def test_a_dead_destination_does_not_delay_the_others():
    world = World()
    for number in range(3000):
        world.submit(f"u{number}@dead.example")
    dead = world.place("dead.example")
    dead.holding_opens = True
    world.start()
    for number in range(100):
        world.submit(f"u{number}@alive.example")
        assert len(world.place("alive.example").attempts) == number + 1
    for opening in dead.opening:
        opening.errback(unreachable())
    world.submit("more@alive.example")
    assert len(world.place("alive.example").attempts) == 101


def test_lanes_of_one_destination_take_turns():
    world = World()
    for route in ("r1", "r2"):
        world.ways[route] = "relay"
    for number in range(30):
        world.submit(f"a{number}@one.example", route="r1")
    for number in range(30):
        world.submit(f"b{number}@two.example", route="r2")
    place = world.place("relay")
    place.holding = True
    world.start()
    while busy := [channel for channel in place.open_channels if channel.held]:
        busy[0].finish()
    turns = "".join(address[0] for address in place.recipients[NO_LIMITS.connections : 2 * NO_LIMITS.connections])
    assert turns in ("ab" * 10, "ba" * 10)
    world.assert_at_rest()


# -- the budget of all destinations


def limited(monkeypatch, channels: int) -> World:
    monkeypatch.setattr(scheduler, "MAX_CHANNELS", channels)
    return World().start()


def test_all_destinations_together_keep_to_the_budget(monkeypatch):
    world = limited(monkeypatch, 5)
    places = [world.place(f"d{number}.example") for number in range(20)]
    for place in places:
        place.holding = True
    for place in places:
        for number in range(5):
            world.submit(f"u{number}@{place.name}")
    while busy := [channel for place in places for channel in place.open_channels if channel.held]:
        assert sum(len(place.open_channels) for place in places) <= 5
        busy[0].finish()
    assert sum(len(place.attempts) for place in places) == 100
    assert not world.spool.stored
    world.assert_at_rest()


def test_idle_channels_make_room_for_a_destination_without_any(monkeypatch):
    world = limited(monkeypatch, 3)
    for number in range(30):
        world.submit(f"u@d{number}.example")
        assert len(world.place(f"d{number}.example").attempts) == 1, "at once, not when idle channels time out"
    assert sum(len(place.open_channels) for place in world.places.values()) <= 3
    world.assert_at_rest()


def test_a_destination_with_a_backlog_shares_the_budget(monkeypatch):
    world = limited(monkeypatch, 4)
    big, small = world.place("big.example"), world.place("small.example")
    big.holding = small.holding = True
    for number in range(100):
        world.submit(f"u{number}@big.example")
    assert len(big.open_channels) == 4
    world.submit("a@small.example")
    assert small.attempts == []
    next(channel for channel in big.open_channels if channel.held).finish()
    assert small.recipients == ["a@small.example"]
    assert len(big.open_channels) == 3


def test_a_destination_gives_its_only_channel_up_after_a_turn(monkeypatch):
    world = limited(monkeypatch, 1)
    big, small = world.place("big.example"), world.place("small.example")
    big.holding = True
    for number in range(3 * TURN):
        world.submit(f"u{number}@big.example")
    world.submit("a@small.example")
    for _ in range(TURN):
        assert small.attempts == []
        next(channel for channel in big.open_channels if channel.held).finish()
    assert small.recipients == ["a@small.example"]
    while busy := [channel for channel in big.open_channels if channel.held]:
        busy[0].finish()
    assert len(big.attempts) == 3 * TURN
    world.assert_at_rest()


def test_room_that_its_first_claimant_does_not_need_goes_to_the_next(monkeypatch):
    """A destination may have lost its mail to a new way by the time that there is room for it."""
    world = limited(monkeypatch, 1)
    blocking = world.place("blocking.example")
    blocking.holding = True
    world.submit("a@blocking.example")
    world.submit("b@moved.example")
    world.submit("c@waiting.example")
    world.ways["moved.example"] = "blocking.example"
    world.submit("d@moved.example")
    while busy := [channel for channel in blocking.open_channels if channel.held]:
        busy[0].finish()
    assert world.place("waiting.example").recipients == ["c@waiting.example"]
    assert len(blocking.attempts) == 3
    world.assert_at_rest()


def test_channels_that_could_not_be_opened_are_given_back(monkeypatch):
    world = limited(monkeypatch, 2)
    for number in range(50):
        world.place(f"d{number}.example").fault = unreachable()
        world.submit(f"u@d{number}.example")
    world.submit("jane@example.com")
    assert world.place("example.com").recipients == ["jane@example.com"]
    world.clock.advance(120)
    for place in world.places.values():
        place.fault = None
        place.answer = accept
    world.clock.advance(300)
    assert not world.spool.stored
    world.assert_at_rest()


def test_an_entry_without_content_leaves_its_channel_to_the_next():
    class Partly(MemorySpool):
        hollow = True

        def load(self, entry):
            return fail(LookupError("gone")) if self.hollow else super().load(entry)

    world = World(Partly()).start()
    with capturedLogs():
        world.submit("a@example.com")
    world.spool.hollow = False
    world.submit("b@example.com")
    assert world.place("example.com").recipients == ["b@example.com"]
    assert world.place("example.com").opened == 1
    world.assert_at_rest()
