"""Who signs what: domains, alignment, keys, and what is done once for many."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.dns_records import dns_records
from lettermta.accounts.model import Alignment
from lettermta.accounts.schema import DATABASE
from lettermta.accounts.store import AccountStore
from lettermta.delivery.dkim.signer import Signer
from lettermta.delivery.leaving import WholeContent
from lettermta.interfaces import IStoredContent
from lettermta.message import BodyType, Lane, Options, QueueEntry
from lettermta.smtp.client_envelope import Unsendable
from tests.delivery.dkim.judges import BOTH, by_dkimpy
from tests.test_counts import grown

pytestmark = pytest.mark.filterwarnings("ignore::BytesWarning:dkim")
MESSAGE = b"From: App <app@sender.test>\r\nTo: you@example.test\r\nSubject: hi\r\n\r\nHello.\r\n"


@implementer(IStoredContent)
class Pieces:
    """A content that is not in memory, and counts how often it is read."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.size = sum(map(len, pieces))
        self.read = self.finished = 0

    def whole(self) -> bytes | None:
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        self.read += 1
        for piece in self._pieces:
            yield piece
        self.finished += 1


@frozen
class Desk:
    store: AccountStore
    directory: Directory
    signer: Signer

    def entry(self, identifier: str = "1", domain: str = "example.test") -> QueueEntry:
        lane = Lane(self.store.route("demo", "outgoing").id, domain)
        return QueueEntry(1, identifier, lane, "demo", "outgoing", "app@sender.test", 1, 0.0, 0.0, b"", b"{}", [])

    def signed(self, message: bytes, entry: QueueEntry | None = None, form: str = "") -> bytes:
        [content] = results(self.signer.sign(entry or self.entry(), WholeContent(message), form))
        whole = content.whole()
        assert whole is not None
        return whole

    @property
    def published(self) -> dict[str, str]:
        project = self.store.project("demo")
        domains = self.store.domains("demo")
        return {r.name: r.value for d in domains for r in dns_records(d, self.store.domain_keys(d), project, "mta.test", "mta.test")}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    def threaded(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return succeed(function(*arguments))

    with AccountStore(tmp_path) as store:
        store.create_project("demo")
        store.create_domain("demo", "sender.test")
        directory = Directory(tmp_path)
        yield Desk(store, directory, Signer(directory, threaded, threaded, lambda: 1e9))
        directory.close()


def results(content: IStoredContent | Deferred[IStoredContent]) -> list[IStoredContent]:
    """What is there, now or by now; raises what a Deferred failed with."""
    found: list[IStoredContent] = []
    failures: list[Failure] = []
    (content if isinstance(content, Deferred) else succeed(content)).addCallbacks(found.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return found


async def collected(content: IStoredContent) -> bytes:
    return b"".join([piece async for piece in content.pieces()])


def read(content: IStoredContent) -> bytes:
    found: list[bytes] = []
    Deferred.fromCoroutine(collected(content)).addCallback(found.append)
    (octets,) = found
    assert len(octets) == content.size
    return octets


def test_the_authors_domain_signs_in_whatever_form_it_is_written(desk: Desk) -> None:
    desk.store.create_domain("demo", "münchen.example")
    for author in (b"x@SENDER.test", "x@münchen.example".encode(), b"x@xn--mnchen-3ya.EXAMPLE"):
        signed = desk.signed(MESSAGE.replace(b"app@sender.test", author), desk.entry(author.decode()))
        assert by_dkimpy(signed, desk.published) == BOTH


@pytest.mark.parametrize("author", [b"x@elsewhere.test", b"x@sender.test.elsewhere.test", b"x@test", b"no address", b"x@in valid", b""])
def test_nobody_else_s_mail_is_signed(desk: Desk, author: bytes) -> None:
    message = MESSAGE.replace(b"App <app@sender.test>", author)
    with grown() as counts:
        assert desk.signed(message) == message
    assert counts == {"lettermta_dkim_messages_total result=no_key": 1.0}


def test_alignment_decides_whether_a_domain_above_signs(desk: Desk) -> None:
    message = MESSAGE.replace(b"app@sender.test", b"app@news.sender.test")
    assert b" d=sender.test;" in desk.signed(message)
    desk.store.create_domain("demo", "news.sender.test")
    assert b" d=news.sender.test;" in desk.signed(message), "the nearest one signs"
    desk.store.update_project("demo", lambda project: evolve(project, alignment=Alignment.STRICT))
    assert b" d=news.sender.test;" in desk.signed(message, desk.entry("2"))
    assert desk.signed(message.replace(b"@news.", b"@other."), desk.entry("3")).startswith(b"From:")


def test_another_project_s_domain_signs_nothing_of_ours(desk: Desk) -> None:
    desk.store.create_project("other")
    desk.store.create_domain("other", "theirs.test")
    message = MESSAGE.replace(b"app@sender.test", b"app@theirs.test")
    assert desk.signed(message) == message


def test_a_message_to_many_domains_is_signed_once_for_each_form(desk: Desk) -> None:
    with grown() as counts:
        first = desk.signed(MESSAGE, desk.entry(domain="a.test"))
        assert desk.signed(MESSAGE, desk.entry(domain="b.test")) == first
        assert desk.signed(MESSAGE, desk.entry(domain="c.test"), "7bit") is not None
    assert counts == {"lettermta_dkim_messages_total result=signed": 2.0, "lettermta_dkim_messages_total result=known": 1.0}


def test_who_asks_while_signatures_are_made_gets_the_same(desk: Desk) -> None:
    jobs: list[tuple[Callable[..., bytes], tuple[Any, ...], Deferred[Any]]] = []

    def later(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        jobs.append((function, arguments, Deferred()))
        return jobs[-1][2]

    signer = Signer(desk.directory, later, later, lambda: 1e9)
    asked = [signer.sign(desk.entry(domain=domain), WholeContent(MESSAGE), "") for domain in ("a.test", "b.test", "c.test")]
    [(function, arguments, made)] = jobs
    made.callback(function(*arguments))
    told = [content.whole() for each in asked for content in results(each)]
    assert len(told) == 3
    assert len(set(told)) == 1
    assert by_dkimpy(told[0] or b"", desk.published) == BOTH
    again = signer.sign(desk.entry(domain="d.test"), WholeContent(MESSAGE), "")
    assert not isinstance(again, Deferred)


def test_what_can_not_be_signed_is_told_to_all_who_ask_and_tried_anew(desk: Desk) -> None:
    made: list[Deferred[Any]] = [Deferred(), Deferred()]
    waiting = iter(made)
    signer = Signer(desk.directory, lambda *_: next(waiting), lambda *_: next(waiting), lambda: 1e9)
    asked = [signer.sign(desk.entry(), WholeContent(MESSAGE), "") for _ in range(2)]
    made[0].errback(ValueError("no"))
    for each in asked:
        with pytest.raises(ValueError, match="no"):
            results(each)
    last = signer.sign(desk.entry(), WholeContent(MESSAGE), "")
    made[1].callback(b"X: y\r\n")
    assert [content.whole() for content in results(last)] == [b"X: y\r\n" + MESSAGE]


def test_rotated_keys_are_used_at_once(desk: Desk) -> None:
    """HARD-CASES row 33: keys rotated while mail is queued."""
    domain = desk.store.domain("demo", "sender.test")
    before = desk.signed(MESSAGE)
    desk.store.rotate_keys(domain)
    assert desk.signed(MESSAGE) == before, "keys that wait sign nothing"
    desk.store.activate_keys(domain)
    after = desk.signed(MESSAGE)
    assert after != before
    assert by_dkimpy(after, desk.published) == by_dkimpy(before, desk.published) == BOTH


def test_a_key_that_cant_be_used_puts_mail_off(desk: Desk, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("UPDATE dkim_key SET private = ?", (b"\1" + bytes(60),))
    with grown() as counts, pytest.raises(Unsendable) as refused:
        desk.signed(MESSAGE)
    assert (refused.value.reply.code, refused.value.reply.enhanced) == (451, "4.3.5")
    assert counts["lettermta_dkim_messages_total result=unusable_key"] == 1.0


@pytest.mark.parametrize("cut", [1, 10, 40, 72, 73, 74, 75, 76, 77, 78, 79, 80, 100, 1000])
def test_what_is_read_in_pieces_is_signed_like_what_is_whole(desk: Desk, cut: int) -> None:
    message = MESSAGE + b"more \t text \r\n\r\n" * 3
    content = Pieces(*[message[start : start + cut] for start in range(0, len(message), cut)])
    signed: list[IStoredContent] = []
    signing = desk.signer.sign(desk.entry(), content, "")
    assert isinstance(signing, Deferred)
    signing.addCallback(signed.append)
    octets = read(signed[0])
    assert octets == desk.signed(message, desk.entry("2"))
    assert by_dkimpy(octets, desk.published) == BOTH
    assert content.read == 2


def test_a_large_message_is_hashed_once_for_all_its_destinations(desk: Desk) -> None:
    content = Pieces(MESSAGE, b"more\r\n")
    for domain in ("a.test", "b.test"):
        signing = desk.signer.sign(desk.entry(domain=domain), content, "")
        assert isinstance(signing, Deferred)
        signing.addErrback(pytest.fail)
    with grown() as counts:
        desk.signer.sign(desk.entry(domain="c.test"), content, "")
    assert counts == {"lettermta_dkim_messages_total result=known": 1.0}


def test_line_ends_are_made_right_before_it_is_signed_unless_it_is_binary(desk: Desk) -> None:
    signed = desk.signed(MESSAGE + b"bare\nline")
    assert signed.endswith(b"bare\r\nline")
    binary = evolve(desk.entry("2"), options=Options(body=BodyType.BINARY))
    assert desk.signed(MESSAGE + b"bare\nline\r\n", binary).endswith(b"bare\nline\r\n")
