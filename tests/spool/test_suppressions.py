"""Whom nothing is sent to: durable with the events that tell of it, and asked for at little cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from lettermta.event import HARD_BOUNCED, message_event
from lettermta.interfaces import NotStored
from lettermta.message import State
from lettermta.spool import suppressions
from lettermta.spool.condition import Condition
from lettermta.spool.store import Spool
from lettermta.suppression import (
    EVERYBODY,
    AppliesTo,
    Mailing,
    Scope,
    Suppression,
    SuppressionReason,
    SuppressionType,
    suppress,
    value_of,
)  # fmt: skip
from tests.test_counts import grown, measured

from .hand import NOW, Desk, large

DEMO = Scope("p1", "demo")
NEWS = Scope("p1", "demo", "r2", "news")
OTHER = Scope("p9", "other")
ALL_MAIL = Mailing("p1", "r1", broadcast=False)
NEWSLETTER = Mailing("p1", "r2", broadcast=True)


def new(text: str, reason: str = "manual", scope: Scope = DEMO, applies_to: str | None = None, moment: float = NOW) -> Suppression:
    return suppress(value_of(text), scope, SuppressionReason(reason), moment, applies_to and AppliesTo(applies_to))  # type: ignore[arg-type]


def add(desk: Desk, *suppressions: Suppression, told: bool = True) -> list[Suppression]:
    return list(desk.reactor.wait(desk.spool.suppressions.add(suppressions, told=told)))


def found(desk: Desk, *addresses: str, mailing: Mailing = ALL_MAIL) -> dict[str, str]:
    """The reasons of those that are suppressed."""
    possible = desk.spool.suppressions.possible(addresses)
    answer: Mapping[str, Suppression] = desk.reactor.wait(desk.spool.suppressions.find(mailing, possible)) if possible else {}
    return {address: one.reason.value for address, one in answer.items()}


def ready(desk: Desk) -> Desk:
    """Once it is known from memory what there is."""
    while desk.spool.suppressions._filter is None:
        desk.reactor.turn_once()
    return desk


def listed(desk: Desk, **filters: str) -> list[str]:
    return [one.value for _, one in desk.reactor.wait(desk.spool.suppressions.page(filters, 0, 100))]


def test_what_is_added_keeps_mail_from_there_at_once_and_after_a_restart(desk: Desk) -> None:
    ready(desk)
    add(desk, new("jane@example.com"), new("example.org", "hard_bounce"), new(".test", "spam_complaint"))
    wanted = {"JANE@Example.COM": "manual", "anybody@example.org": "hard_bounce", "x@in.test": "spam_complaint"}
    others = ("jane+x@example.com", "joe@example.com", "a@sub.example.org", "b@test")
    assert found(desk, *wanted, *others) == wanted
    again = desk.reopened()
    assert found(again, *wanted, *others) == wanted  # before memory knows
    assert found(ready(again), *wanted, *others) == wanted
    again.close()


def test_of_nearly_everybody_it_is_known_at_once(desk: Desk) -> None:
    ready(desk)
    assert list(desk.spool.suppressions.possible(["joe@example.com"])) == []
    add(desk, new("jane@example.com"))
    possible = desk.spool.suppressions.possible([f"joe{number}@example.com" for number in range(200)] + ["jane@example.com"])
    assert len(possible) < 20
    assert possible[-1] == "jane@example.com"


def test_the_scopes_are_the_route_the_project_and_everybody(desk: Desk) -> None:
    add(desk, new("a@x.test", scope=NEWS), new("b@x.test", scope=DEMO), new("c@x.test", scope=EVERYBODY), new("d@x.test", scope=OTHER))
    four = ("a@x.test", "b@x.test", "c@x.test", "d@x.test")
    assert list(found(desk, *four)) == ["b@x.test", "c@x.test"]
    assert list(found(desk, *four, mailing=NEWSLETTER)) == ["a@x.test", "b@x.test", "c@x.test"]
    assert list(found(desk, *four, mailing=Mailing("p9", "r9", False))) == ["c@x.test", "d@x.test"]


def test_who_unsubscribed_gets_everything_but_broadcasts(desk: Desk) -> None:
    add(desk, new("jane@example.com", "unsubscribe"))
    assert found(desk, "jane@example.com") == {}
    assert found(desk, "jane@example.com", mailing=NEWSLETTER) == {"jane@example.com": "unsubscribe"}


def test_the_gravest_of_several_reasons_is_told_and_each_is_removed_by_itself(desk: Desk) -> None:
    add(desk, new("jane@example.com"), new("jane@example.com", "hard_bounce"), new("example.com", "spam_complaint"))
    assert found(desk, "jane@example.com") == {"jane@example.com": "spam_complaint"}

    def remove(value: str, reason: str | None) -> list[str]:
        removed = desk.spool.suppressions.remove(value, DEMO, reason and SuppressionReason(reason), NOW)  # type: ignore[arg-type]
        return [one.reason.value for one in desk.reactor.wait(removed)]

    assert remove("example.com", None) == ["spam_complaint"]
    assert found(desk, "jane@example.com") == {"jane@example.com": "hard_bounce"}
    assert remove("jane@example.com", "hard_bounce") == ["hard_bounce"]
    assert found(desk, "jane@example.com") == {"jane@example.com": "manual"}
    assert remove("jane@example.com", "hard_bounce") == []
    assert remove("jane@example.com", None) == ["manual"]
    assert found(desk, "jane@example.com") == {}


def test_what_is_there_already_is_left_alone_unless_it_applies_to_other_mail(desk: Desk) -> None:
    [first] = add(desk, new("jane@example.com", "unsubscribe"))
    assert add(desk, new("Jane@Example.com", "unsubscribe")) == []
    assert len(desk.told) == 1
    [widened] = add(desk, new("jane@example.com", "unsubscribe", applies_to="all"))
    assert (widened.id, widened.applies_to) == (first.id, AppliesTo.ALL)
    assert found(desk, "jane@example.com") == {"jane@example.com": "unsubscribe"}


def test_each_change_is_told_in_its_own_commit(desk: Desk) -> None:
    [one] = add(desk, new("jane@example.com", "hard_bounce", NEWS))
    desk.reactor.wait(desk.spool.suppressions.remove(one.value, NEWS, None, NOW + 1))
    desk.store("after@example.com")
    assert [event.name for _, event in desk.told] == ["suppression.added", "suppression.removed", "message.created"]
    assert desk.told == list(desk.events())
    document = desk.told[0][1].document
    assert document["data"] == {
        "suppression_id": one.id,
        "type": "email",
        "value": "jane@example.com",
        "reason": "hard_bounce",
        "applies_to": "all",
    }
    assert document["context"] == {
        "scope": "route", "team_id": None, "project_id": "p1", "route_id": "r2", "project": "demo", "route": "news"
    }  # fmt: skip
    assert desk.told[1][1].data == document["data"]


def test_an_import_may_be_silent(desk: Desk) -> None:
    assert len(add(desk, *[new(f"u{number}@example.com") for number in range(50)], told=False)) == 50
    assert desk.told == []
    assert len(found(desk, *[f"u{number}@example.com" for number in range(60)])) == 50


def test_they_are_listed_in_the_order_of_their_coming(desk: Desk) -> None:
    add(desk, new("z@x.test"), new("a@x.test", "hard_bounce"), new("m@x.test", scope=NEWS), new("x.test", scope=EVERYBODY))
    assert listed(desk) == ["z@x.test", "a@x.test", "m@x.test", "x.test"]
    assert listed(desk, scope="p1") == ["z@x.test", "a@x.test"]
    assert listed(desk, project_id="p1") == ["z@x.test", "a@x.test", "m@x.test"]
    assert listed(desk, scope="", value="x.test") == ["x.test"]
    assert listed(desk, reason="hard_bounce") == ["a@x.test"]
    [(number, _), *_] = desk.reactor.wait(desk.spool.suppressions.page({}, 0, 1))
    [(_, second)] = desk.reactor.wait(desk.spool.suppressions.page({}, number, 1))
    assert (second.value, second.type, second.scope) == ("a@x.test", SuppressionType.EMAIL, DEMO)


def test_memory_grows_with_what_is_added(desk: Desk) -> None:
    ready(desk)
    before = desk.spool.suppressions._filter
    assert before is not None
    for start in range(0, 2000, 500):
        add(desk, *[new(f"u{number}@example.com") for number in range(start, start + 500)], told=False)
    while desk.spool.suppressions._filter is before:
        desk.reactor.turn_once()
    grown = desk.spool.suppressions._filter
    assert grown is not None
    assert grown.capacity > before.capacity
    assert len(found(desk, *[f"u{number}@example.com" for number in range(2000)])) == 2000


# -- messages


def test_a_suppressed_recipient_of_a_message_is_never_due(desk: Desk) -> None:
    desk.store("jane@example.com", "joe@example.com", suppressed={"jane@example.com": "hard_bounce"})
    [entry] = desk.entries
    assert [one.address for one in entry.recipients] == ["joe@example.com"]
    rows = {row["recipient"]: (row["state"], row["attempts"], row["last_reply"]) for row in desk.rows()}
    assert rows == {"jane@example.com": ("suppressed", 0, "suppressed: hard_bounce"), "joe@example.com": ("queued", 0, "")}
    again = desk.reopened()
    [entry] = again.due()
    assert [one.address for one in entry.recipients] == ["joe@example.com"]
    again.record(entry, State.DELIVERED)
    assert list(again.rows()) == []
    again.close()


@pytest.mark.parametrize("data", [b"Subject: x\r\n\r\nsmall\r\n", large()])
def test_of_a_message_that_nobody_gets_only_the_events_are_kept(desk: Desk, data: bytes) -> None:
    message = desk.store("jane@example.com", data=data, suppressed={"jane@example.com": "manual"})
    assert desk.entries == []
    assert list(desk.rows()) == []
    assert [event.message_id for _, event in desk.events()] == [message.id]
    desk.store("joe@example.com")
    again = desk.reopened()
    assert len(again.due()) == 1
    assert again.bodies() == []
    again.close()


def test_what_an_attempt_showed_of_an_address_is_in_its_commit(desk: Desk) -> None:
    desk.store("jane@example.com")
    [entry] = desk.entries
    bounced = suppress("jane@example.com", DEMO, SuppressionReason.HARD_BOUNCE, NOW, message_id=entry.id)
    outcome: Any = [_outcome(entry)]
    desk.reactor.wait(desk.spool.record(entry, outcome, [], suppressions=[bounced]))
    assert found(desk, "jane@example.com") == {"jane@example.com": "hard_bounce"}
    assert list(desk.rows()) == []
    assert [(event.name, event.message_id) for _, event in desk.told[1:]] == [("suppression.added", "")]
    [(_, one)] = desk.reactor.wait(desk.spool.suppressions.page({}, 0, 10))
    assert one.message_id == entry.id


def test_what_came_back_for_a_message_that_is_gone_is_told_with_what_it_showed_in_one_commit(desk: Desk) -> None:
    message = desk.store("jane@example.com")
    desk.record(desk.entries[0], State.DELIVERED)
    assert desk.due() == []
    told = message_event(HARD_BOUNCED, NOW, message.id, message.facts, message.context, recipient="jane@example.com")
    commits: list[list[str]] = []

    class Listener:
        def entries_stored(self, entries: Any) -> None:
            pass

        def events_stored(self, events: Any) -> None:
            commits.append([event.name for _, event in events])

    desk.spool.subscribe(Listener())  # type: ignore[arg-type]
    bounced = suppress("jane@example.com", DEMO, SuppressionReason.HARD_BOUNCE, NOW, message_id=message.id)
    desk.reactor.wait(desk.spool.tell([told], [bounced]))
    desk.reactor.wait(desk.spool.tell([told]))
    assert commits == [["message.hard_bounced", "suppression.added"], ["message.hard_bounced"]]
    shown = desk.reactor.wait(desk.spool.message(message.id))
    assert [one["event"] for one in shown["events"]][-2:] == ["message.hard_bounced"] * 2
    again = desk.reopened()
    try:
        assert found(ready(again), "jane@example.com") == {"jane@example.com": "hard_bounce"}
    finally:
        again.close()


def _outcome(entry: Any) -> Any:
    from lettermta.message import Outcome

    return Outcome(entry.recipients[0], State.BOUNCED, "550 5.1.1 No such user")


# -- when the disk is no good


def test_while_there_is_no_room_one_is_added_and_many_are_refused(desk: Desk) -> None:
    """What comes of mail that is there goes on record; an import is as new mail (HARD-CASES row 26)."""
    _until(desk.spool, Condition.LOW)
    with pytest.raises(NotStored):
        add(desk, *[new(f"u{number}@example.com") for number in range(2)])
    assert len(add(desk, new("jane@example.com"))) == 1


def _until(spool: Spool, condition: Condition) -> None:
    spool._writer.condition = condition
    spool._writer._look_at = float("inf")


def test_what_the_database_can_not_answer_is_no_yes_and_no_no(desk: Desk) -> None:
    add(desk, new("jane@example.com"))
    desk.reactor.wait(desk.spool._reader.ask(lambda connection: connection.execute("PRAGMA query_only = OFF")))
    desk.reactor.wait(desk.spool._reader.ask(lambda connection: connection.execute("DROP TABLE suppression")))
    with pytest.raises(sqlite3.Error):
        found(desk, "jane@example.com")


def test_what_could_not_be_learned_at_the_start_is_learned_later(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    add(desk, new("jane@example.com"))

    def unreadable(connection: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    again = desk.reopened()
    ready(again)
    again.spool.suppressions._filter = None
    with monkeypatch.context() as broken, capturedLogs():
        broken.setattr(suppressions, "_filter_of_all", unreadable)
        assert found(again, "joe@example.com", "jane@example.com") == {"jane@example.com": "manual"}
        while again.spool.suppressions._meanwhile is not None:
            again.reactor.turn_once()
    assert found(again, "jane@example.com") == {"jane@example.com": "manual"}
    ready(again)
    assert list(again.spool.suppressions.possible(["jane@example.com"])) == ["jane@example.com"]
    again.close()


def test_what_is_added_removed_and_there_is_counted(desk: Desk) -> None:
    with grown() as growth:
        add(desk, new("jane@example.com", "hard_bounce"), new("joe@example.com"))
        add(desk, new("joe@example.com"))
        desk.reactor.wait(desk.spool.suppressions.remove("joe@example.com", DEMO, None, NOW))
    assert growth["lettermta_suppressions_added_total reason=hard_bounce"] == 1
    assert growth["lettermta_suppressions_added_total reason=manual"] == 1
    assert growth["lettermta_suppressions_removed_total reason=manual"] == 1
    desk.reactor.wait(Deferred.fromCoroutine(desk.spool.measure()))
    assert [measured("lettermta_suppressions", f"reason={reason}") for reason in ("hard_bounce", "manual")] == [1, 0]
