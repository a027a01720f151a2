"""Bounces on the real wire: written by the daemon, delivered to the sender's own MX, read by Python's email package."""

from __future__ import annotations

import json
import signal
import smtplib
from collections.abc import Iterator, Sequence
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from tests.system.site import FIRST, MX, Daemon, Receiver, Site, mail

SENDER = "orders@shop.test"
SCRIPT = [
    {"stage": "RCPT", "recipient": "nobody@example.test", "reply": "550 5.1.1 No such user here"},
    {"stage": "RCPT", "recipient": "nobody@other.test", "reply": "550 5.1.1 No such user here"},
    {"stage": "RCPT", "recipient": "full@example.test", "reply": "452 4.2.2 Mailbox full"},
]


@pytest.fixture(scope="module")
def daemon(site: Site) -> Iterator[Daemon]:
    """One daemon for all, with a route whose mail is given up at once."""
    daemon = site.daemon("bounces", {"delivery": {"delay_warning": "1s", "suppress_bounced": "no"}})
    daemon.admin("route", "create", "--project", "demo", "hasty", "--schedule", "1s, 2s", "--lifetime", "3s")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def receiver(site: Site, daemon: Daemon) -> Receiver:
    """The receiver of example.test and other.test: it knows some, and not others."""
    return site.receiver(MX, script=SCRIPT)


@pytest.fixture(scope="module")
def shop(site: Site, daemon: Daemon) -> Receiver:
    """The receiver of the sender's own domain."""
    return site.receiver(FIRST)


def submit(
    daemon: Daemon, content: bytes, *recipients: tuple[str, Sequence[str]], sender: str = SENDER, options: Sequence[str] = ()
) -> str:
    """Send a message with parameters of DSN; returns the id that it was queued as."""
    with daemon.client() as client:
        _ok(client, client.mail(sender, list(options)))
        for address, parameters in recipients:
            _ok(client, client.rcpt(address, list(parameters)))
        code, said = client.data(content)
        assert code == 250, said
        return said.decode().rpartition(" ")[2]


def _ok(client: smtplib.SMTP, answer: tuple[int, bytes]) -> None:
    assert answer[0] == 250, answer


def report_on(shop: Receiver, identifier: str, action: str = "failed") -> tuple[dict[str, Any], EmailMessage]:
    """The report on a message as it was received, its envelope and itself."""
    wanted = (f"X-Lettermta-Message-ID: {identifier}".encode(), f"Action: {action}".encode())
    [received] = shop.messages(where=lambda message: all(each in message["content"] for each in wanted))
    report = message_from_bytes(received["content"], policy=policy.default)
    assert isinstance(report, EmailMessage)
    return received, report


def parts(report: EmailMessage) -> tuple[EmailMessage, list[EmailMessage], EmailMessage]:
    """The fields of the message, those of each recipient, and what came back of the original."""
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    people, program, original = report.get_payload()
    assert people.get_content_type() == "text/plain"
    message, *recipients = program.get_payload()
    return message, recipients, original


def test_a_refused_recipient_among_accepted_ones_bounces_to_the_senders_mx(daemon: Daemon, receiver: Receiver, shop: Receiver) -> None:
    identifier = submit(
        daemon,
        mail("Subject: Your order", "X-Tag: orders"),
        ("you@example.test", ()),
        ("nobody@example.test", ("ORCPT=rfc822;alias@example.test",)),
        options=("RET=FULL", "ENVID=order+2042"),
    )
    assert receiver.received(identifier)["recipients"] == ["you@example.test"]
    received, report = report_on(shop, identifier)
    assert (received["sender"], received["recipients"]) == ("", [SENDER])
    assert report["To"] == SENDER
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["In-Reply-To"] == "<1@sender.test>"
    message, [fields], original = parts(report)
    assert message["Reporting-MTA"] == "dns; mta.sender.test"
    assert message["Original-Envelope-Id"] == "order 42"
    assert fields["Final-Recipient"] == "rfc822;nobody@example.test"
    assert fields["Original-Recipient"] == "rfc822;alias@example.test"
    assert (fields["Action"], fields["Status"]) == ("failed", "5.1.1")
    assert fields["Remote-MTA"] == "dns; mx.example.test"
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user here"
    assert original.get_content_type() == "message/rfc822"
    [whole] = original.get_payload()
    assert whole["Subject"] == "Your order"
    assert whole["X-Tag"] is None
    assert whole.get_payload().strip() == "Hello."
    told = {(event["event"], event["data"].get("recipient")) for event in daemon.events_until(identifier, "message.hard_bounced")}
    assert ("message.hard_bounced", "nobody@example.test") in told


def test_what_expires_is_delayed_first_and_then_given_up(daemon: Daemon, receiver: Receiver, shop: Receiver) -> None:
    """By the route's own schedule and lifetime: 1 s, 2 s, and 3 s in all."""
    identifier = submit(daemon, mail("Subject: Late", "X-Lettermint-Route: hasty"), ("full@example.test", ()))
    _, report = report_on(shop, identifier)
    _, [fields], original = parts(report)
    assert (fields["Action"], fields["Status"]) == ("failed", "4.4.7")
    assert fields["Diagnostic-Code"] == "smtp; 452 4.2.2 Mailbox full"
    assert original.get_content_type() == "text/rfc822-headers"
    _, delay = report_on(shop, identifier, "delayed")
    _, [fields], _ = parts(delay)
    assert (fields["Action"], fields["Status"]) == ("delayed", "4.2.2")
    assert fields["Will-Retry-Until"]


def test_success_that_was_asked_for_is_told(daemon: Daemon, receiver: Receiver, shop: Receiver) -> None:
    identifier = submit(daemon, mail(), ("you@example.test", ("NOTIFY=SUCCESS,FAILURE",)))
    _, report = report_on(shop, identifier, "relayed")
    _, [fields], _ = parts(report)
    assert (fields["Action"], fields["Status"]) == ("relayed", "2.0.0")


def test_who_wants_no_report_gets_none_and_neither_does_the_null_sender(daemon: Daemon, receiver: Receiver, shop: Receiver) -> None:
    never = submit(daemon, mail(), ("nobody@example.test", ("NOTIFY=NEVER",)))
    null = submit(daemon, mail(), ("nobody@example.test", ()), sender="")
    for identifier in (never, null):
        daemon.events_until(identifier, "message.hard_bounced")
    last = submit(daemon, mail(), ("nobody@example.test", ()))
    report_on(shop, last)  # whatever had been written before would be there before
    daemon.queue_until(lambda rows: not rows)
    assert not [line for line in shop.output.splitlines() if never in line or null in line]


def test_a_kill_right_behind_the_commit_loses_no_bounce(site: Site) -> None:
    """HARD-CASES row 19: the bounce is in the commit that ends the recipient, so there is never the one without the other."""
    daemon = site.daemon("killed", {"delivery": {"port": str(site.port), "suppress_bounced": "no"}})
    daemon.admin("route", "create", "--project", "demo", "elsewhere", "--smarthost", f"127.0.0.4:{site.port}")
    daemon.start()
    relay = site.receiver("127.0.0.4", script=[{"stage": "RCPT", "recipient": "nobody@example.test", "reply": "550 5.1.1 No such user"}])
    identifiers = [
        submit(daemon, mail("X-Lettermint-Route: elsewhere"), ("nobody@example.test", ()), sender=f"orders{number}@shop.test")
        for number in range(5)
    ]
    daemon.running.line("hard_bounced|bounced", count=1)
    daemon.running.end(signal.SIGKILL)
    relay.end()
    daemon.start()
    # The relay refuses nothing now: what it takes is the reports, of which each has to be there, and none twice but by a later attempt.
    again = site.receiver("127.0.0.4", script=[{"stage": "RCPT", "recipient": "nobody@example.test", "reply": "550 5.1.1 No such user"}])
    received = again.messages(len(identifiers) - _already(relay))
    told = {json.dumps(message["recipients"]) for message in received} | {json.dumps(r) for r in _recipients(relay)}
    assert told == {json.dumps([f"orders{number}@shop.test"]) for number in range(5)}
    daemon.queue_until(lambda rows: not rows)
    daemon.stop()


def _recipients(receiver: Receiver) -> list[list[str]]:
    return [json.loads(line)["recipients"] for line in receiver.output.splitlines() if line.startswith("{")]


def _already(receiver: Receiver) -> int:
    return len(_recipients(receiver))
