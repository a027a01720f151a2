"""``lettermta-admin``: projects, routes and tokens, and the check of the configuration.

It works on the accounts' database itself, so the daemon may be up or down; a running one sees each change at once. What was asked for goes
to standard output (a new token alone on its line, once), words about it to standard error. Exit codes follow sysexits: 64 the command line,
65 a value, 67 no such account, 73 there is one already, 75 the database is in use, 77 no permission, 78 the configuration.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from attrs import evolve

from lettermta.accounts.errors import AccountError, AccountExists, InvalidAccount, NoSuchAccount, StorageBusy, StorageDenied
from lettermta.accounts.model import Project, Route, RouteKind, Smarthost, SmarthostTLS, Token, TransportKind
from lettermta.accounts.shown import Shown, shown_project, shown_route, shown_token
from lettermta.accounts.store import AccountStore
from lettermta.config import ConfigError, kinds, load
from lettermta.config.faults import Wrong
from lettermta.config.kinds import Kind
from lettermta.ops.command_line import DEFAULT_CONFIG, Parser, config_path, reader_left, say
from lettermta.ops.privileges import become_owner

_STANDARD_INPUT = "-"
T = TypeVar("T")

_EXITS: Sequence[tuple[type[Exception], int]] = (
    (NoSuchAccount, os.EX_NOUSER),
    (AccountExists, os.EX_CANTCREAT),
    (InvalidAccount, os.EX_DATAERR),
    (StorageBusy, os.EX_TEMPFAIL),
    (StorageDenied, os.EX_NOPERM),
    (AccountError, os.EX_UNAVAILABLE),
    (ConfigError, os.EX_CONFIG),
    (PermissionError, os.EX_NOPERM),
    (FileNotFoundError, os.EX_NOINPUT),
    (OSError, os.EX_IOERR),
)

Verb = Callable[[argparse.Namespace, AccountStore], None]


class _Usage(Exception):
    """The command line can't be followed; found after it was parsed."""


class _Declined(Exception):
    """The question was answered by no."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line raises SystemExit."""
    parser = _parser()
    args = parser.parse_args(argv)
    config = config_path(getattr(args, "config", None))
    args.json = getattr(args, "json", False)
    try:
        if args.verb is None:
            return _check_config(config, args.json)
        # Both may be for root's eyes alone, so they are read before root is given up.
        state_dir = load(config).mta.state_dir
        args.password = _password(getattr(args, "smarthost_password_file", None))
        become_owner(state_dir)
        with AccountStore(state_dir) as store:
            args.verb(args, store)
        sys.stdout.flush()
    except BrokenPipeError:
        return reader_left()
    except _Usage as fault:
        parser.error(str(fault))
    except _Declined:
        say("nothing was changed")
        return os.EX_NOPERM
    except tuple(kind for kind, _ in _EXITS) as fault:
        say(str(fault))
        return next(code for kind, code in _EXITS if isinstance(fault, kind))
    return os.EX_OK


def _check_config(path: Path, as_json: bool) -> int:
    faults: list[str] = []
    try:
        load(path)
    except ConfigError as fault:
        faults = str(fault).splitlines()
    except OSError as fault:
        faults = [f"{path}: {fault.strerror}"]
    for line in faults:
        say(line)
    if as_json:
        print(json.dumps({"file": str(path), "ok": not faults, "faults": faults}))
    elif not faults:
        print(f"{path} is in order")
    return os.EX_CONFIG if faults else os.EX_OK


# The verbs.


def _project_create(args: argparse.Namespace, store: AccountStore) -> None:
    project = store.create_project(args.slug, smtp=args.smtp, message_size=args.message_size, recipients=args.recipients)
    _one(args, shown_project(project), f"project {project.slug} is there, with its default route outgoing")


def _project_list(args: argparse.Namespace, store: AccountStore) -> None:
    _many(args, ("slug", "smtp", "message_size", "recipients", "created", "id"), map(shown_project, store.projects()))


def _project_show(args: argparse.Namespace, store: AccountStore) -> None:
    _one(args, shown_project(store.project(args.slug)))


def _project_update(args: argparse.Namespace, store: AccountStore) -> None:
    _asked(hasattr(args, name) for name in ("smtp", "message_size", "recipients"))

    def change(project: Project) -> Project:
        return evolve(
            project,
            smtp=getattr(args, "smtp", project.smtp),
            message_size=getattr(args, "message_size", project.message_size),
            recipients=getattr(args, "recipients", project.recipients),
        )

    project = store.update_project(args.slug, change)
    _one(args, shown_project(project), f"project {project.slug} is changed")


def _project_delete(args: argparse.Namespace, store: AccountStore) -> None:
    routes, tokens = len(store.routes(args.slug)), len(store.tokens(args.slug))
    _confirm(args, f"delete project {args.slug} with {routes} route(s) and {tokens} token(s)")
    _one(args, shown_project(store.delete_project(args.slug)), f"project {args.slug} is deleted")


def _route_create(args: argparse.Namespace, store: AccountStore) -> None:
    transport = args.transport or (TransportKind.SMARTHOST if args.smarthost else TransportKind.MX)
    smarthost = _smarthost(args, transport, None)
    route = store.create_route(
        args.project, args.slug, kind=args.kind or RouteKind.TRANSACTIONAL, transport=transport, smarthost=smarthost, default=args.default
    )
    _one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is there")


def _route_list(args: argparse.Namespace, store: AccountStore) -> None:
    routes = (shown_route(route, args.project) for route in store.routes(args.project))
    _many(args, ("slug", "kind", "transport", "smarthost", "default", "created", "id"), routes)


def _route_show(args: argparse.Namespace, store: AccountStore) -> None:
    _one(args, shown_route(store.route(args.project, args.slug), args.project))


def _route_update(args: argparse.Namespace, store: AccountStore) -> None:
    _asked([args.kind, args.transport, args.default, *(option is not None for option in _smarthost_options(args))])

    def change(route: Route) -> Route:
        transport = args.transport or (TransportKind.SMARTHOST if args.smarthost else route.transport)
        smarthost = _smarthost(args, transport, route.smarthost)
        return evolve(route, kind=args.kind or route.kind, transport=transport, smarthost=smarthost, default=args.default or route.default)

    route = store.update_route(args.project, args.slug, change)
    _one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is changed")


def _route_delete(args: argparse.Namespace, store: AccountStore) -> None:
    store.route(args.project, args.slug)
    _confirm(args, f"delete route {args.slug} of project {args.project}")
    route = store.delete_route(args.project, args.slug)
    _one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is deleted")


def _token_create(args: argparse.Namespace, store: AccountStore) -> None:
    value = args.value
    if value == _STANDARD_INPUT:
        value = sys.stdin.readline().rstrip("\r\n")
    token, secret = store.create_token(args.project, args.name or "", value=value)
    say(f"token {token.id} of project {args.project} is there; its value can't be shown again")
    if args.json:
        print(json.dumps({**shown_token(token, args.project), "token": secret}))
    else:
        print(secret)


def _token_list(args: argparse.Namespace, store: AccountStore) -> None:
    tokens = (shown_token(token, args.project) for token in store.tokens(args.project))
    _many(args, ("id", "hint", "name", "created", "revoked"), tokens)


def _token_show(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.token(args.id)
    _one(args, shown_token(token, _slug_of(store, token)))


def _token_update(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.rename_token(args.id, args.name)
    _one(args, shown_token(token, _slug_of(store, token)), f"token {token.id} is changed")


def _token_revoke(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.revoke_token(args.id)
    _one(args, shown_token(token, _slug_of(store, token)), f"token {token.id} is revoked")


def _token_delete(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.token(args.id)
    slug = _slug_of(store, token)
    _confirm(args, f"delete token {token.id} ({token.name or token.hint or 'without a name'}) of project {slug}")
    _one(args, shown_token(store.delete_token(args.id), slug), f"token {token.id} is deleted")


# What the verbs are given.


def _asked(options: Iterable[object]) -> None:
    if not any(options):
        raise _Usage("there is nothing to change among the options")


def _smarthost_options(args: argparse.Namespace) -> Sequence[object]:
    return (args.smarthost, args.smarthost_tls, args.smarthost_user, args.password)


def _smarthost(args: argparse.Namespace, transport: TransportKind, old: Smarthost | None) -> Smarthost | None:
    """The smarthost that the options make of the ``old`` one."""
    if transport is not TransportKind.SMARTHOST:
        if any(option is not None for option in _smarthost_options(args)):
            raise _Usage(f"--smarthost… goes with --transport smarthost, not {transport}")
        return None
    place = args.smarthost or old
    if place is None:
        raise _Usage("--transport smarthost needs --smarthost HOST:PORT")
    if old is None:
        # A password goes over an encrypted channel unless the operator says otherwise.
        tls = SmarthostTLS.REQUIRE if args.smarthost_user else SmarthostTLS.OPPORTUNISTIC
        old = Smarthost(place.host, place.port, tls)
    login = (old.username, old.password)
    if args.smarthost_user is not None:
        login = (args.smarthost_user, old.password) if args.smarthost_user else (None, None)
    if args.password is not None:
        login = (login[0], args.password)
    return Smarthost(place.host, place.port, args.smarthost_tls or old.tls, *login)


def _password(source: str | None) -> str | None:
    if source is None:
        return None
    data = sys.stdin.buffer.read() if source == _STANDARD_INPUT else Path(source).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidAccount("the smarthost's password is not UTF-8") from None
    return text.removesuffix("\n").removesuffix("\r")


def _slug_of(store: AccountStore, token: Token) -> str:
    return store.project_by_id(token.project_id).slug


def _value(kind: Kind[T]) -> Callable[[str], T]:
    """The kind of a value in the configuration as argparse's type of an option."""

    def parse(text: str) -> T:
        try:
            return kind.parse(text, Path())
        except Wrong as wrong:
            raise argparse.ArgumentTypeError(f"{text!r} {wrong.complaint}; expected {kind.expected}") from None

    return parse


def _limit(kind: Kind[int]) -> Callable[[str], int | None]:
    """The type of a limit that a project can do without."""
    parse = _value(kind)
    return lambda text: None if text == "default" else parse(text)


def _confirm(args: argparse.Namespace, deed: str) -> None:
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise _Usage(f"to {deed} without a terminal to ask on, say --yes")
    print(f"{deed}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise _Declined


# What is shown.


def _one(args: argparse.Namespace, shown: Shown, words: str | None = None) -> None:
    """Print one account whole; or only ``words`` about what was done to it, to standard error, when JSON wasn't asked for."""
    if words is not None:
        say(words)
    if args.json:
        print(json.dumps(shown))
    elif words is None:
        width = max(map(len, shown))
        for name, value in shown.items():
            print(f"{name:<{width}}  {_cell(value)}")


def _many(args: argparse.Namespace, columns: Sequence[str], accounts: Iterable[Shown]) -> None:
    """Print accounts as columns under a heading, or as one JSON object a line."""
    if args.json:
        for shown in accounts:
            print(json.dumps(shown))
        return
    rows = [[name.replace("_", " ").upper() for name in columns]]
    rows += [[_cell(shown[name]) for name in columns] for shown in accounts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case {"host": str(host), "port": port, "tls": tls, "username": username}:
            user = f"{username}@" if username else ""
            return f"{user}[{host}]:{port}/{tls}" if ":" in host else f"{user}{host}:{port}/{tls}"
        case _:
            return str(value)


# The command line.


def _parser() -> Parser:
    common = Parser(add_help=False)
    # Without a default, so that what stands before the sub-command isn't overwritten behind it.
    common.add_argument(
        "-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help=f"configuration ($LETTERMTA_CONFIG, {DEFAULT_CONFIG})"
    )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, one object a line")
    parser = Parser(prog="lettermta-admin", description="Administers lettermta's accounts.", parents=[common], allow_abbrev=False)
    nouns = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _project_commands(_Commands(nouns, "project", "projects: they own tokens and routes", common))
    _route_commands(_Commands(nouns, "route", "routes: how a project's mail leaves", common))
    _token_commands(_Commands(nouns, "token", "tokens: by them applications log in", common))
    check = nouns.add_parser("check-config", help="name every fault in the configuration", parents=[common], allow_abbrev=False)
    check.set_defaults(verb=None)
    return parser


class _Commands:
    """The verbs of one noun."""

    def __init__(self, nouns: argparse._SubParsersAction[Parser], noun: str, words: str, common: Parser) -> None:
        self._common = common
        self._verbs = nouns.add_parser(noun, help=words, description=words, parents=[common], allow_abbrev=False).add_subparsers(
            required=True, metavar="VERB", dest="action"
        )

    def add(self, name: str, verb: Verb, words: str) -> Parser:
        command: Parser = self._verbs.add_parser(name, help=words, description=words, parents=[self._common], allow_abbrev=False)
        command.set_defaults(verb=verb)
        return command

    def add_delete(self, verb: Verb, words: str) -> Parser:
        command = self.add("delete", verb, words)
        command.add_argument("--yes", action="store_true", help="don't ask")
        return command


def _project_commands(commands: _Commands) -> None:
    create = commands.add("create", _project_create, "make a project with its route `outgoing`")
    update = commands.add("update", _project_update, "change a project's SMTP switch or limits")
    for command, default in ((create, None), (update, argparse.SUPPRESS)):
        command.add_argument("slug")
        command.add_argument(
            "--no-smtp", dest="smtp", action="store_false", default=default or True, help="its tokens can't log in over SMTP"
        )
        command.add_argument(
            "--message-size", metavar="SIZE", type=_limit(kinds.SIZE), default=default, help="largest message, like 25MB, or `default`"
        )
        command.add_argument(
            "--recipients", metavar="N", type=_limit(kinds.NUMBER), default=default, help="most recipients of a message, or `default`"
        )
    update.add_argument("--smtp", action="store_true", default=argparse.SUPPRESS, help="its tokens can log in over SMTP")
    commands.add("list", _project_list, "list all projects")
    commands.add("show", _project_show, "show a project").add_argument("slug")
    commands.add_delete(_project_delete, "delete a project, its routes and its tokens").add_argument("slug")


def _route_commands(commands: _Commands) -> None:
    create = commands.add("create", _route_create, "make a route")
    update = commands.add("update", _route_update, "change a route")
    for command in (create, update):
        command.add_argument("--kind", type=RouteKind, choices=list(RouteKind), help="transactional unless said otherwise")
        command.add_argument("--transport", type=TransportKind, choices=list(TransportKind), help="mx unless said otherwise")
        command.add_argument(
            "--smarthost", metavar="HOST:PORT", type=_value(kinds.RELAY), help="where the transport smarthost takes the mail"
        )
        command.add_argument("--smarthost-tls", type=SmarthostTLS, choices=list(SmarthostTLS), help="opportunistic, or require with a user")
        command.add_argument("--smarthost-user", metavar="NAME", help="log in as NAME; empty = don't log in")
        command.add_argument("--smarthost-password-file", metavar="FILE", help="the file with the password, - for standard input")
        command.add_argument("--default", action="store_true", help="what mail without a route takes, instead of the default before")
    show = commands.add("show", _route_show, "show a route")
    delete = commands.add_delete(_route_delete, "delete a route that isn't the default")
    listing = commands.add("list", _route_list, "list a project's routes")
    for command in (create, update, show, delete, listing):
        command.add_argument("--project", metavar="SLUG", required=True)
    for command in (create, update, show, delete):
        command.add_argument("slug")


def _token_commands(commands: _Commands) -> None:
    create = commands.add("create", _token_create, "make a token and print its value, once")
    create.add_argument("--project", metavar="SLUG", required=True)
    create.add_argument("--name", metavar="TEXT", help="what it is for")
    create.add_argument(
        "--import", metavar="VALUE", dest="value", help="take an existing token with any prefix; - reads it from standard input"
    )
    commands.add("list", _token_list, "list a project's tokens").add_argument("--project", metavar="SLUG", required=True)
    update = commands.add("update", _token_update, "rename a token")
    update.add_argument("--name", metavar="TEXT", required=True)
    show = commands.add("show", _token_show, "show a token")
    revoke = commands.add("revoke", _token_revoke, "end a token's use, for good")
    delete = commands.add_delete(_token_delete, "forget a token")
    for command in (update, show, revoke, delete):
        command.add_argument("id")


if __name__ == "__main__":
    sys.exit(main())
