"""What a link to unsubscribe says: whose mail to whom, and of which message, signed, so that nobody can be unsubscribed who has no link.

A token is base64url (RFC 4648 section 5, without padding) of a version (1 octet), the ids of message and project (16 each), the length of
the tag (1) and the tag, the address, and an HMAC-SHA256 of all that, cut to 16 octets. Nothing is kept for it, and it never expires: a link
has to work as long as somebody keeps the mail. It is not encrypted, whoever has it can read the address: they have the mail, too.
"""

from __future__ import annotations

import base64
import hmac
import re
import uuid

from attrs import frozen

_VERSION = b"\x01"
_MAC_OCTETS = 16
_IDS = slice(1, 33)
_TAG_LENGTH = 33
_LEAST = 34 + _MAC_OCTETS
_MOST = 2_000
"""Characters of a token that is looked at: more than one can have."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class NoLink(Exception):
    """A token is none of ours: ``cause`` is ``malformed`` or ``forged``."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@frozen
class Unsubscription:
    """What a token stands for."""

    message_id: str
    project_id: str
    address: str
    tag: str | None = None

    def token(self, key: bytes) -> str:
        """The token of it. Raises ValueError where an id is no UUID, or the tag has more than 255 octets."""
        tag = (self.tag or "").encode()
        ids = uuid.UUID(self.message_id).bytes + uuid.UUID(self.project_id).bytes
        signed = b"".join([_VERSION, ids, len(tag).to_bytes(1, "big"), tag, self.address.encode()])
        return base64.urlsafe_b64encode(signed + _mac(signed, key)).decode().rstrip("=")


def read(token: str, key: bytes) -> Unsubscription:
    """What a token stands for; raises NoLink."""
    if len(token) > _MOST or not _TOKEN.fullmatch(token) or len(token) % 4 == 1:
        raise NoLink("malformed")
    octets = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    if len(octets) < _LEAST or octets[:1] != _VERSION:
        raise NoLink("malformed")
    signed, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
    if not hmac.compare_digest(mac, _mac(signed, key)):
        raise NoLink("forged")
    # What is signed was made above, so it is well-formed.
    ids, rest = signed[_IDS], signed[_TAG_LENGTH + 1 :]
    length = signed[_TAG_LENGTH]
    return Unsubscription(
        message_id=str(uuid.UUID(bytes=ids[:16])),
        project_id=str(uuid.UUID(bytes=ids[16:])),
        address=rest[length:].decode(),
        tag=rest[:length].decode() or None,
    )


def _mac(signed: bytes, key: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")[:_MAC_OCTETS]
