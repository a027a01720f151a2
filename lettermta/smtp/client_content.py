"""Content on its way out: what is not binary goes with CRLF at each line's end (RFC 5321 section 2.3.8), and by DATA with its dots stuffed.

Promises that no content, however it is cut into pieces, ends the DATA early or emits a bare CR or LF (HARD-CASES row 1): line ends that
are not CRLF are normalised before dots are stuffed, so nothing that a lenient peer takes for a line's end goes unstuffed. Content that
comes in pieces and is not as long as its row says fails with :class:`ContentDamaged`, before its end is told to the peer.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from io import IncrementalNewlineDecoder
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from lettermta.interfaces import IStoredContent

_LINE_END = re.compile(rb"\r\n|\r|\n")


class ContentDamaged(Exception):
    """What was read is not the whole message."""


class Passage(Protocol):
    """What is done to content that comes in pieces."""

    def feed(self, piece: bytes) -> bytes:
        """The octets to send for the next piece."""

    def finish(self) -> bytes:
        """What ends the content."""


def with_crlf(data: bytes) -> bytes:
    """``data`` with CRLF for each line end of another kind; nearly all content has none, and that is seen in one pass."""
    seen = IncrementalNewlineDecoder(None, translate=False)
    seen.decode(data.decode("latin-1"), final=True)
    return data if seen.newlines in ("\r\n", None) else _LINE_END.sub(b"\r\n", data)


class LineEnds:
    """Content as lines with CRLF; a CR at a piece's border is carried over to the next one, which tells whether it is bare."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The octets to send for the next piece."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith(b"\r"):
            self._held = b"\r"
            piece = piece[:-1]
        return with_crlf(piece)

    def finish(self) -> bytes:
        """The rest, if any."""
        return b"\r\n" if self._held else b""


class DotStuffer:
    """Content as DATA wants it: dots stuffed (RFC 5321 section 4.5.2), over the borders of pieces too."""

    __slots__ = ("_at_line_start", "_lines")

    def __init__(self) -> None:
        self._at_line_start = True
        self._lines = LineEnds()

    def feed(self, piece: bytes) -> bytes:
        """The octets to send for the next piece."""
        piece = self._lines.feed(piece)
        if not piece:
            return b""
        leading = self._at_line_start and piece.startswith(b".")
        self._at_line_start = piece.endswith(b"\r\n")
        piece = piece.replace(b"\r\n.", b"\r\n..")
        return b"." + piece if leading else piece

    def finish(self) -> bytes:
        """What ends the content: the last line's end where it lacks one, and the final dot."""
        held = self._lines.finish()
        return b".\r\n" if self._at_line_start and not held else b"\r\n.\r\n"


class AsItIs:
    """Binary content (RFC 3030 section 3)."""

    __slots__ = ()

    def feed(self, piece: bytes) -> bytes:
        """The piece."""
        return piece

    def finish(self) -> bytes:
        """Nothing."""
        return b""


def stuffed(data: bytes) -> bytes:
    """A whole content with its final dot, for one write."""
    data = with_crlf(data)
    leading = b"." if data.startswith(b".") else b""
    return leading + data.replace(b"\r\n.", b"\r\n..") + (b".\r\n" if data.endswith(b"\r\n") or not data else b"\r\n.\r\n")


async def passed(content: IStoredContent, passage: Passage) -> AsyncGenerator[tuple[bytes, bool], None]:
    """A content in pieces as ``passage`` turns them out, each with whether it is the last: that one comes only when all was read."""
    left = content.size
    held = b""
    async with aclosing(cast("AsyncGenerator[bytes, None]", content.pieces())) as pieces:
        async for piece in pieces:
            left -= len(piece)
            if held:
                yield held, False
            held = passage.feed(piece)
    if left:
        raise ContentDamaged(f"{left} octets of {content.size} are missing")
    yield held + passage.finish(), True
