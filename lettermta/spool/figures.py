"""What is in the queue, counted: by lane, domain, project, route, tag or state.

Two indexes that cover all that is counted are read from end to end, and no row behind them but one or two a group: a million recipients
take a fraction of a second, and the mail pays nothing for counters. Filters that look at the messages read these too, which takes longer.
"""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from lettermta.message import WAITING, State
from lettermta.spool.filters import conditions

LANE = "lane"
"""Counted by what delivery serves in turn: a row has ``route_id`` and ``domain`` then."""
GROUPS = ("domain", "project", "route", "tag", "state")
"""What else can be counted by."""

_COLUMNS = {"domain": "r.domain", "project": "r.route_id", "route": "r.route_id", "tag": "r.tag", "state": "r.state"}
_KEPT = (State.HELD, State.QUARANTINED)
_STATES = (*sorted(WAITING), *_KEPT)
_COUNTS = ("count", *(state.value for state in _STATES))
_PARTS = (("recipient_lane", tuple(sorted(WAITING))), ("recipient_kept", _KEPT))
"""The indexes, and the states of the recipients that are in them."""

Row = Mapping[str, Any]


@define
class _Group:
    counts: dict[str, int] = field(factory=dict)
    oldest: int | None = None
    """The lowest number, which is that of the recipient accepted first."""
    next_due: float | None = None
    replied: int | None = None
    """The highest number of one that was answered, or is kept for a reason."""


def figures(connection: sqlite3.Connection, by: str, filters: Mapping[str, Any]) -> Sequence[Row]:
    """A row a group, the largest first, with ``count``, a count for each state, ``oldest`` (when it was accepted), ``next_due`` (of what
    the scheduler tries by itself, or None) and ``last_reply`` (what the youngest one that is not new has been told). Raises KeyError for
    what can't be counted by, or for a filter that does not exist.
    """
    groups: dict[Any, _Group] = {}
    slugs: dict[str, str] = {}
    where, values = conditions(filters)
    for index, states in _PARTS:
        for row in connection.execute(_statement(by, index, states, where), values):
            name: Any = (row[0], row[1]) if by == LANE else row[0]
            if by in ("project", "route"):
                name = slugs[row[0]] if row[0] in slugs else slugs.setdefault(row[0], _slug(connection, by, row[0]))
            _add(groups.setdefault(name, _Group()), row[2:], states)
    rows = [_row(connection, by, name, group) for name, group in groups.items()]
    return sorted(rows, key=lambda row: (-row["count"], str(row.get(by))))


def merged(rows: Iterable[Row], by: str) -> Sequence[Row]:
    """Rows with a name under ``by``, of which several may have the same: those as one, the largest first."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        known = found.setdefault(row[by], {by: row[by], **dict.fromkeys(_COUNTS, 0)})
        for name in _COUNTS:
            known[name] += row[name]
        for name in ("oldest", "next_due"):
            known[name] = min((one[name] for one in (known, row) if one.get(name) is not None), default=None)
        known["last_reply"] = known.get("last_reply") or row["last_reply"]
    return sorted(found.values(), key=lambda row: (-row["count"], str(row[by])))


def _statement(by: str, index: str, states: Sequence[State], where: str) -> str:
    """Grouped in the order of the index where that can be, so that nothing has to be sorted; one name may then come several times."""
    sums = ", ".join(f"SUM(r.state = '{state}')" for state in states)
    names = "r.route_id, r.domain" if by == LANE else f"{_COLUMNS[by]}, NULL"
    groups = "r.route_id, r.domain" if by in (LANE, "domain") else _COLUMNS[by]
    replied = "MAX(CASE WHEN r.state NOT IN ('queued','scheduled') THEN r.number END)"
    words = ",".join(f"'{state}'" for state in states)
    joined = " JOIN message m ON m.number = r.message" if where else ""
    return (
        f"SELECT {names}, MIN(r.number), MIN(r.due), {replied}, {sums} FROM recipient r INDEXED BY {index}{joined}"
        f" WHERE r.state IN ({words}){where} GROUP BY {groups}"
    )


def _slug(connection: sqlite3.Connection, by: str, route_id: str) -> str:
    """The slug that a route's mail has in the queue: of its project or its own."""
    for index, states in _PARTS:
        words = ",".join(f"'{state}'" for state in states)
        row = connection.execute(
            f"SELECT m.{by} FROM recipient r INDEXED BY {index} JOIN message m ON m.number = r.message"
            f" WHERE r.route_id = ? AND r.state IN ({words}) LIMIT 1",
            (route_id,),
        ).fetchone()
        if row is not None:
            return str(row[0])
    return route_id


def _add(group: _Group, row: Sequence[Any], states: Sequence[State]) -> None:
    oldest, due, replied, *counts = row
    for state, count in zip(states, counts, strict=True):
        group.counts[state] = group.counts.get(state, 0) + count
    group.oldest = oldest if group.oldest is None else min(group.oldest, oldest)
    if states is not _KEPT:
        group.next_due = due if group.next_due is None else min(group.next_due, due)
    if replied is not None:
        group.replied = max(replied, group.replied or 0)


def _row(connection: sqlite3.Connection, by: str, name: Any, group: _Group) -> Row:
    created = connection.execute(
        "SELECT m.created FROM recipient r JOIN message m ON m.number = r.message WHERE r.number = ?", (group.oldest,)
    ).fetchone()
    reply = connection.execute("SELECT reply FROM recipient WHERE number = ?", (group.replied,)).fetchone()
    return {
        **({"route_id": name[0], "domain": name[1]} if by == LANE else {by: name}),
        "count": sum(group.counts.values()),
        **{state.value: group.counts.get(state, 0) for state in _STATES},
        "oldest": None if created is None else created[0],
        "next_due": group.next_due,
        "last_reply": reply[0] or None if reply else None,
    }
