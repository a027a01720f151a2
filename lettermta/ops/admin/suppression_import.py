"""A file of suppressions, line by line into the spool.

Each line is an address (or a domain, or an extension) alone; or CSV, by the names in a heading (``value`` or ``email`` or ``address``,
``reason``, ``applies_to``) or else in that order; or a JSON object with these names. Empty lines and those that begin with # are passed
over. A line that makes no sense is named and left out, and the rest goes on.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TypeVar

from lettermta.ops.command_line import say
from lettermta.ops.queue_source import Source
from lettermta.ops.suppressing import scope_row
from lettermta.suppression import AppliesTo, Scope, SuppressionReason, value_of

MOST_ENTRIES = 500
"""Of one commit."""
MOST_OCTETS = 40_000
"""Of one request, which the control socket takes up to 64 KB of."""
TELL_EVERY = 1.0
"""Seconds between two words on a terminal on how far it has come."""

_VALUE_NAMES = ("value", "email", "address", "recipient")

E = TypeVar("E", SuppressionReason, AppliesTo)
Entry = list[str | None]
"""A value, a reason, and what it applies to."""


class Importer:
    """Puts a file into one scope. ``reason`` and ``applies_to`` hold for lines that say nothing of their own."""

    def __init__(self, spool: Source, scope: Scope, reason: SuppressionReason, applies_to: AppliesTo | None, *, told: bool) -> None:
        self._spool = spool
        self._scope = scope_row(scope)
        self._reason = reason
        self._applies_to = applies_to
        self._told = told
        self._tell_at = time.monotonic() + TELL_EVERY
        self._shown = False
        self.read = self.added = self.faults = 0

    def take(self, lines: IO[str], name: str) -> None:
        """All lines of a file of that name."""
        entries: list[Entry] = []
        octets = 0
        for entry in self._entries(lines, name):
            entries.append(entry)
            octets += len(json.dumps(entry)) + 2
            if len(entries) >= MOST_ENTRIES or octets >= MOST_OCTETS:
                self._put(entries)
                entries, octets = [], 0
        self._put(entries)
        if self._shown:
            say("")

    def _put(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        [answer] = self._spool.ask("suppress", scope=self._scope, entries=entries, told=self._told)
        self.read += len(entries)
        self.added += answer["added"]
        if sys.stderr.isatty() and time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + TELL_EVERY
            self._shown = True
            print(f"\r{self.read:,} read, {self.added:,} added", end="", file=sys.stderr, flush=True)

    def _entries(self, lines: IO[str], name: str) -> Iterator[Entry]:
        columns: Sequence[str] | None = None
        for number, line in enumerate(lines, 1):
            line = line.strip().removeprefix("\ufeff")
            if not line or line.startswith("#"):
                continue
            try:
                cells = _cells(line)
                if columns is None:
                    columns, heading = _columns(cells)
                    if heading:
                        continue
                yield self._entry(dict(zip(columns, cells, strict=False)) if isinstance(cells, list) else cells)
            except (ValueError, csv.Error) as fault:
                self.faults += 1
                say(f"{name}:{number}: {fault}")

    def _entry(self, told: Mapping[str, object]) -> Entry:
        text = next((told[one] for one in _VALUE_NAMES if told.get(one)), None)
        if not isinstance(text, str):
            raise ValueError("there is no address")
        reason = _one_of(SuppressionReason, told.get("reason")) or self._reason
        applies_to = _one_of(AppliesTo, told.get("applies_to")) or self._applies_to
        return [value_of(text), reason.value, applies_to and applies_to.value]


def _cells(line: str) -> list[str] | Mapping[str, object]:
    if line.startswith("{"):
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("expected a JSON object")
        return told
    # A quoted local part may have a comma in it, and is no cell of a table for that.
    return next(csv.reader([line], skipinitialspace=True)) if "," in line and not _is_value(line) else [line]


def _is_value(line: str) -> bool:
    try:
        value_of(line)
    except ValueError:
        return False
    return True


def _columns(cells: list[str] | Mapping[str, object]) -> tuple[Sequence[str], bool]:
    """The names of the columns, and whether the first line is the heading that says so."""
    if isinstance(cells, list):
        names = [cell.strip().lower().replace(" ", "_") for cell in cells]
        if any(name in _VALUE_NAMES for name in names):
            return names, True
    return ("value", "reason", "applies_to"), False


def _one_of(kind: type[E], given: object) -> E | None:
    if not given:
        return None
    try:
        return kind(str(given).strip().lower())
    except ValueError:
        raise ValueError(f"{given!r}: expected one of {', '.join(kind)}") from None
