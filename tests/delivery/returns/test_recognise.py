"""What comes back, in the forms that servers write it in: what it is, and why (RFC 3464, 5965, 6533, 3834, and none at all)."""

from __future__ import annotations

import base64
import json
import quopri
import re
import subprocess
import time
from pathlib import Path

import pytest

from lettermta.delivery.classes import Classifier
from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.forms import shipped_forms
from lettermta.delivery.returns.mime import DEEPEST, MOST_PARTS, parse
from lettermta.delivery.returns.reason import reply_in
from lettermta.delivery.returns.recognise import recognise
from lettermta.message import Reply, ReplyClass
from tests.tools import need_perl

MAIL = Path(__file__).with_name("mail")
JANE = "jane@example.com"


def octets(name: str) -> bytes:
    return (MAIL / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")


def found(name: str, recipient: str = JANE, *, null_sender: bool = True) -> Finding:
    return recognise(parse(octets(name)), recipient, null_sender)


@pytest.mark.parametrize(
    ("name", "form", "code", "enhanced", "reply_class"),
    [
        ("postfix", "rfc3464", 550, "5.1.1", "invalid_recipient"),
        ("gmail", "rfc3464", 550, "5.1.1", "invalid_recipient"),
        ("exchange", "rfc3464", 550, "5.1.10", "invalid_recipient"),
        ("exim-modern", "rfc3464", 552, "5.2.2", "mailbox_full"),
        ("utf8", "rfc3464", 550, "5.1.1", "invalid_recipient"),
        ("sendmail", "rfc3464", 550, "5.7.1", "relay_denied"),
        ("postfix-expired", "rfc3464", 450, "4.1.1", "invalid_recipient"),
        ("qmail", "qmail", 550, "5.1.1", "invalid_recipient"),
        ("qmail-nobody", "qmail", 550, "5.1.1", "invalid_recipient"),
        ("yahoo", "yahoo", 554, None, "invalid_recipient"),
        ("exim-old", "exim", 550, None, "invalid_recipient"),
        ("exchange-2003", "exchange", 550, "5.1.1", "invalid_recipient"),
        ("exchange-html", "exchange", 554, "5.2.2", "mailbox_full"),
        ("sendmail-old", "sendmail", 550, None, "invalid_recipient"),
        ("domino", "domino", 550, None, "invalid_recipient"),
        ("mdaemon", "mdaemon", 550, None, "invalid_recipient"),
        ("general", "mailer-daemon", 550, "5.7.1", "spam_block"),
    ],
)
def test_a_failure(name: str, form: str, code: int, enhanced: str | None, reply_class: str) -> None:
    finding = found(name, "jürgen@example.com" if name == "utf8" else JANE)
    assert (finding.kind, finding.form) == (Kind.FAILED, form)
    assert finding.reply is not None
    assert (finding.reply.code, finding.reply.enhanced) == (code, enhanced), finding.reply
    assert Classifier().classify(finding.reply) == reply_class, finding.reply
    assert "Your order" not in finding.reply.text


@pytest.mark.parametrize(
    ("name", "form", "code", "reply_class"),
    [
        ("postfix-delay", "rfc3464", 450, "network"),
        ("exim-delay", "exim", 450, "network"),
        ("sendmail-warning", "sendmail", 450, "network"),
        ("general-delay", "delayed", 451, "rate"),
    ],
)
def test_a_delay(name: str, form: str, code: int, reply_class: str) -> None:
    finding = found(name)
    assert (finding.kind, finding.form) == (Kind.DELAYED, form)
    assert finding.reply is not None
    assert finding.reply.code == code
    assert Classifier().classify(finding.reply) == reply_class


def test_a_reply_of_several_lines_is_one_text() -> None:
    reply = found("gmail").reply
    assert reply is not None
    assert reply.text.startswith("The email account that you tried to reach does not exist. Please try double-checking the recipient's")
    assert "550" not in reply.text


def test_what_is_said_in_utf_8_is_read() -> None:
    reply = found("utf8", "jürgen@example.com").reply
    assert reply is not None
    assert reply.text == "Empf\\x{E4}nger: User unknown".replace("\\x{E4}", "ä")


def test_of_several_recipients_ours_counts() -> None:
    assert found("two-recipients").kind is Kind.ARRIVED
    assert found("two-recipients", "joe@example.com").kind is Kind.FAILED


def test_an_address_that_stands_for_several_has_not_failed_as_long_as_one_of_them_has_the_mail() -> None:
    assert found("two-recipients", "ann@example.com").kind is Kind.ARRIVED


def test_a_complaint() -> None:
    finding = found("complaint")
    assert (finding.kind, finding.detail, finding.reporter) == (Kind.COMPLAINT, "abuse", "SomeGenerator/1.0")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
@pytest.mark.parametrize(("name", "kind"), [("postfix", Kind.FAILED), ("utf8", Kind.FAILED), ("no-complaint", Kind.FEEDBACK)])
def test_a_report_may_be_encoded(encoding: str, name: str, kind: Kind) -> None:
    """RFC 6533 section 3 lets reports in UTF-8 be; some servers encode others, and write LF in what they encode."""
    whole = octets(name)
    begin = re.search(rb"\nContent-Type: message/(?:global-delivery-status|delivery-status|feedback-report)[^\n]*\r\n", whole)
    assert begin is not None
    head = whole.index(b"\r\n\r\n", begin.end() - 2)
    end = whole.index(b"\r\n--", head)
    body = whole[head + 4 : end].replace(b"\r\n", b"\n")
    encoded = base64.encodebytes(body) if encoding == "base64" else quopri.encodestring(body)
    field = b"\r\nContent-Transfer-Encoding: " + encoding.encode()
    whole = whole[: begin.end() - 2] + field + b"\r\n\r\n" + encoded.replace(b"\n", b"\r\n") + whole[end:]
    finding = recognise(parse(whole), "jürgen@example.com" if name == "utf8" else JANE)
    assert finding == found(name, "jürgen@example.com" if name == "utf8" else JANE)
    assert (finding.kind, finding.form[:3]) == (kind, "rfc")


def test_a_complaint_that_is_no_more_than_the_message_attached() -> None:
    finding = found("complaint-attached", null_sender=False)
    assert (finding.kind, finding.form, finding.reporter) == (Kind.COMPLAINT, "jmrp", "staff@hotmail.com")


def test_a_feedback_report_on_something_else_is_no_complaint() -> None:
    assert found("no-complaint").kind is Kind.FEEDBACK


@pytest.mark.parametrize("name", ["vacation", "out-of-office"])
@pytest.mark.parametrize("null_sender", [True, False])
def test_an_automatic_answer(name: str, null_sender: bool) -> None:
    assert found(name, null_sender).kind is Kind.AUTO_REPLY


def test_what_a_person_writes_is_no_report() -> None:
    assert found("person", null_sender=False).kind is Kind.UNRECOGNISED


def test_an_answer_about_something_automatic_is_no_automatic_answer() -> None:
    answer = b"From: Jane <jane@example.com>\r\nSubject: Re: Your auto: an offer\r\n\r\nThank you.\r\n"
    assert recognise(parse(answer), JANE, False).kind is Kind.UNRECOGNISED


def test_a_time_in_a_reason_is_no_reply_code() -> None:
    assert reply_in("I tried for 500 hours. User unknown", None, permanent=True) == Reply(550, None, "I tried for 500 hours. User unknown")


def test_a_standard_report_counts_whoever_sends_it() -> None:
    """Some gateways send reports from an address of their own."""
    assert found("postfix", null_sender=False).kind is Kind.FAILED


# -- whatever it is made of


@pytest.mark.parametrize("name", sorted(path.stem for path in MAIL.glob("*.eml")))
def test_every_beginning_of_a_message_is_something(name: str) -> None:
    """A long message is cut, and may be cut anywhere."""
    whole = octets(name)
    for length in range(len(whole)):
        recognise(parse(whole[:length]), JANE)


@pytest.mark.parametrize("name", sorted(path.stem for path in MAIL.glob("*.eml")))
def test_line_ends_and_odd_octets_break_nothing(name: str) -> None:
    whole = octets(name)
    for old, new in ((b"\r\n", b"\n"), (b":", b"\0"), (b"boundary", b"boundary*0"), (b"=", b"=\xff"), (b" ", b"\xa0"), (b"--", b"----")):
        recognise(parse(whole.replace(old, new)), JANE)


HOSTILE = {
    "nesting": b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3_000)),
    "parts": b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 30_000,
    "boundary of nothing": b'Content-Type: multipart/report; boundary=""\r\n\r\n' + b"--\r\n" * 60_000,
    "tags": b"Content-Type: text/html\r\n\r\n" + b"<" * 250_000,
    "hidden": b"Content-Type: text/html\r\n\r\n" + b"<style>" * 30_000,
    "fields": b"X: y\r\n" * 40_000,
    "folds": b"Subject: x\r\n" + b" =?utf-8?q?x?=\r\n" * 16_000,
    "parameters": b"Content-Type: text/plain" + b'; a="' * 50_000,
    "recipients": b"Content-Type: message/delivery-status\r\n\r\n" + b"Final-Recipient: rfc822; a@b.c\r\nAction: failed\r\n\r\n" * 5_000,
    "digits": b"From: mailer-daemon@x\r\nSubject: undeliverable\r\n\r\n" + b"550-" * 60_000,
    "escapes": b"Content-Type: message/delivery-status\r\n\r\nAction: failed\r\nDiagnostic-Code: smtp; " + b"\\x{" * 60_000,
    "blanks": b"From: mailer-daemon@x\r\nSubject: undeliverable\r\n\r\n" + b" " * 250_000,
    "entities": b"Content-Type: text/html\r\n\r\n" + b"&amp" * 60_000,
    "phrases": b"\r\n" + b"hi. this is the your message to diagnostic " * 6_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_message_takes_long(name: str) -> None:
    began = time.process_time()
    recognise(parse(HOSTILE[name]), JANE)
    assert time.process_time() - began < 1.0


def test_nesting_and_parts_are_bounded() -> None:
    assert len(parse(HOSTILE["parts"]).parts) == MOST_PARTS
    nested = parse(HOSTILE["nesting"])  # b5 is the beginning of b50, and another one all the same
    assert len(nested.parts) == 1
    assert nested.parts[0].parameters["boundary"] == f"b{DEEPEST}"


def test_every_form_has_a_name_of_its_own_and_something_to_be_known_by() -> None:
    forms = shipped_forms().forms
    assert len({form.name for form in forms}) == len(forms)
    assert all(form.signs or form.subjects or form.fields for form in forms)


# -- a second opinion

SISIMAI = {
    "postfix": "userunknown",
    "gmail": "userunknown",
    "exim-modern": "mailboxfull",
    "exim-old": "userunknown",
    "qmail": "userunknown",
}
OURS = {"userunknown": ReplyClass.INVALID_RECIPIENT, "mailboxfull": ReplyClass.MAILBOX_FULL}


@pytest.mark.parametrize("name", SISIMAI)
def test_sisimai_sees_the_same(name: str, tmp_path: Path) -> None:
    """The library that others read bounces with: Debian's libsisimai-perl."""
    need_perl("Sisimai", "libsisimai-perl")
    (tmp_path / "bounce.eml").write_bytes(octets(name).replace(b"\r\n", b"\n"))
    program = "use Sisimai; print Sisimai->dump($ARGV[0]);"
    dumped = subprocess.run(["perl", "-e", program, str(tmp_path / "bounce.eml")], capture_output=True, text=True, check=True).stdout
    [seen] = json.loads(dumped)
    assert (seen["recipient"], seen["reason"]) == (JANE, SISIMAI[name])
    reply = found(name).reply
    assert reply is not None
    assert Classifier().classify(reply) is OURS[seen["reason"]]
