"""What became of the mail by day and tag: counted in the commits of its events, bounded, and never in the way of the mail."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from lettermta import event
from lettermta.event import Event, message_event
from lettermta.message import Message, Outcome, QueueEntry, State
from lettermta.spool import daily

from .hand import NOW, Desk

TODAY, TOMORROW = "2027-01-15", "2027-01-16"
DAY = 86_400.0


def mail(
    desk: Desk, tag: str | None = "orders", project: str = "demo", moment: float = NOW, recipients: int = 1
) -> tuple[Message, QueueEntry]:
    """A message that has been accepted."""
    message = desk.message(*[f"u{number}@example.com" for number in range(recipients)], created=moment, tag=tag, project=project)
    facts = orjson.dumps({"message_id": message.id, "tag": tag})
    message = evolve(message, facts=facts, context=orjson.dumps({"project": project, "route": "outgoing"}))
    desk.reactor.wait(desk.spool.store(message, [told(message, event.CREATED, moment)]))
    return message, desk.entries[-1]


def told(of: Message | QueueEntry, name: str, moment: float = NOW, **data: object) -> Event:
    return message_event(name, moment, of.id, of.facts, of.context, **data)


def ended(desk: Desk, entry: QueueEntry, state: State, *events: Event) -> None:
    desk.reactor.wait(desk.spool.record(entry, [Outcome(one, state, "x") for one in entry.recipients], events))


def figures(desk: Desk, by: str = "tag", since: float = NOW, project: str | None = None) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = desk.reactor.wait(desk.spool.daily(by, since, project))
    return rows


def some(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a row is not nothing."""
    return {name: value for name, value in row.items() if value and name != "days"}


def test_each_event_is_counted_for_its_day_project_and_tag(desk: Desk) -> None:
    _, entry = mail(desk)
    ended(desk, entry, State.DELIVERED, told(entry, event.SENT), told(entry, event.DELIVERED))
    _, entry = mail(desk, moment=NOW + DAY)
    bounced = told(entry, event.HARD_BOUNCED, NOW + DAY, classification="invalid_recipient")
    ended(desk, entry, State.BOUNCED, told(entry, event.SENT, NOW + DAY), bounced)
    _, entry = mail(desk, tag=None)
    ended(desk, entry, State.EXPIRED, told(entry, event.SOFT_BOUNCED), told(entry, event.FAILED, classification="expired"))
    desk.reactor.wait(desk.spool.tell([told(entry, event.SPAM_COMPLAINT)]))
    untagged, orders = figures(desk)
    assert some(untagged) == {
        "accepted": 1, "deferrals": 1, "failed": 1, "failed_by_class": {"expired": 1}, "complaints": 1
    }  # fmt: skip
    assert (untagged["tag"], orders["tag"]) == (None, "orders")
    assert some(orders) == {
        "tag": "orders", "accepted": 2, "sent": 2, "delivered": 1, "bounced": 1, "bounced_by_class": {"invalid_recipient": 1}
    }  # fmt: skip
    assert [some(day) for day in orders["days"]] == [
        {"day": TODAY, "accepted": 1, "sent": 1, "delivered": 1},
        {"day": TOMORROW, "accepted": 1, "sent": 1, "bounced": 1, "bounced_by_class": {"invalid_recipient": 1}},
    ]
    assert [(row["day"], row["accepted"]) for row in figures(desk, "day")] == [(TODAY, 2), (TOMORROW, 1)]
    assert [row["day"] for row in figures(desk, "day", NOW + DAY)] == [TOMORROW]


def test_projects_are_counted_apart(desk: Desk) -> None:
    for project in ("one", "two", "two"):
        mail(desk, project=project)
    assert [row["accepted"] for row in figures(desk, project="two")] == [2]
    assert [row["accepted"] for row in figures(desk)] == [3]
    assert figures(desk, project="' OR 1=1 --") == []


def test_how_long_mail_was_put_off_is_counted_when_it_is_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lettermta.spool.store.time.time", lambda: NOW)
    for seconds in [*[10.0] * 18, 3600.0, 86_400.0]:
        _, entry = mail(desk)
        entry.recipients[0].first_deferred = NOW - seconds
        ended(desk, entry, State.DELIVERED, told(entry, event.DELIVERED))
    _, entry = mail(desk)
    ended(desk, entry, State.DELIVERED, told(entry, event.DELIVERED))
    [row] = figures(desk)
    assert (row["delivered"], row["waited"]) == (21, 20)
    assert 10.0 <= row["waited_p50"] <= 12.0
    assert 3600.0 <= row["waited_p95"] <= 4300.0


@given(st.floats(0, 40 * DAY))
def test_a_bucket_is_a_fifth_wide_at_the_most(seconds: float) -> None:
    longest = daily.longest(daily.bucket(seconds))
    assert seconds <= longest * (1 + 1e-9)
    assert longest <= max(seconds, 1.0) * 1.19


@given(st.lists(st.floats(1.5, 10 * DAY), min_size=1, max_size=60), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_at_most_a_fifth_too_high(waits: list[float], part: float) -> None:
    counts: dict[int, int] = {}
    for one in waits:
        counts[daily.bucket(one)] = counts.get(daily.bucket(one), 0) + 1
    exact = sorted(waits)[math.ceil(part * len(waits)) - 1]
    found = daily._percentile(sorted(counts.items()), part)
    assert found is not None
    assert exact - 0.1 <= found <= exact * 1.19 + 0.1


def test_figures_are_there_after_a_restart_and_go_on(desk: Desk) -> None:
    mail(desk)
    again = desk.reopened()
    mail(again)
    assert figures(again)[0]["accepted"] == 2
    again.close()


def test_a_unit_that_is_not_written_is_not_counted(desk: Desk) -> None:
    """In the commit or not at all."""
    message, _ = mail(desk)
    with pytest.raises(sqlite3.IntegrityError):
        desk.reactor.wait(desk.storing(evolve(message, content=desk.message().content)))  # its id is there already
    assert figures(desk)[0]["accepted"] == 1


def test_tags_are_bounded_for_each_project_and_the_rest_is_added_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "MOST_TAGS", 3)
    for number in range(6):
        mail(desk, tag=f"t{number}")
    mail(desk, tag="t9", project="another")
    expected = {"t0": 1, "t1": 1, "t2": 1, "(others)": 3, "t9": 1}
    assert {row["tag"]: row["accepted"] for row in figures(desk)} == expected
    again = desk.reopened()
    mail(again, tag="t7")
    mail(again, tag="t1")
    assert {row["tag"]: row["accepted"] for row in figures(again)} == {**expected, "t1": 2, "(others)": 4}
    mail(again, tag="t7", moment=NOW + DAY)
    assert figures(again, since=NOW + DAY)[0]["tag"] == "t7", "another day, other tags"
    again.close()


def test_tags_are_bounded_in_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "MOST_IN_ALL", 4)
    for number in range(8):
        mail(desk, tag="t", project=f"p{number}")
    assert {row["tag"]: row["accepted"] for row in figures(desk)} == {"t": 4, "(others)": 4}


def test_figures_of_days_long_gone_are_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    mail(desk, moment=NOW - (daily.KEEP_DAYS + 1) * DAY)
    mail(desk, moment=NOW - (daily.KEEP_DAYS - 1) * DAY)
    monkeypatch.setattr("lettermta.spool.store.time.time", lambda: NOW)
    desk.reactor.wait(desk.spool.trim(0.0))
    assert [row["accepted"] for row in figures(desk, "day", 0.0)] == [1]


def test_damaged_figures_stop_no_mail(tmp_path: Path) -> None:
    """HARD-CASES row 14: what is sound goes on."""
    desk = Desk(tmp_path / "spool")
    mail(desk)
    desk.close()
    database = tmp_path / "spool" / "spool.db"
    connection = sqlite3.connect(database)
    [page] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'daily'").fetchone()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * 8192)
        file.write(b"\xff" * 8192)
    again = Desk(tmp_path / "spool")
    try:
        _, entry = mail(again)
        ended(again, entry, State.DELIVERED, told(entry, event.DELIVERED))
        assert [one.name for _, one in again.events()][-1] == event.DELIVERED
        again.reactor.turn()
        assert "the figures by day are damaged" in (again.spool.damage() or "")
    finally:
        again.close()
