"""The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677).

The mechanism speaks and parses; it holds no keys. The client's proof becomes credentials that a checker of ``twisted.cred`` tries against
the keys it knows (:meth:`ScramCredentials.verify`): user names are shared here, so there may be many. Once they have been verified,
``server_final`` is what proves the server to the client. SMTP has no place for data in its 235, so it goes out as one more challenge,
whose answer is empty (RFC 5802 section 5, RFC 4422 section 3.6), and the login holds only behind that answer.

Octets that are no SCRAM message raise :class:`~lettermta.smtp.sasl.MalformedResponse`. Everything else that is wrong (a downgraded
channel binding, another channel, a nonce that is not ours) goes on to the end and becomes credentials that verify with no key, so that
the client gets the answer of a wrong password, in the time of one. ``fault`` then says it for the log.

User names and tokens are printable ASCII, on which SASLprep (RFC 4013) changes nothing, so it is not done: a name that only becomes one
of ours by it is a wrong one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

from attrs import define, field, frozen
from twisted.cred.credentials import ICredentials
from zope.interface import Attribute, implementer

from lettermta.smtp.channel_binding import Binding, offers_plus
from lettermta.smtp.sasl import Challenge, MalformedResponse

SCRAM_SHA_256 = "SCRAM-SHA-256"
SCRAM_SHA_256_PLUS = "SCRAM-SHA-256-PLUS"

Salts = Callable[[bytes], tuple[bytes, int]]
"""Gives salt and iteration count of a user name: the same at each call, and for names that don't exist as well (RFC 5802 section 9)."""

_NAME = rb"(?:[^\x00-\x1f\x7f=,]|=2C|=3D)+"
_NONCE = rb"[!-+\--~]+"
_EXTENSIONS = rb"(?:,[A-Za-oq-z]=[^\x00-\x1f\x7f,]+)*"
# RFC 5802 section 7. A message that begins with the reserved m= is one that this server may not go on with, so it has no place here.
_CLIENT_FIRST = re.compile(
    rb"(?P<header>(?:(?P<flag>[ny])|p=(?P<binding>[A-Za-z0-9.-]+)),(?:a=" + _NAME + rb")?,)"
    rb"(?P<bare>n=(?P<name>" + _NAME + rb"),r=(?P<nonce>" + _NONCE + rb")" + _EXTENSIONS + rb")"
)
_CLIENT_FINAL = re.compile(
    rb"(?P<bare>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>" + _NONCE + rb")" + _EXTENSIONS + rb"),p=(?P<proof>[A-Za-z0-9+/=]+)"
)


class IScramCredentials(ICredentials):
    """What a checker gets of a SCRAM exchange."""

    username: bytes = Attribute("The name that the client gave.")
    fault: str = Attribute("Why the proof can verify with no key, for the log; empty when it can.")
    server_final: bytes | None = Attribute("The server's last message, once :meth:`verify` has been true.")

    def verify(stored_key: bytes, server_key: bytes) -> bool:
        """Whether the client's proof was made with the secret of these keys; takes the same time either way, in any thread."""


@implementer(IScramCredentials)
@define
class ScramCredentials:
    """A user name, and a proof of the secret that goes with it (RFC 5802 section 3)."""

    username: bytes
    fault: str
    _proof: bytes = field(repr=False)
    _message: bytes = field(repr=False)
    """AuthMessage: all that was said, without the proof."""
    _hash: str
    server_final: bytes | None = field(default=None, init=False, repr=False)

    def verify(self, stored_key: bytes, server_key: bytes) -> bool:
        """See IScramCredentials."""
        signature = hmac.digest(stored_key, self._message, self._hash)
        client_key = (int.from_bytes(signature, "big") ^ int.from_bytes(self._proof, "big")).to_bytes(len(signature), "big")
        if not hmac.compare_digest(hashlib.new(self._hash, client_key).digest(), stored_key) or self.fault:
            return False
        self.server_final = b"v=" + base64.b64encode(hmac.digest(server_key, self._message, self._hash))
        return True


def _nonce() -> str:
    return secrets.token_hex(16)


@frozen
class _Begun:
    """An exchange whose second half is awaited."""

    username: bytes
    nonce: bytes
    """The client's and ours."""
    binding: bytes
    """What ``c=`` has to be: the GS2 header, and the channel's octets where it is bound."""
    message: bytes
    """AuthMessage, as far as it goes."""
    fault: str


class Scram:
    """One exchange. ``plus``: the client chose the name that ends in -PLUS. ``binding`` is that of the channel it is made on."""

    def __init__(
        self,
        salts: Salts,
        binding: Binding,
        *,
        plus: bool,
        digest: str = "sha256",
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._salts = salts
        self._binding = binding
        self._plus = plus
        self._hash = digest
        self._nonce = nonce
        self._begun: _Begun | None = None

    def begin(self, initial: bytes | None) -> Challenge | ICredentials:
        """The client speaks first; without an initial response an empty challenge asks for it."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Challenge | ICredentials:
        """First client-first-message, then client-final-message."""
        if self._begun is None:
            self._begun, challenge = self._client_first(response)
            return challenge
        return self._client_final(self._begun, response)

    def _client_first(self, response: bytes) -> tuple[_Begun, Challenge]:
        match = _CLIENT_FIRST.fullmatch(response)
        if match is None or not _is_utf8(response):
            raise MalformedResponse
        username = match["name"].replace(b"=2C", b",").replace(b"=3D", b"=")
        fault, data = self._bound(match["flag"], (match["binding"] or b"").decode("ascii"))
        nonce = match["nonce"] + self._nonce().encode("ascii")
        salt, iterations = self._salts(username)
        server_first = b"r=%b,s=%b,i=%d" % (nonce, base64.b64encode(salt), iterations)
        return _Begun(username, nonce, match["header"] + data, match["bare"] + b"," + server_first, fault), Challenge(server_first)

    def _bound(self, flag: bytes | None, name: str) -> tuple[str, bytes]:
        """What is wrong with the client's choice of a channel binding, and the octets of it (RFC 5802 section 6)."""
        if flag is None and self._plus:
            data = self._binding(name)
            return ("", data) if data is not None else (f"channel binding {name[:40]} is not to be had on this channel", b"")
        if flag is None or self._plus:
            return "channel binding does not go with the mechanism", b""
        if flag == b"y" and offers_plus(self._binding):
            # The client would have bound the channel, had it seen our offer: somebody took that out.
            return "channel binding was downgraded", b""
        return "", b""

    def _client_final(self, begun: _Begun, response: bytes) -> ICredentials:
        match = _CLIENT_FINAL.fullmatch(response)
        if match is None or not _is_utf8(response):
            raise MalformedResponse
        proof, binding = _decode(match["proof"]), _decode(match["binding"])
        if len(proof) != hashlib.new(self._hash).digest_size:
            raise MalformedResponse
        fault = begun.fault
        if not hmac.compare_digest(match["nonce"], begun.nonce):
            fault = fault or "the nonce is not ours"
        if not hmac.compare_digest(binding, begun.binding):
            fault = fault or "the channel is bound to another one"
        return ScramCredentials(begun.username, fault, proof, begun.message + b"," + match["bare"], self._hash)


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode(text: bytes) -> bytes:
    """Base64 in its one canonical form: bits that count for nothing are zero (RFC 4648 section 3.5), so no other octets say the same."""
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise MalformedResponse from None
    if base64.b64encode(octets) != text:
        raise MalformedResponse
    return octets
