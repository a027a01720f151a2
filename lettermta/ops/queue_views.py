"""The commands that look: trace, stats, events, verify."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lettermta.event import NAMES, WEBHOOK_DISABLED, timestamp
from lettermta.ops import queue_stats
from lettermta.ops.command_line import say
from lettermta.ops.queue_asking import add_filters, add_message, age, chosen, filters_of, print_json
from lettermta.ops.queue_source import Source
from lettermta.ops.queue_text import visible
from lettermta.spool.verify import findings


def add_commands(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add every command of this module."""
    tracing = add("trace", _trace, "each attempt of a message: when, where, how long, and what came of it")
    add_message(tracing)
    queue_stats.add_command(add)
    telling = add("events", _events, "what was told of messages, as webhooks and the event log have it")
    add_filters(telling)
    telling.add_argument("--event", type=_event_name, metavar="NAME", help="like message.delivered, or delivered")
    telling.add_argument("--since", type=age, metavar="SPAN", help="of that time until now, like 30m or 2h")
    telling.add_argument("--follow", action="store_true", help="go on with what is told from now on")
    checking = add("verify", _verify, "check the whole spool: the database, each message's content, body files")
    checking.set_defaults(on_files=True)


def _event_name(given: str) -> str:
    name = given if "." in given else f"message.{given}"
    told = NAMES | {WEBHOOK_DISABLED}
    if name not in told:
        raise argparse.ArgumentTypeError(f"{given!r}: one of {', '.join(sorted(told))} is expected")
    return name


def _trace(args: argparse.Namespace, source: Source) -> int:
    code = os.EX_OK
    for identifier in chosen(args, source):
        count = 0
        for row in source.ask("trace", id=identifier):
            count += 1
            if args.json:
                print_json({"id": identifier, **row, "at": timestamp(row["at"])})
                continue
            if count == 1 and args.message is None:
                print(identifier)
            for line in _attempt_lines(row):
                print(line)
        if not count and args.message is not None:
            code = _no_attempt(source, identifier)
    return code


def _no_attempt(source: Source, identifier: str) -> int:
    """Say whether that is so because there is no such message."""
    if source.message(identifier) is None:
        say(f"there is no message {identifier} in the spool, and no event of it is kept")
        return os.EX_NOHOST
    say(f"no attempt of {identifier} is kept: none was made yet, or they were forgotten")
    return os.EX_OK


def _attempt_lines(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{timestamp(row['at'])}  attempt {row['attempt']}  {visible(row['recipient'])}  {row['state']}, {row['seconds']:.3f} s"
    for earlier in row.get("before", ()):
        yield f"    not by {visible(_where(earlier))}: {visible(earlier['reply'])}"
    yield f"    by {visible(row['via'])}"
    if (tls := row.get("tls")) is not None:
        told = "fault" in tls and tls["fault"] not in row["reply"]
        yield f"    tls policy {tls['policy']}: {tls['result']}" + (f", {visible(tls['fault'])}" if told else "")
    for exchange in row.get("dialogue", ()):
        if exchange["said"] is not None:
            yield f"    > {visible(exchange['said'])}"
        answer = "(no answer)" if exchange["answer"] is None else exchange["answer"]
        for line in answer.split("\n"):
            yield f"    < {visible(line)}"
    yield f"    {visible(row['reply'])}"


def _where(details: Mapping[str, Any]) -> str:
    return f"{details.get('host', '-')} [{details.get('address', '-')}]:{details.get('port', '-')}"


def _events(args: argparse.Namespace, source: Source) -> int:
    filters = filters_of(args)
    if args.event is not None:
        filters["event"] = args.event
    if args.since is not None:
        filters["since"] = time.time() - args.since
    code = os.EX_OK
    for row in source.ask("events", filters=filters, follow=args.follow):
        if "damaged" in row:
            say(row["damaged"])
            code = os.EX_DATAERR
            continue
        document = row["document"]
        if args.json:
            print_json(document)
        else:
            data = document["data"]
            about = f"{data.get('message_id', '-')}  {visible(data.get('recipient', ''))}"
            print(f"{document['timestamp']}  {document['event']:<22}  {about}".rstrip())
        if args.follow:
            sys.stdout.flush()
    return code


def _verify(args: argparse.Namespace, directory: Path) -> int:
    """The files are read by this program, also while a daemon runs."""
    faults = 0
    looking = _Looking()
    for found in findings(directory, looking.told):
        faults += 1
        looking.clear()
        if args.json:
            print_json({"kind": found.kind.value, "where": found.where, "text": found.text, "id": found.id})
        else:
            message = "" if found.id is None else f"  (message {found.id})"
            print(f"{found.kind}: {visible(found.where)}: {visible(found.text)}{message}")
    looking.clear()
    sys.stdout.flush()
    messages = looking.rows.get("message", 0)
    checked = f"{messages} message{'' if messages == 1 else 's'} checked"
    say(f"{checked}, {faults or 'no'} fault{'' if faults == 1 else 's'}")
    return os.EX_DATAERR if faults else os.EX_OK


class _Looking:
    """How far the look at the spool is: on a terminal, in one line that is written over. ``rows`` are those looked at, by table."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self._shown = sys.stderr.isatty()
        self._told = 0.0

    def told(self, table: str, rows: int, share: float) -> None:
        """See lettermta.spool.verify."""
        self.rows[table] = rows
        if self._shown and time.monotonic() >= self._told + 0.2:
            self._told = time.monotonic()
            print(f"\r\x1b[Klooking at {table}: {rows} rows, {share:.0%} ", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
