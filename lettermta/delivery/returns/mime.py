"""A message that came back, taken apart as far as telling what it is needs it (RFC 2045, 2046), whatever shape it is in.

Promises an answer for any octets, in time that grows with their number and no faster: nesting, parts, fields and texts are bounded, and
what goes beyond is left out. Nothing here raises. The standard library's parser is not used, as nesting makes it slow and ends in its
recursion limit.
"""

from __future__ import annotations

import binascii
import html
import quopri
import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from lettermta.header import decode_words

MOST_PARTS = 50
DEEPEST = 5
MOST_FIELDS = 500
LONGEST_TEXT = 32_768
"""Characters of the text that people read."""

_LONGEST_VALUE = 4_000
_PARAMETER = re.compile(r';\s*([\w*-]{1,40})\s*=\s*(?:"([^"]{0,200})"|([^\s;"]{1,200}))', re.ASCII)
_CHARSET = re.compile(
    r"utf-?8|us-ascii|iso-?8859-\d{1,2}|windows-125\d|cp125\d|koi8-[ru]|iso-2022-jp|shift_jis|euc-(?:jp|kr)|gb(?:2312|k|18030)|big5", re.I
)
_HIDDEN = ("style", "script", "head")

Fields = Mapping[str, str]
"""Values by their names in lower case: unfolded, encoded words decoded; of several fields of one name, the first."""


@frozen
class Part:
    """A leaf of the message, or a message in it."""

    type: str
    """In lower case; ``text/plain`` where none is told."""
    parameters: Mapping[str, str]
    fields: Fields
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        octets = self._decoded()
        charset = self.parameters.get("charset", "")
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            return octets.decode(charset if _CHARSET.fullmatch(charset) else "latin-1", "replace")

    @property
    def lines(self) -> bytes:
        """The body as octets without an encoding, each line ended by CRLF: what was base64 may have had other ends."""
        octets = self._decoded()
        return octets if octets is self.body else octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

    def _decoded(self) -> bytes:
        encoding = self.fields.get("content-transfer-encoding", "").lower()
        if encoding == "quoted-printable":
            return quopri.decodestring(self.body)
        if encoding == "base64":
            try:
                return binascii.a2b_base64(self.body[: len(self.body) // 4 * 4])
            except binascii.Error:
                return b""
        return self.body


@frozen
class Parsed:
    """A whole message."""

    fields: Fields
    type: str
    parameters: Mapping[str, str]
    parts: tuple[Part, ...]

    def first(self, *types: str) -> Part | None:
        """The first part of one of these types."""
        return next((part for part in self.parts if part.type in types), None)

    @property
    def reading(self) -> str:
        """What people read of it, before any message that it carries: on one line, with single blanks."""
        texts = []
        for part in self.parts:
            if part.type.startswith(("message/", "text/rfc822")):
                break
            if part.type == "text/plain":
                texts.append(part.text)
            elif part.type == "text/html" and not texts:
                texts.append(_without_tags(part.text))
        return " ".join(" ".join(texts)[:LONGEST_TEXT].split())


def parse(octets: bytes) -> Parsed:
    """Take a message apart."""
    head, body = _split(octets)
    fields = read_fields(head)
    kind, parameters = _content_type(fields)
    parts: list[Part] = []
    _collect(fields, body, parts, 0)
    return Parsed(fields, kind, parameters, tuple(parts))


def _collect(fields: Fields, body: bytes, parts: list[Part], depth: int) -> None:
    kind, parameters = _content_type(fields)
    boundary = parameters.get("boundary")
    if not kind.startswith("multipart/") or not boundary or depth >= DEEPEST:
        parts.append(Part(kind, parameters, fields, body))
        return
    default = "message/rfc822" if kind == "multipart/digest" else ""
    for piece in _pieces(body, boundary.encode("utf-8", "replace")):
        if len(parts) >= MOST_PARTS:
            return
        head, inner = _split(piece)
        own = read_fields(head)
        _collect({"content-type": default, **own} if default else own, inner, parts, depth + 1)


def _pieces(body: bytes, boundary: bytes) -> Iterator[bytes]:
    """What stands between the delimiters (RFC 2046 section 5.1.1); the last one may be missing."""
    begin: int | None = None
    for start, end, last in _delimiters(b"\r\n" + body, b"\r\n--" + boundary):
        # Less the two octets that were put before the body.
        if begin is not None:
            yield body[begin : max(start - 2, begin)]
        if last:
            return
        begin = end - 2
    if begin is not None:
        yield body[begin:]


def _delimiters(body: bytes, delimiter: bytes) -> Iterator[tuple[int, int, bool]]:
    """Where each delimiter begins, where what it begins does, and whether it is the last one. Longer boundaries may begin like it."""
    start = body.find(delimiter)
    while start >= 0:
        behind = start + len(delimiter)
        if body.startswith(b"--", behind):
            yield start, behind, True
            return
        line = body.find(b"\r\n", behind)
        if line < 0:
            return
        if not body[behind:line].strip(b" \t"):
            # The line end behind a delimiter may be the one before the next.
            yield start, line + 2, False
        start = body.find(delimiter, min(line, behind + 1000))


def _split(octets: bytes) -> tuple[bytes, bytes]:
    if octets.startswith(b"\r\n"):
        return b"", octets[2:]
    end = octets.find(b"\r\n\r\n")
    return (octets, b"") if end < 0 else (octets[: end + 2], octets[end + 4 :])


def read_fields(head: bytes) -> dict[str, str]:
    """The fields of a block; lines that are none are passed over."""
    found: dict[str, str] = {}
    name = ""
    value: list[str] = []

    def note() -> None:
        if name and name not in found and len(found) < MOST_FIELDS:
            found[name] = decode_words(" ".join(value)[:_LONGEST_VALUE]).strip()

    for line in head.decode("utf-8", "replace").split("\r\n"):
        if line[:1] in (" ", "\t"):
            if len(value) < 100:
                value.append(line.strip())
            continue
        note()
        name, colon, rest = line.partition(":")
        name, value = (name.strip().lower() if colon and " " not in name.strip() else ""), [rest.strip()]
    note()
    return found


def _content_type(fields: Fields) -> tuple[str, Mapping[str, str]]:
    value = fields.get("content-type", "")
    kind = value.partition(";")[0].strip().lower()
    parameters = {match[1].lower(): match[2] if match[2] is not None else match[3] for match in _PARAMETER.finditer(value)}
    return kind if "/" in kind else "text/plain", parameters


def _without_tags(text: str) -> str:
    """The text of HTML: tags are blanks, and what isn't shown is left out."""
    shown: list[str] = []
    hidden = ""
    for piece in text[: 4 * LONGEST_TEXT].split("<"):
        tag, closed, rest = piece.partition(">")
        name = tag.strip().partition(" ")[0].lower()
        if not closed:
            rest = piece if not shown and not hidden else ""
        if hidden:
            if name == f"/{hidden}":
                hidden = ""
                shown.append(rest)
        elif name in _HIDDEN:
            hidden = name
        else:
            shown.append(rest)
    return html.unescape(" ".join(shown))
