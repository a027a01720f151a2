"""8-bit and binary content for servers that take 7-bit content alone (RFC 6152 section 3, RFC 3030 section 3).

Leaf parts that need it become quoted-printable (text) or base64 (anything else); the parts around them get the right
Content-Transfer-Encoding, and everything else stays as it is, octet by octet. What the result decodes to is what the original did.

Header fields are never touched. What can't be converted is said so (:class:`Inconvertible`) and never sent in part: what a signature covers
(multipart/signed), fragments (message/partial), and what is not what its header says. Text without MIME becomes MIME, by RFC 1428.
"""

from __future__ import annotations

import base64
import binascii
import re

from attrs import define, frozen

from lettermta.delivery.leaving import split

_LONGEST_LINE = 998
_DEEPEST = 50
_CHUNK = 262_144
"""Octets that are encoded in one call: it is made in a thread, but keeps Python's lock."""
_BEHIND_BOUNDARY = re.compile(rb"(--)?[ \t]*(?=\r\n|\Z)")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_TYPE = re.compile(r"\s*([^\s()<>@,;:\\\"/\[\]?=]+/[^\s()<>@,;:\\\"/\[\]?=]+)")
_PARAMETER = re.compile(r';\s*([^\s=;"]{1,40})\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]+))', re.DOTALL)
_COMMENT = re.compile(r"\([^()]*\)")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_IDENTITY = frozenset({"7bit", "8bit", "binary"})
_SEALED = frozenset({"multipart/signed", "multipart/encrypted", "message/partial", "message/external-body"})
_MESSAGES = frozenset({"message/rfc822", "message/global", "message/news"})


class Inconvertible(Exception):
    """There is no 7-bit form; the text says why."""


def to_seven_bit(whole: bytes, *, binary: bool) -> bytes:
    """A message in 7-bit form; ``binary``: it may hold what isn't lines, too. Raises Inconvertible."""
    head, body = split(whole)
    _check(head, binary)
    if _clean(body, binary):
        return whole
    return _message(head, body, binary, 0)


def _clean(octets: bytes, binary: bool) -> bool:
    if not octets.isascii():
        return False
    return not binary or not (_has_bare(octets) or any(len(line) > _LONGEST_LINE for line in octets.split(b"\r\n")))


def _has_bare(octets: bytes) -> bool:
    """Whether there is a CR or LF that is not part of a CRLF, or a NUL."""
    ends = octets.count(b"\r\n")
    return octets.count(b"\n") != ends or octets.count(b"\r") != ends or b"\0" in octets


def _check(head: bytes, binary: bool) -> None:
    """A header block of binary content has to be lines all the same, or it would have another end once it is brought to them."""
    if binary and _has_bare(head):
        raise Inconvertible("a header with bare line ends")


def _message(head: bytes, body: bytes, binary: bool, depth: int) -> bytes:
    """A whole message: one without MIME gets it (RFC 1428), and MIME without its version number gets that."""
    fields = _Fields(head)
    if fields.get("mime-version") is None:
        if fields.get("content-type") is None:
            fields.put("Content-Type", f"text/plain; charset={_charset(body)}")
        fields.put("MIME-Version", "1.0")
    return _entity(fields, body, "text/plain", binary, depth)


def _part(octets: bytes, default: str, binary: bool, depth: int) -> bytes:
    if _clean(octets, binary):
        return octets
    if not octets.startswith(b"\r\n") and b"\r\n\r\n" not in octets:
        raise Inconvertible("a part without an end to its header")
    head, body = split(octets)
    return _entity(_Fields(head), body, default, binary, depth)


def _entity(fields: _Fields, body: bytes, default: str, binary: bool, depth: int) -> bytes:
    """Header and body of one entity, converted."""
    _check(fields.octets, binary)
    if depth > _DEEPEST:
        raise Inconvertible(f"parts within parts, more than {_DEEPEST} deep")
    if _clean(body, binary):
        return fields.octets + b"\r\n" + body
    kind = _Kind(fields.get("content-type") or default)
    encoding = _COMMENT.sub("", fields.get("content-transfer-encoding") or "7bit").strip().lower()
    if encoding not in _IDENTITY:
        raise Inconvertible(f"a part says that it is {encoding}, and has octets that are not")
    if kind.name in _SEALED:
        raise Inconvertible(f"{kind.name} must not be changed")
    if kind.name.startswith("multipart/"):
        fields.relabel("7bit")
        return fields.octets + b"\r\n" + _multipart(kind, body, binary, depth + 1)
    if kind.name in _MESSAGES:
        fields.relabel("7bit")
        head, inner = split(body)
        _check(head, binary)
        return fields.octets + b"\r\n" + (body if _clean(inner, binary) else _message(head, inner, binary, depth + 1))
    if kind.name.startswith("text/") and not _has_bare(body):
        fields.put("Content-Transfer-Encoding", "quoted-printable")
        return fields.octets + b"\r\n" + _quoted_printable(body)
    fields.put("Content-Transfer-Encoding", "base64")
    return fields.octets + b"\r\n" + base64.encodebytes(body).replace(b"\n", b"\r\n").removesuffix(b"" if not depth else b"\r\n")


def _multipart(kind: _Kind, body: bytes, binary: bool, depth: int) -> bytes:
    """The parts one by one (RFC 2046 section 5.1.1); what stands around them is shown to nobody."""
    if not kind.boundary:
        raise Inconvertible(f"{kind.name} without a boundary")
    marks = _delimiters(body, b"--" + kind.boundary)
    if not marks or marks[0].last:
        raise Inconvertible(f"{kind.name} without parts")
    default = "message/rfc822" if kind.name == "multipart/digest" else "text/plain"
    done = marks[0].start
    pieces = [body[:done] if _clean(body[:done], binary) else b""]
    for number, mark in enumerate(marks):
        if mark.last:
            break
        start = mark.end + 2
        end = marks[number + 1].start if number + 1 < len(marks) else len(body)
        if start <= end:
            pieces += (body[done:start], _part(body[start:end], default, binary, depth))
            done = end
    rest = body[done:]
    if not _clean(rest, binary):
        rest = rest[: rest.index(b"\r\n", 2) + 2]  # the last delimiter, without what is behind it
    return b"".join([*pieces, rest])


@frozen
class _Mark:
    """A delimiter with the line end before it; the one behind it is not part of it. ``last``: no part follows."""

    start: int
    end: int
    last: bool


def _delimiters(body: bytes, needle: bytes) -> list[_Mark]:
    marks = []
    at = body.find(needle)
    while at >= 0:
        found = _BEHIND_BOUNDARY.match(body, at + len(needle))
        if found is not None and (at == 0 or body[at - 2 : at] == b"\r\n"):
            marks.append(_Mark(max(at - 2, 0), found.end(), found[1] is not None))
        at = body.find(needle, at + len(needle))
    return marks


def _quoted_printable(text: bytes) -> bytes:
    """RFC 2045 section 6.7. The codec goes by the first line's end, so there has to be one."""
    encoded = []
    start = 0
    while start < len(text):
        end = text.find(b"\r\n", start + _CHUNK)
        end = len(text) if end < 0 else end + 2
        encoded.append(binascii.b2a_qp(b"\r\n" + text[start:end], istext=True)[2:])
        start = end
    return b"".join(encoded)


def _charset(body: bytes) -> str:
    try:
        body.decode()
    except UnicodeDecodeError:
        return "unknown-8bit"
    return "utf-8"


class _Kind:
    """What a Content-Type says (RFC 2045 section 5.1), read here, since the standard library's reader fails on some of what there is."""

    def __init__(self, value: str) -> None:
        named = _TYPE.match(value)
        # RFC 2045 section 5.2: what can't be read is plain text.
        self.name = named[1].lower() if named is not None else "text/plain"
        self.boundary = b""
        if self.name.startswith("multipart/"):
            for parameter in _PARAMETER.finditer(value):
                if parameter[1].lower() == "boundary":
                    text = parameter[3] if parameter[2] is None else _QUOTED_PAIR.sub(r"\1", parameter[2])
                    self.boundary = text.encode("latin-1").rstrip(b" ")
                    break


@define
class _Fields:
    """A header block whose fields on the encoding can be set."""

    octets: bytes

    def _all(self) -> list[bytes]:
        return [field for field in _FIELD_END.split(self.octets) if field]

    def get(self, name: str) -> str | None:
        """The first field of that name, unfolded."""
        for field in self._all():
            key, colon, value = field.partition(b":")
            if colon and _is(key, name):
                return value.replace(b"\r\n", b"").decode("latin-1").strip()
        return None

    def put(self, name: str, value: str) -> None:
        """Have one field of that name, in the place of the first one that there was."""
        kept: list[bytes] = []
        field = f"{name}: {value}".encode("latin-1")
        placed = False
        for old in self._all():
            if not _is(old.partition(b":")[0], name.lower()):
                kept.append(old)
            elif not placed:
                kept.append(field)
                placed = True
        if not placed:
            kept.append(field)
        self.octets = b"".join([old + b"\r\n" for old in kept])

    def relabel(self, encoding: str) -> None:
        """Change the encoding that is named, if any is."""
        if self.get("content-transfer-encoding") is not None:
            self.put("Content-Transfer-Encoding", encoding)


def _is(key: bytes, name: str) -> bool:
    return key.rstrip(b" \t").lower() == name.encode()
