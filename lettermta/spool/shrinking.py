"""Giving disk space back: what messages that have left took becomes free pages inside the database, and those go back to the disk.

Promise: a queue that has drained leaves a database of about the size of what is still in it, while some free pages are kept for
the mail to come, as growing a file anew costs more than filling it. It is done in steps of some milliseconds between two commits, so
nobody's mail is late for it; what a crash interrupts is simply still to do.
"""

from __future__ import annotations

import sqlite3

KEPT_OCTETS = 33_554_432
"""Free octets inside the database that are always kept."""
KEPT_SHARE = 4
"""Likewise one part in so many of the database."""
STEP_PAGES = 256
"""Pages that one step gives back: 2 MB, some 15 milliseconds."""
LARGEST_LOG = 67_108_864
"""Octets to which the write-ahead log is cut back once it has been copied into the database."""


def limit_log(connection: sqlite3.Connection) -> None:
    """Have the write-ahead log shrink again after a burst; it would keep its largest size for ever."""
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")


def shrink(connection: sqlite3.Connection) -> bool:
    """One step: give some of what is free back to the disk, if it is more than is to be kept; tells whether there is more to give.

    A commit of its own. Raises sqlite3.Error, and nothing has changed.
    """
    surplus = _surplus(connection)
    if surplus <= 0:
        return False
    # It gives back a page for each row of a result without columns, of which execute() would read the first one alone.
    connection.executescript(f"PRAGMA incremental_vacuum({min(surplus, STEP_PAGES)})")
    left = _surplus(connection)
    if left <= 0:
        # Only what has been copied out of the log makes the file shorter.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return 0 < left < surplus


def _surplus(connection: sqlite3.Connection) -> int:
    """Free pages beyond those that are kept."""
    kept = max(KEPT_OCTETS // _ask(connection, "page_size"), _ask(connection, "page_count") // KEPT_SHARE)
    return _ask(connection, "freelist_count") - kept


def _ask(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
