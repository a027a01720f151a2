"""Reading the spool: what the scheduler, the events' readers and the queue tools ask for.

Plain functions on a connection, so that the daemon runs them in its reading thread and ``lettermta-queue`` runs the same ones while the
daemon is down. Client's octets are bound as parameters, never part of a statement.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lettermta.event import Event
from lettermta.message import OPEN, WAITING, Lane, QueuedRecipient, QueueEntry
from lettermta.spool.filters import conditions
from lettermta.spool.options import decode_options, decode_recipient

_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))
_OPEN = ",".join(f"'{state}'" for state in sorted(OPEN))

_ENTRY = """
SELECT m.number, m.id, m.project, m.route, m.sender, m.size, m.created, m.expires, m.facts, m.context, m.options,
       r.number, r.address, r.attempts, r.handed_over, r.options
"""

_DUE = f"""{_ENTRY}
FROM recipient r JOIN message m ON m.number = r.message
WHERE r.route_id = ? AND r.domain = ? AND r.state IN ({_WAITING}) AND r.due <= ?
ORDER BY r.due, r.number LIMIT ?
"""

_LANES = f"SELECT route_id, domain, MIN(due) FROM recipient WHERE state IN ({_WAITING}) GROUP BY route_id, domain"
_NEXT_DUE = f"SELECT MIN(due) FROM recipient WHERE route_id = ? AND domain = ? AND state IN ({_WAITING})"

_LIST = """
SELECT r.number, m.id, r.state, m.sender, r.address AS recipient, m.project, m.route, m.tag, m.metadata, m.size, m.created, r.due,
       r.attempts, r.reply AS last_reply
FROM recipient r JOIN message m ON m.number = r.message
WHERE r.number > ?{conditions}
ORDER BY r.number LIMIT ?
"""


def due(connection: sqlite3.Connection, lane: Lane, now: float, limit: int) -> Sequence[QueueEntry]:
    """See ISpool.due."""
    return _entries((lane, row) for row in connection.execute(_DUE, (lane.route_id, lane.domain, now, limit)))


def _entries(rows: Iterable[tuple[Lane, tuple[Any, ...]]]) -> list[QueueEntry]:
    """Rows of _ENTRY grouped by message and lane."""
    entries: dict[tuple[int, Lane], QueueEntry] = {}
    for lane, row in rows:
        entry = entries.get((row[0], lane))
        if entry is None:
            number, identifier, project, route, sender, size, created, expires, facts, context, options = row[:11]
            entry = entries[row[0], lane] = QueueEntry(
                number, identifier, lane, project, route, sender, size, created, expires, facts, context, [], decode_options(options)
            )
        entry.recipients.append(QueuedRecipient(row[11], row[12], row[13], bool(row[14]), *decode_recipient(row[15])))
    return list(entries.values())


def entries(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> tuple[Sequence[QueueEntry], int | None]:
    """See ISpool.entries. Raises KeyError for a filter that does not exist."""
    where, values = conditions(filters)
    statement = (
        f"{_ENTRY}, r.route_id, r.domain FROM recipient r JOIN message m ON m.number = r.message"
        f" WHERE r.number > ? AND r.state IN ({_OPEN}){where} ORDER BY r.number LIMIT ?"
    )
    rows = connection.execute(statement, [after, *values, limit]).fetchall()
    last = rows[-1][11] if len(rows) >= limit else None
    return _entries((Lane(row[16], row[17]), row) for row in rows), last


def lanes(connection: sqlite3.Connection) -> Sequence[tuple[Lane, float]]:
    """See ISpool.lanes."""
    return [(Lane(route_id, domain), due) for route_id, domain, due in connection.execute(_LANES)]


def next_due(connection: sqlite3.Connection, lane: Lane) -> float | None:
    """See ISpool.next_due."""
    result: float | None = connection.execute(_NEXT_DUE, (lane.route_id, lane.domain)).fetchone()[0]
    return result


def recipients(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[Mapping[str, Any]]:
    """See ISpool.query. Raises KeyError for a filter that does not exist."""
    where, values = conditions(filters)
    cursor = connection.execute(_LIST.format(conditions=where), [after, *values, limit])
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    for row in rows:
        row["metadata"] = json.loads(row["metadata"])
    return rows


def message(connection: sqlite3.Connection, identifier: str) -> Mapping[str, Any] | None:
    """See ISpool.message: the message's own columns, its header block, its recipients and its events."""
    cursor = connection.execute(
        "SELECT m.number, m.id, m.project, m.route, m.sender, m.tag, m.metadata, m.size, m.created, m.expires, c.head"
        " FROM message m LEFT JOIN content c ON c.number = m.number WHERE m.id = ?",
        (identifier,),
    )
    row = cursor.fetchone()
    told = [
        {"event": name, "timestamp": created, "document": json.loads(payload)}
        for name, created, payload in connection.execute(
            "SELECT name, created, payload FROM event WHERE message_id = ? ORDER BY sequence", (identifier,)
        )
    ]
    if row is None:
        return {"id": identifier, "recipients": [], "events": told} if told else None
    shown = dict(zip([column[0] for column in cursor.description], row, strict=True))
    number = shown.pop("number")
    shown["metadata"] = json.loads(shown["metadata"])
    shown["headers"] = (shown.pop("head") or b"").decode("utf-8", "replace").split("\r\n")[:-1]
    shown["recipients"] = [
        {"recipient": address, "state": state, "due": due, "attempts": attempts, "last_reply": reply}
        for address, state, due, attempts, reply in connection.execute(
            "SELECT address, state, due, attempts, reply FROM recipient WHERE message = ? ORDER BY number", (number,)
        )
    ]
    shown["events"] = told
    return shown


def events(connection: sqlite3.Connection, after: int, limit: int) -> Sequence[tuple[int, Event]]:
    """See ISpool.events."""
    return [
        (sequence, Event(identifier, name, message_id, created, payload))
        for sequence, identifier, name, message_id, created, payload in connection.execute(
            "SELECT sequence, id, name, message_id, created, payload FROM event WHERE sequence > ? ORDER BY sequence LIMIT ?",
            (after, limit),
        )
    ]


_EVENT_CONDITIONS: Mapping[str, str] = {
    "id": "message_id = ?",
    "event": "name = ?",
    "since": "created >= ?",
    "project": "json_extract(CAST(payload AS TEXT), '$.context.project') = ?",
    "route": "json_extract(CAST(payload AS TEXT), '$.context.route') = ?",
    "tag": "json_extract(CAST(payload AS TEXT), '$.data.tag') = ?",
    "recipient": "json_extract(CAST(payload AS TEXT), '$.data.recipient') = ? COLLATE NOCASE",
}


def find_events(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[tuple[int, Event]]:
    """See ISpool.find_events. Raises KeyError for a filter that does not exist."""
    where = "".join(f" AND {_EVENT_CONDITIONS[name]}" for name in filters)
    statement = f"SELECT sequence, id, name, message_id, created, payload FROM event WHERE sequence > ?{where} ORDER BY sequence LIMIT ?"
    return [(row[0], Event(*row[1:])) for row in connection.execute(statement, [after, *filters.values(), limit])]


def trace(connection: sqlite3.Connection, identifier: str) -> Sequence[Mapping[str, Any]]:
    """See ISpool.trace."""
    cursor = connection.execute(
        "SELECT address AS recipient, attempt, at, seconds, via, state, reply FROM attempt WHERE message_id = ?"
        " ORDER BY at, recipient, attempt",
        (identifier,),
    )
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def cursor(connection: sqlite3.Connection, sink: str) -> int:
    """See ISpool.cursor."""
    row = connection.execute("SELECT sequence FROM cursor WHERE sink = ?", (sink,)).fetchone()
    return 0 if row is None else int(row[0])


def content(connection: sqlite3.Connection, number: int) -> tuple[bytes, bytes | None, str | None] | None:
    """Head, body and file name of a message's content, or None."""
    row: tuple[bytes, bytes | None, str | None] | None = connection.execute(
        "SELECT head, body, file FROM content WHERE number = ?", (number,)
    ).fetchone()
    return row


def recall(connection: sqlite3.Connection, project_id: str, key: str, now: float) -> tuple[bytes, str] | None:
    """See ISpool.recall."""
    row: tuple[bytes, str] | None = connection.execute(
        "SELECT digest, message_id FROM idempotency WHERE project_id = ? AND key = ? AND expires > ?", (project_id, key, now)
    ).fetchone()
    return row
