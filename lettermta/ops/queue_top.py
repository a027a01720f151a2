"""``lettermta-queue top``: what is in the queue, once a second, on a terminal. ``d p r t s`` choose what is counted by, ``q`` quits.

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
from lettermta.ops.queue_source import Source
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
            rows = list(source.ask("stats", by=by, filters=filters))
            _draw(rows, by)
            key = _key(time.monotonic() + EVERY)
            if key in ("q", "Q", "\x03", "\x04"):
                return os.EX_OK
            by = _KEYS.get(key, by)


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


def _draw(rows: list[Mapping[str, Any]], by: str) -> None:
    width, height = os.get_terminal_size(sys.stdout.fileno())
    width, height = width or 80, height or 24
    total = sum(row["count"] for row in rows)
    head = f"{time.strftime('%H:%M:%S')}  {total} recipients in the queue, by {by}   keys: {' '.join(_KEYS)}, q"
    lines = [head, "", *stats_lines(rows[: max(height - 4, 0)], by, time.time())]
    text = "".join(f"{cut(line, width)}\x1b[K\r\n" for line in lines[: height - 1])
    print(f"\x1b[H{text}\x1b[J", end="", flush=True)


def _key(until: float) -> str:
    """The key that is struck before the time has come, or nothing."""
    ready, _, _ = select.select([sys.stdin], [], [], max(until - time.monotonic(), 0.0))
    return os.read(sys.stdin.fileno(), 1).decode("ascii", "replace") if ready else ""
