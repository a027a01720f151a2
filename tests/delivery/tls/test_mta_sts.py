"""Which MTA-STS policy holds: announcements, fetches, what is kept, and time (RFC 8461 sections 3 to 5)."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dns.rdata import Rdata, from_text
from dns.rdataclass import IN
from dns.rdatatype import TXT, RdataType
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock

from lettermta.delivery.dns_cache import Answer as Records
from lettermta.delivery.dns_wire import Server, TryFailed
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.tls.https import Answer, HTTPSFailed
from lettermta.delivery.tls.mta_sts import LOOK_SECONDS, MTASTS, PAUSE_SECONDS, REFRESH_SECONDS, Discovered
from lettermta.delivery.tls.sts_files import PolicyFiles
from lettermta.delivery.tls.sts_known import MOST_POLICIES
from lettermta.delivery.tls.sts_policy import Mode

SERVFAIL = TemporaryDNSFailure("in.test", TXT, [TryFailed(Server("127.0.0.1", 53), "SERVFAIL", rcode="SERVFAIL")])
WEEK = 604_800


def policy(mode: str = "enforce", max_age: int = WEEK) -> Answer:
    return Answer(200, "text/plain", f"version: STSv1\nmode: {mode}\nmx: mx.in.test\nmax_age: {max_age}\n".encode())


class World:
    """A domain with a TXT record and a web server, and a clock for everyone. What is an exception is raised."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.folder = folder
        self.record: str | Exception | None = "v=STSv1; id=1;"
        self.page: Answer | Exception | Deferred[Answer] = policy()
        self.fetched: list[str] = []
        self.started = self.start()

    def start(self) -> MTASTS:
        """As after a restart."""
        files = PolicyFiles(self.folder)
        sts = MTASTS(self, self, files, self.clock, self.clock.seconds, maybeDeferred)  # type: ignore[arg-type]
        self.done(sts.start())
        self.sts = sts
        return sts

    def lookup(self, name: str, rdtype: RdataType) -> Deferred[Records]:
        assert name.startswith("_mta-sts.") and rdtype == TXT
        if isinstance(self.record, Exception):
            return fail(self.record)
        if self.record is None:
            return fail(NoSuchDomain(name))
        records: tuple[Rdata, ...] = (from_text(IN, TXT, f'"{self.record[:7]}" "{self.record[7:]}"'),)
        return succeed(Records(name, records, False, 0.0))

    async def get(self, url: str) -> Answer:
        self.fetched.append(url)
        if isinstance(self.page, Exception):
            raise self.page
        return await self.page if isinstance(self.page, Deferred) else self.page

    def done(self, coroutine: Any) -> Any:
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        assert results, "it waits for something"
        return results[0]

    def discovered(self, domain: str = "in.test") -> Discovered:
        found = self.done(self.sts.discover(domain))
        assert isinstance(found, Discovered), found
        return found

    def mode(self) -> str | None:
        found = self.discovered().policy
        return None if found is None else found.mode.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "mta-sts")


def test_an_announced_policy_is_fetched_once_and_then_known(world: World) -> None:
    assert world.mode() == world.mode() == "enforce"
    assert world.fetched == ["https://mta-sts.in.test/.well-known/mta-sts.txt"]


@pytest.mark.parametrize("record", [None, SERVFAIL, "v=spf1 -all"])
def test_nothing_is_fetched_without_an_announcement(world: World, record: str | Exception | None) -> None:
    world.record = record
    assert world.discovered() == Discovered() and world.fetched == []


@pytest.mark.parametrize("record", [None, SERVFAIL, "v=STSv1; broken"])
def test_a_known_policy_holds_although_its_announcement_is_gone(world: World, record: str | Exception | None) -> None:
    """RFC 8461 section 3.1: whoever can take away the record must not be able to take away the policy."""
    assert world.mode() == "enforce"
    world.record = record
    assert world.mode() == "enforce"


def test_servers_that_would_not_tell_are_not_asked_at_every_connection(world: World) -> None:
    world.record = SERVFAIL
    world.discovered()
    world.record = "v=STSv1; id=1;"
    assert world.mode() is None
    world.clock.advance(PAUSE_SECONDS)
    assert world.mode() == "enforce"


def test_another_id_means_another_policy(world: World) -> None:
    world.mode()
    world.record, world.page = "v=STSv1; id=2;", policy("testing")
    assert world.mode() == world.mode() == "testing"
    assert len(world.fetched) == 2


BROKEN: list[tuple[Answer | Exception, str]] = [
    (HTTPSFailed("refused"), "sts-policy-fetch-error"),
    (HTTPSFailed("expired", tls=True), "sts-webpki-invalid"),
    (Answer(404, "text/plain", policy().body), "sts-policy-fetch-error"),
    (Answer(302, "text/plain", policy().body), "sts-policy-fetch-error"),
    (Answer(200, "text/html", policy().body), "sts-policy-invalid"),
    (Answer(200, "text/plain", b"version: STSv1\n"), "sts-policy-invalid"),
]


@pytest.mark.parametrize(("page", "kind"), BROKEN)
def test_a_policy_that_can_not_be_had_is_none_and_is_told(world: World, page: Answer | Exception, kind: str) -> None:
    """RFC 8461 sections 3.3 and 5.1; RFC 8460 section 4.3.2.2."""
    world.page = page
    found = world.discovered()
    assert found.policy is None and found.problem is not None and found.problem.kind == kind


@pytest.mark.parametrize(("page", "kind"), BROKEN)
def test_the_policy_before_holds_while_its_successor_can_not_be_had(world: World, page: Answer | Exception, kind: str) -> None:
    """RFC 8461 section 5.1."""
    world.mode()
    world.record, world.page = "v=STSv1; id=2;", page
    found = world.discovered()
    assert found.policy is not None and found.policy.mode is Mode.ENFORCE
    assert found.problem is not None and found.problem.kind == kind
    world.clock.advance(WEEK)
    assert world.discovered().policy is None, "but not behind its own time"


def test_a_domain_whose_policy_can_not_be_had_is_left_alone_for_a_while(world: World) -> None:
    """RFC 8461 section 3.3."""
    world.page = HTTPSFailed("refused")
    for _ in range(3):
        assert world.discovered().problem is not None
    assert len(world.fetched) == 1
    world.record = "v=STSv1; id=2;"
    world.discovered()
    assert len(world.fetched) == 2, "another id is another matter"
    world.clock.advance(PAUSE_SECONDS)
    world.page = policy()
    assert world.discovered().problem is None
    assert len(world.fetched) == 3


def test_a_policy_expires(world: World) -> None:
    world.mode()
    world.record = None
    world.clock.advance(WEEK - 1)
    assert world.mode() == "enforce"
    world.clock.advance(1)
    assert world.mode() is None


def test_a_policy_in_use_is_refreshed_once_a_day_without_anyone_waiting(world: World) -> None:
    world.mode()
    world.clock.advance(REFRESH_SECONDS - 1)
    waiting: Deferred[Answer] = Deferred()
    world.page = waiting
    world.sts.stop()
    world.clock.advance(1)
    assert world.mode() == "enforce", "nobody waits"
    waiting.callback(policy("testing"))
    assert world.mode() == "testing"
    assert len(world.fetched) == 2


def test_a_policy_that_nobody_asks_for_is_refreshed_too(world: World) -> None:
    """RFC 8461 section 10.2: whoever is on the path has to keep us from the web server for all of max_age."""
    world.mode()
    for _ in range(14 * 24):
        world.clock.advance(LOOK_SECONDS)
    assert 12 <= len(world.fetched) <= 15
    world.record = None
    assert world.mode() == "enforce"


def test_a_short_lived_policy_is_refreshed_at_half_its_age(world: World) -> None:
    world.page = policy(max_age=600)
    world.mode()
    world.clock.advance(299)
    world.mode()
    assert len(world.fetched) == 1
    world.clock.advance(1)
    world.mode()
    assert len(world.fetched) == 2


def test_all_who_wait_for_the_same_policy_share_one_fetch(world: World) -> None:
    waiting: Deferred[Answer] = Deferred()
    world.page = waiting
    found: list[Discovered] = []
    for _ in range(3):
        Deferred.fromCoroutine(world.sts.discover("in.test")).addCallback(found.append)
    assert found == [] and len(world.fetched) == 1
    waiting.callback(policy())
    assert [one.policy is not None for one in found] == [True] * 3


def test_mode_none_takes_a_policy_back(world: World) -> None:
    """RFC 8461 section 2.5."""
    world.mode()
    world.record, world.page = "v=STSv1; id=2;", policy("none", 86_400)
    assert world.mode() == "none"


def test_policies_outlive_a_restart_and_only_their_owner_reads_them(world: World) -> None:
    world.mode()
    [path] = world.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and "in.test" not in path.name
    world.record = None
    world.page = HTTPSFailed("down")
    world.start()
    assert world.mode() == "enforce"
    world.clock.advance(WEEK)
    assert world.mode() is None
    assert list(world.folder.iterdir()) == [], "what has expired is no longer kept"


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(b"{"), lambda path: path.write_bytes(b"[]"), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_file_is_as_if_it_were_not_there(world: World, damage: Callable[[Path], object]) -> None:
    world.mode()
    [path] = world.folder.iterdir()
    damage(path)
    world.start()
    assert world.mode() == "enforce" and len(world.fetched) == 2


def test_a_policy_holds_although_it_can_not_be_written(world: World) -> None:
    world.folder.write_bytes(b"in the way")
    assert world.mode() == world.mode() == "enforce"
    assert len(world.fetched) == 1


def test_the_number_of_policies_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_POLICIES >= 1000
    monkeypatch.setattr("lettermta.delivery.tls.sts_known.MOST_POLICIES", 3)
    for number in range(5):
        world.discovered(f"{number}.test")
    assert len(list(world.folder.iterdir())) == 3
    world.discovered("4.test")
    world.discovered("0.test")
    assert len(world.fetched) == 6
