"""DKIM on the real way: submitted over SMTP, signed by the daemon, received by another server, verified by software that is not ours."""

from __future__ import annotations

import email
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.delivery.dkim.judges import BOTH, by_dkimpy, by_opendkim
from tests.delivery.dkim.messages import many
from tests.system.site import FIRST, SECURE, Daemon, Receiver, Site, mail, submit

pytestmark = pytest.mark.filterwarnings("ignore::BytesWarning:dkim")
SENDERS = 4
DOMAIN = ("--project", "demo", "sender.test")


@frozen
class Place:
    """A daemon that signs for sender.test, and the server that its mail goes to."""

    daemon: Daemon
    receiver: Receiver

    @property
    def published(self) -> Mapping[str, str]:
        """What the DNS would say, by what `domain show` asks for."""
        return {record["name"]: record["value"] for record in self.records}

    @property
    def records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = json.loads(self.daemon.admin("domain", "show", *DOMAIN, "--json"))["records"]
        return records

    def sent(self, content: bytes, **options: str) -> bytes:
        """A message as it arrived."""
        received: bytes = self.receiver.received(self.daemon.send(content, "you@example.test", **options))["content"]
        return received


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[Place]:
    receiver = site.receiver()
    daemon = site.daemon("signing")
    daemon.admin("domain", "create", *DOMAIN)
    daemon.start()
    yield Place(daemon, receiver)
    daemon.stop()


def fields_of(message: bytes) -> list[bytes]:
    return re.split(rb"\r\n(?![ \t])", message.partition(b"\r\n\r\n")[0])


def test_both_signatures_of_a_thousand_messages_verify_and_no_octet_is_changed(place: Place, tmp_path: Path) -> None:
    """HARD-CASES rows 1 and 33: what leaves is what was submitted, under the signatures; each judge accepts both of them."""
    messages = many(1000)

    def send(mine: Sequence[bytes]) -> list[str]:
        with place.daemon.client() as client:
            return [submit(client, message, "you@example.test") for message in mine]

    with ThreadPoolExecutor(SENDERS) as pool:
        shares = list(pool.map(send, [messages[number::SENDERS] for number in range(SENDERS)]))
    identifiers = [shares[number % SENDERS][number // SENDERS] for number in range(len(messages))]
    arrived = {}
    for received in place.receiver.messages(len(messages)):
        match = re.search(rb"\n\tid ([^;]+);|\sid (\S+?);", received["content"])
        assert match is not None
        arrived[(match[1] or match[2]).decode()] = received["content"]
    published = place.published
    contents = [arrived[identifier] for identifier in identifiers]
    for message, content in zip(messages, contents, strict=True):
        head, _, body = message.partition(b"\r\n\r\n")
        names = [field.partition(b":")[0] for field in fields_of(content)]
        assert names[:3] == [b"DKIM-Signature", b"DKIM-Signature", b"Received"]
        assert b"\r\n" + head + b"\r\n" in content
        assert content.partition(b"\r\n\r\n")[2] == (body if message.endswith(b"\r\n") else body + b"\r\n")
        assert by_dkimpy(content, published) == BOTH, content
    told = by_opendkim(contents, published, tmp_path)
    assert [content for content, said in zip(contents, told, strict=True) if said != BOTH] == []


def test_control_headers_are_gone_before_it_is_signed(place: Place) -> None:
    """HARD-CASES row 32."""
    steering = ("X-Tag: welcome", "X-LM-Metadata-order: 1", "X-Metadata-b: 2", "Idempotency-Key: dkim-1", "Bcc: him@example.test")
    content = place.sent(mail(*steering))
    assert by_dkimpy(content, place.published) == BOTH
    lower = content.lower()
    assert not [name for name in (b"x-tag", b"x-lm-", b"x-metadata", b"idempotency", b"bcc") if name in lower]


def test_a_message_whose_body_is_in_a_file_is_signed(place: Place) -> None:
    body = "".join(f"line {number} with  blanks \t and a tab\t\r\n" for number in range(20_000)) + "\r\n" * 5000
    content = place.sent(mail(body=body))
    assert len(content) > 700_000
    assert by_dkimpy(content, place.published) == BOTH


def test_there_is_no_length_and_fields_are_signed_once_more_than_they_are_there(place: Place) -> None:
    """HARD-CASES row 33: whatever is added to a signed message breaks the signature."""
    content = place.sent(
        mail("Subject: hello", "List-Unsubscribe: <https://sender.test/u>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click")
    )
    for field in fields_of(content)[:2]:
        tags = dict(tag.split("=", 1) for tag in re.sub(r"\s", "", field.decode().partition(":")[2]).split(";"))
        assert "l" not in tags
        names = tags["h"].split(":")
        there = ("from", "to", "subject", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post")
        assert {name: names.count(name) for name in there} == dict.fromkeys(there, 2)
        assert {"cc", "reply-to", "content-type", "mime-version", "list-id"} <= set(names)
    published = place.published
    for added in (
        b"Subject: other",
        b"From: other@sender.test",
        b"Reply-To: other@elsewhere.test",
        b"Content-Type: text/html",
        b"List-Post: NO",
    ):
        assert BOTH[0] not in by_dkimpy(added + b"\r\n" + content, published)
        head, _, body = content.partition(b"\r\n\r\n")
        assert BOTH[1] not in by_dkimpy(head + b"\r\n" + added + b"\r\n\r\n" + body, published)
    assert BOTH[0] not in by_dkimpy(content + b"more\r\n", published)


def test_mail_of_other_domains_leaves_as_it_is(place: Place) -> None:
    content = place.sent(mail().replace(b"App <app@sender.test>", b"App <app@other-sender.test>"))
    assert b"DKIM-Signature" not in content


def test_a_domain_above_the_authors_signs_unless_alignment_is_strict(place: Place) -> None:
    below = mail().replace(b"App <app@sender.test>", b"App <app@news.shop.sender.test>")
    assert by_dkimpy(place.sent(below), place.published) == BOTH
    place.daemon.admin("project", "update", "demo", "--alignment", "strict")
    assert b"DKIM-Signature" not in place.sent(below)
    assert by_dkimpy(place.sent(mail()), place.published) == BOTH
    place.daemon.admin("project", "update", "demo", "--alignment", "relaxed")


def test_mail_that_was_queued_when_keys_were_rotated_is_signed_by_the_new_ones(site: Site) -> None:
    """HARD-CASES row 33: what is signed is what leaves, by the keys of that moment."""
    daemon = site.daemon("rotating")
    daemon.admin("domain", "create", *DOMAIN)
    daemon.start()
    identifier = daemon.send(mail(), "you@shop.test")  # nobody listens there
    daemon.queue_until(lambda rows: bool(rows) and rows[0]["state"] == "deferred")
    before = json.loads(daemon.admin("domain", "rotate", *DOMAIN, "--json"))["records"]
    after = json.loads(daemon.admin("domain", "rotate", *DOMAIN, "--activate", "--json"))["records"]
    new = [record for record in after if record["key"] and record["key"]["state"] == "signing"]
    assert [record["key"]["state"] for record in before if record["key"]] == ["signing", "signing", "waiting", "waiting"]
    receiver = site.receiver(FIRST)
    content = receiver.received(identifier)["content"]
    assert by_dkimpy(content, {record["name"]: record["value"] for record in new}) == BOTH
    daemon.stop()


def test_mail_for_a_server_without_8bitmime_is_converted_and_then_signed(site: Site) -> None:
    """RFC 6152 section 3, RFC 6376 section 5.3: in memory or in a file; a signed part can't be, and the sender is told why."""
    daemon = site.daemon("converting")
    daemon.admin("domain", "create", *DOMAIN)
    daemon.start()
    receiver = site.receiver(SECURE, extensions=["PIPELINING", "SIZE 10000000", "CHUNKING"])
    place = Place(daemon, receiver)
    text = ("MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit")
    for body in ("Grüße\r\n.\r\n", "".join(f"Zeile {number}: größer als {number - 1}\r\n" for number in range(10_000))):
        content = receiver.received(daemon.send(mail(*text, body=body), "you@secure.test"))["content"]
        assert content.isascii()
        assert by_dkimpy(content, place.published) == BOTH
        parsed = email.message_from_bytes(content)
        assert parsed["Content-Transfer-Encoding"] == "quoted-printable"
        assert parsed.get_payload(decode=True).decode() == body
    plain = mail(body="plain\r\n")
    assert plain in receiver.received(daemon.send(plain, "you@secure.test"))["content"]
    signed = ("MIME-Version: 1.0", "Content-Type: multipart/signed; boundary=b")
    refused = daemon.send(mail(*signed, body="--b\r\n\r\nGrüße\r\n--b\r\n\r\nsig\r\n--b--\r\n"), "you@secure.test")
    (failed,) = [event for event in daemon.events_until(refused, "message.failed") if event["event"] == "message.failed"]
    assert "8BITMIME" in failed["data"]["reason"]
    daemon.stop()
