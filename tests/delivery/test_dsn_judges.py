"""Reports of every kind, field by field, as parsers that are not ours read them: Sisimai, and for RFC 6533 Python's email package."""

from __future__ import annotations

import email
import json
import subprocess
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lettermta.delivery.dsn import Action, Reported
from lettermta.message import Notify, Options, Reply
from tests.delivery.test_dsn import ARRIVED, HEAD, ORIGINAL, REFUSED, made, octets_of, parsed
from tests.tools import need, need_perl

SUCCESS = frozenset({Notify.SUCCESS})
LATE = Reported(
    "late@example.org",
    Action.DELAYED,
    reply=Reply(451, "4.2.2", "Mailbox full"),
    remote_mta="mx.example.org",
    last_attempt=1_790_000_100.0,
    retry_until=1_790_400_000.0,
)
PROGRAM = "use Sisimai; use JSON::PP; print JSON::PP->new->encode([map { $_->damn } @{ Sisimai->make($ARGV[0], delivered => 1) || [] }]);"


def read_by_sisimai(path: Path, octets: bytes) -> list[dict[str, Any]]:
    need_perl("Sisimai", "libsisimai-perl")
    path.write_bytes(octets)
    run = subprocess.run([need("perl", "perl"), "-e", PROGRAM, str(path)], capture_output=True, check=True, timeout=60)
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize(
    ("recipient", "wanted"),
    [
        (REFUSED, {"action": "failed", "reason": "userunknown", "deliverystatus": "5.1.1", "replycode": "550", "softbounce": 0}),
        (LATE, {"action": "delayed", "reason": "mailboxfull", "deliverystatus": "4.2.2", "replycode": "451", "softbounce": 1}),
        (
            Reported("there@example.org", Action.DELIVERED, notify=SUCCESS, last_attempt=1_790_000_100.0),
            {"action": "delivered", "reason": "delivered", "deliverystatus": "2.0.0", "replycode": "", "softbounce": -1},
        ),
        (
            evolve(LATE, action=Action.RELAYED, notify=SUCCESS, reply=Reply(250, "2.1.5", "OK"), retry_until=None),
            {"action": "relayed", "reason": "delivered", "deliverystatus": "2.1.5", "replycode": "250", "softbounce": -1},
        ),
    ],
    ids=["failed", "delayed", "delivered", "relayed"],
)
def test_sisimai_reads_each_kind_of_report(tmp_path: Path, recipient: Reported, wanted: dict[str, Any]) -> None:
    (found,) = read_by_sisimai(tmp_path / "report.eml", made(ORIGINAL, recipient))
    assert {name: found[name] for name in wanted} == wanted
    assert found["recipient"] == recipient.address
    assert found["addresser"] == "shop@example.com"
    assert found["messageid"] == "1234@example.com"
    assert found["subject"] == "Your order"
    assert found["timestamp"] == 1_790_000_100
    assert found["rhost"] == (recipient.remote_mta or "mta.example.com")
    if recipient.reply is not None:
        assert found["diagnosticcode"].startswith(f"{recipient.reply.code} {recipient.reply.enhanced} ")


def test_sisimai_reads_each_recipient_of_a_report_on_several(tmp_path: Path) -> None:
    others = [evolve(REFUSED, address=f"u{number}@example.org", orcpt=None) for number in range(5)]
    found = read_by_sisimai(tmp_path / "report.eml", made(ORIGINAL, *others))
    assert sorted(one["recipient"] for one in found) == [one.address for one in others]
    assert {one["deliverystatus"] for one in found} == {"5.1.1"}


@pytest.mark.parametrize(
    ("recipient", "action"),
    [(REFUSED, "failed"), (LATE, "delayed"), (Reported("there@example.org", Action.DELIVERED, notify=SUCCESS), "delivered")],
    ids=["failed", "delayed", "delivered"],
)
def test_the_forms_of_rfc_6533_are_read_field_by_field(recipient: Reported, action: str) -> None:
    """Sisimai 4.25 knows none of them, and Python's package takes message/global-delivery-status for a message: so each block of fields
    is given to its parser for header blocks, which is as little ours."""
    original = evolve(ORIGINAL, options=Options(ret="HDRS", envid="order 42", smtputf8=True), head=HEAD.replace(b"Your", "Für".encode()))
    recipient = evolve(recipient, address="jürgen@münchen.example", orcpt=r"utf-8;caf\x{E9}@example.org")
    message, parts = parsed(made(original, recipient), default)
    assert message["Auto-Submitted"] == "auto-replied"
    assert [part.get_content_type() for part in parts] == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    blocks = [
        email.message_from_bytes(block + b"\r\n\r\n", policy=default) for block in octets_of(parts[1]).strip(b"\r\n").split(b"\r\n\r\n")
    ]
    whole, fields = blocks
    assert [block.defects for block in blocks] == [[], []]
    assert whole["Reporting-MTA"] == "dns; mta.example.com"
    assert whole["Original-Envelope-Id"] == "order 42"
    assert whole["Arrival-Date"] == ARRIVED
    assert fields["Original-Recipient"] == "utf-8;café@example.org"
    assert fields["Final-Recipient"] == "utf-8;jürgen@münchen.example"
    assert fields["Action"] == action
    assert fields["Status"] == {"failed": "5.1.1", "delayed": "4.2.2", "delivered": "2.0.0"}[action]
    if recipient.reply is not None:
        assert fields["Remote-MTA"] == "dns; mx.example.org"
        first = str(recipient.reply).partition(" / ")[0]
        assert fields["Diagnostic-Code"].startswith(f"smtp; {first}")
    assert ("Will-Retry-Until" in fields) == (action == "delayed")


def test_notify_orcpt_envid_and_ret_are_honoured_in_what_others_read(tmp_path: Path) -> None:
    """RFC 3461 sections 4.1 to 4.4, in the report as Python's package has it."""
    for ret, kind in (("FULL", "message/rfc822"), ("HDRS", "text/rfc822-headers"), (None, "text/rfc822-headers")):
        original = evolve(ORIGINAL, options=Options(ret=ret, envid="order+42"))
        _, parts = parsed(made(original, REFUSED), default)
        whole, fields = parts[1].get_payload()
        assert parts[2].get_content_type() == kind
        assert whole["Original-Envelope-Id"] == "order+42"
        assert fields["Original-Recipient"] == "rfc822;sales@example.org"
        assert fields["Final-Recipient"] == "rfc822;jane@example.org"
