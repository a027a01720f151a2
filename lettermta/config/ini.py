"""The form of the file: sections, keys and values with their line numbers, and no meaning.

Reading never stops: what is malformed becomes a fault, what depends on it is passed over in silence, and the rest is still read.
(configparser of the standard library keeps no line numbers and stops at the first fault.)

    # a comment, or ; a comment: only whole lines, since a value may hold either sign
    [section]
    key = value
    list = one, two
      three, on an indented line that continues the value
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import Factory, define

from lettermta.config.faults import Fault, quoted

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MISPLACED = re.compile(r"[A-Za-z][A-Za-z0-9_]*\s*=|\[[A-Za-z][^\]:.]*\]$")
"""Like a key or a section: no line of a list is, and taken for one it would be lost."""


@define
class Entry:
    """One key with its value as written: ``lines`` holds the number and the stripped text of each line of the value."""

    key: str
    line: int
    lines: list[tuple[int, str]] = Factory(list)

    @property
    def text(self) -> str:
        """The whole value; its lines are joined by a line feed."""
        return "\n".join(text for _, text in self.lines).strip()

    def line_of(self, item: str | None) -> int:
        """The line on which ``item`` stands, or that of the key when it stands on none."""
        return next((number for number, text in self.lines if item and item in text), self.line)


@define
class Block:
    """One section as written; ``name`` has its words separated by one blank."""

    name: str
    line: int | None = None
    entries: dict[str, Entry] = Factory(dict)


class Reader:
    """Reads one text; afterwards ``blocks`` has the sections by name, in their order, and ``faults`` what is malformed."""

    def __init__(self, file: Path) -> None:
        self.blocks: dict[str, Block] = {}
        self.faults: list[Fault] = []
        self._file = file
        self._block: Block | None = None
        self._entry: Entry | None = None

    def read(self, text: str) -> None:
        """Read the whole text; lines end by LF or CRLF."""
        for number, line in enumerate(text.split("\n"), 1):
            content = line.strip()
            if not content or content[0] in "#;":
                continue
            if _CONTROL.search(content):
                self._fault(number, "a control character", "text")
            elif line[0] in " \t":
                self._continuation(number, content)
            elif content[0] == "[":
                self._header(number, content)
            else:
                self._assignment(number, content)

    def _fault(self, line: int, problem: str, expected: str, key: str | None = None) -> None:
        section = self._block.name if self._block is not None and self._block.name else None
        self.faults.append(Fault(self._file, line, section, key, problem, expected))

    def _continuation(self, number: int, content: str) -> None:
        if self._entry is None:
            self._fault(
                number, "an indented line continues a value, and there is none before it", "keys and sections at the start of their line"
            )
        elif _MISPLACED.match(content):
            self._fault(
                number,
                f"{quoted(content)} is indented, so it continues the value before it",
                "keys and sections at the start of their line",
            )
        else:
            self._entry.lines.append((number, content))

    def _header(self, number: int, content: str) -> None:
        self._entry = None
        name = " ".join(content[1:-1].split())
        if not content.endswith("]") or not name or "[" in name or "]" in name:
            self._block = None
            self._fault(number, f"{quoted(content)} is not the name of a section", "[section] alone on its line")
            self._block = Block("", number)
        elif name in self.blocks:
            self._block = self.blocks[name]
            self._fault(number, f"this section is already on line {self._block.line}", "each section once")
        else:
            self._block = self.blocks[name] = Block(name, number)

    def _assignment(self, number: int, content: str) -> None:
        key, equals, value = content.partition("=")
        key = key.rstrip()
        self._entry = Entry(key, number, [(number, value.strip())])
        if not equals or not key:
            self._fault(number, f"{quoted(content)} is neither a [section] nor key = value nor a comment", "one of them")
        elif self._block is None:
            self._fault(number, "this key stands before the first section", "a [section] above it", key)
        elif key in self._block.entries:
            self._fault(number, f"this key is already on line {self._block.entries[key].line}", "each key once in its section", key)
        else:
            self._block.entries[key] = self._entry
