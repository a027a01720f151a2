"""``lettermta-admin webhook``. A secret is printed once, by ``create`` or ``rotate``, and by nothing else."""

from __future__ import annotations

import argparse
import json
import sys
import time
from urllib.parse import urlsplit

from attrs import evolve

from lettermta.accounts.rules import is_address
from lettermta.accounts.shown import shown_webhook
from lettermta.accounts.store import AccountStore
from lettermta.accounts.webhooks import BY_OWNER, OVERLAP, Webhook, WebhookStore
from lettermta.address_policy import permits
from lettermta.config import kinds
from lettermta.event import timestamp
from lettermta.ops.admin import webhook_deliveries
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import STANDARD_INPUT, Misused, ask_for_change, confirm, value
from lettermta.ops.admin.printing import print_many, print_one
from lettermta.ops.command_line import say

ALL = "all"


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "make a webhook and print its secret, once")
    create.add_argument("--project", metavar="SLUG", required=True)
    create.add_argument("--url", metavar="URL", required=True, help="where its events are posted to")
    update = commands.add("update", _update, "change a webhook")
    update.add_argument("--url", metavar="URL", help="where its events are posted to")
    for command in (create, update):
        command.add_argument("--route", metavar="SLUG", help=f"events of this route only; `{ALL}`: of all routes (so it is at first)")
        command.add_argument("--events", metavar="NAME,NAME", help=f"events of these names only; `{ALL}`: all (so it is at first)")
        command.add_argument(
            "--basic-auth", metavar="USER:PASSWORD", help="log in by these (RFC 7617); - reads them from standard input, empty: not at all"
        )
        soft = command.add_mutually_exclusive_group()
        soft.add_argument(
            "--first-soft-bounce-only",
            dest="first_soft_bounce_only",
            action="store_true",
            default=None,
            help="of a recipient's soft bounces the first one only",
        )
        soft.add_argument(
            "--every-soft-bounce", dest="first_soft_bounce_only", action="store_false", help="all soft bounces (so it is at first)"
        )
    commands.add("list", _list, "list a project's webhooks").add_argument("--project", metavar="SLUG", required=True)
    show = commands.add("show", _show, "show a webhook")
    rotate = commands.add("rotate", _rotate, "give a webhook a new secret and print it, once")
    rotate.add_argument(
        "--overlap", metavar="TIME", type=value(kinds.DURATION), default=OVERLAP, help="how long the former one signs as well (1d)"
    )
    enable = commands.add("enable", _enable, "switch a webhook on again")
    disable = commands.add("disable", _disable, "switch a webhook off: what happens then it is not told")
    webhook_deliveries.add_commands(commands)
    delete = commands.add_delete(_delete, "delete a webhook")
    for command in (show, update, rotate, enable, disable, delete):
        command.add_argument("id")


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).create(
        args.project,
        args.url,
        route_slug=None if args.route == ALL else args.route,
        events=_events(args.events),
        login=_login(args.basic_auth),
        first_soft_bounce_only=bool(args.first_soft_bounce_only),
    )
    say(f"webhook {webhook.id} of project {args.project} is there; its secret can't be shown again")
    _warn(args, webhook)
    _print_secret(args, store, webhook)


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    webhooks = (_shown(store, webhook) for webhook in WebhookStore(store).of_project(args.project))
    print_many(args, ("id", "url", "route", "events", "basic_auth", "first_soft_bounce_only", "created", "disabled"), webhooks)


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    print_one(args, _shown(store, WebhookStore(store).webhook(args.id)))


def _update(args: argparse.Namespace, store: AccountStore) -> None:
    given = (args.url, args.route, args.events, args.basic_auth, args.first_soft_bounce_only)
    ask_for_change(option is not None for option in given)
    login = _login(args.basic_auth)

    def change(webhook: Webhook) -> Webhook:
        if args.url is not None:
            webhook = evolve(webhook, url=args.url)
        if args.route is not None:
            slug = store.project_by_id(webhook.project_id).slug
            webhook = evolve(webhook, route_id=None if args.route == ALL else store.route(slug, args.route).id)
        if args.events is not None:
            webhook = evolve(webhook, events=_events(args.events))
        if args.basic_auth is not None:
            username, password = login or (None, None)
            webhook = evolve(webhook, username=username, password=password)
        if args.first_soft_bounce_only is not None:
            webhook = evolve(webhook, first_soft_bounce_only=args.first_soft_bounce_only)
        return webhook

    webhook = WebhookStore(store).update(args.id, change)
    print_one(args, _shown(store, webhook), f"webhook {webhook.id} is changed")
    _warn(args, webhook)


def _rotate(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).rotate(args.id, args.overlap)
    say(f"webhook {webhook.id} has a new secret; until {timestamp(webhook.former_until)} the former one signs as well")
    _print_secret(args, store, webhook)


def _enable(args: argparse.Namespace, store: AccountStore) -> None:
    before = WebhookStore(store).webhook(args.id)
    webhook = WebhookStore(store).enable(args.id)
    print_one(args, _shown(store, webhook), f"webhook {webhook.id} is on")
    if before.disabled is not None:
        say(f"what happened since it was switched off: `webhook replay {webhook.id} --since {timestamp(before.disabled)}`")


def _disable(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).disable(args.id, BY_OWNER)
    print_one(args, _shown(store, webhook), f"webhook {webhook.id} is off")


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).webhook(args.id)
    shown = _shown(store, webhook)
    confirm(args, f"delete webhook {webhook.id} ({webhook.url}) of project {shown['project']}")
    WebhookStore(store).delete(webhook.id)
    print_one(args, shown, f"webhook {webhook.id} is deleted")


def _shown(store: AccountStore, webhook: Webhook) -> dict[str, object]:
    slug = store.project_by_id(webhook.project_id).slug
    routes = {route.id: route.slug for route in store.routes(slug)}
    return shown_webhook(webhook, slug, routes.get(webhook.route_id or ""), time.time())


def _print_secret(args: argparse.Namespace, store: AccountStore, webhook: Webhook) -> None:
    if args.json:
        print(json.dumps({**_shown(store, webhook), "secret": webhook.secret}))
    else:
        print(webhook.secret)


def _warn(args: argparse.Namespace, webhook: Webhook) -> None:
    """Say it when an address that stands in the URL can never be connected to; what a name stands for is seen when it is."""
    host = urlsplit(webhook.url).hostname or ""
    if is_address(host) and not permits(host, args.settings.events.webhook_allow_networks):
        say(f"nothing can be sent to {host}: [events] webhook_allow_networks doesn't name it")


def _events(given: str | None) -> tuple[str, ...] | None:
    """The names in a list with commas or blanks between them."""
    if given is None or given == ALL:
        return None
    return tuple(dict.fromkeys(given.replace(",", " ").split()))


def _login(given: str | None) -> tuple[str, str] | None:
    if given == STANDARD_INPUT:
        given = sys.stdin.readline().rstrip("\r\n")
    if not given:
        return None
    username, colon, password = given.partition(":")
    if not colon:
        raise Misused("--basic-auth takes USER:PASSWORD")
    return username, password
