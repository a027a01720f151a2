"""Who goes first at a destination that has a queue: by priority (RFC 6710), then by age, whatever domain it is for."""

from __future__ import annotations

import pytest
from attrs import evolve

from lettermta.delivery import lane, scheduler
from lettermta.delivery.shaping import Limits
from lettermta.message import Options

from . import scripted
from .scripted import LATER, StagedSpool, World, accept, answer, make_message


@pytest.fixture(autouse=True)
def one_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripted, "NO_LIMITS", Limits(connections=1))


def busy(*domains: str, spool: StagedSpool | None = None) -> World:
    """A relay for all these domains whose one channel is at work."""
    world = World(spool).start()
    world.ways.update(dict.fromkeys((*domains, "busy.example"), "relay"))
    world.place("relay").holding = True
    world.submit("x@busy.example")
    return world


def submit(world: World, address: str, priority: int = 0, route: str = "r1") -> None:
    message = make_message(world.spool, [address], world.now(), route=route)
    world.spool.store(evolve(message, options=Options(priority=priority)), [])


def went(world: World, most: int = 10_000) -> list[str]:
    """All that goes, in its order, one answer after the other."""
    place = world.place("relay")
    before = len(place.attempts)
    while most and (held := [channel for channel in place.channels if channel.held]):
        held[0].finish()
        most -= 1
    return [address for attempt in place.attempts[before:] for address in attempt]


def test_first_attempts_go_by_age_whatever_their_domain():
    world = busy("one.example", "two.example")
    order = ["a@one.example", "b@one.example", "c@two.example", "d@one.example", "e@two.example"]
    for address in order:
        submit(world, address)
        world.clock.advance(1)
    assert went(world) == order
    world.assert_at_rest()


def test_a_higher_priority_goes_first_whatever_its_domain():
    world = busy("one.example", "two.example", "three.example")
    submit(world, "old@one.example")
    submit(world, "low@one.example", -3)
    submit(world, "soon@two.example", 4)
    submit(world, "sooner@three.example", 9)
    submit(world, "new@one.example")
    assert went(world) == ["sooner@three.example", "soon@two.example", "old@one.example", "new@one.example", "low@one.example"]
    world.assert_at_rest()


def test_routes_take_turns_whatever_their_priorities():
    """A project can't put itself before others by a parameter of MAIL."""
    world = busy("one.example", "two.example")
    for number in range(3):
        submit(world, f"u{number}@one.example", 9)
    submit(world, "other@two.example", route="r2")
    assert went(world).index("other@two.example") <= 1
    world.assert_at_rest()


def test_a_higher_priority_goes_before_what_memory_and_spool_have_waiting(monkeypatch):
    """Ten times the lane's window wait: what comes late and is urgent goes out before all of it."""
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    world = busy("one.example")
    for number in range(100):
        submit(world, f"u{number}@one.example")
    submit(world, "urgent@one.example", 5)
    assert world.scheduler._hand == 11, "memory is no larger for it"
    order = went(world)
    assert order[0] == "urgent@one.example"
    assert order[1:] == [f"u{number}@one.example" for number in range(100)]
    world.assert_at_rest()


def test_a_higher_priority_goes_first_after_a_restart(monkeypatch):
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 10)
    world = World()
    world.ways["one.example"] = "relay"
    for number in range(30):
        submit(world, f"u{number}@one.example")
    submit(world, "urgent@one.example", 1)
    world.place("relay").holding = True
    world.start()
    assert world.place("relay").recipients == ["urgent@one.example"]
    assert went(world) == [f"u{number}@one.example" for number in range(30)]
    world.assert_at_rest()


def test_what_is_urgent_and_stored_while_the_spool_is_asked_is_not_overlooked(monkeypatch):
    for module in (scheduler, lane):
        monkeypatch.setattr(module, "WINDOW", 3)
    spool = StagedSpool()
    world = World(spool)
    world.ways["one.example"] = "relay"
    for number in range(9):
        submit(world, f"u{number}@one.example")
    spool.settle()
    world.place("relay").holding = True
    world.scheduler.start()
    spool.settle()
    world.clock.advance(0)
    spool.read_one()  # what is due, without what comes now
    submit(world, "urgent@one.example", 5)
    spool.write_one()
    spool.calls.rotate(-1)  # the answer comes behind the news
    spool.settle()
    assert world.place("relay").recipients == ["u0@one.example"]
    world.place("relay").channels[0].finish()
    spool.settle()
    assert world.place("relay").recipients == ["u0@one.example", "urgent@one.example"]


def test_much_that_was_put_off_leaves_every_second_turn_to_new_mail():
    world = busy("slow.example", "new.example")
    went(world)
    place = world.place("relay")
    place.holding, place.answer = False, answer(LATER)
    for number in range(50):
        submit(world, f"u{number}@slow.example")
    place.holding, place.answer = True, accept
    world.clock.advance(60)  # all of it is due again, and the channel at work
    for number in range(5):
        submit(world, f"n{number}@new.example")
    new = [place for place, address in enumerate(went(world)) if address.endswith("new.example")]
    assert len(new) == 5
    assert max(new) <= 10
    world.assert_at_rest()
