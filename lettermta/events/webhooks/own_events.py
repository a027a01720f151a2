"""The events that are about webhooks themselves: a test of one, and that one was switched off."""

from __future__ import annotations

import orjson

from lettermta.accounts.webhooks import Webhook
from lettermta.event import TEST, WEBHOOK_DISABLED, Event, context, message_event


def test_event(webhook: Webhook, project: str, route: str | None, now: float) -> Event:
    """``webhook.test`` for this webhook alone (COMPATIBILITY.md section 3); it is in no outbox."""
    data = {"message": "This is a test of your webhook.", "webhook_id": webhook.id, "timestamp": int(now)}
    return message_event(TEST, now, "", orjson.dumps(data), context(webhook.project_id, project, webhook.route_id, route))


def disabled_event(webhook: Webhook, project: str, route: str | None, reason: str, now: float) -> Event:
    """``webhook.disabled``: for the event log and hooks. It is none of the events that webhooks are told of."""
    data = {"webhook_id": webhook.id, "url": webhook.url.partition("?")[0], "reason": reason}
    return message_event(WEBHOOK_DISABLED, now, "", orjson.dumps(data), context(webhook.project_id, project, webhook.route_id, route))
