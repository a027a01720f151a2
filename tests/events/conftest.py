"""What the tests of the outbox's readers share: mail for a spool in memory, and sinks that note what they are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from lettermta.event import CREATED, Event, message_event
from lettermta.events.sink import Backoff, IEventSink
from lettermta.interfaces import ISpool
from lettermta.message import Message, Recipient, new_id
from lettermta.testing.spool import MemorySpool

CONTEXT = b'{"scope":"project","team_id":null,"project_id":"p1","route_id":"r1","project":"demo","route":"outgoing"}'


def facts(message_id: str, tag: str = "orders") -> bytes:
    return b'{"message_id":"%b","subject":"Your order","metadata":{"order_id":"1234"},"tag":"%b","tags":[],"headers":[]}' % (
        message_id.encode(),
        tag.encode(),
    )


def submit(spool: MemorySpool, recipients: Sequence[str] = ("jane@example.com",), moment: float = 0.0) -> Event:
    """Store one message; returns its event."""
    identifier = new_id()
    content = spool.content()
    content.write(b"Subject: Your order\r\n\r\nThank you.\r\n")
    about = facts(identifier)
    event = message_event(CREATED, moment, identifier, about, CONTEXT)
    spool.store(
        Message(
            id=identifier,
            project_id="p1",
            project="demo",
            route_id="r1",
            route="outgoing",
            sender="shop@example.net",
            recipients=tuple(Recipient(address) for address in recipients),
            tag="orders",
            metadata={"order_id": "1234"},
            head=content.head(),
            content=content,
            size=content.size,
            created=moment,
            expires=moment + 432_000,
            facts=about,
            context=CONTEXT,
        ),
        [event],
    )
    return event


@implementer(IEventSink)
class NotingSink:
    """Notes the events it takes; ``answer`` decides what becomes of a batch."""

    batch = 100

    def __init__(self, name: str = "noting") -> None:
        self.name = name
        self.retry = Backoff(1.0, 300.0, jitter=lambda: 0.0)
        self.told: list[tuple[int, Event]] = []
        self.steps: list[str] = []
        self.answer: Callable[[Sequence[tuple[int, Event]]], Deferred[int]] = lambda events: succeed(len(events))
        self.synced: Callable[[], None] = lambda: None

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.told]

    def open(self) -> Deferred[None]:
        self.steps.append("open")
        return succeed(None)

    def deliver(self, events):
        def take(count: int) -> int:
            self.told += events[:count]
            return count

        return self.answer(events).addCallback(take)

    def sync(self) -> Deferred[None]:
        self.steps.append("sync")
        return maybeDeferred(self.synced)

    def close(self) -> Deferred[None]:
        self.steps.append("close")
        return succeed(None)


@implementer(ISpool)
class WatchedSpool(MemorySpool):
    """Counts the reads of the outbox."""

    reads = 0

    def events(self, after, limit):
        self.reads += 1
        return super().events(after, limit)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool() -> WatchedSpool:
    return WatchedSpool()
