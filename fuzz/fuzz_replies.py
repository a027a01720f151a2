"""A peer's replies (lettermta.smtp.client_replies)."""

from __future__ import annotations

from fuzz.promises import clean, pieces, require, swift
from lettermta.smtp.client_replies import MAX_LINE, MAX_LINES, RawReply, ReplyReader, reply_of

TOKENS = (
    *(b"220 250 250- 354 421 550 5.1.1 4.7.0 2.0.0 199 600 - OK".split()),
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"250-a\r\n250 b\r\n",
    b"250-a\r\n550 b\r\n",
    b"\xc3\xbc",
    b"\xff",
    b"\x1b[2J",
    b"x" * 200,
)


def one(data: bytes) -> None:
    """Read ``data`` whole, in pieces and octet by octet, and again many times over."""
    octets, parts = pieces(data)
    with swift("replies"):
        whole = _read([octets])
        require(_read(parts) == whole, "the split of the octets makes no difference")
        require(_read([octets[i : i + 1] for i in range(len(octets))]) == whole, "nor does one octet at a time")
        _read([octets * (16_384 // len(octets))] if octets else [])
    for code, lines in whole[0]:
        require(100 <= code <= 599 and 1 <= len(lines) <= MAX_LINES, "a reply has a code and lines")
        require(all(len(line) <= MAX_LINE for line in lines), "lines are bounded")
        reply = reply_of(code, lines)
        require(reply.code == code and len(reply.text) <= 4096 + MAX_LINES, "a reply is kept within bounds")
        clean(str(reply), "a reply")


def _read(parts: list[bytes]) -> tuple[list[RawReply], str | None]:
    reader = ReplyReader()
    replies: list[RawReply] = []
    for part in parts:
        replies += reader.feed(part)
    return replies, reader.fault
