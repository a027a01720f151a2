"""``lettermta-admin``: projects, routes, tokens, domains and webhooks, and the check of the configuration.

It works on the accounts' database itself, so the daemon may be up or down; a running one sees each change at once. What was asked for goes
to standard output (a new token or secret alone on its line, once), words about it to standard error. Exit codes follow sysexits: 64 the
command line, 65 a value, 67 no such account, 73 there is one already, 75 the database is in use, 77 no permission, 78 the configuration.

Each noun has a module, which holds its verbs and their options; ``explain`` is a command by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lettermta.accounts.errors import AccountError, AccountExists, InvalidAccount, NoSuchAccount, StorageBusy, StorageDenied
from lettermta.accounts.store import AccountStore
from lettermta.config import ConfigError, load
from lettermta.ops import descriptors
from lettermta.ops.admin import domains, explain, projects, returns, routes, suppressions, tlsrpt, tokens, webhooks
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import Declined, Misused, Unmet, Unsettled, opened, password
from lettermta.ops.command_line import DEFAULT_CONFIG, Parser, config_path, reader_left, say
from lettermta.ops.privileges import become_owner
from lettermta.ops.queue_source import DaemonFault
from lettermta.spool.damage import SpoolDamaged
from lettermta.spool.deliveries import DeliveriesVersionError
from lettermta.spool.offline import SpoolTaken
from lettermta.spool.schema import DatabaseFault, SpoolVersionError

_EXITS: Sequence[tuple[type[Exception], int]] = (
    (NoSuchAccount, os.EX_NOUSER),
    (AccountExists, os.EX_CANTCREAT),
    (InvalidAccount, os.EX_DATAERR),
    (Unmet, os.EX_DATAERR),
    (Unsettled, os.EX_TEMPFAIL),
    (StorageBusy, os.EX_TEMPFAIL),
    (StorageDenied, os.EX_NOPERM),
    (SpoolTaken, os.EX_TEMPFAIL),
    (AccountError, os.EX_UNAVAILABLE),
    (DaemonFault, os.EX_UNAVAILABLE),
    (DeliveriesVersionError, os.EX_UNAVAILABLE),
    (SpoolVersionError, os.EX_UNAVAILABLE),
    (SpoolDamaged, os.EX_UNAVAILABLE),
    (DatabaseFault, os.EX_UNAVAILABLE),
    (ConfigError, os.EX_CONFIG),
    (PermissionError, os.EX_NOPERM),
    (FileNotFoundError, os.EX_NOINPUT),
    (OSError, os.EX_IOERR),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a wrong command line raises SystemExit."""
    parser = _parser()
    args = parser.parse_args(argv)
    config = config_path(getattr(args, "config", None))
    args.json = getattr(args, "json", False)
    try:
        if args.verb is None:
            return _check_config(config, args.json)
        # All of these may be for root's eyes alone, so they are read or opened before root is given up.
        args.settings = load(config)
        state_dir = args.settings.mta.state_dir
        args.password = password(getattr(args, "smarthost_password_file", None))
        args.input = opened(getattr(args, "import_file", None))
        become_owner(state_dir)
        with AccountStore(state_dir) as store:
            args.verb(args, store)
        sys.stdout.flush()
    except BrokenPipeError:
        return reader_left()
    except Misused as fault:
        parser.error(str(fault))
    except Declined:
        say("nothing was changed")
        return os.EX_NOPERM
    except tuple(kind for kind, _ in _EXITS) as fault:
        say(str(fault))
        return next(code for kind, code in _EXITS if isinstance(fault, kind))
    return os.EX_OK


def _check_config(path: Path, as_json: bool) -> int:
    from lettermta import outside  # it loads OpenSSL, which other commands need not do

    faults: list[str] = []
    warnings: list[str] = []
    try:
        config = load(path)
        if os.geteuid() == 0 and config.mta.state_dir.exists():
            # What root can read, the daemon's user may not; and what users plug in is loaded by that user alone.
            become_owner(config.mta.state_dir)
            config = load(path)
        outside.check(config)
        if shortage := descriptors.shortage(config.limits.connections, descriptors.allowed()):
            warnings = [f"{path}: {shortage}"]
    except ConfigError as fault:
        faults = str(fault).splitlines()
    except OSError as fault:
        faults = [f"{path}: {fault.strerror}"]
    for line in faults + warnings:
        say(line)
    if as_json:
        print(json.dumps({"file": str(path), "ok": not faults, "faults": faults, "warnings": warnings}))
    elif not faults:
        print(f"{path} is in order")
    return os.EX_CONFIG if faults else os.EX_OK


def _parser() -> Parser:
    common = Parser(add_help=False)
    # Without a default, so that what stands before the sub-command isn't overwritten behind it.
    common.add_argument(
        "-c", "--config", metavar="FILE", default=argparse.SUPPRESS, help=f"configuration ($LETTERMTA_CONFIG, {DEFAULT_CONFIG})"
    )
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, one object a line")
    parser = Parser(prog="lettermta-admin", description="Administers lettermta's accounts.", parents=[common], allow_abbrev=False)
    nouns = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    projects.add_commands(Commands(nouns, "project", "projects: they own tokens, routes and domains", common))
    routes.add_commands(Commands(nouns, "route", "routes: how a project's mail leaves", common))
    tokens.add_commands(Commands(nouns, "token", "tokens: by them applications log in", common))
    domains.add_commands(Commands(nouns, "domain", "domains: what a project sends from", common))
    webhooks.add_commands(Commands(nouns, "webhook", "webhooks: who is told what became of a project's mail", common))
    suppressions.add_commands(Commands(nouns, "suppression", "suppressions: whom nothing is sent to", common))
    returns.add_commands(Commands(nouns, "returns", "returns: what came back and is nothing known, and what it would be taken for", common))
    words = "tell what would become of mail to an address: hosts, TLS, limits, keys, suppression"
    explain.add_command(nouns.add_parser("explain", help=words, description=words, parents=[common], allow_abbrev=False))
    tlsrpt.add_commands(Commands(nouns, "tlsrpt", "reports on TLS: how sessions with receivers' hosts went", common))
    check = nouns.add_parser("check-config", help="name every fault in the configuration", parents=[common], allow_abbrev=False)
    check.set_defaults(verb=None)
    return parser
