"""What the queue tools can ask for, as conditions on recipients and messages. Values are bound as parameters, never part of a statement.

Addresses and replies are compared without regard to case. SQLite knows the case of ASCII alone, and fast; ``casefold``
(:func:`lettermta.spool.schema.connect`) that of all, and is asked for where the wanted text has more than ASCII in it: what hasn't is
not equal to such a text anyway, whatever its case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lettermta.message import spellings

CONDITIONS: Mapping[str, str] = {
    "id": "m.id = ?",
    "project": "m.project = ?",
    "route": "m.route = ?",
    "tag": "m.tag = ?",
    "sender": "m.sender = ? COLLATE NOCASE",
    "recipient": "r.address = ? COLLATE NOCASE",
    "state": "r.state = ?",
    "reason": "instr(lower(r.reply), lower(?)) > 0",
    "created_before": "m.created <= ?",
    "rule": "r.rule = ?",
    "up_to": "r.number <= ?",
}
"""Filters that look at a column of the recipient ``r`` or its message ``m``. Besides, ``domain`` finds each way to write a domain, and
``metadata`` is a mapping and has a condition for each key."""

_BEYOND_ASCII: Mapping[str, str] = {
    "sender": "casefold(m.sender) = casefold(?)",
    "recipient": "casefold(r.address) = casefold(?)",
    "reason": "instr(casefold(r.reply), casefold(?)) > 0",
}
# A record that is no JSON would end the whole question.
_METADATA = "CASE WHEN json_valid(m.metadata) THEN EXISTS (SELECT 1 FROM json_each(m.metadata) j WHERE j.key = ? AND j.value = ?) END"


def conditions(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The filters as SQL that goes on behind another condition, and its parameters. Raises KeyError for a filter that does not exist."""
    parts: list[str] = []
    values: list[Any] = []
    for name, value in filters.items():
        if name == "metadata":
            for pair in value.items():
                parts.append(_METADATA)
                values += pair
        elif name == "domain":
            forms = sorted(spellings(value))
            parts.append(f"r.domain IN ({','.join('?' * len(forms))})")
            values += forms
        else:
            beyond = isinstance(value, str) and not value.isascii()
            parts.append(_BEYOND_ASCII.get(name, CONDITIONS[name]) if beyond else CONDITIONS[name])
            values.append(value)
    return "".join(f" AND {part}" for part in parts), values
