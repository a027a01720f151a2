"""``lettermta-queue stats``: what is in the queue, counted, and what became of the mail by tag and day."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lettermta.event import timestamp
from lettermta.ops.command_line import say
from lettermta.ops.operations import DESTINATION
from lettermta.ops.queue_asking import UsageFault, add_filters, filters_of, print_json
from lettermta.ops.queue_source import Source
from lettermta.ops.queue_text import span, visible
from lettermta.spool.daily import KEEP_DAYS
from lettermta.spool.figures import GROUPS

COUNTED = (DESTINATION, *GROUPS)
"""What the queue can be counted by."""
DAYS = 7
_STATES = ("queued", "scheduled", "deferred", "held", "quarantined")
_STATS = "{:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>6}  {:<{}}  {}"
_LONGEST_NAME = 40
"""Columns that names are given at the most; the last reply stands behind them."""
_TOLD = "{:<10}{} {:>8} {:>8} {:>9} {:>8} {:>7} {:>6} {:>6} {:>6} {:>6}  {}"
_TAG = "  {:<20}"


def add_command(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command."""
    counting = add("stats", _stats, "what is in the queue, counted; by tag and day also what became of the mail")
    add_filters(counting)
    counting.add_argument("--by", choices=(*COUNTED, "day"), default=COUNTED[0], help=f"what to count by (default: {COUNTED[0]})")
    counting.add_argument("--days", type=_days, metavar="N", help=f"by tag or day: of so many days, today among them (default: {DAYS})")


def _days(value: str) -> int:
    if not value.isdigit() or not 1 <= int(value) <= KEEP_DAYS:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number from 1 to {KEEP_DAYS}")
    return int(value)


def _stats(args: argparse.Namespace, source: Source) -> int:
    filters = filters_of(args)
    # What is kept of other days knows projects, and tags, and nothing else of a message.
    told = filters.keys() <= {"project"}
    if args.by == "day" and not told:
        raise UsageFault("--by day goes with --project alone")
    if args.by == "day" or (args.by == "tag" and told):
        return _stats_by_day(args, source, filters)
    if args.days is not None:
        raise UsageFault("--days goes with --by tag or --by day, for all mail or that of one --project")
    rows = list(source.ask("stats", by=args.by, filters=filters))
    if args.json:
        for row in rows:
            print_json(_shown(row))
        return os.EX_OK
    for line in stats_lines(rows, args.by, time.time()):
        print(line)
    _say_count(rows)
    return os.EX_OK


def _stats_by_day(args: argparse.Namespace, source: Source, filters: Mapping[str, Any]) -> int:
    since = time.time() - ((args.days or DAYS) - 1) * 86_400
    told = list(source.ask("daily", by=args.by, since=since, project=filters.get("project")))
    queue = list(source.ask("stats", by="tag", filters=filters)) if args.by == "tag" else []
    if args.json:
        for row in _joined(queue, told) if args.by == "tag" else told:
            print_json(_shown(row))
        return os.EX_OK
    if queue:
        for line in stats_lines(queue, "tag", time.time()):
            print(line)
        print()
    for line in _told_lines(told, args.by):
        print(line)
    if args.by == "tag":
        _say_count(queue)
    return os.EX_OK


def _joined(queue: Sequence[Mapping[str, Any]], told: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """One row a tag: what is in the queue, and what became of the mail; a tag may have only one of them."""
    known = {row["tag"]: row for row in told}
    for row in queue:
        yield {**row, **known.pop(row["tag"], {})}
    nothing = {"count": 0, **dict.fromkeys(_STATES, 0), "oldest": None, "next_due": None, "last_reply": None}
    for row in known.values():
        yield {"tag": row["tag"], **nothing, **row}


def _shown(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: timestamp(value) if name in ("oldest", "next_due") and value is not None else value for name, value in row.items()}


def _say_count(rows: Sequence[Mapping[str, Any]]) -> None:
    sys.stdout.flush()
    say(f"{sum(row['count'] for row in rows)} recipients in the queue")


def stats_lines(rows: Sequence[Mapping[str, Any]], by: str, now: float) -> Iterator[str]:
    """A heading, and a line for each group of the queue."""
    names = ["-" if row[by] is None else visible(str(row[by])) for row in rows]
    width = min(max(map(len, [by, *names])), _LONGEST_NAME)
    yield _STATS.format("COUNT", "QUEUED", "DEFERRED", "HELD", "QUARANT.", "OLDEST", "NEXT", by.upper(), width, "LAST REPLY").rstrip()
    for row, name in zip(rows, names, strict=True):
        oldest = "-" if row["oldest"] is None else span(now - row["oldest"])
        due = "-" if row["next_due"] is None else span(row["next_due"] - now)
        waiting = row["queued"] + row["scheduled"]
        facts = (row["count"], waiting, row["deferred"], row["held"], row["quarantined"], oldest, due, name, width)
        yield _STATS.format(*facts, visible(row["last_reply"] or "")).rstrip()


def _told_lines(rows: Sequence[Mapping[str, Any]], by: str) -> Iterator[str]:
    """A heading, and a line for each day, or each day of each tag."""
    heading = ("ACCEPTED", "SENT", "DELIVERED", "BOUNCED", "FAILED", "COMPL.", "DEFER.", "P50", "P95")
    yield _TOLD.format("DAY", _TAG.format("TAG") if by == "tag" else "", *heading, "BOUNCED AND FAILED, BY CLASS")
    for row in rows:
        tag = _TAG.format(visible(row["tag"] or "-")) if by == "tag" else ""
        for day in row["days"] if by == "tag" else (row,):
            counts = [day[name] for name in ("accepted", "sent", "delivered", "bounced", "failed", "complaints", "deferrals")]
            waited = ["-" if day[name] is None else span(day[name]) for name in ("waited_p50", "waited_p95")]
            yield _TOLD.format(day["day"], tag, *counts, *waited, _classes(day)).rstrip()


def _classes(day: Mapping[str, Any]) -> str:
    counts: dict[str, int] = {}
    for classes in (day["bounced_by_class"], day["failed_by_class"]):
        for name, count in classes.items():
            counts[name] = counts.get(name, 0) + count
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
