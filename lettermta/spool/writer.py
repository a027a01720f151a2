"""Group commit: one thread writes, and what waits while it syncs is its next batch.

Units of work are queued from the reactor's thread. The writer takes all that wait, writes them in one transaction, syncs once, and hands
them back in one call. A unit that can't be written fails alone: when the common transaction fails, each unit is tried in its own.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from lettermta.spool.schema import connect

Row = tuple[Any, ...]

MAX_BATCH = 1000
"""Units of one transaction, so that a burst delays no answer for long."""


@define(eq=False)
class Unit:
    """What belongs together: rows for statements (by their index), and what is told once it is durable."""

    rows: Sequence[tuple[int, Sequence[Row]]]
    told: Any = None
    done: Deferred[Any] = field(factory=Deferred)
    work: Callable[[sqlite3.Connection], Any] | None = None
    """Runs in the transaction, behind all rows; what it returns fires ``done``."""
    result: Any = None


class Writer:
    """The one thread that writes a database. ``statements`` are run in their order, whatever order units name them in."""

    def __init__(
        self,
        path: Path,
        statements: Sequence[str],
        to_reactor: Callable[..., object],
        committed: Callable[[Sequence[Unit]], None],
    ) -> None:
        self._path = path
        self._statements = statements
        self._to_reactor = to_reactor
        self._committed = committed
        self._queue: SimpleQueue[Unit | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self.closed: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def put(self, unit: Unit) -> Deferred[Any]:
        """Queue a unit; its Deferred fires after the sync that makes it durable."""
        self._queue.put(unit)
        return unit.done

    def close(self) -> Deferred[None]:
        """Write what is queued, then end."""
        self._queue.put(None)
        return self.closed

    def _run(self) -> None:
        connection = connect(self._path, writable=True)
        try:
            while batch := self._next_batch():
                written = self._write(connection, batch)
                if written:
                    self._to_reactor(self._committed, written)
        finally:
            connection.close()
            self._to_reactor(self.closed.callback, None)

    def _next_batch(self) -> list[Unit]:
        """Everything that waits, at least one unit; nothing when it is time to end."""
        first = self._queue.get()
        batch: list[Unit] = []
        while first is not None:
            batch.append(first)
            if len(batch) >= MAX_BATCH or self._queue.empty():
                return batch
            first = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _write(self, connection: sqlite3.Connection, batch: list[Unit]) -> list[Unit]:
        """The units of the batch that are durable now."""
        try:
            self._transact(connection, batch)
        except Exception as error:
            if len(batch) == 1:
                self._to_reactor(batch[0].done.errback, error)
                return []
            return [unit for unit in batch if self._write(connection, [unit])]
        return batch

    def _transact(self, connection: sqlite3.Connection, batch: list[Unit]) -> None:
        gathered: list[list[Row]] = [[] for _ in self._statements]
        for unit in batch:
            for index, rows in unit.rows:
                gathered[index].extend(rows)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in zip(self._statements, gathered, strict=True):
                if rows:
                    connection.executemany(statement, rows)
            for unit in batch:
                if unit.work is not None:
                    unit.result = unit.work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
