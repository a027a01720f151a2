"""Space goes back to the disk once the queue has drained."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lettermta.message import State
from lettermta.spool import shrinking, writer
from lettermta.spool.schema import connect
from lettermta.spool.shrinking import Shrinking, shrink

from .hand import PATIENCE, Desk

BODY = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 640


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sqlite3.Connection]:
    monkeypatch.setattr(shrinking, "KEPT_OCTETS", 65_536)
    connection = connect(tmp_path / "spool.db", writable=True)
    connection.execute("CREATE TABLE content (body BLOB)")
    connection.executemany("INSERT INTO content VALUES (?)", [(bytes(8000),)] * 2000)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    yield connection
    connection.close()


def size(connection: sqlite3.Connection) -> int:
    return Path(connection.execute("PRAGMA database_list").fetchone()[2]).stat().st_size


def test_what_is_in_use_is_kept(table: sqlite3.Connection) -> None:
    before = size(table)
    assert not shrink(table)
    assert size(table) == before


def test_free_pages_go_back_in_steps_until_few_are_left(table: sqlite3.Connection) -> None:
    before = size(table)
    table.execute("DELETE FROM content")
    steps = 1
    while shrink(table):
        steps += 1
    assert 3 < steps < 20, "each step is a short one, but of many pages"
    assert size(table) < before / 20


def test_some_free_pages_are_kept_for_new_mail(table: sqlite3.Connection) -> None:
    table.execute("DELETE FROM content WHERE rowid % 5 = 0")
    free = table.execute("PRAGMA freelist_count").fetchone()[0]
    assert free > 100
    assert not shrink(table), "a fifth of the database is not worth the work"


def test_all_of_it_goes_back_while_nothing_waits(table: sqlite3.Connection) -> None:
    before = size(table)
    table.execute("DELETE FROM content")
    Shrinking(table).take_turn(lambda: False)
    assert size(table) < before / 20


def test_one_step_goes_back_at_a_time_while_something_waits(table: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then it is the turn of what waits, for several times as long as that took."""
    monkeypatch.setattr(shrinking, "SHARE", 1000)
    table.execute("DELETE FROM content")
    before = pages(table)
    shrinking_one = Shrinking(table)
    shrinking_one.take_turn(lambda: True)
    assert before - pages(table) == shrinking.STEP_PAGES
    shrinking_one.take_turn(lambda: True)
    assert before - pages(table) == shrinking.STEP_PAGES
    shrinking_one.take_turn(lambda: False)
    assert pages(table) < before / 20


def test_a_step_that_took_long_is_followed_by_a_smaller_one(table: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(shrinking, "SHARE", 1)
    table.execute("DELETE FROM content")
    one, given, left = Shrinking(table), [], pages(table)
    for _ in range(3):
        one.take_turn(lambda: True)
        given.append(left - pages(table))
        left = pages(table)
    assert [round(number / shrinking.STEP_PAGES, 1) for number in given] == [1.0, 0.5, 0.2], "but for a page of pointers now and then"


def test_a_reader_in_the_middle_of_its_rows_is_not_disturbed(table: sqlite3.Connection, tmp_path: Path) -> None:
    reader = connect(tmp_path / "spool.db", writable=False)
    rows = reader.execute("SELECT body FROM content")
    assert len(rows.fetchone()[0]) == 8000
    table.execute("DELETE FROM content")
    while shrink(table):
        pass
    assert sum(1 for _ in rows) == 1999
    reader.close()


def test_a_spool_that_has_drained_is_small_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shrinking, "KEPT_OCTETS", 65_536)
    monkeypatch.setattr(writer, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(shrinking, "IDLE_SECONDS", 0.001)
    desk = Desk(tmp_path / "0")
    for done in [desk.storing(desk.message(data=BODY)) for _ in range(1000)]:
        desk.reactor.wait(done)
    reader = connect(tmp_path / "0" / "spool.db", writable=False)
    full = pages(reader)
    for entry in desk.due(limit=2000):
        desk.record(entry, State.DELIVERED)
    desk.reactor.wait(desk.spool.trim(4_000_000_000.0))
    end = time.monotonic() + PATIENCE
    while pages(reader) > full / 4:
        assert time.monotonic() < end
        desk.reactor.wait(desk.spool.cursor("x"))
    reader.close()
    desk.close()


def pages(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("PRAGMA page_count").fetchone()[0]
    return found
