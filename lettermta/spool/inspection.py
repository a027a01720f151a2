"""The whole spool checked: the database as SQLite sees it, rows that belong together, and the body files that they name.

Reads only, in short questions, so that it can run beside a daemon; what looks wrong is looked at again before it is told, as the daemon may
just have been at it. A body file that no row names is told only when it is older than :data:`SETTLED` seconds: a new message's file is
there before its row.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from lettermta.message import FINAL, State
from lettermta.spool.content import BodyFiles
from lettermta.spool.schema import connect

SETTLED = 600.0
PAGE = 1_000
"""Rows read at a time."""


@frozen
class Finding:
    """How far it is (``checked`` messages), or a fault: what is wrong, with which message or file, and the details."""

    checked: int = 0
    fault: str | None = None
    subject: str = ""
    detail: str = ""


def verify(directory: Path) -> Iterator[Finding]:
    """Check the spool in ``directory``; raises sqlite3.Error when the database can't be read at all."""
    connection = connect(directory / "spool.db", writable=False)
    files = BodyFiles(directory / "body")
    try:
        for (said,) in connection.execute("PRAGMA integrity_check(100)").fetchall():
            if said != "ok":
                yield Finding(fault="the database is damaged", detail=said)
        yield from _messages(connection, files)
        yield from _strays(connection)
        yield from _orphans(connection, files)
    finally:
        connection.close()


_CONTENT = """
SELECT m.number, m.id, m.size, length(c.head), length(c.body), c.file, c.number IS NOT NULL,
       EXISTS (SELECT 1 FROM recipient WHERE message = m.number)
FROM message m LEFT JOIN content c ON c.number = m.number
"""


def _messages(connection: sqlite3.Connection, files: BodyFiles) -> Iterator[Finding]:
    after = checked = 0
    while rows := connection.execute(f"{_CONTENT} WHERE m.number > ? ORDER BY m.number LIMIT ?", (after, PAGE)).fetchall():
        for row in rows:
            fault = _fault(row, files)
            if fault is not None:
                again = connection.execute(f"{_CONTENT} WHERE m.number = ?", (row[0],)).fetchone()
                fault = None if again is None else _fault(again, files)
            if fault is not None:
                yield Finding(fault=fault[0], subject=row[1], detail=fault[1])
        checked += len(rows)
        after = rows[-1][0]
        yield Finding(checked)


def _fault(row: tuple[int, str, int, int, int | None, str | None, int, int], files: BodyFiles) -> tuple[str, str] | None:
    _, _, size, head, body, file, has_content, has_recipients = row
    if not has_content:
        return "a message without content", ""
    if not has_recipients:
        return "a message without recipients", ""
    if file is None:
        found = body
    else:
        try:
            found = files.path(file).stat().st_size
        except FileNotFoundError:
            return "a body file is missing", file
    if found is None or head + 2 + found != size:
        where = "in the database" if file is None else file
        return "content of the wrong size", f"{where}: {head + 2 + (found or 0)} octets, not {size}"
    return None


def _strays(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Rows that nothing leads to."""
    for number, address in connection.execute(
        "SELECT number, address FROM recipient r WHERE NOT EXISTS (SELECT 1 FROM message WHERE number = r.message)"
    ).fetchall():
        yield Finding(fault="a recipient without a message", subject=str(number), detail=address)
    for (number,) in connection.execute(
        "SELECT number FROM content c WHERE NOT EXISTS (SELECT 1 FROM message WHERE number = c.number)"
    ).fetchall():
        yield Finding(fault="content without a message", subject=str(number))
    known = [str(state) for state in State]
    for (identifier,) in connection.execute(
        f"SELECT id FROM message m WHERE NOT EXISTS (SELECT 1 FROM recipient WHERE message = m.number AND state NOT IN ({_marks(FINAL)}))"
        " AND EXISTS (SELECT 1 FROM recipient WHERE message = m.number)",
        sorted(FINAL),
    ).fetchall():
        yield Finding(fault="a message that should have left", subject=identifier, detail="all of its recipients are finished")
    for number, state in connection.execute(f"SELECT number, state FROM recipient WHERE state NOT IN ({_marks(known)})", known).fetchall():
        yield Finding(fault="a recipient in a state that there is none of", subject=str(number), detail=state)


def _marks(values: frozenset[State] | list[str]) -> str:
    return ",".join("?" * len(values))


def _orphans(connection: sqlite3.Connection, files: BodyFiles) -> Iterator[Finding]:
    for name in files.names():
        if connection.execute("SELECT 1 FROM content WHERE file = ?", (name,)).fetchone() is not None:
            continue
        try:
            age = time.time() - files.path(name).stat().st_mtime
        except FileNotFoundError:
            continue
        if age > SETTLED:
            yield Finding(fault="a body file without a message", subject=name)
