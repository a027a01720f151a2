"""Reading the spool: what the scheduler, the events' readers and the queue tools ask for.

Plain functions on a connection, so that the daemon runs them in its reading thread and ``lettermta-queue`` runs the same ones while the
daemon is down. Client's octets are bound as parameters, never part of a statement.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from attrs import frozen

from lettermta.event import Event
from lettermta.message import HIGHEST, OPEN, WAITING, Lane, QueuedRecipient, QueueEntry, State
from lettermta.spool.filters import conditions
from lettermta.spool.options import decode_options, decode_recipient

_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))
_OPEN = ",".join(f"'{state}'" for state in sorted(OPEN))

DUE_COLUMNS = """m.number, m.id, m.project, m.route, m.sender, m.size, m.created, m.expires, m.facts, m.context, m.options,
       r.number, r.address, r.attempts, r.handed_over, r.options, r.first_deferred, r.warned, r.due"""

_DUE = f"""
SELECT {DUE_COLUMNS}
FROM recipient r JOIN message m ON m.number = r.message
WHERE r.route_id = ? AND r.domain = ? AND r.priority = ? AND r.state IN ({_WAITING}) AND r.due <= ?
ORDER BY r.due, r.number LIMIT ?
"""

_LANE = f"FROM recipient WHERE route_id = ? AND domain = ? AND state IN ({_WAITING})"
_LANES = f"SELECT route_id, domain, MIN(due) FROM recipient WHERE state IN ({_WAITING}) GROUP BY route_id, domain"
_NEXT_DUE = f"SELECT MIN(due) {_LANE} AND priority = ? AND due > ?"
_NEXT_PRIORITY = f"SELECT MAX(priority) {_LANE} AND priority < ?"

_LIST = """
SELECT r.number, m.id, r.state, m.sender, r.address AS recipient, m.project, m.route, m.tag, m.metadata, m.size, m.created, r.due,
       r.attempts, r.reply AS last_reply, r.route_id, r.domain
FROM recipient r JOIN message m ON m.number = r.message
WHERE r.number > ?{conditions}
ORDER BY r.number LIMIT ?
"""


@frozen
class Figures:
    """How many recipients are in each state and in none that is known, how many messages, and when the first of them was accepted."""

    states: Mapping[State, int]
    unknown: int
    messages: int
    oldest: float | None


def due(connection: sqlite3.Connection, lane: Lane, now: float, limit: int) -> Sequence[QueueEntry]:
    """See ISpool.due; raises what a record that makes no sense comes to."""
    rows: list[Any] = []
    for priority in priorities(connection, lane):
        rows += connection.execute(_DUE, (lane.route_id, lane.domain, priority, now, limit - len(rows)))
        if len(rows) >= limit:
            break
    return entries_of((lane, row) for row in rows)


def priorities(connection: sqlite3.Connection, lane: Lane) -> Iterator[int]:
    """The priorities that a lane's waiting recipients have, the highest first: a step in the index each, however many have one."""
    below = HIGHEST + 1
    while (found := connection.execute(_NEXT_PRIORITY, (lane.route_id, lane.domain, below)).fetchone()[0]) is not None:
        yield found
        below = found


def entries_of(rows: Iterable[tuple[Lane, Sequence[Any]]]) -> list[QueueEntry]:
    """The entries of rows as :data:`DUE_COLUMNS` has them, grouped by message and lane."""
    entries: dict[tuple[int, Lane], QueueEntry] = {}
    for lane, row in rows:
        entry = entries.get((row[0], lane))
        if entry is None:
            number, identifier, project, route, sender, size, created, expires, facts, context, options = row[:11]
            # They become part of each event: what is no JSON would make every event of the message unreadable.
            orjson.loads(facts)
            orjson.loads(context)
            entry = entries[row[0], lane] = QueueEntry(
                number, identifier, lane, project, route, sender, size, created, expires, facts, context, [], decode_options(options),
                since=row[18],
            )  # fmt: skip
        entry.recipients.append(
            QueuedRecipient(row[11], row[12], row[13], bool(row[14]), *decode_recipient(row[15]), row[16], bool(row[17]))
        )
    return list(entries.values())


def entries(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> tuple[Sequence[QueueEntry], int | None]:
    """See ISpool.entries; raises what a record that makes no sense comes to, and KeyError for a filter that does not exist."""
    where, values = conditions(filters)
    statement = (
        f"SELECT {DUE_COLUMNS}, r.route_id, r.domain FROM recipient r JOIN message m ON m.number = r.message"
        f" WHERE r.number > ? AND r.state IN ({_OPEN}){where} ORDER BY r.number LIMIT ?"
    )
    rows = connection.execute(statement, [after, *values, limit]).fetchall()
    last = rows[-1][11] if len(rows) >= limit else None
    return entries_of((Lane(row[19], row[20]), row) for row in rows), last


def lanes(connection: sqlite3.Connection) -> Sequence[tuple[Lane, float]]:
    """See ISpool.lanes."""
    return [(Lane(route_id, domain), due) for route_id, domain, due in connection.execute(_LANES)]


def next_due(connection: sqlite3.Connection, lane: Lane, after: float) -> float | None:
    """See ISpool.next_due."""
    firsts = [
        connection.execute(_NEXT_DUE, (lane.route_id, lane.domain, priority, after)).fetchone()[0]
        for priority in priorities(connection, lane)
    ]
    return min((due for due in firsts if due is not None), default=None)


Parse = Callable[[str | bytes], Any]
"""Makes of JSON what it says."""


def recipients(
    connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int, parse: Parse = orjson.loads
) -> Sequence[Mapping[str, Any]]:
    """See ISpool.query. Raises KeyError for a filter that does not exist."""
    where, values = conditions(filters)
    cursor = connection.execute(_LIST.format(conditions=where), [after, *values, limit])
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    for row in rows:
        row["metadata"] = parse(row["metadata"])
    return rows


def message(connection: sqlite3.Connection, identifier: str, parse: Parse = orjson.loads) -> Mapping[str, Any] | None:
    """See ISpool.message: the message's own columns, its header block, its recipients and its events."""
    cursor = connection.execute(
        "SELECT m.number, m.id, m.project, m.route, m.sender, m.tag, m.metadata, m.size, m.created, m.expires, m.options, c.head"
        " FROM message m LEFT JOIN content c ON c.number = m.number WHERE m.id = ?",
        (identifier,),
    )
    row = cursor.fetchone()
    told = [
        {"event": name, "timestamp": created, "document": parse(payload)}
        for name, created, payload in connection.execute(
            "SELECT name, created, payload FROM event WHERE message_id = ? ORDER BY sequence", (identifier,)
        )
    ]
    if row is None:
        return {"id": identifier, "recipients": [], "events": told} if told else None
    shown = dict(zip([column[0] for column in cursor.description], row, strict=True))
    number = shown.pop("number")
    shown["metadata"] = parse(shown["metadata"])
    shown["options"] = parse(shown["options"] or "{}")
    shown["headers"] = (shown.pop("head") or b"").decode("utf-8", "replace").split("\r\n")[:-1]
    shown["recipients"] = [
        {
            "recipient": address,
            "state": state,
            "due": due,
            "attempts": attempts,
            "last_reply": reply,
            "route_id": route_id,
            "domain": domain,
        }
        for address, state, due, attempts, reply, route_id, domain in connection.execute(
            "SELECT address, state, due, attempts, reply, route_id, domain FROM recipient WHERE message = ? ORDER BY number", (number,)
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


def trace(connection: sqlite3.Connection, identifier: str) -> Sequence[Mapping[str, Any]]:
    """See ISpool.trace."""
    cursor = connection.execute(
        "SELECT address AS recipient, attempt, at, seconds, via, state, reply, details FROM attempt WHERE message_id = ?"
        " ORDER BY at, recipient, attempt",
        (identifier,),
    )
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    for row in rows:
        row.update(orjson.loads(row.pop("details")))
    return rows


def cursor(connection: sqlite3.Connection, sink: str) -> int:
    """See ISpool.cursor."""
    row = connection.execute("SELECT sequence FROM cursor WHERE sink = ?", (sink,)).fetchone()
    return 0 if row is None else int(row[0])


def content(connection: sqlite3.Connection, number: int) -> tuple[bytes, bytes | None, str | None, int, int | None] | None:
    """Head, body, file name, format and checksum of a message's content, or None."""
    row: tuple[bytes, bytes | None, str | None, int, int | None] | None = connection.execute(
        "SELECT head, body, file, format, checksum FROM content WHERE number = ?", (number,)
    ).fetchone()
    return row


def figures(connection: sqlite3.Connection) -> Figures:
    """How much there is; reads every recipient's row once (some 0.3 s for a million)."""
    known = sorted(set(State))
    columns = ", ".join(f"TOTAL(state = '{state}')" for state in known)
    row = connection.execute(f"SELECT COUNT(*), {columns} FROM recipient").fetchone()
    states = {state: int(count) for state, count in zip(known, row[1:], strict=True)}
    oldest = connection.execute("SELECT created FROM message ORDER BY number LIMIT 1").fetchone()
    messages = connection.execute("SELECT COUNT(*) FROM message").fetchone()[0]
    return Figures(states, row[0] - sum(states.values()), messages, None if oldest is None else oldest[0])


def recall(connection: sqlite3.Connection, project_id: str, key: str, now: float) -> tuple[bytes, str] | None:
    """See ISpool.recall."""
    row: tuple[bytes, str] | None = connection.execute(
        "SELECT digest, message_id FROM idempotency WHERE project_id = ? AND key = ? AND expires > ?", (project_id, key, now)
    ).fetchone()
    return row
