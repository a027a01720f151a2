"""Events: what is told to webhooks, hooks and the event log.

An event is made once, as the octets of its JSON document, in the commit that changes what it tells of; everyone gets those same
octets, on every retry (``docs/events.md`` describes the form).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import orjson
from attrs import frozen

from lettermta.message import Reply, ReplyClass, new_id

T = TypeVar("T")

CREATED = "message.created"
SENT = "message.sent"
DELIVERED = "message.delivered"
SOFT_BOUNCED = "message.soft_bounced"
HARD_BOUNCED = "message.hard_bounced"
FAILED = "message.failed"
SPAM_COMPLAINT = "message.spam_complaint"
AUTO_REPLIED = "message.auto_replied"
UNSUBSCRIBED = "message.unsubscribed"
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
    """One event. ``payload`` is the document as told, without blanks, in UTF-8; everything else is read from it when it is first asked for.

    What an event's name does not tell (``docs/events.md``) is None.
    """

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

    @property
    def project(self) -> str | None:
        """The slug of the project."""
        return self._of(self.context, "project", str)

    @property
    def route(self) -> str | None:
        """The slug of the route that the message leaves by."""
        return self._of(self.context, "route", str)

    @property
    def tag(self) -> str | None:
        """The message's tag."""
        return self._of(self.data, "tag", str)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The message's metadata; empty where there is none."""
        return self._of(self.data, "metadata", dict) or {}

    @property
    def subject(self) -> str | None:
        """The message's subject, decoded."""
        return self._of(self.data, "subject", str)

    @property
    def recipient(self) -> str | None:
        """The one recipient that it tells of."""
        return self._of(self.data, "recipient", str)

    @property
    def reply(self) -> Reply | None:
        """The other side's reply that decided: ``response`` in the document."""
        said = self._of(self.data, "response", dict)
        return None if said is None else Reply(said["status_code"], said["enhanced_status_code"], said["content"])

    @property
    def classification(self) -> ReplyClass | None:
        """What a refusal is about; ``undetermined`` where it has a word that this program does not know."""
        told = self._of(self.data, "classification", str)
        if told is None:
            return None
        return ReplyClass(told) if told in set(ReplyClass) else ReplyClass.UNDETERMINED

    @property
    def reason(self) -> str | None:
        """Why, in a sentence for people."""
        return self._of(self.data, "reason", str)

    def _of(self, part: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
        value = part.get(name)
        return value if isinstance(value, kind) else None


def context(
    project_id: str | None, project: str | None, route_id: str | None = None, route: str | None = None, *, scope: str = "project"
) -> bytes:
    """The ``context`` object of an event (COMPATIBILITY.md section 3): ids, and the slugs of project and route."""
    return orjson.dumps(
        {"scope": scope, "team_id": None, "project_id": project_id, "route_id": route_id, "project": project, "route": route}
    )


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
