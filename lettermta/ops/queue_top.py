"""``lettermta-queue top``: what is in the queue, once a second, on a terminal. The keys in its last line choose what is counted by.

Plain escape sequences on the terminal's other screen; the terminal is put back as it was however this ends.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lettermta.ops.queue_asking import UsageFault, add_filters, filters_of
from lettermta.ops.queue_source import DaemonFault, Source
from lettermta.ops.queue_stats import COUNTED, stats_lines
from lettermta.ops.queue_text import cut

EVERY = 1.0
"""Seconds between two looks."""
_KEYS = {"d": "destination", "n": "domain", "p": "project", "r": "route", "t": "tag", "s": "state"}
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def add_commands(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command."""
    command = add("top", _top, "what is in the queue, live; q quits")
    add_filters(command)
    command.add_argument("--by", choices=COUNTED, default=COUNTED[0], help=f"what to count by (default: {COUNTED[0]})")


def _top(args: argparse.Namespace, source: Source) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageFault("top is for a terminal: elsewhere there is stats")
    by, filters = args.by, filters_of(args)
    with _screen():
        while True:
            _draw(_look(source, by, filters), by)
            key = _key(time.monotonic() + EVERY)
            if key in ("q", "Q", "\x03", "\x04"):
                return os.EX_OK
            by = _KEYS.get(key, by)


def _look(source: Source, by: str, filters: Mapping[str, Any]) -> list[str]:
    """What there is to show now: the queue, or why there is nothing to be seen of it."""
    try:
        rows = list(source.ask("stats", by=by, filters=filters))
    except (OSError, DaemonFault) as fault:
        return [f"the daemon does not answer: {fault}"]
    total = sum(row["count"] for row in rows)
    return [f"{total} recipient{'' if total == 1 else 's'} in the queue, by {by}", "", *stats_lines(rows, by, time.time())]


@contextmanager
def _screen() -> Iterator[None]:
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        print(_ENTER, end="", flush=True)
        yield
    finally:
        print(_LEAVE, end="", flush=True)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _draw(seen: list[str], by: str) -> None:
    """The time and what is seen, as far as there is room, and the keys in the last line."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    width, height = width or 80, height or 24
    lines = [f"{time.strftime('%H:%M:%S')}  {seen[0]}", *seen[1:]][: max(height - 2, 1)]
    text = "".join(f"{cut(line, width)}\x1b[K\r\n" for line in lines)
    keys = "  ".join(f"{key} {name}" for key, name in (*_KEYS.items(), ("q", "quit")) if name != by)
    print(f"\x1b[H{text}\x1b[J\x1b[{height};1H{cut(keys, width - 1)}", end="", flush=True)


def _key(until: float) -> str:
    """The key that is struck before the time has come, or nothing."""
    ready, _, _ = select.select([sys.stdin], [], [], max(until - time.monotonic(), 0.0))
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") if ready else ""
