"""The spool in memory promises what ISpool does, less the disk."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lettermta.event import SENT, message_event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, IStoredContent
from lettermta.message import Lane, Outcome, State
from lettermta.testing.spool import MemoryContent, MemorySpool

from .conftest import CONTEXT, facts, submit
from .test_dispatcher import fired


@implementer(ISpoolListener)
class Listening:
    def __init__(self) -> None:
        self.heard = []

    def entries_stored(self, entries):
        self.heard.append([(entry.lane.domain, [one.address for one in entry.recipients]) for entry in entries])

    def events_stored(self, events):
        self.heard.append([(number, event.name) for number, event in events])


@pytest.fixture
def memory():
    return MemorySpool()


EXAMPLE = Lane("r1", "example.com")


def due(spool, now, limit=100, lane=EXAMPLE):
    return fired(spool.due(lane, now, limit))


def outcome(recipient, state, moment=0.0):
    return Outcome(recipient, state, "as it went", moment, handed_over=state is State.DELIVERED)


def test_it_provides_its_interfaces(memory):
    verifyObject(ISpool, memory)
    content = memory.content()
    verifyObject(IContent, content)
    submit(memory)
    stored = fired(memory.load(due(memory, 1)[0]))
    verifyObject(IStoredContent, stored)


def test_a_message_is_announced_by_lanes_with_its_event_in_one_commit(memory):
    listener = Listening()
    memory.subscribe(listener)
    submit(memory, ["a@example.com", "b@Example.org", "c@EXAMPLE.com"])
    assert listener.heard == [
        [("example.com", ["a@example.com", "c@EXAMPLE.com"]), ("example.org", ["b@Example.org"])],
        [(1, "message.created")],
    ]


def test_due_is_by_age_grouped_by_message_and_bounded(memory):
    submit(memory, ["late@example.com"], moment=50)
    submit(memory, ["a@example.com", "b@example.com", "c@example.org"], moment=10)
    submit(memory, ["future@example.com"], moment=500)
    addresses = [[one.address for one in entry.recipients] for entry in due(memory, 100)]
    assert addresses == [["a@example.com", "b@example.com"], ["late@example.com"]]
    assert [[one.address for one in entry.recipients] for entry in due(memory, 100, limit=1)] == [["a@example.com"]]
    assert due(memory, 100) == due(memory, 100), "what is being attempted is the scheduler's to know"
    assert dict(fired(memory.lanes())) == {EXAMPLE: 10, Lane("r1", "example.org"): 10}


def test_an_outcome_is_kept_per_recipient_and_the_last_one_ends_the_message(memory):
    listener = Listening()
    submit(memory, ["a@example.com", "b@example.com"])
    memory.subscribe(listener)
    [entry] = due(memory, 1)
    first, second = entry.recipients
    told = message_event(SENT, 1.0, entry.id, facts(entry.id), CONTEXT, recipient=first.address)
    fired(memory.record(entry, [outcome(first, State.DELIVERED), outcome(second, State.DEFERRED, 60.0)], [told]))
    assert listener.heard == [[(2, "message.sent")]]
    assert due(memory, 59) == []
    assert fired(memory.next_due(EXAMPLE, 0.0)) == 60
    [again] = due(memory, 60)
    assert [(one.address, one.attempts, one.handed_over) for one in again.recipients] == [("b@example.com", 1, False)]
    rows = fired(memory.query({"state": "deferred"}, 0, 10))
    assert [(row["recipient"], row["attempts"], row["last_reply"]) for row in rows] == [("b@example.com", 1, "as it went")]
    fired(memory.record(again, [outcome(second, State.BOUNCED)], []))
    assert len(listener.heard) == 1, "no events, nothing to tell"
    assert memory.stored == {}
    assert fired(memory.next_due(EXAMPLE, 0.0)) is None
    with pytest.raises(LookupError):
        fired(memory.load(again))


def test_content_comes_back_as_it_is_to_leave(memory):
    submit(memory)
    stored = fired(memory.load(due(memory, 1)[0]))
    assert stored.whole() == b"Subject: Your order\r\n\r\nThank you.\r\n"
    assert stored.size == len(stored.whole())

    async def read():
        return [piece async for piece in stored.pieces()]

    assert b"".join(fired(Deferred.fromCoroutine(read()))) == stored.whole()


@pytest.mark.parametrize(
    ("data", "head", "body"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"body\r\n"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"\r\nbody\r\n", b"", b"body\r\n"),
        (b"A: b\r\n\r\n\r\n\r\n", b"A: b\r\n", b"\r\n\r\n"),
    ],
)
def test_head_and_body_are_parted_at_the_first_empty_line(data, head, body):
    content = MemoryContent(data)
    assert (content.head(), content.body(), content.body_size()) == (head, body, len(body))


def test_the_queue_is_shown_in_pages_and_by_filter(memory):
    for number in range(5):
        submit(memory, [f"r{number}@example.com"])
    page = fired(memory.query({"metadata": {"order_id": "1234"}, "project": "demo"}, 2, 2))
    assert [row["recipient"] for row in page] == ["r2@example.com", "r3@example.com"]
    assert fired(memory.query({"metadata": {"order_id": "5"}}, 0, 10)) == []
    shown = fired(memory.message(page[0]["id"]))
    assert [row["recipient"] for row in shown["recipients"]] == ["r2@example.com"]
    assert fired(memory.message("unknown")) is None


def test_a_broken_spool_stores_nothing(memory):
    memory.broken = OSError("disk full")
    submitted = []
    memory.subscribe(Listening())
    memory.store = lambda *args: submitted.append(MemorySpool.store(memory, *args))
    submit(memory)
    with pytest.raises(OSError, match="disk full"):
        fired(submitted[0])
    assert (memory.stored, memory.outbox) == ({}, [])
