"""The form in which a message leaves, by what the peer offers; conversion comes before the signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from lettermta.delivery import finishing
from lettermta.delivery.finishing import Finisher
from lettermta.delivery.leaving import WholeContent
from lettermta.interfaces import IFinisher, IStoredContent
from lettermta.message import BodyType, Lane, Options, QueuedRecipient, QueueEntry, Reply
from lettermta.smtp.client_envelope import Unsendable
from lettermta.smtp.client_settings import ClientSettings, TLSMode
from tests.delivery.dkim.test_signer import Pieces, read
from tests.smtp.client_peer import PIPELINED, Peer
from tests.test_counts import grown

HEAD = b"From: app@sender.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
TEXT = HEAD + "Grüße\r\n".encode()
SIGNED = HEAD.replace(b"text/plain", b"multipart/signed; boundary=b") + b"--b\r\n\r\n\xfc\r\n--b\r\n\r\nsig\r\n--b--\r\n"
"""What a message with a signature of its own looks like."""


class Notes:
    """Stands where the signer stands, and tells what it was given."""

    def __init__(self) -> None:
        self.forms: list[str] = []

    def sign(self, entry: QueueEntry, content: IStoredContent, form: str, *, copy: bool) -> IStoredContent:
        self.forms.append(form)
        whole = content.whole()
        return content if whole is None else WholeContent(b"DKIM-Signature: x\r\n" + whole)


def threaded(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    return succeed(None).addCallback(lambda _: function(*arguments))


def entry(body: BodyType = BodyType.SEVEN_BIT) -> QueueEntry:
    recipients = [QueuedRecipient(1, "you@example.test")]
    return QueueEntry(1, "1", Lane("r", "x"), "demo", "outgoing", "a@sender.test", 1, 0.0, 0.0, b"", b"{}", recipients, Options(body=body))


def finished(content: IStoredContent, body: BodyType, *, eight_bit: bool, binary: bool = False) -> tuple[BodyType, bytes | None, str]:
    notes = Notes()
    finisher = Finisher(notes, threaded)  # type: ignore[arg-type]
    ready = finisher.finish(entry(body), content, eight_bit=eight_bit, binary=binary)
    results: list[Any] = []
    (ready if isinstance(ready, Deferred) else succeed(ready)).addCallback(results.append)
    ((made, leaves),) = results
    return made.options.body, leaves.whole(), *notes.forms


@pytest.mark.parametrize("declared", [BodyType.SEVEN_BIT, BodyType.EIGHT_BIT])
def test_a_server_with_8bitmime_gets_8_bit_content_declared_as_such(declared: BodyType) -> None:
    assert finished(WholeContent(TEXT), declared, eight_bit=True) == (BodyType.EIGHT_BIT, b"DKIM-Signature: x\r\n" + TEXT, "")


@pytest.mark.parametrize("declared", [BodyType.SEVEN_BIT, BodyType.EIGHT_BIT, BodyType.BINARY])
def test_a_server_without_gets_it_converted_and_signed_behind_that(declared: BodyType) -> None:
    with grown() as counts:
        body, whole, form = finished(WholeContent(TEXT), declared, eight_bit=False)
    assert (body, form) == (BodyType.SEVEN_BIT, "7bit")
    assert whole is not None
    assert whole.startswith(b"DKIM-Signature: x\r\nFrom:")
    assert whole.endswith(b"Gr=C3=BC=C3=9Fe\r\n")
    assert counts == {"lettermta_conversions_total result=converted": 1.0}


def test_seven_bit_content_goes_as_it_is_to_everyone() -> None:
    plain = HEAD + b"plain\r\n"
    for declared in BodyType:
        assert finished(WholeContent(plain), declared, eight_bit=False) == (BodyType.SEVEN_BIT, b"DKIM-Signature: x\r\n" + plain, "")


def test_binary_content_is_converted_for_a_server_with_8bitmime_alone() -> None:
    message = HEAD + b"a\nb\r\n"
    body, whole, form = finished(WholeContent(message), BodyType.BINARY, eight_bit=True, binary=False)
    assert (body, form) == (BodyType.SEVEN_BIT, "7bit")
    assert whole is not None
    assert b"base64" in whole
    kept = finished(WholeContent(message), BodyType.BINARY, eight_bit=True, binary=True)
    assert kept == (BodyType.BINARY, b"DKIM-Signature: x\r\n" + message, "")


def test_content_in_a_file_is_converted_too_and_left_there_when_it_is_clean() -> None:
    assert finished(Pieces(TEXT[:50], TEXT[50:]), BodyType.EIGHT_BIT, eight_bit=False)[2] == "7bit"
    assert finished(Pieces(HEAD, b"plain\r\n"), BodyType.EIGHT_BIT, eight_bit=False) == (BodyType.SEVEN_BIT, None, "")


def test_what_is_converted_from_a_file_goes_to_a_file() -> None:
    finisher = Finisher(Notes(), threaded)  # type: ignore[arg-type]
    ready: list[Any] = []
    finished = finisher.finish(entry(BodyType.EIGHT_BIT), Pieces(TEXT), eight_bit=False, binary=False)
    assert isinstance(finished, Deferred)
    finished.addCallback(ready.append)
    made = ready[0][1]
    assert made.whole() is None
    for _ in range(2):
        assert read(made).endswith(b"Gr=C3=BC=C3=9Fe\r\n"), "each attempt reads it"


@pytest.mark.parametrize("body", [BodyType.EIGHT_BIT, BodyType.BINARY])
def test_what_is_too_large_to_be_converted_is_refused_and_takes_no_memory(monkeypatch: pytest.MonkeyPatch, body: BodyType) -> None:
    monkeypatch.setattr(finishing, "LARGEST_CONVERTED", len(TEXT) - 1)
    finisher = Finisher(Notes(), threaded)  # type: ignore[arg-type]
    faults: list[Any] = []
    refused = finisher.finish(entry(body), Pieces(TEXT), eight_bit=False, binary=False)
    assert isinstance(refused, Deferred)
    refused.addErrback(lambda failure: faults.append(failure.value.reply.enhanced))
    assert faults == ["5.6.3"]
    clean = HEAD.replace(b"From: app", "Subject: ü\r\nFrom: app".encode()) + b"x" * 1000 + b"\r\n"
    assert finished(Pieces(clean[:20], clean[20:]), BodyType.EIGHT_BIT, eight_bit=False)[0] is BodyType.SEVEN_BIT


@pytest.mark.parametrize("content", [WholeContent(SIGNED), Pieces(SIGNED)])
def test_what_cant_be_converted_is_ended_by_5_6_3(content: IStoredContent) -> None:
    """RFC 3463 section 3.7: conversion required but not supported."""
    finisher = Finisher(Notes(), threaded)  # type: ignore[arg-type]
    faults: list[Any] = []
    with grown() as counts:
        try:
            ready = finisher.finish(entry(BodyType.EIGHT_BIT), content, eight_bit=False, binary=False)
            assert isinstance(ready, Deferred)
            ready.addErrback(lambda failure: faults.append(failure.value))
        except Unsendable as fault:
            faults.append(fault)
    (fault,) = faults
    assert isinstance(fault, Unsendable)
    assert (fault.reply.code, fault.reply.enhanced) == (554, "5.6.3")
    assert counts == {"lettermta_conversions_total result=refused": 1.0}


@implementer(IFinisher)
class Broken:
    """Fails as it is told."""

    def __init__(self, fault: Exception, late: bool) -> None:
        self._fault, self._late = fault, late

    def finish(self, entry: QueueEntry, content: IStoredContent, *, eight_bit: bool, binary: bool) -> Any:
        if self._late:
            return fail(self._fault)
        raise self._fault


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("fault", "reply"),
    [(Unsendable(Reply(554, "5.6.3", "can't be converted")), "554 5.6.3"), (OSError("disk"), "451 4.3.0"), (LookupError(), "451 4.3.0")],
)
def test_a_message_that_cant_be_finished_gets_a_verdict_and_the_session_goes_on(fault: Exception, reply: str, late: bool) -> None:
    peer = Peer(ClientSettings("out.test", tls=TLSMode.OFF, finisher=Broken(fault, late))).greet(PIPELINED)
    ((verdict,),) = peer.send()
    assert (str(verdict.reply)[:9], verdict.remote, verdict.handed_over) == (reply, False, False)
    assert peer.wire.take() == b""
    assert peer.session.usable
