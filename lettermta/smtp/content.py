"""Reading the content behind DATA in bulk (RFC 5321 sections 4.1.1.4 and 4.5.2).

Only CRLF . CRLF ends the content (HARD-CASES row 1); the octets are searched, un-stuffed and checked a buffer at a time, and every way
of splitting them over reads comes to the same.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lettermta.interfaces import IContent
from lettermta.message import Refused, Reply

_END = b"\r\n.\r\n"

TOO_LARGE = Reply(552, "5.3.4", "Message larger than the limit")
BARE_LINE_END = Reply(550, "5.6.0", "A bare CR or LF in the content: lines must end in CRLF (RFC 5321 section 2.3.8)")


class ContentReader:
    """Takes octets until the end of the content and hands the un-stuffed content to ``sink``, at most ``limit`` octets of it.

    ``fault`` is the reply that the content has earned so far, or None. From the first fault on nothing is kept, but the end is still
    found, so the session stays in step.
    """

    __slots__ = ("_held", "_lead", "_limit", "_sink", "fault", "wait")

    def __init__(self, sink: IContent, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        # The first line follows the CRLF of DATA itself, so a dot at its start is found like any other; the two octets are not content.
        self._held = b"\r\n"
        self._lead = 2
        self.fault: Reply | None = None
        self.wait: Deferred[None] | None = None
        """While set, the sink asks for no more octets until it fires."""

    def feed(self, data: bytes) -> bytes | None:
        """Take the next octets. None: the content goes on. Octets: it has ended, and these came behind it."""
        buffer = self._held + data
        end = buffer.find(_END)
        if end >= 0:
            self._take(buffer[: end + 2])
            return buffer[end + len(_END) :]
        # Hold back what may be the beginning of CRLF . CRLF or of a stuffed line: at most four octets, from the last CR on.
        hold = buffer.rfind(b"\r", max(len(buffer) - 4, 0))
        if hold < 0:
            self._take(buffer)
            self._held = b""
        else:
            self._take(buffer[:hold])
            self._held = buffer[hold:]
        return None

    def _take(self, piece: bytes) -> None:
        """Keep a piece that splits no CRLF and no stuffed dot."""
        if self.fault is not None or not piece:
            return
        ends = piece.count(b"\r\n")
        if piece.count(b"\n") != ends or piece.count(b"\r") != ends:
            self._fail(BARE_LINE_END)
            return
        piece = piece.replace(b"\r\n.", b"\r\n")
        if self._lead:
            piece = piece[self._lead :]
            self._lead = 0
        if self._sink.size + len(piece) > self._limit:
            self._fail(TOO_LARGE)
            return
        try:
            self.wait = self._sink.write(piece)
        except Refused as refused:
            self._fail(refused.reply)

    def _fail(self, reply: Reply) -> None:
        self.fault = reply
        self._sink.discard()
