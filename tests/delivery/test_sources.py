"""Local addresses that mail leaves from: pools, names of their own, and plans for new ones that no crash exceeds."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import TestCase

from lettermta.config import ConfigError, load
from lettermta.delivery.exchange import Exchange
from lettermta.delivery.sources import Source, SourcePool
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.delivery.warm_up import BLOCK, MOST_RECEIVERS, Plan, WarmUp
from lettermta.message import Unreachable
from lettermta.testing.mx import RemoteMX
from tests.delivery.test_transports import Names
from tests.smtp.client_peer import Content, entry

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


class Disk:
    """Runs what would run in a thread, at once or when the test lets it."""

    def __init__(self) -> None:
        self.writes = 0
        self.held: list[tuple[Any, Deferred[Any]]] | None = None
        self.fault: Exception | None = None

    def __call__(self, function: Any, *arguments: Any) -> Deferred[Any]:
        self.writes += 1
        if self.fault is not None:
            return fail(self.fault)
        if self.held is not None:
            self.held.append((lambda: function(*arguments), Deferred()))
            return self.held[-1][1]
        return succeed(function(*arguments))

    def release(self) -> None:
        assert self.held is not None
        held, self.held = self.held, []
        for work, done in held:
            done.callback(work())


class Calendar:
    """A count of what was sent, in a file, on a day that the test says."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "warm-up.json"
        self.now = NOON
        self.disk = Disk()
        self.warm_up = self.restarted()

    def restarted(self) -> WarmUp:
        self.warm_up = WarmUp(self.file, self.disk, lambda: self.now)
        self.warm_up.load()
        return self.warm_up

    def reserve(self, plan: Plan, receiver: str = "mx big.test", source: str = "new") -> int:
        got: list[int] = []
        Deferred.fromCoroutine(self.warm_up.reserve(source, plan, receiver)).addCallback(got.append)
        return got[0]

    def all_of(self, plan: Plan, receiver: str = "mx big.test", source: str = "new") -> int:
        """What can be had now, all together."""
        total = 0
        while granted := self.reserve(plan, receiver, source):
            total += granted
        return total


@pytest.fixture
def calendar(tmp_path: Path) -> Calendar:
    return Calendar(tmp_path)


def test_each_day_grants_what_the_plan_says_and_behind_it_the_address_is_no_longer_new(calendar: Calendar) -> None:
    plan = Plan((24, 48))
    calendar.now -= 12 * 3600
    totals = []
    for _ in range(2):
        total = 0
        for _ in range(24):
            total += calendar.all_of(plan)
            calendar.now += 3600
        totals.append(total)
    assert totals == [24, 48]
    assert calendar.warm_up.over("new", plan)
    assert calendar.reserve(plan) == 0


def test_a_days_part_is_granted_hour_by_hour(calendar: Calendar) -> None:
    plan = Plan((240,))
    calendar.now = NOON - 12 * 3600
    assert calendar.all_of(plan) == 10
    calendar.now += 3600
    assert calendar.all_of(plan) == 10
    calendar.now = NOON - 12 * 3600 + DAY - 1
    assert calendar.all_of(plan) == 220
    assert calendar.all_of(plan) == 0


def test_receivers_are_counted_apart_and_so_are_sources(calendar: Calendar) -> None:
    plan = Plan((24,))
    assert calendar.all_of(plan, "mx a.test") == calendar.all_of(plan, "mx b.test") == 13
    assert calendar.all_of(plan, "mx a.test", "other") == 13
    assert calendar.all_of(plan, "mx a.test") == 0


def test_no_more_than_a_block_at_once(calendar: Calendar) -> None:
    assert calendar.reserve(Plan((10_000,))) == BLOCK


def test_a_restart_knows_what_was_granted(calendar: Calendar) -> None:
    plan = Plan((24, 48, 96))
    calendar.all_of(plan)
    calendar.restarted()
    assert calendar.all_of(plan) == 0
    calendar.now += DAY
    calendar.restarted()
    assert calendar.all_of(plan) == 26, "the second day of the plan"
    assert stat.S_IMODE(calendar.file.stat().st_mode) == 0o600


def test_what_is_granted_is_on_the_disk_before_it_is_used(calendar: Calendar) -> None:
    calendar.disk.held = []
    got: list[int] = []
    for receiver in ("a", "b", "c"):
        Deferred.fromCoroutine(calendar.warm_up.reserve("new", Plan((1000,)), receiver)).addCallback(got.append)
    assert got == []
    calendar.disk.release()
    assert got == [BLOCK]
    calendar.disk.release()
    assert got == [BLOCK] * 3
    assert calendar.disk.writes == 2, "those that came meanwhile shared a write"


def test_what_was_not_sent_can_be_granted_again(calendar: Calendar) -> None:
    plan = Plan((24,))
    granted = calendar.all_of(plan)
    calendar.warm_up.give_back("new", "mx big.test", 5, calendar.warm_up.today)
    assert calendar.all_of(plan) == 5
    assert granted == 13


def test_what_was_not_sent_by_midnight_is_lost_and_adds_nothing_to_the_next_day(calendar: Calendar) -> None:
    plan = Plan((24, 24))
    calendar.all_of(plan)
    yesterday = calendar.warm_up.today
    calendar.now += DAY
    calendar.all_of(plan)
    calendar.warm_up.give_back("new", "mx big.test", 13, yesterday)
    assert calendar.all_of(plan) == 0


def test_a_clock_that_is_set_back_grants_nothing_twice(calendar: Calendar) -> None:
    plan = Plan((24, 24, 24))
    calendar.all_of(plan)
    calendar.now -= DAY
    assert calendar.all_of(plan) == 0


def test_a_plan_that_begins_later_grants_nothing_yet(calendar: Calendar) -> None:
    plan = Plan((24,), date(2026, 12, 2))
    assert calendar.reserve(plan) == 0
    assert not calendar.warm_up.over("new", plan)
    calendar.now += DAY
    assert calendar.all_of(plan) == 13


@pytest.mark.parametrize(
    "rubbish", [b"", b"{", b"[]", b'{"began": {"new": "x"}, "day": "", "sent": {}}', b'{"began": 1, "day": "", "sent": {}}']
)
def test_a_file_that_is_no_good_begins_the_plans_anew(calendar: Calendar, rubbish: bytes) -> None:
    calendar.file.write_bytes(rubbish)
    calendar.restarted()
    assert calendar.all_of(Plan((24,))) == 13


def test_a_disk_that_fails_does_not_stop_the_mail(calendar: Calendar) -> None:
    calendar.disk.fault = OSError("no space left")
    assert calendar.all_of(Plan((24,))) == 13
    assert calendar.all_of(Plan((24,))) == 0


def test_what_is_counted_is_bounded(calendar: Calendar) -> None:
    counts = calendar.warm_up._sent.setdefault("new", {})
    calendar.warm_up._today()
    calendar.warm_up._sent["new"] = counts
    counts.update({f"mx {number}.test": 1 for number in range(MOST_RECEIVERS)})
    calendar.reserve(Plan((1000,)), "mx one-more.test")
    assert len(counts) == MOST_RECEIVERS + 1
    calendar.reserve(Plan((1000,)), "mx and-another.test")
    assert len(counts) == MOST_RECEIVERS + 1


class Sending(TestCase):
    """Channels over loopback, from addresses of loopback."""

    timeout = 10

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.calendar = Calendar(Path(self.mktemp()))
        self.calendar.file.parent.mkdir()
        self.peer = RemoteMX()
        self.port = self.peer.listen(reactor)
        self.addCleanup(self.peer.stop)

    def transport(self, *sources: Source, addresses: Sequence[str] = ("127.0.0.1",)) -> MXTransport:
        settings = DeliverySettings("out.test", port=self.port, allow_networks=("127.0.0.0/8", "::1/128"), connect_timeout=5)
        pool = SourcePool("pool", sources, self.calendar.warm_up)
        exchange = Exchange("in.test", (("mx.test",),))
        return MXTransport(self.reactor, exchange, Names({}, {"mx.test": addresses}), settings, pool=pool, receiver=exchange.key)

    async def send(self, transport: MXTransport, count: int) -> list[str]:
        """Send so many, on new channels where one is used up; returns the names that the peer was greeted by, message by message."""
        before = len(self.peer.messages)
        channel = await transport.open()
        for _ in range(count):
            if not channel.usable:
                channel.close()
                channel = await transport.open()
            [verdict] = await channel.send(entry(), Content())
            assert verdict.reply.positive
        channel.close()
        return [message.helo for message in self.peer.messages[before:]]

    async def test_sources_take_turns_each_with_its_address_and_name(self) -> None:
        transport = self.transport(Source("a", ("127.0.0.41",), "a.out.test"), Source("b", ("127.0.0.42",), "b.out.test"))
        seen = set()
        for _ in range(4):
            channel = await transport.open()
            [session] = self.peer.sessions
            seen.add((session.transport.getPeer().host, channel.details["source"]))
            await channel.send(entry(), Content())
            channel.close()
            await session.gone
        assert seen == {("127.0.0.41", "a"), ("127.0.0.42", "b")}
        assert {message.helo for message in self.peer.messages} == {"a.out.test", "b.out.test"}

    async def test_a_new_address_gets_its_part_and_the_older_ones_the_rest(self) -> None:
        transport = self.transport(
            Source("old", ("127.0.0.41",), "old.out.test"), Source("new", ("127.0.0.42",), "new.out.test", Plan((24, 48)))
        )
        names = await self.send(transport, 20)
        assert names == ["new.out.test"] * 13 + ["old.out.test"] * 7
        self.calendar.now += 2 * DAY
        assert set(await self.send(transport, 1) + await self.send(transport, 1)) == {"new.out.test", "old.out.test"}

    async def test_what_a_channel_did_not_need_is_given_back(self) -> None:
        transport = self.transport(
            Source("old", ("127.0.0.41",), "old.out.test"), Source("new", ("127.0.0.42",), "new.out.test", Plan((24,)))
        )
        for _ in range(3):
            assert await self.send(transport, 3) == ["new.out.test"] * 3

    async def test_a_channel_does_not_carry_into_the_next_day_what_the_last_one_granted(self) -> None:
        transport = self.transport(Source("new", ("127.0.0.42",), "new.out.test", Plan((24, 24))))
        channel = await transport.open()
        assert channel.usable
        self.calendar.now += DAY
        assert not channel.usable
        channel.close()
        assert len(await self.send(transport, 13)) == 13
        await self.assertFailure(transport.open(), Unreachable)

    async def test_where_all_are_new_and_used_up_mail_waits(self) -> None:
        transport = self.transport(Source("new", ("127.0.0.42",), "new.out.test", Plan((2,))))
        await self.send(transport, 2)
        error = await self.assertFailure(transport.open(), Unreachable)
        assert str(error.reply) == "451 4.3.2 The warm-up plans of pool pool grant mx mx.test no more for now"

    async def test_a_smarthost_is_reached_from_a_source_too(self) -> None:
        settings = DeliverySettings("out.test", connect_timeout=5)
        pool = SourcePool("pool", [Source("four", ("127.0.0.41",), "four.out.test")], self.calendar.warm_up)
        transport = SmarthostTransport(self.reactor, "127.0.0.1", self.port, "off", None, settings, pool=pool)
        channel = await transport.open()
        [session] = self.peer.sessions
        assert (session.transport.getPeer().host, channel.details["source"]) == ("127.0.0.41", "four")
        await channel.send(entry(), Content())
        channel.close()
        await session.gone
        assert [message.helo for message in self.peer.messages] == ["four.out.test"]
        six = SmarthostTransport(self.reactor, "::1", self.port, "off", None, settings, pool=pool)
        error = await self.assertFailure(six.open(), Unreachable)
        assert str(error.reply) == "451 4.4.4 ::1 has no address of a family that four has"

    async def test_a_host_without_an_address_of_our_family_is_not_reached_from_another(self) -> None:
        transport = self.transport(Source("four", ("127.0.0.41",), "four.out.test"), addresses=["::1"])
        error = await self.assertFailure(transport.open(), Unreachable)
        assert str(error.reply) == "451 4.4.4 mx.test has no address of a family that four has"

    async def test_an_address_that_is_not_ours_is_told_and_nothing_of_the_plan_is_lost(self) -> None:
        transport = self.transport(Source("wrong", ("192.0.2.1",), "wrong.out.test", Plan((24,))))
        for _ in range(2):
            error = await self.assertFailure(transport.open(), Unreachable)
            assert "Our own address 192.0.2.1 can't be used" in str(error.reply)
        assert self.calendar.all_of(Plan((24,)), "mx mx.test", "wrong") == 13


def test_an_operator_reads_what_is_wrong_with_pools(tmp_path: Path) -> None:
    file = tmp_path / "mta.ini"
    file.write_text(
        "[listener a]\nports = 25\n"
        "[delivery]\npool = gone\nsource_addresses = 192.0.2.1\n"
        "[source one]\naddresses = 192.0.2.1, 192.0.2.2\n"
        "[source two]\naddresses = 192.0.2.1\nwarm_up = 10, 0\n"
        "[source three]\naddresses = 192.0.2.1\nwarm_up_from = 2026-02-30\n"
        "[source four]\naddresses = 192.0.2.1\nwarm_up_from = 2026-02-03\n"
        "[pool p]\nsources = four, five\n"
    )
    with pytest.raises(ConfigError) as failed:
        load(file)
    told = [line.removeprefix(f"{file}:") for line in str(failed.value).splitlines()]
    assert told == [
        "4: [delivery] pool: 'gone' is no [pool NAME]; expected p",
        "4: [delivery] pool: there are source_addresses too; expected one of both",
        "7: [source one] addresses: there are several of IPv4; expected one of each at the most, and another [source …] for the next one",
        "10: [source two] warm_up: '0' is not a number from 1 on; expected numbers of messages, separated by commas or blanks, or nothing",
        "13: [source three] warm_up_from: '2026-02-30' is not a date; expected a date like 2026-12-31, or nothing",
        "16: [source four] warm_up_from: there is no warm_up; expected both, or warm_up alone",
        "18: [pool p] sources: 'five' is no [source NAME]; expected one or four",
    ]
