"""``lettermta-admin tlsrpt``: how TLS to receivers' hosts went, day by day, and the reports on it (RFC 8460).

Reads what the daemon has written, which it does once a minute.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator

from lettermta.accounts.errors import NoSuchAccount
from lettermta.accounts.store import AccountStore
from lettermta.config import Config
from lettermta.delivery.tls.ledger import FOLDER, DayFiles, day_of
from lettermta.delivery.tls.report_text import Report, Submitter
from lettermta.delivery.tls.tally import DomainDay
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.printing import print_many


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    listing = commands.add("list", _list, "each domain and day: sessions that succeeded and failed, and what became of the report")
    show = commands.add("show", _show, "print a domain's report, as it is sent or would be")
    for command in (listing, show):
        command.add_argument("--day", metavar="YYYY-MM-DD", type=_day, help="in UTC; today unless said otherwise (list: all that are kept)")
    show.add_argument("domain")


def _day(text: str) -> str:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no day; expected one like 2026-11-25")
    return text


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    files = _files(args.settings)
    days = [args.day] if args.day else files.days()
    columns = ("day", "domain", "policy", "succeeded", "failed", "report")
    print_many(args, columns, (row for day in days for each in _sorted(files, day) for row in _rows(day, each)))


def _rows(day: str, domain: DomainDay) -> Iterator[dict[str, object]]:
    for reported, tally in domain.policies.items():
        counts = {"succeeded": tally.successes, "failed": tally.failed}
        yield {"day": day, "domain": domain.domain, "policy": reported.type, **counts, "report": domain.fate or "to come"}


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    day = args.day or day_of(time.time())
    wanted = args.domain.lower().rstrip(".")
    found = next((each for each in _files(args.settings).load(day) if each.domain == wanted), None)
    if found is None:
        raise NoSuchAccount(f"nothing is known of sessions with the hosts of {wanted} on {day}")
    report = Report(_submitter(args.settings), day, found).told()
    print(json.dumps(report, ensure_ascii=False, indent=None if args.json else 2))


def _sorted(files: DayFiles, day: str) -> list[DomainDay]:
    return sorted(files.load(day), key=lambda each: each.domain)


def _files(settings: Config) -> DayFiles:
    return DayFiles(settings.mta.state_dir / FOLDER)


def _submitter(settings: Config) -> Submitter:
    delivery, hostname = settings.delivery, settings.mta.hostname
    return Submitter(delivery.tls_report_organization or hostname, delivery.tls_report_from or f"postmaster@{hostname}", hostname)
