"""A message's header block at the level of octets (RFC 5322 section 2.2), and the texts in it (RFC 2047, RFC 6532).

The block is split once; fields keep their octets, so what is not ours to change leaves as it came. Reading takes time in proportion to
the octets, whatever they are: a client can't stall the reactor by a field of some 100 KB made for it.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Iterable, Sequence

from attrs import frozen

from lettermta.message import Refused, Reply

_WORD = re.compile(r"=\?([^?\s]{1,64})\?([bBqQ])\?([^?]*)\?=")
"""An encoded word (RFC 2047 section 2); blanks within it and any length are taken, since clients send them."""
_CHARSET = re.compile(
    r"(us-ascii|utf-?(?:7|8|(?:16|32)(?:[bl]e)?)|iso-?8859-?\d{1,2}(?:-[ei])?|(?:windows-|cp)\d{3,4}|koi8-[rut]|macintosh|tis-620"
    r"|gb(?:2312|k|18030)|big5(?:-hkscs)?|hz-gb-2312|euc-(?:jp|kr)|shift[_-]jis|iso-2022-(?:jp|kr)(?:-\w{1,3})?|ks_c_5601-1987)(?:\*.*)?",
    re.ASCII | re.IGNORECASE,
)
"""The charsets that mail is written in, maybe with a language behind them (RFC 2231 section 5). Not whatever Python calls an encoding: some
of those take quadratic time, and each unknown name would be looked for on the disk and remembered for good."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|<[^<>]*+>?|[(),;:]|[^"<(),;:]++', re.DOTALL)
"""What address fields are made of (RFC 5322 section 3.4): quoted strings, angle addresses, punctuation, and anything else."""
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


@frozen
class Field:
    """One header field: its name as written, in lower case for comparing, and all its octets with the CRLF that ends it."""

    name: str
    key: str
    raw: bytes

    @property
    def unfolded(self) -> str:
        """The value with the CRLF of its folds taken out (RFC 5322 section 2.2.3) and blanks at both ends stripped."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace").strip(" \t")

    @property
    def text(self) -> str:
        """The value: unfolded, encoded words decoded, blanks at both ends stripped."""
        return decode_words(self.unfolded).strip(" \t")


def split_fields(head: bytes) -> list[Field]:
    """The fields of a header block, in their order. A line that is no field or has no end, or a NUL anywhere, refuses the message; so does
    a CR or LF alone, which BODY=BINARYMIME lets come this far: behind it could be a field that others see, and we don't.
    """
    if b"\0" in head:
        raise Refused(Reply(550, "5.6.0", "A NUL in the header block (RFC 5322 section 2.2)"), "broken header", "header")
    if head and not head.endswith(b"\r\n"):  # what comes by BDAT ends anywhere
        raise Refused(Reply(550, "5.6.0", "The last header line does not end in CRLF (RFC 5322 section 2.2)"), "broken header", "header")
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise Refused(Reply(550, "5.6.0", "A bare CR or LF in the header block (RFC 5322 section 2.2)"), "broken header", "header")
    fields: list[Field] = []
    start = 0
    while start < len(head):
        end = head.index(b"\r\n", start) + 2
        while head[end : end + 1] in (b" ", b"\t"):
            end = head.index(b"\r\n", end) + 2
        raw = head[start:end]
        name, colon, _ = raw.partition(b":")
        if not colon or not name or name[0] in b" \t" or b"\r" in name:
            rule = f"Header line {len(fields) + 1} is not of the form Name: value (RFC 5322 section 2.2)"
            raise Refused(Reply(550, "5.6.0", rule), "broken header", "header")
        written = name.decode("utf-8", "replace")
        fields.append(Field(written, written.rstrip().lower(), raw))
        start = end
    return fields


def decode_words(text: str) -> str:
    """Replace the encoded words in an unfolded value by what they say (RFC 2047); one that can't be decoded stays as it is written.

    Blanks between two words are dropped (section 6.2), and neighbours of one charset are decoded together: some clients split a character
    between them, in spite of section 5.
    """
    if "=?" not in text:
        return text
    out: list[str] = []
    octets, charset, end = b"", "", 0
    for word in _WORD.finditer(text):
        said, its_charset = _word_octets(word[2], word[3]), _charset(word[1])
        if said is None or its_charset is None:
            continue  # it is text like what is around it
        between = text[end : word.start()]
        if charset and not between.strip(" \t"):
            between = ""
        if between or its_charset != charset:
            out += (_decoded(octets, charset), between)
            octets, charset = b"", its_charset
        octets += said
        end = word.end()
    out += (_decoded(octets, charset), text[end:])
    return "".join(out)


def _word_octets(encoding: str, said: str) -> bytes | None:
    try:
        if encoding in "qQ":
            return binascii.a2b_qp(said.encode("ascii"), header=True)
        # Missing padding is the fault seen most, and does no harm.
        bare = said.encode("ascii").rstrip(b"=")
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except ValueError:
        return None


def _charset(name: str) -> str | None:
    """The charset of a word, in lower case, if it is one that can be decoded."""
    match = _CHARSET.fullmatch(name)
    try:
        return None if match is None else codecs.lookup(match[1].lower()).name
    except LookupError:
        return None


def _decoded(octets: bytes, charset: str) -> str:
    # UTF-7 and UTF-16 can smuggle half a character in, which no JSON can carry.
    return octets.decode(charset, "replace").encode("utf-8", "replace").decode() if octets else ""


def mailboxes(values: Iterable[str]) -> Sequence[tuple[str, str]]:
    """The mailboxes of address fields, from their unfolded values, as (display name, address); what is no address is left out.

    Encoded words are decoded last, so that no comma in a name can part it, and no address can be made up in one.
    """
    return [mailbox for value in values for part in _parts(value) if (mailbox := _mailbox(part)) is not None]


def _parts(value: str) -> Iterable[list[str]]:
    """The tokens of each mailbox in an address list; comments and the names of groups are left out."""
    part: list[str] = []
    comments = 0
    for word in _TOKEN.findall(value):
        if word == "(":
            comments += 1
        elif word == ")":
            comments = max(comments - 1, 0)
        elif comments:
            continue
        elif word in (",", ";"):
            yield part
            part = []
        elif word == ":":
            part = []
        else:
            part.append(word)
    yield part


def _mailbox(part: Sequence[str]) -> tuple[str, str] | None:
    angles = [token for token in part if token[0] == "<"]
    if not angles:
        address = "".join(part).strip()
        bare = "".join([token for token in part if token[0] != '"']).strip()
        return ("", address) if "@" in bare and " " not in bare else None
    address = angles[-1].strip("<> ")
    name = "".join([_unquoted(token) for token in part if token[0] != "<"])
    return (decode_words(name.strip()), address) if "@" in address else None


def _unquoted(token: str) -> str:
    return _QUOTED_PAIR.sub(r"\1", token[1:].removesuffix('"')) if token[0] == '"' else token
