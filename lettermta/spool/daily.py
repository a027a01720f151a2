"""What became of the mail, counted by day, project and tag, in the commits of the events that are counted.

Promises that the figures are right after any crash, as they are written with what they count; that their number is bounded, whatever tags
an application makes up; and that damage in them stops no mail: then they are no longer kept until the next start, and the rest goes on.

A day is one of UTC. How long mail was put off is kept as a histogram whose buckets grow by a fifth each, so a percentile of it is at
most that much too high, and those of several days add up.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from lettermta import event
from lettermta.spool.damage import is_damage

DAY = 86_400
KEEP_DAYS = 400
"""For so many days figures are kept."""
MOST_TAGS = 1_000
"""Tags of one project that are counted each for itself on one day; the figures of all others are added up under :data:`OTHERS`."""
MOST_IN_ALL = 20_000
"""The same, of all projects together."""
OTHERS = "(others)"
"""No tag can be called so."""
FORGET_ROWS = 5_000
"""Figures that one commit forgets at the most."""

_PLAIN = {
    event.CREATED: "accepted",
    event.SENT: "sent",
    event.DELIVERED: "delivered",
    event.SOFT_BOUNCED: "deferrals",
    event.SUPPRESSED: "suppressed",
    event.SPAM_COMPLAINT: "complaints",
}
_BY_CLASS = {event.HARD_BOUNCED: "bounced", event.FAILED: "failed"}
_COUNTED = {**_PLAIN, **_BY_CLASS}
_WAITED = "waited"

ADD = "INSERT INTO daily VALUES (?,?,?,?,?) ON CONFLICT (day, project, tag, measure) DO UPDATE SET count = count + excluded.count"

Row = tuple[Any, ...]
Key = tuple[int, str, str, str]


class Daily:
    """Counts; all of it in the thread of the writer, whose transaction ``connection`` is in."""

    def __init__(self) -> None:
        self.damage: str | None = None
        """Why nothing is counted any more, if so."""
        self._known: dict[int, dict[str, set[str]]] = {}

    def count(self, connection: sqlite3.Connection, events: Sequence[Row], waits: Sequence[Row]) -> None:
        """Add what these rows of events tell, and these waits: rows of the moment of the end, project, facts and seconds."""
        if self.damage is not None:
            return
        connection.execute("SAVEPOINT daily")
        try:
            figures = self._figures(connection, events, waits)
            connection.executemany(ADD, [(*key, count) for key, count in figures.items()])
        except sqlite3.DatabaseError as error:
            if not (is_damage(error) and connection.in_transaction):
                raise
            self.damage = str(error)
            connection.execute("ROLLBACK TO daily")
        connection.execute("RELEASE daily")

    def _figures(self, connection: sqlite3.Connection, events: Iterable[Row], waits: Iterable[Row]) -> Mapping[Key, int]:
        figures: dict[Key, int] = Counter()
        for _, _, name, _, moment, payload in events:
            measure = _COUNTED.get(name)
            if measure is None:
                continue
            document = _object(payload)
            data = document.get("data") or {}
            if name in _BY_CLASS:
                measure = f"{measure}:{data.get('classification') or 'undetermined'}"
            project = (document.get("context") or {}).get("project")
            figures[(*self._place(connection, moment, project, data.get("tag")), measure)] += 1
        for moment, project, facts, seconds in waits:
            figures[(*self._place(connection, moment, project, _object(facts).get("tag")), f"{_WAITED}:{bucket(seconds)}")] += 1
        return figures

    def _place(self, connection: sqlite3.Connection, moment: float, project: str | None, tag: str | None) -> tuple[int, str, str]:
        day, project, tag = int(moment // DAY), project or "", tag or ""
        tags = self._tags(connection, day)
        known = tags[project]
        if tag not in known:
            if len(known) >= MOST_TAGS or sum(map(len, tags.values())) >= MOST_IN_ALL:
                return day, project, OTHERS
            known.add(tag)
        return day, project, tag

    def _tags(self, connection: sqlite3.Connection, day: int) -> dict[str, set[str]]:
        """The tags that have figures of that day; those of two days are kept in memory."""
        tags = self._known.get(day)
        if tags is None:
            if len(self._known) > 1:
                del self._known[min(self._known)]
            tags = self._known[day] = defaultdict(set)
            for project, tag in connection.execute("SELECT DISTINCT project, tag FROM daily WHERE day = ? AND tag != ?", (day, OTHERS)):
                tags[project].add(tag)
        return tags


def _object(octets: bytes) -> Mapping[str, Any]:
    """A JSON object; what is none counts as mail of nobody, since for the sake of a figure no mail is stopped."""
    try:
        found = orjson.loads(octets)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def bucket(seconds: float) -> int:
    """The bucket of a time: 0 up to a second, from there on four for each doubling."""
    return 0 if seconds <= 1 else math.ceil(4 * math.log2(seconds))


def longest(bucket: int) -> float:
    """The longest time that falls in a bucket, in seconds."""
    return float(2 ** (bucket / 4))


def forget(connection: sqlite3.Connection, now: float) -> None:
    """Forget figures of days long gone."""
    connection.execute(
        "DELETE FROM daily WHERE (day, project, tag, measure) IN (SELECT day, project, tag, measure FROM daily WHERE day < ? LIMIT ?)",
        (int(now // DAY) - KEEP_DAYS, FORGET_ROWS),
    )


def figures(connection: sqlite3.Connection, by: str, since: float, project: str | None) -> Sequence[Mapping[str, Any]]:
    """The figures from the day of ``since`` on, of all projects or one: by ``tag``, each with its ``days``, or by ``day`` alone."""
    groups: dict[Any, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for day, tag, measure, count in connection.execute(
        "SELECT day, tag, measure, SUM(count) FROM daily WHERE day >= ?1 AND (?2 IS NULL OR project = ?2) GROUP BY day, tag, measure",
        (int(since // DAY), project),
    ):
        groups[tag or None if by == "tag" else None][day][measure] += count
    if by == "day":
        return [{"day": _date(day), **_told(measures)} for day, measures in sorted(groups[None].items())]
    return [
        {
            "tag": tag,
            **_told(sum(days.values(), Counter())),
            "days": [{"day": _date(day), **_told(measures)} for day, measures in sorted(days.items())],
        }
        for tag, days in sorted(groups.items(), key=lambda group: group[0] or "")
    ]


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()


def _told(measures: Mapping[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {measure: measures.get(measure, 0) for measure in _PLAIN.values()}
    for measure in _BY_CLASS.values():
        classes = {name.partition(":")[2]: count for name, count in sorted(measures.items()) if name.startswith(f"{measure}:")}
        told |= {measure: sum(classes.values()), f"{measure}_by_class": classes}
    waits = sorted((int(name.partition(":")[2]), count) for name, count in measures.items() if name.startswith(f"{_WAITED}:"))
    return told | {
        "waited": sum(count for _, count in waits),
        "waited_p50": _percentile(waits, 0.5),
        "waited_p95": _percentile(waits, 0.95),
    }


def _percentile(waits: Sequence[tuple[int, int]], part: float) -> float | None:
    """The time in which ``part`` of them were over, in seconds."""
    rank = math.ceil(part * sum(count for _, count in waits))
    for index, count in waits:
        rank -= count
        if rank <= 0:
            return round(longest(index), 1)
    return None
