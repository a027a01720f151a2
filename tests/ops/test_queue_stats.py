"""``lettermta-queue stats`` by tag and by day: what became of the mail, beside what is in the queue."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest
from attrs import evolve

from lettermta import event
from lettermta.event import Event, message_event
from lettermta.message import Message, Outcome, QueueEntry, State

from ..spool.hand import NOW, Desk
from .tool import Run

DAY = 86_400.0


@pytest.fixture
def counted(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some mail of three tags, delivered, bounced and waiting; the daemon is down."""
    monkeypatch.setattr("lettermta.spool.store.time.time", lambda: NOW)
    desk = Desk(config.parent / "state" / "spool" / "0")

    def told(of: Message | QueueEntry, name: str, moment: float, **data: object) -> Event:
        return message_event(name, moment, of.id, of.facts, of.context, **data)

    def mail(tag: str | None, moment: float, project: str = "demo") -> QueueEntry:
        message = desk.message("jane@example.com", created=moment, tag=tag, project=project, route_id=f"r-{project}")
        facts = orjson.dumps({"message_id": message.id, "tag": tag})
        message = evolve(message, facts=facts, context=orjson.dumps({"project": project, "route": "outgoing"}))
        desk.reactor.wait(desk.spool.store(message, [told(message, event.CREATED, moment)]))
        return desk.entries[-1]

    def end(entry: QueueEntry, state: State, *events: Event) -> None:
        desk.reactor.wait(desk.spool.record(entry, [Outcome(entry.recipients[0], state, "x")], events))

    for moment in (NOW - 8 * DAY, NOW - DAY, NOW):
        entry = mail("orders", moment)
        end(entry, State.DELIVERED, told(entry, event.SENT, moment), told(entry, event.DELIVERED, moment))
    entry = mail("orders", NOW)
    entry.recipients[0].first_deferred = NOW - 4000
    end(entry, State.BOUNCED, told(entry, event.HARD_BOUNCED, NOW, classification="mailbox_full"))
    entry = mail("news", NOW, "other")
    end(entry, State.EXPIRED, told(entry, event.FAILED, NOW, classification="expired"))
    mail(None, NOW)
    desk.close()


@pytest.fixture(params=["up", "down"])
def both_ways(request: pytest.FixtureRequest, counted: None) -> None:
    """With the daemon up, and with it down."""
    if request.param == "up":
        request.getfixturevalue("daemon")()


@pytest.mark.usefixtures("both_ways")
def test_by_tag_the_queue_and_what_became_of_the_mail_are_in_one_row(run: Run) -> None:
    rows = {row["tag"]: row for row in run("stats", "--by", "tag", "--json").rows}
    assert set(rows) == {"orders", "news", None}
    assert (rows[None]["count"], rows[None]["queued"], rows[None]["accepted"]) == (1, 1, 1)
    orders = rows["orders"]
    assert (orders["count"], orders["accepted"], orders["sent"], orders["delivered"]) == (0, 3, 2, 2), "of seven days"
    assert (orders["bounced"], orders["bounced_by_class"]) == (1, {"mailbox_full": 1})
    assert orders["waited"] == 1
    assert 4000 <= orders["waited_p50"] == orders["waited_p95"] <= 4800
    assert [(day["day"], day["accepted"]) for day in orders["days"]] == [("2027-01-14", 1), ("2027-01-15", 2)]
    assert (rows["news"]["failed"], rows["news"]["failed_by_class"]) == (1, {"expired": 1})
    more = {row["tag"]: row for row in run("stats", "--by", "tag", "--json", "--days", "9").rows}
    assert more["orders"]["accepted"] == 4


@pytest.mark.usefixtures("both_ways")
def test_by_day_all_tags_are_added_up(run: Run) -> None:
    rows = run("stats", "--by", "day", "--json").rows
    assert [(row["day"], row["accepted"], row["delivered"], row["bounced"], row["failed"]) for row in rows] == [
        ("2027-01-14", 1, 1, 0, 0),
        ("2027-01-15", 4, 1, 1, 1),
    ]
    [today] = run("stats", "--by", "day", "--days", "1", "--project", "other", "--json").rows
    assert (today["accepted"], today["failed"]) == (1, 1)


@pytest.mark.usefixtures("both_ways")
def test_as_a_table(run: Run) -> None:
    ran = run("stats", "--by", "tag")
    queue, told = ran.out.split("\n\n")
    assert queue.splitlines()[0].split()[:2] == ["COUNT", "QUEUED"]
    assert told.splitlines()[0].split()[:5] == ["DAY", "TAG", "ACCEPTED", "SENT", "DELIVERED"]
    [line] = [line for line in told.splitlines() if line.startswith("2027-01-15") and "orders" in line]
    assert line.split()[2:9] == ["2", "1", "1", "1", "0", "0", "0"]
    assert line.endswith("mailbox_full 1")
    assert ran.err == "1 recipients in the queue\n"
    assert "orders" not in run("stats", "--by", "day").out


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--days", "7"], "--by tag or --by day"),
        (["--by", "tag", "--days", "7", "--state", "held"], "--by tag or --by day"),
        (["--by", "day", "--state", "held"], "--by day goes with --project alone"),
        (["--by", "tag", "--days", "0"], "is not a number from 1 to 400"),
        (["--by", "tag", "--days", "week"], "is not a number from 1 to 400"),
    ],
)
def test_what_does_not_go_together_is_said(run: Run, options: list[str], said: str) -> None:
    ran = run("stats", *options)
    assert ran.code == os.EX_USAGE
    assert said in ran.err
