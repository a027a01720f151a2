"""How accounts are shown: whole or as a table for people, as one JSON object a line for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence

from lettermta.accounts.shown import Shown
from lettermta.ops.command_line import say


def print_one(args: argparse.Namespace, shown: Shown, words: str | None = None) -> None:
    """Print one account whole; or only ``words`` about what was done to it, to standard error, when JSON wasn't asked for."""
    if words is not None:
        say(words)
    if args.json:
        print(json.dumps(shown))
    elif words is None:
        width = max(map(len, shown))
        for name, value in shown.items():
            print(f"{name:<{width}}  {_cell(value)}")


def print_many(args: argparse.Namespace, columns: Sequence[str], accounts: Iterable[Shown]) -> None:
    """Print accounts as columns under a heading, or as one JSON object a line."""
    if args.json:
        for shown in accounts:
            print(json.dumps(shown))
        return
    print_columns(columns, ([shown[name] for name in columns] for shown in accounts))


def print_columns(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print values as columns under a heading."""
    lines = [[name.replace("_", " ").upper() for name in columns]]
    lines += [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case tuple():
            return ", ".join(map(_cell, value))
        case float() if value.is_integer():
            return str(int(value))
        case bool():
            return "yes" if value else "no"
        case {"host": str(host), "port": port, "tls": tls, "username": username}:
            user = f"{username}@" if username else ""
            return f"{user}[{host}]:{port}/{tls}" if ":" in host else f"{user}{host}:{port}/{tls}"
        case _:
            return str(value)
