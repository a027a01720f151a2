"""``lettermta-queue``: what is in the spool, with the daemon running (through its control socket) or down (from the spool's files).

Rows go to standard output as they come, so a list of a million needs no more memory than one of ten. ``--json`` prints one object a
line. Exit codes follow sysexits: 64 the command line, 66 no spool, 68 no such message, rule or route, 69 a spool or daemon that does not
answer, 77 no permission, 78 the configuration; 65: verify found faults, 1: the operator said no.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from lettermta.config import ConfigError, load
from lettermta.event import timestamp
from lettermta.message import FINAL, WAITING
from lettermta.ops import queue_changes, queue_top, queue_views
from lettermta.ops.command_line import Parser, config_path, open_streams, reader_left, say
from lettermta.ops.operations import NoSuch
from lettermta.ops.privileges import become_owner
from lettermta.ops.queue_asking import UsageFault, add_filters, add_message, chosen, filters_of, print_json
from lettermta.ops.queue_source import DaemonFault, NeedsDaemon, Source, files, source
from lettermta.ops.queue_text import Listing, message_lines
from lettermta.spool.offline import SpoolTaken
from lettermta.spool.schema import DatabaseFault, SpoolVersionError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line raises SystemExit."""
    open_streams()
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        state_dir = load(config_path(getattr(args, "config", None))).mta.state_dir
        become_owner(state_dir)
        args.state_dir = state_dir
        code: int = args.run(args, files(state_dir) if args.on_files else source(state_dir))
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
    except UsageFault as fault:
        say(f"lettermta-queue: {fault}")
        return os.EX_USAGE
    except NoSuch as fault:
        say(str(fault))
        return os.EX_NOHOST
    except NeedsDaemon as fault:
        say(f"no daemon runs, and {fault}")
        return os.EX_UNAVAILABLE
    except DatabaseFault as fault:
        say(f"the spool's database: {fault} (`lettermta-queue verify` tells where)")
        return os.EX_UNAVAILABLE
    except (DaemonFault, SpoolTaken, SpoolVersionError, OSError) as fault:
        say(str(fault))
        return os.EX_UNAVAILABLE


# -- list


def _list(args: argparse.Namespace, source: Source) -> int:
    filters = filters_of(args)
    listing = Listing(_terminal_width())
    count, code = 0, os.EX_OK
    for row in source.recipients(filters):
        if row["state"] in FINAL and args.filter_state is None:
            continue  # others of its message are not finished
        try:
            shown = _object(row) if args.json else {}
            lines = [] if args.json else list(listing.lines(row, time.time()))
        except (TypeError, ValueError, AttributeError):
            say(f"recipient number {row['number']} makes no sense: `lettermta-queue verify` tells more")
            code = os.EX_DATAERR
            continue
        if args.json:
            print_json(shown)
        else:
            print("\n".join(lines if count else [listing.heading(), *lines]))
        count += 1
    if not args.json:
        sys.stdout.flush()
        nothing = "nothing in the queue is like that" if filters else "the queue is empty"
        say(f"{count} recipient{'' if count == 1 else 's'} in the queue" if count else nothing)
    return code


def _terminal_width() -> int | None:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        return None


_OURS = frozenset({"number", "route_id", "domain", "not_tried"})
"""What the spool and the daemon tell of a recipient for this program's own use."""


def _object(row: Mapping[str, Any]) -> Mapping[str, Any]:
    shown = {key: value for key, value in row.items() if key not in _OURS}
    # What can't be read of a damaged record is not made up.
    shown["created"] = timestamp(row["created"]) if row["created"] else None
    shown["due"] = timestamp(row["due"]) if row["state"] in WAITING else None
    shown["last_reply"] = row["last_reply"] or None
    return shown


# -- show


def _show(args: argparse.Namespace, source: Source) -> int:
    if args.content:
        return _show_content(args, source)
    code = os.EX_OK
    for number, identifier in enumerate(chosen(args, source)):
        if number and not args.json:
            print()
        code = max(code, _show_message(args, source, identifier))
    return code


def _show_message(args: argparse.Namespace, source: Source, identifier: str) -> int:
    message = source.message(identifier)
    if message is None:
        say(f"there is no message {identifier} in the spool, and no event of it is kept")
        return os.EX_NOHOST
    shown = dict(message)
    for key in ("created", "expires"):
        if key in shown:
            shown[key] = timestamp(shown[key])
    shown["recipients"] = [_recipient(row) for row in shown["recipients"]]
    shown["events"] = [{**told, "timestamp": timestamp(told["timestamp"])} for told in shown["events"]]
    if args.json:
        print_json(shown)
    else:
        for line in message_lines(shown):
            print(line)
    return os.EX_OK


def _recipient(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of one message: what is the message's is not said again, why it waits is."""
    shown = dict(_object({**row, "created": None}))
    del shown["created"]
    return shown | ({"not_tried": row["not_tried"]} if "not_tried" in row else {})


def _show_content(args: argparse.Namespace, source: Source) -> int:
    """The octets of one message as they are stored, or (``--json``) as text where they are UTF-8."""
    if args.message is None:
        raise UsageFault("--content is of one message: give its ID")
    rows = source.ask("content", id=args.message)
    first = next(rows, None)
    if first is None:
        say(f"there is no message {args.message} in the queue")
        return os.EX_NOHOST
    if "damaged" in first:
        say(first["damaged"])
        return os.EX_DATAERR
    pieces = (b64decode(row["octets"]) for row in chain((first,), rows))
    if args.json:
        print_json({"id": args.message, **_as_text(b"".join(pieces))})
        return os.EX_OK
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return os.EX_OK


def _as_text(octets: bytes) -> Mapping[str, str]:
    try:
        return {"content": octets.decode()}
    except UnicodeDecodeError:
        return {"content_base64": b64encode(octets).decode()}


# -- the command line


def _parser() -> Parser:
    parser = Parser(prog="lettermta-queue", description="What is in the spool.", allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="FILE", help="the configuration (default $LETTERMTA_CONFIG)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    listing = _command(commands, "list", _list, "one line for each recipient that is not finished")
    add_filters(listing)
    showing = _command(commands, "show", _show, "all about one message, also when it has left the queue and its events are kept")
    add_message(showing)
    showing.add_argument("--content", action="store_true", help="the message itself, as it is stored")
    for room in (queue_changes, queue_views, queue_top):
        room.add_commands(lambda name, run, words: _command(commands, name, run, words))
    return parser


def _command(commands: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=words, description=words, allow_abbrev=False)
    # Both stand on either side of the command, as for lettermta-admin.
    command.add_argument("-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object a line")
    command.set_defaults(run=run, on_files=False)
    return command


if __name__ == "__main__":
    sys.exit(main())
