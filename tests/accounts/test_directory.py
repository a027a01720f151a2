"""What the daemon relies on: answers from memory that are current at each question."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import evolve
from twisted.logger import LogEvent, capturedLogs

from lettermta.accounts import directory as directory_module
from lettermta.accounts.directory import FRESH_SECONDS, Directory
from lettermta.accounts.model import Route, Smarthost, TransportKind
from lettermta.accounts.store import AccountStore


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(tmp_path)
    yield directory
    directory.close()


@pytest.fixture
def store(tmp_path: Path, directory: Directory) -> Iterator[AccountStore]:
    with AccountStore(tmp_path) as store:
        yield store


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


def test_it_starts_without_accounts(tmp_path: Path, directory: Directory) -> None:
    assert directory.project_by_slug("demo") is None
    assert directory.token_by_secret(b"secret") is None
    assert directory.token_by_cram(lambda secret: True) is None
    assert directory.cram_possible()
    assert directory.domains("nothing") == frozenset()
    assert (tmp_path / "accounts.db").exists()
    assert (tmp_path / "accounts.key").exists()


def test_a_busy_daemon_looks_for_changes_only_so_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(directory_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    busy = Directory(tmp_path, FRESH_SECONDS)
    assert busy.project_by_slug("demo") is None
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
    now[0] += FRESH_SECONDS / 2
    assert busy.project_by_slug("demo") is None
    now[0] += FRESH_SECONDS
    assert busy.project_by_slug("demo") is not None
    assert FRESH_SECONDS <= 0.005, "less than a tool takes to end behind its commit"
    busy.close()


def test_each_account_is_found_by_each_of_its_keys(directory: Directory, store: AccountStore) -> None:
    project = store.create_project("demo", message_size=5)
    other = store.create_project("other")
    outgoing = store.route("demo", "outgoing")
    smarthost = Smarthost("relay.example", 25, username="bob", password="hunter2")
    relay = store.create_route("demo", "relay", transport=TransportKind.SMARTHOST, smarthost=smarthost)
    token, value = store.create_token("demo")
    store.create_domain("demo", "example.com")
    store.create_domain("demo", "MÜNCHEN.example")
    assert directory.domains(project.id) == {"example.com", "xn--mnchen-3ya.example"}
    assert directory.domains(other.id) == frozenset()
    assert directory.project(project.id) == directory.project_by_slug("demo") == project
    assert directory.default_route(project.id) == directory.route(project.id, "outgoing") == directory.route_by_id(outgoing.id) == outgoing
    assert directory.route(project.id, "relay") == relay
    assert directory.route(other.id, "relay") is None
    assert directory.token(token.id) == directory.token_by_secret(value.encode()) == token
    for wrong in (b"", value.encode()[:-1], value.encode() + b"x", b"\xff\0"):
        assert directory.token_by_secret(wrong) is None


def test_changes_hold_from_the_next_question_on(directory: Directory, store: AccountStore) -> None:
    project = store.create_project("demo")
    token, value = store.create_token("demo")
    assert directory.token_by_secret(value.encode()) == token
    revoked = store.revoke_token(token.id)
    assert revoked.revoked is not None
    assert directory.token_by_secret(value.encode()) == directory.token(token.id) == revoked
    assert directory.token_by_cram(lambda secret: True) is None

    store.update_project("demo", lambda project: evolve(project, smtp=False))
    assert directory.project(project.id) == evolve(project, smtp=False)

    def make_default(route: Route) -> Route:
        return evolve(route, default=True)

    store.create_route("demo", "news")
    news = store.update_route("demo", "news", make_default)
    assert directory.default_route(project.id) == news

    store.create_domain("demo", "example.com")
    assert directory.domains(project.id) == {"example.com"}
    store.delete_domain("demo", "example.com")
    assert directory.domains(project.id) == frozenset()

    store.create_domain("demo", "example.com")
    store.delete_project("demo")
    assert directory.project(project.id) is None
    assert directory.domains(project.id) == frozenset()
    assert directory.default_route(project.id) is None
    assert directory.token_by_secret(value.encode()) is None


def test_a_change_under_way_neither_shows_nor_delays(tmp_path: Path, directory: Directory, store: AccountStore) -> None:
    project = store.create_project("demo")
    writer = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("UPDATE project SET smtp = 0")
    assert directory.project(project.id) == project
    writer.execute("COMMIT")
    assert directory.project(project.id) == evolve(project, smtp=False)
    writer.close()


def test_a_question_leaves_no_read_transaction_behind(tmp_path: Path, directory: Directory, store: AccountStore) -> None:
    """One that stayed open would keep the WAL from shrinking for as long as the daemon runs."""
    store.create_project("demo")
    assert directory.project_by_slug("demo")
    store.create_project("other")
    assert directory.project_by_slug("other")
    other = sqlite3.connect(tmp_path / "accounts.db")
    busy, *_ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0


def test_cram_tries_every_live_token_also_behind_a_match(directory: Directory, store: AccountStore) -> None:
    store.create_project("demo")
    values = ["first", "second", "third"]
    tokens = [store.create_token("demo", value=value)[0] for value in values]
    gone, _ = store.create_token("demo", value="gone")
    store.revoke_token(gone.id)
    tried: list[bytes] = []

    def verify(secret: bytes) -> bool:
        tried.append(secret)
        return secret == b"second"

    assert directory.token_by_cram(verify) == tokens[1]
    assert tried == [b"first", b"second", b"third"]
    assert directory.token_by_cram(lambda secret: secret == b"gone") is None


@pytest.mark.parametrize("damage", ["secret = NULL", "secret = x'00'", "secret = (SELECT secret FROM token WHERE name = 'other')"])
def test_cram_is_impossible_while_a_live_token_has_no_secret(
    tmp_path: Path, directory: Directory, store: AccountStore, damage: str
) -> None:
    """A sealed value opens for the token that it was made for and no other one."""
    store.create_project("demo")
    token, value = store.create_token("demo", "damaged")
    store.create_token("demo", "other", value="other-secret")
    assert directory.cram_possible()
    writer = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    writer.execute(f"UPDATE token SET {damage} WHERE name = 'damaged'")
    writer.close()
    assert not directory.cram_possible()
    assert directory.token_by_secret(value.encode()) == token
    assert directory.token_by_cram(lambda secret: secret == b"other-secret") is not None
    store.revoke_token(token.id)
    assert directory.cram_possible()


@pytest.mark.parametrize(
    "damage",
    [
        "PRAGMA user_version = 99",
        "UPDATE route SET kind = 'unheard-of'",
        "UPDATE route SET received = 'unheard-of'",
        "ALTER TABLE token DROP COLUMN hint",
    ],
)
def test_what_it_cannot_read_leaves_the_last_state_in_force(
    tmp_path: Path, directory: Directory, store: AccountStore, logged: Sequence[LogEvent], damage: str
) -> None:
    project = store.create_project("demo")
    assert directory.project(project.id) == project
    writer = sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)
    writer.execute(damage)
    writer.execute("UPDATE project SET smtp = 0")
    writer.close()
    for _ in range(3):
        assert directory.project(project.id) == project
    errors = [event for event in logged if event["log_namespace"].startswith("lettermta.accounts")]
    assert len(errors) == 1


def test_no_secret_reaches_the_log_or_a_repr(tmp_path: Path, store: AccountStore, directory: Directory, logged: Sequence[LogEvent]) -> None:
    store.create_project("demo")
    store.create_token("demo", value="a-secret-token")
    directory.token_by_cram(lambda secret: False)
    assert "a-secret-token" not in repr(directory) + repr(logged)
