"""What a real Postfix and a real Exim send back, days later for all we know, to a real daemon: from return path to event."""

from __future__ import annotations

import json
import re
import signal
import smtplib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.delivery.returns.test_recognise import octets
from tests.system.exim import DOMAIN, EXIM, Exim
from tests.system.exim import ZONE as EXIMS
from tests.system.postfix import CHUNKS, PLAIN, TLS, ZONE, Postfix
from tests.system.program import PATIENCE, Program
from tests.system.site import Daemon, Site, free_port, mail, submit

SENDER = "shop@sender.test"
FBL = "fbl@mta.sender.test"


@pytest.fixture(scope="module")
def back() -> int:
    """The port where mail comes back to."""
    return free_port()


@pytest.fixture(scope="module")
def postfix(back: int) -> Iterator[Postfix]:
    """Takes everything, and finds out later that some of it can't be delivered."""
    failing = {
        "nobody@plain.test": "error:5.1.1 user unknown",
        "nobody@chunks.test": "error:5.1.1 user unknown",
        "full@plain.test": "error:5.2.2 mailbox is full",
        "late@plain.test": "retry:4.4.1 connection timed out",
    }
    table = ", ".join(f"{{{address} = {transport}}}" for address, transport in failing.items())
    settings = {"transport_maps": f"inline:{{{table}}}", "relayhost": f"[127.0.0.1]:{back}", "delay_warning_time": "1s"} | {
        "smtpd_reject_unlisted_recipient": "no"
    }
    postfix = Postfix(free_port(PLAIN, CHUNKS, TLS, EXIM), settings | {"minimal_backoff_time": "1s", "queue_run_delay": "1s"})
    try:
        yield postfix
    finally:
        postfix.dispose()


@pytest.fixture(scope="module")
def daemon(site: Site, postfix: Postfix, back: int) -> Iterator[Daemon]:
    zone = site.directory / "postfix.json"
    zone.write_text(json.dumps(ZONE | EXIMS))
    dns = Program([sys.executable, "-m", "lettermta.testing.dns", "--zone", str(zone)])
    dns_port = dns.line(r"^listening (\d+)$")[1]
    settings = {
        "dns": {"servers": f"127.0.0.1:{dns_port}"},
        "delivery": {"port": str(postfix.port), "complaint_addresses": FBL},
        "listener bounces": {"ports": str(back), "addresses": "127.0.0.1", "role": "bounces"},
    }
    daemon = site.daemon("daemon", settings)
    daemon.admin("domain", "create", "--project", "demo", "sender.test")
    daemon.admin("domain", "update", "--project", "demo", "sender.test", "--return-path", "on")
    daemon.start()
    yield daemon
    daemon.dispose()
    dns.dispose()


@pytest.fixture(scope="module")
def exim(postfix: Postfix, back: int) -> Iterator[Exim]:
    """Takes everything at its own address, and can't deliver some of it."""
    exim = Exim(postfix.port, back)
    try:
        yield exim
    finally:
        exim.dispose()


def send(daemon: Daemon, *recipients: str) -> str:
    with daemon.client() as client:
        return submit(client, mail("Subject: Your order", "X-LM-Tag: orders", "X-LM-Metadata-order: 42"), *recipients, sender=SENDER)


def told(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


@pytest.mark.parametrize("domain", ["plain.test", "chunks.test"])
def test_a_bounce_of_what_was_delivered_becomes_an_event(daemon: Daemon, postfix: Postfix, domain: str) -> None:
    identifier = send(daemon, f"nobody@{domain}")
    events = daemon.events_until(identifier, "message.hard_bounced")
    names = [event["event"] for event in events if event["event"].startswith("message.")]
    assert names == ["message.created", "message.sent", "message.delivered", "message.hard_bounced"]
    [bounced] = told(events, "message.hard_bounced")
    data = bounced["data"]
    assert (data["recipient"], data["tag"], data["metadata"]) == (f"nobody@{domain}", "orders", {"order": "42"})
    assert data["response"] == {"status_code": 550, "enhanced_status_code": "5.1.1", "content": "user unknown"}
    assert (data["classification"], data["reported_by"]) == ("invalid_recipient", "postfix.test")
    assert (bounced["context"]["project"], bounced["context"]["route"]) == ("demo", "outgoing")
    [suppressed] = json.loads("[" + ",".join(daemon.admin("suppression", "list", "--project", "demo", "--json").splitlines()) + "]")[-1:]
    assert suppressed["value"] == f"nobody@{domain}"


@pytest.mark.parametrize(("local", "word"), [("nobody", "invalid_recipient"), ("full", "mailbox_full")])
def test_a_bounce_of_exims_too(daemon: Daemon, exim: Exim, local: str, word: str) -> None:
    identifier = send(daemon, f"{local}@{DOMAIN}")
    [bounced] = told(daemon.events_until(identifier, "message.hard_bounced"), "message.hard_bounced")
    assert (bounced["data"]["recipient"], bounced["data"]["classification"]) == (f"{local}@{DOMAIN}", word), exim.log()
    assert bounced["data"]["reported_by"] == "exim.test"


def test_every_recipient_has_a_transaction_of_its_own_on_one_connection(daemon: Daemon, postfix: Postfix) -> None:
    identifier = send(daemon, "a@plain.test", "full@plain.test", "b@plain.test", "late@plain.test")
    events = daemon.events_until(identifier, "message.hard_bounced")
    [bounced] = told(events, "message.hard_bounced")
    assert (bounced["data"]["recipient"], bounced["data"]["classification"]) == ("full@plain.test", "mailbox_full")
    events = daemon.events_until(identifier, "message.soft_bounced")
    [late] = told(events, "message.soft_bounced")
    assert (late["data"]["recipient"], late["data"]["classification"]) == ("late@plain.test", "network")
    assert {event["data"]["recipient"] for event in told(events, "message.delivered")} == {
        "a@plain.test",
        "b@plain.test",
        "full@plain.test",
        "late@plain.test",
    }
    paths = {str(copy["Return-Path"]) for copy in postfix.arrived("Your order", 2)}
    assert len(paths) == 2
    assert all(re.fullmatch(r"<b[a-z2-7]{53}@rp\.sender\.test>", path) for path in paths)


def path_of(daemon: Daemon, postfix: Postfix, recipient: str) -> tuple[str, str]:
    """The id of a message that was delivered to ``recipient``, and its return path there."""
    identifier = send(daemon, recipient)
    daemon.events_until(identifier, "message.delivered")
    copies = [copy for copy in postfix.arrived("Your order", 1) if copy["Delivered-To"] == recipient]
    while not copies:
        copies = [copy for copy in postfix.arrived("Your order", 1) if copy["Delivered-To"] == recipient]
    return identifier, str(copies[0]["Return-Path"]).strip("<>")


def bring(back: int, address: str, content: bytes, sender: str = "") -> tuple[int, bytes]:
    """What the listener for bounces answers to a message."""
    with smtplib.SMTP("127.0.0.1", back, "mx.example.test", timeout=PATIENCE) as client:
        client.ehlo()
        client.mail(sender)
        code, said = client.rcpt(address)
        return client.data(content) if code == 250 else (code, said)


def test_what_was_answered_by_250_outlives_the_daemon(daemon: Daemon, postfix: Postfix, back: int) -> None:
    identifier, path = path_of(daemon, postfix, "dead@plain.test")
    assert bring(back, path, octets("qmail"))[0] == 250
    daemon.running.end(signal.SIGKILL)
    daemon.start()
    events = daemon.events_until(identifier, "message.hard_bounced")
    assert told(events, "message.hard_bounced")[0]["data"]["recipient"] == "dead@plain.test"


def test_a_complaint_at_its_own_address(daemon: Daemon, postfix: Postfix, back: int) -> None:
    identifier, path = path_of(daemon, postfix, "annoyed@plain.test")
    assert bring(back, FBL, octets("complaint").replace(b"RETURN", path.encode()), "feedback@provider.test")[0] == 250
    [complaint] = told(daemon.events_until(identifier, "message.spam_complaint"), "message.spam_complaint")
    assert complaint["data"]["recipient"] == "annoyed@plain.test"


def test_the_listener_for_bounces_is_no_relay_and_answers_nobody(daemon: Daemon, postfix: Postfix, back: int) -> None:
    """HARD-CASES row 25."""
    _, path = path_of(daemon, postfix, "ann@plain.test")
    letter = "a" if path[9] != "a" else "c"
    for address in (path[:9] + letter + path[10:], "ann@plain.test", "postmaster@rp.sender.test"):
        assert bring(back, address, octets("postfix")) == (550, b"5.1.1 No such address here")
    assert bring(back, path, octets("person"), "ann@plain.test")[0] == 250
    kept = list((daemon.directory / "state/returns").iterdir())
    assert len(kept) == 1
    assert daemon.queue() == []


def test_a_smuggled_end_refuses_the_whole_message(daemon: Daemon, postfix: Postfix, back: int) -> None:
    """HARD-CASES row 2: what a report carries is content, whatever stands in it."""
    identifier, path = path_of(daemon, postfix, "careful@plain.test")
    with smtplib.SMTP("127.0.0.1", back, "mx.example.test", timeout=PATIENCE) as client:
        client.ehlo()
        client.mail("")
        client.rcpt(path)
        client.putcmd("DATA")
        assert client.getreply()[0] == 354
        client.send(octets("postfix") + b"\r\n.\nMAIL FROM:<>\r\n.\r\n")
        assert client.getreply()[0] == 550
        assert client.noop()[0] == 250
    events = daemon.events_until(identifier, "message.delivered")
    assert not told(events, "message.hard_bounced")
