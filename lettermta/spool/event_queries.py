"""Finding events by what they tell, for the tools: each is looked into, so a long outbox takes its time."""

# ruff: noqa: S608 - what is put into statements are our own words; values are parameters

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from lettermta import event
from lettermta.event import Event
from lettermta.message import State, spellings

# What is no JSON would end the whole question.
_JSON = "CASE WHEN json_valid(e.payload) THEN CAST(e.payload AS TEXT) END"
_DATA = f"json_extract({_JSON}, '$.data"
_CONTEXT = f"json_extract({_JSON}, '$.context"

_CONDITIONS: Mapping[str, str] = {
    "id": "e.message_id = ?1",
    "event": "e.name = ?1",
    "event_id": "e.id = ?1",
    "since": "e.created >= ?1",
    "until": "e.created < ?1",
    "created_before": "e.created <= ?1",
    "project": f"{_CONTEXT}.project') = ?1",
    "route": f"{_CONTEXT}.route') = ?1",
    "tag": f"{_DATA}.tag') = ?1",
    "recipient": f"casefold({_DATA}.recipient')) = casefold(?1)",
    "domain": f"casefold(substr({_DATA}.recipient'), -length(?1) - 1)) = '@' || casefold(?1)",
    "reason": f"instr(casefold(COALESCE({_DATA}.response.content'), {_DATA}.reason'), '')), casefold(?1)) > 0",
    # Who sent it stands in the first event of a message, and with the message as long as that is in the queue.
    "sender": "(EXISTS (SELECT 1 FROM message m WHERE m.id = e.message_id AND casefold(m.sender) = casefold(?1))"
    f" OR EXISTS (SELECT 1 FROM event c WHERE c.message_id = e.message_id AND c.name = '{event.CREATED}'"
    " AND json_valid(c.payload) AND casefold(json_extract(CAST(c.payload AS TEXT), '$.data.from.email')) = casefold(?1)))",
    "metadata": f"EXISTS (SELECT 1 FROM json_each({_JSON}, '$.data.metadata') j WHERE j.key = ?1 AND j.value = ?2)",
}
"""By filter, a condition on the event ``e`` and the filter's own parameters."""

_TOLD: Mapping[str, tuple[str, ...]] = {
    State.QUEUED: (event.CREATED, event.RELEASED),
    State.SCHEDULED: (event.SCHEDULED, event.RESCHEDULED),
    State.DEFERRED: (event.SOFT_BOUNCED,),
    State.DELIVERED: (event.DELIVERED,),
    State.BOUNCED: (event.HARD_BOUNCED, event.FAILED),
    State.EXPIRED: (event.FAILED,),
    State.SUPPRESSED: (event.SUPPRESSED,),
    State.CANCELED: (event.CANCELED,),
}
"""The events that tell of a state; of the others there are none."""


def find_events(connection: sqlite3.Connection, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[tuple[int, Event]]:
    """See ISpool.find_events. Raises KeyError for a filter that does not exist."""
    parts: list[str] = []
    values: list[Any] = [after]
    for name, value in filters.items():
        if name == "metadata":
            for pair in value.items():
                _add(parts, values, _CONDITIONS[name], pair)
        elif name == "state":
            names = _TOLD.get(value, ())
            parts.append(f"e.name IN ({','.join('?' * len(names))})")
            values += names
        elif name == "domain":
            where_each: list[str] = []
            for form in sorted(spellings(value)):
                _add(where_each, values, _CONDITIONS[name], (form,))
            parts.append(f"({' OR '.join(where_each)})")
        else:
            _add(parts, values, _CONDITIONS[name], (value,))
    where = "".join(f" AND {part}" for part in parts)
    statement = (
        "SELECT e.sequence, e.id, e.name, e.message_id, e.created, e.payload FROM event e"
        f" WHERE e.sequence > ?{where} ORDER BY e.sequence LIMIT ?"
    )
    return [(row[0], Event(*row[1:])) for row in connection.execute(statement, [*values, limit])]


def event_row(sequence: int, event: Event) -> Mapping[str, Any]:
    """An event as the tools have it: its ``document``, or in its place ``damaged``, the words for one that can't be read."""
    try:
        document = event.document
        if isinstance(document["data"], dict) and document.keys() >= {"event", "timestamp"}:
            return {"sequence": sequence, "document": document}
    except (ValueError, LookupError, TypeError):
        pass
    return {"sequence": sequence, "damaged": f"event {sequence}, a {event.name} of message {event.message_id}, makes no sense"}


def _add(parts: list[str], values: list[Any], condition: str, given: Sequence[Any]) -> None:
    """Add a condition whose parameters ``?1`` and ``?2`` become the next ones of the statement."""
    first = len(values)
    for number in range(len(given), 0, -1):
        condition = condition.replace(f"?{number}", f"?{first + number}")
    parts.append(condition)
    values += given
