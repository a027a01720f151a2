"""What operators do to recipients: hold, release, retry, reroute, remove; and the standing rules that hold new mail.

Plain functions on a connection: the daemon chooses in its reading thread and applies in its writer, ``lettermta-queue`` runs the same ones
while the daemon is down. Choosing may read a million rows and holds up nobody; applying touches no more rows than were chosen, and looks
again at the state of each, so that what the mail did meanwhile wins.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from attrs import define, field

from lettermta import event
from lettermta.event import Event
from lettermta.message import FINAL, OPEN, WAITING, Change, HoldRule, Lane, Operation, State, mark_of
from lettermta.spool.damage import undecodable
from lettermta.spool.filters import conditions
from lettermta.spool.salvage import as_far_as_possible, leniently

STATES: Mapping[Operation, frozenset[State]] = {
    Operation.HOLD: WAITING,
    Operation.RELEASE: frozenset({State.HELD}),
    Operation.RETRY: WAITING | {State.QUARANTINED},
    Operation.REROUTE: OPEN,
    Operation.REMOVE: OPEN,
}
"""The states that each operation is for."""

Row = tuple[Any, ...]


def _words(states: frozenset[State]) -> str:
    return ",".join(f"'{state}'" for state in sorted(states))


_FINAL = _words(FINAL)
_NO_FACTS: Mapping[str, Any] = {"subject": None, "metadata": {}, "tag": None, "tags": [], "headers": []}
_FROM = "FROM recipient r JOIN message m ON m.number = r.message"
_GIVEN = "(SELECT value FROM json_each(?))"


@define
class Applied:
    """What came of a step: the recipients changed, their lanes, the events told, and what has left the spool with its body files."""

    count: int = 0
    lanes: set[Lane] = field(factory=set)
    events: list[tuple[int, Event]] = field(factory=list)
    gone: list[int] = field(factory=list)
    files: list[str] = field(factory=list)


def choose(connection: sqlite3.Connection, change: Change, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[int]:
    """The numbers of the next recipients that the change is for, ascending. Raises KeyError for a filter that does not exist."""
    where, values = _selection(change, filters)
    statement = f"SELECT r.number {_FROM} WHERE r.number > ?{where} ORDER BY r.number LIMIT ?"
    return [number for (number,) in connection.execute(statement, [after, *values, limit])]


def count(connection: sqlite3.Connection, change: Change, filters: Mapping[str, Any]) -> int:
    """How many recipients the change is for. Raises KeyError for a filter that does not exist."""
    where, values = _selection(change, filters)
    number: int = connection.execute(f"SELECT COUNT(*) {_FROM} WHERE TRUE{where}", values).fetchone()[0]
    return number


def _selection(change: Change, filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    where, values = conditions(filters)
    where += f" AND r.state IN ({_words(STATES[change.operation])})"
    if change.operation is Operation.REROUTE:
        where += f" AND m.project_id = ? AND r.route_id <> ? || {_mark('r.route_id')}"
        values += [change.project_id, change.route_id]
    return where, values


def apply(connection: sqlite3.Connection, change: Change, numbers: Sequence[int], sequence: int) -> Applied:
    """Change those recipients that are still in a state for it, within the caller's transaction.

    ``sequence`` is the first number for events; as many as there are recipients may be used.
    """
    rows = _rows(connection, change, numbers)
    if change.operation is Operation.RELEASE:
        rows = _released(connection, rows)
    applied = Applied(len(rows), {Lane(row[3], row[4]) for row in rows})
    if rows:
        chosen = json.dumps([row[0] for row in rows])
        for moment_event in _events(change, rows):
            applied.events.append((sequence + len(applied.events), moment_event))
        _OPERATIONS[change.operation](connection, change, chosen, rows, applied)
        connection.executemany(
            "INSERT INTO event VALUES (?,?,?,?,?,?)",
            [(number, one.id, one.name, one.message_id, one.created, one.payload) for number, one in applied.events],
        )
    return applied


def _rows(connection: sqlite3.Connection, change: Change, numbers: Sequence[int]) -> Sequence[Row]:
    """Those of the recipients that are in a state for the change; also those whose record makes no sense."""
    statement = (
        f"SELECT r.number, r.message, r.address, r.route_id, r.domain, r.state, m.id, m.facts, m.context {_FROM}"
        f" WHERE r.number IN {_GIVEN} AND r.state IN ({_words(STATES[change.operation])}) ORDER BY r.number"
    )
    given = (json.dumps(numbers),)
    try:
        return connection.execute(statement, given).fetchall()
    except sqlite3.OperationalError as error:
        if not undecodable(error):
            raise
    with leniently(connection):
        return connection.execute(statement, given).fetchall()


def _released(connection: sqlite3.Connection, rows: Sequence[Row]) -> Sequence[Row]:
    """Those that are released: what a rule held that is no more may be one for another rule, and is held by that from now on."""
    rules = hold_rules(connection)
    standing = {rule.id for rule in rules}
    left = connection.execute(
        f"SELECT r.number, r.rule, m.project, m.tag, m.route, r.domain {_FROM} WHERE r.number IN {_GIVEN} AND r.rule IS NOT NULL",
        (json.dumps([row[0] for row in rows]),),
    ).fetchall()
    kept: dict[int, HoldRule] = {}
    for number, held_by, *facts in left:
        if held_by not in standing and (other := next((rule for rule in rules if rule.meets(*facts)), None)) is not None:
            kept[number] = other
    connection.executemany(
        "UPDATE recipient SET rule = ?, reply = ? WHERE number = ?", [(rule.id, rule.reason, number) for number, rule in kept.items()]
    )
    return [row for row in rows if row[0] not in kept]


def _events(change: Change, rows: Sequence[Row]) -> list[Event]:
    told: list[Event] = []
    moment = change.moment
    for _, _, address, _, _, state, identifier, facts, context in rows:
        if not (_is_object(facts) and _is_object(context)):
            # What is told has to be JSON, whatever the record has become: the id is sound.
            facts, context = json.dumps({"message_id": identifier, **_NO_FACTS}).encode(), b"{}"
        if change.operation is Operation.RELEASE:
            data = {"released_at": event.timestamp(moment)}
            told.append(event.message_event(event.RELEASED, moment, identifier, facts, context, recipient=address, **data))
        elif change.operation is Operation.REMOVE:
            data = {"canceled_at": event.timestamp(moment)}
            told.append(event.message_event(event.CANCELED, moment, identifier, facts, context, recipient=address, **data))
        elif change.operation is Operation.RETRY and state == State.SCHEDULED:
            data = {"scheduled_at": event.timestamp(moment)}
            told.append(event.message_event(event.RESCHEDULED, moment, identifier, facts, context, recipient=address, **data))
    return told


def _is_object(octets: bytes) -> bool:
    try:
        return isinstance(orjson.loads(octets), dict)
    except ValueError:
        return False


def _hold(connection: sqlite3.Connection, change: Change, chosen: str, rows: Sequence[Row], applied: Applied) -> None:
    connection.execute(
        f"UPDATE recipient SET state = 'held', reply = ?, rule = ? WHERE number IN {_GIVEN}", (change.reason, change.rule, chosen)
    )


def _release(connection: sqlite3.Connection, change: Change, chosen: str, rows: Sequence[Row], applied: Applied) -> None:
    """What was to be sent later still is."""
    connection.execute(
        "UPDATE recipient SET state = CASE WHEN attempts = 0 AND due > ?1 THEN 'scheduled' ELSE 'queued' END,"
        " due = CASE WHEN attempts = 0 AND due > ?1 THEN due ELSE ?1 END, rule = NULL,"
        # Why it was held is over; what was said before is not.
        " reply = COALESCE((SELECT a.reply FROM attempt a, message m WHERE m.number = recipient.message AND a.message_id = m.id"
        " AND a.recipient = recipient.number ORDER BY a.attempt DESC LIMIT 1), '')"
        " WHERE number IN (SELECT value FROM json_each(?2))",
        (change.moment, chosen),
    )


def _retry(connection: sqlite3.Connection, change: Change, chosen: str, rows: Sequence[Row], applied: Applied) -> None:
    connection.execute(
        f"UPDATE recipient SET state = CASE state WHEN 'deferred' THEN state ELSE 'queued' END, due = MIN(due, ?) WHERE number IN {_GIVEN}",
        (change.moment, chosen),
    )


def _mark(column: str) -> str:
    """:func:`~lettermta.message.mark_of` in SQL."""
    return f"CASE WHEN {column} GLOB '*[^0-9A-Za-z]' THEN substr({column}, -1) ELSE '' END"


def _reroute(connection: sqlite3.Connection, change: Change, chosen: str, rows: Sequence[Row], applied: Applied) -> None:
    """The message itself follows when the last of its unfinished recipients has the new route."""
    mark = _mark("route_id")
    connection.execute(f"UPDATE recipient SET route_id = ? || {mark} WHERE number IN {_GIVEN}", (change.route_id, chosen))
    applied.lanes.update([Lane(change.route_id + mark_of(row[3]), row[4]) for row in rows])
    for message, context in {row[1]: row[8] for row in rows}.items():
        new_context = json.dumps({**as_far_as_possible(context), "route_id": change.route_id, "route": change.route}, separators=(",", ":"))
        connection.execute(
            f"UPDATE message SET route_id = ?1 || {mark}, route = ?2, context = ?3 WHERE number = ?4 AND NOT EXISTS"
            f" (SELECT 1 FROM recipient WHERE message = ?4 AND route_id <> ?1 || {mark} AND state NOT IN ({_FINAL}))",
            (change.route_id, change.route, new_context.encode(), message),
        )


def _remove(connection: sqlite3.Connection, change: Change, chosen: str, rows: Sequence[Row], applied: Applied) -> None:
    connection.execute(f"UPDATE recipient SET state = 'canceled', rule = NULL WHERE number IN {_GIVEN}", (chosen,))
    for message in sorted({row[1] for row in rows}):
        gone = connection.execute(
            "DELETE FROM message WHERE number = ?1 AND NOT EXISTS"
            f" (SELECT 1 FROM recipient WHERE message = ?1 AND state NOT IN ({_FINAL})) RETURNING number",
            (message,),
        ).fetchone()
        if gone is None:
            continue
        applied.gone.append(message)
        content = connection.execute("DELETE FROM content WHERE number = ? RETURNING file", (message,)).fetchone()
        if content is not None and content[0] is not None:
            applied.files.append(content[0])
        connection.execute("DELETE FROM recipient WHERE message = ?", (message,))


_OPERATIONS: Mapping[Operation, Callable[[sqlite3.Connection, Change, str, Sequence[Row], Applied], None]] = {
    Operation.HOLD: _hold,
    Operation.RELEASE: _release,
    Operation.RETRY: _retry,
    Operation.REROUTE: _reroute,
    Operation.REMOVE: _remove,
}


def trim_attempts(connection: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget attempts from before that moment, at most ``limit`` of them, within the caller's transaction; returns how many.

    Ids begin with the time (RFC 9562 section 5.7): no later message is looked at.
    """
    milliseconds = f"{max(round(before * 1000), 0):012x}"
    newest = f"{milliseconds[:8]}-{milliseconds[8:]}"
    return connection.execute(
        "DELETE FROM attempt WHERE (message_id, recipient, attempt) IN"
        " (SELECT message_id, recipient, attempt FROM attempt WHERE message_id < ? AND at < ? LIMIT ?)",
        (newest, before, limit),
    ).rowcount


def hasten(connection: sqlite3.Connection, *, seconds: float, now: float, after: int, limit: int) -> tuple[int, int]:
    """Make the next recipients behind number ``after`` that were put off due earlier, within the caller's transaction; returns how many,
    and where to go on.
    """
    rows = connection.execute(
        "SELECT number FROM recipient WHERE number > ? AND state = 'deferred' AND due > ? ORDER BY number LIMIT ?", (after, now, limit)
    ).fetchall()
    connection.executemany("UPDATE recipient SET due = MAX(due - ?, ?) WHERE number = ?", [(seconds, now, number) for (number,) in rows])
    return len(rows), rows[-1][0] if rows else after


# -- standing rules

RULE_CONDITIONS = ("project", "tag", "route", "domain")
"""What a standing rule can look at."""


def hold_rules(connection: sqlite3.Connection) -> list[HoldRule]:
    """Every standing rule, oldest first."""
    return [
        HoldRule(identifier, json.loads(told), reason, created)
        for identifier, told, reason, created in connection.execute("SELECT id, conditions, reason, created FROM hold_rule ORDER BY id")
    ]


def next_rule(connection: sqlite3.Connection) -> int:
    """The number for the next rule; none is given twice."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'hold_rule'").fetchone()
    return 1 if row is None else row[0] + 1


def new_hold_rule(identifier: int, told: Mapping[str, str], reason: str, moment: float) -> HoldRule:
    """A rule of these conditions; raises ValueError when it looks at what it can't, or at nothing."""
    return HoldRule(identifier, new_conditions(told), reason or f"held by rule {identifier}", moment)


def new_conditions(told: Mapping[str, str]) -> Mapping[str, str]:
    """A rule's conditions as they are kept; raises ValueError as above."""
    unknown = sorted(set(told) - set(RULE_CONDITIONS))
    if unknown or not told:
        raise ValueError(f"a rule looks at {', '.join(RULE_CONDITIONS)}, not at {', '.join(unknown) or 'nothing'}")
    return {name: value.lower() if name == "domain" else value for name, value in told.items()}


def add_hold_rule(connection: sqlite3.Connection, rule: HoldRule) -> None:
    """Add a standing rule, within the caller's transaction."""
    told = json.dumps(rule.conditions, ensure_ascii=False)
    connection.execute("INSERT INTO hold_rule VALUES (?,?,?,?)", (rule.id, told, rule.reason, rule.created))


def drop_hold_rule(connection: sqlite3.Connection, identifier: int) -> bool:
    """Drop a standing rule, within the caller's transaction; False when there is none of that number."""
    return connection.execute("DELETE FROM hold_rule WHERE id = ?", (identifier,)).rowcount > 0
