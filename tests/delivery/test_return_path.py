"""Return paths: who has one, what it stands for, and that nobody can make one up."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import ReturnPathUse, TransportKind
from lettermta.accounts.store import AccountStore
from lettermta.delivery.returns.path import NoReturnPath, ReturnPaths
from lettermta.message import Lane, Options, QueuedRecipient, QueueEntry, new_id

from .scripted import World

NOW = 1_800_000_000.0
DAYS = 86_400.0


class Site:
    """Accounts with a project that has the domain shop.test, and return paths that last a week."""

    def __init__(self, state_dir: Path) -> None:
        self.store = AccountStore(state_dir)
        self.project = self.store.create_project("demo")
        self.store.create_domain("demo", "shop.test")
        self.use(ReturnPathUse.ON)
        self.directory = Directory(state_dir)
        self.time = NOW
        self.paths = ReturnPaths(self.directory, 7 * DAYS, lambda: self.time)
        [self.route] = self.store.routes("demo")

    def use(self, use: ReturnPathUse, verified: float | None = None, name: str = "shop.test") -> None:
        domain = self.store.domain("demo", name)
        self.store.update_domain(domain, lambda domain: evolve(domain, return_path_use=use, return_path_verified=verified))

    def entry(
        self, *recipients: str, sender: str = "orders@shop.test", route: str | None = None, options: Options | None = None
    ) -> QueueEntry:
        return QueueEntry(
            number=1,
            id=new_id(),
            lane=Lane(self.route.id if route is None else route, "example.com"),
            project="demo",
            route="outgoing",
            sender=sender,
            size=10,
            created=0.0,
            expires=9.0,
            facts=b"{}",
            context=b"{}",
            recipients=[QueuedRecipient(number, address) for number, address in enumerate(recipients)],
            options=options or Options(),
        )

    def parted(self, *recipients: str, **known) -> list[str | None]:
        return [part.return_path for part in self.paths.parted(self.entry(*recipients, **known))]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.directory.close()
    site.store.close()


def test_each_recipient_has_an_address_of_its_own_that_stands_for_it(site: Site) -> None:
    entry = site.entry("jane@example.com", "joe@example.com")
    parts = site.paths.parted(entry)
    assert [[recipient.address for recipient in part.recipients] for part in parts] == [["jane@example.com"], ["joe@example.com"]]
    for part, address in zip(parts, ("jane@example.com", "joe@example.com"), strict=True):
        assert part.return_path is not None
        assert re.fullmatch(r"b[a-z2-7]{53}@rp\.shop\.test", part.return_path)
        returned = site.paths.read(part.return_path)
        assert returned.message_id == entry.id
        assert returned.meant(["ann@example.com", "joe@example.com", "jane@example.com"]) == address
        assert returned.meant(["ann@example.com"]) is None


def test_other_servers_may_change_the_case(site: Site) -> None:
    [path] = site.parted("Jane@Example.com")
    assert path is not None
    assert site.paths.read(path.upper()).meant(["jane@example.com"]) == "jane@example.com"


def test_one_that_was_made_up_or_altered_is_none(site: Site) -> None:
    [path] = site.parted("jane@example.com")
    assert path is not None
    dice = random.Random(7)
    for place in range(1, 53):
        letter = dice.choice([one for one in string.ascii_lowercase if one != path[place]])
        with pytest.raises(NoReturnPath, match="forged"):
            site.paths.read(path[:place] + letter + path[place + 1 :])
    for address in (
        "",
        "b@rp.shop.test",
        path[1:],
        f"x{path}",
        path.replace("@", "1@"),
        path.partition("@")[0],
        f"{path}\n",
        "ü@rp.shop.test",
    ):
        with pytest.raises(NoReturnPath, match="malformed"):
            site.paths.read(address)


def test_a_server_may_write_the_name_that_a_cname_leads_to(site: Site) -> None:
    """RFC 5321 section 2.3.5 has it so no more, but there are old ones."""
    [path] = site.parted("jane@example.com")
    assert path is not None
    assert site.paths.read(path.replace("@rp.shop.test", "@bounces.mta.test")) == site.paths.read(path)


def test_automatically_only_where_somebody_listens(site: Site) -> None:
    site.paths.listening = False
    site.use(ReturnPathUse.AUTO, verified=1.0)
    assert site.parted("jane@example.com") == [None]
    site.use(ReturnPathUse.ON)
    assert site.parted("jane@example.com") != [None]


def test_one_of_another_installation_is_none(site: Site, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Site(tmp_path / "other")
    [path] = other.parted("jane@example.com")
    assert path is not None
    with pytest.raises(NoReturnPath, match="forged"):
        site.paths.read(path)


def test_it_ends_when_what_it_stands_for_may_be_forgotten(site: Site) -> None:
    [path] = site.parted("jane@example.com")
    assert path is not None
    site.time = NOW + 7 * DAYS
    site.paths.read(path)
    site.time += 3601
    with pytest.raises(NoReturnPath, match="expired"):
        site.paths.read(path)


def test_it_is_found_in_what_other_programs_write(site: Site) -> None:
    [path] = site.parted("jane@example.com")
    assert path is not None
    forged = f"b{'a' * 53}@rp.shop.test"
    returned = site.paths.read(path)
    for text in (
        f"Return-Path: <{path}>",
        f"smtp.mailfrom={path};",
        f"{forged} {path.upper()}\r\n",
        f"prvs={path.replace('@', '=')}@x.test",
    ):
        assert site.paths.found_in(text) == returned
    assert site.paths.found_in(forged + " b" * 50_000) is None


# -- who has one


def test_automatically_once_the_record_was_seen(site: Site) -> None:
    site.use(ReturnPathUse.AUTO)
    assert site.parted("jane@example.com") == [None]
    site.use(ReturnPathUse.AUTO, verified=1.0)
    assert site.parted("jane@example.com") != [None]
    site.use(ReturnPathUse.OFF, verified=1.0)
    assert site.parted("jane@example.com") == [None]


def test_a_sub_domain_uses_that_of_the_domain_above_it(site: Site) -> None:
    [path] = site.parted("jane@example.com", sender="a@news.shop.test")
    assert path is not None
    assert path.endswith("@rp.shop.test")
    site.store.create_domain("demo", "news.shop.test")
    assert site.parted("jane@example.com", sender="a@news.shop.test") == [None], "a domain of its own decides for itself"


def test_mail_without_one_stays_as_it_is(site: Site) -> None:
    """A null sender keeps being null (HARD-CASES row 25), and another's domain is none of ours."""
    both = ("jane@example.com", "joe@example.com")
    for sender in ("", "a@other.test", "a@test", "a@ü.test", "shop.test"):
        [part] = site.paths.parted(site.entry(*both, sender=sender))
        assert (part.return_path, len(part.recipients)) == (None, 2)
    assert site.parted("jane@example.com", options=Options(report=True)) == [None]
    assert site.parted("jane@example.com", route="gone") == [None]


@pytest.mark.parametrize("transport", [TransportKind.CAPTURE, TransportKind.DISCARD])
def test_what_no_other_server_sees_needs_none(site: Site, transport: TransportKind) -> None:
    route = site.store.create_route("demo", "kept", transport=transport)
    [part] = site.paths.parted(site.entry("jane@example.com", "joe@example.com", route=route.id))
    assert (part.return_path, len(part.recipients)) == (None, 2)


# -- on the way


def test_recipients_with_return_paths_go_one_by_one_and_each_is_settled() -> None:
    world = World()
    world.parted = lambda entry: [evolve(entry, recipients=[r], return_path=f"b{r.number}@rp.test") for r in entry.recipients]
    world.scheduler = world.new_scheduler()
    world.start()
    message = world.submit(*(f"r{n}@example.com" for n in range(40)), "a@other.example")
    place = world.place("example.com")
    assert sorted(place.attempts) == sorted((f"r{n}@example.com",) for n in range(40))
    assert world.told(message).count("delivered") == 41
    world.assert_at_rest()
