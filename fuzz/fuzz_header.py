"""The header block (lettermta.header): fields, encoded words, mailboxes."""

from __future__ import annotations

from fuzz.promises import clean, pumped, require, swift
from lettermta.header import decode_words, mailboxes, split_fields
from lettermta.message import Refused

TOKENS = (
    *(
        b'From: To: Subject: : , ; < > ( ) " \\ @ =? ?= ?Q? ?B? =?utf-8?q? =?utf-8?b? =?iso-2022-jp?b? =?utf-7?q? =?utf-16?b? =?x?q? _ =0A '
        b'=0D=0A w6k= a@b.example <a@b.example> "quo\\"ted" group:'.split()
    ),
    b"\n ",
    b"\n\t",
    b"\n",
    b"\r",
    b"\0",
    b"\xc3\xa9",
    b"\xff",
)


def head_of(data: bytes) -> bytes:
    """``data`` as a content's buffer would give it: lines ended by CRLF, no bare CR or LF, no empty one."""
    return b"".join(line + b"\r\n" for line in data.replace(b"\r", b"").split(b"\n") if line)


def one(data: bytes) -> None:
    """Split ``data``, as it is and pumped, into fields, and read each of them as text and as addresses."""
    for octets in pumped(data):
        head = head_of(octets)
        with swift("a header block"):
            try:
                fields = split_fields(head)
            except Refused as refused:
                clean(refused.reply.text, "a reply")
                fields = []
            else:
                require(b"".join([field.raw for field in fields]) == head, "no octet of the block is lost")
            for field in fields:
                clean(field.unfolded.translate(_HARMLESS), "an unfolded value")
                field.text.encode()
            values = [field.unfolded for field in fields] or [head.decode("utf-8", "replace")]
            _texts(values)


_HARMLESS = dict.fromkeys((*range(1, 10), 11, 12, *range(14, 32), 127))
"""Control characters that may stand in a value, though no reasonable client sends them: those that neither end a line nor a string."""


def _texts(values: list[str]) -> None:
    for value in values:
        decode_words(value).encode()
    for name, address in mailboxes(values):
        require("@" in address, "an address has an @")
        name.encode()
