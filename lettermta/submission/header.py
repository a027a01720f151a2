"""A message's header block at the level of octets (RFC 5322 section 2.2), and the texts in it (RFC 2047, RFC 6532).

The block is split once; fields keep their octets, so what is not ours to change leaves as it came.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Sequence
from email.errors import HeaderParseError
from email.header import decode_header
from email.utils import getaddresses

from attrs import frozen

from lettermta.message import Refused, Reply

_SIMPLE_ADDRESS = re.compile(r'\s*(?:"?([^"<>,@()\\:;]*?)"?\s*<)?([^<>@\s,;:"()\\\[\]]+@[^<>@\s,;:"()\\\[\]]+)>?\s*')


@frozen
class Field:
    """One header field: its name as written, in lower case for comparing, and all its octets with the CRLF that ends it."""

    name: str
    key: str
    raw: bytes

    @property
    def text(self) -> str:
        """The value: unfolded, encoded words decoded, blanks at both ends stripped."""
        return decode_text(self.raw[len(self.name) + 1 :])


def split_fields(head: bytes) -> list[Field]:
    """The fields of a header block, in their order. A line that is no field refuses the message."""
    fields: list[Field] = []
    start = 0
    while start < len(head):
        end = head.index(b"\r\n", start) + 2
        while head[end : end + 1] in (b" ", b"\t"):
            end = head.index(b"\r\n", end) + 2
        raw = head[start:end]
        name, colon, _ = raw.partition(b":")
        if not colon or not name or name[0] in b" \t" or b"\r" in name:
            raise Refused(Reply(550, "5.6.0", f"Header line {len(fields) + 1} is not of the form Name: value (RFC 5322 section 2.2)"))
        written = name.decode("utf-8", "replace")
        fields.append(Field(written, written.rstrip().lower(), raw))
        start = end
    return fields


def decode_text(value: bytes) -> str:
    """A field's value as text: CRLF of folds taken out (RFC 5322 section 2.2.3), then RFC 2047, then the blanks at both ends."""
    text = value.replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")
    if "=?" not in text:
        return text
    try:
        parts = decode_header(text)
    except (HeaderParseError, binascii.Error, ValueError):
        return text
    return "".join(_decode_part(part, charset) for part, charset in parts).strip(" \t")


def _decode_part(part: bytes | str, charset: str | None) -> str:
    if isinstance(part, str):
        return part
    try:
        # decode_header gives back what is not an encoded word in this codec of its own choice.
        return part.decode(charset or "raw-unicode-escape", "replace")
    except (LookupError, UnicodeDecodeError):
        return part.decode("utf-8", "replace")


def mailboxes(values: Iterable[str]) -> Sequence[tuple[str, str]]:
    """The mailboxes of address fields as (display name, address); what is no address is left out."""
    found: list[tuple[str, str]] = []
    for value in values:
        match = _SIMPLE_ADDRESS.fullmatch(value)
        if match is not None:
            found.append(((match[1] or "").strip(), match[2]))
        else:
            found += [(name, address) for name, address in getaddresses([value]) if "@" in address]
    return found
