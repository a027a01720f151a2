"""A look at the whole spool: every row decoded, every checksum compared, the database's own structure checked.

:func:`findings` reads only, on a connection of its own, while the daemon runs or is down; it streams, so a spool of a million messages
needs no more memory than one of ten. It reads every octet that is stored: 10 GB take minutes. What can't be read is a finding, and the look
goes on behind it. How far it is, it tells a function that is given.
"""

from __future__ import annotations

import enum
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
from attrs import frozen

from lettermta.message import FINAL, State
from lettermta.spool.checksum import check_body, check_file
from lettermta.spool.content import BodyFiles
from lettermta.spool.damage import Damaged, is_damage, undecodable
from lettermta.spool.options import decode_options, decode_recipient
from lettermta.spool.schema import connect

ORPHAN_AGE = 3600.0
"""A body file that no message has is a finding when it was not written to for so many seconds: it may be of a message that is coming in."""
_STRUCTURE = 100
"""Lines of the structure's check that are told."""


class Kind(enum.StrEnum):
    """What is wrong."""

    STRUCTURE = "structure"
    """The database's own: a page, an index."""
    CONTENT = "content"
    """A message's content is missing or not what was stored."""
    MESSAGE = "message"
    """A message's row makes no sense, or nobody waits for it."""
    RECIPIENT = "recipient"
    EVENT = "event"
    ORPHAN = "orphan"
    """A file or a content that belongs to no message. A file is removed by the next start."""


@frozen
class Finding:
    """One thing that is wrong: at the row or file ``where``, of the message ``id`` if that is known."""

    kind: Kind
    where: str
    text: str
    id: str | None = None


Progress = Callable[[str, int, float], object]
"""Told the table that is looked at, how many of its rows were, and the share of its numbers that are behind, from 0 to 1."""


def findings(directory: Path, progress: Progress = lambda table, rows, share: None) -> Iterator[Finding]:
    """Everything that is wrong with the spool in ``directory``. Raises sqlite3.Error when its database can't be opened."""
    connection = connect(directory / "spool.db", writable=False)
    try:
        files = BodyFiles(directory / "body")
        progress("spool.db", 0, 0.0)
        yield from _structure(connection)
        yield from _messages(connection, progress)
        yield from _contents(connection, files, progress)
        yield from _recipients(connection, progress)
        yield from _events(connection, progress)
        yield from _orphans(connection, files)
    finally:
        connection.close()


def _structure(connection: sqlite3.Connection) -> Iterator[Finding]:
    try:
        for (line,) in connection.execute(f"PRAGMA integrity_check({_STRUCTURE})"):
            if line != "ok":
                yield Finding(Kind.STRUCTURE, "spool.db", line)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        yield Finding(Kind.STRUCTURE, "spool.db", str(error))


def _numbers(connection: sqlite3.Connection, progress: Progress, table: str, column: str = "number") -> Iterator[int | Finding]:
    """The numbers of a table's rows, in pages, each followed from behind the last; where a page can't be read, it is left out and told."""
    after, last, rows = 0, 0, 0
    try:
        last = connection.execute(f"SELECT MAX({column}) FROM {table}").fetchone()[0] or 0  # noqa: S608 - our own names
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        yield Finding(Kind.STRUCTURE, f"table {table}", f"its end can't be read: {error}")
    query = f"SELECT {column} FROM {table} WHERE {column} > ? ORDER BY {column} LIMIT 1000"  # noqa: S608
    missed = 0
    while True:
        try:
            page = [number for (number,) in connection.execute(query, (after,))]
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            if not missed:
                yield Finding(Kind.STRUCTURE, f"table {table}", f"rows behind number {after} can't be read: {error}")
            after, missed = after + max(missed, 1), max(missed * 2, 1)
            if after > last:
                return
            continue
        missed = 0
        if not page:
            return
        yield from page
        after, rows = page[-1], rows + len(page)
        progress(table, rows, after / last)


def _each(
    connection: sqlite3.Connection, progress: Progress, table: str, kind: Kind, query: str, column: str = "number"
) -> Iterator[Finding | sqlite3.Row]:
    """A table's rows by ``query``, one at a time; what can't be read or decoded is a finding in its place."""
    for number in _numbers(connection, progress, table, column):
        if isinstance(number, Finding):
            yield number
            continue
        cursor = connection.cursor()
        cursor.row_factory = sqlite3.Row
        try:
            row = cursor.execute(query, (number,)).fetchone()
        except sqlite3.Error as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            yield Finding(kind, f"{table} {number}", f"can't be read: {error}")
        else:
            if row is not None:  # else it is gone since
                yield row


def _messages(connection: sqlite3.Connection, progress: Progress) -> Iterator[Finding]:
    query = """SELECT m.*, EXISTS (SELECT 1 FROM content WHERE number = m.number) AS has_content,
               EXISTS (SELECT 1 FROM recipient WHERE message = m.number) AS has_recipients FROM message m WHERE m.number = ?"""
    for row in _each(connection, progress, "message", Kind.MESSAGE, query):
        if isinstance(row, Finding):
            yield row
            continue
        where = f"message {row['number']}"
        try:
            decode_options(row["options"])
            for name in ("metadata", "facts", "context"):
                if not isinstance(orjson.loads(row[name]), dict):
                    raise ValueError(name)
        except Exception as error:
            yield Finding(Kind.MESSAGE, where, f"makes no sense ({type(error).__name__})", row["id"])
        if not row["has_content"]:
            yield Finding(Kind.CONTENT, where, "has no content", row["id"])
        if not row["has_recipients"]:
            yield Finding(Kind.MESSAGE, where, "has no recipients", row["id"])


def _contents(connection: sqlite3.Connection, files: BodyFiles, progress: Progress) -> Iterator[Finding]:
    query = "SELECT c.*, m.id, m.size FROM content c LEFT JOIN message m ON m.number = c.number WHERE c.number = ?"
    for row in _each(connection, progress, "content", Kind.CONTENT, query):
        if isinstance(row, Finding):
            yield row
            continue
        where = f"content {row['number']}"
        if row["id"] is None:
            yield Finding(Kind.ORPHAN, where, "belongs to no message")
            continue
        try:
            if row["body"] is not None:
                check_body(row["head"], row["body"], row["format"], row["checksum"])
            elif row["file"] is None:
                yield Finding(Kind.CONTENT, where, "has no body", row["id"])
            else:
                path = files.path(row["file"])
                check_file(row["head"], path, row["size"] - len(row["head"]) - 2, row["format"], row["checksum"])
        except (Damaged, OSError, TypeError) as error:
            # A message that was finished meanwhile has taken its file along.
            if connection.execute("SELECT 1 FROM content WHERE number = ?", (row["number"],)).fetchone():
                yield Finding(Kind.CONTENT, where, str(error), row["id"])


def _recipients(connection: sqlite3.Connection, progress: Progress) -> Iterator[Finding]:
    states = set(map(str, State))
    query = "SELECT r.*, m.id FROM recipient r LEFT JOIN message m ON m.number = r.message WHERE r.number = ?"
    for row in _each(connection, progress, "recipient", Kind.RECIPIENT, query):
        if isinstance(row, Finding):
            yield row
            continue
        where = f"recipient {row['number']}"
        if row["state"] not in states:
            yield Finding(Kind.RECIPIENT, where, "its state is unknown", row["id"])
        elif row["id"] is None and row["state"] not in FINAL:
            yield Finding(Kind.RECIPIENT, where, "its message is missing")
        try:
            decode_recipient(row["options"])
        except Exception as error:
            yield Finding(Kind.RECIPIENT, where, f"makes no sense ({type(error).__name__})", row["id"])


def _events(connection: sqlite3.Connection, progress: Progress) -> Iterator[Finding]:
    for row in _each(connection, progress, "event", Kind.EVENT, "SELECT * FROM event WHERE sequence = ?", "sequence"):
        if isinstance(row, Finding):
            yield row
            continue
        try:
            orjson.loads(row["payload"])
        except ValueError:
            yield Finding(Kind.EVENT, f"event {row['sequence']}", "is no JSON", row["message_id"])


def _orphans(connection: sqlite3.Connection, files: BodyFiles) -> Iterator[Finding]:
    try:
        known = {name for (name,) in connection.execute("SELECT file FROM content WHERE file IS NOT NULL")}
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        yield Finding(Kind.STRUCTURE, "table content", f"the names of the body files can't be read: {error}")
        return
    for stray in files.strays():
        yield Finding(Kind.ORPHAN, f"file {stray}", "is not the spool's")
    for name in files.names():
        if name in known:
            continue
        try:
            age = time.time() - files.path(name).stat().st_mtime
        except FileNotFoundError:
            continue
        if age > ORPHAN_AGE:
            yield Finding(Kind.ORPHAN, f"body file {name}", "belongs to no message")
