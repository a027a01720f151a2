"""AUTH as one session goes through it (RFC 4954): from the command to the submitter, or to the refusal that tells nothing.

    NOBODY -> EXCHANGE -> CHECKING [-> CONFIRMING] -> SOMEBODY

A failed login is answered late, later each time, and at last by the end of the session; the client learns 535 whatever the cause, and the
cause goes to the log and the counters. No response of a client is kept longer than its exchange, logged, or quoted.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable
from typing import Any

from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta import metrics
from lettermta.interfaces import ISMTPServer, ISubmitter, LoginFault
from lettermta.message import Peer, Refused, Reply
from lettermta.smtp.admission import LoginGuard
from lettermta.smtp.channel_binding import Binding, no_binding, offers_plus
from lettermta.smtp.sasl import Challenge, MalformedResponse, Mechanism

SUCCEEDED = Reply(235, "2.7.0", "Authentication succeeded")
INVALID_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
MALFORMED = Reply(501, "5.5.2", "Malformed authentication response")
CANCELED = Reply(501, "5.7.0", "Authentication canceled")
NOT_CHECKED = Reply(454, "4.7.0", "Temporary authentication failure")
ALREADY = Reply(503, "5.5.1", "Authenticated already")
NEEDS_TLS = Reply(538, "5.7.11", "Encryption required for this mechanism")
NOT_AVAILABLE = Reply(504, "5.5.4", "Mechanism not available")


class Standing(enum.Enum):
    """How far the session's login is."""

    NOBODY = "not logged in"
    EXCHANGE = "a response is awaited"
    CHECKING = "the credentials are being checked"
    CONFIRMING = "the client is to take note of the server's own proof"
    SOMEBODY = "logged in"


class Authentication:
    """The login of one session; ``logged_in`` is called when it has succeeded. ``exhausted``: it has had its last try, and is to end."""

    log = Logger()

    def __init__(self, server: ISMTPServer, peer: Peer, guard: LoginGuard, clock: IReactorTime, logged_in: Callable[[], None]) -> None:
        self._server = server
        self._peer = peer
        self._guard = guard
        self._clock = clock
        self._logged_in = logged_in
        self._mechanism = ""
        self._exchange: Mechanism | None = None
        self._credentials: ICredentials | None = None
        self._logout: Callable[[], None] | None = None
        self._failures = 0
        self.binding: Binding = no_binding
        """That of the TLS channel, once there is one."""
        self.standing = Standing.NOBODY
        self.submitter: ISubmitter | None = None
        self.exhausted = False

    def offered(self) -> list[str]:
        """The mechanisms for EHLO, none to who is logged in."""
        if self.standing is not Standing.NOBODY:
            return []
        return list(self._server.mechanisms(self._peer.tls is not None, offers_plus(self.binding)))

    def begin(self, argument: bytes) -> Reply | Deferred[Reply]:
        """AUTH (RFC 4954 section 4): 334 when a response is awaited; raises Refused."""
        if self.standing is not Standing.NOBODY:
            raise Refused(ALREADY)
        name, blank, initial = argument.strip().partition(b" ")
        if not name:
            raise Refused(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
        mechanism = name.decode("ascii", "replace").upper()
        if mechanism not in self.offered():
            needs_tls = self._peer.tls is None and mechanism in self._server.mechanisms(True, True)
            raise Refused(NEEDS_TLS if needs_tls else NOT_AVAILABLE)
        denied = self._guard.denies(self._peer.address)
        if denied is not None:
            metrics.LOGINS[mechanism, "too_many"].inc()
            self.exhausted = True
            raise Refused(denied.reply, "too many failed logins before")
        self._mechanism = mechanism
        self._exchange = self._server.exchange(mechanism, self.binding)
        try:
            # "=" stands for an initial response of no octets.
            decoded = None if not blank else b"" if initial == b"=" else _decode(initial)
            return self._step(self._exchange.begin(decoded))
        except MalformedResponse:
            raise self._malformed() from None

    def respond(self, line: bytes) -> Reply | Deferred[Reply]:
        """The client's line in an exchange, with its line end; as begin."""
        if not line.endswith(b"\r\n"):
            raise self._malformed()
        if line == b"*\r\n":
            self.forget()
            metrics.LOGINS[self._mechanism, "canceled"].inc()
            raise Refused(CANCELED)
        if self.standing is Standing.CONFIRMING:
            if line != b"\r\n":
                raise self._malformed()
            return self._somebody()
        assert self._exchange is not None
        try:
            return self._step(self._exchange.respond(_decode(line[:-2])))
        except MalformedResponse:
            raise self._malformed() from None

    def too_long(self) -> Reply:
        """The client's line in an exchange is longer than any response may be."""
        self._malformed()
        return Reply(500, "5.5.6", "Authentication exchange line is too long")

    def _malformed(self) -> Refused:
        self.forget()
        metrics.LOGINS[self._mechanism, "malformed"].inc()
        return Refused(MALFORMED)

    def _step(self, step: Challenge | ICredentials) -> Reply | Deferred[Reply]:
        if isinstance(step, Challenge):
            self.standing = Standing.EXCHANGE
            return _challenge(step.octets)
        self.standing = Standing.CHECKING
        self._exchange = None
        self._credentials = step
        self._peer.login = self._mechanism
        login = self._server.portal.login(step, self._peer, ISubmitter)
        return login.addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, result: tuple[object, Any, Callable[[], None]]) -> Reply:
        _, submitter, logout = result
        if self.standing is not Standing.CHECKING:
            logout()  # the session has ended meanwhile
            return SUCCEEDED
        self.submitter, self._logout = submitter, logout
        proof: bytes | None = getattr(self._credentials, "server_final", None)
        self._credentials = None
        if proof is None:
            return self._somebody()
        self.standing = Standing.CONFIRMING
        return _challenge(proof)

    def _somebody(self) -> Reply:
        self.standing = Standing.SOMEBODY
        self._guard.succeeded(self._peer.address)
        self._logged_in()
        metrics.LOGINS[self._mechanism, "succeeded"].inc()
        return SUCCEEDED

    def _failed(self, failure: Failure) -> Reply | Deferred[Reply]:
        username = getattr(self._credentials, "username", b"")
        self.forget()
        error = failure.value
        if not isinstance(error, UnauthorizedLogin):
            self.log.failure("the login of {peer.address} could not be checked", failure=failure, peer=self._peer)
            metrics.LOGINS[self._mechanism, "not_checked"].inc()
            return NOT_CHECKED
        self._failures += 1
        cause = error.cause if isinstance(error, LoginFault) else "unknown_token"
        metrics.LOGINS[self._mechanism, cause].inc()
        verdict = self._guard.failed(self._peer.address, username.decode("utf-8", "replace"), self._failures)
        self.log.info(
            "{peer.address} was refused a login by {mechanism}: {cause}", peer=self._peer, mechanism=self._mechanism, cause=str(error)
        )
        if verdict.suspicious:
            self.log.warn("many logins have failed for one account lately, from {peer.address} among others", peer=self._peer)
        self.exhausted = verdict.last
        return deferLater(self._clock, verdict.delay, lambda: INVALID_CREDENTIALS)

    def forget(self) -> None:
        """Be nobody again: after STARTTLS, at the session's end, or when an exchange failed."""
        self._exchange = None
        self._credentials = None
        self._peer.login = None
        self.submitter = None
        self.standing = Standing.NOBODY
        if self._logout is not None:
            logout, self._logout = self._logout, None
            logout()


def _challenge(octets: bytes) -> Reply:
    return Reply(334, None, base64.b64encode(octets).decode())


def _decode(response: bytes) -> bytes:
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise MalformedResponse from None
