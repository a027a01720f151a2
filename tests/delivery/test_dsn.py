"""Reports to the sender, read back by parsers that are not ours: Python's email package, and Sisimai, which others use to read bounces."""

from __future__ import annotations

import email
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from email.message import Message as Parsed
from email.policy import Policy, compat32, default
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from lettermta.delivery.dsn import MOST_RECIPIENTS, MOST_RETURNED, Action, Original, Reported, groups, report, wanted
from lettermta.delivery.dsn_text import explanation
from lettermta.message import Notify, Options, Reply
from tests.tools import need, need_perl

DOCS = Path(__file__).parent.parent.parent / "docs" / "bounces.md"

HEAD = (
    b"From: Shop <shop@example.com>\r\nTo: Sales <sales@example.org>\r\nSubject: Your order\r\n"
    b"Message-ID: <1234@example.com>\r\nDate: Mon, 21 Sep 2026 14:13:19 +0000\r\n"
)
BODY = b"Thank you for your order.\r\n"
ORIGINAL = Original(
    id="0199-42",
    sender="shop@example.com",
    options=Options(ret="FULL", envid="order 42"),
    head=HEAD,
    body=BODY,
    size=len(HEAD) + 2 + len(BODY),
    arrived=1_790_000_000.0,
    subject="Your order",
)
REFUSED = Reported(
    "jane@example.org",
    Action.FAILED,
    orcpt="rfc822;sales@example.org",
    reply=Reply(550, "5.1.1", "No such user here\nAsk postmaster@example.org"),
    remote_mta="mx.example.org",
    last_attempt=1_790_000_100.0,
)
ARRIVED = "Mon, 21 Sep 2026 14:13:20 +0000"

POLICIES = pytest.mark.parametrize("policy", [default, compat32], ids=["default", "compat32"])


def made(original: Original, *recipients: Reported) -> bytes:
    head, body = report(original, recipients, "mta.example.com", "report-1@mta.example.com", 1_790_000_200.0)
    assert head.endswith(b"\r\n")
    assert b"\r\n\r\n" not in head
    whole = head + b"\r\n" + body
    assert_fit_for_smtp(whole)
    return whole


def assert_fit_for_smtp(octets: bytes) -> None:
    assert octets.endswith(b"\r\n")
    for line in octets.split(b"\r\n"):
        assert len(line) <= 998
        assert not set(line) & set(b"\0\r\n")


def parsed(octets: bytes, policy: Policy = compat32) -> tuple[Parsed, list[Parsed]]:
    message = email.message_from_bytes(octets, policy=policy)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert not message.defects
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    return message, parts


def status_blocks(part: Parsed) -> list[Mapping[str, str]]:
    """The blocks of fields of the second part: the message's, then one for each recipient."""
    if part.get_content_type() == "message/delivery-status":
        return [dict(block.items()) for block in part.get_payload()]
    # Python reads the types of RFC 6533 as a message whose body is the rest: this is by hand.
    blocks = octets_of(part).decode().replace("\r\n ", " ").strip("\r\n").split("\r\n\r\n")
    return [dict(line.split(": ", 1) for line in block.split("\r\n")) for block in blocks]


def octets_of(part: Parsed) -> bytes:
    """The content of a part, without its header block, as it travels."""
    return part.as_bytes(policy=part.policy.clone(linesep="\r\n", max_line_length=0)).partition(b"\r\n\r\n")[2]


def returned(octets: bytes) -> tuple[str, bytes]:
    """The third part's type and octets, cut out by the boundary."""
    boundary = re.search(rb'boundary="([^"]+)"', octets)[1]
    part = octets.split(b"\r\n--" + boundary)[3]
    head, _, content = part.lstrip(b"\r\n").partition(b"\r\n\r\n")
    return re.match(rb"Content-Type: (\S+)", head)[1].decode(), content


def said(octets: bytes) -> str:
    """What people read, with its lines joined."""
    text = parsed(octets)[1][0].get_payload(decode=True).decode()
    return " ".join(text.split())


# -- who is told


@pytest.mark.parametrize(
    ("notify", "kinds"),
    [
        (None, {Notify.FAILURE, Notify.DELAY}),
        ({Notify.NEVER}, set()),
        ({Notify.FAILURE}, {Notify.FAILURE}),
        ({Notify.SUCCESS}, {Notify.SUCCESS}),
        ({Notify.DELAY, Notify.SUCCESS}, {Notify.DELAY, Notify.SUCCESS}),
    ],
)
def test_notify_decides_which_reports_are_wanted(notify: set[Notify] | None, kinds: set[Notify]) -> None:
    asked = None if notify is None else frozenset(notify)
    assert {kind for kind in Notify if wanted(kind, asked)} == kinds


def test_a_null_sender_is_never_told() -> None:
    """HARD-CASES row 25, RFC 3461 section 5.2, RFC 5321 section 6.1."""
    bounce = evolve(ORIGINAL, sender="")
    assert list(groups(bounce, [REFUSED])) == []
    with pytest.raises(ValueError, match="null sender"):
        report(bounce, [REFUSED], "mta.example.com", "1@mta.example.com", 0.0)


def test_one_report_is_of_one_kind_and_only_on_those_who_want_it() -> None:
    late = Reported("late@example.org", Action.DELAYED)
    silent = evolve(REFUSED, address="silent@example.org", notify=frozenset({Notify.NEVER}))
    there = Reported("there@example.org", Action.DELIVERED, notify=frozenset({Notify.SUCCESS}))
    passed = Reported("passed@example.org", Action.RELAYED, notify=frozenset({Notify.SUCCESS}))
    unasked = Reported("unasked@example.org", Action.DELIVERED)
    told = list(groups(ORIGINAL, [there, late, silent, REFUSED, unasked, passed]))
    assert told == [[REFUSED], [late], [there, passed]]


def test_many_recipients_take_several_reports() -> None:
    recipients = [evolve(REFUSED, address=f"{number}@example.org") for number in range(2 * MOST_RECIPIENTS + 1)]
    told = list(groups(ORIGINAL, recipients))
    assert [len(group) for group in told] == [MOST_RECIPIENTS, MOST_RECIPIENTS, 1]
    assert [recipient for group in told for recipient in group] == recipients


@pytest.mark.parametrize(
    "recipients",
    [
        [],
        [REFUSED] * (MOST_RECIPIENTS + 1),
        [REFUSED, Reported("late@example.org", Action.DELAYED)],
        [evolve(REFUSED, notify=frozenset({Notify.SUCCESS}))],
    ],
    ids=["none", "too many", "two kinds", "unwanted"],
)
def test_what_is_no_group_is_refused(recipients: Sequence[Reported]) -> None:
    with pytest.raises(ValueError):
        report(ORIGINAL, recipients, "mta.example.com", "1@mta.example.com", 0.0)


# -- the fields


@POLICIES
def test_a_failure_is_found_field_by_field(policy: Policy) -> None:
    message, parts = parsed(made(ORIGINAL, REFUSED), policy)
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mta.example.com>"
    assert message["To"] == "shop@example.com"
    assert message["Subject"] == "Your message could not be delivered"
    assert message["Date"] == "Mon, 21 Sep 2026 14:16:40 +0000"
    assert message["Message-ID"] == "<report-1@mta.example.com>"
    assert message["In-Reply-To"] == message["References"] == "<1234@example.com>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert [part.get_content_type() for part in parts] == ["text/plain", "message/delivery-status", "message/rfc822"]
    assert status_blocks(parts[1]) == [
        {
            "Reporting-MTA": "dns; mta.example.com",
            "Original-Envelope-Id": "order 42",
            "Arrival-Date": ARRIVED,
            "X-Lettermta-Message-ID": "0199-42",
        },
        {
            "Original-Recipient": "rfc822;sales@example.org",
            "Final-Recipient": "rfc822;jane@example.org",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.org",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user here Ask postmaster@example.org",
            "Last-Attempt-Date": "Mon, 21 Sep 2026 14:15:00 +0000",
        },
    ]
    (original,) = parts[2].get_payload()
    assert original["Message-ID"] == "<1234@example.com>"
    assert original.get_payload().splitlines() == BODY.decode().splitlines()


@POLICIES
def test_a_delay_tells_until_when_it_is_tried(policy: Policy) -> None:
    late = Reported(
        "jane@example.org",
        Action.DELAYED,
        "4.4.1",
        reason="no answer from mx.example.org",
        last_attempt=1_790_000_100.0,
        retry_until=1_790_432_000.0,
    )
    message, parts = parsed(made(ORIGINAL, late), policy)
    assert message["Subject"] == "Your message is delayed"
    assert status_blocks(parts[1])[1] == {
        "Final-Recipient": "rfc822;jane@example.org",
        "Action": "delayed",
        "Status": "4.4.1",
        "Diagnostic-Code": "X-Lettermta; no answer from mx.example.org",
        "Last-Attempt-Date": "Mon, 21 Sep 2026 14:15:00 +0000",
        "Will-Retry-Until": "Sat, 26 Sep 2026 14:13:20 +0000",
    }
    text = said(made(ORIGINAL, late))
    assert "tried until Sat, 26 Sep 2026 14:13:20 +0000" in text
    assert "nothing you need to do" in text


@POLICIES
def test_success_tells_delivered_from_relayed(policy: Policy) -> None:
    asked = frozenset({Notify.SUCCESS})
    took = Reply(250, None, "Ok")
    there = Reported("jane@example.org", Action.DELIVERED, notify=asked, reply=took, retry_until=1_790_432_000.0)
    passed = Reported("joe@example.net", Action.RELAYED, notify=asked, reply=took, remote_mta="mx.example.net")
    whole = made(ORIGINAL, there, passed)
    _, parts = parsed(whole, policy)
    _, *blocks = status_blocks(parts[1])
    assert [(block["Final-Recipient"], block["Action"], block["Status"]) for block in blocks] == [
        ("rfc822;jane@example.org", "delivered", "2.0.0"),
        ("rfc822;joe@example.net", "relayed", "2.0.0"),
    ]
    assert "Will-Retry-Until" not in blocks[0]
    assert "jane@example.org The message was delivered." in said(whole)
    assert "joe@example.net The message was passed on" in said(whole)


@pytest.mark.parametrize("action", [Action.DELAYED, Action.DELIVERED])
def test_only_a_failure_returns_the_whole_message(action: Action) -> None:
    """RFC 3461 section 4.3."""
    kind, content = returned(made(ORIGINAL, Reported("jane@example.org", action, notify=frozenset({action.kind}))))
    assert (kind, content) == ("text/rfc822-headers", HEAD)


@pytest.mark.parametrize(
    ("status", "reply", "found"),
    [
        ("5.2.2", Reply(552, "5.1.1", "x"), "5.2.2"),
        (None, Reply(552, "5.2.2", "x"), "5.2.2"),
        ("5.2.2\r\nX: y", Reply(552, "5.2.3", "x"), "5.2.3"),
        (None, Reply(552, None, "x"), "5.0.0"),
        ("nonsense", None, "5.0.0"),
        ("4.4.7", None, "4.4.7"),
    ],
)
def test_the_status_is_always_one(status: str | None, reply: Reply | None, found: str) -> None:
    _, parts = parsed(made(ORIGINAL, evolve(REFUSED, status=status, reply=reply)))
    assert status_blocks(parts[1])[1]["Status"] == found


def test_without_envid_and_orcpt_there_are_no_such_fields() -> None:
    """RFC 3461 section 6.3 (a) and (d)."""
    _, parts = parsed(made(evolve(ORIGINAL, options=Options()), evolve(REFUSED, orcpt=None)))
    message, recipient = status_blocks(parts[1])
    assert "Original-Envelope-Id" not in message
    assert "Original-Recipient" not in recipient


# -- what comes back of the original


def test_the_whole_message_comes_back_when_asked_for() -> None:
    assert returned(made(ORIGINAL, REFUSED)) == ("message/rfc822", HEAD + b"\r\n" + BODY)


LARGE = b"x" * 70 + b"\r\n"


@pytest.mark.parametrize(
    "original",
    [
        evolve(ORIGINAL, options=Options(ret="HDRS")),
        evolve(ORIGINAL, options=Options()),
        evolve(ORIGINAL, body=None),
        evolve(ORIGINAL, size=MOST_RETURNED + 1),
        evolve(ORIGINAL, body=LARGE * 1000),
        evolve(ORIGINAL, body=b"\0"),
        evolve(ORIGINAL, body=b"bare\ncr and\rlf"),
        evolve(ORIGINAL, body=b"y" * 999),
        evolve(ORIGINAL, options=Options(ret="FULL", require_tls=True)),
    ],
    ids=["hdrs", "nothing asked", "no body at hand", "large", "larger than told", "nul", "bare", "long line", "requiretls"],
)
def test_else_its_header_block_does(original: Original) -> None:
    assert returned(made(original, REFUSED)) == ("text/rfc822-headers", HEAD)


def test_eight_bits_come_back_as_they_are() -> None:
    body = "Größe: größer\r\n".encode() + b"\xff\xfe\r\n"
    whole = made(evolve(ORIGINAL, body=body), REFUSED)
    assert returned(whole) == ("message/rfc822", HEAD + b"\r\n" + body)
    message, parts = parsed(whole)
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert parts[2]["Content-Transfer-Encoding"] == "8bit"


def test_a_subject_in_another_script_keeps_a_report_in_seven_bits() -> None:
    whole = made(evolve(ORIGINAL, subject="Ihre Bestellung für 日本　語"), REFUSED)
    assert whole.isascii()
    assert "Ihre Bestellung für 日本　語" in parsed(whole)[1][0].get_payload(decode=True).decode()


def test_a_multipart_that_is_never_closed_stays_in_its_part() -> None:
    head = HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="inner"\r\n'
    _, parts = parsed(made(evolve(ORIGINAL, head=head, body=b"--inner\r\n\r\nthe first\r\n--inner\r\n"), REFUSED))
    assert parts[2].get_payload()[0]["Subject"] == "Your order"


def test_a_report_in_a_report_does_not_end_it() -> None:
    """The boundary of one is in the other, and only there."""
    inner = made(ORIGINAL, REFUSED)
    head, _, body = inner.partition(b"\r\n\r\n")
    whole = made(evolve(ORIGINAL, head=head + b"\r\n", body=body), REFUSED)
    assert returned(whole) == ("message/rfc822", inner)
    parsed(whole)


def test_a_header_block_is_returned_within_bounds() -> None:
    """A field that is too much is left out as a whole, and no octet of it can end a line, the block or the part."""
    noise = b"X-Noise: " + b"n" * 500 + b"\r\n" + (b" " + b"n" * 900 + b"\r\n") * 40
    head = noise + b"X-Long: " + b"l" * 2000 + b"\r\n\r\nX-Odd: a\0b\rc\nd\r\n" + HEAD
    _, content = returned(made(evolve(ORIGINAL, head=head), REFUSED))
    assert content == b"X-Long: " + b"l" * 990 + b"\r\nX-Odd: a?b?c?d\r\n" + HEAD


# -- UTF-8


@POLICIES
def test_mail_in_utf8_is_reported_in_utf8(policy: Policy) -> None:
    """RFC 6533 section 4: types, addresses of type utf-8, and ORCPT without its encoding."""
    head = "From: Jürgen <jürgen@example.com>\r\nSubject: Größe\r\n".encode()
    original = evolve(ORIGINAL, sender="jürgen@example.com", options=Options(ret="FULL", smtputf8=True), head=head)
    jane = evolve(
        REFUSED,
        address="用户@例え.jp",
        orcpt=r"utf-8;caf\x{E9}@example.org",
        reply=Reply(550, "5.1.1", "Kein Empfänger"),
    )
    whole = made(original, jane)
    _, parts = parsed(whole, policy)
    assert "\r\nTo: jürgen@example.com\r\n".encode() in whole
    types = ["text/plain", "message/global-delivery-status", "message/global"]
    assert [part.get_content_type() for part in parts] == types
    assert [part["Content-Transfer-Encoding"] for part in parts[1:]] == ["8bit", "8bit"]
    content = whole.decode()
    assert "\r\nOriginal-Recipient: utf-8;café@example.org\r\nFinal-Recipient: utf-8;用户@例え.jp\r\nAction: failed\r\n" in content
    assert "\r\nDiagnostic-Code: smtp; 550 5.1.1 Kein Empfänger\r\n" in content
    assert returned(whole) == ("message/global", head + b"\r\n" + BODY)
    assert "用户@例え.jp (you wrote to café@example.org)" in said(whole)


def test_headers_alone_of_mail_in_utf8() -> None:
    original = evolve(ORIGINAL, options=Options(smtputf8=True), head="Subject: Größe\r\n".encode())
    assert returned(made(original, REFUSED)) == ("message/global-headers", "Subject: Größe\r\n".encode())


def test_a_header_block_that_is_no_utf8_is_not_called_so() -> None:
    original = evolve(ORIGINAL, options=Options(smtputf8=True), head=b"Subject: Gr\xf6\xdfe\r\n")
    assert returned(made(original, REFUSED)) == ("text/rfc822-headers", b"Subject: Gr\xf6\xdfe\r\n")


def test_in_ascii_an_orcpt_of_type_utf8_keeps_its_encoding() -> None:
    """RFC 6533 section 3: the plain form must not stand in message/delivery-status."""
    _, parts = parsed(made(ORIGINAL, evolve(REFUSED, orcpt=r"utf-8;caf\x{E9}\x{2B}@example.org")))
    assert parts[1].get_content_type() == "message/delivery-status"
    assert status_blocks(parts[1])[1]["Original-Recipient"] == r"utf-8;caf\x{E9}\x{2B}@example.org"


def test_in_ascii_a_reply_in_another_script_is_spelt_out() -> None:
    whole = made(ORIGINAL, evolve(REFUSED, reply=Reply(550, None, "Kein Empfänger")))
    assert status_blocks(parsed(whole)[1][1])[1]["Diagnostic-Code"] == r"smtp; 550 Kein Empf\x{E4}nger"
    assert whole.isascii()
    assert "Kein Empfänger" in said(whole)


# -- hostile values

INJECTION = "x\r\nAction: delivered\r\n\r\nFinal-Recipient: rfc822;evil@example.net\n\n--b\n\u2028\u202e\0\x1b[31m"


@pytest.mark.parametrize(
    ("original", "recipient"),
    [
        (evolve(ORIGINAL, id=INJECTION), REFUSED),
        (evolve(ORIGINAL, sender=INJECTION), REFUSED),
        (evolve(ORIGINAL, subject=INJECTION), REFUSED),
        (evolve(ORIGINAL, options=Options(envid=INJECTION)), REFUSED),
        (evolve(ORIGINAL, head=HEAD + INJECTION.encode()), REFUSED),
        (ORIGINAL, evolve(REFUSED, address=INJECTION)),
        (ORIGINAL, evolve(REFUSED, orcpt=INJECTION)),
        (ORIGINAL, evolve(REFUSED, status=INJECTION)),
        (ORIGINAL, evolve(REFUSED, remote_mta=INJECTION)),
        (ORIGINAL, evolve(REFUSED, reply=Reply(550, INJECTION, INJECTION))),
        (ORIGINAL, evolve(REFUSED, reply=None, reason=INJECTION)),
        (evolve(ORIGINAL, options=Options(smtputf8=True)), evolve(REFUSED, orcpt=r"utf-8;a\x{0D}\x{0A}Action: delivered\x{0D}\x{0A}@b")),
    ],
)
def test_no_value_can_add_a_field_or_a_part(original: Original, recipient: Reported) -> None:
    whole = made(original, recipient)
    message, parts = parsed(whole)
    assert "Action" not in message
    message_fields, recipient_fields = status_blocks(parts[1])
    assert message_fields["Reporting-MTA"] == "dns; mta.example.com"
    assert recipient_fields["Action"] == "failed"
    for part in parts[:2]:
        assert not re.search("[\0\x1b\u2028\u202e]", octets_of(part).decode())


ADDRESSES = st.text(min_size=1, max_size=1200)
TEXTS = st.text(max_size=2000)
OCTETS = st.binary(max_size=2000) | st.lists(
    st.sampled_from([b"A: b", b"\r\n", b"\0", b" ", b"--", b"Content-Type: multipart/mixed; boundary=x", b"\xff", b"y" * 1200]), max_size=30
).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(
    original=st.builds(
        Original,
        id=TEXTS,
        sender=ADDRESSES,
        options=st.builds(Options, ret=st.sampled_from([None, "FULL", "HDRS"]), envid=st.none() | TEXTS, smtputf8=st.booleans()),
        head=OCTETS,
        body=st.none() | OCTETS,
        size=st.just(1),
        arrived=st.just(1_790_000_000.0),
        subject=TEXTS,
    ),
    recipients=st.lists(
        st.builds(
            Reported,
            address=ADDRESSES,
            action=st.just(Action.FAILED),
            status=st.none() | TEXTS,
            orcpt=st.none() | TEXTS,
            reply=st.none() | st.builds(Reply, st.integers(0, 999), st.none() | TEXTS, TEXTS),
            remote_mta=st.none() | TEXTS,
            reason=TEXTS,
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_nothing_breaks_the_structure(original: Original, recipients: Sequence[Reported]) -> None:
    whole = made(original, *recipients)
    for policy in (default, compat32):
        message, parts = parsed(whole, policy)
        assert [name for name in message.keys() if name in ("Subject", "To", "Content-Type")] == ["To", "Subject", "Content-Type"]  # noqa: SIM118
        assert parts[0].get_content_type() == "text/plain"
        assert parts[1].get_content_subtype() in ("delivery-status", "global-delivery-status")
        message_fields, *blocks = status_blocks(parts[1])
        assert set(message_fields) <= {"Reporting-MTA", "Original-Envelope-Id", "Arrival-Date", "X-Lettermta-Message-ID"}
        assert [block["Action"] for block in blocks] == ["failed"] * len(recipients)
    kind, content = returned(whole)
    if kind in ("message/rfc822", "message/global"):
        assert content == original.head + b"\r\n" + (original.body or b"")


def test_a_report_is_bounded_whatever_goes_in() -> None:
    much = "ü" * 100_000
    worst = Reported(much, Action.FAILED, None, None, much, Reply(550, None, much), much, much, 0.0, 0.0)
    original = Original(much, much, Options(ret="FULL", envid=much), b"X: y\r\n" * 50_000, LARGE * 900, 60_000, 0.0, much)
    assert len(made(original, *[worst] * MOST_RECIPIENTS)) < 1_000_000


def test_the_same_is_reported_alike() -> None:
    assert made(ORIGINAL, REFUSED) == made(ORIGINAL, REFUSED)


# -- what people read


def test_people_read_who_why_and_what_to_do() -> None:
    text = said(made(ORIGINAL, REFUSED))
    for words in (
        "This is the mail system at mta.example.com.",
        "could not be delivered to this recipient. It will not be tried again.",
        "Subject: Your order",
        "jane@example.org (you wrote to sales@example.org)",
        "There is no such mailbox.",
        "What you can do: Check the address",
        "What mx.example.org said: 550 5.1.1 No such user here Ask postmaster@example.org",
    ):
        assert words in text


def test_our_own_reason_is_told_as_ours() -> None:
    text = said(made(ORIGINAL, evolve(REFUSED, status="4.4.7", reply=None, reason="5 days are over")))
    assert "It could not be delivered in the time there was for it." in text
    assert "What happened: 5 days are over" in text


@pytest.mark.parametrize(
    ("status", "word"),
    [("5.1.1", "mailbox"), ("4.2.2", "full"), ("5.3.4", "larger"), ("5.1.10", "takes no mail"), ("5.7.26", "rules"), ("5.4.1", "reached")],
)
def test_a_status_is_put_in_words(status: str, word: str) -> None:
    assert word in explanation(status)[0]


def test_an_unknown_status_is_put_in_words_too() -> None:
    assert all(explanation("5.0.0"))
    assert all(explanation("5.9.9"))


# -- other judges


@pytest.mark.parametrize(
    ("recipient", "status", "reason"),
    [
        (REFUSED, "5.1.1", "userunknown"),
        (evolve(REFUSED, reply=Reply(552, "5.2.2", "Mailbox full")), "5.2.2", "mailboxfull"),
        (evolve(REFUSED, reply=Reply(552, "5.3.4", "Message too big for system")), "5.3.4", "mesgtoobig"),
        (evolve(REFUSED, status="5.1.2", reply=None, reason="Domain not found", remote_mta=None), "5.1.2", "hostunknown"),
        (evolve(REFUSED, status="4.4.7", reply=None, reason="Delivery time expired", remote_mta=None), "4.4.7", "expired"),
    ],
    ids=["user", "full", "size", "host", "expired"],
)
def test_sisimai_reads_our_failures(tmp_path: Path, recipient: Reported, status: str, reason: str) -> None:
    need_perl("Sisimai", "libsisimai-perl")
    path = tmp_path / "report.eml"
    path.write_bytes(made(ORIGINAL, recipient))
    program = "use Sisimai; print Sisimai->dump($ARGV[0]);"
    output = subprocess.run([need("perl", "perl"), "-e", program, str(path)], capture_output=True, check=True, timeout=60).stdout
    (found,) = json.loads(output)
    assert found["recipient"] == "jane@example.org"
    assert found["alias"] == "sales@example.org"
    assert found["addresser"] == "shop@example.com"
    assert found["deliverystatus"] == status
    assert found["action"] == "failed"
    assert found["reason"] == reason
    assert found["messageid"] == "1234@example.com"
    assert found["subject"] == "Your order"


def test_the_page_shows_what_is_sent() -> None:
    shown = DOCS.read_text().partition("```eml\n")[2].partition("```")[0]
    assert shown == made(ORIGINAL, REFUSED).decode().replace("\r\n", "\n")
