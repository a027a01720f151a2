"""SCRAM's keys: one set a token and a user name, made once, off the reactor's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define
from twisted.internet.defer import Deferred, fail, succeed

from lettermta.accounts import scram_keys
from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Token
from lettermta.accounts.scram_keys import ITERATIONS, ScramKeys, Verify, derive
from lettermta.accounts.store import AccountStore

NAMES = ("lettermint", "lettr")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    directory = Directory(tmp_path)
    yield directory
    directory.close()


@pytest.fixture
def store(tmp_path: Path, directory: Directory) -> Iterator[AccountStore]:
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
        yield store


@define
class Thread:
    """Runs what it is given when the test says so; counts the keys made."""

    waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = Factory(list)
    at_once: bool = True

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if self.at_once:
            return succeed(function(*arguments))
        done: Deferred[Any] = Deferred()
        self.waiting.append((done, function, arguments))
        return done

    def run(self) -> None:
        while self.waiting:
            done, function, arguments = self.waiting.pop(0)
            done.callback(function(*arguments))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The secrets that keys were made of, in the order in which they were."""
    made: list[bytes] = []
    real = derive

    def counted(secret: bytes, salt: bytes) -> tuple[bytes, bytes]:
        made.append(secret)
        return real(secret, salt)

    monkeypatch.setattr(scram_keys, "derive", counted)
    return made


def proof_of(keys: ScramKeys, username: str, secret: str) -> Verify:
    """What a client that knows ``secret`` would be verified by."""
    salt, iterations = keys.challenge(username.encode())
    right = derive(secret.encode(), salt, iterations)
    return lambda stored, server: (stored, server) == right


def found(keys: ScramKeys, username: str, verify: Verify) -> Token | None:
    results: list[Token | None] = []
    keys.token(username.encode(), verify).addCallback(results.append)
    assert len(results) == 1
    return results[0]


def test_the_token_is_found_under_each_name(directory: Directory, store: AccountStore) -> None:
    first, one = store.create_token("demo")
    second, two = store.create_token("demo")
    keys = ScramKeys(directory, NAMES, Thread())
    for name in NAMES:
        assert found(keys, name, proof_of(keys, name, one)) == first
        assert found(keys, name, proof_of(keys, name, two)) == second
        assert found(keys, name, proof_of(keys, name, "wrong")) is None


def test_salts_are_the_same_at_every_start_and_differ_by_name_and_site(tmp_path: Path, directory: Directory, store: AccountStore) -> None:
    again = Directory(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Directory(tmp_path / "elsewhere")
    keys, same, other = (ScramKeys(each, NAMES, Thread()) for each in (directory, again, elsewhere))
    again.close()
    elsewhere.close()
    names = (b"lettermint", b"lettr", b"nobody", b"", b"\xff")
    asked = [keys.challenge(name) for name in names]
    assert asked == [same.challenge(name) for name in names]
    assert len({salt for salt, _ in asked}) == len(names)
    assert not {salt for salt, _ in asked} & {other.challenge(name)[0] for name in names}
    assert {(len(salt), iterations) for salt, iterations in asked} == {(16, ITERATIONS)}


def test_a_name_that_is_not_configured_costs_the_same_and_finds_nothing(
    directory: Directory, store: AccountStore, made: list[bytes]
) -> None:
    """Neither keys of its own are made (anyone could fill the memory by them), nor is an answer given early."""
    _, value = store.create_token("demo")
    store.create_token("demo")
    keys = ScramKeys(directory, NAMES, Thread())
    keys.warm()
    before = len(made)
    tried: list[bytes] = []
    right = proof_of(keys, "nobody", value)

    def verify(stored: bytes, server: bytes) -> bool:
        tried.append(stored)
        return right(stored, server)

    assert found(keys, "nobody", verify) is None
    assert len(tried) == 2
    assert len(made) == before


def test_keys_are_made_once_and_only_for_what_is_new(directory: Directory, store: AccountStore, made: list[bytes]) -> None:
    _, one = store.create_token("demo")
    keys = ScramKeys(directory, ("lettermint",), Thread())
    for _ in range(3):
        found(keys, "lettermint", proof_of(keys, "lettermint", one))
    assert made == [one.encode()]
    token, two = store.create_token("demo")
    assert found(keys, "lettermint", proof_of(keys, "lettermint", two)) == token
    assert made == [one.encode(), two.encode()]


def test_logins_at_the_same_time_share_the_making(directory: Directory, store: AccountStore, made: list[bytes]) -> None:
    token, value = store.create_token("demo")
    thread = Thread(at_once=False)
    keys = ScramKeys(directory, ("lettermint",), thread)
    results: list[Token | None] = []
    for _ in range(5):
        keys.token(b"lettermint", proof_of(keys, "lettermint", value)).addCallback(results.append)
    assert results == []
    thread.run()
    assert results == [token] * 5
    assert made == [value.encode()]


def test_every_token_is_tried_also_behind_a_match(directory: Directory, store: AccountStore) -> None:
    values = [store.create_token("demo")[1] for _ in range(4)]
    keys = ScramKeys(directory, NAMES, Thread())
    for value in values:
        tried = []
        right = proof_of(keys, "lettr", value)

        def verify(stored: bytes, server: bytes, right: Verify = right, tried: list[bytes] = tried) -> bool:
            tried.append(stored)
            return right(stored, server)

        assert found(keys, "lettr", verify) is not None
        assert len(tried) == 4


def test_a_revoked_token_is_not_found(directory: Directory, store: AccountStore) -> None:
    token, value = store.create_token("demo")
    keys = ScramKeys(directory, NAMES, Thread())
    assert found(keys, "lettermint", proof_of(keys, "lettermint", value)) == token
    store.revoke_token(token.id)
    assert found(keys, "lettermint", proof_of(keys, "lettermint", value)) is None


def test_a_token_revoked_during_the_login_is_seen_to_be(directory: Directory, store: AccountStore) -> None:
    token, value = store.create_token("demo")
    thread = Thread(at_once=False)
    keys = ScramKeys(directory, ("lettermint",), thread)
    results: list[Token | None] = []
    keys.token(b"lettermint", proof_of(keys, "lettermint", value)).addCallback(results.append)
    store.revoke_token(token.id)
    thread.run()
    assert results[0] is not None
    assert results[0].revoked is not None


def test_a_failing_thread_fails_the_login_and_the_next_one_tries_again(directory: Directory, store: AccountStore) -> None:
    token, value = store.create_token("demo")
    failing = [True]

    def threaded(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return fail(RuntimeError("no threads left")) if failing else succeed(function(*arguments))

    keys = ScramKeys(directory, ("lettermint",), threaded)
    failed: list[object] = []
    keys.token(b"lettermint", lambda stored, server: True).addErrback(lambda failure: failed.append(failure.type))
    assert failed == [RuntimeError]
    failing.clear()
    assert found(keys, "lettermint", proof_of(keys, "lettermint", value)) == token


def test_it_is_not_offered_where_it_could_not_work(directory: Directory, store: AccountStore, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ScramKeys(directory, NAMES, Thread())
    assert keys.possible()
    store.create_token("demo")
    store.create_token("demo")
    assert keys.possible()
    monkeypatch.setattr(scram_keys, "MOST_TOKENS", 1)
    assert not keys.possible()
