"""Mail to a real Postfix: whatever it offers and answers, each message arrives, and once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.system.postfix import CHUNKS, PLAIN, TLS, ZONE, Postfix, recipients
from tests.system.program import Program
from tests.system.site import Daemon, Site, free_port, mail, submit


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    postfix = Postfix(free_port(PLAIN, CHUNKS, TLS))
    try:
        yield postfix
    finally:
        postfix.dispose()


@pytest.fixture(scope="module")
def daemon(site: Site, postfix: Postfix) -> Iterator[Daemon]:
    zone = site.directory / "postfix.json"
    zone.write_text(json.dumps(ZONE))
    dns = Program([sys.executable, "-m", "lettermta.testing.dns", "--zone", str(zone)])
    dns_port = dns.line(r"^listening (\d+)$")[1]
    settings = {
        "dns": {"servers": f"127.0.0.1:{dns_port}"},
        "delivery": {"port": str(postfix.port)},
        "shaping *": {"connections": "3", "messages_per_connection": "40", "idle_time": "1s"},
    }
    daemon = site.daemon("daemon", settings)
    daemon.start()
    yield daemon
    daemon.stop()
    dns.dispose()


def subject(tag: str) -> bytes:
    return mail(f"Subject: {tag}")


@pytest.mark.parametrize("domain", ["plain.test", "chunks.test", "tls.test"])
def test_a_hundred_messages_arrive_once_each(daemon: Daemon, postfix: Postfix, domain: str) -> None:
    tag = f"hundred-{domain}"
    with daemon.client() as client:
        for number in range(100):
            submit(client, subject(tag), f"u{number:03}@{domain}")
    copies = postfix.arrived(tag, 100)
    assert recipients(copies) == [f"u{number:03}@{domain}" for number in range(100)]
    assert all(copy.get_content() == "Hello.\n" for copy in copies)
    assert ("ESMTPS" in copies[0]["Received"]) is (domain == "tls.test")
    command = "data" if domain == "plain.test" else "bdat"
    assert postfix.logged(rf"disconnect from .* mail=(\d\d) rcpt=\1 {command}=\1 (rset=\d+ )?quit=1"), "a connection carries many"


@pytest.mark.parametrize("domain", ["plain.test", "chunks.test"])
def test_a_hundred_recipients_are_one_transaction(daemon: Daemon, postfix: Postfix, domain: str) -> None:
    tag = f"recipients-{domain}"
    identifier = daemon.send(subject(tag), *[f"r{number:03}@{domain}" for number in range(100)])
    copies = postfix.arrived(tag, 100)
    assert recipients(copies) == [f"r{number:03}@{domain}" for number in range(100)]
    events = daemon.events_until(identifier, "message.delivered")
    assert {event["event"] for event in events} == {"message.created", "message.sent", "message.delivered"}


@pytest.mark.parametrize("domain", ["plain.test", "chunks.test"])
def test_refused_recipients_among_accepted_ones(daemon: Daemon, postfix: Postfix, domain: str) -> None:
    tag = f"refused-{domain}"
    identifier = daemon.send(subject(tag), f"a@{domain}", f"refused@{domain}", f"b@{domain}", f"later@{domain}", f"c@{domain}")
    assert recipients(postfix.arrived(tag, 3)) == [f"a@{domain}", f"b@{domain}", f"c@{domain}"]
    events = daemon.events_until(identifier, "message.soft_bounced")
    told = {(event["data"].get("recipient"), event["event"]) for event in events}
    assert (f"refused@{domain}", "message.hard_bounced") in told
    assert (f"later@{domain}", "message.soft_bounced") in told
    assert (f"a@{domain}", "message.delivered") in told


@pytest.mark.parametrize("domain", ["plain.test", "chunks.test"])
def test_a_421_in_the_middle_costs_the_others_nothing(daemon: Daemon, postfix: Postfix, domain: str) -> None:
    tag = f"hangup-{domain}"
    with daemon.client() as client:
        for number in range(30):
            submit(client, subject(tag), f"{'hangup' if number % 5 == 2 else 'x'}{number:02}@{domain}")
    copies = postfix.arrived(tag, 24)
    assert recipients(copies) == [f"x{number:02}@{domain}" for number in range(30) if number % 5 != 2]


def test_an_address_in_utf_8_arrives(daemon: Daemon, postfix: Postfix) -> None:
    tag = "utf8"
    with daemon.client() as client:
        code, said = client.docmd("MAIL", "FROM:<app@sender.test> SMTPUTF8")
        assert code == 250, said
        client.sock.sendall("RCPT TO:<jürgen@chunks.test>\r\n".encode())
        assert client.getreply()[0] == 250
        assert client.data(subject(tag))[0] == 250
    assert recipients(postfix.arrived(tag, 1)) == ["jürgen@chunks.test"]


def test_a_large_message_arrives_whole(daemon: Daemon, postfix: Postfix) -> None:
    body = "".join(f".line {number}\r\n" for number in range(300_000))
    for domain in ("plain.test", "chunks.test"):
        daemon.send(mail(f"Subject: large-{domain}", body=body), f"large@{domain}")
        [copy] = postfix.arrived(f"large-{domain}", 1)
        assert copy.get_content() == body.replace("\r\n", "\n")
