"""What a message becomes: the field that is put in front, the facts of its events, and content of every shape."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from attrs import evolve

from lettermta.accounts.model import ReceivedField
from lettermta.message import Envelope, Peer
from lettermta.submission.trace import received
from tests.submission.conftest import HEAD, Site, leaving

TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"


def trace(**peer: object) -> bytes:
    known = {"address": "192.0.2.9", "port": 1, "listener": "x", "helo": "client.test", "esmtp": True, **peer}
    return received(Envelope(Peer(**known), "a@out.test"), "0196", "mta.test", 1_700_000_000.5, ReceivedField.FULL)  # type: ignore[arg-type]


def test_the_received_field() -> None:
    """RFC 5321 section 4.4."""
    assert trace(tls=TLS, login="PLAIN") == (
        b"Received: from client.test ([192.0.2.9])\r\n"
        b"\tby mta.test with ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tid 0196; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("peer", "keyword"),
    [
        ({}, "ESMTP"),
        ({"tls": TLS}, "ESMTPS"),
        ({"login": "CRAM-MD5"}, "ESMTPA"),
        ({"tls": TLS, "login": "PLAIN"}, "ESMTPSA"),
        ({"esmtp": False}, "SMTP"),
        ({"esmtp": False, "tls": TLS, "login": "PLAIN"}, "SMTP"),
    ],
)
def test_how_it_was_received_is_said_in_the_registered_words(peer: dict[str, object], keyword: str) -> None:
    """RFC 3848: there is no word for a login or TLS behind HELO."""
    assert b" with " + keyword.encode() + (b" (" if "tls" in peer else b"\r\n") in trace(**peer)


def test_an_ipv6_client_is_quoted_as_a_literal() -> None:
    """RFC 5321 section 4.1.3."""
    assert b"from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n" in trace(address="2001:db8::1", helo="[IPv6:2001:db8::1]")


@pytest.mark.parametrize(
    "helo",
    [b"a (comment", b"a; Mon, 1 Jan", b"a\tby evil", b"a\x00", b"<a>", "ü".encode(), b"a\nX-Evil: 1", b'"a"', b"a\\"],
)
def test_nothing_that_a_client_calls_itself_gets_into_the_field(site: Site, helo: bytes) -> None:
    """HARD-CASES row 13."""
    client = site.logged_in()
    replies = client.says(b"EHLO " + helo)
    assert replies[0].startswith("50")
    site.submit(HEAD + "\n", client=client)
    assert site.stored[-1].content.startswith(b"Received: from client.test ([192.0.2.9])\r\n\tby mta.test with ESMTPSA (")


def test_the_field_says_who_took_it_when_and_under_which_id(site: Site) -> None:
    reply = site.submit(HEAD + "\n")
    stored = site.stored[-1]
    match = re.search(rb"\r\n\tid (\S+); (.+)\r\nFrom", stored.content)
    assert match is not None
    assert match[1].decode() == stored.message.id == reply.rpartition(" ")[2] == site.data["message_id"]
    assert abs(parsedate_to_datetime(match[2].decode()).timestamp() - stored.message.created) < 2


def test_a_message_that_was_received_too_often_is_refused(site: Site) -> None:
    """RFC 5321 section 6.3, COMPATIBILITY.md section 2."""
    field = "received: from a by b\n\tid c\n"
    assert site.submit(field * 101 + HEAD + "\n").startswith("554 5.4.6 ")
    assert site.stored == []
    assert site.submit(field * 100 + HEAD + "\n").startswith("250 ")


# -- shapes of content


def test_a_header_without_a_body(site: Site) -> None:
    stored = site.accepted(HEAD)
    assert leaving(stored) == b"From: a@out.test\r\nSubject: x\r\n\r\n"
    assert stored.message.size == len(stored.content)


def test_a_header_and_an_empty_body(site: Site) -> None:
    assert leaving(site.accepted(HEAD + "\n")) == b"From: a@out.test\r\nSubject: x\r\n\r\n"


def test_a_header_of_an_author_alone(site: Site) -> None:
    stored = site.accepted("From: a@out.test\n\nhello\n\nthere\n")
    assert leaving(stored) == b"From: a@out.test\r\n\r\nhello\r\n\r\nthere\r\n"
    assert stored.message.size == len(stored.content)
    assert site.data["subject"] is None


@pytest.mark.parametrize("content", ["", "\n", "\nhello\n\nthere\n"])
def test_nothing_but_a_body_is_no_message(site: Site, content: str) -> None:
    """RFC 5322 section 3.6: a message has an author, and nobody can make one up for it."""
    assert site.submit(content) == "550 5.6.0 A message has one From field"
    assert site.stored == []


def test_text_without_a_header_is_refused(site: Site) -> None:
    assert site.submit("hello\nthere\n") == "550 5.6.0 Header line 1 is not of the form Name: value (RFC 5322 section 2.2)"
    assert site.submit("Subject: x\nhello\n\nthere\n").startswith("550 5.6.0 Header line 2 ")
    assert site.stored == []


def test_content_leaves_octet_by_octet(site: Site) -> None:
    head = b"From: J\xc3\xbcrgen <a@out.test>\r\nSubject:no blank\r\nX-Odd\t: \xff\xfe \t\r\nX-Empty:\r\nX-Fold: a\r\n  b\r\n\t\r\n"
    body = bytes([octet for octet in range(256) if octet not in b"\r\n."]) + b"\r\n" + b"x" * 5000 + b"\r\n"
    stored = site.accepted(head + b"\r\n" + body)
    assert leaving(stored) == head + b"\r\n" + body
    assert stored.message.size == len(stored.content)


# -- the event


def test_the_created_event(site: Site) -> None:
    """COMPATIBILITY.md section 3."""
    stored = site.accepted(
        'From: =?utf-8?q?Doe=2C_J=C3=BCrgen?= <jane@out.test>\nTo: Ann <ann@in.test>,\n bob@in.test\nCc: c@in.test\n'
        "Reply-To: =?utf-8?q?Team=2C_all?= <team@out.test>\nSubject: =?utf-8?q?m=C3=BCsli?=\nX-Mailer: swaks\nX-Tag: orders\n"
        "Bcc: told@in.test\nX-Priority: =?utf-8?q?h=C3=B6chste?=\n\nhello\n",
        "ann@in.test", "BOB@in.test", "c@in.test", "secret@in.test",
    )  # fmt: skip
    [event] = site.events
    assert event.name == "message.created"
    assert event.message_id == stored.message.id
    assert event.data == {
        "message_id": stored.message.id,
        "subject": "müsli",
        "metadata": {},
        "tag": "orders",
        "tags": [],
        "headers": [{"name": "X-Mailer", "value": "swaks"}, {"name": "X-Priority", "value": "höchste"}],
        "from": {"email": "jane@out.test", "name": "Doe, Jürgen"},
        "to": ["ann@in.test", "bob@in.test"],
        "cc": ["c@in.test"],
        "bcc": ["secret@in.test"],
        "reply_to": ["team@out.test"],
    }
    assert event.context == {
        "scope": "project",
        "team_id": None,
        "project_id": site.project.id,
        "route_id": stored.message.route_id,
        "project": "demo",
        "route": "outgoing",
    }


def test_the_events_of_a_message_that_names_no_recipients(site: Site) -> None:
    site.accepted("X-Tag: a\nFrom: a@out.test\n\n", "b@in.test")
    assert site.data["from"] == {"email": "a@out.test", "name": ""}
    assert (site.data["to"], site.data["cc"], site.data["bcc"], site.data["reply_to"]) == ([], [], ["b@in.test"], [])
    assert site.data["subject"] is None


def test_fields_with_a_place_of_their_own_are_not_among_the_headers(site: Site) -> None:
    names = [
        "From",
        "To",
        "Cc",
        "Reply-To",
        "Subject",
        "Sender",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "Received",
        "DKIM-Signature",
    ]
    site.accepted("".join([f"{name}: x@out.test\n" for name in names]) + "List-Unsubscribe: <https://x>\nx-dup: 1\nX-Dup: 2\n\n")
    assert [(one["name"], one["value"]) for one in site.data["headers"]] == [
        ("List-Unsubscribe", "<https://x>"),
        ("x-dup", "1"),
        ("X-Dup", "2"),
    ]


def test_octets_that_are_no_text_do_not_break_the_event(site: Site) -> None:
    site.accepted(b"Subject: m\xfcsli =?utf-7?Q?+2AA-?=\r\nFrom: \xff <a@b>\r\nX-\xff: \xff\r\n\r\n")
    assert site.data["subject"] == "m\ufffdsli ?"
    assert site.data["headers"] == [{"name": "X-\ufffd", "value": "\ufffd"}]


def test_each_mailbox_is_stored_once(site: Site) -> None:
    """Domains are compared without case, local parts are not (RFC 5321 section 2.4)."""
    stored = site.accepted(HEAD + "\n", "b@in.test", "c@in.test", "b@in.test", "b@IN.test", "B@in.test", "c@in.test")
    assert [one.address for one in stored.recipients.values()] == ["b@in.test", "c@in.test", "B@in.test"]
    assert site.data["bcc"] == ["b@in.test", "c@in.test", "B@in.test"]


def test_the_message_expires_after_its_lifetime(site: Site) -> None:
    message = site.accepted(HEAD + "\n").message
    assert message.expires == message.created + 432_000


def test_a_route_may_have_a_lifetime_of_its_own(site: Site) -> None:
    site.accounts.update_route("demo", "outgoing", lambda route: evolve(route, lifetime=3600.0))
    message = site.accepted(HEAD + "\nHi\n").message
    assert message.expires == message.created + 3600
