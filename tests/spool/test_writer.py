"""Group commit: what waits while one transaction syncs is the next one, and nobody is answered before the sync."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lettermta.spool import writer
from lettermta.spool.condition import Condition, Room
from lettermta.spool.schema import connect
from lettermta.spool.writer import MAX_BATCH, Unit, Writer

from .hand import HandReactor

INSERT, SECOND = 0, 1
STATEMENTS = ("INSERT INTO a VALUES (?)", "INSERT INTO b VALUES (?)")


class Bench:
    """A writer of two tables, with a log of what the database did and what the reactor was told, in that order."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.log: list[str] = []
        self.batches: list[int] = []
        self.reactor = HandReactor()
        connection = connect(path, writable=True)
        connection.executescript("CREATE TABLE a (x INTEGER UNIQUE) STRICT; CREATE TABLE b (x INTEGER) STRICT;")
        connection.close()

        def traced(path: Path, *, writable: bool) -> sqlite3.Connection:
            connection = connect(path, writable=writable)
            connection.set_trace_callback(self.log.append)
            return connection

        monkeypatch.setattr(writer, "connect", traced)
        self.room = Room(path.parent, 0)
        self.changes: list[tuple[Condition | None, str]] = []
        self.writer = Writer(path, STATEMENTS, self._to_reactor, self._committed, self._failed, self._changed, room=self.room)
        self.writer.start()

    def _to_reactor(self, function: Callable[..., object], *arguments: Any) -> None:
        self.log.append("told")
        self.reactor.callFromThread(function, *arguments)

    def _committed(self, units: list[Unit]) -> None:
        self.batches.append(len(units))
        for unit in units:
            unit.done.callback(unit.result)

    def _failed(self, units: list[Unit], error: Exception) -> None:
        for unit in units:
            unit.done.errback(error)

    def _changed(self, condition: Condition | None, why: str) -> None:
        self.changes.append((condition, why))

    def put(self, *values: int, **options: Any):
        return self.writer.put(Unit(rows=((INSERT, [(value,) for value in values]),), **options))

    def rows(self, table: str = "a") -> list[int]:
        connection = connect(self.path, writable=False)
        try:
            return [x for (x,) in connection.execute(f"SELECT x FROM {table} ORDER BY x")]
        finally:
            connection.close()

    def hold(self) -> Callable[[], None]:
        """Keep the writer busy in a transaction; returns what lets it go on."""
        begun, go_on = threading.Event(), threading.Event()

        def work(connection: sqlite3.Connection) -> None:
            begun.set()
            assert go_on.wait(20)

        self.put(work=work)
        assert begun.wait(20)
        return go_on.set


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path / "x.db", monkeypatch)
    yield bench
    if not bench.writer.closed.called:
        bench.reactor.wait(bench.writer.close())


def test_what_waits_while_one_commits_is_one_transaction(bench: Bench) -> None:
    go_on = bench.hold()
    waiting = [bench.put(number) for number in range(200)]
    go_on()
    for deferred in waiting:
        bench.reactor.wait(deferred)
    assert bench.batches == [1, 200]
    assert bench.log.count("COMMIT") == 2
    assert bench.rows() == list(range(200))


def test_nobody_is_answered_before_the_commit(bench: Bench) -> None:
    bench.reactor.wait(bench.put(1))
    said = [line for line in bench.log if not line.startswith("PRAGMA")]
    assert said[-2:] == ["COMMIT", "told"]
    assert bench.log.count("told") == 1


def test_commits_are_synced(bench: Bench) -> None:
    connection = connect(bench.path, writable=True)
    full = 2
    assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_batch_is_bounded(bench: Bench) -> None:
    go_on = bench.hold()
    waiting = [bench.put(number) for number in range(MAX_BATCH + 10)]
    go_on()
    for deferred in waiting:
        bench.reactor.wait(deferred)
    assert bench.batches == [1, MAX_BATCH, 10]


def test_a_unit_that_can_not_be_written_fails_alone(bench: Bench) -> None:
    bench.reactor.wait(bench.put(5))
    go_on = bench.hold()
    first, bad, last = bench.put(1), bench.put(2, 5), bench.put(3)
    go_on()
    with pytest.raises(sqlite3.IntegrityError):
        bench.reactor.wait(bad)
    bench.reactor.wait(first)
    bench.reactor.wait(last)
    assert bench.rows() == [1, 3, 5], "nor is anything left of the bad one"


def test_a_fault_in_a_units_work_undoes_its_rows(bench: Bench) -> None:
    def work(connection: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    go_on = bench.hold()
    bad, good = bench.put(1, work=work), bench.put(2, work=lambda connection: "result")
    go_on()
    with pytest.raises(ZeroDivisionError):
        bench.reactor.wait(bad)
    assert bench.reactor.wait(good) == "result"
    assert bench.rows() == [2]


def test_statements_run_in_their_order_whatever_order_units_name_them_in(bench: Bench) -> None:
    bench.reactor.wait(bench.writer.put(Unit(rows=((SECOND, [(1,)]), (INSERT, [(1,)])))))
    order = [line.split()[2] for line in bench.log if line.startswith("INSERT")]
    assert order == ["a", "b"]


def test_closing_writes_what_is_queued(bench: Bench) -> None:
    go_on = bench.hold()
    waiting = [bench.put(number) for number in range(50)]
    closed = bench.writer.close()
    go_on()
    bench.reactor.wait(closed)
    assert all(deferred.called for deferred in waiting)
    assert bench.rows() == list(range(50))
