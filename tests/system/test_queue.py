"""The queue tools on a running daemon: what is held stays, what is released goes, what is removed never comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.site import MX, Daemon, Site, mail


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    """A daemon whose receiver is not there yet, and that would try again in an hour."""
    daemon = site.daemon("daemon", {"delivery": {"schedule": "1h"}})
    daemon.start()
    yield daemon
    daemon.stop()


def change(daemon: Daemon, *arguments: str) -> int:
    done: dict[str, Any] = json.loads(daemon.tool("lettermta-queue", arguments[0], "--json", "--yes", *arguments[1:]).stdout)
    recipients: int = done["recipients"]
    return recipients


def state(state: str) -> Any:
    return lambda rows: [row["state"] for row in rows] == [state]


def test_what_operators_do_while_the_receiver_is_down_holds_when_it_is_up(site: Site, daemon: Daemon) -> None:
    held, removed, retried, waiting = (
        daemon.send(mail(f"Subject: {tag}", f"X-LM-Tag: {tag}"), "you@example.test") for tag in ("held", "removed", "retried", "waiting")
    )
    for identifier in (held, removed, retried, waiting):
        daemon.queue_until(state("deferred"), "--id", identifier)
    assert change(daemon, "hold", "--tag", "held", "--reason", "asked to") == 1
    assert change(daemon, "remove", "--tag", "removed") == 1
    assert [told["event"] for told in daemon.events_until(removed, "message.canceled")][-1] == "message.canceled"

    receiver = site.receiver()
    assert change(daemon, "retry", "--tag", "retried") == 1
    receiver.received(retried)
    assert change(daemon, "release", "--tag", "held") == 1
    receiver.received(held)
    assert daemon.events_until(held, "message.delivered")[-3:][0]["event"] == "message.released"
    [row] = daemon.queue()
    assert (row["id"], row["state"]) == (waiting, "deferred"), "nobody asked for that one"
    assert not [message for message in receiver.messages(2) if removed.encode() in message["content"]]

    rows = [json.loads(line) for line in daemon.tool("lettermta-queue", "trace", "--json", retried).stdout.splitlines()]
    assert [one["state"] for one in rows] == ["deferred", "delivered"]
    assert rows[-1]["host"] == "mx.example.test"
    assert (rows[-1]["address"], rows[-1]["port"]) == (MX, site.port)
    assert rows[-1]["dialogue"][0]["answer"].startswith("220 ")
    assert rows[-1]["dialogue"][-1]["answer"].startswith("250 ")
    assert rows[-1]["seconds"] > 0
    assert change(daemon, "bounce", "--all") == 1
    assert daemon.events_until(waiting, "message.failed")[-1]["data"]["reason"] == "Returned to the sender (by the operator)"
    assert daemon.queue() == []


def test_a_rule_holds_new_mail_until_it_is_lifted(site: Site, daemon: Daemon) -> None:
    where = ("--where", "project=demo", "domain=other.test", "--reason", "review")
    rule = json.loads(daemon.tool("lettermta-queue", "hold", "--json", "--yes", *where).stdout)["rule"]
    identifier = daemon.send(mail("Subject: ruled"), "you@other.test", "you@bare.test")
    rows = daemon.queue_until(lambda rows: len(rows) == 1 or "held" in [row["state"] for row in rows], "--id", identifier)
    assert ("held", "review") in [(row["state"], row["last_reply"]) for row in rows]
    assert change(daemon, "release", "--rule", str(rule)) == 1
    daemon.queue_until(lambda rows: not rows, "--id", identifier)
    [document] = [one for one in daemon.events_until(identifier, "message.released") if one["event"] == "message.released"]
    assert document["data"]["recipient"] == "you@other.test"
    assert daemon.tool("lettermta-queue", "verify").returncode == 0


def test_mail_that_is_rerouted_leaves_by_the_other_route(daemon: Daemon) -> None:
    daemon.admin("route", "create", "--project", "demo", "aside", "--transport", "capture")
    change(daemon, "hold", "--where", "tag=aside")
    identifier = daemon.send(mail("X-LM-Tag: aside"), "you@null.test")
    assert change(daemon, "reroute", "--project", "demo", "--tag", "aside", "--to", "aside") == 1
    [row] = daemon.queue("--id", identifier)
    assert (row["route"], row["state"]) == ("aside", "held")
    change(daemon, "release", "--all")
    daemon.queue_until(lambda rows: not rows, "--id", identifier)
    assert daemon.events_until(identifier, "message.delivered")[-1]["context"]["route"] == "aside"
    assert list((daemon.directory / "state" / "capture").rglob("new/*"))
