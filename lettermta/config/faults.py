"""What is wrong with a configuration file: one :class:`Fault` for each thing, all of them in one :class:`ConfigError`.

A fault quotes the file as it is written, never what an environment variable put in its place: that may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

_QUOTED = 80


@frozen
class Fault:
    """One thing that is wrong: where, what, and what was expected there. Its ``str()`` is the line that the operator reads."""

    file: Path
    """The file as it was named to :func:`~lettermta.config.load`."""
    line: int | None
    """None when the fault belongs to no line; a missing key has the line of its section."""
    section: str | None
    key: str | None
    problem: str
    expected: str = ""

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        section = f" [{self.section}]" if self.section is not None else ""
        key = f" {self.key}" if self.key else ""
        place = f"{self.file}{line}:{section}{key}"
        expected = f"; expected {self.expected}" if self.expected else ""
        return f"{place}{':' if key else ''} {self.problem}{expected}"


class ConfigError(Exception):
    """The file can't be used. ``faults`` holds everything that is wrong with it, in the order of its lines; never empty."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.line or 0))
        super().__init__("\n".join(map(str, self.faults)))


class Wrong(Exception):
    """Raised by a kind for a value that isn't one: ``item`` is the part that is wrong, ``complaint`` says what about it.

    The complaint must not repeat the item: whoever catches this knows whether it may be shown. ``more`` is what is wrong besides, where
    the value is a list.
    """

    def __init__(self, item: str, complaint: str, more: Iterable[Wrong] = ()) -> None:
        super().__init__(complaint)
        self.item = item
        self.complaint = complaint
        self.more = tuple(more)


@frozen
class Objection:
    """What a section has against values that are right in themselves but don't go together; ``item`` as in :class:`Wrong`."""

    key: str
    complaint: str
    expected: str
    item: str | None = None


def quoted(text: str) -> str:
    """A piece of the file for an error: on one line, nothing unprintable, of bounded length."""
    line = " ".join(text.split())
    return repr(line if len(line) <= _QUOTED else line[: _QUOTED - 1] + "…")
