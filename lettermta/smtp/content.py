"""Reading the content behind DATA in bulk (RFC 5321 sections 4.1.1.4 and 4.5.2).

Only CRLF . CRLF ends the content (HARD-CASES row 1); the octets are searched, un-stuffed and checked a buffer at a time, and every way
of splitting them over reads comes to the same.
"""

from __future__ import annotations

import re

from twisted.internet.defer import Deferred

from lettermta.interfaces import IContent
from lettermta.message import Refused, Reply

_END = b"\r\n.\r\n"
_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")

TOO_LARGE = Reply(552, "5.3.4", "Message larger than the limit")
BARE_LINE_END = Reply(550, "5.6.0", "A bare CR or LF in the content: lines must end in CRLF (RFC 5321 section 2.3.8)")


class ContentReader:
    """Takes octets until the end of the content and hands the un-stuffed content to ``sink``, at most ``limit`` octets of it.
    With ``repair``, bare CRs and LFs become CRLFs instead of a fault.

    ``fault`` is the reply that the content has earned so far, or None. From the first fault on nothing is kept, but the end is still
    found, so the session stays in step.
    """

    __slots__ = ("_held", "_lead", "_limit", "_repair", "_sink", "fault", "wait")

    def __init__(self, sink: IContent, limit: int, *, repair: bool = False) -> None:
        self._sink = sink
        self._limit = limit
        self._repair = repair
        # The first line follows the CRLF of DATA itself, so a dot at its start is found like any other; the two octets are not content.
        self._held = b"\r\n"
        self._lead = 2
        self.fault: Reply | None = None
        self.wait: Deferred[None] | None = None
        """Set by a :meth:`feed` whose octets the sink has yet to take in; who awaits it takes it away from here first."""

    def feed(self, data: bytes) -> bytes | None:
        """Take the next octets. None: the content goes on. Octets: it has ended, and these came behind it."""
        buffer = self._held + data
        end = buffer.find(_END)
        if end >= 0:
            self._take(buffer[: end + 2])
            return buffer[end + len(_END) :]
        # What may be the beginning of CRLF . CRLF or of a stuffed line is held back, so that no read's end can hide it.
        whole = len(buffer) - _begun(buffer)
        self._take(buffer[:whole])
        self._held = buffer[whole:]
        return None

    def fail(self, reply: Reply) -> None:
        """The content is refused: forget what there is of it, and what is still to come."""
        self.fault = reply
        self._sink.discard()

    def _take(self, piece: bytes) -> None:
        """Keep a piece that splits no CRLF and no stuffed dot."""
        if self.fault is BARE_LINE_END or not piece:
            return
        bare = has_bare_line_end(piece)
        if bare and not self._repair:
            # Goes before any other fault, or the reply would depend on how the octets came.
            self.fail(BARE_LINE_END)
            return
        if self.fault is not None:
            return
        piece = piece.replace(b"\r\n.", b"\r\n")
        if self._lead:
            piece = piece[self._lead :]
            self._lead = 0
        if bare:
            # Last, so that nothing made here is taken for stuffing or for the end: it leaves stuffed again.
            piece = normalised(piece)
        if self._sink.size + len(piece) > self._limit:
            self.fail(TOO_LARGE)
            return
        try:
            self.wait = self._sink.write(piece)
        except Refused as refused:
            self.fail(refused.reply)


def has_bare_line_end(piece: bytes) -> bool:
    """Whether there is a CR or LF that is not part of a CRLF; ``piece`` splits no CRLF."""
    ends = piece.count(b"\r\n")
    return piece.count(b"\n") != ends or piece.count(b"\r") != ends


def normalised(piece: bytes) -> bytes:
    """Text whose bare CRs and LFs have become CRLFs; ``piece`` splits no CRLF."""
    return _ANY_LINE_END.sub(b"\r\n", piece)


def _begun(buffer: bytes) -> int:
    """How many octets at the end of ``buffer`` are a beginning of CRLF . CRLF; the longest counts."""
    return next((length for length in (4, 3, 2, 1) if buffer.endswith(_END[:length])), 0)
