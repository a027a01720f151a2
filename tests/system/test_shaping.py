"""What a receiver is sent at once, as a real daemon keeps to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.system.site import MX, Daemon, Receiver, Site, mail, submit, write_ini


@pytest.fixture(scope="module")
def receiver(site: Site) -> Receiver:
    """The receiver of example.test, other.test and bare.test; it answers each message late."""
    script = [{"stage": "RCPT", "reply": "421 4.7.0 slow down, please", "recipient": "throttle@other.test", "times": 1}]
    return site.receiver(MX, script=[*script, {"stage": "DOT", "delay": 0.05}])


@pytest.fixture
def daemon(site: Site, receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    daemon = site.daemon(request.function.__name__[:40], request.param)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize("daemon", [{"shaping mx.example.test": {"connections": "2", "messages_per_connection": "5"}}], indirect=True)
def test_domains_on_the_same_host_share_its_connections(daemon: Daemon, receiver: Receiver) -> None:
    with daemon.client() as client:
        for number in range(20):
            submit(client, mail("Subject: shared"), f"s{number}@{('example.test', 'other.test')[number % 3 == 0]}")
    taken = receiver.messages(20, where=lambda message: b"Subject: shared" in message["content"])
    by_connection: dict[int, set[str]] = {}
    for message in taken:
        by_connection.setdefault(message["connection"], set()).add(message["recipients"][0].partition("@")[2])
    assert len(by_connection) == 4, "five messages on each"
    assert any(len(domains) == 2 for domains in by_connection.values()), "a connection carries mail of both"


@pytest.mark.parametrize("daemon", [{"shaping example.test": {"rate": "5/s"}}], indirect=True)
def test_a_rate_is_kept(daemon: Daemon, receiver: Receiver) -> None:
    with daemon.client() as client:
        for number in range(12):
            submit(client, mail("Subject: rated"), f"r{number}@example.test")
    taken = receiver.messages(12, where=lambda message: b"Subject: rated" in message["content"])
    times = sorted(message["received"] for message in taken)
    assert times[-1] - times[0] > 1.9, "twelve messages at five a second"


@pytest.mark.parametrize("daemon", [{"shaping *.test": {"rate": "1/h"}}], indirect=True)
def test_other_limits_hold_after_a_reload(daemon: Daemon, receiver: Receiver, site: Site) -> None:
    with daemon.client() as client:
        for number in range(5):
            submit(client, mail("Subject: reloaded"), f"l{number}@example.test")
    receiver.messages(1, where=lambda message: b"Subject: reloaded" in message["content"])
    write_ini(daemon.config, site.settings(daemon.port))
    daemon.running.send_signal(signal.SIGHUP)
    receiver.messages(5, where=lambda message: b"Subject: reloaded" in message["content"])


def test_a_throttling_reply_leaves_the_whole_destination_alone(receiver: Receiver, site: Site) -> None:
    """The rule is the operator's; domains on the same host wait with the one that was told."""
    rules = site.directory / "rules.ini"
    rules.write_text("[throttle ours]\ntext = slow down, please\npause = 2s\n")
    daemon = site.daemon("throttled", {"delivery": {"throttle_rules": str(rules)}})
    daemon.start()
    daemon.send(mail("Subject: throttled"), "throttle@other.test")
    daemon.running.line("left alone for 2 s by throttle rule ours")
    daemon.send(mail("Subject: throttled"), "waits@example.test")
    taken = receiver.messages(2, where=lambda message: b"Subject: throttled" in message["content"])
    assert {message["recipients"][0] for message in taken} == {"throttle@other.test", "waits@example.test"}
    queued = [row for row in daemon.queue() if row["state"] != "delivered"]
    assert queued == []
    daemon.stop()
