"""What every database of ours does the same way, whoever's it is: a transaction, and its schema brought up to date.

``PRAGMA user_version`` tells how many steps a database has had. The missing ones are taken in order and in one transaction, so it is
always of one version, also behind a crash. A database that has had more steps than we know was written by a later version: it is refused
rather than guessed at, and nothing in it is changed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Step = Sequence[str]
"""The statements that lead from one version to the next."""


class NewerDatabase(Exception):
    """The database has had more steps than we know: ``version`` of them."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the database has version {version}")
        self.version = version


def statements(script: str) -> Step:
    """The statements of a script that has no semicolon but behind each of them."""
    return [statement for statement in script.split(";") if statement.strip()]


def version_of(connection: sqlite3.Connection, known: int) -> int:
    """How many steps the database has had; raises NewerDatabase when they are more than the ``known`` ones."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > known:
        raise NewerDatabase(version)
    return version


def migrate(connection: sqlite3.Connection, steps: Sequence[Step], made: Callable[[], None] | None = None) -> None:
    """Take the steps that the database has not had; ``made`` does, in the same transaction, what only a new one needs.

    Raises NewerDatabase, sqlite3.Error, and what ``made`` raises; the database is as it was then.
    """
    with transaction(connection):
        version = version_of(connection, len(steps))
        for step in steps[version:]:
            for statement in step:
                connection.execute(statement)
        if version == 0 and made is not None:
            made()
        connection.execute(f"PRAGMA user_version = {len(steps)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes: committed at the end, rolled back when something is raised. The connection is in autocommit mode."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # some errors have rolled it back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other openings out: SQLite gives up at once, whatever its timeout, when two turn a database to WAL at the same moment."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
