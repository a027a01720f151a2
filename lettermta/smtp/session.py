"""The server's state machine, apart from the socket (RFC 5321, 2920, 3207).

Octets go in by :meth:`ServerSession.receive`; replies leave by the wire, in the order of the commands: one command is carried out at a
time, and while its answer is awaited what comes in is kept, not looked at (RFC 2920 section 3.2). How the octets are split over reads
makes no difference. No client's octets are logged or answered unparsed. What the commands mean is :mod:`lettermta.smtp.commands`'s.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta import metrics
from lettermta.interfaces import ISMTPServer
from lettermta.message import Peer, Refused, Reply
from lettermta.smtp.admission import LoginGuard
from lettermta.smtp.authentication import Authentication
from lettermta.smtp.channel_binding import Binding
from lettermta.smtp.chunks import ChunkReader, Swallow
from lettermta.smtp.commands import Commands, Ending, Step
from lettermta.smtp.patience import Turn
from lettermta.smtp.sasl import MAX_RESPONSE
from lettermta.smtp.transaction import ContentRules, Reader, Transaction
from lettermta.smtp.wire import IWire

MAX_COMMAND = 2048
"""Octets of a command line: 512 and the allowances of the extensions (RFC 5321 section 4.5.3.1.4)."""
MAX_WAITING = 65_536
"""Octets that may come in while an answer is awaited before the wire is asked to pause."""
MAX_UNSENT = 32
"""Replies that are sent in one write; a client that doesn't read them is noticed at the next one."""
MAX_ERRORS = 20
"""Refused commands after which the session ends (RFC 5321 section 4.3.2 allows 421 at any time)."""
MAX_MESSAGES = 10_000
"""Transactions of one session (RFC 9422, MAILMAX)."""

LOCAL_ERROR = Reply(451, "4.3.0", "Local error, try again later")
INSUFFICIENT_STORAGE = Reply(452, "4.3.1", "The message could not be stored, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection")
TOO_MANY_LOGINS = Reply(421, "4.7.0", "Too many failed logins, closing the connection")
TOO_LONG = Reply(500, "5.5.2", "Line too long")
SHUTTING_DOWN = Reply(421, "4.3.2", "Shutting down, try again later")
TOO_SLOW = Reply(421, "4.4.2", "Timed out, closing the connection")


class Phase(enum.Enum):
    """What the next octets are."""

    COMMAND = "command"
    OVERLONG = "the rest of an overlong line"
    SASL = "a SASL response"
    CONTENT = "content"
    ANSWERING = "kept until the answer is there"
    HANDSHAKE = "TLS"
    CLOSED = "ignored"


_BEHIND = {220: Phase.HANDSHAKE, 334: Phase.SASL, 354: Phase.CONTENT}
"""What follows replies that no command follows (RFC 3207 section 4, RFC 4954 section 4, RFC 5321 section 4.1.1.4)."""


@frozen
class SessionRules:
    """How long a session's patience lasts, and how it reads content."""

    errors: int = MAX_ERRORS
    messages: int = MAX_MESSAGES
    content: ContentRules = ContentRules()  # noqa: RUF009 - frozen


class ServerSession:
    """One SMTP session as the server sees it. ``starttls``: whether STARTTLS can be offered."""

    log = Logger()

    def __init__(
        self,
        server: ISMTPServer,
        peer: Peer,
        wire: IWire,
        guard: LoginGuard,
        clock: IReactorTime,
        *,
        starttls: bool,
        rules: SessionRules = SessionRules(),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._hostname = server.hostname
        self._peer = peer
        self._wire = wire
        self._rules = rules
        self._phase = Phase.COMMAND
        self._buffer = b""
        self._out: list[bytes] = []
        self._errors = 0
        self._paused = False
        """The wire reads nothing for now."""
        self._congested = False
        """The client takes in no replies for now."""
        self._running = False
        self._authentication = Authentication(server, peer, guard, clock, wire.logged_in)
        self._transaction = Transaction(peer, server.hostname, rules.content, now)
        self._commands = Commands(server, peer, self._authentication, self._transaction, now, starttls=starttls, messages=rules.messages)

    # -- what the connection calls

    def greet(self) -> None:
        """Send the banner (RFC 5321 section 3.1); the host name is its first word."""
        self._wire.write(Reply(220, None, f"{self._hostname} ESMTP").encode())

    def receive(self, data: bytes) -> None:
        """Take octets from the client."""
        self._buffer = self._buffer + data if self._buffer else data
        self._run()

    def secured(self, description: str, binding: Binding) -> None:
        """The TLS handshake is complete: the session starts afresh and knows nothing of what was said in clear (RFC 3207 section 4.2)."""
        if self._phase is Phase.CLOSED:
            return
        self._peer.tls = description
        self._peer.helo, self._peer.esmtp = "", False
        self._transaction.reset()
        self._authentication.forget()
        self._authentication.binding = binding
        self._expect(Phase.COMMAND)

    def lost(self) -> None:
        """The connection is gone: nothing that it left half-done remains."""
        self._phase = Phase.CLOSED
        self._transaction.reset()
        self._authentication.forget()
        self._buffer = b""

    def congested(self) -> None:
        """The client does not read what it is sent: nothing more is carried out until it has, or replies would pile up without end."""
        self._congested = True
        self._pause()

    def relieved(self) -> None:
        """The client has read what it was sent."""
        self._congested = False
        self._go_on()

    def end(self, reply: Reply) -> None:
        """End the session from our side with a 421 (RFC 5321 section 3.8), unless it has ended already."""
        if self._phase is not Phase.CLOSED:
            if self._phase is not Phase.HANDSHAKE:
                self._send(reply)
            self._close()

    @property
    def busy(self) -> bool:
        """Whether content is being read or an answer awaited: the moments in which shutting down would undo the client's work."""
        return self._phase in (Phase.CONTENT, Phase.ANSWERING)

    # -- lines

    def _run(self) -> None:
        """Carry out what the buffer holds, until it is empty or something has to be awaited; then send the replies in one write."""
        self._running = True
        while self._buffer and not self._congested:
            phase = self._phase
            if phase is Phase.COMMAND or phase is Phase.SASL:
                end = self._buffer.find(b"\n")
                limit = MAX_RESPONSE if phase is Phase.SASL else MAX_COMMAND
                if end >= limit or (end < 0 and len(self._buffer) >= limit):
                    self._begin_overlong()
                    continue
                if end < 0:
                    break
                line, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
                self._carry_out(self._authentication.respond if phase is Phase.SASL else self._commands.carry_out, line)
                if len(self._out) >= MAX_UNSENT:
                    self._flush()
            elif phase is Phase.OVERLONG:
                self._skip_overlong()
            elif phase is Phase.CONTENT:
                data, self._buffer = self._buffer, b""
                self._receive_content(data)
            elif phase is Phase.ANSWERING:
                if len(self._buffer) > MAX_WAITING:
                    self._pause()
                break
            else:
                self._buffer = b""
        self._running = False
        self._flush()

    def _begin_overlong(self) -> None:
        """Refuse a line as soon as it is too long, since it may never end; it ends an exchange, too (RFC 4954 section 4)."""
        reply = self._authentication.too_long() if self._phase is Phase.SASL else TOO_LONG
        self._phase = Phase.OVERLONG
        self._refuse(reply)

    def _skip_overlong(self) -> None:
        end = self._buffer.find(b"\n")
        if end < 0:
            self._buffer = b""
            return
        self._buffer = self._buffer[end + 1 :]
        self._phase = Phase.COMMAND

    # -- steps

    def _carry_out(self, what: Callable[[bytes], Step], line: bytes) -> None:
        try:
            step = what(line)
        except Refused as refused:
            self._expect(Phase.COMMAND)
            self._refuse(refused.reply, refused.cause)
        else:
            self._take(step)

    def _take(self, step: Step) -> None:
        """Go on as a command, or a response in a login, has it."""
        if isinstance(step, Reply):
            follows = _BEHIND.get(step.code, Phase.COMMAND)
            if follows is Phase.HANDSHAKE:
                self._begin_tls(step)
            else:
                self._send(step)
                self._expect(follows)
        elif isinstance(step, Deferred):
            self._await(step)
        elif isinstance(step, Ending):
            self._end_with(step.cause, *step.replies)
        else:
            self._expect(Phase.CONTENT)
            # A chunk of no octets ends where it begins, without any more of them coming.
            self._receive_content(b"")

    def _expect(self, phase: Phase) -> None:
        """It is the client's turn, and these are its next octets."""
        self._phase = phase
        self._wire.turn(Turn.CONTENT if phase is Phase.CONTENT else Turn.COMMAND)

    def _begin_tls(self, go_ahead: Reply) -> None:
        """Octets behind the line of STARTTLS were sent in clear to be taken for encrypted ones (CVE-2011-0411): an attack."""
        if self._buffer:
            self.log.warn("{peer.address} sent octets behind STARTTLS: connection dropped", peer=self._peer)
            metrics.SESSIONS_ENDED["injection"].inc()
            self._close()
            return
        self._send(go_ahead)
        self._flush()
        self._expect(Phase.HANDSHAKE)
        self._wire.start_tls()

    # -- replies

    def _send(self, reply: Reply) -> None:
        self._out.append(reply.encode())

    def _flush(self) -> None:
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._wire.write(data)

    def _refuse(self, reply: Reply, cause: str = "") -> None:
        """Send a failure; too many of them end the session."""
        if cause:
            self.log.info("{peer.address} refused: {reply}: {cause}", peer=self._peer, reply=reply, cause=cause)
        metrics.COMMANDS_REFUSED[str(reply.code)].inc()
        self._errors += 1
        if self._authentication.exhausted:
            # Who was shut out before is told so by a 421 of its own.
            self._end_with("login_failures", reply, *([] if reply.code == 421 else [TOO_MANY_LOGINS]))
        elif self._errors >= self._rules.errors:
            self._end_with("errors", reply, TOO_MANY_ERRORS)
        else:
            self._send(reply)

    def _end_with(self, cause: str, *replies: Reply) -> None:
        """End the session by ``replies``, its last; ``cause`` as the counters call it."""
        if replies[-1].code == 421:
            self.log.info("{peer.address}: session ended: {reply}", peer=self._peer, reply=replies[-1])
        metrics.SESSIONS_ENDED[cause].inc()
        for reply in replies:
            self._send(reply)
        self._close()

    def _close(self) -> None:
        self._flush()
        self.lost()
        self._wire.close()

    def _await(self, answer: Deferred[Reply]) -> None:
        """Keep what comes in until ``answer`` fires, then send it and go on."""
        self._phase = Phase.ANSWERING
        self._wire.turn(Turn.OURS)
        answer.addErrback(self._failed)
        answer.addCallback(self._answered)

    def _failed(self, failure: Failure) -> Reply:
        refused = failure.value
        if isinstance(refused, Refused):
            if refused.cause:
                self.log.info("{peer.address} refused: {reply}: {cause}", peer=self._peer, reply=refused.reply, cause=refused.cause)
            return refused.reply
        self.log.failure("answering {peer.address} failed", failure=failure, peer=self._peer)
        return LOCAL_ERROR

    def _answered(self, reply: Reply) -> None:
        if self._phase is not Phase.ANSWERING:
            return  # the client has gone; what was accepted stays accepted
        if reply.positive or reply.code in _BEHIND:
            # A session that is kept open for a day's mail is not to be ended for a few faults in all of it.
            self._errors = 0
            self._take(reply)
        else:
            self._expect(Phase.COMMAND)
            self._refuse(reply)
        self._go_on()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._wire.pause()

    def _go_on(self) -> None:
        if self._paused and not self._congested:
            self._paused = False
            self._wire.resume()
        if not self._running:
            self._run()

    # -- content

    def _receive_content(self, data: bytes) -> None:
        reader = self._transaction.reader
        assert reader is not None
        rest = reader.feed(data)
        if rest is not None:
            self._buffer = rest + self._buffer
        write, reader.wait = reader.wait, None
        if write is not None:
            self._await_write(write, reader, self._end_of_content if rest is not None else _read_on)
        elif rest is not None:
            self._end_of_content(reader)

    def _await_write(self, write: Deferred[None], reader: Reader, then: Callable[[Reader], None]) -> None:
        """Read no more until the content's buffer has taken what it has; it is handed on only when it has all of it."""
        self._phase = Phase.ANSWERING
        self._wire.turn(Turn.OURS)
        self._pause()
        write.addErrback(self._write_failed, reader)
        write.addCallback(self._written, reader, then)

    def _write_failed(self, failure: Failure, reader: Reader) -> None:
        if isinstance(failure.value, Refused):
            reader.fail(failure.value.reply)
        else:
            self.log.failure("content of {peer.address} could not be written", failure=failure, peer=self._peer)
            reader.fail(INSUFFICIENT_STORAGE)

    def _written(self, _: None, reader: Reader, then: Callable[[Reader], None]) -> None:
        if self._phase is Phase.ANSWERING:
            self._expect(Phase.CONTENT)
            then(reader)
            self._go_on()

    def _end_of_content(self, reader: Reader) -> None:
        """The end of the content, or of a chunk of it. Whatever comes of the content, the next transaction starts from nothing."""
        self._expect(Phase.COMMAND)
        if isinstance(reader, Swallow):
            self._refuse(reader.fault)
        elif reader.fault is not None:
            self._transaction.reset()
            metrics.MESSAGES_REFUSED[_FAULTS.get(reader.fault.code, "local")].inc()
            self._refuse(reader.fault, "content")
        elif isinstance(reader, ChunkReader) and not reader.last:
            self._send(Reply(250, "2.0.0", f"{reader.size} octets received"))
        else:
            submitter, envelope, content = self._transaction.finish()
            self._await(submitter.submit(envelope, content))


_FAULTS = {552: "size", 550: "line_ends", 452: "storage"}
"""Why content was refused while it was read, as the counters call it, by the reply's code."""


def _read_on(reader: Reader) -> None:
    """The content goes on."""
