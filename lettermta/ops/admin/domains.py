"""``lettermta-admin domain``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults

from lettermta.accounts.dns_records import DNSRecord, dns_records
from lettermta.accounts.model import Domain, DomainKey, KeyState, ReturnPathUse
from lettermta.accounts.shown import shown_domain, shown_record
from lettermta.accounts.store import AccountStore
from lettermta.config import Config
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.domain_check import Check, Finding, all_waiting_found, check, note
from lettermta.ops.admin.given import Unmet, Unsettled, confirm
from lettermta.ops.admin.printing import print_columns, print_many, print_one
from lettermta.ops.admin.running import run
from lettermta.ops.command_line import say


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    create = commands.add("create", _create, "add a domain that a project sends from; prints the DNS records to publish")
    show = commands.add("show", _show, "show a domain and its DNS records")
    verify = commands.add("verify", _verify, "look the records up in the DNS, and note which are right")
    rotate = commands.add("rotate", _rotate, "make new keys beside those that sign; they take over once `verify` has seen their records")
    rotate.add_argument("--activate", action="store_true", help="let the new keys sign from now on, seen or not")
    update = commands.add("update", _update, "change how a domain's mail leaves")
    update.add_argument(
        "--return-path",
        metavar="on|off|auto",
        choices=[use.value for use in ReturnPathUse],
        required=True,
        help="whether bounces come back to lettermta and become events; auto: once `verify` has seen the record and a listener takes them",
    )
    delete = commands.add_delete(_delete, "remove a domain from a project, with its keys")
    listing = commands.add("list", _list, "list a project's domains")
    for command in (create, show, verify, rotate, update, delete, listing):
        command.add_argument("--project", metavar="SLUG", required=True)
    for command in (create, show, verify, rotate, update, delete):
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


def _verify(args: argparse.Namespace, store: AccountStore) -> None:
    from lettermta.wiring import make_resolver  # it knows all parts, which other commands need not load

    domain = store.domain(args.project, args.domain)
    records = records_of(args, store, domain, store.domain_keys(domain))

    async def look_up(reactor: Any) -> Sequence[Check]:
        asked = make_resolver(args.settings, reactor)
        sources = _sources(args.settings)
        checking = [Deferred.fromCoroutine(check(asked, record, args.settings.mta.hostname, sources)) for record in records]
        return await gatherResults(checking)

    checks = run(look_up)
    domain = note(store, domain, checks, time.time())
    activated = all_waiting_found(checks)
    if activated:
        store.activate_keys(domain)
    _print_checks(args, domain, checks)
    if activated:
        say("the keys that waited sign from now on; keep the records of the old ones for some days, since their mail is still under way")
    if unsettled := [each for each in checks if each.record.needed and each.finding is not Finding.FOUND]:
        names = ", ".join(each.record.name for each in unsettled)
        known = any(each.finding is not Finding.UNKNOWN for each in unsettled)
        raise (Unmet if known else Unsettled)(f"{'not as they have to be' if known else 'not to be looked up now'}: {names}")


def _print_checks(args: argparse.Namespace, domain: Domain, checks: Sequence[Check]) -> None:
    if args.json:
        shown = {**shown_domain(domain, args.project), "records": [_shown_check(each) for each in checks]}
        print(json.dumps(shown))
        return
    rows = [(purpose_of(each.record), each.finding, each.record.type, each.record.name) for each in checks]
    print_columns(("for", "state", "type", "name"), rows)
    for each in checks:
        if each.finding is not Finding.FOUND and (each.record.needed or each.finding is not Finding.MISSING):
            print(f"\n{each.record.type} {each.record.name} is {each.finding}{': ' if each.why else ''}{each.why}")
            for there in each.there:
                print(f"  there is   {there}")
            if each.finding is not Finding.UNKNOWN:
                print(f"  wanted is  {each.record.value}")


def _shown_check(each: Check) -> dict[str, object]:
    return {**shown_record(each.record), "state": each.finding.value, "found": each.there, "why": each.why or None}


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
    listening = args.settings.takes_returns
    told = "has a return path of ours" if domain.uses_return_path(listening) else "keeps its sender's address"
    print_one(args, shown_domain(domain, args.project), f"mail from {domain.name} {told} from now on")
    if not listening and use is not ReturnPathUse.OFF:
        say("no listener takes what comes back: give one on port 25 `role = both` ([listener NAME])")


def _delete(args: argparse.Namespace, store: AccountStore) -> None:
    name = store.domain(args.project, args.domain).name
    refused = ", which refuses mail from it then" if store.project(args.project).check_sender else ""
    confirm(args, f"delete domain {name} of project {args.project} and its keys{refused}")
    domain = store.delete_domain(args.project, name)
    print_one(args, shown_domain(domain, args.project), f"domain {domain.name} of project {args.project} is deleted")


def records_of(args: argparse.Namespace, store: AccountStore, domain: Domain, keys: Sequence[DomainKey]) -> Sequence[DNSRecord]:
    """The records that the domain is to have, by what the configuration says of this machine."""
    hostname = args.settings.mta.hostname
    bounce_host = args.settings.delivery.bounce_host or hostname
    return dns_records(domain, keys, store.project(args.project), hostname, bounce_host, _sources(args.settings))


def _sources(settings: Config) -> Sequence[str]:
    """The public addresses that mail leaves from by the configuration."""
    addresses = [*settings.delivery.source_addresses, *(address for source in settings.sources for address in source.addresses)]
    return [address for address in dict.fromkeys(addresses) if ip_address(address).is_global]


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
