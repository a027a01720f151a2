"""The client's way from a connection to the first message: banner, EHLO, STARTTLS, EHLO again, AUTH (RFC 5321 section 3.1, 3207, 4954).

    BANNER -> EHLO [-> STARTTLS -> HANDSHAKE -> EHLO] [-> AUTH]

Promises that no password is sent but inside verified TLS, and that nothing that was learnt in clear counts inside TLS. What goes wrong is
Unreachable: :class:`TLSFailed` where TLS is to blame and a new connection in clear might do, :class:`TLSNotOffered` and
:class:`NotVerified` where it is to blame and nothing else will do.
"""

from __future__ import annotations

import enum
from base64 import b64decode, b64encode

from twisted.internet.defer import Deferred

from lettermta.message import Reply, Unreachable
from lettermta.smtp.client_auth import Credentials, UnexpectedChallenge, choose
from lettermta.smtp.client_capabilities import NOTHING_OFFERED, Capabilities
from lettermta.smtp.client_dialogue import Dialogue
from lettermta.smtp.client_replies import reply_of
from lettermta.smtp.client_settings import ClientSettings, TLSMode
from lettermta.smtp.client_transcript import BANNER


class Step(enum.Enum):
    """Where an opening stands."""

    BANNER = "waits for the banner"
    EHLO = "says EHLO"
    STARTTLS = "asks for TLS"
    HANDSHAKE = "shakes hands"
    AUTH = "logs in"


class TLSFailed(Unreachable):
    """The peer offers TLS and could not do it. Opportunistic TLS may try a new connection in clear."""


class TLSNotOffered(Unreachable):
    """TLS is required, and the peer does not offer it, or refuses it."""


class NotVerified(Unreachable):
    """TLS is up, and the peer is not who it must be."""


class Opening:
    """Of one connection; ``peer`` is the other side, for what is told of it."""

    def __init__(self, dialogue: Dialogue, settings: ClientSettings, peer: str) -> None:
        self.step = Step.HANDSHAKE if settings.tls is TLSMode.IMPLICIT else Step.BANNER
        self.capabilities = NOTHING_OFFERED
        self.tls: str | None = None
        """Protocol version and cipher, once TLS is up."""
        self.fault: str | None = "TLS is not in use"
        """Why the peer's certificate is not verified, or None when it is."""
        self._dialogue = dialogue
        self._settings = settings
        self._peer = peer
        self._answer: Deferred[Reply] | None = None
        """What is waited for: a reply, or the end of the handshake."""

    def secured(self, description: str, fault: str | None) -> None:
        """TLS is up."""
        self.tls = description
        self.fault = fault
        self._dialogue.deadline.clear()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(Reply(220, None, description))

    def ended(self, reply: Reply, remote: bool) -> None:
        """The dialogue is over before its time."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(Unreachable(reply, remote=remote))

    async def run(self) -> None:
        """All of it; raises Unreachable."""
        mode = self._settings.tls
        if mode is TLSMode.IMPLICIT:
            await self._handshake()
            self.step = Step.BANNER
        banner = await self._wait_for(BANNER)
        if not banner.positive:
            raise Unreachable(banner, remote=True)
        await self._hello()
        if mode is TLSMode.OPPORTUNISTIC or mode is TLSMode.REQUIRE:
            await self._secure()
        if self._settings.credentials is not None:
            await self._log_in(self._settings.credentials)
        self._expect_silence()

    async def _hello(self) -> None:
        """EHLO, and HELO where EHLO is unknown (RFC 5321 section 3.2)."""
        self.step = Step.EHLO
        reply = await self._ask(b"EHLO %b\r\n" % self._settings.hostname.encode(), "EHLO")
        if reply.positive:
            self.capabilities = Capabilities.parse(reply.text.split("\n"))
            return
        self.capabilities = NOTHING_OFFERED
        if reply.permanent:
            reply = await self._ask(b"HELO %b\r\n" % self._settings.hostname.encode(), "HELO")
        if not reply.positive:
            raise Unreachable(reply, remote=True)

    async def _secure(self) -> None:
        """STARTTLS as the settings want it (RFC 3207)."""
        required = self._settings.tls is TLSMode.REQUIRE
        if "STARTTLS" not in self.capabilities.keywords:
            if required:
                raise TLSNotOffered(Reply(451, "4.7.4", f"TLS is required, and {self._peer} doesn't offer it"))
            return
        self.step = Step.STARTTLS
        reply = await self._ask(b"STARTTLS\r\n", "STARTTLS")
        if not reply.positive:
            if required:
                raise TLSNotOffered(Reply(451, "4.7.4", f"TLS is required, and {self._peer} refuses it: {reply}"))
            return
        # Octets sent in clear would be taken for the answer inside TLS (HARD-CASES row 3).
        self._expect_silence(Reply(451, "4.7.0", f"{self._peer} sent octets behind its answer to STARTTLS"))
        await self._handshake()
        try:
            # RFC 3207 section 4.2: what was learnt in clear is forgotten. In TLS 1.3 a peer that refuses us does so only here.
            await self._hello()
        except Unreachable as error:
            if error.remote:
                raise
            raise TLSFailed(error.reply) from None

    async def _handshake(self) -> None:
        self.step = Step.HANDSHAKE
        answer: Deferred[Reply] = Deferred()
        self._answer = answer
        self._dialogue.deadline.set(self._settings.command_timeout)
        self._dialogue.wire.start_tls()
        try:
            await answer
        except Unreachable as error:
            raise TLSFailed(error.reply) from None
        if self._settings.verify and self.fault is not None:
            raise NotVerified(Reply(451, "4.7.5", f"The certificate of {self._peer} is not verified: {self.fault}"))

    async def _log_in(self, credentials: Credentials) -> None:
        """AUTH (RFC 4954), inside verified TLS alone."""
        self.step = Step.AUTH
        if self.fault is not None:
            raise Unreachable(Reply(451, "4.7.11", f"{self._peer} gets no credentials without verified TLS: {self.fault}"))
        mechanism = choose(self.capabilities.mechanisms, credentials)
        if mechanism is None:
            raise Unreachable(Reply(451, "4.7.4", f"{self._peer} offers no way to log in that is known here"))
        initial = mechanism.initial()
        command = f"AUTH {mechanism.name}".encode()
        reply = await self._ask(command + (b" " + b64encode(initial) if initial is not None else b"") + b"\r\n", "AUTH")
        while reply.code == 334:
            try:
                response = b64encode(mechanism.respond(b64decode(reply.text, validate=True)))
            except (UnexpectedChallenge, ValueError):
                # RFC 4954 section 4: the client gives up.
                reply = await self._ask(b"*\r\n", "AUTH")
                break
            reply = await self._ask(response + b"\r\n", "AUTH")
        if not reply.positive:
            raise Unreachable(reply, remote=True)

    def _wait_for(self, stage: str) -> Deferred[Reply]:
        answer: Deferred[Reply] = Deferred()
        self._answer = answer
        self._dialogue.expect(self._answered, self._settings.banner_timeout, stage)
        return answer

    def _expect_silence(self, fault: Reply | None = None) -> None:
        """What the peer has said unasked would be taken for its answer to the next command, and so on for all that come behind it.

        Raises Unreachable, with ``fault`` where it has a name of its own.
        """
        if self._dialogue.behind:
            reply = fault or Reply(451, "4.5.0", f"{self._peer} spoke before it was asked")
            self._dialogue.end(reply)
            raise Unreachable(reply)

    def _ask(self, command: bytes, stage: str) -> Deferred[Reply]:
        self._expect_silence()
        answer: Deferred[Reply] = Deferred()
        self._answer = answer
        self._dialogue.say(command, ((self._answered, self._settings.command_timeout, stage),))
        return answer

    def _answered(self, code: int, lines: list[bytes]) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if code < 200 or (300 <= code < 400 and self.step is not Step.AUTH):
            self._answer = answer
            self._dialogue.confused(self.step.name, code)
        else:
            answer.callback(reply_of(code, lines))
