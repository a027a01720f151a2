"""What ``lettermta-queue`` shows to people: a table where there is room for one, a few lines each where there isn't.

On a terminal every line fits its width, and what is cut ends in an ellipsis (``show`` and ``--json`` have it whole); elsewhere nothing is
cut. What came from clients and other servers can't steer the terminal: characters that don't print are shown by their code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lettermta.message import WAITING

TABLE_WIDTH = 160
"""Columns that a terminal must have for the table."""
_FACTS = "{:<36}  {:<11}  {:>4}  {:>4}  {:>5}"
_FACT_TITLES = ("ID", "STATE", "AGE", "NEXT", "TRIES")
_FACTS_WIDTH = 68
_TITLES = ("RECIPIENT", "SENDER", "TAG", "LAST REPLY")
_WIDTHS = (32, 28, 14)


def visible(text: str) -> str:
    """The text on one line, with what does not print (escape sequences, bidirectional marks) as its code."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def span(seconds: float) -> str:
    """A time span in two digits and a unit or so: operators compare, they don't calculate."""
    if seconds <= 0:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def why(row: Mapping[str, Any]) -> str:
    """What was said last to a recipient; of one that was not tried, as its destination can't be reached, what that one said."""
    if "not_tried" in row:
        return f"not tried yet: {row['not_tried']}"
    return row["last_reply"] or ""


class Listing:
    """Lines for the rows of a list. ``width`` is the terminal's, None where the output goes elsewhere."""

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._widths = _WIDTHS if width is None else _shares(width)

    def heading(self) -> str:
        """The line above the first row."""
        facts = _FACTS.format(*_FACT_TITLES)
        return f"{facts}  {self._cells(_TITLES)}" if self._as_table else facts

    def lines(self, row: Mapping[str, Any], now: float) -> Iterator[str]:
        """The lines of one row."""
        following = span(row["due"] - now) if row["state"] in WAITING else "-"
        facts = _FACTS.format(row["id"], row["state"], span(now - row["created"]) if row["created"] else "-", following, row["attempts"])
        recipient, sender, reply = visible(row["recipient"]), visible(row["sender"]) or "<>", visible(why(row))
        if self._as_table:
            yield f"{facts}  {self._cells((recipient, sender, row['tag'] or '-', reply or '-'))}"
            return
        tag = f"  tag {row['tag']}" if row["tag"] else ""
        yield facts
        yield self._fitted(f"    {recipient}  from {sender}{tag}")
        if reply:
            yield self._fitted(f"    {reply}")

    @property
    def _as_table(self) -> bool:
        return self._width is None or self._width >= TABLE_WIDTH

    def _cells(self, cells: Sequence[str]) -> str:
        *columns, last = cells
        if self._width is not None:
            columns = [cut(cell, width) for cell, width in zip(columns, self._widths, strict=True)]
            last = cut(last, self._width - _FACTS_WIDTH - 2 - sum(self._widths) - 2 * len(columns))
        return "  ".join([*(f"{cell:<{width}}" for cell, width in zip(columns, self._widths, strict=True)), last]).rstrip()

    def _fitted(self, line: str) -> str:
        return line if self._width is None else cut(line, self._width)


def _shares(width: int) -> tuple[int, ...]:
    """The widths of recipient, sender and tag; the last reply has the rest."""
    room = max(width, TABLE_WIDTH) - _FACTS_WIDTH
    return (room * 28 // 100, room * 20 // 100, room * 10 // 100)


def cut(text: str, width: int) -> str:
    """The text in at most ``width`` columns."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def message_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """All there is to show of one message."""
    for name in ("id", "project", "route", "sender", "tag", "size", "created", "expires"):
        if name in shown:
            value = "<>" if name == "sender" and not shown[name] else shown[name]
            yield f"{name:<10} {_value(value)}"
    for key, value in shown.get("metadata", {}).items():
        yield f"{'metadata':<10} {visible(key)} = {visible(value)}"
    for name, asked in shown.get("options", {}).items():
        yield f"{'option':<10} {visible(name)} = {visible(str(asked))}"
    if not shown["recipients"]:
        yield f"{'state':<10} no longer in the queue"
    for row in shown["recipients"]:
        attempts = f"{row['attempts']} attempt{'' if row['attempts'] == 1 else 's'}"
        following = f", next {row['due']}" if row["due"] else ""
        yield f"{'recipient':<10} {visible(row['recipient'])}  {row['state']}, {attempts}{following}"
        if said := why(row):
            yield f"{'':<10}   {visible(said)}"
    for told in shown["events"]:
        recipient = visible(told["document"].get("data", {}).get("recipient", ""))
        yield f"{'event':<10} {told['timestamp']}  {told['event']}  {recipient}".rstrip()
    if shown.get("headers"):
        yield "headers"
        for line in shown["headers"]:
            yield f"  {visible(line.expandtabs())}"


def _value(value: object) -> str:
    return "-" if value in (None, "") else visible(str(value))
