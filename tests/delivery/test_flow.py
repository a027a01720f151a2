"""What one receiver lets through: connections that adapt, a rate, pauses; and what of that several destinations share."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from twisted.internet.task import Clock

from lettermta.config import Rate, Throttle
from lettermta.delivery import destination, lane, scheduler
from lettermta.delivery.flow import LEARNED_SECONDS, MOST_DOUBLED, SETTLE_SECONDS, Flows
from lettermta.delivery.shaping import Limits
from lettermta.delivery.throttling import ThrottleRules
from lettermta.message import Reply, Unreachable, Verdict
from tests.delivery.scripted import LATER, NEVER, NO_ANSWER, OK, World, accept, answer

SLOW_DOWN = Reply(421, "4.7.0", "Slow down")
RULES = ThrottleRules([Throttle(name="slow", text=re.compile("slow down", re.IGNORECASE), pause=60.0)], ())


def world(**limits) -> World:
    """A world with one receiver, ``example.com``, of these limits."""
    made = World()
    made.throttles = RULES
    made.scheduler = made.new_scheduler()
    made.limits["example.com"] = Limits(**limits)
    return made.start()


def flow(here: World, name: str = "example.com"):
    return here.scheduler._flows._flows[name]


# -- connections


def test_no_more_connections_are_opened_than_the_rule_says():
    here = world(connections=3)
    place = here.place("example.com")
    place.holding = True
    for number in range(50):
        here.submit(f"u{number}@example.com")
    assert len(place.open_channels) == 3


def test_destinations_of_one_flow_share_its_connections_and_each_gets_some():
    here = World()
    for name in ("a.test", "b.test", "c.test"):
        here.limits[name], here.flows[name] = Limits(connections=4), "big provider"
        here.place(name).holding = True
    here.start()
    places = [here.place(name) for name in ("a.test", "b.test", "c.test")]
    for place in places:
        for number in range(20):
            here.submit(f"u{number}@{place.name}")
    assert sum(len(place.open_channels) for place in places) == 4
    for _ in range(100):
        busy = [channel for place in places for channel in place.channels if channel.held]
        if not busy:
            break
        busy[0].finish()
        assert sum(len(place.open_channels) for place in places) <= 4
    assert [len(place.attempts) for place in places] == [20, 20, 20]
    here.assert_at_rest()


def test_a_push_back_halves_the_connections_and_success_brings_them_back():
    here = world(connections=8)
    place = here.place("example.com")
    place.answer = answer(Reply(451, "4.7.1", "Not now"))
    here.submit("a@example.com")
    assert flow(here).budget.limit == 4
    here.submit("b@example.com")
    assert flow(here).budget.limit == 4, "answers to what was sent before the push-back are the same one"
    here.clock.advance(SETTLE_SECONDS)
    here.submit("c@example.com")
    assert flow(here).budget.limit == 2
    place.answer = accept
    for number in range(2 + 3 + 4 + 5 + 6 + 7):
        here.submit(f"u{number}@example.com")
    assert flow(here).budget.limit == 8
    for number in range(20):
        here.submit(f"v{number}@example.com")
    assert flow(here).budget.limit == 8


def test_channels_beyond_a_lowered_limit_are_given_up():
    here = world(connections=4)
    place = here.place("example.com")
    place.holding = True
    for number in range(20):
        here.submit(f"u{number}@example.com")
    busy = [channel for channel in place.channels if channel.held]
    assert len(busy) == 4
    (entry, _) = busy[0].held
    busy[0].finish([Verdict(recipient, Reply(421, "4.3.2", "Busy")) for recipient in entry.recipients])
    assert len(place.open_channels) == 3, "those that have something under way finish it"
    busy[1].finish()
    assert len(place.open_channels) == 2


@pytest.mark.parametrize("reply", [NEVER, Reply(452, "4.2.2", "Mailbox full"), Reply(451, "4.3.0", "Oops"), Reply(550, "5.7.1", "Spam")])
def test_what_is_about_one_message_costs_no_connection(reply: Reply):
    here = world(connections=8)
    here.place("example.com").answer = answer(reply)
    here.submit("a@example.com")
    assert flow(here).budget.limit == 8


def test_a_time_out_is_a_push_back():
    here = world(connections=8)
    here.place("example.com").answer = answer(Reply(451, "4.4.2", "No answer to DATA in time"), remote=False)
    here.submit("a@example.com")
    assert flow(here).budget.limit == 4


# -- rate


def test_messages_go_at_even_intervals():
    here = world(rate=Rate(60, "m"))
    place = here.place("example.com")
    for number in range(10):
        here.submit(f"u{number}@example.com")
    assert len(place.attempts) == 1
    for seconds in range(1, 10):
        here.clock.advance(1)
        assert len(place.attempts) == 1 + seconds
    here.assert_at_rest()


def test_no_minute_has_more_than_the_rate_whatever_came_before():
    here = world(rate=Rate(100, "m"))
    place = here.place("example.com")
    here.clock.advance(3600)
    for number in range(300):
        here.submit(f"u{number}@example.com")
    seen = []
    for _ in range(1800):
        seen.append(len(place.attempts))
        here.clock.advance(0.1)
    assert max(seen[i + 600] - seen[i] for i in range(len(seen) - 600)) <= 101
    assert len(place.attempts) == 300


def test_a_rate_holds_over_the_destinations_that_share_it():
    here = World()
    for name in ("a.test", "b.test"):
        here.limits[name], here.flows[name] = Limits(rate=Rate(1, "s")), "big provider"
    here.start()
    for number in range(5):
        here.submit(f"u{number}@a.test")
        here.submit(f"u{number}@b.test")
    for seconds in range(10):
        assert len(here.place("a.test").attempts) + len(here.place("b.test").attempts) == 1 + seconds
        here.clock.advance(1)
    assert len(here.place("a.test").attempts) == len(here.place("b.test").attempts) == 5
    here.assert_at_rest()


def test_mail_that_waits_for_a_rate_does_not_hold_all_the_memory(monkeypatch):
    """HARD-CASES row 35: a slow destination slows nobody else."""
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 60)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    here = world(rate=Rate(1, "h"))
    for route in range(4):
        for number in range(40):
            here.submit(f"u{number}@example.com", route=f"slow{route}")
    here.clock.pump([1.0] * 3)
    for number in range(100):
        here.submit(f"u{number}@fast.example", route="fast")
    here.clock.pump([1.0] * 10)
    assert len(here.place("fast.example").attempts) == 100
    assert here.scheduler._hand <= 60


def test_a_paused_provider_of_many_domains_does_not_hold_all_the_memory(monkeypatch):
    """HARD-CASES row 35: however many domains it has, each a destination of its own; and all of their mail goes out in the end."""
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 100)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    here = World()
    here.throttles = RULES
    here.scheduler = here.new_scheduler()
    here.start()
    names = [f"d{number}.example" for number in range(300)]
    here.flows.update(dict.fromkeys(names, "provider"))
    here.place(names[0]).answer = answer(SLOW_DOWN)
    here.submit(f"first@{names[0]}")
    for name in names[1:]:
        for number in range(3):
            here.submit(f"u{number}@{name}")
    here.clock.pump([1.0] * 3)
    assert here.scheduler._hand <= 100
    fast = here.place("fast.example")
    for number in range(200):
        here.submit(f"u{number}@fast.example")
        here.clock.advance(0.01)
    assert len(fast.attempts) == 200, "it does not wait for the other ones"
    here.place(names[0]).answer = accept
    here.clock.pump([1.0] * 600)
    assert not here.spool.stored
    assert all(len(here.place(name).attempts) == 3 for name in names[1:])
    here.assert_at_rest()


def test_one_slow_host_of_many_domains_does_not_hold_all_the_memory(monkeypatch):
    monkeypatch.setattr(scheduler, "LARGEST_HAND", 100)
    monkeypatch.setattr(destination, "CROWD", 20)
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    here = World().start()
    names = [f"d{number}.example" for number in range(300)]
    here.ways.update(dict.fromkeys(names, "tarpit"))
    tarpit = here.place("tarpit")
    tarpit.holding = True
    for name in names:
        here.submit(f"a@{name}", f"b@{name}")
    here.clock.pump([1.0] * 3)
    fast = here.place("fast.example")
    for number in range(200):
        here.submit(f"u{number}@fast.example")
        here.clock.advance(0.01)
    assert len(fast.attempts) == 200
    for _ in range(400):
        for channel in [channel for channel in tarpit.channels if channel.held][:2]:
            channel.finish()
        here.clock.advance(0.5)
    assert not here.spool.stored
    here.assert_at_rest()


def test_a_stop_while_the_rate_is_waited_for_leaves_no_timer():
    here = world(rate=Rate(1, "h"))
    here.submit("a@example.com")
    here.submit("b@example.com")
    stopped = []
    here.scheduler.stop().addCallback(stopped.append)
    assert stopped
    assert not here.clock.getDelayedCalls()


# -- pauses


def test_a_throttling_reply_stops_the_whole_destination_for_a_while():
    here = world()
    place = here.place("example.com")
    place.answer = answer(SLOW_DOWN)
    here.submit("a@example.com")
    place.answer = accept
    for number in range(5):
        here.submit(f"u{number}@example.com")
    here.clock.advance(59)
    assert place.recipients == ["a@example.com"]
    here.clock.advance(1)
    assert len(place.recipients) > 5
    here.assert_at_rest()


def test_a_pause_is_twice_as_long_each_time_in_a_row_up_to_a_limit():
    here = World(delays=(1.0,))
    here.throttles = RULES
    here.scheduler = here.new_scheduler()
    here.start()
    place = here.place("example.com")
    place.answer = answer(SLOW_DOWN)
    here.submit("a@example.com")
    at = [0.0]
    while len(at) < 6:
        before = len(place.attempts)
        here.clock.advance(1)
        if len(place.attempts) > before:
            at.append(here.clock.seconds())
    assert [later - earlier for earlier, later in pairwise(at)] == [60, 120, 240, 60 * MOST_DOUBLED, 60 * MOST_DOUBLED]
    place.answer = accept
    here.clock.advance(60 * MOST_DOUBLED)
    place.answer = answer(SLOW_DOWN)
    here.submit("b@example.com")
    before = len(place.attempts)
    here.clock.advance(61)
    assert len(place.attempts) > before, "a success made it short again"


@pytest.mark.parametrize(
    ("rules", "left"), [((), 0), ((Throttle(name="slow", pause=10.0),), 10), ((Throttle(name="slow", pause=600.0),), 59)]
)
def test_a_pause_follows_changed_rules_but_never_gets_longer(rules, left: int):
    """An operator who finds that a rule was wrong does not have to wait for it, nor to restart."""
    here = World()
    here.throttles = ThrottleRules([Throttle(name="slow", text=re.compile("slow down", re.IGNORECASE), pause=60.0)], ())
    here.scheduler = here.new_scheduler()
    here.limits["example.com"] = Limits()
    here.start()
    place = here.place("example.com")
    place.answer = answer(SLOW_DOWN)
    here.submit("a@example.com")
    place.answer = accept
    here.submit("b@example.com")
    here.clock.advance(1)
    here.throttles.follow(rules)
    here.scheduler.reshape()
    assert flow(here).shown()["paused_for"] == left
    here.clock.advance(max(left - 1, 0))
    assert ("b@example.com" in place.recipients) is not bool(left)
    here.clock.advance(1)
    assert "b@example.com" in place.recipients


def test_too_many_connections_at_once_are_answered_by_fewer_and_what_stands_goes_on():
    """By the rules that come along: a receiver that takes four is not left alone for a minute whenever a fifth one is tried."""
    here = World()
    here.limits["example.com"] = Limits(connections=20)
    here.throttles = ThrottleRules()
    here.scheduler = here.new_scheduler()
    here.start()
    place = here.place("example.com")
    place.holding = True
    here.submit("a@example.com")
    place.fault = Unreachable(Reply(421, "4.7.0", "Error: too many connections from 192.0.2.1"), remote=True, host="mx.example.com")
    for number in range(20):
        here.submit(f"u{number}@example.com")
    assert not flow(here).paused
    assert flow(here).budget.limit == 10
    [channel] = place.open_channels
    while channel.held:
        channel.finish()
    assert len(place.recipients) == 21
    assert not here.spool.stored
    here.assert_at_rest()


def test_a_pause_does_not_touch_other_receivers():
    here = world()
    here.place("example.com").answer = answer(SLOW_DOWN)
    here.submit("a@example.com")
    here.submit("a@example.net")
    assert here.place("example.net").recipients == ["a@example.net"]


def test_a_greeting_that_throttles_pauses_too():
    here = world()
    place = here.place("example.com")
    place.fault = Unreachable(SLOW_DOWN, remote=True, host="mx.example.com")
    here.submit("a@example.com")
    place.fault = None
    asked = place.asked_open
    here.submit("b@example.com")
    here.clock.advance(59)
    assert place.asked_open == asked
    here.clock.advance(1)
    assert "b@example.com" in place.recipients


def test_what_a_wrapped_greeting_said_counts():
    here = world()
    place = here.place("example.com")
    place.fault = Unreachable(
        Reply(451, "4.3.2", "The other side takes no mail now"), host="mx.example.com", said=Reply(554, None, "slow down!")
    )
    here.submit("a@example.com")
    assert flow(here).paused


# -- recipients


def test_a_message_with_many_recipients_goes_in_several_transactions():
    here = world(recipients_per_message=10, connections=2)
    place = here.place("example.com")
    message = here.submit(*[f"u{number}@example.com" for number in range(25)])
    assert sorted(map(len, place.attempts)) == [5, 10, 10]
    assert here.told(message).count("delivered") == 25
    assert not here.spool.stored
    here.assert_at_rest()


def test_a_part_that_is_put_off_is_tried_again_alone():
    here = world(recipients_per_message=2)
    place = here.place("example.com")
    place.answer = lambda entry, recipient: Verdict(recipient, LATER if recipient.address[0] == "c" else OK, handed_over=True)
    here.submit("a@example.com", "b@example.com", "c@example.com", "d@example.com")
    place.answer = accept
    here.clock.advance(60)
    assert place.attempts[2:] == [("c@example.com",)]
    here.assert_at_rest()


TOO_MANY = Reply(452, "4.5.3", "Too many recipients")


def take_at_most(number: int, reply: Reply = TOO_MANY):
    """A receiver that takes so many recipients at once."""

    def judged(entry, recipient):
        return Verdict(recipient, OK, handed_over=True) if recipient in entry.recipients[:number] else Verdict(recipient, reply)

    return judged


@pytest.mark.parametrize("reply", [TOO_MANY, Reply(452, None, "4.3.1: too many recipients")])
def test_a_receiver_that_takes_few_recipients_at_once_gets_the_others_right_behind(reply: Reply):
    """RFC 5321 section 4.5.3.1.10. By the schedule the last one would have its tenth attempt after hours."""
    here = world(connections=1)
    place = here.place("example.com")
    place.answer = take_at_most(10, reply)
    message = here.submit(*[f"u{number}@example.com" for number in range(25)])
    assert list(map(len, place.attempts)) == [25, 10, 5]
    assert here.told(message).count("delivered") == 25
    assert "soft_bounced" not in here.told(message)
    assert not here.spool.stored
    here.assert_at_rest()


def test_a_receiver_that_takes_no_recipient_for_there_being_too_many_is_tried_by_the_schedule():
    here = world(connections=1)
    place = here.place("example.com")
    place.answer = take_at_most(0)
    message = here.submit("a@example.com", "b@example.com")
    assert len(place.attempts) == 1
    assert here.told(message) == ["soft_bounced", "soft_bounced"]
    place.answer = accept
    here.clock.advance(60)
    assert not here.spool.stored
    here.assert_at_rest()


# -- the flows together


def test_flows_at_rest_are_forgotten_when_there_are_many():
    flows = Flows(RULES, Clock(), most=10)
    for number in range(100):
        flows.of(f"flow {number}", Limits())
    assert len(flows) <= 21
    flows.of("paused", Limits()).refused(SLOW_DOWN, True, "mx.example")
    flows.of("used", Limits()).users += 1
    for number in range(100):
        flows.of(f"more {number}", Limits())
    assert flows.of("paused", Limits()).paused
    assert flows.of("used", Limits()).users == 1


def test_a_flow_that_pushed_back_is_remembered_for_an_hour_and_not_for_ever():
    """Of a hundred thousand dead domains nothing is left in memory, though none of them ever took a message."""
    clock = Clock()
    flows = Flows(RULES, clock, most=10)
    for number in range(10):
        flows.of(f"dead {number}", Limits()).refused(NO_ANSWER, False, None)
    for number in range(100):
        flows.of(f"early {number}", Limits())
    assert flows.known("dead 0") is not None
    clock.advance(LEARNED_SECONDS)
    for number in range(100):
        flows.of(f"late {number}", Limits())
    assert flows.known("dead 0") is None


def test_other_limits_hold_from_now_on():
    here = world(connections=2)
    place = here.place("example.com")
    place.holding = True
    for number in range(20):
        here.submit(f"u{number}@example.com")
    assert len(place.open_channels) == 2
    here.limits["example.com"] = Limits(connections=5)
    here.submit("more@example.com")
    assert len(place.open_channels) == 5


def test_another_rate_holds_from_now_on_though_the_old_one_was_waited_for():
    here = world(rate=Rate(1, "h"))
    place = here.place("example.com")
    for number in range(5):
        here.submit(f"u{number}@example.com")
    assert len(place.attempts) == 1
    here.limits["example.com"] = Limits(rate=Rate(1, "s"))
    here.scheduler.reshape()
    here.clock.pump([1.0] * 5)
    assert len(place.attempts) == 5
