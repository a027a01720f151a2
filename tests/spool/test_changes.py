"""What operators change: in steps, with the events of a step in its commit, and never against what the mail did meanwhile."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lettermta.event import RELEASED, RESCHEDULED
from lettermta.message import Attempt, Change, Changed, Lane, Operation, Outcome, State

from .hand import NOW, Desk

LANE = Lane("r1", "example.com")


def change(desk: Desk, operation: Operation, after: int = 0, limit: int = 100, *, of: dict[str, Any] | None = None, **more: Any) -> Changed:
    changed: Changed = desk.reactor.wait(desk.spool.change(Change(operation, NOW, **more), of or {}, after, limit))
    return changed


def states(desk: Desk) -> list[str]:
    return [row["state"] for row in desk.rows()]


def test_a_change_goes_on_where_its_last_step_ended(desk: Desk) -> None:
    desk.store(*[f"u{number}@example.com" for number in range(5)])
    first = change(desk, Operation.HOLD, limit=2, reason="wait")
    assert (first.count, first.last, first.lanes) == (2, 2, {LANE})
    assert states(desk) == ["held", "held", "queued", "queued", "queued"]
    second = change(desk, Operation.HOLD, 2, limit=4, reason="wait")
    assert (second.count, second.last) == (3, None)
    assert desk.due() == []


def test_events_of_a_step_come_in_order_and_are_told(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.com")
    change(desk, Operation.HOLD)
    change(desk, Operation.RELEASE)
    later = desk.store("c@example.com")
    assert [(one.name, one.message_id) for _, one in desk.told[1:3]] == [(RELEASED, message.id)] * 2
    numbers = [number for number, _ in desk.told]
    assert numbers == sorted(numbers)
    assert desk.told[-1][1].message_id == later.id
    assert [number for number, _ in desk.events()] == numbers


def test_what_is_scheduled_and_retried_is_rescheduled(desk: Desk) -> None:
    desk.store(hold_until=NOW + 3600)
    assert desk.due() == []
    change(desk, Operation.RETRY)
    assert len(desk.due()) == 1
    assert desk.told[-1][1].name == RESCHEDULED


@pytest.mark.parametrize("operation", [Operation.HOLD, Operation.REMOVE])
def test_an_attempt_under_way_does_not_undo_what_the_operator_did(desk: Desk, operation: Operation) -> None:
    desk.store("a@example.com", "b@example.com")
    [entry] = desk.due()
    change(desk, operation, of={"recipient": "a@example.com"})
    desk.record(entry, State.DEFERRED, State.DEFERRED, due=NOW + 60, reply="451 later")
    assert states(desk)[0] == ("held" if operation is Operation.HOLD else "canceled")
    assert states(desk)[1] == "deferred"
    assert desk.due(now=NOW + 60)[0].recipients[0].address == "b@example.com"


def test_an_attempt_under_way_that_delivers_ends_what_is_held(desk: Desk) -> None:
    desk.store()
    [entry] = desk.due()
    change(desk, Operation.HOLD)
    desk.record(entry, State.DELIVERED)
    assert desk.rows() == []


def test_an_outcome_of_a_message_that_was_removed_meanwhile_is_told_and_no_more(desk: Desk) -> None:
    desk.store()
    [entry] = desk.due()
    change(desk, Operation.REMOVE)
    desk.record(entry, State.DELIVERED)
    assert desk.rows() == []
    with pytest.raises(LookupError):
        desk.content(entry)


def test_a_message_follows_its_last_recipient_to_the_new_route(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.org")
    where = {"project_id": "p1", "route_id": "r2", "route": "bulk"}
    changed = change(desk, Operation.REROUTE, of={"domain": "example.com"}, **where)
    assert changed.lanes == {LANE, Lane("r2", "example.com")}
    assert desk.reactor.wait(desk.spool.message(message.id))["route"] == "outgoing"
    [entry] = desk.due(route="r2")
    change(desk, Operation.REROUTE, **where)
    assert desk.reactor.wait(desk.spool.message(message.id))["route"] == "bulk"
    [entry] = desk.due("example.org", route="r2")
    assert json.loads(entry.context) == {"project": "demo", "route": "bulk", "route_id": "r2"}
    assert change(desk, Operation.REROUTE, **{**where, "project_id": "other"}).count == 0


@pytest.mark.parametrize("mark", ["!", "^", "~"])
def test_mail_with_a_way_of_its_own_keeps_it_on_another_route(desk: Desk, mark: str) -> None:
    """RFC 8689: REQUIRETLS and TLS-Required: No hold whatever the route. Back on its own one there is nothing to do."""
    message = desk.store("a@example.com", "b@example.com", route_id=LANE.route_id + mark)
    where = {"project_id": "p1", "route_id": "r2", "route": "bulk"}
    assert change(desk, Operation.REROUTE, **where).lanes == {Lane(LANE.route_id + mark, "example.com"), Lane(f"r2{mark}", "example.com")}
    [entry] = desk.due(route=f"r2{mark}")
    assert len(entry.recipients) == 2 and desk.reactor.wait(desk.spool.message(message.id))["route"] == "bulk"
    assert change(desk, Operation.REROUTE, **where).count == 0


def test_what_is_stored_as_held_waits_for_its_release_also_over_a_restart(desk: Desk) -> None:
    desk.store("a@example.com", "b@example.org", held="a policy wants a look")
    assert [(row["state"], row["last_reply"]) for row in desk.rows()] == [("held", "a policy wants a look")] * 2
    assert desk.entries == []
    again = desk.reopened()
    assert again.due() == []
    assert change(again, Operation.RELEASE).count == 2
    assert [recipient.address for entry in again.due() for recipient in entry.recipients] == ["a@example.com"]
    again.close()


def test_what_is_stored_as_held_is_due_as_soon_as_it_is_released(desk: Desk) -> None:
    desk.store(held="a look")
    change(desk, Operation.RELEASE)
    assert len(desk.due()) == 1


# -- standing rules


def test_new_mail_meets_a_rule_from_the_moment_it_is_made(desk: Desk) -> None:
    made = desk.spool.add_hold_rule({"tag": "red", "domain": "Example.com"}, "why", NOW)
    stored = desk.storing(desk.message("a@example.com", "b@example.org", tag="red"))
    rule = desk.reactor.wait(made)
    desk.reactor.wait(stored)
    desk.store("c@example.com", tag="blue")
    assert [(row["state"], row["last_reply"]) for row in desk.rows()] == [("held", "why"), ("queued", ""), ("queued", "")]
    assert [entry.recipients[0].address for entry in desk.entries] == ["b@example.org", "c@example.com"], "what is held is not tried"
    assert change(desk, Operation.RELEASE, of={"rule": rule.id}).count == 1


def test_what_is_stored_as_held_stays_so_when_a_rule_is_lifted_that_would_have_held_it(desk: Desk) -> None:
    rule = desk.reactor.wait(desk.spool.add_hold_rule({"project": "demo"}, "the rule", NOW))
    desk.store("a@example.com", held="a policy wants a look")
    desk.store("b@example.com")
    assert [row["last_reply"] for row in desk.rows()] == ["a policy wants a look", "the rule"]
    assert change(desk, Operation.RELEASE, of={"rule": rule.id}).count == 1
    assert states(desk) == ["held", "queued"]


def test_a_rule_holds_over_a_restart_and_its_number_is_given_once(desk: Desk) -> None:
    desk.reactor.wait(desk.spool.add_hold_rule({"project": "demo"}, "", NOW))
    again = desk.reopened()
    assert [rule.reason for rule in again.spool.hold_rules()] == ["held by rule 1"]
    again.store()
    assert states(again) == ["held"]
    assert again.reactor.wait(again.spool.drop_hold_rule(1)) is True
    assert again.reactor.wait(again.spool.drop_hold_rule(1)) is False
    again.store()
    assert states(again) == ["held", "queued"]
    last = again.reopened()
    assert last.reactor.wait(last.spool.add_hold_rule({"route": "outgoing"}, "", NOW)).id == 2
    last.close()


@pytest.mark.parametrize("conditions", [{}, {"sender": "x"}, {"m.id": "x"}])
def test_a_rule_that_looks_at_nothing_known_is_refused(desk: Desk, conditions: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a rule looks at"):
        desk.spool.add_hold_rule(conditions, "", NOW)


# -- attempts


def test_attempts_are_traced_and_forgotten_with_the_events(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.com", created=NOW)
    [entry] = desk.due()
    outcomes = [Outcome(one, State.DEFERRED, "451 later", NOW + 60) for one in entry.recipients]
    desk.reactor.wait(desk.spool.record(entry, outcomes, [], Attempt(1.0, 0.25, "mx.example.com [192.0.2.1]:25 in clear")))
    rows = desk.reactor.wait(desk.spool.trace(message.id))
    assert [(row["recipient"], row["attempt"], row["at"], row["seconds"], row["state"], row["reply"]) for row in rows] == [
        ("a@example.com", 1, 1.0, 0.25, "deferred", "451 later"),
        ("b@example.com", 1, 1.0, 0.25, "deferred", "451 later"),
    ]
    desk.reactor.wait(desk.spool.trim(0.5))
    assert len(desk.reactor.wait(desk.spool.trace(message.id))) == 2
    desk.reactor.wait(desk.spool.trim(NOW * 2))
    assert desk.reactor.wait(desk.spool.trace(message.id)) == []


def test_of_a_dialogue_a_recipient_has_what_is_about_all_and_its_own(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.com", created=NOW)
    [entry] = desk.due()
    said = ["MAIL FROM:<>", "RCPT TO:<a@example.com>", "RCPT TO:<b@example.com> NOTIFY=NEVER", "DATA"]
    details = {"host": "mx.example.com", "dialogue": [{"said": one, "answer": "250 ok"} for one in said]}
    outcomes = [Outcome(one, State.DEFERRED, "451 later", NOW + 60) for one in entry.recipients]
    desk.reactor.wait(desk.spool.record(entry, outcomes, [], Attempt(1.0, 0.25, "mx.example.com", details)))
    first, second = desk.reactor.wait(desk.spool.trace(message.id))
    assert first["host"] == second["host"] == "mx.example.com"
    assert [one["said"] for one in first["dialogue"]] == [said[0], said[1], said[3]]
    assert [one["said"] for one in second["dialogue"]] == [said[0], said[2], said[3]]


def test_statistics_are_read_from_an_index_alone(desk: Desk) -> None:
    from lettermta.spool import figures
    from lettermta.spool.schema import connect

    connection = connect(desk.directory / "spool.db", writable=False)
    for by in (figures.LANE, *figures.GROUPS):
        for index, states in figures._PARTS:
            plan = " / ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {figures._statement(by, index, states, '')}"))
            assert "COVERING INDEX" in plan
    connection.close()
