"""The DKIM-Signature fields of one message (RFC 6376 section 3.5): one for each key, ready to stand on top of its header block.

What is signed, and how often, is decided here: each field that tells what a message is and whom it is from is signed once more often than
it is there, so that none can be added unseen (section 8.15; HARD-CASES row 33). There is no ``l=`` (section 8.2) and no ``x=``, as mail may
be in a queue of somebody's for days.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from lettermta.accounts.dkim_keys import PrivateKey
from lettermta.delivery.dkim.canonical import relaxed_value

_OVERSIGNED = (
    *(b"from", b"to", b"cc", b"subject", b"date", b"message-id", b"reply-to", b"content-type", b"mime-version"),
    *(b"content-transfer-encoding", b"list-id", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-help"),
    *(b"list-post", b"list-owner", b"list-archive"),
)
"""Signed once more often than they are there."""
_SIGNED = (
    *(b"sender", b"in-reply-to", b"references", b"feedback-id", b"resent-date", b"resent-from", b"resent-sender", b"resent-to"),
    *(b"resent-cc", b"resent-message-id"),
)
"""Signed as often as they are there (RFC 6376 section 5.4.1)."""
_OTHER_LIST = re.compile(rb"list-[!-9<-~]{1,60}")
"""Any other field on a list whose name can stand in ``h=``, which none with a semicolon can (RFC 6376 section 2.9)."""
_MOST_OTHERS = 20
"""Names of these that are signed, so that nobody can make a signature of any length by them."""
_WANTED = frozenset(_OVERSIGNED + _SIGNED)
_WIDTH = 72

_PADDING, _SHA256 = PKCS1v15(), SHA256()


@frozen
class Signing:
    """A key at work: what is said of it in the field, and what makes a signature of the octets to be signed."""

    domain: bytes
    selector: bytes
    algorithm: bytes
    sign: Callable[[bytes], bytes]


def signing(domain: str, selector: str, key: PrivateKey) -> Signing:
    """A key put to work (RFC 8301 section 3.1, RFC 8463 section 3: Ed25519 signs the hash)."""
    names = (domain.encode(), selector.encode())
    if isinstance(key, RSAPrivateKey):
        return Signing(*names, b"rsa-sha256", lambda data: key.sign(data, _PADDING, _SHA256))
    return Signing(*names, b"ed25519-sha256", lambda data: key.sign(hashlib.sha256(data).digest()))


def signatures(fields: Sequence[tuple[bytes, bytes]], body_hash: bytes, keys: Sequence[Signing], now: float) -> bytes:
    """The signatures as header fields, each ended by CRLF; ``fields`` as ``split_fields`` gives them."""
    names, signed = _signed(fields)
    listed = _folded(names)
    hashed = base64.b64encode(body_hash)
    made = []
    for key in keys:
        parts = (key.algorithm, key.domain, key.selector, now, hashed, listed)
        value = b" v=1; a=%b; c=relaxed/relaxed;\r\n d=%b;\r\n s=%b; t=%d;\r\n bh=%b;\r\n h=%b;\r\n b=" % parts
        # Its own relaxed form, with nothing behind b= and no CRLF (section 3.7).
        signature = key.sign(b"%bdkim-signature:%b" % (signed, value[1:].replace(b"\r\n ", b" ")))
        made.append(b"DKIM-Signature:%b%b\r\n" % (value, _wrapped(base64.b64encode(signature))))
    return b"".join(made)


def _signed(fields: Sequence[tuple[bytes, bytes]]) -> tuple[list[bytes], bytes]:
    """The names for ``h=``, and the relaxed form of what they name: of several fields of one name the last comes first (section 5.4.2)."""
    there: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if name in _WANTED or _OTHER_LIST.fullmatch(name):
            there.setdefault(name, []).append(value)
    names: list[bytes] = []
    signed: list[bytes] = []
    others = [name for name in there if name not in _WANTED][:_MOST_OTHERS]
    for name in (*_OVERSIGNED, *others):
        values = there.get(name, ())
        names += [name] * (len(values) + 1)
        signed += [b"%b:%b\r\n" % (name, relaxed_value(value)) for value in reversed(values)]
    for name in _SIGNED:
        values = there.get(name, ())
        names += [name] * len(values)
        signed += [b"%b:%b\r\n" % (name, relaxed_value(value)) for value in reversed(values)]
    return names, b"".join(signed)


def _folded(names: Sequence[bytes]) -> bytes:
    """``h=`` over as many lines as it takes; white space may stand around the colons."""
    lines: list[bytes] = []
    line = names[0]
    for name in names[1:]:
        if len(line) + len(name) >= _WIDTH:
            lines.append(line + b":")
            line = name
        else:
            line = b"%b:%b" % (line, name)
    return b"\r\n ".join([*lines, line])


def _wrapped(text: bytes) -> bytes:
    return b"\r\n ".join([text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)])
