"""What the verbs are given: values among the options, a password from a file, the answer to a question."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TypeVar

from lettermta.accounts.errors import InvalidAccount
from lettermta.config.faults import Wrong
from lettermta.config.kinds import Kind

STANDARD_INPUT = "-"
T = TypeVar("T")


class Misused(Exception):
    """The command line can't be followed; found after it was parsed."""


class Unmet(Exception):
    """What was looked at isn't as it has to be."""


class Unsettled(Exception):
    """What was asked can't be told now."""


class Declined(Exception):
    """The question was answered by no."""


def ask_for_change(options: Iterable[object]) -> None:
    """Raise Misused when none of an update's ``options`` was given."""
    if not any(options):
        raise Misused("there is nothing to change among the options")


def confirm(args: argparse.Namespace, deed: str) -> None:
    """Ask whether to do the ``deed`` unless ``--yes`` was given; raises Declined, or Misused where there is nobody to ask."""
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise Misused(f"to {deed} without a terminal to ask on, say --yes")
    print(f"{deed}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Declined


def password(source: str | None) -> str | None:
    """The text of the file ``source``, ``-`` being standard input, without the end of its last line."""
    if source is None:
        return None
    data = sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidAccount("the smarthost's password is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def opened(source: str | None) -> IO[str] | None:
    """The file ``source`` as lines, ``-`` being standard input. Octets that aren't UTF-8 are characters that don't print."""
    if source is None:
        return None
    if source == STANDARD_INPUT:
        return io.TextIOWrapper(sys.stdin.buffer, "utf-8", errors="surrogateescape")
    return Path(source).open(encoding="utf-8", errors="surrogateescape")


def value(kind: Kind[T]) -> Callable[[str], T]:
    """The kind of a value in the configuration as argparse's type of an option."""

    def parse(text: str) -> T:
        try:
            return kind.parse(text, Path())
        except Wrong as wrong:
            raise argparse.ArgumentTypeError(f"{text!r} {wrong.complaint}; expected {kind.expected}") from None

    return parse


def limit(kind: Kind[T]) -> Callable[[str], T | None]:
    """The type of a value that a project or a route can do without: ``default`` stands for the daemon's own."""
    parse = value(kind)
    return lambda text: None if text == "default" else parse(text)
