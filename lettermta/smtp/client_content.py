"""Content on its way out: lines end in CRLF, dots are stuffed, and the final dot comes once (RFC 5321 sections 2.3.8 and 4.5.2).

Promises that no content, however it is cut into pieces, ends the DATA early or emits a bare CR or LF (HARD-CASES row 1): line ends that
are not CRLF are normalised before dots are stuffed, so nothing that a lenient peer takes for a line's end goes unstuffed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

_LINE_END = re.compile(rb"\r\n|\r|\n")


class DotStuffer:
    """Stuffs content that comes in pieces; what was at a piece's border is carried over to the next one."""

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The octets to send for the next piece."""
        if self._held:
            piece = self._held + piece
            self._held = b""
        if piece.endswith(b"\r"):
            # Whether this CR is bare is told by the next piece.
            self._held = b"\r"
            piece = piece[:-1]
        if not piece:
            return b""
        ends = piece.count(b"\r\n")
        if ends != piece.count(b"\n") or ends != piece.count(b"\r"):
            piece = _LINE_END.sub(b"\r\n", piece)
        leading = self._at_line_start and piece.startswith(b".")
        self._at_line_start = piece.endswith(b"\r\n")
        piece = piece.replace(b"\r\n.", b"\r\n..")
        return b"." + piece if leading else piece

    def finish(self) -> bytes:
        """What ends the content: the last line's end where it lacks one, and the final dot."""
        return b".\r\n" if self._at_line_start and not self._held else b"\r\n.\r\n"


def stuffed(data: bytes) -> bytes:
    """A whole content with its final dot, for one write."""
    stuffer = DotStuffer()
    return stuffer.feed(data) + stuffer.finish()


async def stuffed_pieces(
    pieces: AsyncIterator[bytes], progress: Callable[[], None], last: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    """A content in pieces, stuffed, the final dot last. ``progress`` is called for each piece, ``last`` before the dot is given out."""
    stuffer = DotStuffer()
    async with aclosing(cast("AsyncGenerator[bytes, None]", pieces)):
        async for piece in pieces:
            progress()
            yield stuffer.feed(piece)
    last()
    yield stuffer.finish()
