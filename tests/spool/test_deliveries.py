"""The database of webhooks' deliveries: what it keeps, once, and for how long."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from lettermta.spool import deliveries
from lettermta.spool.deliveries import DATABASE, STEPS, DeliveriesInUse, DeliveriesVersionError, take_lock
from lettermta.webhook import Answer, Attempted, DeliveryStatus, NewDelivery

HERE = Path(__file__).parent
OK = Answer(DeliveryStatus.SUCCESS, 200, 0.25, "OK")
BAD = Answer(DeliveryStatus.SERVER_ERROR, 500, 0.5, "no", retry_after=3.0)


def new(event: str = "e1", webhook: str = "w1", **more: str) -> NewDelivery:
    return NewDelivery(webhook, event, "message.sent", "m1", event.encode() * 3, **more)


@pytest.fixture
def connection(tmp_path: Path):
    connection = deliveries.connect(tmp_path / "webhooks" / "0")
    yield connection
    connection.close()


def waiting(connection: sqlite3.Connection, webhook: str = "w1", now: float = 100.0) -> list[str]:
    return [one.event_id for one in deliveries.due(connection, webhook, now, 100)[0]]


def test_the_files_are_for_the_owner_alone(connection: sqlite3.Connection, tmp_path: Path) -> None:
    deliveries.add(connection, [new()], 1.0)
    directory = tmp_path / "webhooks" / "0"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_what_is_told_twice_is_on_record_once(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new("e1"), new("e2"), new("e1", "w2")], 1.0)
    deliveries.add(connection, [new("e2"), new("e3")], 2.0)
    assert waiting(connection) == ["e1", "e2", "e3"]
    assert waiting(connection, "w2") == ["e1"]
    assert deliveries.waiting(connection) == {"w1": (3, 1.0), "w2": (1, 1.0)}


def test_a_replay_is_a_delivery_of_its_own(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new()], 1.0)
    (first,) = deliveries.due(connection, "w1", 1.0, 1)[0]
    deliveries.record(connection, [Attempted(first.number, 1, OK, 1.5, None)])
    deliveries.add_again(connection, [new(), new("never told")], 2.0)
    deliveries.add_again(connection, [new()], 3.0)
    shown = [(row["event_id"], row["replay"], row["status"]) for row in deliveries.records(connection, "w1", 10)]
    assert shown == [("e1", 2, "pending"), ("never told", 0, "pending"), ("e1", 1, "pending"), ("e1", 0, "success")]


def test_what_is_due_comes_earliest_first_and_tells_when_the_next_one_is(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new("e1"), new("e2"), new("e3")], 10.0)
    (first, second, _) = deliveries.due(connection, "w1", 10.0, 10)[0]
    deliveries.record(connection, [Attempted(first.number, 1, BAD, 11.0, 50.0), Attempted(second.number, 1, OK, 11.0, None)])
    assert deliveries.due(connection, "w1", 9.0, 10) == ([], 10.0)
    found, later = deliveries.due(connection, "w1", 49.0, 10)
    assert ([one.event_id for one in found], later) == (["e3"], 50.0)
    found, later = deliveries.due(connection, "w1", 50.0, 1)
    assert ([one.event_id for one in found], later) == (["e3"], 50.0)
    found, later = deliveries.due(connection, "w1", 50.0, 10)
    assert ([(one.event_id, one.attempt, one.payload) for one in found][1], later) == (("e1", 2, b"e1e1e1"), None)


def test_a_record_tells_of_the_last_attempt_and_what_is_over_holds_no_payload(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new()], 1.0)
    (one,) = deliveries.due(connection, "w1", 1.0, 1)[0]
    deliveries.record(connection, [Attempted(one.number, 1, BAD, 1.5, 9.0)])
    (row,) = deliveries.records(connection, "w1", 1)
    assert (row["status"], row["attempt"], row["attempted"], row["due"]) == ("server_error", 1, 1.5, 9.0)
    assert (row["http_status"], row["seconds"], row["response"], row["problem"]) == (500, 0.5, "no", "")
    deliveries.record(connection, [Attempted(one.number, 2, OK, 9.5, None)])
    assert connection.execute("SELECT payload FROM delivery").fetchall() == [(None,)]
    assert deliveries.records(connection, "w1", 9, status="server_error") == []
    assert [row["attempt"] for row in deliveries.records(connection, "w1", 9, status="success", event_id="e1")] == [2]


def test_of_a_recipients_soft_bounces_the_first_one_whoever_asks_how_often(connection: sqlite3.Connection) -> None:
    first, second = new("e1", first_of="a@x"), new("e2", first_of="a@x")
    deliveries.add(connection, [first], 1.0)
    deliveries.add(connection, [second, new("e3", first_of="b@x")], 2.0)
    deliveries.add(connection, [first, second], 3.0)
    deliveries.add(connection, [new("e1", "w2", first_of="a@x"), new("e2", "w2", first_of="a@x")], 4.0)
    assert waiting(connection) == ["e1", "e3"]
    assert waiting(connection, "w2") == ["e1"]


def test_what_is_over_and_old_is_forgotten_and_what_belongs_to_nobody(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new("over"), new("waits"), new("gone", "w2"), new("new")], 1.0)
    over, waits, newest = deliveries.due(connection, "w1", 1.0, 10)[0]
    deliveries.record(connection, [Attempted(over.number, 1, OK, 10.0, None), Attempted(newest.number, 1, OK, 30.0, None)])
    assert deliveries._forget(connection, 20.0, ["w1"]) == 2
    assert [row["event_id"] for row in deliveries.records(connection, "w1", 10)] == ["new", "waits"]
    assert deliveries.records(connection, "w2", 10) == []
    assert deliveries._expire(connection, "w1", 5.0, "given up") == 1
    (row,) = deliveries.records(connection, "w1", 1, event_id="waits")
    assert (row["status"], row["due"], row["problem"]) == ("failed", None, "given up")
    assert waits.event_id == "waits"


def test_one_process_sends_from_it(connection: sqlite3.Connection, tmp_path: Path) -> None:
    directory = tmp_path / "webhooks" / "0"
    take_lock(directory)
    with pytest.raises(DeliveriesInUse):
        take_lock(directory)


def test_what_others_write_is_seen_once(connection: sqlite3.Connection, tmp_path: Path) -> None:
    seen: list[int] = []
    assert deliveries._changed_by_others(connection, seen), "nobody knows what came before"
    assert not deliveries._changed_by_others(connection, seen)
    deliveries.add(connection, [new()], 1.0)
    assert not deliveries._changed_by_others(connection, seen), "our own"
    other = deliveries.connect(tmp_path / "webhooks" / "0")
    deliveries.add(other, [new("e2")], 1.0)
    other.close()
    assert deliveries._changed_by_others(connection, seen)
    assert not deliveries._changed_by_others(connection, seen)


def test_a_later_version_is_refused(connection: sqlite3.Connection, tmp_path: Path) -> None:
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    with pytest.raises(DeliveriesVersionError, match=f"version {len(STEPS) + 1}"):
        deliveries.connect(tmp_path / "webhooks" / "0")


def test_a_sync_leaves_other_commits_quick(connection: sqlite3.Connection) -> None:
    deliveries._sync(connection)
    normal = 1
    assert connection.execute("PRAGMA synchronous").fetchone() == (normal,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("version", range(1, len(STEPS) + 1))
def test_what_each_version_wrote_opens(tmp_path: Path, version: int) -> None:
    directory = tmp_path / "0"
    directory.mkdir()
    with sqlite3.connect(directory / DATABASE) as old:
        old.executescript((HERE / f"deliveries_version{version}.sql").read_text())
    old.close()
    connection = deliveries.connect(directory)
    assert waiting(connection) == ["e2"]
    assert [(row["event_id"], row["status"], row["http_status"]) for row in deliveries.records(connection, "w1", 9)] == [
        ("e2", "server_error", 500),
        ("e1", "success", 200),
    ]
    connection.close()


def test_records_of_a_deleted_webhook_are_forgotten_behind_however_many_that_wait(connection: sqlite3.Connection) -> None:
    deliveries.add(connection, [new(f"e{number}") for number in range(deliveries.TRIM_ROWS + 1)], 10.0)
    deliveries.add(connection, [new("x1", "gone"), new("x2", "gone"), new("x3", "also gone")], 10.0)
    assert deliveries._forget(connection, 5.0, ["w1"]) == 3
    assert deliveries._forget(connection, 5.0, ["w1"]) == 0
    assert deliveries.records(connection, "gone", 10) == []
