"""``lettermta-admin token``. A token's value is printed once, by ``create``, and by nothing else."""

from __future__ import annotations

import argparse
import json
import sys

from lettermta.accounts.model import Token
from lettermta.accounts.shown import shown_token
from lettermta.accounts.store import AccountStore
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import STANDARD_INPUT, confirm
from lettermta.ops.admin.printing import print_many, print_one
from lettermta.ops.command_line import say


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "make a token and print its value, once")
    create.add_argument("--project", metavar="SLUG", required=True)
    create.add_argument("--name", metavar="TEXT", help="what it is for")
    create.add_argument(
        "--import", metavar="VALUE", dest="value", help="take an existing token with any prefix; - reads it from standard input"
    )
    commands.add("list", _list, "list a project's tokens").add_argument("--project", metavar="SLUG", required=True)
    update = commands.add("update", _update, "rename a token")
    update.add_argument("--name", metavar="TEXT", required=True)
    show = commands.add("show", _show, "show a token")
    revoke = commands.add("revoke", _revoke, "end a token's use, for good")
    delete = commands.add_delete(_delete, "forget a token")
    for command in (update, show, revoke, delete):
        command.add_argument("id")


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    value = args.value
    if value == STANDARD_INPUT:
        value = sys.stdin.readline().rstrip("\r\n")
    token, secret = store.create_token(args.project, args.name or "", value=value)
    say(f"token {token.id} of project {args.project} is there; its value can't be shown again")
    if args.json:
        print(json.dumps({**shown_token(token, args.project), "token": secret}))
    else:
        print(secret)


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    tokens = (shown_token(token, args.project) for token in store.tokens(args.project))
    print_many(args, ("id", "hint", "name", "created", "revoked"), tokens)


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.token(args.id)
    print_one(args, shown_token(token, _slug_of(store, token)))


def _update(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.rename_token(args.id, args.name)
    print_one(args, shown_token(token, _slug_of(store, token)), f"token {token.id} is changed")


def _revoke(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.revoke_token(args.id)
    print_one(args, shown_token(token, _slug_of(store, token)), f"token {token.id} is revoked")


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    token = store.token(args.id)
    slug = _slug_of(store, token)
    confirm(args, f"delete token {token.id} ({token.name or token.hint or 'without a name'}) of project {slug}")
    print_one(args, shown_token(store.delete_token(args.id), slug), f"token {token.id} is deleted")


def _slug_of(store: AccountStore, token: Token) -> str:
    return store.project_by_id(token.project_id).slug
