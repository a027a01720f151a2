"""A message all the way: submitted by a real client, delivered by MX or as its route says, and told of in events."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator

import pytest

from lettermta.smtp.tls import self_signed
from tests import tools
from tests.system.site import BACKUP, FIRST, MX, RELAY, SECURE, Daemon, Receiver, Site, mail, submit

CONTROL = re.compile(rb"^(X-LM-|X-Tag|X-Metadata-|X-Lettermint-|X-Lettr-|Idempotency-Key|Bcc|Return-Path)", re.I | re.M)


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    """One daemon for all; it trusts the certificate that the smarthost has."""
    pair = self_signed(site.directory / "relay", "localhost")
    daemon = site.daemon("daemon", {"delivery": {"tls_ca_file": str(pair.certificate)}})
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def receiver(site: Site, daemon: Daemon) -> Receiver:
    """The receiver of example.test, other.test and bare.test."""
    return site.receiver(MX)


def names(events: list[dict[str, object]]) -> list[object]:
    return [event["event"] for event in events]


def swaks(daemon: Daemon, *more: str) -> str:
    """Send the documented test message; returns swaks' transcript."""
    tools.need_perl("Net::SSLeay", "libnet-ssleay-perl")
    command = [
        tools.need("swaks", "swaks"),
        "--to", "recipient@example.test",
        "--from", "sender@yourdomain.test",
        "--server", "127.0.0.1",
        "--port", str(daemon.port),
        "--auth", "LOGIN",
        "--auth-user", "lettermint",
        "--auth-password", daemon.token,
        "--tls",
        "--header", "Subject: Test Email",
        "--header", "X-LM-Tag: test-email",
        "--header", "X-LM-Metadata-source: swaks-test",
        "--header", "X-Lettermint-Route: outgoing",
        "--body", "This is a test email sent via SMTP.",
        *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).replace(daemon.token, "…")
    return done.stdout


def sent_by(transcript: str) -> list[bytes]:
    """The lines of the message as swaks sent them, without the end."""
    lines = [line[4:].encode() for line in transcript.splitlines() if line.startswith(" ~> ")]
    return lines[lines.index(b"DATA") + 1 : lines.index(b".")]


def test_swaks_as_documented(site: Site) -> None:
    """LOGIN over STARTTLS with the four headers: queued while the receiver is down, delivered once it is back, the control headers gone."""
    daemon = site.daemon("swaks")
    daemon.start()
    transcript = swaks(daemon)
    queued = re.search(r"^<~ +250 2\.0\.0 Ok: queued as (\S+)$", transcript, re.M)
    assert queued is not None, transcript
    identifier = queued[1]

    [row] = daemon.queue_until(lambda rows: bool(rows) and rows[0]["attempts"] > 0)
    assert row["id"] == identifier
    assert row["state"] == "deferred"
    assert (row["tag"], row["metadata"]) == ("test-email", {"source": "swaks-test"})
    assert (row["sender"], row["recipient"]) == ("sender@yourdomain.test", "recipient@example.test")
    assert (row["project"], row["route"]) == ("demo", "outgoing")
    assert "refuses connections" in row["last_reply"]
    assert daemon.queue("--tag", "test-email", "--metadata", "source=swaks-test", "--domain", "example.test")
    assert not daemon.queue("--tag", "another")

    daemon.stop()
    assert [row["id"] for row in daemon.queue()] == [identifier], "the queue can be read while the daemon is down"
    daemon.start()

    receiver = site.receiver(MX)
    message = receiver.received(identifier)
    daemon.queue_until(lambda rows: not rows)
    daemon.stop()
    assert len(receiver.messages()) == 1, "it arrives once"
    assert (message["sender"], message["recipients"]) == ("sender@yourdomain.test", ["recipient@example.test"])
    assert CONTROL.search(message["content"]) is None
    received, rest = re.match(rb"(Received: .*?\r\n)(?=\S)(.*)", message["content"], re.S).groups()  # type: ignore[union-attr]
    assert b"with ESMTPSA" in received
    assert rest.split(b"\r\n")[:-1] == [line for line in sent_by(transcript) if not CONTROL.match(line)], "every other octet is as sent"

    events = daemon.events(identifier)
    assert names(events) == ["message.created", "message.sent", "message.delivered"]
    for event in events:
        assert event["data"]["tag"] == "test-email"
        assert event["data"]["metadata"] == {"source": "swaks-test"}
        assert event["data"]["message_id"] == identifier
        assert (event["context"]["project"], event["context"]["route"]) == ("demo", "outgoing")
    assert events[-1]["data"]["response"]["status_code"] == 250
    receiver.end()


def test_no_secret_in_the_log(site: Site, daemon: Daemon, receiver: Receiver) -> None:
    identifier = daemon.send(mail(), "you@example.test")
    receiver.received(identifier)
    daemon.running.line(f"{identifier}: delivered to=<you@example.test>")
    said = daemon.running.output
    assert daemon.token not in said
    assert base64.b64encode(f"\0lettermint\0{daemon.token}".encode()).decode() not in said


def test_recipients_of_one_domain_share_a_transaction(daemon: Daemon, receiver: Receiver) -> None:
    people = [f"{name}@example.test" for name in ("ann", "bob", "cem")]
    identifier = daemon.send(mail(), *people, "dan@other.test")
    messages = receiver.messages(2, where=lambda message: f"id {identifier};".encode() in message["content"])
    assert sorted(message["recipients"] for message in messages) == [people, ["dan@other.test"]]


def test_a_domain_without_mx_gets_its_mail_at_its_address(daemon: Daemon, receiver: Receiver) -> None:
    assert receiver.received(daemon.send(mail(), "you@bare.test"))["recipients"] == ["you@bare.test"]


def test_connections_are_reused(daemon: Daemon, receiver: Receiver) -> None:
    with daemon.client() as client:
        used = []
        for _ in range(3):
            identifier = submit(client, mail(), "again@example.test")
            used.append(receiver.received(identifier)["connection"])
            daemon.running.line(f"{identifier}: delivered")
    assert len(set(used)) == 1


def test_5_mb_pass_unchanged(daemon: Daemon, receiver: Receiver) -> None:
    content = mail("Subject: large", body="".join(f".{number:07} {'x' * 66}\r\n" for number in range(69_000)))
    assert len(content) > 5_000_000
    message = receiver.received(daemon.send(content, "you@example.test"))
    assert message["content"].endswith(content)


def test_the_better_mx_first_and_the_next_one_when_it_fails(site: Site, daemon: Daemon) -> None:
    backup = site.receiver(BACKUP)
    assert backup.received(daemon.send(mail(), "you@two.test")), "the first host is down"
    first = site.receiver(FIRST)
    backup.end()
    later = daemon.send(mail(), "you@two.test")
    assert first.received(later)
    first.end()


def test_a_refusal_is_a_hard_bounce_and_a_deferral_a_soft_one(site: Site, daemon: Daemon) -> None:
    script = [
        {"stage": "RCPT", "reply": "550 5.1.1 no such user", "recipient": "gone@two.test"},
        {"stage": "RCPT", "reply": "452 4.2.2 mailbox full", "recipient": "full@two.test", "times": 1},
    ]
    receiver = site.receiver(FIRST, script=script)
    identifier = daemon.send(mail("X-Tag: mixed"), "fine@two.test", "gone@two.test", "full@two.test")
    receiver.messages(1, where=lambda message: message["recipients"] == ["fine@two.test"])
    receiver.messages(1, where=lambda message: message["recipients"] == ["full@two.test"])
    daemon.queue_until(lambda rows: not rows, "--id", identifier)
    events = daemon.events_until(identifier, "message.soft_bounced")
    told = {(event["event"], event["data"].get("recipient")) for event in events}
    assert told == {
        ("message.created", None),
        ("message.sent", "fine@two.test"),
        ("message.delivered", "fine@two.test"),
        ("message.hard_bounced", "gone@two.test"),
        ("message.soft_bounced", "full@two.test"),
        ("message.sent", "full@two.test"),
        ("message.delivered", "full@two.test"),
    }
    assert {event["data"]["tag"] for event in events} == {"mixed"}
    receiver.end()


@pytest.mark.parametrize("address", ["you@nowhere.test", "you@null.test"])
def test_a_domain_that_takes_no_mail_fails_at_once(daemon: Daemon, address: str) -> None:
    identifier = daemon.send(mail(), address)
    failed = daemon.events_until(identifier, "message.failed")[-1]
    assert failed["data"]["recipient"] == address
    assert failed["data"]["reason"]


def test_starttls_is_used_where_it_is_offered(site: Site, daemon: Daemon) -> None:
    pair = self_signed(site.directory / "secure", "mx.secure.test")
    receiver = site.receiver(SECURE, certificate=str(pair.certificate), key=str(pair.private_key))
    identifier = daemon.send(mail(), "you@secure.test")
    assert receiver.received(identifier)["tls"] is True
    daemon.running.line(f"{identifier}: delivered .*TLSv1.3")


def test_a_smarthost_gets_credentials_over_verified_tls(site: Site, daemon: Daemon) -> None:
    relay = site.directory / "relay"
    options = {"certificate": str(relay / "self-signed.crt"), "key": str(relay / "self-signed.key"), "credentials": {"us": "pass word"}}
    # The name is looked up as the system does it, so the receiver is where localhost is.
    receiver = site.receiver("127.0.0.1", **options)
    password = site.directory / "password"
    password.write_text("wrong\n")
    login = ("--smarthost-user", "us", "--smarthost-password-file", str(password))
    daemon.admin("route", "create", "--project", "demo", "relayed", "--smarthost", f"localhost:{site.port}", *login)
    identifier = daemon.send(mail("X-Lettermint-Route: relayed"), "you@anywhere.test")
    rows = daemon.queue_until(lambda rows: bool(rows) and rows[0]["attempts"] > 0, "--id", identifier)
    assert "535" in rows[0]["last_reply"]

    password.write_text("pass word\n")
    daemon.admin("route", "update", "--project", "demo", "relayed", "--smarthost", f"localhost:{site.port}", *login)
    assert receiver.received(identifier)["tls"] is True
    assert "pass word" not in daemon.running.output


def test_a_captured_message_is_in_the_maildir(daemon: Daemon) -> None:
    daemon.admin("route", "create", "--project", "demo", "kept", "--transport", "capture")
    identifier = daemon.send(mail("X-Lettermint-Route: kept", "X-Tag: t"), "you@example.test")
    daemon.running.line(f"{identifier}: delivered .*Maildir")
    [file] = (daemon.directory / "state" / "capture" / "new").glob(f"*{identifier}*")
    content = file.read_bytes()
    assert content.startswith(b"Return-Path: <app@sender.test>\r\nDelivered-To: you@example.test\r\nReceived: ")
    assert content.endswith(mail())


def test_a_discarded_message_is_delivered_to_nobody(daemon: Daemon) -> None:
    daemon.admin("route", "create", "--project", "demo", "nothing", "--transport", "discard")
    identifier = daemon.send(mail("X-Lettermint-Route: nothing"), "you@nowhere.test")
    assert names(daemon.events_until(identifier, "message.delivered")) == ["message.created", "message.sent", "message.delivered"]


def test_a_relayhost_takes_the_place_of_mx(site: Site) -> None:
    relay = site.receiver(RELAY)
    daemon = site.daemon("relayhost", {"delivery": {"relayhost": f"{RELAY}:{site.port}"}})
    daemon.start()
    assert relay.received(daemon.send(mail(), "you@nowhere.test"))["recipients"] == ["you@nowhere.test"]
    daemon.stop()
