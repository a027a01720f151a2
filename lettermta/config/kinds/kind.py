"""What a kind is, and how kinds of one value, of lists and of choices are made."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from attrs import frozen

from lettermta.config.faults import Wrong

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

LISTED = "separated by commas or blanks"

_SEPARATOR = re.compile(r"[,\s]+")


@frozen
class Kind(Generic[T]):
    """``parse`` takes the text, stripped, and the folder that relative paths start from; ``expected`` completes "expected …"."""

    parse: Callable[[str, Path], T]
    expected: str


def one(parse: Callable[[str], T], expected: str) -> Kind[T]:
    """A kind for a value that is never empty."""

    def parse_one(text: str, folder: Path) -> T:
        if not text:
            raise Wrong("", "is empty")
        return parse(text)

    return Kind(parse_one, expected)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, or an empty value, which is None."""
    return Kind(lambda text, folder: kind.parse(text, folder) if text else None, f"{kind.expected}, or nothing")


def several(parse: Callable[[str], T], expected: str, *, least: int = 0, repeats: bool = False) -> Kind[tuple[T, ...]]:
    """A kind for a list: ``least`` items or more, none of them twice unless ``repeats``."""

    def parse_list(text: str, folder: Path) -> tuple[T, ...]:
        seen: list[T] = []

        def parse_item(item: str) -> T:
            value = parse(item)
            if value in seen and not repeats:
                raise Wrong(item, "is there twice")
            seen.append(value)
            return value

        values = each_of(listed(text), parse_item)
        if len(values) < least:
            raise Wrong("", "is empty")
        return values

    return Kind(parse_list, f"{expected}, {LISTED}")


def choice(enumeration: type[E]) -> Kind[E]:
    """One of an enumeration's values."""

    def parse(text: str) -> E:
        try:
            return enumeration(text)
        except ValueError:
            raise Wrong(text, "is none of the choices") from None

    return one(parse, either([member.value for member in enumeration]))


def either(words: list[str]) -> str:
    """``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def each_of(items: Sequence[str], parse: Callable[[str], T]) -> tuple[T, ...]:
    """What ``parse`` makes of each item; raises one :class:`Wrong` that has all that are wrong."""
    values: list[T] = []
    wrong: list[Wrong] = []
    for item in items:
        try:
            values.append(parse(item))
        except Wrong as fault:
            wrong.append(fault)
    if wrong:
        raise Wrong(wrong[0].item, wrong[0].complaint, wrong[1:])
    return tuple(values)


def listed(text: str) -> list[str]:
    """The items of a list, which commas or blanks separate."""
    return [item for item in _SEPARATOR.split(text) if item]


TEXT = Kind(lambda text, folder: text, "text")
