"""Reading the content in chunks (RFC 3030, BDAT).

A chunk is exactly as many octets as its command says, whatever they are, and is swallowed to its last octet even when it is refused, so
that no octet of it is ever taken for a command. Between chunks nothing is kept but what may be half a line end.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lettermta.interfaces import IContent
from lettermta.message import Refused, Reply
from lettermta.smtp.content import BARE_LINE_END, TOO_LARGE, has_bare_line_end, normalised

GATHER = 16_384
"""Octets that small chunks are gathered to before they are written, so that thousands of tiny ones cost no more than a few large ones."""


class ChunkReader:
    """Takes chunks one after the other and hands their octets to ``sink``, at most ``limit`` of them.

    Text keeps the rule that lines end in CRLF (or is brought to it, by ``repair``), also over the border between two chunks; with
    ``binary`` (BODY=BINARYMIME) any octets go. ``fault`` and ``wait`` are as those of ContentReader.
    """

    __slots__ = ("_binary", "_gathered", "_held", "_left", "_limit", "_repair", "_sink", "_size", "_taken", "fault", "last", "wait")

    def __init__(self, sink: IContent, limit: int, *, binary: bool, repair: bool) -> None:
        self._sink = sink
        self._limit = limit
        self._binary = binary
        self._repair = repair
        self._left = 0
        self._size = 0
        self._taken = 0
        self._held = b""
        self._gathered = bytearray()
        self.last = False
        """Whether the chunk that is being read is the last one."""
        self.fault: Reply | None = None
        self.wait: Deferred[None] | None = None

    @property
    def size(self) -> int:
        """Octets of the chunk, for its reply."""
        return self._size

    def begin(self, size: int, last: bool) -> None:
        """A chunk of ``size`` octets follows. One that would be too large is refused before any of it is read."""
        self._left = self._size = size
        self._taken += size
        self.last = last
        if self._taken > self._limit and self.fault is None:
            self.fail(TOO_LARGE)

    def feed(self, data: bytes) -> bytes | None:
        """Take the next octets. None: the chunk goes on. Octets: it has ended, and these came behind it."""
        piece = data[: self._left]
        self._left -= len(piece)
        if self.fault is None and piece:
            self._take(piece)
        if self._left:
            return None
        if self.last and self.fault is None:
            self._finish()
        return data[len(piece) :]

    def fail(self, reply: Reply) -> None:
        """The content is refused: forget what there is of it, and what is still to come."""
        self.fault = reply
        self._held = b""
        self._gathered = bytearray()
        self._sink.discard()

    def _take(self, piece: bytes) -> None:
        if not self._binary:
            piece = self._held + piece
            self._held = b"\r" if piece.endswith(b"\r") else b""
            if self._held:
                piece = piece[:-1]
            if has_bare_line_end(piece):
                if not self._repair:
                    self.fail(BARE_LINE_END)
                    return
                piece = normalised(piece)
        if len(piece) >= GATHER and not self._gathered:
            self._write(piece)
            return
        self._gathered += piece
        if len(self._gathered) >= GATHER:
            self._write_gathered()

    def _finish(self) -> None:
        if self._held:
            if not self._repair:
                self.fail(BARE_LINE_END)
                return
            self._gathered += b"\r\n"
        self._write_gathered()

    def _write_gathered(self) -> None:
        data, self._gathered = bytes(self._gathered), bytearray()
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            self.wait = self._sink.write(data)
        except Refused as refused:
            self.fail(refused.reply)


class Swallow:
    """A chunk that belongs to no transaction: its octets are passed over, and then ``fault`` is the answer."""

    last = False
    wait: Deferred[None] | None = None

    def __init__(self, size: int, fault: Reply) -> None:
        self._left = size
        self.fault: Reply = fault

    def feed(self, data: bytes) -> bytes | None:
        """As ChunkReader.feed."""
        rest = data[self._left :]
        self._left -= min(self._left, len(data))
        return None if self._left else rest

    def fail(self, reply: Reply) -> None:
        """It has failed already."""
