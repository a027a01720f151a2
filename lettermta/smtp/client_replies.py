"""A peer's replies, cut out of the octets it sends (RFC 5321 section 4.2).

Promises that whatever a peer sends, memory stays bounded and every way of splitting the octets over reads comes to the same. What is
no reply (no three digits, codes that differ within one reply, a line or a reply over its bound) becomes a ``fault``, once, behind the
replies that came before it; nothing after it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from lettermta.message import Reply

MAX_LINE = 4096
"""Octets of one line: eight times what RFC 5321 section 4.5.3.1.5 allows, since real servers quote URLs and whole reports."""
MAX_LINES = 100
MAX_OCTETS = 64 * 1024
_MAX_TEXT = 4096

RawReply = tuple[int, list[bytes]]
"""A reply's code and its lines' texts, as they came: only what is kept becomes a :class:`~lettermta.message.Reply`."""


class ReplyReader:
    """Takes octets, gives whole replies."""

    __slots__ = ("_buffer", "_code", "_lines", "_octets", "fault", "tainted")

    def __init__(self) -> None:
        self._buffer = b""
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self.fault: str | None = None
        """Why the octets behind the last reply are none, or None."""
        self.tainted = False
        """A NUL has come: the peer is no honest SMTP server, or its channel is damaged."""

    @property
    def partial(self) -> bool:
        """Whether octets of an unfinished reply are held."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[RawReply]:
        """The replies that ``data`` completes."""
        replies: list[RawReply] = []
        if self.fault is not None:
            return replies
        if b"\0" in data:
            self.tainted = True
        buffer = self._buffer + data if self._buffer else data
        start = 0
        while (end := buffer.find(b"\n", start)) >= 0:
            # A bare LF ends a line too: nothing that we send depends on it, and old servers do so.
            line = buffer[start:end].removesuffix(b"\r")
            start = end + 1
            reply = self._line(line)
            if self.fault is not None:
                self._buffer = b""
                return replies
            if reply is not None:
                replies.append(reply)
        self._buffer = buffer[start:]
        if len(self._buffer) > MAX_LINE:
            self.fault = "a reply line without an end"
            self._buffer = b""
        return replies

    def _line(self, line: bytes) -> RawReply | None:
        """Take one line; the reply that it completes, or None."""
        code, separator = line[:3], line[3:4]
        if len(code) != 3 or not code.isdigit() or separator not in (b" ", b"-", b"") or not b"100" <= code <= b"599":
            self.fault = "octets that are no reply"
        elif len(line) > MAX_LINE:
            self.fault = "a reply line without bound"
        elif self._lines and code != self._code:
            # RFC 5321 section 4.2.1: the code is the same on each line. Which one would count is anyone's guess.
            self.fault = "a reply whose lines differ in code"
        elif separator != b"-" and not self._lines:
            return int(code), [line[4:]]
        else:
            return self._continued(code, line, separator)
        return None

    def _continued(self, code: bytes, line: bytes, separator: bytes) -> RawReply | None:
        """A line of a reply that has several."""
        self._code = code
        self._octets += len(line)
        self._lines.append(line[4:])
        if len(self._lines) > MAX_LINES or self._octets > MAX_OCTETS:
            self.fault = "a reply without bound"
            return None
        if separator == b"-":
            return None
        lines, self._lines, self._octets = self._lines, [], 0
        return int(code), lines


def of_recipient(code: int, lines: Sequence[bytes]) -> Reply:
    """The same for what was said to RCPT: 552 for too many recipients is 452 by an old mistake (RFC 5321 section 4.5.3.1.10)."""
    reply = reply_of(code, lines)
    if code != 552 or not (reply.enhanced == "5.5.3" or (reply.enhanced is None and "too many recipients" in reply.text.lower())):
        return reply
    return Reply(452, "4.5.3", reply.text)


def reply_of(code: int, lines: Sequence[bytes]) -> Reply:
    """A peer's reply as it is kept and shown: UTF-8 where it is (RFC 6531 section 3.7.4), no control characters, at most 4 KB."""
    texts: list[str] = []
    room = _MAX_TEXT
    for line in lines:
        if room <= 0:
            break
        text = line.decode("utf-8", "replace")[:room]
        room -= len(text) + 1
        texts.append(text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text))
    return Reply.parse(code, texts)
