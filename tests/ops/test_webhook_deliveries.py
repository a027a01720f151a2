"""``lettermta-admin webhook deliveries|test|replay`` without a daemon: what they print, and what waits for the daemon then."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from lettermta.event import Event, timestamp
from lettermta.ops.admin import webhook_deliveries
from lettermta.spool import deliveries
from lettermta.spool.deliveries import directory_of
from lettermta.webhook import Answer, Attempted, Delivery, DeliveryStatus
from tests.events.webhooks.place import CONTEXT, event
from tests.ops.test_admin import Run, config, run
from tests.spool.hand import Desk

__all__ = ["config", "run"]


@pytest.fixture
def webhook(run: Run) -> str:
    """The id of a webhook."""
    run("project", "create", "demo")
    run("webhook", "create", "--project", "demo", "--url", "https://shop.example/")
    return str(run("webhook", "list", "--project", "demo", "--json").object["id"])


@pytest.fixture
def told(run: Run, webhook: str, tmp_path: Path) -> list[Event]:
    """Events in the outbox, half an hour old and of now; the last one is of another project."""
    project = run("project", "show", "demo", "--json").object["id"].encode()
    ours = CONTEXT.replace(b'"p"', b'"%b"' % project)
    now = time.time()
    events = [
        event("message.created", "m1", ours, now - 1800),
        event("message.delivered", "m1", ours, now - 1790),
        event("message.created", "m2", ours, now),
        event("message.created", "m3", CONTEXT, now),
    ]
    desk = Desk(tmp_path / "state" / "spool" / "0")
    desk.reactor.wait(desk.spool.tell(events))
    desk.close()
    return events


def waiting(tmp_path: Path, webhook: str) -> list[Delivery]:
    connection = deliveries.connect(directory_of(tmp_path / "state"))
    found, _ = deliveries.due(connection, webhook, time.time(), 100)
    connection.close()
    return list(found)


def test_replay_finds_events_by_what_is_said_of_them(run: Run, webhook: str, told: list[Event], tmp_path: Path) -> None:
    halfway = timestamp(time.time() - 600)
    for options, found in (
        (("--event", told[1].id), [1]),
        (("--message", "m1"), [0, 1]),
        (("--since", "10m"), [2]),
        (("--until", halfway), [0, 1]),
        (("--since", "1h", "--name", "message.created"), [0, 2]),
        (("--tag", "none"), []),
        (("--message", "m3"), []),
    ):
        before = len(waiting(tmp_path, webhook))
        ran = run("webhook", "replay", webhook, "--json", *options)
        assert (ran.code, ran.object) == (0, {"webhook_id": webhook, "events": len(found)}), options
        new = waiting(tmp_path, webhook)[before:]
        assert [(one.event_id, one.payload) for one in new] == [(told[index].id, told[index].payload) for index in found], options


def test_replay_wants_to_know_what(run: Run, webhook: str) -> None:
    assert run("webhook", "replay", webhook).code == os.EX_USAGE
    assert run("webhook", "replay", webhook, "--event", "none").code == os.EX_NOUSER
    assert run("webhook", "replay", "none", "--since", "1h").code == os.EX_NOUSER
    assert "in which zone" in run("webhook", "replay", webhook, "--since", "2026-10-04T08:15:30").err
    assert "neither a time" in run("webhook", "replay", webhook, "--since", "yesterday").err
    assert "there is no event 'delivered'; there are" in run("webhook", "replay", webhook, "--name", "delivered").err
    run("webhook", "disable", webhook)
    refused = run("webhook", "replay", webhook, "--since", "1h")
    assert (refused.code, "webhook enable" in refused.err) == (os.EX_USAGE, True)


def test_a_test_waits_for_the_daemon(run: Run, webhook: str, tmp_path: Path) -> None:
    ran = run("webhook", "test", webhook)
    assert (ran.code, ran.out) == (0, "")
    assert "is sent when it starts" in ran.err
    (one,) = waiting(tmp_path, webhook)
    document = json.loads(one.payload)
    assert document["event"] == "webhook.test"
    assert document["data"] == {
        "message": "This is a test of your webhook.",
        "webhook_id": webhook,
        "timestamp": document["data"]["timestamp"],
    }
    assert isinstance(document["data"]["timestamp"], int)
    assert document["context"]["project"] == "demo"
    shown = run("webhook", "test", webhook, "--json").object
    assert (shown["event"], shown["status"], shown["attempt"]) == ("webhook.test", "pending", 0)


def test_a_test_that_is_not_sent_in_time_says_so(run: Run, webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_deliveries, "TEST_SECONDS", 0.0)
    with socket.socket(socket.AF_UNIX) as daemon:
        (tmp_path / "state").mkdir(exist_ok=True)
        daemon.bind(str(tmp_path / "state" / "control.sock"))
        daemon.listen()
        ran = run("webhook", "test", webhook)
    assert ran.out == "pending: not tried yet\n"
    assert "is not sent yet" in ran.err


def test_records_are_shown_the_newest_first(run: Run, webhook: str, told: list[Event], tmp_path: Path) -> None:
    run("webhook", "replay", webhook, "--since", "1h")
    connection = deliveries.connect(directory_of(tmp_path / "state"))
    first, second, _ = deliveries.due(connection, webhook, time.time(), 9)[0]
    answers = [Answer(DeliveryStatus.SUCCESS, 204, 0.25), Answer(DeliveryStatus.FAILED, None, 0.5, problem="no connection")]
    done, again = (
        Attempted(one.number, 1, answer, 1e9, due) for one, answer, due in zip((first, second), answers, (None, 2e9), strict=True)
    )
    deliveries.record(connection, [done, again])
    connection.close()
    shown = [json.loads(line) for line in run("webhook", "deliveries", webhook, "--json").out.splitlines()]
    assert [one["status"] for one in shown] == ["pending", "failed", "success"]
    assert shown[1] == {
        "webhook_id": webhook,
        "event": "message.delivered",
        "event_id": told[1].id,
        "message_id": "m1",
        "replay": 0,
        "queued": shown[1]["queued"],
        "status": "failed",
        "attempt": 1,
        "attempted": "2001-09-09T01:46:40.000000Z",
        "http_status": None,
        "duration": 0.5,
        "response_body": "",
        "problem": "no connection",
        "next_attempt": "2033-05-18T03:33:20.000000Z",
    }
    assert [one["http_status"] for one in shown if one["status"] == "success"] == [204]
    only = run("webhook", "deliveries", webhook, "--json", "--status", "success")
    assert only.object["event_id"] == told[0].id
    assert run("webhook", "deliveries", webhook, "--json", "--event", told[2].id, "--limit", "1").object["status"] == "pending"
    table = run("webhook", "deliveries", webhook).out
    assert "HTTP STATUS" in table
    assert "no connection" in table


def test_an_address_that_nothing_can_be_sent_to_is_warned_of(run: Run) -> None:
    run("project", "create", "demo")
    made = run("webhook", "create", "--project", "demo", "--url", "http://127.0.0.1:8080/")
    assert made.code == 0
    assert "webhook_allow_networks" in made.err
