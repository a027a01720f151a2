"""What a message lacks is added, what breaks it refuses it (RFC 6409 section 8, RFC 5322), and what is told of who sent it."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

import pytest
from attrs import evolve

from lettermta.accounts.model import ReceivedField
from lettermta.submission.hygiene import HeaderRules
from lettermta.testing.spool import StoredMessage
from tests.smtp.server_peer import codes
from tests.submission.conftest import HEAD, HELLO, Site, Wall

FROM = "From: a@out.test\n"


def head(stored: StoredMessage) -> str:
    return stored.message.head.decode("utf-8", "surrogateescape")


def values(stored: StoredMessage, name: str) -> list[str]:
    return re.findall(rf"(?im)^{name}: *([^\r\n]*)\r$", head(stored))


def change(site: Site, **route: object) -> None:
    site.accounts.update_route("demo", "outgoing", lambda one: evolve(one, **route))


# -- Date and Message-ID


def test_date_and_message_id_are_added_where_they_are_missing(site: Site, wall: Wall) -> None:
    site.rules["header"] = HeaderRules(message_id_domain="id.example")
    stored = site.accepted(HELLO)
    assert values(stored, "Message-ID") == [f"<{stored.message.id}@id.example>"]
    [date] = values(stored, "Date")
    assert parsedate_to_datetime(date).timestamp() == wall.moment
    assert stored.content.endswith(b"\r\n\r\nhello\r\n")
    assert stored.message.size == len(stored.content)


@pytest.mark.parametrize("name", ["Date", "DATE", "date ", "Message-ID", "message-id"])
def test_what_is_there_is_kept_as_it_is(site: Site, name: str) -> None:
    stored = site.accepted(FROM + f"{name}: as the client\n wrote it\n\n")
    assert f"{name}: as the client\r\n wrote it\r\n" in head(stored)
    assert len(re.findall(r"(?im)^date\s*:", head(stored))) == len(re.findall(r"(?im)^message-id\s*:", head(stored))) == 1


def test_a_route_may_mint_the_message_id(site: Site) -> None:
    """COMPATIBILITY.md section 1, message id."""
    change(site, mint_message_id=True)
    stored = site.accepted(FROM + "Message-ID: <theirs@out.test>\n\n")
    assert values(stored, "Message-ID") == [f"<{stored.message.id}@localhost>"]
    kept = site.accepted("X-LM-Preserve-Message-ID: True\n" + FROM + "Message-ID: <theirs@out.test>\n\n")
    assert values(kept, "Message-ID") == ["<theirs@out.test>"]
    assert "X-LM" not in head(kept)
    for other in ("false", "yes", ""):
        stored = site.accepted(f"X-LM-Preserve-Message-ID: {other}\n" + FROM + "Message-ID: <theirs@out.test>\n\n")
        assert values(stored, "Message-ID") == [f"<{stored.message.id}@localhost>"]


def test_a_message_id_to_be_preserved_that_is_not_there_is_minted(site: Site) -> None:
    stored = site.accepted("X-LM-Preserve-Message-ID: true\n" + FROM + "\n")
    assert values(stored, "Message-ID") == [f"<{stored.message.id}@localhost>"]


# -- From


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("Subject: x\n", "A message has one From field"),
        ("Sender: a@out.test\nReply-To: a@out.test\n", "A message has one From field"),
        (FROM + "from: b@out.test\n", "A message has one From field, this one has several"),
        ("From:\n", "From has no address"),
        ("From: nobody\n", "From has no address"),
        ("From: undisclosed:;\n", "From has no address"),
        ('From: "a@out.test"\n', "From has no address"),
        ("From: =?utf-8?Q?a=40out.test?=\n", "From has no address"),
    ],
)
def test_a_message_has_one_author_field(site: Site, lines: str, rule: str) -> None:
    assert site.submit(lines + "\nhello\n") == f"550 5.6.0 {rule}"
    assert (site.stored, site.events) == ([], [])


@pytest.mark.parametrize("value", ["a@out.test", "Ann <a@out.test>", "a@out.test, Bob <b@out.test>", "\n\t<a@out.test>", "Ü <ü@out.test>"])
def test_authors_that_are_taken(site: Site, value: str) -> None:
    assert site.submit(f"fROM : {value}\n\n").startswith("250 ")


# -- lines and fields


def test_lines_of_998_octets_are_the_longest(site: Site) -> None:
    """RFC 5322 section 2.1.1: without the CRLF, each line of a folded field by itself."""
    assert site.submit(HEAD + "X: " + "x" * 995 + "\n" + " " + "x" * 997 + "\n\n" + "y" * 2000 + "\n").startswith("250 ")
    for line in ("X: " + "x" * 996, "X: x\n " + "x" * 998, "X: " + "ü" * 498):
        assert site.submit(HEAD + line + "\n\n") == "550 5.6.0 A header line of more than 998 octets (RFC 5322 section 2.1.1)"


def test_a_line_that_does_not_leave_may_be_longer(site: Site) -> None:
    """COMPATIBILITY.md section 2: Symfony writes a long value without blanks in one line, and metadata may be as long."""
    stored = site.accepted("X-Metadata-" + "k" * 255 + ": " + "v" * 1000 + "\n" + HELLO)
    assert dict(stored.message.metadata) == {"k" * 255: "v" * 1000}


def test_header_fields_are_counted(site: Site) -> None:
    site.rules["header"] = HeaderRules(most_fields=10)
    assert site.submit(FROM + "X-A: 1\n" * 9 + "\n").startswith("250 ")
    assert site.submit(FROM + "X-A: 1\n" * 10 + "\n") == "550 5.6.0 More than 10 header fields"
    assert site.submit(FROM + "X-Tag: a\n" * 10 + "\n") == "550 5.6.0 More than 10 header fields"


@pytest.mark.parametrize("line", ["X-A\x00: 1", "X-A: \x00"])
def test_a_nul_in_the_header_refuses_the_message(site: Site, line: str) -> None:
    """HARD-CASES row 13."""
    assert site.submit(HEAD + line + "\n\n").startswith("550 5.6.0 A NUL")


@pytest.mark.parametrize("octets", [b"Subject: m\xc3\xbcsli\r\n", b"Subject: m\xfcsli\r\n", b"X-\xc3\xbc: 1\r\n"])
def test_8_bit_headers_are_tolerated_or_refused_by_option(site: Site, octets: bytes) -> None:
    """Without SMTPUTF8 they break RFC 5322, and many clients send them."""
    content = b"From: a@out.test\r\n" + octets + b"\r\n"
    assert site.submit(content).startswith("250 ")
    assert octets in site.stored[-1].content


def test_8_bit_headers_may_be_refused_unless_smtputf8_asks_for_them(site: Site) -> None:
    site.rules["header"] = HeaderRules(eight_bit=False)
    content = "From: a@out.test\nSubject: müsli\n\n"
    assert site.submit(content) == "550 5.6.7 Octets above 127 in the header need SMTPUTF8 (RFC 6531)"
    assert site.submit(HEAD + "\nmüsli\n").startswith("250 ")
    client = site.logged_in()
    client.says("MAIL FROM:<a@out.test> SMTPUTF8", "RCPT TO:<b@in.test>", "DATA")
    assert codes(client.sends(content.replace("\n", "\r\n").encode() + b".\r\n")) == ["250 2.0.0"]
    assert site.stored[-1].message.options.smtputf8


# -- whose mail it is


@pytest.fixture
def checked(site: Site) -> Site:
    site.accounts.update_project("demo", lambda project: evolve(project, check_sender=True))
    for domain in ("out.test", "müller.example"):
        site.accounts.create_domain("demo", domain)
    return site


def sent(site: Site, sender: str, author: str) -> str:
    client = site.logged_in()
    client.says(f"MAIL FROM:<{sender}> SMTPUTF8", "RCPT TO:<b@in.test>", "DATA")
    [reply] = client.sends(f"From: {author}\r\n\r\nhello\r\n.\r\n".encode())
    return reply


@pytest.mark.parametrize(
    ("sender", "author"),
    [
        ("a@out.test", "a@out.test"),
        ("a@OUT.test", "Ann <b@Out.TEST>"),
        ("", "a@out.test"),
        ("a@müller.example", "a@xn--mller-kva.example"),
        ("a@xn--mller-kva.example", "a@MÜLLER.example"),
        ("a@out.test", "a@out.test, b@müller.example"),
    ],
)
def test_mail_from_the_projects_own_domains_is_taken(checked: Site, sender: str, author: str) -> None:
    assert sent(checked, sender, author).startswith("250 ")


@pytest.mark.parametrize(
    ("sender", "author"),
    [
        ("a@elsewhere.test", "a@out.test"),
        ("a@out.test", "a@elsewhere.test"),
        ("", "a@elsewhere.test"),
        ("a@sub.out.test", "a@out.test"),
        ("a@out.test", "a@out.test, evil@elsewhere.test"),
        ("a@out.test", "a@out.test <evil@elsewhere.test>"),
        ("a@out.test", "evil@[192.0.2.1]"),
        ("a@[192.0.2.1]", "a@out.test"),
    ],
)
def test_mail_from_anywhere_else_is_refused_where_the_project_asks_for_it(checked: Site, sender: str, author: str) -> None:
    assert sent(checked, sender, author) == "550 5.7.1 The sender's domain is none of the project's domains"
    assert checked.stored == []


def test_without_the_check_any_sender_is_taken(site: Site) -> None:
    assert sent(site, "a@elsewhere.test", "b@anywhere.test").startswith("250 ")


# -- Received


def test_what_is_told_of_the_client_is_for_the_route_to_say(site: Site) -> None:
    """RFC 5321 section 4.4; some applications may not tell their users' addresses."""
    full = head(site.accepted(HELLO))
    assert full.startswith("Received: from client.test ([192.0.2.9])\r\n\tby mta.test with ESMTPSA (")
    change(site, received=ReceivedField.ANONYMOUS)
    anonymous = head(site.accepted(HELLO))
    assert anonymous.startswith("Received: by mta.test with ESMTPSA (")
    assert "192.0.2.9" not in anonymous
    assert "client.test" not in anonymous
    change(site, received=ReceivedField.NONE)
    assert "Received" not in head(site.accepted(HELLO))


def test_what_is_told_of_the_client_where_the_route_does_not_say_is_configured(site: Site) -> None:
    site.rules["header"] = HeaderRules(received=ReceivedField.ANONYMOUS)
    assert head(site.accepted(HELLO)).startswith("Received: by mta.test with ESMTPSA (")
    change(site, received=ReceivedField.FULL)
    assert head(site.accepted(HELLO)).startswith("Received: from client.test ([192.0.2.9])")


def test_received_names_utf8smtp_where_it_was_asked_for(site: Site) -> None:
    """RFC 6531 section 4.3."""
    client = site.logged_in()
    client.says("MAIL FROM:<a@out.test> SMTPUTF8", "RCPT TO:<ü@in.test>", "DATA")
    client.sends(HELLO.replace("\n", "\r\n").encode() + b".\r\n")
    assert "by mta.test with UTF8SMTPSA (" in head(site.stored[-1])


def test_bcc_and_return_path_never_leave(site: Site) -> None:
    stored = site.accepted("Bcc: secret@in.test\nReturn-Path: <x@out.test>\nBCC:\n other@in.test\n" + HELLO)
    assert not re.search(r"(?im)^(bcc|return-path)|secret|other@", head(stored))
