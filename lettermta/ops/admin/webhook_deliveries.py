"""``lettermta-admin webhook deliveries|test|replay``: what webhooks were told, and telling them once more.

They work on the database of deliveries itself, so the daemon may be up or down: a running one sends at once, another one when it starts.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from lettermta.accounts.errors import NoSuchAccount
from lettermta.accounts.store import AccountStore
from lettermta.accounts.webhooks import Webhook, WebhookStore
from lettermta.config import kinds
from lettermta.config.faults import Wrong
from lettermta.event import NAMES, Event, timestamp
from lettermta.events.webhooks.own_events import test_event
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.given import Misused
from lettermta.ops.admin.printing import print_many
from lettermta.ops.command_line import say
from lettermta.ops.control import SOCKET
from lettermta.spool import deliveries
from lettermta.spool.deliveries import directory_of
from lettermta.spool.offline import Offline
from lettermta.webhook import DeliveryStatus, NewDelivery

PAGE = 500
"""Events that are read from the outbox at a time."""
TEST_SECONDS = 20.0
"""How long the verb ``test`` waits for the endpoint's answer."""


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    listing = commands.add("deliveries", _deliveries, "what a webhook was told, the newest first")
    listing.add_argument("--status", choices=[status.value for status in DeliveryStatus], help="those of this status only")
    listing.add_argument("--event", metavar="ID", help="those of this event only")
    listing.add_argument("--limit", metavar="N", type=int, default=50, help="at most so many (50)")
    test = commands.add("test", _test, "send a webhook the event webhook.test, and print what its endpoint answers")
    replay = commands.add("replay", _replay, "tell a webhook of events once more, also of those that it was never told of")
    replay.add_argument("--event", metavar="ID", help="the event of this id")
    replay.add_argument("--message", metavar="ID", help="events of this message")
    replay.add_argument("--since", metavar="TIME", type=_moment, help="events from then on, like 2026-10-04T08:15:30Z or 2h (ago)")
    replay.add_argument("--until", metavar="TIME", type=_moment, help="events before then")
    replay.add_argument("--name", metavar="NAME", help="events of this name, like message.delivered")
    replay.add_argument("--tag", metavar="TAG", help="events of messages with this tag")
    for command in (listing, test, replay):
        command.add_argument("id")


def _moment(text: str) -> float:
    """A time as RFC 3339, or how long ago it was."""
    try:
        return time.time() - kinds.DURATION.parse(text, Path())
    except Wrong:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a time like 2026-10-04T08:15:30Z nor a span like 2h") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} does not say in which zone it is: end it with Z, or like +02:00")
    return moment.timestamp()


# -- deliveries


def _deliveries(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).webhook(args.id)
    connection = deliveries.connect(directory_of(args.settings.mta.state_dir))
    try:
        rows = deliveries.records(connection, webhook.id, max(args.limit, 1), status=args.status, event_id=args.event)
    finally:
        connection.close()
    columns = ("queued", "event", "message_id", "event_id", "status", "attempt", "http_status", "duration", "next_attempt", "problem")
    print_many(args, columns, [shown_delivery(row) for row in rows])


def _time(moment: float | None) -> str | None:
    return None if moment is None else timestamp(moment)


def shown_delivery(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record as it is shown."""
    return {
        "webhook_id": row["webhook_id"],
        "event": row["event"],
        "event_id": row["event_id"],
        "message_id": row["message_id"] or None,
        "replay": row["replay"],
        "queued": timestamp(row["queued"]),
        "status": row["status"],
        "attempt": row["attempt"],
        "attempted": _time(row["attempted"]),
        "http_status": row["http_status"],
        "duration": row["seconds"],
        "response_body": row["response"],
        "problem": row["problem"] or None,
        "next_attempt": _time(row["due"]),
    }


# -- test


def _test(args: argparse.Namespace, store: AccountStore) -> None:
    webhook = WebhookStore(store).webhook(args.id)
    if webhook.disabled is not None:
        raise Misused(f"webhook {webhook.id} is off ({webhook.disabled_reason}): `webhook enable {webhook.id}` first")
    connection = deliveries.connect(directory_of(args.settings.mta.state_dir))
    try:
        event_id = _add_test(connection, webhook, store.project_by_id(webhook.project_id).slug)
        running = _is_running(args.settings.mta.state_dir)
        row = _wait(connection, webhook, event_id, TEST_SECONDS if running else 0.0)
    finally:
        connection.close()
    if args.json:
        print(json.dumps(shown_delivery(row)))
    elif running:
        said = row["problem"] or ("not tried yet" if row["http_status"] is None else f"status {row['http_status']}")
        after = "" if row["seconds"] is None else f" after {row['seconds'] * 1000:.0f} ms"
        print(f"{row['status']}: {said}{after}")
    if not running:
        say(f"no daemon is running: event {event_id} is sent when it starts")
    elif row["status"] == DeliveryStatus.PENDING:
        say(f"event {event_id} is not sent yet; `webhook deliveries {webhook.id}` tells what became of it")


def _add_test(connection: Any, webhook: Webhook, project_slug: str) -> str:
    now = time.time()
    event = test_event(webhook, project_slug, None, now)
    deliveries.add(connection, [NewDelivery(webhook.id, event.id, event.name, "", event.payload)], now)
    return event.id


def _is_running(state_dir: Path) -> bool:
    """Whether a daemon runs; it sends what is to be told within a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(state_dir / SOCKET)) == 0


def _wait(connection: Any, webhook: Webhook, event_id: str, seconds: float) -> Mapping[str, Any]:
    until = time.monotonic() + seconds
    while True:
        (row,) = deliveries.records(connection, webhook.id, 1, event_id=event_id)
        if row["status"] != DeliveryStatus.PENDING or time.monotonic() > until:
            return row
        time.sleep(0.05)


# -- replay


def _replay(args: argparse.Namespace, store: AccountStore) -> None:
    filters = _filters(args)
    webhook = WebhookStore(store).webhook(args.id)
    if webhook.disabled is not None:
        raise Misused(f"webhook {webhook.id} is off ({webhook.disabled_reason}): `webhook enable {webhook.id}` first")
    connection = deliveries.connect(directory_of(args.settings.mta.state_dir))
    count = 0
    try:
        for page in _pages(args, filters):
            new = [
                NewDelivery(webhook.id, event.id, event.name, event.message_id, event.payload)
                for event in page
                if event.context["project_id"] == webhook.project_id and webhook.wants(event.name, event.context["route_id"])
            ]
            deliveries.add_again(connection, new, time.time())
            count += len(new)
    finally:
        connection.close()
    if args.json:
        print(json.dumps({"webhook_id": webhook.id, "events": count}))
    say(f"{count} event{'' if count == 1 else 's'} to tell once more" if count else "the webhook wants no event that is like that and kept")
    if args.event is not None and not count:
        raise NoSuchAccount(f"there is no event {args.event} that webhook {webhook.id} could be told of")


def _filters(args: argparse.Namespace) -> Mapping[str, Any]:
    options = {"event_id": args.event, "id": args.message, "since": args.since, "until": args.until, "event": args.name, "tag": args.tag}
    filters = {name: value for name, value in options.items() if value is not None}
    if not filters:
        raise Misused("say which events: --event, --message, --since, --until, --name, --tag")
    if args.name is not None and args.name not in NAMES:
        raise Misused(f"there is no event {args.name!r}; there are {', '.join(sorted(NAMES))}")
    return filters


def _pages(args: argparse.Namespace, filters: Mapping[str, Any]) -> Iterator[Sequence[Event]]:
    directory = args.settings.mta.state_dir / "spool" / "0"
    if not (directory / "spool.db").exists():
        return
    spool, after = Offline(directory), 0
    while found := spool.find_events(filters, after, PAGE):
        yield [event for _, event in found]
        after = found[-1][0]
