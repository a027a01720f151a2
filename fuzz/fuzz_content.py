"""The content behind DATA (lettermta.smtp.content), against a reading of RFC 5321 that looks at one octet at a time."""

from __future__ import annotations

import io

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from fuzz.promises import pieces, require, swift
from lettermta.interfaces import IContent
from lettermta.message import Reply
from lettermta.smtp.content import BARE_LINE_END, TOO_LARGE, ContentReader

TOKENS = (
    b"\r\n",
    b"\r\n.\r\n",
    b".\r\n",
    b"\r\n..",
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r\n.\n",
    b"\r",
    b"\n",
    b".",
    b"\0",
    b"a" * 40,
)

_LIMIT = 200

Outcome = tuple[bytes | None, bytes, Reply | None]
"""What comes behind the end (None: there was none), the content (empty when it is refused), and why it is refused."""


@implementer(IContent)
@define
class _Sink:
    written: io.BytesIO = field(factory=io.BytesIO)
    size: int = 0

    def write(self, data: bytes) -> Deferred[None] | None:
        self.size += len(data)
        self.written.write(data)
        return None

    def head(self) -> bytes:
        return b""

    def body_size(self) -> int:
        return 0

    def digest(self) -> Deferred[bytes]:
        return succeed(b"")

    def discard(self) -> None:
        self.written = io.BytesIO()


def one(data: bytes) -> None:
    """Read ``data`` whole, in pieces, octet by octet, and slowly: it has to come to the same."""
    octets, parts = pieces(data)
    with swift("content"):
        whole = _read([octets])
        require(_read(parts) == whole, "the split of the octets makes no difference")
        require(_read([octets[i : i + 1] for i in range(len(octets))]) == whole, "nor does one octet at a time")
    slow = slowly(octets)
    if slow[0] is None:
        # What is not over may show fewer faults than it has, and the last few octets may still become anything.
        require(whole[0] is None, "content ends only by CRLF . CRLF")
        require(slow[1].startswith(whole[1]), "nothing is written that is not content")
    else:
        require(whole == slow, "bulk reading comes to what reading octet by octet comes to")


def _read(parts: list[bytes]) -> Outcome:
    sink = _Sink()
    reader = ContentReader(sink, _LIMIT)
    rest: bytes | None = None
    for number, part in enumerate(parts):
        rest = reader.feed(part)
        if rest is not None:
            rest += b"".join(parts[number + 1 :])
            break
    return rest, sink.written.getvalue(), reader.fault


def slowly(octets: bytes) -> Outcome:
    """RFC 5321 sections 4.1.1.4, 4.5.2 and 2.3.8, by the letter."""
    content = bytearray()
    bare = False
    line_start = True
    at = 0
    while at < len(octets):
        if line_start and octets[at : at + 3] == b".\r\n":
            return _judged(octets[at + 3 :], bytes(content), bare)
        if line_start and octets[at : at + 1] == b".":
            at += 1  # stuffed
            line_start = False
            continue
        if octets[at : at + 2] == b"\r\n":
            content += b"\r\n"
            at += 2
            line_start = True
            continue
        bare = bare or octets[at] in b"\r\n"
        content.append(octets[at])
        at += 1
        line_start = False
    return None, bytes(content), None


def _judged(rest: bytes, content: bytes, bare: bool) -> Outcome:
    if bare:
        return rest, b"", BARE_LINE_END
    if len(content) > _LIMIT:
        return rest, b"", TOO_LARGE
    return rest, content, None
