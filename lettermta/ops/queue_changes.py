"""The commands that change the queue: hold, release, retry, reroute, bounce, remove; and standing rules.

What is for more than one message says how many recipients it is for and asks; without a terminal to ask on it wants ``--yes``. How far it
has come is told on standard error. Breaking it off leaves done what was done: each step is a commit of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from lettermta.event import timestamp
from lettermta.ops import queue_routes
from lettermta.ops.command_line import say
from lettermta.ops.queue_asking import UsageFault, add_filters, filters_of, line, pair, print_json, text
from lettermta.ops.queue_source import Source
from lettermta.ops.queue_text import visible
from lettermta.spool.changes import RULE_CONDITIONS, new_conditions

DONE = {
    "hold": "held",
    "release": "released",
    "retry": "due now",
    "reroute": "rerouted",
    "bounce": "bounced",
    "remove": "removed",
}
"""The operations, and what a recipient is behind each."""
UNCHANGED = 1
"""The exit code when the operator thought better of it."""
TELL_EVERY = 10.0
"""Seconds between two words on how far it has come, where that is no terminal."""

_WORDS = {
    "hold": "keep recipients from being tried until they are released",
    "release": "let go what is held",
    "retry": "try recipients now, whenever they would be due",
    "reroute": "give recipients another route of their project",
    "bounce": "end recipients with a report to the sender, as a failure",
    "remove": "end recipients without a report, and forget their messages",
}


def add_commands(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add every command of this module."""
    for name in DONE:
        command = add(name, _change, _WORDS[name])
        command.set_defaults(operation=name)
        command.add_argument("message", type=text, nargs="?", metavar="ID", help="a message: the same as --id")
        add_filters(command, own_reason=name in ("hold", "bounce"))
        command.add_argument("--all", action="store_true", help="everything: needed where no filter is given")
        command.add_argument("--yes", action="store_true", help="don't ask")
        if name in ("hold", "bounce"):
            command.add_argument("--reason", dest="why", type=line, metavar="TEXT", help="why, as the last reply will say")
        if name == "reroute":
            queue_routes.add_arguments(command)
        if name in ("hold", "release"):
            words = f"a standing rule: {', '.join(RULE_CONDITIONS)}; all have to be met, by new mail too"
            command.add_argument("--where", type=_condition, nargs="+", action="extend", metavar="NAME=VALUE", help=words)
        if name == "hold":
            command.add_argument("--rules", action="store_true", help="list the standing rules")
        if name == "release":
            command.add_argument("--rule", type=int, metavar="NUMBER", help="end a standing rule, and release what it held")


def _condition(given: str) -> tuple[str, str]:
    name, value = pair(given)
    if not value:
        raise argparse.ArgumentTypeError(f"{given!r}: something is expected behind the sign")
    if name not in RULE_CONDITIONS:
        raise argparse.ArgumentTypeError(f"{name!r}: one of {', '.join(RULE_CONDITIONS)} is expected")
    return name, value


def _change(args: argparse.Namespace, source: Source) -> int:
    filters = filters_of(args)
    if args.message is not None and filters.setdefault("id", args.message) != args.message:
        raise UsageFault("one message is meant by its ID, and another one by --id")
    if args.operation == "hold" and args.rules:
        return _list_rules(args, source)
    if args.operation == "hold" and args.where:
        return _add_rule(args, source, filters)
    if args.operation == "release" and args.where:
        return _drop_rules(args, source, filters)
    if args.operation == "release" and args.rule is not None:
        return _drop_rule(args, source, filters)
    if bool(filters) == args.all:
        raise UsageFault("--all is for everything, without filters" if filters else "give filters, or --all for everything")
    if args.operation == "reroute":
        return _reroute(args, source, filters)
    return _ask_and_do(args, source, _request(args, filters), sure=set(filters) == {"id"})


def _reroute(args: argparse.Namespace, source: Source, filters: Mapping[str, Any]) -> int:
    """By a transport that no route has yet, it is asked for what there is before a route is made."""
    queue_routes.check(args)
    if "project" not in filters:
        raise UsageFault("routes are of one project: give --project")
    if args.to is None:
        count = _count(source, {"operation": "remove", "filters": filters})
        if count > 1 and not _agreed(args, f"reroute up to {_recipients(count)} by {args.transport}"):
            return UNCHANGED
        args.yes = True
        args.to, made = queue_routes.find_or_make(args.state_dir, filters["project"], args)
        if made and not args.json:
            say(f"route {args.to} of project {filters['project']} is there")
    return _ask_and_do(args, source, _request(args, filters), sure=set(filters) == {"id"})


def _request(args: argparse.Namespace, filters: Mapping[str, Any]) -> dict[str, Any]:
    request = {"operation": args.operation, "filters": filters, "reason": getattr(args, "why", None), "to": getattr(args, "to", None)}
    return {name: value for name, value in request.items() if value is not None}


def _ask_and_do(args: argparse.Namespace, source: Source, request: Mapping[str, Any], *, sure: bool) -> int:
    count = _count(source, request)
    if not count:
        _tell(args, 0)
        return os.EX_OK
    if not sure and count > 1 and not _agreed(args, f"{args.operation} {_recipients(count)}"):
        return UNCHANGED
    _tell(args, _do(source, request, count), of=count)
    return os.EX_OK


def _count(source: Source, request: Mapping[str, Any]) -> int:
    [row] = source.ask("count", **request)
    count: int = row["count"]
    return count


def _agreed(args: argparse.Namespace, what: str) -> bool:
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise UsageFault(f"this would {what}: give --yes where nobody can be asked")
    print(f"{what}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _do(source: Source, request: Mapping[str, Any], expected: int) -> int:
    """Have it done, telling how far it is; returns how many recipients were changed."""
    in_place = sys.stderr.isatty()
    done, told = 0, time.monotonic()
    clear = "\r\x1b[K" if in_place else ""
    try:
        for row in source.ask("change", **request):
            done += row["changed"]
            if done < expected and (in_place or time.monotonic() >= told + TELL_EVERY):
                told = time.monotonic()
                print(f"{clear}{done} of {expected}", end=" " if in_place else "\n", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        say(f"{clear}broken off: {done} of {expected} recipients {DONE[request['operation']]}, maybe a few more")
        raise
    print(clear, end="", file=sys.stderr, flush=True)
    return done


def _tell(args: argparse.Namespace, count: int, *, of: int = 0) -> None:
    """Say how many recipients were changed, and when they are less than the ``of`` that were meant."""
    if args.json:
        print_json({"operation": args.operation, "recipients": count})
    elif count or of:
        others = f"; {of - count} not, which are no longer like that, or whose records are damaged" if count < of else ""
        say(f"{_recipients(count)} {DONE[args.operation]}{others}")
    else:
        say("nothing in the queue is like that")


def _recipients(count: int) -> str:
    return f"{count} recipient{'' if count == 1 else 's'}"


# -- standing rules


def _list_rules(args: argparse.Namespace, source: Source) -> int:
    rules = list(source.ask("rules"))
    if not rules and not args.json:
        say("there is no standing rule")
    for rule in rules:
        if args.json:
            print_json({**rule, "created": timestamp(rule["created"])})
        else:
            print(f"{rule['id']:>4}  {timestamp(rule['created'])}  {_where(rule)}  {visible(rule['reason'])}")
    return os.EX_OK


def _where(rule: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={visible(value)}" for name, value in rule["where"].items())


def _add_rule(args: argparse.Namespace, source: Source, filters: Mapping[str, Any]) -> int:
    if filters or args.all:
        raise UsageFault("--where stands alone: filters are for what is in the queue now")
    conditions = dict(args.where)
    reason = args.why or ""
    count = _count(source, {"operation": "hold", "filters": conditions})
    if not _agreed(args, f"hold {_recipients(count)} and all new mail where {_where({'where': conditions})}"):
        return UNCHANGED
    [rule] = source.ask("add_rule", conditions=conditions, reason=reason)
    request = {"operation": "hold", "filters": rule["where"], "reason": rule["reason"], "rule": rule["id"]}
    _tell_rule(args, _do(source, request, count), rule["id"], f"rule {rule['id']} holds {_where(rule)}, all new mail too")
    return os.EX_OK


def _drop_rules(args: argparse.Namespace, source: Source, filters: Mapping[str, Any]) -> int:
    """End the rules that have exactly these conditions."""
    conditions = new_conditions(dict(args.where))
    found = [rule["id"] for rule in source.ask("rules") if rule["where"] == conditions]
    if not found:
        say(f"there is no rule where {_where({'where': conditions})}")
        return os.EX_NOHOST
    code = os.EX_OK
    for args.rule in found:
        code = code or _drop_rule(args, source, filters)
    return code


def _drop_rule(args: argparse.Namespace, source: Source, filters: Mapping[str, Any]) -> int:
    if filters or args.all:
        raise UsageFault("--rule stands alone: it releases what the rule holds")
    request = {"operation": "release", "filters": {"rule": args.rule}}
    count = _count(source, request)
    if not count and all(rule["id"] != args.rule for rule in source.ask("rules")):
        return _no_rule(args)
    if not _agreed(args, f"end rule {args.rule} and release {_recipients(count)}"):
        return UNCHANGED
    [answer] = source.ask("drop_rule", id=args.rule)
    if not answer["dropped"] and not count:
        return _no_rule(args)
    _tell_rule(args, _do(source, request, count), args.rule, f"rule {args.rule} is ended")
    return os.EX_OK


def _no_rule(args: argparse.Namespace) -> int:
    say(f"there is no rule {args.rule}")
    return os.EX_NOHOST


def _tell_rule(args: argparse.Namespace, count: int, rule: int, words: str) -> None:
    if args.json:
        print_json({"operation": args.operation, "recipients": count, "rule": rule})
    else:
        say(f"{words}; {_recipients(count)} {DONE[args.operation]}")
