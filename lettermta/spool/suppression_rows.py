"""Suppressions in the spool's database: beside the outbox, so that each change and the event that tells of it are in one commit.

Plain functions on a connection: the daemon runs them in its writer and its reading threads, ``lettermta-admin`` runs the same ones while
the daemon is down. One address may be suppressed for several reasons, and in several scopes; each of these is a row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from lettermta import event
from lettermta.event import Event
from lettermta.suppression import AppliesTo, Mailing, Scope, Suppression, SuppressionReason, values_of

_COLUMNS = """s.number, s.id, s.value, s.reason, s.applies_to, s.created, s.message_id, c.project_id, c.project, c.route_id, c.route
FROM suppression s JOIN suppression_scope c ON c.number = s.scope"""

_INSERT = """
INSERT INTO suppression (id, value, scope, reason, applies_to, created, message_id) VALUES (?,?,?,?,?,?,?)
ON CONFLICT (value, scope, reason) DO UPDATE SET applies_to = excluded.applies_to WHERE applies_to <> excluded.applies_to
RETURNING id
"""

_FIND = f"""
SELECT {_COLUMNS}
WHERE s.value IN (SELECT value FROM json_each(?)) AND c.key IN ('', ?, ?) AND (s.applies_to = 'all' OR ?)
"""  # noqa: S608 - our own words

_CONDITIONS: Mapping[str, str] = {"scope": "c.key = ?", "project_id": "c.project_id = ?", "value": "s.value = ?", "reason": "s.reason = ?"}
"""What a page can be asked for by; ``scope`` is the key of a Scope."""

_RANK = {reason: rank for rank, reason in enumerate(SuppressionReason)}


def add(connection: sqlite3.Connection, suppressions: Iterable[Suppression]) -> list[Suppression]:
    """Add what is not there yet, within the caller's transaction; returns what was added, or changed to apply to other mail."""
    scopes: dict[str, int] = {}
    added = []
    for one in suppressions:
        key = one.scope.key
        if key not in scopes:
            scopes[key] = _scope_number(connection, one.scope)
        row = (one.id, one.value, scopes[key], one.reason.value, one.applies_to.value, one.created, one.message_id)
        stored = connection.execute(_INSERT, row).fetchall()
        if stored:
            known = stored[0][0]
            added.append(one if known == one.id else _renamed(one, known))
    return added


def _renamed(one: Suppression, identifier: str) -> Suppression:
    return Suppression(identifier, one.value, one.scope, one.reason, one.applies_to, one.created, one.message_id)


def _scope_number(connection: sqlite3.Connection, scope: Scope) -> int:
    connection.execute(
        "INSERT INTO suppression_scope (key, project_id, project, route_id, route) VALUES (?,?,?,?,?) ON CONFLICT (key) DO NOTHING",
        (scope.key, scope.project_id, scope.project, scope.route_id, scope.route),
    )
    number: int = connection.execute("SELECT number FROM suppression_scope WHERE key = ?", (scope.key,)).fetchone()[0]
    return number


def remove(connection: sqlite3.Connection, value: str, scope: Scope, reason: SuppressionReason | None) -> list[Suppression]:
    """Remove a value from a scope, for one reason or (None) for all, within the caller's transaction; returns what was removed."""
    filters: dict[str, str] = {"value": value, "scope": scope.key}
    if reason is not None:
        filters["reason"] = reason.value
    found = page(connection, filters, 0, len(SuppressionReason))
    connection.executemany("DELETE FROM suppression WHERE number = ?", [(number,) for number, _ in found])
    return [one for _, one in found]


def page(connection: sqlite3.Connection, filters: Mapping[str, str], after: int, limit: int) -> list[tuple[int, Suppression]]:
    """The next suppressions behind number ``after``, in the order in which they were added. Raises KeyError for an unknown filter."""
    conditions = "".join(f" AND {_CONDITIONS[name]}" for name in filters)
    statement = f"SELECT {_COLUMNS} WHERE s.number > ?{conditions} ORDER BY s.number LIMIT ?"
    return [(row[0], _suppression(row)) for row in connection.execute(statement, (after, *filters.values(), limit))]


def find(connection: sqlite3.Connection, mailing: Mailing, addresses: Sequence[str]) -> dict[str, Suppression]:
    """Which of the addresses nothing may be sent to, each with the suppression that says so, the one of the gravest reason."""
    values = {address: values_of(address) for address in addresses}
    wanted = orjson.dumps(list({value: None for each in values.values() for value in each})).decode()
    found: dict[str, Suppression] = {}
    rows = connection.execute(_FIND, (wanted, mailing.project_id, mailing.route_id, mailing.broadcast))
    for one in sorted(map(_suppression, rows), key=lambda one: _RANK[one.reason], reverse=True):
        found[one.value] = one
    return {address: hit for address, each in values.items() if (hit := _gravest(found, each)) is not None}


def _gravest(found: Mapping[str, Suppression], values: Sequence[str]) -> Suppression | None:
    return min((found[value] for value in values if value in found), key=lambda one: _RANK[one.reason], default=None)


def values(connection: sqlite3.Connection) -> Iterator[str]:
    """Every value, some more than once."""
    for (value,) in connection.execute("SELECT value FROM suppression"):
        yield value


def count(connection: sqlite3.Connection) -> Mapping[SuppressionReason, int]:
    """How many there are of each reason."""
    rows = dict(connection.execute("SELECT reason, COUNT(*) FROM suppression GROUP BY reason").fetchall())
    return {reason: rows.get(reason.value, 0) for reason in SuppressionReason}


def _suppression(row: Sequence[Any]) -> Suppression:
    _, identifier, value, reason, applies_to, created, message_id, *scope = row
    return Suppression(identifier, value, Scope(*scope), SuppressionReason(reason), AppliesTo(applies_to), created, message_id)


# -- the events


def events_of(name: str, suppressions: Iterable[Suppression], moment: float) -> list[Event]:
    """The events ``suppression.added`` or ``suppression.removed`` of these (COMPATIBILITY.md section 3); no message's, also where one made
    the suppression.
    """
    return [event.message_event(name, moment, "", _data(one), _context_of(one.scope)) for one in suppressions]


def _context_of(whose: Scope) -> bytes:
    return event.context(whose.project_id, whose.project, whose.route_id, whose.route, scope=whose.name)


def _data(one: Suppression) -> bytes:
    return orjson.dumps(
        {
            "suppression_id": one.id,
            "type": one.type.value,
            "value": one.value,
            "reason": one.reason.value,
            "applies_to": one.applies_to.value,
        }
    )


def write_events(connection: sqlite3.Connection, events: Sequence[Event], sequence: int) -> list[tuple[int, Event]]:
    """Put events into the outbox under the numbers from ``sequence`` on, within the caller's transaction."""
    numbered = list(enumerate(events, sequence))
    connection.executemany(
        "INSERT INTO event VALUES (?,?,?,?,?,?)",
        [(number, one.id, one.name, one.message_id, one.created, one.payload) for number, one in numbered],
    )
    return numbered
