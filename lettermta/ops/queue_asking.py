"""What the commands of ``lettermta-queue`` share: the filters on the command line, and how rows are printed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from lettermta.config import kinds
from lettermta.config.faults import Wrong
from lettermta.message import State
from lettermta.ops.queue_source import Source


class UsageFault(Exception):
    """The command line asks for what does not go together."""


FILTERS = ("id", "project", "route", "tag", "sender", "recipient", "domain", "state", "reason")
LONGEST_REASON = 300
"""Characters of a reason that an operator gives."""


def add_filters(command: argparse.ArgumentParser, *, own_reason: bool = False) -> None:
    """Give a command every filter. What the last reply says is ``--reason`` or ``--reply``; with ``own_reason`` only the latter."""
    for name in FILTERS:
        choices = [state.value for state in State] if name == "state" else None
        words = "what the last reply has in it, without regard to case" if name == "reason" else None
        options = [f"--{name}"] if name != "reason" else ["--reply"] if own_reason else ["--reason", "--reply"]
        command.add_argument(*options, type=text, choices=choices, metavar=name.upper(), help=words, dest=f"filter_{name}")
    command.add_argument("--metadata", type=pair, action="append", metavar="KEY=VALUE", help="may be given several times")
    command.add_argument("--age", type=age, metavar="SPAN", help="accepted at least that long ago, like 30m or 2h")


def chosen(args: argparse.Namespace, source: Source) -> Iterator[str]:
    """The ids of the messages that a command is for: the one that is named, and those in the queue that pass the filters."""
    filters = filters_of(args)
    if (args.message is None) is not bool(filters):
        raise UsageFault("give the ID of a message, or filters for those in the queue")
    if args.message is not None:
        yield args.message
    elif filters.keys() == {"id"}:
        yield filters["id"]
    else:
        last = None
        for row in source.recipients(filters):
            if row["id"] != last:  # the recipients of one message stand together
                yield (last := row["id"])


def add_message(command: argparse.ArgumentParser) -> None:
    """Let a command be for one message by its id, or for those that pass filters."""
    command.add_argument("message", type=text, nargs="?", metavar="ID")
    add_filters(command)


def filters_of(args: argparse.Namespace) -> dict[str, Any]:
    """The filters that were given, as the spool knows them."""
    given = {name: getattr(args, f"filter_{name}") for name in FILTERS}
    filters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if args.metadata:
        filters["metadata"] = dict(args.metadata)
    if args.age is not None:
        filters["created_before"] = time.time() - args.age
    return filters


def text(given: str) -> str:
    """An argument that can be asked for: what isn't UTF-8 is nowhere in the spool, and can't be sent to the daemon."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{given!r} is not UTF-8") from None
    return given


def line(given: str) -> str:
    """A reason: one line that prints."""
    given = text(given).strip()
    if not given or not given.isprintable() or len(given) > LONGEST_REASON:
        raise argparse.ArgumentTypeError(f"one line of at most {LONGEST_REASON} characters is expected")
    return given


def pair(given: str) -> tuple[str, str]:
    """A key and its value."""
    key, sign, value = text(given).partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{given!r}: key=value is expected")
    return key, value


def age(given: str) -> float:
    """A time span, in seconds."""
    try:
        return kinds.DURATION.parse(given.strip(), Path())
    except Wrong as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def print_json(shown: Mapping[str, Any]) -> None:
    """One object on one line."""
    if sys.stdout.encoding.lower().replace("-", "") == "utf8":
        print(orjson.dumps(shown).decode())
    else:
        # JSON has its own way to say what the locale can't.
        print(json.dumps(shown))
