"""``docs/clients.md`` as a test reads it: the code of each section, and what its table says can be written instead.

A block of code whose fence names a file (as in "```python send.py") is that file. Of the table, the first column says what for, the
second what is replaced in the code, the third by what; ``the default`` and ``metadata keys`` say what is to be expected. A page that isn't
of that form raises ValueError, so that nothing on it goes untested unseen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

PAGE = Path(__file__).parents[1] / "docs" / "clients.md"
IMPLICIT_TLS = "implicit TLS"

_SECTION = re.compile(r"^## (.+)$", re.M)
_BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.M | re.S)
_ROW = re.compile(r"^\| (?!for )(.+?) \| ?(.*?) \| (.+?) \|$", re.M)
_CODE = re.compile(r"`([^`]+)`")


@frozen
class Section:
    """One client's section."""

    title: str
    files: Mapping[str, str]
    changes: Mapping[str, Sequence[tuple[str, str]]]
    """What to replace by what, for implicit TLS and for ``AUTH mechanism``."""
    default: str
    """The mechanism that the client takes by itself."""
    keys: tuple[str, str]
    """How the keys ``orderId`` and ``sold_by`` arrive."""

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms that can be set."""
        return [purpose.removeprefix("AUTH ") for purpose in self.changes if purpose.startswith("AUTH ")]

    def changed(self, *purposes: str) -> dict[str, str]:
        """The files with all replacements for these purposes."""
        files = dict(self.files)
        for purpose in purposes:
            for old, new in self.changes[purpose]:
                found = [name for name, text in files.items() if old in text]
                if len(found) != 1 or files[found[0]].count(old) != 1:
                    raise ValueError(f"{self.title}: {old!r} is not in the code, or more than once")
                files[found[0]] = files[found[0]].replace(old, new)
        return files


def texts() -> dict[str, str]:
    """What the page has under each of its titles."""
    _, *parts = _SECTION.split(PAGE.read_text())
    return dict(zip(parts[::2], parts[1::2], strict=True))


def sections() -> dict[str, Section]:
    """All sections that have code to be run, by their titles."""
    return {title: _section(title, text) for title, text in texts().items() if _BLOCK.search(text)}


def _section(title: str, text: str) -> Section:
    changes: dict[str, list[tuple[str, str]]] = {}
    default = ""
    keys: list[str] = []
    for purpose, old, new in _ROW.findall(text):
        if purpose == "the default":
            default = new.removeprefix("AUTH ").partition(",")[0]
        elif purpose == "metadata keys":
            keys = _CODE.findall(new)
        elif purpose == IMPLICIT_TLS or purpose.startswith("AUTH "):
            changes.setdefault(purpose, []).append((_only_code(title, old), "" if new == "(nothing)" else _only_code(title, new)))
        elif not purpose.startswith("-"):
            raise ValueError(f"{title}: a row for {purpose!r}")
    if not default or len(keys) != 2 or IMPLICIT_TLS not in changes:
        raise ValueError(f"{title}: the default, implicit TLS or the metadata keys are missing")
    return Section(title, dict(_BLOCK.findall(text)), changes, default, (keys[0], keys[1]))


def _only_code(title: str, cell: str) -> str:
    match = _CODE.fullmatch(cell)
    if match is None:
        raise ValueError(f"{title}: {cell!r} is not code alone")
    return match[1]
