"""The events outbox of a running spool: reading on, how far each sink is, and forgetting."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from lettermta.event import Event
from lettermta.spool import changes, daily, queries, salvage
from lettermta.spool.statements import CURSOR
from lettermta.spool.writer import Unit

TRIM_ROWS = 5_000
"""Events that one commit forgets at the most."""


class Outbox:
    """This part of ISpool. ``read`` asks a reader, ``put`` queues a unit of work, ``damaged`` notes what can't be read."""

    def __init__(self, read: Callable[..., Deferred[Any]], put: Callable[[Unit], Deferred[Any]], damaged: Callable[[str], None]) -> None:
        self._read = read
        self._put = put
        self._damaged = damaged

    def events(self, after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._read(salvage.events, after, limit).addCallback(self._events_found)

    def _events_found(self, found: tuple[Sequence[tuple[int, Event]], Sequence[int]]) -> Sequence[tuple[int, Event]]:
        events, missed = found
        if missed:
            self._damaged(f"{len(missed)} events can't be read and are told to nobody: numbers {missed[0]} to {missed[-1]}")
        return events

    def cursor(self, sink: str) -> Deferred[int]:
        """See ISpool."""
        return self._read(queries.cursor, sink)

    def advance(self, sink: str, sequence: int) -> Deferred[None]:
        """See ISpool."""
        return self._put(Unit(rows=((CURSOR, ((sink, sequence),)),)))

    def retire(self, sinks: Sequence[str]) -> Deferred[Sequence[str]]:
        """See ISpool."""

        def work(connection: sqlite3.Connection) -> Sequence[str]:
            known = [sink for (sink,) in connection.execute("SELECT sink FROM cursor")]
            gone = [sink for sink in known if sink not in sinks]
            connection.executemany("DELETE FROM cursor WHERE sink = ?", [(sink,) for sink in gone])
            return gone

        return self._put(Unit(rows=(), work=work))

    def trim(self, before: float) -> Deferred[int]:
        """See ISpool: at most :data:`TRIM_ROWS` of them a call, so that no commit takes long. The last event of all is kept: its number
        tells the next start where to go on.
        """

        def work(connection: sqlite3.Connection) -> int:
            bound = connection.execute(
                "SELECT MIN((SELECT MAX(sequence) FROM event) - 1, COALESCE((SELECT MIN(sequence) FROM cursor), 9223372036854775807))"
            ).fetchone()[0]
            # In the order of the outbox up to the first that is to stay, so that what stays is not read each time.
            old = 0
            count = 0
            for sequence, moment in connection.execute(
                "SELECT sequence, created FROM event WHERE sequence <= ? ORDER BY sequence LIMIT ?", (bound, TRIM_ROWS)
            ):
                if moment >= before:
                    break
                old, count = sequence, count + 1
            connection.execute("DELETE FROM event WHERE sequence <= ?", (old,))
            daily.forget(connection, time.time())
            return count + changes.trim_attempts(connection, before, TRIM_ROWS)

        return self._put(Unit(rows=(), work=work))
