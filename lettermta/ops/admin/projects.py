"""``lettermta-admin project``."""

from __future__ import annotations

import argparse
from argparse import BooleanOptionalAction

from attrs import evolve

from lettermta.accounts.model import Alignment, Project
from lettermta.accounts.shown import shown_project
from lettermta.accounts.store import AccountStore
from lettermta.config import kinds
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import ask_for_change, confirm, limit, value
from lettermta.ops.admin.printing import print_many, print_one
from lettermta.ops.command_line import say


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "make a project with its route `outgoing`")
    update = commands.add("update", _update, "change a project's SMTP switch, limits, check of senders or alignment")
    create.set_defaults(smtp=True, message_size=None, recipients=None, check_sender=False, alignment=Alignment.RELAXED)
    for command in (create, update):
        command.add_argument("slug")
        # An update changes only what was named, so there is no default; those of a new project are set above.
        command.add_argument(
            "--smtp", action=BooleanOptionalAction, default=argparse.SUPPRESS, help="its tokens can log in over SMTP, as they can at first"
        )
        command.add_argument(
            "--message-size",
            metavar="SIZE",
            type=limit(kinds.SIZE),
            default=argparse.SUPPRESS,
            help="largest message, like 25MB, or `default`",
        )
        command.add_argument(
            "--recipients",
            metavar="N",
            type=limit(kinds.NUMBER),
            default=argparse.SUPPRESS,
            help="most recipients of a message, or `default`",
        )
        command.add_argument(
            "--check-sender",
            action=BooleanOptionalAction,
            default=argparse.SUPPRESS,
            help="its mail has to come from one of its domains, which isn't so at first",
        )
        command.add_argument(
            "--alignment",
            type=value(kinds.choice(Alignment)),
            metavar="relaxed|strict",
            default=argparse.SUPPRESS,
            help="which domain signs: that of From alone, or (relaxed, as at first) also one above it",
        )
    commands.add("list", _list, "list all projects")
    commands.add("show", _show, "show a project").add_argument("slug")
    commands.add_delete(_delete, "delete a project with its routes, tokens and domains").add_argument("slug")


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    project = store.create_project(
        args.slug,
        smtp=args.smtp,
        message_size=args.message_size,
        recipients=args.recipients,
        check_sender=args.check_sender,
        alignment=args.alignment,
    )
    print_one(args, shown_project(project), f"project {project.slug} is there, with its default route outgoing")
    _tell_of_missing_domains(project, store)


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    columns = ("slug", "smtp", "message_size", "recipients", "check_sender", "created", "id")
    print_many(args, columns, map(shown_project, store.projects()))


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    print_one(args, shown_project(store.project(args.slug)))


def _update(args: argparse.Namespace, store: AccountStore) -> None:
    ask_for_change(hasattr(args, name) for name in ("smtp", "message_size", "recipients", "check_sender", "alignment"))

    def change(project: Project) -> Project:
        return evolve(
            project,
            smtp=getattr(args, "smtp", project.smtp),
            message_size=getattr(args, "message_size", project.message_size),
            recipients=getattr(args, "recipients", project.recipients),
            check_sender=getattr(args, "check_sender", project.check_sender),
            alignment=getattr(args, "alignment", project.alignment),
        )

    project = store.update_project(args.slug, change)
    print_one(args, shown_project(project), f"project {project.slug} is changed")
    _tell_of_missing_domains(project, store)


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    routes, tokens, domains = len(store.routes(args.slug)), len(store.tokens(args.slug)), len(store.domains(args.slug))
    confirm(args, f"delete project {args.slug} with {routes} route(s), {tokens} token(s) and {domains} domain(s)")
    print_one(args, shown_project(store.delete_project(args.slug)), f"project {args.slug} is deleted")


def _tell_of_missing_domains(project: Project, store: AccountStore) -> None:
    if project.check_sender and not store.domains(project.slug):
        say(f"project {project.slug} checks senders and has no domain, so all its mail is refused until `domain create` adds one")
