"""What leaves, made ready for its server (lettermta.delivery.conversion, lettermta.delivery.dkim): 7-bit forms, and what is signed."""

from __future__ import annotations

import hashlib
import re

from fuzz.promises import pieces, pumped, require, swift
from lettermta.delivery.conversion import Inconvertible, to_seven_bit
from lettermta.delivery.dkim.canonical import BodyHash, body_hash, relaxed_value, split_fields
from lettermta.smtp.client_content import with_crlf

TOKENS = (
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"--b",
    b"--b--",
    b"MIME-Version: 1.0\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
    b'Content-Type: multipart/digest; boundary="b "\r\n\r\n',
    b"Content-Type: multipart/signed; boundary=b\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Type: text/plain; charset=utf-8; boundary*=utf-8''%FF\r\n",
    b"Content-Type: application/octet-stream\r\n",
    b"Content-Transfer-Encoding: 8bit\r\n",
    b"Content-Transfer-Encoding: binary\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"\xc3\xbc",
    b"\xff",
    b" ",
    b"\t",
    b"=",
    b".",
    b"\0",
    b"\n",
    b"\r",
)


def one(data: bytes) -> None:
    """Convert ``data`` as binary content and, with its lines' ends made right, as text; hash it whole and in pieces."""
    for octets in pumped(data):
        text = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
        _convert(octets, binary=True)
        _convert(text, binary=False)
        _hash(octets)


def _convert(message: bytes, *, binary: bool) -> None:
    with swift("a conversion"):
        try:
            made = with_crlf(to_seven_bit(message, binary=binary))
            require(to_seven_bit(made, binary=False) == made, "what is converted needs no conversion")
        except Inconvertible:
            return


def _hash(body: bytes) -> None:
    rest, parts = pieces(body)
    with swift("a hash"):
        hashed = BodyHash()
        for part in parts:
            hashed.update(part)
        require(hashed.digest() == body_hash(rest), "the hash is the same for every way of cutting")
        require(body_hash(rest) == hashlib.sha256(_relaxed(rest)).digest(), "the hash is that of the relaxed form")
        for name, value in split_fields(rest):
            require(b"\r\n" not in relaxed_value(value) and b"\r\n" not in name, "a field in its relaxed form is one line")


def _relaxed(body: bytes) -> bytes:
    """RFC 6376 section 3.4.4, read aloud."""
    body = re.sub(rb"[ \t]+", b" ", body).replace(b" \r\n", b"\r\n").removesuffix(b" ")
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body else b""
