"""Suppression through the whole daemon: by a bounce, by the tool while it runs, over a kill."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from tests.system.site import MX, Daemon, Receiver, Site, mail

SCRIPT = [
    {"stage": "RCPT", "recipient": "gone@example.test", "reply": "550 5.1.1 No such user here"},
    {"stage": "RCPT", "recipient": "spam@example.test", "reply": "550 5.7.1 We don't like your address"},
    {"stage": "RCPT", "recipient": "later@example.test", "reply": "452 4.2.2 Mailbox full"},
]


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    daemon = site.daemon("suppression")
    daemon.admin("route", "create", "--project", "demo", "news", "--kind", "broadcast")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def receiver(site: Site, daemon: Daemon) -> Receiver:
    return site.receiver(MX, script=SCRIPT)


def names(daemon: Daemon, identifier: str, last: str) -> list[str]:
    return [document["event"].removeprefix("message.") for document in daemon.events_until(identifier, f"message.{last}")]


def listed(daemon: Daemon) -> list[tuple[str, str]]:
    rows = map(json.loads, daemon.admin("suppression", "list", "--json").splitlines())
    return [(row["value"], row["reason"]) for row in rows]


@pytest.mark.usefixtures("receiver")
def test_who_does_not_exist_is_asked_for_once(daemon: Daemon) -> None:
    first = daemon.send(mail(), "gone@example.test", "spam@example.test")
    daemon.queue_until(lambda rows: not rows)
    assert listed(daemon) == [("gone@example.test", "hard_bounce")]
    second = daemon.send(mail(), "Gone@Example.test", "spam@example.test")
    assert names(daemon, first, "hard_bounced").count("hard_bounced") == 2
    told = names(daemon, second, "hard_bounced")
    assert told == ["created", "suppressed", "hard_bounced"]
    daemon.admin("suppression", "remove", "--project", "demo", "gone@example.test")
    third = daemon.send(mail(), "gone@example.test")
    assert names(daemon, third, "hard_bounced") == ["created", "hard_bounced"]
    daemon.admin("suppression", "remove", "--project", "demo", "gone@example.test")


@pytest.mark.usefixtures("receiver")
def test_what_the_tool_says_holds_at_once_for_new_mail_and_for_the_queue(daemon: Daemon) -> None:
    waiting = daemon.send(mail(), "later@example.test")
    daemon.queue_until(lambda rows: any(row["state"] == "deferred" for row in rows))
    daemon.admin("suppression", "add", "--project", "demo", "example.test", "--reason", "spam_complaint")
    identifier = daemon.send(mail(), "you@example.test")
    assert names(daemon, identifier, "suppressed") == ["created", "suppressed"]
    assert names(daemon, waiting, "suppressed")[-1] == "suppressed"
    daemon.admin("suppression", "remove", "--project", "demo", "example.test")
    assert names(daemon, daemon.send(mail(), "you@example.test"), "delivered") == ["created", "sent", "delivered"]


@pytest.mark.usefixtures("receiver")
def test_who_unsubscribed_gets_no_broadcast_and_all_else(daemon: Daemon) -> None:
    daemon.admin("suppression", "add", "--project", "demo", "--reason", "unsubscribe", "reader@example.test")
    news = daemon.send(mail("X-Lettermint-Route: news"), "reader@example.test")
    assert names(daemon, news, "suppressed") == ["created", "suppressed"]
    receipt = daemon.send(mail(), "reader@example.test")
    assert names(daemon, receipt, "delivered") == ["created", "sent", "delivered"]


@pytest.mark.usefixtures("receiver")
def test_a_kill_takes_nobody_off_the_list(daemon: Daemon) -> None:
    daemon.admin("suppression", "add", "--global", ".invalid")
    daemon.running.end(signal.SIGKILL)
    daemon.start()
    identifier = daemon.send(mail(), "a@b.invalid")
    assert names(daemon, identifier, "suppressed") == ["created", "suppressed"]
    events = [json.loads(line) for line in daemon.tool("lettermta-queue", "events", "--json").stdout.splitlines()]
    assert [one["data"]["value"] for one in events if one["event"] == "suppression.added"][-1] == ".invalid"
