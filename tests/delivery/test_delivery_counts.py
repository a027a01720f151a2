"""What delivery counts: each attempt once, each recipient once it is durable."""

from __future__ import annotations

import pytest
from twisted.internet.defer import fail

from lettermta import metrics
from lettermta.message import Reply, Verdict

from .scripted import LATER, NEVER, NO_ANSWER, OK, World, accept, unreachable


def counts(family) -> dict[object, float]:
    return {key: child._value.get() for key, child in family.items() if child._value.get()}


def grown(family, before) -> dict[object, float]:
    return {key: value - before.get(key, 0) for key, value in counts(family).items() if value != before.get(key, 0)}


@pytest.mark.parametrize(
    ("replies", "result"),
    [("oo", "delivered"), ("on", "partial"), ("ol", "partial"), ("ll", "deferred"), ("nl", "deferred"), ("nn", "refused")],
)
def test_an_attempt_is_counted_by_what_it_came_to(replies: str, result: str) -> None:
    world = World().start()
    said = {"a": replies[0], "b": replies[1]}
    known = {"o": OK, "n": NEVER, "l": LATER}
    world.place("example.com").answer = lambda entry, one: Verdict(one, known[said[one.address[0]]], handed_over=True)
    before = counts(metrics.ATTEMPTS), counts(metrics.RECIPIENTS), counts(metrics.DEFERRALS)
    world.submit("a@example.com", "b@example.com")
    assert grown(metrics.ATTEMPTS, before[0]) == {result: 1}
    ended = {"delivered": replies.count("o"), "bounced": replies.count("n")}
    assert grown(metrics.RECIPIENTS, before[1]) == {state: count for state, count in ended.items() if count}
    assert grown(metrics.DEFERRALS, before[2]) == ({"remote": replies.count("l")} if "l" in replies else {})


def test_what_is_not_on_record_yet_has_not_ended() -> None:
    world = World().start()
    before = counts(metrics.RECIPIENTS), counts(metrics.ATTEMPTS)
    place = world.place("example.com")
    place.holding = True
    world.submit("a@example.com")
    world.spool.broken = OSError("no space left")
    place.channels[0].finish()
    world.scheduler.measure()
    assert metrics.QUEUE_IN_HAND._value.get() == 1
    assert metrics.CHANNELS_OPEN._value.get() == 1
    assert grown(metrics.RECIPIENTS, before[0]) == {}
    world.spool.broken = None
    world.clock.advance(6)
    assert grown(metrics.RECIPIENTS, before[0]) == {"delivered": 1}
    assert grown(metrics.ATTEMPTS, before[1]) == {"delivered": 1}
    world.scheduler.measure()
    assert metrics.QUEUE_IN_HAND._value.get() == 0


def test_a_deferral_of_our_own_is_told_from_a_remote_one_and_time_runs_from_acceptance() -> None:
    world = World().start()
    place = world.place("example.com")
    place.fault = unreachable(NO_ANSWER)
    before, taken, summed = counts(metrics.DEFERRALS), counts(metrics.ATTEMPTS), metrics.DELIVERY_SECONDS._sum.get()
    world.submit("a@example.com")
    assert grown(metrics.DEFERRALS, before) == {"local": 1}
    place.fault = None
    place.answer = accept
    world.clock.advance(60)
    assert grown(metrics.ATTEMPTS, taken) == {"deferred": 1, "delivered": 1}
    assert metrics.DELIVERY_SECONDS._sum.get() == summed + 60


def test_a_quarantined_recipient_is_counted() -> None:
    world = World().start()
    before = metrics.SPOOL_QUARANTINED._value.get()
    world.spool.load = lambda entry: fail(LookupError("damaged"))
    world.submit("a@example.com")
    assert metrics.SPOOL_QUARANTINED._value.get() == before + 1


def test_refusals_are_counted_by_what_they_are_about() -> None:
    world = World().start()
    said = {"a": NEVER, "b": LATER, "c": Reply(550, "5.7.1", "Blocked, see the Spamhaus list")}
    world.place("example.com").answer = lambda entry, one: Verdict(one, said[one.address[0]])
    before = counts(metrics.REFUSALS)
    world.submit("a@example.com", "b@example.com", "c@example.com")
    classes = {("bounced", "invalid_recipient"): 1, ("deferred", "system"): 1, ("bounced", "reputation"): 1}
    assert grown(metrics.REFUSALS, before) == classes
