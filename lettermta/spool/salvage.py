"""Reading around damage: where the plain question fails for a record that makes no sense, or for a page of the database that is damaged,
everything else is still read, and what could not be is named.

Each of these is tried after the plain question has failed, so it may take its time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson

from lettermta.event import Event
from lettermta.message import WAITING, Lane, QueueEntry, State
from lettermta.spool import queries
from lettermta.spool.damage import DamagedRecipient, is_damage, undecodable
from lettermta.spool.filters import conditions

_NOT_READ: Mapping[str, Any] = {
    "id": "", "sender": "", "project": "", "route": "", "tag": None, "metadata": {}, "size": 0, "created": 0.0,
}  # fmt: skip
"""What a list shows of a message that can't be read."""
MOST_MISSED = 10_000
"""How many numbers of events are passed over to find the next that can be read."""

_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))
_KNOWN = ",".join(f"'{state}'" for state in sorted(State))

_NUMBERS = f"""
SELECT number FROM recipient WHERE route_id = ? AND domain = ? AND state IN ({_WAITING}) AND due <= ?
ORDER BY priority DESC, due, number LIMIT ?
"""  # noqa: S608 - the states are our own words
_ALL = f"SELECT number, route_id, domain, due, priority FROM recipient NOT INDEXED WHERE state IN ({_WAITING}) ORDER BY number"  # noqa: S608
_ONE = f"SELECT {queries.DUE_COLUMNS} FROM recipient r LEFT JOIN message m ON m.number = r.message WHERE r.number = ?"  # noqa: S608


def due(connection: sqlite3.Connection, lane: Lane, now: float, limit: int) -> tuple[Sequence[QueueEntry], Sequence[DamagedRecipient], str]:
    """See ISpool.due: the entries, the recipients that can't be attempted, and what is wrong with the database, if anything is."""
    try:
        return queries.due(connection, lane, now, limit), (), ""
    except Exception as error:
        if not (is_damage(error) or undecodable(error)):
            raise
    rows: list[Sequence[Any]] = []
    damaged: list[DamagedRecipient] = []
    numbers, wrong = _numbers(connection, lane, now, limit)
    for number in numbers:
        try:
            row = connection.execute(_ONE, (number,)).fetchone()
            if row is None or row[0] is None:
                damaged.append(DamagedRecipient(number, "its message is missing"))
                continue
            queries.entries_of([(lane, row)])
        except Exception as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            damaged.append(DamagedRecipient(number, _reason(error)))
        else:
            rows.append(row)
    return queries.entries_of((lane, row) for row in rows), damaged, wrong


def recipients(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[Mapping[str, Any]]:
    """See ISpool.query: of a recipient whose message can't be read it tells what there is, unless a filter asks for more."""
    try:
        return queries.recipients(connection, filters, after, limit)
    except Exception as error:
        if isinstance(error, KeyError) or not (is_damage(error) or undecodable(error)):
            raise
    with leniently(connection):
        return list(islice(_listed(connection, filters, after), limit))


def message(connection: sqlite3.Connection, identifier: str) -> Mapping[str, Any] | None:
    """See ISpool.message: what can be read of it."""
    try:
        return queries.message(connection, identifier)
    except Exception as error:
        if not undecodable(error):
            raise
    with leniently(connection):
        return queries.message(connection, identifier, as_far_as_possible)


def entries(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> tuple[Sequence[QueueEntry], int | None]:
    """See ISpool.entries: a recipient whose record makes no sense is left out."""
    try:
        return queries.entries(connection, filters, after, limit)
    except Exception as error:
        if isinstance(error, KeyError) or not undecodable(error):
            raise
    where, values = conditions(filters)
    numbers = connection.execute(
        f"SELECT r.number FROM recipient r JOIN message m ON m.number = r.message WHERE r.number > ?{where} ORDER BY r.number LIMIT ?",  # noqa: S608
        [after, *values, limit],
    ).fetchall()
    found: list[QueueEntry] = []
    for (number,) in numbers:
        try:
            found += queries.entries(connection, {**filters, "up_to": number}, number - 1, 1)[0]
        except Exception as error:
            if not undecodable(error):
                raise
    return found, numbers[-1][0] if len(numbers) >= limit else None


def _listed(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int) -> Iterator[Mapping[str, Any]]:
    state = filters.get("state")
    columns = "number, state, address, due, attempts, reply, route_id, domain"
    rows = connection.execute(
        f"SELECT {columns} FROM recipient WHERE number > ? AND (? IS NULL OR state = ?) ORDER BY number",  # noqa: S608
        (after, state, state),
    )
    for number, found, address, when, attempts, reply, route_id, domain in rows:
        try:
            yield from queries.recipients(connection, {**filters, "up_to": number}, number - 1, 1, as_far_as_possible)
        except Exception as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            if not filters.keys() - {"state"}:
                told = {"number": number, "state": found, "recipient": address, "due": when, "attempts": attempts, "last_reply": reply}
                yield {**_NOT_READ, **told, "route_id": route_id, "domain": domain}


def lanes(connection: sqlite3.Connection) -> tuple[Sequence[tuple[Lane, float]], str]:
    """See ISpool.lanes: the lanes, and what is wrong with the database, if anything is."""
    try:
        return queries.lanes(connection), ""
    except sqlite3.Error as error:
        if not (is_damage(error) or undecodable(error)):
            raise
        wrong = str(error)
    first: dict[Lane, float] = {}
    for _, route_id, domain, when, _ in _readable(connection):
        lane = Lane(route_id, domain)
        first[lane] = min(when, first.get(lane, when))
    return list(first.items()), wrong


def events(connection: sqlite3.Connection, after: int, limit: int) -> tuple[Sequence[tuple[int, Event]], Sequence[int]]:
    """See ISpool.events: the events, and the numbers of those that can't be read (or are not there)."""
    try:
        return queries.events(connection, after, limit), ()
    except sqlite3.Error as error:
        if not (is_damage(error) or undecodable(error)):
            raise
    found: list[tuple[int, Event]] = []
    missed: list[int] = []
    last = connection.execute("SELECT MAX(sequence) FROM event").fetchone()[0] or 0
    while after < last and len(found) < limit and len(missed) < MOST_MISSED:
        try:
            page = queries.events(connection, after, 1)
        except sqlite3.Error as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            after += 1
            missed.append(after)
        else:
            found += page
            after = page[-1][0] if page else last
    return found, missed


def unknown_states(connection: sqlite3.Connection) -> Sequence[DamagedRecipient]:
    """The recipients whose state is none, so that nothing would ever be done about them."""
    rows = connection.execute(f"SELECT number FROM recipient NOT INDEXED WHERE state NOT IN ({_KNOWN})")  # noqa: S608
    return [DamagedRecipient(number, "its state is unknown") for (number,) in rows]


def _numbers(connection: sqlite3.Connection, lane: Lane, now: float, limit: int) -> tuple[Sequence[int], str]:
    """The numbers of a lane's due recipients, by the index or, when that is damaged, by the table."""
    try:
        return [number for (number,) in connection.execute(_NUMBERS, (lane.route_id, lane.domain, now, limit))], ""
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        wrong = str(error)
    found = [
        (-priority, when, number)
        for number, route_id, domain, when, priority in _readable(connection)
        if (route_id, domain) == (lane.route_id, lane.domain) and when <= now
    ]
    return [number for _, _, number in sorted(found)[:limit]], wrong


def _readable(connection: sqlite3.Connection) -> Iterator[tuple[int, str, str, float, int]]:
    """Every waiting recipient that can be read: from the first up to the damage, then from the last down to it."""
    with leniently(connection):
        seen = 0
        for order in ("ASC", "DESC"):
            try:
                for row in connection.execute(f"{_ALL} {order}"):
                    if order == "DESC" and row[0] <= seen:
                        return
                    seen = row[0] if order == "ASC" else seen
                    yield row
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            else:
                return


@contextmanager
def leniently(connection: sqlite3.Connection) -> Iterator[None]:
    """Read text that is no UTF-8 as far as it is some."""
    connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
    try:
        yield
    finally:
        connection.text_factory = str


def as_far_as_possible(text: str | bytes) -> Any:
    """The JSON object, or an empty one where it is none."""
    try:
        told = orjson.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _reason(error: Exception) -> str:
    if is_damage(error):
        return f"its record can't be read: {error}"
    return f"its record makes no sense ({type(error).__name__})"
