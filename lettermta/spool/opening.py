"""What is done to a spool's files before it is used: the schema brought up to date, the highest numbers found, orphans removed.

A database of which some pages are damaged is opened, and everything that can be read is served. One of which nothing can be read is
refused with SpoolDamaged and left alone: a new one in its place would take the names of the body files with it, and the next look for
orphans would remove what could still be saved.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from attrs import define, field
from twisted.logger import Logger

from lettermta.message import HoldRule
from lettermta.spool import changes
from lettermta.spool.content import BodyFiles
from lettermta.spool.damage import SpoolDamaged, is_damage
from lettermta.spool.schema import connect, migrate

_UNREADABLE = 1 << 40
"""Taken for the highest number where that can't be read; nothing new can be written there then, so none is given twice."""

_log = Logger()


@define
class Opened:
    """The highest numbers in use, the standing rules, and what was found to be damaged."""

    message: int = 0
    recipient: int = 0
    sequence: int = 0
    rule: int = 0
    rules: list[HoldRule] = field(factory=list)
    damage: list[str] = field(factory=list)


def open_database(path: Path, files: BodyFiles) -> Opened:
    """Make the database at ``path`` ready. Raises SpoolDamaged, SpoolVersionError, OSError or sqlite3.Error."""
    try:
        connection = connect(path, writable=True)
    except sqlite3.DatabaseError as error:
        raise _refusal(path, error) from error
    try:
        _migrate(connection, path)
        opened = Opened()
        opened.message = _highest(connection, "message", "number", opened)
        opened.recipient = _highest(connection, "recipient", "number", opened)
        # A sequence number is never used twice, or a sink's cursor would be past a new event.
        opened.sequence = max(_highest(connection, "event", "sequence", opened), _highest(connection, "cursor", "sequence", opened))
        _read_rules(connection, opened)
        _remove_orphans(connection, files, opened)
    finally:
        connection.close()
    path.chmod(0o600)
    return opened


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    try:
        migrate(connection)
    except sqlite3.DatabaseError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: sqlite3.DatabaseError) -> Exception:
    if not is_damage(error):
        return error
    return SpoolDamaged(
        f"nothing can be read from the spool's database {path}: {error}. It has been left as it is. "
        f"Restore it from a copy, or move the whole directory {path.parent} away, and a new spool is begun with nothing in the queue"
    )


def _highest(connection: sqlite3.Connection, table: str, column: str, opened: Opened) -> int:
    try:
        return connection.execute(f"SELECT MAX({column}) FROM {table}").fetchone()[0] or 0  # noqa: S608 - our own names
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        opened.damage.append(f"the end of the table {table} can't be read, so nothing can be added to it: {error}")
        return _UNREADABLE


def _read_rules(connection: sqlite3.Connection, opened: Opened) -> None:
    try:
        opened.rules, opened.rule = changes.hold_rules(connection), changes.next_rule(connection) - 1
    except (sqlite3.DatabaseError, ValueError) as error:
        if isinstance(error, sqlite3.DatabaseError) and not is_damage(error):
            raise
        opened.damage.append(f"the standing rules can't be read, so they hold nothing: {error}")
        opened.rule = _UNREADABLE


def _remove_orphans(connection: sqlite3.Connection, files: BodyFiles, opened: Opened) -> None:
    """A crash between the sync of a body file and the commit of its row leaves a file that no message has."""
    try:
        known = {name for (name,) in connection.execute("SELECT file FROM content WHERE file IS NOT NULL")}
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        opened.damage.append(f"the names of the body files can't be read, so no orphan is removed: {error}")
        return
    for name in files.names():
        if name not in known:
            _log.info("orphaned body file {name} removed", name=name)
            files.remove(name)
