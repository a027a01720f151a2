"""What is in the queue, counted: by domain, project, route, tag or state.

Two indexes that cover all that is counted are read from end to end, and no row behind them but one or two a group: a million recipients
take a fraction of a second, and the mail pays nothing for counters.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

GROUPS = ("domain", "project", "route", "tag", "state")
"""What can be counted by."""

_COLUMNS = {"domain": "domain", "project": "route_id", "route": "route_id", "tag": "tag", "state": "state"}
_WAITING, _KEPT = ("queued", "scheduled", "deferred"), ("held", "quarantined")
_STATES = (*_WAITING, *_KEPT)
_PARTS = (
    ("recipient INDEXED BY recipient_lane WHERE state IN ('deferred','queued','scheduled')", _WAITING),
    ("recipient INDEXED BY recipient_kept WHERE state IN ('held','quarantined')", _KEPT),
)


@define
class _Group:
    counts: dict[str, int] = field(factory=dict)
    oldest: int | None = None
    """The lowest number, which is that of the recipient accepted first."""
    next_due: float | None = None
    replied: int | None = None
    """The highest number of one that was answered, or is kept for a reason."""


def figures(connection: sqlite3.Connection, by: str) -> Sequence[Mapping[str, Any]]:
    """A row a group, the largest first, with ``count``, a count for each state, ``oldest`` (when it was accepted), ``next_due`` (of what
    the scheduler tries by itself, or None) and ``last_reply`` (what the youngest one that is not new has been told). Raises KeyError for
    what can't be counted by.
    """
    column = _COLUMNS[by]
    groups: dict[Any, _Group] = {}
    for part, states in _PARTS:
        for row in connection.execute(_statement(column, part, states)):
            name = _slug(connection, by, row[0]) if column == "route_id" else row[0]
            _add(groups.setdefault(name, _Group()), row[1:], states)
    rows = [_row(connection, by, name, group) for name, group in groups.items()]
    return sorted(rows, key=lambda row: (-row["count"], str(row[by])))


def _statement(column: str, part: str, states: Sequence[str]) -> str:
    """Grouped in the order of the index where that can be, so that nothing has to be sorted; one name may then come several times."""
    sums = ", ".join(f"SUM(state = '{state}')" for state in states)
    groups = "route_id, domain" if column == "domain" else column
    replied = "MAX(CASE WHEN state NOT IN ('queued','scheduled') THEN number END)"
    return f"SELECT {column}, MIN(number), MIN(due), {replied}, {sums} FROM {part} GROUP BY {groups}"


def _slug(connection: sqlite3.Connection, by: str, route_id: str) -> str:
    """The slug that a route's mail has in the queue: of its project or its own."""
    column = "project" if by == "project" else "route"
    row = connection.execute(
        f"SELECT m.{column} FROM recipient r JOIN message m ON m.number = r.message WHERE r.route_id = ?1 AND r.state IN"
        " ('deferred','queued','scheduled') UNION ALL"
        f" SELECT m.{column} FROM recipient r JOIN message m ON m.number = r.message WHERE r.route_id = ?1 AND r.state IN"
        " ('held','quarantined') LIMIT 1",
        (route_id,),
    ).fetchone()
    return route_id if row is None else str(row[0])


def _add(group: _Group, row: Sequence[Any], states: Sequence[str]) -> None:
    oldest, due, replied, *counts = row
    for state, count in zip(states, counts, strict=True):
        group.counts[state] = group.counts.get(state, 0) + count
    group.oldest = oldest if group.oldest is None else min(group.oldest, oldest)
    if states is _WAITING:
        group.next_due = due if group.next_due is None else min(group.next_due, due)
    if replied is not None:
        group.replied = max(replied, group.replied or 0)


def _row(connection: sqlite3.Connection, by: str, name: str | None, group: _Group) -> Mapping[str, Any]:
    created = connection.execute(
        "SELECT m.created FROM recipient r JOIN message m ON m.number = r.message WHERE r.number = ?", (group.oldest,)
    ).fetchone()
    reply = connection.execute("SELECT reply FROM recipient WHERE number = ?", (group.replied,)).fetchone()
    return {
        by: name,
        "count": sum(group.counts.values()),
        **{state: group.counts.get(state, 0) for state in _STATES},
        "oldest": None if created is None else created[0],
        "next_due": group.next_due,
        "last_reply": reply[0] or None if reply else None,
    }
