"""``lettermta-admin route``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from attrs import evolve

from lettermta.accounts.model import ReceivedField, Route, RouteKind, RouteTLS, Smarthost, SmarthostTLS, TransportKind
from lettermta.accounts.shown import shown_route
from lettermta.accounts.store import AccountStore
from lettermta.config import kinds
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.explain import unsubscribe_url
from lettermta.ops.admin.given import Misused, ask_for_change, confirm, limit, value
from lettermta.ops.admin.printing import print_many, print_one


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "make a route")
    update = commands.add("update", _update, "change a route")
    for command in (create, update):
        command.add_argument("--kind", type=RouteKind, choices=list(RouteKind), help="transactional unless said otherwise")
        command.add_argument("--transport", type=TransportKind, choices=list(TransportKind), help="mx unless said otherwise")
        command.add_argument(
            "--smarthost", metavar="HOST:PORT", type=value(kinds.RELAY), help="where the transport smarthost takes the mail"
        )
        command.add_argument("--smarthost-tls", type=SmarthostTLS, choices=list(SmarthostTLS), help="opportunistic, or require with a user")
        command.add_argument("--smarthost-user", metavar="NAME", help="log in as NAME; empty = don't log in")
        command.add_argument("--smarthost-password-file", metavar="FILE", help="the file with the password, - for standard input")
        command.add_argument("--default", action="store_true", help="what mail without a route takes, instead of the default before")
        command.add_argument(
            "--received",
            type=ReceivedField,
            choices=list(ReceivedField),
            help="the Received field: full, without the client's address and name, none, or as [submission] received_header says (default)",
        )
        message_id = command.add_mutually_exclusive_group()
        message_id.add_argument(
            "--mint-message-id", action="store_true", default=None, help="give each message a Message-ID of ours, in the place of its own"
        )
        message_id.add_argument(
            "--keep-message-id", dest="mint_message_id", action="store_false", help="leave a message its Message-ID (so it is at first)"
        )
        command.add_argument(
            "--schedule",
            metavar="LIST",
            type=limit(kinds.DURATIONS),
            default=argparse.SUPPRESS,
            help='delays between attempts, like "5m, 1h, 4h", the last one repeated; or `default`',
        )
        command.add_argument(
            "--lifetime",
            metavar="TIME",
            type=limit(kinds.DURATION),
            default=argparse.SUPPRESS,
            help="how long a message is tried, like 2d, or `default`",
        )
        command.add_argument(
            "--tls",
            metavar="MODE",
            type=_tls,
            default=argparse.SUPPRESS,
            help=f"what its mail wants of TLS on the way to an MX: {', '.join(RouteTLS)}, or `default`",
        )
        command.add_argument(
            "--pool",
            metavar="NAME",
            type=_pool,
            default=argparse.SUPPRESS,
            help="the [pool NAME] whose addresses its mail leaves from, or `default`",
        )
    show = commands.add("show", _show, "show a route")
    delete = commands.add_delete(_delete, "delete a route that isn't the default")
    listing = commands.add("list", _list, "list a project's routes")
    for command in (create, update, show, delete, listing):
        command.add_argument("--project", metavar="SLUG", required=True)
    for command in (create, update, show, delete):
        command.add_argument("slug")


def _tls(text: str) -> RouteTLS | None:
    try:
        return None if text == "default" else RouteTLS(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(RouteTLS)}, default") from None


def _pool(text: str) -> str | None:
    return None if text == "default" else text


def _known(args: argparse.Namespace, pool: str | None) -> str | None:
    """The pool, if the configuration has it."""
    pools = [each.name for each in args.settings.pools]
    if pool is not None and pool not in pools:
        raise Misused(f"the configuration has no [pool {pool}]; it has {', '.join(pools) or 'none'}")
    return pool


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    transport = args.transport or (TransportKind.SMARTHOST if args.smarthost else TransportKind.MX)
    route = store.create_route(
        args.project,
        args.slug,
        kind=args.kind or RouteKind.TRANSACTIONAL,
        transport=transport,
        smarthost=_smarthost(args, transport, None),
        default=args.default,
        received=args.received or ReceivedField.DEFAULT,
        mint_message_id=bool(args.mint_message_id),
        schedule=getattr(args, "schedule", None),
        lifetime=getattr(args, "lifetime", None),
        tls=getattr(args, "tls", None),
        pool=_known(args, getattr(args, "pool", None)),
    )
    print_one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is there")


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    routes = (shown_route(route, args.project) for route in store.routes(args.project))
    columns = (
        "slug",
        "kind",
        "transport",
        "smarthost",
        "received",
        "mint_message_id",
        "schedule",
        "lifetime",
        "tls",
        "pool",
        "default",
        "created",
        "id",
    )
    print_many(args, columns, routes)


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    route = store.route(args.project, args.slug)
    print_one(args, {**shown_route(route, args.project), "unsubscribe": unsubscribe_url(args.settings, route)})


def _update(args: argparse.Namespace, store: AccountStore) -> None:
    given = (args.kind, args.transport, args.received, args.mint_message_id, *_smarthost_options(args))
    own = (hasattr(args, "schedule"), hasattr(args, "lifetime"), hasattr(args, "tls"), hasattr(args, "pool"))
    ask_for_change([args.default, *own, *(option is not None for option in given)])

    def change(route: Route) -> Route:
        transport = args.transport or (TransportKind.SMARTHOST if args.smarthost else route.transport)
        return evolve(
            route,
            kind=args.kind or route.kind,
            transport=transport,
            smarthost=_smarthost(args, transport, route.smarthost),
            default=args.default or route.default,
            received=args.received or route.received,
            mint_message_id=route.mint_message_id if args.mint_message_id is None else args.mint_message_id,
            schedule=getattr(args, "schedule", route.schedule),
            lifetime=getattr(args, "lifetime", route.lifetime),
            tls=getattr(args, "tls", route.tls),
            pool=_known(args, args.pool) if hasattr(args, "pool") else route.pool,
        )

    route = store.update_route(args.project, args.slug, change)
    print_one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is changed")


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    store.route(args.project, args.slug)
    confirm(args, f"delete route {args.slug} of project {args.project}")
    route = store.delete_route(args.project, args.slug)
    print_one(args, shown_route(route, args.project), f"route {route.slug} of project {args.project} is deleted")


def _smarthost_options(args: argparse.Namespace) -> Sequence[object]:
    return (args.smarthost, args.smarthost_tls, args.smarthost_user, args.password)


def _smarthost(args: argparse.Namespace, transport: TransportKind, old: Smarthost | None) -> Smarthost | None:
    """The smarthost that the options make of the ``old`` one."""
    if transport is not TransportKind.SMARTHOST:
        if any(option is not None for option in _smarthost_options(args)):
            raise Misused(f"--smarthost… goes with --transport smarthost, not {transport}")
        return None
    place = args.smarthost or old
    if place is None:
        raise Misused("--transport smarthost needs --smarthost HOST:PORT")
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
