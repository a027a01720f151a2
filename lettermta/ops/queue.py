"""``lettermta-queue``: what is in the spool, with the daemon running (through its control socket) or down (from the spool's files).

Rows go to standard output as they come, so a list of a million needs no more memory than one of ten. ``--json`` prints one object a
line. Exit codes follow sysexits: 64 the command line, 66 no spool, 68 no such message, 77 no permission, 78 the configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lettermta.config import ConfigError, kinds, load
from lettermta.config.faults import Wrong
from lettermta.event import timestamp
from lettermta.message import State
from lettermta.ops.command_line import Parser, config_path, reader_left, say
from lettermta.ops.control import PAGE, SOCKET
from lettermta.ops.privileges import become_owner
from lettermta.spool import queries
from lettermta.spool.schema import connect

_FILTERS = ("id", "project", "route", "tag", "sender", "recipient", "domain", "state")


class Source(Protocol):
    """Where the tool reads from."""

    def recipients(self, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """One row a recipient."""

    def message(self, identifier: str) -> Mapping[str, Any] | None:
        """All of one message."""


class DaemonFault(Exception):
    """The daemon answered by an error."""


class Daemon:
    """A running daemon, asked through its control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recipients(self, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """See Source."""
        return self._ask({"verb": "list", "filters": filters})

    def message(self, identifier: str) -> Mapping[str, Any] | None:
        """See Source."""
        return next(self._ask({"verb": "show", "id": identifier}), None)

    def _ask(self, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
            daemon.connect(str(self._path))
            daemon.sendall(json.dumps(request).encode() + b"\n")
            with daemon.makefile("rb") as answer:
                for line in answer:
                    row = json.loads(line)
                    if row.get("end") is True:
                        return
                    if "error" in row:
                        raise DaemonFault(row["error"])
                    yield row
        raise DaemonFault("the daemon went away in the middle of its answer")


class Files:
    """The spool's files, while no daemon runs."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, writable=False)

    def recipients(self, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """See Source."""
        after = 0
        while rows := queries.recipients(self._connection, filters, after, PAGE):
            yield from rows
            after = rows[-1]["number"]

    def message(self, identifier: str) -> Mapping[str, Any] | None:
        """See Source."""
        return queries.message(self._connection, identifier)


def _source(state_dir: Path) -> Source:
    """The daemon if it answers, else the files; raises FileNotFoundError when there is neither."""
    path = state_dir / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
        return Daemon(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    spool = state_dir / "spool" / "0" / "spool.db"
    if not spool.exists():
        raise FileNotFoundError(f"{spool}: there is no spool yet: the daemon makes it at its first start")
    return Files(spool)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line raises SystemExit."""
    args = _parser().parse_args(argv)
    try:
        state_dir = load(config_path(getattr(args, "config", None))).mta.state_dir
        become_owner(state_dir)
        code: int = args.run(args, _source(state_dir))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return reader_left()
    except KeyboardInterrupt:
        return 130
    except ConfigError as fault:
        say(str(fault))
        return os.EX_CONFIG
    except PermissionError as fault:
        say(str(fault))
        return os.EX_NOPERM
    except FileNotFoundError as fault:
        say(str(fault))
        return os.EX_NOINPUT
    except (DaemonFault, OSError) as fault:
        say(str(fault))
        return os.EX_UNAVAILABLE


# -- list


def _list(args: argparse.Namespace, source: Source) -> int:
    filters = {name: getattr(args, name) for name in _FILTERS if getattr(args, name) is not None}
    if args.metadata:
        filters["metadata"] = dict(args.metadata)
    if args.age is not None:
        filters["created_before"] = time.time() - args.age
    count = 0
    for row in source.recipients(filters):
        if args.json:
            print(json.dumps(_object(row), ensure_ascii=False))
        else:
            if not count:
                print(_LINE.format(*_TITLES))
            print(_line(row, time.time()))
        count += 1
    if not args.json:
        say(f"{count} recipient{'' if count == 1 else 's'} in the queue" if count else "the queue is empty")
    return os.EX_OK


_TITLES = ("ID", "STATE", "AGE", "NEXT", "TRIES", "RECIPIENT", "SENDER", "TAG", "LAST REPLY")
_LINE = "{:<36}  {:<11}  {:>6}  {:>6}  {:>5}  {:<32}  {:<28}  {:<14}  {}"


def _line(row: Mapping[str, Any], now: float) -> str:
    following = "-" if row["state"] not in ("queued", "deferred", "scheduled") else _span(row["due"] - now)
    return _LINE.format(
        row["id"], row["state"], _span(now - row["created"]), following, row["attempts"], row["recipient"],
        row["sender"] or "<>", row["tag"] or "-", row["last_reply"] or "-",
    ).rstrip()  # fmt: skip


def _span(seconds: float) -> str:
    """A time span in two digits and a unit or so: operators compare, they don't calculate."""
    if seconds <= 0:
        return "now"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def _object(row: Mapping[str, Any]) -> Mapping[str, Any]:
    shown = {key: value for key, value in row.items() if key != "number"}
    shown["created"] = timestamp(row["created"])
    shown["due"] = timestamp(row["due"]) if row["state"] in ("queued", "deferred", "scheduled") else None
    shown["last_reply"] = row["last_reply"] or None
    return shown


# -- show


def _show(args: argparse.Namespace, source: Source) -> int:
    message = source.message(args.id)
    if message is None:
        say(f"there is no message {args.id} in the spool, and no event of it is kept")
        return os.EX_NOHOST
    shown = dict(message)
    for key in ("created", "expires"):
        if key in shown:
            shown[key] = timestamp(shown[key])
    shown["recipients"] = [_object({**row, "created": 0.0}) for row in shown["recipients"]]
    for row in shown["recipients"]:
        del row["created"]
    shown["events"] = [{**told, "timestamp": timestamp(told["timestamp"])} for told in shown["events"]]
    if args.json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        _print_message(shown)
    return os.EX_OK


def _print_message(shown: Mapping[str, Any]) -> None:
    for name in ("id", "project", "route", "sender", "tag", "size", "created", "expires"):
        if name in shown:
            print(f"{name:<10} {_text(shown[name])}")
    for key, value in shown.get("metadata", {}).items():
        print(f"{'metadata':<10} {key} = {value}")
    if not shown["recipients"]:
        print("state      no longer in the queue")
    for row in shown["recipients"]:
        print(f"{'recipient':<10} {row['recipient']}  {row['state']}, {row['attempts']} attempts, next {_text(row['due'])}")
        if row["last_reply"]:
            print(f"{'':<10}   {row['last_reply']}")
    for told in shown["events"]:
        data = told["document"]["data"]
        print(f"{'event':<10} {told['timestamp']}  {told['event']}  {data.get('recipient', '')}".rstrip())
    if shown.get("headers"):
        print("headers")
        for line in shown["headers"]:
            print(f"  {line}")


def _text(value: object) -> str:
    return "-" if value in (None, "") else str(value)


# -- the command line


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{text!r}: key=value is expected")
    return key, value


def _age(text: str) -> float:
    try:
        return kinds.DURATION.parse(text.strip(), Path())
    except Wrong as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _parser() -> Parser:
    parser = Parser(prog="lettermta-queue", description="What is in the spool.", allow_abbrev=False)
    parser.add_argument("-c", dest="config", metavar="FILE", help="the configuration (default $LETTERMTA_CONFIG)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    listing = _command(commands, "list", _list, "one line for each recipient that is not finished")
    for name in _FILTERS:
        choices = [state.value for state in State] if name == "state" else None
        listing.add_argument(f"--{name}", choices=choices, metavar=name.upper())
    listing.add_argument("--metadata", type=_pair, action="append", metavar="KEY=VALUE", help="may be given several times")
    listing.add_argument("--age", type=_age, metavar="SPAN", help="accepted at least that long ago, like 30m or 2h")
    showing = _command(commands, "show", _show, "all about one message, also when it has left the queue and its events are kept")
    showing.add_argument("id", metavar="ID")
    return parser


def _command(commands: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
    command.add_argument("-c", dest="config", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run)
    return command


if __name__ == "__main__":
    sys.exit(main())
