"""The relaxed canonical forms of header fields and bodies (RFC 6376 sections 3.4.2 and 3.4.4), in bulk and in pieces.

Only SP and HTAB are white space here and only CRLF ends a line, whatever else the content holds. A body may come in pieces cut anywhere:
its hash is the same for every way of cutting, and what is held between two pieces is some octets and a number, however many blank lines
there are. Time is in proportion to the octets.
"""

from __future__ import annotations

import hashlib
import re

_TABS = bytes.maketrans(b"\t", b" ")
_TAIL = re.compile(rb"\r? ?(?:\n\r)*+")
"""The end of a piece, from back to front: what may still turn out to be the end of the body, or of a line."""
_BLANK_LINES = b"\r\n" * 4096


def split_fields(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a header block as (name in lower case, unfolded value), in their order."""
    unfolded = head.translate(_TABS).replace(b"\r\n ", b" ")
    fields = []
    for line in unfolded.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.rstrip(b" ").lower(), value))
    return fields


def relaxed_value(value: bytes) -> bytes:
    """An unfolded value without tabs: each run of white space is one space, and there is none at its ends."""
    return b" ".join([word for word in value.split(b" ") if word])


class BodyHash:
    """SHA-256 of a body's relaxed form."""

    __slots__ = ("_blank", "_carry", "_hash", "_some")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._some = False
        self._blank = 0
        """CRLFs that are not in the hash yet: they count only when something comes behind them."""
        self._carry = b""
        """The beginning of what may end a line: a space, a CR, or both."""

    def update(self, piece: bytes) -> None:
        """Take the next octets."""
        data = self._carry + piece if self._carry else piece
        if b"\t" in data:
            data = data.translate(_TABS)
        while b"  " in data:
            data = data.replace(b"  ", b" ")
        data = data.replace(b" \r\n", b"\r\n")
        end = len(data.rstrip(b" \r\n"))
        match = _TAIL.match(data[: end - 1 if end else None : -1])
        tail = data[len(data) - match.end() :] if match is not None and match.end() else b""
        text = data[: len(data) - len(tail)]
        if text:
            self._take(text)
        blank = tail.count(b"\r\n")
        self._blank += blank
        self._carry = tail[2 * blank :]

    def _take(self, text: bytes) -> None:
        while self._blank:
            lines = min(self._blank, len(_BLANK_LINES) // 2)
            self._hash.update(_BLANK_LINES[: 2 * lines])
            self._blank -= lines
        self._hash.update(text)
        self._some = True

    def digest(self) -> bytes:
        """The hash, once all is taken: blank lines at the end are ignored, and a last line without an end is given one."""
        if self._carry.endswith(b"\r"):
            self._take(self._carry)
            self._carry = b""
        if self._some:
            self._hash.update(b"\r\n")
            self._some = False
        return self._hash.digest()


def body_hash(body: bytes) -> bytes:
    """The hash of a whole body."""
    hashed = BodyHash()
    hashed.update(body)
    return hashed.digest()
