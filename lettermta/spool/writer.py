"""Group commit: one thread writes, and what waits while it syncs is its next batch.

Units of work are queued from the reactor's thread. The writer takes all that wait, writes them in one transaction, syncs once, and hands
them back in one call. A unit that can't be written fails alone: when it was a unit that made the common transaction fail, each is tried in
its own. When it was the disk, the whole batch counts as lost: a sync that failed once says nothing the second time, so nothing is tried
again on that connection (HARD-CASES row 26). ``condition`` tells what is written now; who waits for a unit that is not gets NotStored.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from lettermta import metrics
from lettermta.database import transaction
from lettermta.interfaces import NotStored
from lettermta.spool.condition import Condition, Room
from lettermta.spool.damage import Fault, fault_of
from lettermta.spool.schema import connect
from lettermta.spool.shrinking import Shrinking

Row = tuple[Any, ...]
Complete = Callable[[Row], Row]
Summary = Callable[[sqlite3.Connection, Sequence[Sequence[Row]]], None]

MAX_BATCH = 1000
"""Units of one transaction, so that a burst delays no answer for long."""
LOOK_SECONDS = 1.0
"""How often free space is looked at, and a broken disk tried."""
CHECK_SECONDS = 2.0
"""How long the check of a new connection may take: what it has not looked at then is taken as it is."""


@define(eq=False)
class Unit:
    """What belongs together: rows for statements (by their index), and what is told once it is durable."""

    rows: Sequence[tuple[int, Sequence[Row]]]
    told: Any = None
    done: Deferred[Any] = field(factory=Deferred)
    more: Sequence[Row] = ()
    """Rows for no statement, but for what sums up the transaction."""
    work: Callable[[sqlite3.Connection], Any] | None = None
    """Runs in the transaction, behind all rows; what it returns fires ``done``."""
    result: Any = None
    new: int | None = None
    """The number of the new message that it is: one is written only while there is room."""


class Writer:
    """The one thread that writes a database. ``statements`` are run in their order, whatever order units name them in; ``complete`` has,
    for some of them, what makes the rows that are written of the rows of the units, in the writer's thread.

    Through ``to_reactor`` it calls ``committed`` with the units that are durable, ``failed`` with those that are not and why, and
    ``changed`` with each new condition and why, or with None and the damage that was met.
    """

    def __init__(
        self,
        path: Path,
        statements: Sequence[str],
        to_reactor: Callable[..., object],
        committed: Callable[[Sequence[Unit]], None],
        failed: Callable[[Sequence[Unit], Exception], None],
        changed: Callable[[Condition | None, str], None],
        *,
        room: Room,
        complete: Mapping[int, Complete] | None = None,
        summary: Summary | None = None,
    ) -> None:
        self._path = path
        self._statements = statements
        self._complete = complete or {}
        self._summary = summary
        self._to_reactor = to_reactor
        self._committed = committed
        self._failed = failed
        self._changed = changed
        self._room = room
        self._look_at = 0.0
        self._queue: SimpleQueue[Unit | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._connection: sqlite3.Connection
        self._shrinking: Shrinking
        self.condition = Condition.WORKING
        """For all to read; the writer's thread alone changes it."""
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
        self._connection = connect(self._path, writable=True)
        self._shrinking = Shrinking(self._connection)
        try:
            self._watch()
            while (batch := self._next_batch()) is not None:
                self._watch()
                if batch:
                    self._write(batch)
                self._give_back()
        finally:
            self._connection.close()
            self._to_reactor(self.closed.callback, None)

    def _next_batch(self) -> list[Unit] | None:
        """Everything that waits; nothing when nothing came for a while; None when it is time to end."""
        try:
            first = self._queue.get(timeout=LOOK_SECONDS or 1.0)
        except Empty:
            return []
        if first is None:
            return None
        batch: list[Unit] = []
        while first is not None:
            batch.append(first)
            if len(batch) >= MAX_BATCH or self._queue.empty():
                return batch
            first = self._queue.get()
        self._queue.put(None)
        return batch

    # -- writing

    def _write(self, batch: Sequence[Unit]) -> None:
        """Write a batch, and answer each of its units."""
        if self.condition is not Condition.WORKING:
            batch = self._admitted(batch)
        if not batch:
            return
        try:
            self._transact(batch)
        except Exception as error:
            self._not_written(batch, error)
        else:
            self._to_reactor(self._committed, batch)

    def _admitted(self, batch: Sequence[Unit]) -> Sequence[Unit]:
        """Those units of the batch that are written in this condition; the others have their answer."""
        admitted: list[Unit] = []
        refused: list[Unit] = []
        for unit in batch:
            (refused if unit.new is not None or self.condition is Condition.BROKEN else admitted).append(unit)
        if refused:
            self._to_reactor(self._failed, refused, NotStored(_REFUSED[self.condition]))
        return admitted

    def _transact(self, batch: Sequence[Unit]) -> None:
        began = time.perf_counter()
        connection = self._connection
        gathered: list[list[Row]] = [[] for _ in self._statements]
        for unit in batch:
            for index, rows in unit.rows:
                gathered[index].extend(rows)
        with transaction(connection):
            for index, rows in enumerate(gathered):
                if rows:
                    complete = self._complete.get(index)
                    connection.executemany(self._statements[index], rows if complete is None else map(complete, rows))
            for unit in batch:
                if unit.work is not None:
                    unit.result = unit.work(connection)
            if self._summary is not None:
                self._summary(connection, [*gathered, [row for unit in batch for row in unit.more]])
        metrics.SPOOL_COMMIT_SECONDS.observe(time.perf_counter() - began)
        metrics.SPOOL_COMMIT_UNITS.observe(len(batch))

    def _not_written(self, batch: Sequence[Unit], error: Exception) -> None:
        fault = fault_of(error)
        if fault is not Fault.UNIT:
            metrics.SPOOL_COMMIT_FAILURES.inc()
        if fault is Fault.DISK:
            self._become(Condition.BROKEN, str(error))
            self._write(batch)  # which answers them all
        elif fault is Fault.SPACE and self.condition is not Condition.FULL:
            self._room.give_reserve()
            self._become(Condition.FULL, str(error))
            self._write(batch)
        elif fault is Fault.SPACE:
            self._to_reactor(self._failed, batch, NotStored(_REFUSED[Condition.FULL]))
        elif len(batch) > 1:
            for unit in batch:
                self._write([unit])
        else:
            if fault is Fault.DAMAGE:
                self._to_reactor(self._changed, None, str(error))
            self._to_reactor(self._failed, batch, error)

    # -- the condition

    def _become(self, condition: Condition, why: str) -> None:
        if condition is not self.condition:
            self.condition = condition
            self._to_reactor(self._changed, condition, why)

    def _watch(self) -> None:
        """Now and then, see whether there is room, and whether a broken disk is whole again."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            if self.condition is Condition.BROKEN:
                self._reopen()
            enough = self._room.look(_free_inside(self._connection))
            if enough:
                self._become(Condition.WORKING, f"{self._room.free} octets are free")
                self._room.keep_reserve()
            elif self.condition is not Condition.FULL:
                self._become(Condition.LOW, f"{self._room.free} octets are free, the floor is {self._room.floor} ([limits] free_space)")
        except (OSError, sqlite3.Error) as error:
            self._become(Condition.BROKEN, str(error))

    def _give_back(self) -> None:
        """Give free space back to the disk, between two commits."""
        if self.condition is Condition.WORKING:
            try:
                self._shrinking.take_turn(lambda: not self._queue.empty())
            except sqlite3.Error as error:
                self._become(Condition.BROKEN, str(error))

    def _reopen(self) -> None:
        """A new connection, which knows only what the files say, and a commit of its own that is synced; raises sqlite3.Error."""
        self._connection.close()
        self._connection = connection = connect(self._path, writable=True)
        self._shrinking = Shrinking(connection)
        self._check(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        with transaction(connection):
            connection.execute(f"PRAGMA user_version = {version}")

    def _check(self, connection: sqlite3.Connection) -> None:
        """Look for damage within a bound of time. What is found is told; the rest of the spool is of use all the same."""
        end = time.monotonic() + CHECK_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
        else:
            if found != "ok":
                self._to_reactor(self._changed, None, f"the check of the database says: {found}")
        finally:
            connection.set_progress_handler(None, 0)


def _free_inside(connection: sqlite3.Connection) -> int:
    pages: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    size: int = connection.execute("PRAGMA page_size").fetchone()[0]
    return pages * size


_REFUSED = {
    Condition.LOW: "the spool's file system has less free than [limits] free_space",
    Condition.FULL: "the spool's file system is full",
    Condition.BROKEN: "the spool's disk failed; it is tried again every second",
}
