"""Filters: each finds what it says, and none is ever part of a statement."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from lettermta.event import CREATED, SENT, message_event
from lettermta.message import Lane, State
from lettermta.spool import queries
from lettermta.spool.schema import connect

from .hand import NOW, Desk

HOSTILE = [
    "' OR 1=1 --",
    "'; DROP TABLE message; --",
    '" OR ""="',
    "%",
    "_",
    "*",
    "a@example.com' UNION SELECT 1",
    "\x00",
    "",
    "🦊" * 100,
    "{0}",
]


@pytest.fixture
def filled(desk: Desk) -> Desk:
    desk.store("a@example.com", "b@Example.ORG", tag="red", metadata={"k": "1", "x.y": "z"}, sender="One@example.net")
    desk.store("c@example.com", tag=None, metadata={}, project="other", route="bulk", sender="", created=NOW + 100)
    desk.store("d@example.com", tag="blue", metadata={"k": "2"}, created=NOW + 200)
    desk.record(desk.entries[0], State.DEFERRED, due=NOW + 60, handed_over=False)
    return desk


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "abcd"),
        ({"project": "other"}, "c"),
        ({"route": "bulk"}, "c"),
        ({"tag": "red"}, "ab"),
        ({"metadata": {"k": "1"}}, "ab"),
        ({"metadata": {"k": "1", "x.y": "z"}}, "ab"),
        ({"metadata": {"k": "1", "x.y": "other"}}, ""),
        ({"metadata": {"k": "2"}}, "d"),
        ({"sender": "one@EXAMPLE.net"}, "ab"),
        ({"sender": ""}, "c"),
        ({"recipient": "B@example.org"}, "b"),
        ({"domain": "EXAMPLE.org"}, "b"),
        ({"domain": "example.com"}, "acd"),
        ({"state": "deferred"}, "a"),
        ({"state": "queued", "domain": "example.com"}, "cd"),
        ({"created_before": NOW + 100}, "abc"),
        ({"tag": "red", "state": "deferred"}, "a"),
        ({"tag": "RED"}, ""),
    ],
)
def test_each_filter_finds_what_it_says(filled: Desk, filters: dict[str, Any], found: str) -> None:
    assert "".join(row["recipient"][0] for row in filled.rows(filters)) == found


def test_a_message_is_found_by_its_id(filled: Desk) -> None:
    identifier = filled.entries[0].id
    assert [row["recipient"] for row in filled.rows({"id": identifier})] == ["a@example.com", "b@Example.ORG"]


@pytest.mark.parametrize("name", ["id", "project", "route", "tag", "sender", "recipient", "domain", "state"])
def test_a_filters_value_is_never_part_of_a_statement(filled: Desk, name: str) -> None:
    for value in HOSTILE:
        expected = "c" if (name, value) == ("sender", "") else ""
        assert "".join(row["recipient"][0] for row in filled.rows({name: value})) == expected
    assert len(filled.rows()) == 4


def test_metadata_is_never_part_of_a_statement_or_a_path(filled: Desk) -> None:
    for number, value in enumerate(one for one in HOSTILE if "\x00" not in one):  # no header brings a NUL
        assert filled.rows({"metadata": {value: "1"}}) == []
        assert filled.rows({"metadata": {"k": value}}) == []
        filled.store(f"e{number}@example.com", metadata={value: value})
        assert [row["recipient"] for row in filled.rows({"metadata": {value: value}})] == [f"e{number}@example.com"]


@pytest.mark.parametrize("name", ["number > 0 OR m.id", "m.id", "", "1=1"])
def test_a_filter_that_there_is_none_of_is_refused(filled: Desk, name: str) -> None:
    with pytest.raises(KeyError):
        filled.rows({name: "x"})
    assert len(filled.rows()) == 4


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [1, 2, 3]),
        ({"event": "message.sent"}, [2, 3]),
        ({"tag": "orders"}, [1, 2]),
        ({"metadata": {"k": "1"}}, [1, 2]),
        ({"metadata": {"k": "1", "Käse": "Brot"}}, [1, 2]),
        ({"metadata": {"k": "1", "Käse": "1"}}, []),
        ({"metadata": {"k": "Brot"}}, []),
        ({"recipient": "JANE@example.com"}, [2]),
        ({"domain": "Example.ORG"}, [3]),
        ({"domain": "ample.org"}, []),
        ({"domain": "%"}, []),
        ({"project": "demo", "since": NOW + 1}, [3]),
        ({"until": NOW + 1}, [1, 2]),
    ],
)
def test_events_are_found_by_what_they_tell(desk: Desk, filters: dict[str, Any], found: list[int]) -> None:
    tagged = b'{"message_id":"x","metadata":{"k":"1","K\xc3\xa4se":"Brot"},"tag":"orders"}'
    plain = b'{"message_id":"y","metadata":{},"tag":null}'
    context = b'{"project":"demo","route":"outgoing"}'
    told = [
        message_event(CREATED, NOW, "x", tagged, context),
        message_event(SENT, NOW, "x", tagged, context, recipient="jane@example.com"),
        message_event(SENT, NOW + 2, "y", plain, context, recipient="joe@example.org"),
    ]
    desk.reactor.wait(desk.spool.tell(told))
    assert [sequence for sequence, _ in desk.reactor.wait(desk.spool.find_events(filters, 0, 10))] == found


def test_hostile_addresses_and_ids_are_data(desk: Desk) -> None:
    address = '"\'; DROP TABLE recipient; --"@example.com'
    message = desk.store(address, sender="' OR 1=1 --", tag="'")
    [entry] = desk.due()
    assert entry.recipients[0].address == address
    assert desk.reactor.wait(desk.spool.message(message.id))["sender"] == "' OR 1=1 --"
    assert desk.reactor.wait(desk.spool.message("' OR 1=1 --")) is None


def plan(connection: sqlite3.Connection, statement: str, *values: Any) -> str:
    return " / ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values))


def test_what_the_scheduler_asks_is_answered_by_the_index(desk: Desk) -> None:
    """A million rows are never read to find the few that are due (DESIGN.md section 5.5)."""
    connection = connect(desk.directory / "spool.db", writable=False)
    lane = ("r1", "example.com")
    due, later = (f"recipient_lane (route_id=? AND domain=? AND priority=? AND due{sign}?)" for sign in "<>")
    assert due in plan(connection, queries._DUE, *lane, 0, NOW, 10)
    assert later in plan(connection, queries._NEXT_DUE, *lane, 0, NOW)
    assert "recipient_lane (route_id=? AND domain=? AND priority<?)" in plan(connection, queries._NEXT_PRIORITY, *lane, 10)
    assert "INDEX recipient_lane" in plan(connection, queries._LANES)
    connection.close()


def test_reads_change_nothing(desk: Desk) -> None:
    connection = connect(desk.directory / "spool.db", writable=False)
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("DELETE FROM message")
    assert queries.next_due(connection, Lane("r1", "example.com"), 0.0) is None
    connection.close()
