"""SASL as a client: PLAIN (RFC 4616), LOGIN (as it is spoken, never standardised) and CRAM-MD5 (RFC 2195), for smarthosts.

The password is in no repr, no exception and no log. Whether the channel is fit to carry it is the session's to know, not decided here.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from typing import Protocol

from attrs import field, frozen


@frozen
class Credentials:
    """What a smarthost knows us by."""

    username: str
    password: str = field(repr=False)


class UnexpectedChallenge(Exception):
    """The server asked for more than the mechanism has to say."""


class ClientMechanism(Protocol):
    """One exchange by one mechanism. Octets in and out are bare; base64 is the session's."""

    name: str

    def initial(self) -> bytes | None:
        """What goes out with AUTH itself (RFC 4954 section 4), or None when the server speaks first."""

    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge; raises :class:`UnexpectedChallenge` when there is none."""


class Plain:
    """RFC 4616: everything in the initial response."""

    name = "PLAIN"

    def __init__(self, credentials: Credentials) -> None:
        self._message = f"\0{credentials.username}\0{credentials.password}".encode()

    def initial(self) -> bytes:
        """The whole message."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """There is nothing more to say."""
        raise UnexpectedChallenge


class Login:
    """User name, then password, whatever the two prompts say."""

    name = "LOGIN"

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [credentials.password.encode(), credentials.username.encode()]

    def initial(self) -> None:
        """The server prompts first: not every server takes the user name with AUTH."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """The next of the two answers."""
        if not self._answers:
            raise UnexpectedChallenge
        return self._answers.pop()


class CRAMMD5:
    """RFC 2195: a digest of the server's challenge."""

    name = "CRAM-MD5"

    def __init__(self, credentials: Credentials) -> None:
        self._credentials: Credentials | None = credentials

    def initial(self) -> None:
        """The server challenges first."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """The user name and the keyed digest."""
        if self._credentials is None:
            raise UnexpectedChallenge
        credentials, self._credentials = self._credentials, None
        digest = hmac.new(credentials.password.encode(), challenge, "md5").hexdigest()
        return f"{credentials.username} {digest}".encode()


_PREFERRED: tuple[type[Plain] | type[Login] | type[CRAMMD5], ...] = (Plain, Login, CRAMMD5)
"""Inside verified TLS all three are as safe; the order is that of how well servers implement them."""


def choose(offered: Collection[str], credentials: Credentials) -> ClientMechanism | None:
    """The mechanism to log in by, of those that the server offers (in upper case), or None."""
    for mechanism in _PREFERRED:
        if mechanism.name in offered:
            return mechanism(credentials)
    return None
