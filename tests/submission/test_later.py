"""Mail with a time of its own: held (RFC 4865), of use until a deadline (RFC 2852), or before others (RFC 6710)."""

from __future__ import annotations

import pytest

from lettermta.event import timestamp
from lettermta.message import State
from tests.delivery.scripted import LATER, World, accept, answer
from tests.smtp.server_peer import codes
from tests.submission.conftest import HELLO, Site, Wall

LIFETIME = 432_000.0


class Way:
    """A site and a scheduler that share a spool and a clock."""

    def __init__(self, site: Site, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> None:
        self.site = site
        self.world = World(site.spool).start()
        monkeypatch.setattr(wall, "time", self.world.now)
        site.now = self.world.now
        self.client = site.logged_in()
        self.place = self.world.place("in.test")

    def send(self, parameters: str = "", recipient: str = "b@in.test") -> str:
        replies = self.client.says(f"MAIL FROM:<a@out.test> {parameters}", f"RCPT TO:<{recipient}>", "DATA")
        assert codes(replies) == ["250 2.1.0", "250 2.1.5", "354"]
        [reply] = self.client.sends(HELLO.replace("\n", "\r\n").encode() + b".\r\n")
        assert reply.startswith("250 ")
        return reply.rpartition(" ")[2]

    def pass_time(self, seconds: float, step: float = 10.0) -> None:
        for _ in range(int(seconds / step)):
            self.world.clock.advance(step)
        self.world.clock.advance(seconds % step)

    @property
    def states(self) -> list[State]:
        return [one.state for one in self.world.recipients()]


@pytest.fixture
def way(site: Site, wall: Wall, monkeypatch: pytest.MonkeyPatch) -> Way:
    return Way(site, wall, monkeypatch)


def test_a_held_message_is_scheduled_and_leaves_when_its_time_has_come(way: Way) -> None:
    """RFC 4865: state scheduled, event message.scheduled, nothing sent before."""
    begun = way.world.now()
    way.send("HOLDFOR=3600")
    assert way.states == [State.SCHEDULED]
    assert [event.name for event in way.site.events] == ["message.created", "message.scheduled"]
    assert way.site.data["scheduled_at"] == timestamp(begun + 3600)
    assert way.site.data["message_id"] == way.site.stored[0].message.id
    way.pass_time(3599)
    assert way.place.attempts == []
    way.pass_time(61)
    assert way.place.attempts == [("b@in.test",)]
    assert way.world.told() == ["scheduled", "sent", "delivered"]


def test_a_message_held_until_a_moment(way: Way) -> None:
    way.send("HOLDUNTIL=" + timestamp(way.world.now() + 600).partition(".")[0] + "Z")
    way.pass_time(599)
    assert way.place.attempts == []
    way.pass_time(61)
    assert len(way.place.attempts) == 1


@pytest.mark.parametrize("parameters", ["HOLDFOR=0", "HOLDUNTIL=2001-01-01T00:00:00Z"])
def test_a_moment_that_has_passed_is_now(way: Way, parameters: str) -> None:
    way.send(parameters)
    assert len(way.place.attempts) == 1
    assert way.world.told() == ["sent", "delivered"]


def test_others_do_not_wait_for_a_held_one(way: Way) -> None:
    way.send("HOLDFOR=3600", "held@in.test")
    way.send("", "now@in.test")
    assert way.place.recipients == ["now@in.test"]
    way.pass_time(3660)
    assert way.place.recipients == ["now@in.test", "held@in.test"]


def test_a_held_message_has_its_whole_lifetime_behind_its_time(way: Way) -> None:
    begun = way.world.now()
    way.send("HOLDFOR=86400")
    assert way.site.stored[0].message.expires == begun + 86_400 + LIFETIME


def test_what_is_of_no_use_behind_a_deadline_expires_then(way: Way) -> None:
    """RFC 2852 section 4, mode R."""
    way.place.answer = answer(LATER)
    way.send("BY=400;R")
    way.pass_time(399)
    assert way.states == [State.DEFERRED]
    way.pass_time(10)
    assert way.world.recipients() == []
    assert way.world.told()[-1] == "failed"
    [failed] = way.world.events("failed")
    assert failed.data["reason"].startswith("expired after ")
    attempts = len(way.place.attempts)
    way.pass_time(4000)
    assert len(way.place.attempts) == attempts


def test_what_only_wants_to_be_told_is_delivered_behind_its_deadline(way: Way) -> None:
    """RFC 2852 section 4, mode N."""
    way.place.answer = answer(LATER)
    way.send("BY=400;N")
    way.pass_time(1000)
    assert way.states == [State.DEFERRED]
    way.place.answer = accept
    way.pass_time(400)
    assert way.world.told()[-1] == "delivered"


def test_the_end_of_the_lifetime_comes_before_a_later_deadline(way: Way) -> None:
    begun = way.world.now()
    way.place.answer = answer(LATER)
    way.send("BY=999999999;R")
    assert way.site.stored[-1].message.expires == begun + LIFETIME


def test_priority_orders_first_attempts(way: Way) -> None:
    """RFC 6710: what waits for a channel goes by priority, and within one in the order in which it came."""
    way.place.holding_opens = True
    for parameters, recipient in (
        ("", "zero-1@in.test"),
        ("MT-PRIORITY=-4", "low@in.test"),
        ("MT-PRIORITY=9", "high-1@in.test"),
        ("", "zero-2@in.test"),
        ("MT-PRIORITY=9", "high-2@in.test"),
        ("MT-PRIORITY=3", "middle@in.test"),
    ):
        way.send(parameters, recipient)
    assert way.place.attempts == []
    way.place.holding_opens = False
    for opening in way.place.opening:
        opening.callback(way.place.channel())
    assert way.place.recipients == ["high-1@in.test", "high-2@in.test", "middle@in.test", "zero-1@in.test", "zero-2@in.test", "low@in.test"]
