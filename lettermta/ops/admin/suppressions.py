"""``lettermta-admin suppression``: whom nothing is sent to.

Suppressions are in the spool, not among the accounts: what is asked for is done by the daemon, or on the spool's files while none runs.
Lists and imports stream, so a million entries need no more memory than ten.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lettermta.accounts.errors import InvalidAccount, NoSuchAccount
from lettermta.accounts.store import AccountStore
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import STANDARD_INPUT, Misused
from lettermta.ops.admin.printing import print_one
from lettermta.ops.admin.suppression_import import Importer
from lettermta.ops.command_line import say
from lettermta.ops.queue_source import Source, source
from lettermta.ops.suppressing import scope_row
from lettermta.spool.offline import make_spool
from lettermta.suppression import AppliesTo, Scope, SuppressionReason, value_of

_EXPORTED = ("value", "reason", "applies_to", "scope", "project", "route", "created")
_VALUE = "an address, a domain (example.com, without its sub-domains) or an extension (.example: every domain that ends in it)"


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    add = commands.add("add", _add, "send nothing more to an address, a domain or an extension")
    remove = commands.add("remove", _remove, "let mail go there again")
    listing = commands.add("list", _list, "list suppressions in the order of their coming")
    imported = commands.add("import", _import, "add many, from a file with an address on each line, or CSV, or lines of JSON")
    export = commands.add("export", _export, "print suppressions as CSV, or as lines of JSON, in a form that import takes")
    for command in (add, remove, listing, imported, export):
        command.add_argument("--project", metavar="SLUG", help="for the mail of a project")
        command.add_argument("--route", metavar="SLUG", help="for that of one of its routes alone")
        command.add_argument("--global", action="store_true", dest="everybody", help="for all mail of all projects")
    for command in (add, remove):
        command.add_argument("address", metavar="ADDRESS", help=_VALUE)
    for command in (add, imported):
        _add_terms(command)
    for command in (remove, listing, export):
        command.add_argument(
            "--reason", type=SuppressionReason, choices=list(SuppressionReason), help="only those for this reason, else for any"
        )
    listing.add_argument("address", metavar="ADDRESS", nargs="?", help="only those of this value")
    imported.add_argument("import_file", metavar="FILE", nargs="?", default=STANDARD_INPUT, help="- (as without one) is standard input")
    imported.add_argument("--no-events", action="store_true", help="tell nobody: no suppression.added for each")


def _add_terms(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--reason",
        type=SuppressionReason,
        choices=list(SuppressionReason),
        default=SuppressionReason.MANUAL,
        help="why; manual unless said otherwise",
    )
    command.add_argument(
        "--applies-to",
        type=AppliesTo,
        choices=list(AppliesTo),
        help="all mail, or that of broadcast routes: broadcast for unsubscribe, else all, unless said otherwise",
    )


def _add(args: argparse.Namespace, store: AccountStore) -> None:
    scope, value = _scope(args, store), _value(args.address)
    spool = _spool(args, make=True)
    entry = [value, args.reason.value, args.applies_to and args.applies_to.value]
    [answer] = spool.ask("suppress", scope=scope_row(scope), entries=[entry], told=True)
    [row] = spool.ask("suppressions", filters={"scope": scope.key, "value": value, "reason": args.reason.value})
    words = "nothing is sent to" if answer["added"] else "already nothing is sent to"
    print_one(args, row, f"{words} {value} {_words(scope)} ({row['reason']})")


def _remove(args: argparse.Namespace, store: AccountStore) -> None:
    scope, value = _scope(args, store), _value(args.address)
    reason = args.reason and args.reason.value
    spool = _spool(args)
    removed = [] if spool is None else list(spool.ask("unsuppress", value=value, scope=scope_row(scope), reason=reason))
    if not removed:
        raise NoSuchAccount(f"{value} is not suppressed {_words(scope)}{f' for the reason {reason}' if reason else ''}")
    for row in removed:
        print_one(args, row, f"{value} is no longer suppressed {_words(scope)} (it was for {row['reason']})")


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    rows = _rows(args, store)
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return
    count = 0
    for count, row in enumerate(rows, 1):
        if count == 1:
            print(_LINE.format("VALUE", "REASON", "APPLIES TO", "FOR", "CREATED").rstrip())
        print(_LINE.format(row["value"], row["reason"], row["applies_to"], _for(row), row["created"][:19] + "Z"))
    say(f"{count} suppression{'' if count == 1 else 's'}")


_LINE = "{:<36}  {:<14}  {:<10}  {:<20}  {}"


def _for(row: Mapping[str, Any]) -> str:
    return "everybody" if row["scope"] == "global" else "/".join(filter(None, (row["project"], row["route"])))


def _export(args: argparse.Namespace, store: AccountStore) -> None:
    args.address = None
    rows = _rows(args, store)
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(_EXPORTED)
    out.writerows([row[name] for name in _EXPORTED] for row in rows)


def _import(args: argparse.Namespace, store: AccountStore) -> None:
    scope = _scope(args, store)
    spool = _spool(args, make=True)
    name = "standard input" if args.import_file == STANDARD_INPUT else args.import_file

    def scope_of(route: str) -> Scope:
        # Of a project alone what was exported goes back to the routes that it was for.
        return scope if not route or scope.name != "project" else _scope_of_route(store, args.project, route)

    importer = Importer(spool, scope_of, args.reason, args.applies_to, told=not args.no_events)
    importer.take(args.input, name)
    shown = {"read": importer.read, "added": importer.added, "known": importer.read - importer.added, "faults": importer.faults}
    print_one(args, shown, "{read} read: {added} added, {known} were there already".format(**shown))
    if importer.faults:
        left_out = "1 line of {} was" if importer.faults == 1 else f"{importer.faults} lines of {{}} were"
        raise InvalidAccount(f"{left_out.format(name)} left out, as said above; all others are in")


def _rows(args: argparse.Namespace, store: AccountStore) -> Iterator[Mapping[str, Any]]:
    filters: dict[str, str] = {}
    if args.project and not args.route:
        if args.everybody:
            raise Misused("either --project or --global")
        filters["project_id"] = store.project(args.project).id
    elif args.project or args.route or args.everybody:
        filters["scope"] = _scope(args, store).key
    if args.address is not None:
        filters["value"] = _value(args.address)
    if args.reason is not None:
        filters["reason"] = args.reason.value
    spool = _spool(args)
    return iter(()) if spool is None else spool.ask("suppressions", filters=filters)


def _scope(args: argparse.Namespace, store: AccountStore) -> Scope:
    """The one scope that the options name."""
    if args.everybody:
        if args.project or args.route:
            raise Misused("either --project or --global")
        return Scope()
    if not args.project:
        raise Misused("for whose mail? --project SLUG, with --route SLUG for one of its routes, or --global")
    if args.route:
        return _scope_of_route(store, args.project, args.route)
    project = store.project(args.project)
    return Scope(project.id, project.slug)


def _scope_of_route(store: AccountStore, project_slug: str, slug: str) -> Scope:
    project, route = store.project(project_slug), store.route(project_slug, slug)
    return Scope(project.id, project.slug, route.id, route.slug)


def _words(scope: Scope) -> str:
    match scope.name:
        case "global":
            return "in any project"
        case "route":
            return f"by route {scope.route} of project {scope.project}"
        case _:
            return f"in project {scope.project}"


def _value(text: str) -> str:
    try:
        return value_of(text)
    except ValueError as fault:
        raise InvalidAccount(str(fault)) from None


def _spool(args: argparse.Namespace, make: bool = False) -> Any:
    """The daemon, or the spool's files. Where there is no spool yet, one is made if there is something to put into it; else None."""
    state_dir = args.settings.mta.state_dir
    try:
        return source(state_dir)
    except FileNotFoundError:
        if not make:
            return None
    make_spool(state_dir / "spool" / "0")
    found: Source = source(state_dir)
    return found
