"""Events: what is told to webhooks, hooks and the event log.

An event is made once, as the octets of its JSON document, in the commit that changes what it tells of; everyone gets those same
octets, on every retry (``docs/events.md`` describes the form).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

import orjson
from attrs import frozen

from lettermta.message import Reply, new_id

CREATED = "message.created"
SENT = "message.sent"
DELIVERED = "message.delivered"
SOFT_BOUNCED = "message.soft_bounced"
HARD_BOUNCED = "message.hard_bounced"
FAILED = "message.failed"
SPAM_COMPLAINT = "message.spam_complaint"
AUTO_REPLIED = "message.auto_replied"
SCHEDULED = "message.scheduled"
RESCHEDULED = "message.rescheduled"
CANCELED = "message.canceled"
RELEASED = "message.released"
SUPPRESSED = "message.suppressed"
SUPPRESSION_ADDED = "suppression.added"
SUPPRESSION_REMOVED = "suppression.removed"
TEST = "webhook.test"
WEBHOOK_DISABLED = "webhook.disabled"

_OF_MESSAGES = (
    "created", "sent", "delivered", "auto_replied", "hard_bounced", "soft_bounced", "spam_complaint", "failed", "suppressed",
    "policy_rejected", "unsubscribed", "opened", "clicked", "inbound", "scheduled", "rescheduled", "canceled", "released",
)  # fmt: skip
NAMES = frozenset({f"message.{name}" for name in _OF_MESSAGES} | {SUPPRESSION_ADDED, SUPPRESSION_REMOVED, TEST})
"""Every name that a webhook may be told of (COMPATIBILITY.md section 3), also those that nothing tells yet."""


def timestamp(moment: float) -> str:
    """A wall-clock time as RFC 3339 in UTC with microseconds, like ``2026-10-04T08:15:30.000000Z``."""
    seconds, micros = divmod(round(moment * 1_000_000), 1_000_000)
    return f"{_to_the_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


@frozen(slots=False)
class Event:
    """One event. ``payload`` is the document as told, without blanks, in UTF-8."""

    id: str
    name: str
    message_id: str
    created: float
    payload: bytes

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The whole document, parsed."""
        document: Mapping[str, Any] = orjson.loads(self.payload)
        return document

    @property
    def data(self) -> Mapping[str, Any]:
        """The ``data`` object: message_id, subject, metadata, tag, tags, headers and what the event's name adds."""
        data: Mapping[str, Any] = self.document["data"]
        return data

    @property
    def context(self) -> Mapping[str, Any]:
        """The ``context`` object: scope, ids, and the slugs of project and route."""
        context: Mapping[str, Any] = self.document["context"]
        return context


def response(reply: Reply) -> dict[str, object]:
    """The ``response`` object of an event that a remote reply decided."""
    return {"status_code": reply.code, "enhanced_status_code": reply.enhanced, "content": reply.text}


def message_event(name: str, moment: float, message_id: str, facts: bytes, context: bytes, **data: object) -> Event:
    """Make an event of a message.

    ``facts`` and ``context`` are the message's JSON objects of those names; ``data`` is what the event's name adds to the facts.
    """
    identifier = new_id()
    extra = orjson.dumps(data)
    payload = b'{"id":"%b","event":"%b","timestamp":"%b","sandbox":false,"sandbox_result":null,"data":%b%b,"context":%b}' % (
        identifier.encode(),
        name.encode(),
        timestamp(moment).encode(),
        facts[:-1],
        b"}" if extra == b"{}" else b"," + extra[1:],
        context,
    )
    return Event(identifier, name, message_id, moment, payload)
