"""Events are found by what they tell: every filter that the list of recipients has."""

from __future__ import annotations

import json

import pytest

from lettermta import event
from lettermta.message import Outcome, State

from .hand import NOW, Desk


@pytest.fixture
def told(desk: Desk) -> Desk:
    """Two messages: one is deferred and then delivered, the other is refused."""
    for number, (tag, sender, project) in enumerate((("red", "a@one.example", "demo"), ("blue", "b@two.example", "other")), 1):
        facts = json.dumps({"message_id": f"m{number}", "tag": tag, "metadata": {"order": str(number)}}).encode()
        context = json.dumps({"project": project, "route": f"route-{number}"}).encode()
        message = desk.message(f"u{number}@x{number}.example", id=f"m{number}", sender=sender, facts=facts, context=context)
        created = event.message_event(event.CREATED, NOW + number, f"m{number}", facts, context, **{"from": {"email": sender, "name": ""}})
        desk.reactor.wait(desk.spool.store(message, [created]))
    steps = [
        ("x1.example", event.SOFT_BOUNCED, State.DEFERRED, {"response": {"content": "Try Again later"}}),
        ("x2.example", event.HARD_BOUNCED, State.BOUNCED, {"response": {"content": "nobody here"}}),
        ("x1.example", event.DELIVERED, State.DELIVERED, {"response": {"content": "ok"}}),
    ]
    for number, (domain, name, state, more) in enumerate(steps, 10):
        [entry] = desk.due(domain, NOW * 2)
        [recipient] = entry.recipients
        document = event.message_event(name, NOW + number, entry.id, entry.facts, entry.context, recipient=recipient.address, **more)
        desk.reactor.wait(desk.spool.record(entry, [Outcome(recipient, state, "", NOW)], [document]))
    return desk


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"id": "m1"}, [1, 3, 5]),
        ({"project": "other"}, [2, 4]),
        ({"route": "route-1"}, [1, 3, 5]),
        ({"tag": "blue"}, [2, 4]),
        ({"metadata": {"order": "2"}}, [2, 4]),
        ({"metadata": {"order": "2", "more": "x"}}, []),
        ({"sender": "A@one.example"}, [1, 3, 5]),
        ({"recipient": "U1@x1.example"}, [3, 5]),
        ({"domain": "X2.example"}, [4]),
        ({"domain": "example"}, []),
        ({"state": "deferred"}, [3]),
        ({"state": "bounced"}, [4]),
        ({"state": "held"}, []),
        ({"reason": "try again"}, [3]),
        ({"created_before": NOW + 2}, [1, 2]),
        ({"since": NOW + 11}, [4, 5]),
        ({"event": event.DELIVERED}, [5]),
        ({"tag": "red", "metadata": {"order": "1"}, "state": "delivered", "domain": "x1.example"}, [5]),
    ],
)
def test_each_filter_finds_what_it_says(told: Desk, filters: dict[str, object], found: list[int]) -> None:
    assert [sequence for sequence, _ in told.reactor.wait(told.spool.find_events(filters, 0, 100))] == found


def test_a_filter_that_does_not_exist_is_refused(told: Desk) -> None:
    with pytest.raises(KeyError):
        told.reactor.wait(told.spool.find_events({"colour": "red"}, 0, 100))
