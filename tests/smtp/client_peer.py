"""A session on a wire of paper: what it writes is read off, what the peer says is put in, time is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from lettermta.message import BodyType, Lane, Options, QueuedRecipient, QueueEntry, Unreachable, Verdict
from lettermta.smtp.client import ClientSession
from lettermta.smtp.client_chunks import NoChunks
from lettermta.smtp.client_dialogue import IClientWire
from lettermta.smtp.client_settings import ClientSettings, TLSMode

PIPELINED = "250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
CHUNKED = "250-mx.test\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n"
PLAIN = "250 mx.test\r\n"
CLEAR = ClientSettings("out.test", tls=TLSMode.OFF, command_timeout=300, data_timeout=600)


class Content:
    """In memory, or in pieces."""

    def __init__(self, data: bytes = b"Subject: hi\r\n\r\nhello\r\n", pieces: Sequence[bytes | Exception] | None = None) -> None:
        self.size = len(data) if pieces is None else sum(len(piece) for piece in pieces if isinstance(piece, bytes))
        self._data = data
        self._pieces = pieces

    def whole(self) -> bytes | None:
        return self._data if self._pieces is None else None

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces or ():
            if isinstance(piece, Exception):
                raise piece
            yield piece


def entry(*recipients: str | QueuedRecipient, sender: str = "a@out.test", eight_bit: bool = False, **wishes: Any) -> QueueEntry:
    waiting = [
        QueuedRecipient(number, recipient) if isinstance(recipient, str) else recipient
        for number, recipient in enumerate(recipients or ("b@in.test",), 1)
    ]
    options = Options(**({"body": BodyType.EIGHT_BIT if eight_bit else BodyType.SEVEN_BIT} | wishes))
    return QueueEntry(1, "id-1", Lane("route", "in.test"), "project", "outgoing", sender, 22, 0.0, 1e12, b"{}", b"{}", waiting, options)


@implementer(IClientWire)
class Wire:
    """Keeps what is written. ``full`` makes a stream wait behind each piece until ``drain``."""

    def __init__(self) -> None:
        self.written = b""
        self.closed: str | None = None
        self.handshakes = 0
        self.full = False
        self._drained: Deferred[None] | None = None

    def write(self, data: bytes) -> None:
        self.written += data

    def stream(self, pieces: AsyncIterator[bytes]) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stream(pieces))

    async def _stream(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            self.written += piece
            if self.full:
                self._drained = Deferred()
                await self._drained

    def drain(self) -> None:
        drained, self._drained = self._drained, None
        assert drained is not None
        drained.callback(None)

    def start_tls(self) -> None:
        self.handshakes += 1

    def close(self) -> None:
        self.closed = "closed"

    def abort(self) -> None:
        self.closed = "aborted"

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written


class Peer:
    """The other end."""

    def __init__(self, settings: ClientSettings = CLEAR, **changes: object) -> None:
        self.clock = Clock()
        self.wire = Wire()
        self.settings = evolve(settings, **{"no_chunks": NoChunks(), **changes})
        self.session = ClientSession(self.wire, self.clock, self.settings, "mx.test [192.0.2.1]:25")
        self.opened: list[ClientSession] = []
        self.failed: list[Unreachable] = []
        self.session.opened.addCallbacks(self.opened.append, lambda failure: self.failed.append(failure.value))
        self.session.connected()

    def says(self, text: str | bytes) -> bytes:
        """The peer speaks; returns what it gets in answer."""
        self.session.received(text.encode() if isinstance(text, str) else text)
        return self.wire.take()

    def greet(self, ehlo: str = PIPELINED) -> Peer:
        assert self.says("220 mx.test\r\n") == b"EHLO out.test\r\n"
        assert self.says(ehlo) == b""
        assert self.opened == [self.session]
        return self

    def send(self, queued: QueueEntry | None = None, content: Content | None = None) -> list[Sequence[Verdict]]:
        """Start an attempt; the list gets its verdicts."""
        told: list[Sequence[Verdict]] = []
        self.session.send(queued or entry(), content or Content()).addCallback(told.append)
        return told


def shown(told: list[Sequence[Verdict]]) -> list[tuple[str, bool, bool]]:
    """An attempt's verdicts: reply, remote, handed over."""
    assert len(told) == 1
    return [(str(verdict.reply), verdict.remote, verdict.handed_over) for verdict in told[0]]
