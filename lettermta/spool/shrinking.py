"""Giving disk space back: what messages that have left took becomes free pages inside the database, and those go back to the disk.

Promise: a queue that drains leaves a database of about the size of what is still in it, while some free pages are kept for
the mail to come, as growing a file anew costs more than filling it. It is done in steps of some milliseconds between two commits, so
nobody's mail is late for it; what a crash interrupts is simply still to do.

It has to keep up with a draining queue: SQLite looks for a page at the end of the file by reading its list of free pages from the front, so
a step costs the more the longer that list has become (a million free pages: half a second).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

KEPT_OCTETS = 33_554_432
"""Free octets inside the database that are always kept."""
KEPT_SHARE = 4
"""Likewise one part in so many of the database,"""
MOST_KEPT_OCTETS = 268_435_456
"""but no more than that."""
STEP_PAGES = 256
"""Pages that one step gives back at the most: 2 MB."""
STEP_SECONDS = 0.02
"""How long a step should take: the next one has half as many pages if it took longer."""
SHARE = 8
"""One part in so many of the time is spent on it while mail waits to be written."""
IDLE_SECONDS = 1.0
"""How often it is looked whether there is anything to give back."""
LARGEST_LOG = 67_108_864
"""Octets to which the write-ahead log is cut back once it has been copied into the database."""


def limit_log(connection: sqlite3.Connection) -> None:
    """Have the write-ahead log shrink again after a burst; it would keep its largest size for ever."""
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")


class Shrinking:
    """Gives back what ``connection`` finds free."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._pages = STEP_PAGES
        self._look = 0.0
        """Before then there is nothing to give back."""
        self._turn = 0.0
        """Before then it is the turn of what waits."""

    def take_turn(self, waits: Callable[[], bool]) -> None:
        """Give back all there is while nothing ``waits``; while something does, one step, if the last one was long enough ago.

        Raises sqlite3.Error, and what was not given back is still to do.
        """
        now = time.monotonic()
        if now < self._look or (now < self._turn and waits()):
            return
        while self._step() and not waits():
            pass

    def _step(self) -> bool:
        began = time.monotonic()
        more = shrink(self._connection, self._pages)
        ended = time.monotonic()
        if not more:
            self._look = ended + IDLE_SECONDS
            return False
        took = ended - began
        self._turn = ended + took * (SHARE - 1)
        self._pages = max(self._pages // 2, 1) if took > STEP_SECONDS else min(self._pages * 2, STEP_PAGES)
        return True


def shrink(connection: sqlite3.Connection, pages: int = STEP_PAGES) -> bool:
    """One step: give some of what is free back to the disk, if it is more than is to be kept; tells whether there is more to give.

    A commit of its own. Raises sqlite3.Error, and nothing has changed.
    """
    surplus = _surplus(connection)
    if surplus <= 0:
        return False
    # It gives back a page for each row of a result without columns, of which execute() would read the first one alone.
    connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, pages)})")
    left = _surplus(connection)
    if left <= 0:
        # Only what has been copied out of the log makes the file shorter.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return 0 < left < surplus


def _surplus(connection: sqlite3.Connection) -> int:
    """Free pages beyond those that are kept."""
    size = _ask(connection, "page_size")
    kept = max(KEPT_OCTETS, min(_ask(connection, "page_count") * size // KEPT_SHARE, MOST_KEPT_OCTETS))
    return _ask(connection, "freelist_count") - kept // size


def _ask(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
