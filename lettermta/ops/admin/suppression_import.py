"""A file of suppressions, line by line into the spool.

Each line is an address (or a domain, or an extension) alone; or a table's row with commas, semicolons or tabs in it, by the names in a
heading (``value`` or ``email`` or ``address``, ``reason``, ``applies_to``, ``route``) or else the first three in that order; or a JSON
object with these names. Empty lines and those that begin with # are passed over. A line that makes no sense is named and left out, and the
rest goes on.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import IO, TypeVar

from lettermta.accounts.errors import AccountError
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

_VALUE_NAMES = ("value", "email", "address", "recipient", "email_address", "e-mail")
_SEPARATORS = ",;\t"

E = TypeVar("E", SuppressionReason, AppliesTo)
Entry = list[str | None]
"""A value, a reason, and what it applies to."""
ScopeOf = Callable[[str], Scope]
"""The scope of a line that names a route, or names none (an empty text). Raises AccountError where there is no such route."""


class Importer:
    """Puts a file into the scopes that it names. ``reason`` and ``applies_to`` hold for lines that say nothing of their own."""

    def __init__(self, spool: Source, scope_of: ScopeOf, reason: SuppressionReason, applies_to: AppliesTo | None, *, told: bool) -> None:
        self._spool = spool
        self._scope_of = lru_cache(scope_of)
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
        last = None
        for scope, entry in self._entries(lines, name):
            if len(entries) >= MOST_ENTRIES or octets >= MOST_OCTETS or scope != last:
                self._put(last, entries)
                entries, octets, last = [], 0, scope
            entries.append(entry)
            octets += len(json.dumps(entry)) + 2
        self._put(last, entries)
        if self._shown:
            say("")

    def _put(self, scope: Scope | None, entries: Sequence[Entry]) -> None:
        if scope is None:
            return
        [answer] = self._spool.ask("suppress", scope=scope_row(scope), entries=entries, told=self._told)
        self.read += len(entries)
        self.added += answer["added"]
        if sys.stderr.isatty() and time.monotonic() >= self._tell_at:
            self._tell_at = time.monotonic() + TELL_EVERY
            self._shown = True
            print(f"\r{self.read:,} read, {self.added:,} added", end="", file=sys.stderr, flush=True)

    def _entries(self, lines: IO[str], name: str) -> Iterator[tuple[Scope, Entry]]:
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
            except (ValueError, csv.Error, AccountError) as fault:
                self.faults += 1
                say(f"{name}:{number}: {fault}")

    def _entry(self, told: Mapping[str, object]) -> tuple[Scope, Entry]:
        text = next((told[one] for one in _VALUE_NAMES if told.get(one)), None)
        if not isinstance(text, str):
            raise ValueError("there is no address")
        reason = _one_of(SuppressionReason, told.get("reason")) or self._reason
        applies_to = _one_of(AppliesTo, told.get("applies_to")) or self._applies_to
        return self._scope_of(str(told.get("route") or "").strip()), [value_of(text), reason.value, applies_to and applies_to.value]


def _cells(line: str) -> list[str] | Mapping[str, object]:
    if line.startswith("{"):
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("expected a JSON object")
        return told
    separator = max(_SEPARATORS, key=line.count)
    # A quoted local part may have a comma in it, and is no row of a table for that.
    if separator not in line or _is_value(line):
        return [line]
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True))


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
