"""What the queue tools can ask for, as conditions on recipients and messages. Values are bound as parameters, never part of a statement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONDITIONS: Mapping[str, str] = {
    "id": "m.id = ?",
    "project": "m.project = ?",
    "route": "m.route = ?",
    "tag": "m.tag = ?",
    "sender": "m.sender = ? COLLATE NOCASE",
    "recipient": "r.address = ? COLLATE NOCASE",
    "domain": "r.domain = lower(?)",
    "state": "r.state = ?",
    "reason": "instr(lower(r.reply), lower(?)) > 0",
    "created_before": "m.created <= ?",
    "rule": "r.rule = ?",
    "up_to": "r.number <= ?",
}
"""Filters that look at a column of the recipient ``r`` or its message ``m``; ``metadata`` is a mapping and has a condition for each key."""


def conditions(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The filters as SQL that goes on behind another condition, and its parameters. Raises KeyError for a filter that does not exist."""
    parts: list[str] = []
    values: list[Any] = []
    for name, value in filters.items():
        if name == "metadata":
            for key, wanted in value.items():
                parts.append("EXISTS (SELECT 1 FROM json_each(m.metadata) j WHERE j.key = ? AND j.value = ?)")
                values += [key, wanted]
        else:
            parts.append(CONDITIONS[name])
            values.append(value)
    return "".join(f" AND {part}" for part in parts), values
