"""The server's side of SASL: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login) and CRAM-MD5 (RFC 2195).

A mechanism turns the client's responses into credentials for a ``twisted.cred`` portal; it compares nothing and logs nothing itself.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.cred.credentials import ICredentials, IUsernameHashedPassword, UsernamePassword
from zope.interface import implementer

MAX_RESPONSE = 12_288
"""Octets of one response line (RFC 4954 section 4, 'Line Length')."""


class MalformedResponse(ValueError):
    """The client's response does not follow the mechanism."""


@define
class Challenge:
    """The server's next challenge, not yet encoded."""

    octets: bytes


class Mechanism(Protocol):
    """One exchange of one mechanism."""

    def begin(self, initial: bytes | None) -> Challenge | ICredentials:
        """Start, with the initial response if the client sent one; raises MalformedResponse."""

    def respond(self, response: bytes) -> Challenge | ICredentials:
        """Go on with the client's response to the last challenge; raises MalformedResponse."""


class Plain:
    """PLAIN: one response that holds everything."""

    def begin(self, initial: bytes | None) -> Challenge | ICredentials:
        """The initial response, or an empty challenge that asks for it."""
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Challenge | ICredentials:
        """``[authzid] NUL authcid NUL passwd`` (RFC 4616 section 2); the authorization identity is not used."""
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise MalformedResponse
        return UsernamePassword(parts[1], parts[2])


class Login:
    """LOGIN: user name and password, one after the other."""

    def __init__(self) -> None:
        self._username: bytes | None = None

    def begin(self, initial: bytes | None) -> Challenge | ICredentials:
        """An initial response is the user name."""
        return Challenge(b"Username:") if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Challenge | ICredentials:
        """First the user name, then the password."""
        if not response:
            raise MalformedResponse
        if self._username is None:
            self._username = response
            return Challenge(b"Password:")
        return UsernamePassword(self._username, response)


@implementer(IUsernameHashedPassword)
@define
class CRAMMD5Credentials:
    """A user name and the digest of our challenge under the user's secret."""

    username: bytes
    challenge: bytes
    digest: bytes = field(repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """Whether the digest was made with ``password``; takes the same time either way."""
        return hmac.compare_digest(hmac.digest(password, self.challenge, "md5").hex().encode(), self.digest)


class CRAMMD5:
    """CRAM-MD5: the server speaks first, so an initial response is a fault (RFC 4954 section 4)."""

    def __init__(self, hostname: str) -> None:
        # Unpredictable, or an eavesdropper could collect answers in advance; in the form of a msg-id (RFC 2195 section 2).
        self._challenge = f"<{secrets.token_hex(16)}@{hostname}>".encode()

    def begin(self, initial: bytes | None) -> Challenge | ICredentials:
        """The challenge."""
        if initial is not None:
            raise MalformedResponse
        return Challenge(self._challenge)

    def respond(self, response: bytes) -> Challenge | ICredentials:
        """``user SP digest``, the digest in lower-case hexadecimal."""
        username, blank, digest = response.rpartition(b" ")
        if not blank or not username or len(digest) != 32:
            raise MalformedResponse
        return CRAMMD5Credentials(username, self._challenge, digest)


MECHANISMS: dict[str, Callable[[str], Mechanism]] = {
    "PLAIN": lambda hostname: Plain(),
    "LOGIN": lambda hostname: Login(),
    "CRAM-MD5": CRAMMD5,
}
"""Each mechanism by its name; called with the server's host name to begin an exchange."""
