"""``lettermta-admin domain``."""

from __future__ import annotations

import argparse

from lettermta.accounts.shown import shown_domain
from lettermta.accounts.store import AccountStore
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import confirm
from lettermta.ops.admin.printing import print_many, print_one
from lettermta.ops.command_line import say


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "add a domain that a project sends from")
    show = commands.add("show", _show, "show a domain")
    delete = commands.add_delete(_delete, "remove a domain from a project")
    listing = commands.add("list", _list, "list a project's domains")
    for command in (create, show, delete, listing):
        command.add_argument("--project", metavar="SLUG", required=True)
    for command in (create, show, delete):
        command.add_argument("domain", metavar="DOMAIN", help="like example.com; its sub-domains are domains of their own")


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    domain = store.create_domain(args.project, args.domain)
    print_one(args, shown_domain(domain, args.project), f"domain {domain.name} of project {args.project} is there")
    say("this version of lettermta doesn't sign mail, so it has no DNS records for you to publish")
    if not store.project(args.project).check_sender:
        say(f"project {args.project} may send from any domain: `project update {args.project} --check-sender` keeps it to its own")


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    domains = (shown_domain(domain, args.project) for domain in store.domains(args.project))
    print_many(args, ("domain", "created", "id"), domains)


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    print_one(args, shown_domain(store.domain(args.project, args.domain), args.project))


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    name = store.domain(args.project, args.domain).name
    refused = ", which refuses mail from it then" if store.project(args.project).check_sender else ""
    confirm(args, f"delete domain {name} of project {args.project}{refused}")
    domain = store.delete_domain(args.project, name)
    print_one(args, shown_domain(domain, args.project), f"domain {domain.name} of project {args.project} is deleted")
