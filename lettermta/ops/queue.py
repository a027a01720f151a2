"""``lettermta-queue``: what is in the spool, with the daemon running (through its control socket) or down (from the spool's files).

Rows go to standard output as they come, so a list of a million needs no more memory than one of ten. ``--json`` prints one object a
line. Exit codes follow sysexits: 64 the command line, 66 no spool, 68 no such message, 69 a spool or daemon that does not answer, 77 no
permission, 78 the configuration.
"""

from __future__ import annotations

import argparse
import io
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
from lettermta.message import FINAL, WAITING, State
from lettermta.ops.command_line import Parser, config_path, reader_left, say
from lettermta.ops.control import PAGE, SOCKET
from lettermta.ops.privileges import become_owner
from lettermta.ops.queue_text import Listing, message_lines
from lettermta.spool import queries
from lettermta.spool.schema import STEPS, DatabaseFault, SpoolVersionError, connect

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
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version != len(STEPS):
            raise SpoolVersionError(
                f"{path} has version {version}, this program reads version {len(STEPS)}: a start of its daemon brings it there"
            )

    def recipients(self, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """See Source."""
        after = 0
        while rows := queries.recipients(self._connection, filters, after, PAGE):
            yield from rows
            if len(rows) < PAGE:
                return
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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
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
    except (DaemonFault, SpoolVersionError, DatabaseFault, OSError) as fault:
        say(str(fault))
        return os.EX_UNAVAILABLE


# -- list


def _list(args: argparse.Namespace, source: Source) -> int:
    filters = {name: getattr(args, name) for name in _FILTERS if getattr(args, name) is not None}
    if args.metadata:
        filters["metadata"] = dict(args.metadata)
    if args.age is not None:
        filters["created_before"] = time.time() - args.age
    text = Listing(_terminal_width())
    count = 0
    for row in source.recipients(filters):
        if row["state"] in FINAL and args.state is None:
            continue  # others of its message are not finished
        if args.json:
            _print_json(_object(row))
        else:
            if not count:
                print(text.heading())
            for line in text.lines(row, time.time()):
                print(line)
        count += 1
    if not args.json:
        sys.stdout.flush()
        nothing = "nothing in the queue is like that" if filters else "the queue is empty"
        say(f"{count} recipient{'' if count == 1 else 's'} in the queue" if count else nothing)
    return os.EX_OK


def _terminal_width() -> int | None:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _print_json(shown: Mapping[str, Any]) -> None:
    # JSON has its own way to say what the locale can't.
    print(json.dumps(shown, ensure_ascii=sys.stdout.encoding.lower().replace("-", "") != "utf8"))


def _object(row: Mapping[str, Any]) -> Mapping[str, Any]:
    shown = {key: value for key, value in row.items() if key != "number"}
    shown["created"] = timestamp(row["created"])
    shown["due"] = timestamp(row["due"]) if row["state"] in WAITING else None
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
        _print_json(shown)
    else:
        for line in message_lines(shown):
            print(line)
    return os.EX_OK


# -- the command line


def _text(text: str) -> str:
    """An argument that can be asked for: what isn't UTF-8 is nowhere in the spool, and can't be sent to the daemon."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    return text


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = _text(text).partition("=")
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
        listing.add_argument(f"--{name}", type=_text, choices=choices, metavar=name.upper())
    listing.add_argument("--metadata", type=_pair, action="append", metavar="KEY=VALUE", help="may be given several times")
    listing.add_argument("--age", type=_age, metavar="SPAN", help="accepted at least that long ago, like 30m or 2h")
    showing = _command(commands, "show", _show, "all about one message, also when it has left the queue and its events are kept")
    showing.add_argument("id", type=_text, metavar="ID")
    return parser


def _command(commands: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
    command.add_argument("-c", dest="config", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run)
    return command


if __name__ == "__main__":
    sys.exit(main())
