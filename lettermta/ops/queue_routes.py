"""``lettermta-queue reroute``: the route that mail is given. One that leaves by the wanted transport is taken, the project's default before
others, or made where there is none.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from lettermta.accounts.errors import AccountError, NoSuchAccount
from lettermta.accounts.model import Route, Smarthost, TransportKind
from lettermta.accounts.store import AccountStore
from lettermta.config import HostPort
from lettermta.config.faults import Wrong
from lettermta.config.kinds import RELAY
from lettermta.ops.operations import NoSuch
from lettermta.ops.queue_asking import UsageFault, text


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Let a command say where mail is to go."""
    command.add_argument("--to", type=text, metavar="ROUTE", help="a route of the project that --project names")
    kinds = ", ".join(TransportKind)
    words = f"instead of --to: a route of the project that leaves by this ({kinds}); it is made where there is none"
    command.add_argument("--transport", choices=[kind.value for kind in TransportKind], help=words)
    command.add_argument("--smarthost", type=_place, metavar="HOST:PORT", help="where --transport smarthost leads")


def _place(given: str) -> HostPort:
    try:
        place: HostPort | None = RELAY.parse(text(given), Path())
    except Wrong as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None
    if place is None:
        raise argparse.ArgumentTypeError("a host and maybe a port is expected")
    return place


def check(args: argparse.Namespace) -> None:
    """Raises UsageFault when the options don't go together."""
    if args.smarthost is not None and args.transport is None:
        args.transport = TransportKind.SMARTHOST.value
    if (args.to is None) == (args.transport is None):
        raise UsageFault("say where to: --to ROUTE, or --transport KIND")
    if (args.smarthost is None) == (args.transport == TransportKind.SMARTHOST.value):
        raise UsageFault("--transport smarthost and --smarthost HOST:PORT go together")


def find_or_make(state_dir: Path, project: str, args: argparse.Namespace) -> tuple[str, bool]:
    """The slug of the project's route that leaves as the options want it, and whether it had to be made. Raises UsageFault, NoSuch."""
    if args.to is not None:
        return args.to, False
    transport = TransportKind(args.transport)
    smarthost = None if args.smarthost is None else Smarthost(args.smarthost.host, args.smarthost.port)
    try:
        with AccountStore(state_dir) as accounts:
            routes = accounts.routes(project)
            fitting = [route for route in routes if _leads(route, transport, smarthost)]
            if fitting:
                return min(fitting, key=lambda route: not route.default).slug, False
            slug = _slug(transport, smarthost, {route.slug for route in routes})
            return accounts.create_route(project, slug, transport=transport, smarthost=smarthost).slug, True
    except NoSuchAccount as fault:
        raise NoSuch(str(fault)) from None
    except AccountError as fault:
        raise UsageFault(str(fault)) from None


def _leads(route: Route, transport: TransportKind, smarthost: Smarthost | None) -> bool:
    if route.transport is not transport:
        return False
    known = route.smarthost
    return smarthost is None or (known is not None and (known.host, known.port) == (smarthost.host, smarthost.port))


def _slug(transport: TransportKind, smarthost: Smarthost | None, taken: set[str]) -> str:
    where = transport.value if smarthost is None else f"{smarthost.host}-{smarthost.port}"
    stem = "via-" + re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-")[:50]
    return next(slug for slug in (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))) if slug not in taken)
