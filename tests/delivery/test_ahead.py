"""Entries that go behind one that has no answer yet, on channels that have room for that."""

from __future__ import annotations

from lettermta.delivery.budget import TURN
from lettermta.delivery.shaping import Limits
from lettermta.message import Verdict

from .scripted import LOST, World


def busy(connections: int = 1, count: int = 10) -> World:
    """A place whose channels take one more ahead of time, with mail waiting."""
    world = World()
    world.limits["example.com"] = Limits(connections=connections)
    place = world.place("example.com")
    place.holding = place.ahead = True
    world.start()
    for number in range(count):
        world.submit(f"u{number}@example.com")
    return world


def drain(world: World) -> None:
    while held := [channel for place in world.places.values() for channel in place.channels if channel.held]:
        held[0].finish()


def test_a_channel_with_room_gets_one_more_when_no_other_can_be_opened():
    world = busy()
    place = world.place("example.com")
    assert len(place.attempts) == 2
    place.channels[0].finish()
    assert len(place.attempts) == 3
    drain(world)
    assert place.recipients == [f"u{number}@example.com" for number in range(10)]
    assert place.opened == 1
    world.assert_at_rest()


def test_channels_are_opened_before_mail_goes_behind_other_mail():
    world = busy(connections=3, count=3)
    place = world.place("example.com")
    assert place.opened == 3
    assert all(channel.behind is None for channel in place.channels)
    world.submit("more@example.com")
    assert sum(channel.behind is not None for channel in place.channels) == 1
    drain(world)
    world.assert_at_rest()


def test_what_was_behind_a_connection_that_is_lost_is_sent_again_at_once_and_costs_no_attempt():
    world = busy(count=2)
    place = world.place("example.com")
    channel = place.channels[0]
    entry, _ = channel.held
    channel.usable = False
    channel.finish([Verdict(one, LOST, remote=False, handed_over=True) for one in entry.recipients])
    drain(world)
    assert place.recipients == ["u0@example.com", "u1@example.com", "u1@example.com"]
    [one] = world.recipients()
    assert (one.address, one.attempts) == ("u0@example.com", 1)
    world.clock.advance(60)
    drain(world)
    world.assert_at_rest()


def test_a_channel_that_is_due_elsewhere_takes_nothing_ahead():
    world = World()
    for name in ("a.test", "b.test"):
        world.limits[name], world.flows[name] = Limits(connections=1), "provider"
        world.place(name).holding = world.place(name).ahead = True
    world.start()
    for number in range(TURN + 50):
        world.submit(f"u{number}@a.test")
    world.submit("first@b.test")
    for _ in range(TURN + 5):
        held = [channel for channel in world.place("a.test").channels if channel.held]
        if held:
            held[0].finish()
    assert world.place("b.test").recipients == ["first@b.test"]
    for _ in range(200):
        drain(world)
        world.clock.advance(1)
    world.assert_at_rest()


def test_a_stop_waits_for_both():
    world = busy(count=3)
    stopped = []
    world.scheduler.stop().addCallback(stopped.append)
    channel = world.place("example.com").channels[0]
    channel.finish()
    assert not stopped
    channel.finish()
    assert stopped
    assert world.place("example.com").recipients == ["u0@example.com", "u1@example.com"]
