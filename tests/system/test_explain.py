"""``lettermta-admin explain``: what it tells is what then happens, with the daemon up or down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.site import FIRST, MX, OURS, Daemon, Site, mail


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    site.receiver(MX)
    rule = {"connections": "3", "rate": "100/m", "idle_time": "5m"}
    daemon = site.daemon("explained", {"shaping example.test": rule, "listener ours": {"ports": str(site.port), "addresses": OURS}})
    daemon.admin("domain", "create", "--project", "demo", "sender.test")
    daemon.start()
    yield daemon
    daemon.stop()


def explained(daemon: Daemon, address: str, *options: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(daemon.admin("explain", address, "--json", *options))
    return told


def test_hosts_tls_limits_and_keys_are_told(daemon: Daemon) -> None:
    told = explained(daemon, "you@example.test")
    assert (told["project"], told["route"], told["transport"], told["fault"]) == ("demo", "outgoing", "mx", None)
    (host,) = told["mx"]
    assert (host["host"], host["addresses"], host["fault"]) == ("mx.example.test", [MX], None)
    assert (host["tls"]["policy"], host["tls"]["verified"]) == ("opportunistic", False)
    assert "STARTTLS" in host["tls"]["why"]
    assert told["limits"]["connections"] == 3
    assert told["limits"]["rate"] == {"number": 100, "seconds": 60}
    assert told["limits"]["rule"] == "example.test"
    assert told["schedule"] == [1.0]
    (sender,) = told["senders"]
    records = json.loads(daemon.admin("domain", "show", "--project", "demo", "sender.test", "--json"))["records"]
    assert [key["selector"] for key in sender["keys"]] == [record["key"]["selector"] for record in records if record["key"]]
    assert (sender["signed_by"], sender["return_path"]) == ("sender.test", None)
    assert told["suppression"] == []


def test_the_destinations_state_is_the_running_daemons(daemon: Daemon) -> None:
    daemon.events_until(daemon.send(mail(), "you@example.test"), "message.delivered")
    state = explained(daemon, "you@example.test")["destination"]["state"]
    assert state["channels"] == 1
    assert (state["connections"], state["connections_allowed"]) == (1, 3)
    screen = daemon.admin("explain", "you@example.test")
    assert "1 channels open" in screen
    assert len(screen.splitlines()) <= 24
    assert max(map(len, screen.splitlines())) <= 160


def test_a_receiver_that_cant_be_reached_is_tried_again_later(daemon: Daemon) -> None:
    daemon.send(mail(), "you@shop.test")
    daemon.queue_until(lambda rows: any(row["state"] == "deferred" for row in rows), "--domain", "shop.test")
    told = explained(daemon, "you@shop.test")
    assert told["mx"][0]["addresses"] == [FIRST]
    assert told["destination"]["state"]["channels"] == 0
    daemon.tool("lettermta-queue", "remove", "--domain", "shop.test", "--yes", check=False)


def test_what_fails_at_once_is_told(daemon: Daemon) -> None:
    told = explained(daemon, "you@null.test")
    assert told["fault"].startswith("556 5.1.10")
    assert told["next"] == {"in": None, "why": "it fails at once"}
    assert "null MX" in daemon.admin("explain", "you@null.test")


@pytest.mark.parametrize("domain", ["addressless.test", "circle.test", "[127.0.0.7]"])
def test_what_becomes_of_mail_is_what_is_told_where_no_host_can_be_used(daemon: Daemon, domain: str) -> None:
    told = explained(daemon, f"you@{domain}")
    assert told["next"] == {"in": None, "why": "it fails at once"}
    assert len(told["mx"]) == 1, "what is behind ourselves is not tried"
    (failed,) = [each for each in daemon.events_until(daemon.send(mail(), f"you@{domain}"), "message.failed") if "reason" in each["data"]]
    assert told["fault"].endswith(failed["data"]["reason"])
    screen = daemon.admin("explain", f"you@{domain}")
    assert f"not used: {told['fault']}" in screen
    assert "tried again" not in screen


def test_mail_that_can_go_nowhere_now_is_said_to_be_put_off(daemon: Daemon) -> None:
    told = explained(daemon, "you@[192.168.1.1]")
    assert told["fault"].startswith("451 4.4.4")
    assert told["next"] == {"in": 0.0, "why": "and it is put off, as it can't go anywhere"}
    assert "at once, and it is put off" in daemon.admin("explain", "you@[192.168.1.1]")


def test_what_is_asked_of_the_tls_of_several_hosts_is_told_once(daemon: Daemon) -> None:
    screen = daemon.admin("explain", "you@two.test")
    assert screen.count("TLS opportunistic") == 1
    assert "1. first.two.test" in screen
    assert "2. backup.two.test" in screen


def test_a_suppressed_address_gets_no_attempt(daemon: Daemon) -> None:
    daemon.admin("suppression", "add", "--project", "demo", "gone@example.test")
    told = explained(daemon, "Gone@example.test")
    assert [row["value"] for row in told["suppression"]] == ["gone@example.test"]
    assert told["next"]["in"] is None
    assert explained(daemon, "other@example.test")["suppression"] == []


def test_the_route_decides(daemon: Daemon) -> None:
    daemon.admin("route", "create", "--project", "demo", "relay", "--smarthost", "127.0.0.9:2525")
    told = explained(daemon, "you@example.test", "--route", "relay")
    assert (told["transport"], told["mx"]) == ("smarthost 127.0.0.9:2525", [])
    assert told["destination"]["key"] == "smarthost relay 127.0.0.9:2525", "not what only the daemon can make sense of"
    missing = daemon.tool("lettermta-admin", "explain", "you@example.test", "--route", "nowhere", check=False)
    assert missing.returncode == os.EX_NOUSER


@pytest.mark.parametrize(
    "address", ["example.test", "you@", "@example.test", "", "a@b@c.test", "a@[300.1.1.1]", "a b@c.test", "a@c.test> X=1"]
)
def test_what_is_no_address_is_refused(daemon: Daemon, address: str) -> None:
    assert daemon.tool("lettermta-admin", "explain", address, check=False).returncode == os.EX_DATAERR


def test_where_mail_would_leave_from_is_told(site: Site) -> None:
    pools = {
        "source old": {"addresses": "127.0.0.51", "hostname": "old.sender.test"},
        "source new": {"addresses": "127.0.0.52", "warm_up": "5, 10"},
        "pool main": {"sources": "old, new"},
        "delivery": {"pool": "main"},
    }
    daemon = site.daemon("pooled", pools)
    told = explained(daemon, "you@example.test")["sources"]
    assert told["pool"] == "main"
    old, new = told["sources"]
    assert (old["addresses"], old["hostname"], old["warm_up"]) == (["127.0.0.51"], "old.sender.test", None)
    assert (new["hostname"], new["warm_up"]) == ("mta.sender.test", {"day": 1, "days": 2, "a_day": 5, "granted": 0})
    assert "127.0.0.52 as mta.sender.test, new: day 1 of 2, 0 of 5 messages" in daemon.admin("explain", "you@example.test")


def test_without_a_daemon_all_but_the_state_is_told(site: Site) -> None:
    daemon = site.daemon("down")
    told = explained(daemon, "you@example.test")
    assert told["mx"][0]["addresses"] == [MX]
    assert told["destination"]["state"] is None
    assert told["next"]["why"] == "no daemon runs"
    daemon.admin("project", "create", "other")
    asked = daemon.tool("lettermta-admin", "explain", "you@example.test", check=False)
    assert asked.returncode == os.EX_USAGE
    assert "demo, other" in asked.stderr
