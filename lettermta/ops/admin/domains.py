"""``lettermta-admin domain``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from attrs import evolve

from lettermta.accounts.dns_records import DNSRecord, dns_records
from lettermta.accounts.model import Domain, DomainKey, KeyState, ReturnPathUse
from lettermta.accounts.shown import shown_domain
from lettermta.accounts.store import AccountStore
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import confirm
from lettermta.ops.admin.printing import print_columns, print_many, print_one
from lettermta.ops.command_line import say


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "add a domain that a project sends from; prints the DNS records to publish")
    show = commands.add("show", _show, "show a domain and its DNS records")
    rotate = commands.add("rotate", _rotate, "make new keys beside those that sign; they take over once `verify` has seen their records")
    rotate.add_argument("--activate", action="store_true", help="let the new keys sign from now on, seen or not")
    update = commands.add("update", _update, "change how a domain's mail leaves")
    update.add_argument(
        "--return-path",
        metavar="on|off|auto",
        choices=[use.value for use in ReturnPathUse],
        required=True,
        help="whether bounces come back to lettermta and become events; auto: once `verify` has seen the record of the return path",
    )
    delete = commands.add_delete(_delete, "remove a domain from a project, with its keys")
    listing = commands.add("list", _list, "list a project's domains")
    for command in (create, show, rotate, update, delete, listing):
        command.add_argument("--project", metavar="SLUG", required=True)
    for command in (create, show, rotate, update, delete):
        command.add_argument("domain", metavar="DOMAIN", help="like example.com; its sub-domains are domains of their own")


def _create(args: argparse.Namespace, store: AccountStore) -> None:
    domain = store.create_domain(args.project, args.domain)
    say(f"domain {domain.name} of project {args.project} is there; publish these records, and then run `domain verify`")
    _print_records(args, store, domain, store.domain_keys(domain))
    if not store.project(args.project).check_sender:
        say(f"project {args.project} may send from any domain: `project update {args.project} --check-sender` keeps it to its own")


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    domains = (shown_domain(domain, args.project) for domain in store.domains(args.project))
    print_many(args, ("domain", "return_path_verified", "created", "id"), domains)


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    domain = store.domain(args.project, args.domain)
    keys = store.domain_keys(domain)
    if not args.json:
        print_one(args, shown_domain(domain, args.project))
        print()
    _print_records(args, store, domain, keys)


def _rotate(args: argparse.Namespace, store: AccountStore) -> None:
    domain = store.domain(args.project, args.domain)
    store.domain_keys(domain)
    keys = store.rotate_keys(domain)
    if args.activate:
        keys = store.activate_keys(domain)
        say("the new keys sign from now on; keep the records of the retired ones for some days, since their mail is still under way")
    else:
        say("publish the records of the keys that wait; once `domain verify` sees them, these keys sign and the old ones retire")
    _print_records(args, store, domain, keys)


def _update(args: argparse.Namespace, store: AccountStore) -> None:
    use = ReturnPathUse(args.return_path)
    domain = store.update_domain(store.domain(args.project, args.domain), lambda domain: evolve(domain, return_path_use=use))
    told = "has a return path of ours" if domain.has_return_path else "keeps its sender's address"
    print_one(args, shown_domain(domain, args.project), f"mail from {domain.name} {told} from now on")


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    name = store.domain(args.project, args.domain).name
    refused = ", which refuses mail from it then" if store.project(args.project).check_sender else ""
    confirm(args, f"delete domain {name} of project {args.project} and its keys{refused}")
    domain = store.delete_domain(args.project, name)
    print_one(args, shown_domain(domain, args.project), f"domain {domain.name} of project {args.project} is deleted")


def records_of(args: argparse.Namespace, store: AccountStore, domain: Domain, keys: Sequence[DomainKey]) -> Sequence[DNSRecord]:
    """The records that the domain is to have, by what the configuration says of this machine."""
    settings = args.settings
    return dns_records(
        domain, keys, store.project(args.project), settings.mta.hostname, settings.delivery.bounce_host or settings.mta.hostname
    )


def purpose_of(record: DNSRecord) -> str:
    """What a record is for, in a few words."""
    if record.key is None:
        return record.purpose.value if record.needed else f"{record.purpose} (hint)"
    state = "" if record.key.state is KeyState.SIGNING else f", {record.key.state}"
    return f"{record.purpose} {record.key.algorithm}{state}"


def _print_records(args: argparse.Namespace, store: AccountStore, domain: Domain, keys: Sequence[DomainKey]) -> None:
    records = records_of(args, store, domain, keys)
    if args.json:
        print(json.dumps(shown_domain(domain, args.project, records)))
        return
    rows = [(purpose_of(record), "yes" if record.verified else "not yet", record.type, record.name) for record in records]
    print_columns(("for", "verified", "type", "name"), rows)
    print("\nAs lines of a zone file; a form that asks for the value alone takes what stands behind TXT or CNAME:\n")
    for record in records:
        print(record.zone_line)
