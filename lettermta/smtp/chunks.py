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
    ``binary`` (BODY=BINARYMIME) any octets go. ``fault`` and ``wait`` are as those of ContentReader. What a chunk is answered depends on
    the chunks alone, not on how their octets came.
    """

    __slots__ = (
        "_binary", "_gathered", "_held", "_left", "_limit", "_repair", "_sink", "_size", "_taken", "_unwritten", "fault", "last", "wait",
    )  # fmt: skip

    def __init__(self, sink: IContent, limit: int, *, binary: bool, repair: bool) -> None:
        self._sink = sink
        self._limit = limit
        self._binary = binary
        self._repair = repair
        self._left = 0
        self._size = 0
        self._taken = 0
        self._unwritten = 0
        """Octets of the chunks since all was written at the end of one."""
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
        self._unwritten += size
        self.last = last
        self._count(size)

    def feed(self, data: bytes) -> bytes | None:
        """Take the next octets. None: the chunk goes on. Octets: it has ended, and these came behind it."""
        piece = data[: self._left]
        taken = len(piece)
        self._left -= taken
        ended = not self._left
        if not self._binary and self.fault is not BARE_LINE_END:
            piece = self._checked(piece, last=ended and self.last)
        if self.fault is None:
            self._keep(piece, ended)
        return data[taken:] if ended else None

    def fail(self, reply: Reply) -> None:
        """The content is refused: forget what there is of it, and what is still to come."""
        self.fault = reply
        self._gathered = bytearray()
        self._sink.discard()

    def _checked(self, piece: bytes, *, last: bool) -> bytes:
        """Text with its line ends as they have to be; a CR at the end is held back for what follows it."""
        piece = self._held + piece
        self._held = b"\r" if piece.endswith(b"\r") and not last else b""
        if self._held:
            piece = piece[:-1]
        if not has_bare_line_end(piece):
            return piece
        if not self._repair:
            # Goes before any other fault, or the reply would depend on how the octets came.
            self.fail(BARE_LINE_END)
            return b""
        repaired = normalised(piece)
        self._count(len(repaired) - len(piece))
        return repaired

    def _count(self, octets: int) -> None:
        self._taken += octets
        if self._taken > self._limit and self.fault is None:
            self.fail(TOO_LARGE)

    def _keep(self, piece: bytes, ended: bool) -> None:
        """Hand on what is enough to be handed on, in one write; at the end of a chunk, what that chunk completes."""
        if len(piece) >= GATHER and not self._gathered:
            self._write(piece)
        else:
            self._gathered += piece
            due = ended and (self.last or self._unwritten >= GATHER)
            if self._gathered and (due or len(self._gathered) >= GATHER):
                data, self._gathered = bytes(self._gathered), bytearray()
                self._write(data)
        if ended and self._unwritten >= GATHER:
            self._unwritten = 0

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
