"""The server's state machine, apart from the socket (RFC 5321, 2920, 3207, 4954).

Octets go in by :meth:`ServerSession.receive`; replies leave by the wire, in the order of the commands: one command is carried out at a
time, and while its answer is awaited what comes in is kept, not looked at (RFC 2920 section 3.2). How the octets are split over reads
makes no difference. No client's octets are logged or answered unparsed.
"""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Callable, Mapping
from typing import Any

from twisted.cred.credentials import ICredentials
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from lettermta.interfaces import IContent, ISMTPServer, ISubmitter
from lettermta.message import Envelope, Peer, Refused, Reply
from lettermta.smtp import grammar
from lettermta.smtp.content import ContentReader
from lettermta.smtp.sasl import MAX_RESPONSE, MECHANISMS, Challenge, MalformedResponse, Mechanism

MAX_COMMAND = 2048
"""Octets of a command line: 512 and the allowances of the extensions (RFC 5321 section 4.5.3.1.4)."""
MAX_WAITING = 65_536
"""Octets that may come in while an answer is awaited before the wire is asked to pause."""
MAX_ERRORS = 20
"""Refused commands since the last message accepted after which the session ends (RFC 5321 section 4.3.2 allows 421 at any time)."""

OK = Reply(250, "2.0.0", "Ok")
GO_AHEAD = Reply(354, None, "End data with <CR><LF>.<CR><LF>")
BYE = Reply(221, "2.0.0", "Bye")
NO_TRANSACTION = Reply(503, "5.5.1", "MAIL first")
HELLO_FIRST = Reply(503, "5.5.1", "EHLO first")
IN_TRANSACTION = Reply(503, "5.5.1", "Not while a transaction is open; RSET first")
AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")
INVALID_CREDENTIALS = Reply(535, "5.7.8", "Authentication credentials invalid")
LOCAL_ERROR = Reply(451, "4.3.0", "Local error, try again later")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors, closing the connection")
INSUFFICIENT_STORAGE = Reply(452, "4.3.1", "The message could not be stored, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_LONG = Reply(500, "5.5.2", "Line too long")
RESPONSE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
SHUTTING_DOWN = Reply(421, "4.3.2", "Shutting down, try again later")
TOO_SLOW = Reply(421, "4.4.2", "Timed out, closing the connection")


class IWire(Interface):
    """What a session asks of the connection it speaks on."""

    def write(data: bytes) -> None:
        """Send replies."""

    def start_tls() -> None:
        """Begin a TLS handshake as server; :meth:`ServerSession.secured` is called when it is complete."""

    def close() -> None:
        """Send what was written and end the connection."""

    def pause() -> None:
        """Read no more for now."""

    def resume() -> None:
        """Read again."""


class Phase(enum.Enum):
    """What the next octets are."""

    COMMAND = "command"
    OVERLONG = "the rest of an overlong line"
    SASL = "a SASL response"
    CONTENT = "content"
    ANSWERING = "kept until the answer is there"
    HANDSHAKE = "TLS"
    CLOSED = "ignored"


class ServerSession:
    """One SMTP session as the server sees it. ``starttls``: whether STARTTLS can be offered."""

    log = Logger()

    def __init__(self, server: ISMTPServer, peer: Peer, wire: IWire, *, starttls: bool) -> None:
        self._server = server
        self._peer = peer
        self._wire = wire
        self._starttls = starttls
        self._phase = Phase.COMMAND
        self._buffer = b""
        self._out: list[bytes] = []
        self._errors = 0
        self._paused = False
        self._running = False
        self._login: ISubmitter | None = None
        self._logout: Callable[[], None] | None = None
        self._exchange: Mechanism | None = None
        self._submitter: ISubmitter | None = None
        self._envelope: Envelope | None = None
        self._content: IContent | None = None
        self._reader: ContentReader | None = None

    # -- what the connection calls

    def greet(self) -> None:
        """Send the banner (RFC 5321 section 3.1); the host name is its first word."""
        self._wire.write(Reply(220, None, f"{self._server.hostname} ESMTP").encode())

    def receive(self, data: bytes) -> None:
        """Take octets from the client."""
        self._buffer = self._buffer + data if self._buffer else data
        self._run()

    def secured(self, description: str) -> None:
        """The TLS handshake is complete: the session starts afresh and knows nothing of what was said in clear (RFC 3207 section 4.2)."""
        if self._phase is Phase.CLOSED:
            return
        self._peer.tls = description
        self._peer.helo, self._peer.esmtp = "", False
        self._reset()
        self._end_login()
        self._phase = Phase.COMMAND

    def lost(self) -> None:
        """The connection is gone: nothing that it left half-done remains."""
        self._phase = Phase.CLOSED
        self._reset()
        self._end_login()
        self._buffer = b""

    def end(self, reply: Reply) -> None:
        """End the session from our side with a 421 (RFC 5321 section 3.8), unless it has ended already."""
        if self._phase is not Phase.CLOSED:
            if self._phase is not Phase.HANDSHAKE:
                self._send(reply)
            self._close()

    @property
    def answering(self) -> bool:
        """Whether it is our turn: the client is waiting for an answer."""
        return self._phase is Phase.ANSWERING

    @property
    def busy(self) -> bool:
        """Whether content is being read or an answer awaited: the moments in which shutting down would undo the client's work."""
        return self._phase in (Phase.CONTENT, Phase.ANSWERING)

    # -- lines

    def _run(self) -> None:
        """Carry out what the buffer holds, until it is empty or something has to be awaited; then send the replies in one write."""
        self._running = True
        while self._buffer:
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
                if phase is Phase.SASL:
                    self._sasl_response(line)
                else:
                    self._command(line)
            elif phase is Phase.OVERLONG:
                self._skip_overlong()
            elif phase is Phase.CONTENT:
                data, self._buffer = self._buffer, b""
                self._receive_content(data)
            elif phase is Phase.ANSWERING:
                if len(self._buffer) > MAX_WAITING and not self._paused:
                    self._paused = True
                    self._wire.pause()
                break
            else:
                self._buffer = b""
        self._running = False
        self._flush()

    def _begin_overlong(self) -> None:
        """Refuse a line as soon as it is too long, since it may never end; it ends an exchange, too (RFC 4954 section 4)."""
        reply = TOO_LONG
        if self._phase is Phase.SASL:
            reply = RESPONSE_TOO_LONG
            self._end_login()
        self._phase = Phase.OVERLONG
        self._refuse(reply)

    def _skip_overlong(self) -> None:
        end = self._buffer.find(b"\n")
        if end < 0:
            self._buffer = b""
            return
        self._buffer = self._buffer[end + 1 :]
        self._phase = Phase.COMMAND

    def _command(self, line: bytes) -> None:
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            # A lone LF or CR is no line end (RFC 5321 section 2.3.8): whoever takes it for one can be smuggled past.
            self._refuse(Reply(500, "5.5.2", "Lines must end in CRLF"))
            return
        verb, _, argument = line[:-2].partition(b" ")
        handler = _COMMANDS.get(verb.upper())
        if handler is None:
            self._refuse(Reply(500, "5.5.1", "Command not recognized"))
            return
        try:
            handler(self, argument)
        except grammar.SyntaxFault as fault:
            self._refuse(Reply(501, "5.5.4", f"Syntax: {fault}"))
        except Refused as refused:
            self._refuse(refused.reply, refused.cause)

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
        self._send(reply)
        self._errors += 1
        if self._errors >= MAX_ERRORS:
            self._send(TOO_MANY_ERRORS)
            self._close()

    def _close(self) -> None:
        self._flush()
        self.lost()
        self._wire.close()

    def _await(self, answer: Deferred[Reply]) -> None:
        """Keep what comes in until ``answer`` fires, then send it and go on."""
        self._phase = Phase.ANSWERING
        answer.addErrback(self._failed)
        answer.addCallback(self._answered)

    def _failed(self, failure: Failure) -> Reply:
        if isinstance(failure.value, Refused):
            if failure.value.cause:
                self.log.info(
                    "{peer.address} refused: {reply}: {cause}", peer=self._peer, reply=failure.value.reply, cause=failure.value.cause
                )
            return failure.value.reply
        self.log.failure("answering {peer.address} failed", failure=failure, peer=self._peer)
        return LOCAL_ERROR

    def _answered(self, reply: Reply) -> None:
        if self._phase is not Phase.ANSWERING:
            return  # the client has gone; what was accepted stays accepted
        self._phase = Phase.COMMAND
        if reply.positive:
            # A session that is kept open for a day's mail is not to be ended for a few faults in all of it.
            self._errors = 0
            self._send(reply)
        else:
            self._refuse(reply)
        self._go_on()

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            self._wire.resume()
        if not self._running:
            self._run()

    # -- session commands

    def _helo(self, argument: bytes) -> None:
        """HELO (RFC 5321 section 4.1.1.1)."""
        self._peer.helo, self._peer.esmtp = grammar.helo_name(argument), False
        self._reset()
        self._send(Reply(250, None, self._server.hostname))

    def _ehlo(self, argument: bytes) -> None:
        """EHLO (RFC 5321 section 4.1.1.1); the answer's first word is the host name, or clients break."""
        self._peer.helo, self._peer.esmtp = grammar.helo_name(argument), True
        self._reset()
        secure = self._peer.tls is not None
        lines = [self._server.hostname, "PIPELINING", f"SIZE {self._max_size()}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self._starttls and not secure:
            lines.append("STARTTLS")
        if self._login is None and (mechanisms := self._server.mechanisms(secure)):
            lines.append("AUTH " + " ".join(mechanisms))
        self._send(Reply(250, None, "\n".join(lines)))

    def _max_size(self) -> int:
        submitter = self._login or self._server.trusted(self._peer)
        return self._server.max_size if submitter is None else submitter.max_size

    def _begin_tls(self, argument: bytes) -> None:
        """STARTTLS (RFC 3207). Octets behind the line were sent in clear to be taken for encrypted ones (CVE-2011-0411): an attack."""
        if argument.strip():
            raise Refused(Reply(501, "5.5.4", "Syntax: STARTTLS has no parameters"))
        if not self._starttls or self._peer.tls is not None:
            raise Refused(Reply(503, "5.5.1", "TLS is not available or in use already"))
        if self._envelope is not None:
            raise Refused(IN_TRANSACTION)
        if self._buffer:
            self.log.warn("{peer.address} sent octets behind STARTTLS: connection dropped", peer=self._peer)
            self._close()
            return
        self._send(Reply(220, "2.0.0", "Ready to start TLS"))
        self._flush()
        self._phase = Phase.HANDSHAKE
        self._wire.start_tls()

    def _noop(self, argument: bytes) -> None:
        """NOOP (RFC 5321 section 4.1.1.9)."""
        self._send(OK)

    def _rset(self, argument: bytes) -> None:
        """RSET (RFC 5321 section 4.1.1.5)."""
        self._reset()
        self._send(OK)

    def _quit(self, argument: bytes) -> None:
        """QUIT (RFC 5321 section 4.1.1.10)."""
        self._send(BYE)
        self._close()

    def _vrfy(self, argument: bytes) -> None:
        """VRFY tells nothing about anyone (RFC 5321 section 7.3)."""
        self._send(Reply(252, "2.0.0", "Send mail and see"))

    def _help(self, argument: bytes) -> None:
        """HELP (RFC 5321 section 4.1.1.8)."""
        self._send(Reply(214, "2.0.0", "RFC 5321 and the extensions that EHLO lists"))

    def _not_implemented(self, argument: bytes) -> None:
        raise Refused(Reply(502, "5.5.1", "Command not implemented"))

    # -- AUTH (RFC 4954)

    def _auth(self, argument: bytes) -> None:
        if not self._peer.esmtp:
            raise Refused(HELLO_FIRST)
        if self._login is not None:
            raise Refused(Reply(503, "5.5.1", "Authenticated already"))
        if self._envelope is not None:
            raise Refused(IN_TRANSACTION)
        name, blank, initial = argument.strip().partition(b" ")
        if not name:
            raise Refused(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
        mechanism = name.decode("ascii", "replace").upper()
        offered = self._server.mechanisms(self._peer.tls is not None)
        if mechanism not in offered:
            if self._peer.tls is None and mechanism in self._server.mechanisms(True):
                raise Refused(Reply(538, "5.7.11", "Encryption required for this mechanism"))
            raise Refused(Reply(504, "5.5.4", "Mechanism not available"))
        self._exchange = MECHANISMS[mechanism](self._server.hostname)
        self._peer.login = mechanism
        try:
            # "=" stands for an initial response of no octets (RFC 4954 section 4).
            decoded = None if not blank else b"" if initial == b"=" else _decode(initial)
            self._sasl_step(self._exchange.begin(decoded))
        except MalformedResponse:
            self._sasl_malformed()

    def _sasl_response(self, line: bytes) -> None:
        self._phase = Phase.COMMAND
        exchange = self._exchange
        assert exchange is not None
        if not line.endswith(b"\r\n"):
            self._sasl_malformed()
            return
        response = line[:-2]
        if response == b"*":
            self._end_login()
            self._refuse(Reply(501, "5.7.0", "Authentication canceled"))
            return
        try:
            self._sasl_step(exchange.respond(_decode(response)))
        except MalformedResponse:
            self._sasl_malformed()

    def _sasl_malformed(self) -> None:
        self._end_login()
        self._refuse(Reply(501, "5.5.2", "Malformed authentication response"))

    def _sasl_step(self, step: Challenge | ICredentials) -> None:
        if isinstance(step, Challenge):
            self._phase = Phase.SASL
            self._send(Reply(334, None, base64.b64encode(step.octets).decode()))
            return
        self._exchange = None
        login = self._server.portal.login(step, self._peer, ISubmitter)
        self._await(login.addCallbacks(self._logged_in, self._not_logged_in))

    def _logged_in(self, result: tuple[object, Any, Callable[[], None]]) -> Reply:
        _, submitter, logout = result
        if self._phase is Phase.CLOSED:
            logout()
        else:
            self._login, self._logout = submitter, logout
        return Reply(235, "2.7.0", "Authentication succeeded")

    def _not_logged_in(self, failure: Failure) -> Reply:
        self._end_login()
        if isinstance(failure.value, UnauthorizedLogin):
            self.log.info("{peer.address} was refused a login: {cause}", peer=self._peer, cause=str(failure.value))
            return INVALID_CREDENTIALS
        self.log.failure("the login of {peer.address} could not be checked", failure=failure, peer=self._peer)
        return Reply(454, "4.7.0", "Temporary authentication failure")

    def _end_login(self) -> None:
        self._exchange = None
        self._peer.login = None
        self._login = None
        if self._logout is not None:
            logout, self._logout = self._logout, None
            logout()

    # -- transactions

    def _mail(self, argument: bytes) -> None:
        """MAIL (RFC 5321 section 4.1.1.2; SIZE of RFC 1870, BODY of RFC 6152, AUTH of RFC 4954 section 5)."""
        if not self._peer.helo:
            raise Refused(HELLO_FIRST)
        if self._envelope is not None:
            raise Refused(Reply(503, "5.5.1", "A transaction is open already"))
        submitter = self._login or self._server.trusted(self._peer)
        if submitter is None:
            raise Refused(AUTHENTICATION_REQUIRED)
        sender, parameters = grammar.reverse_path(argument)
        envelope = Envelope(self._peer, sender)
        if parameters:
            _apply_parameters(envelope, parameters, submitter)
        submitter.mail(envelope)
        self._submitter, self._envelope = submitter, envelope
        self._send(Reply(250, "2.1.0", "Ok"))

    def _rcpt(self, argument: bytes) -> None:
        """RCPT (RFC 5321 section 4.1.1.3)."""
        envelope, submitter = self._envelope, self._submitter
        if envelope is None or submitter is None:
            raise Refused(NO_TRANSACTION)
        recipient, parameters = grammar.forward_path(argument)
        if parameters:
            raise Refused(Reply(555, "5.5.4", f"Parameter {next(iter(parameters))} is not supported"))
        if len(envelope.recipients) >= submitter.max_recipients:
            # Not counted as an error: the client is to send to those that were taken (RFC 5321 section 4.5.3.1.10), so it has to stay.
            self._send(TOO_MANY_RECIPIENTS)
            return
        submitter.recipient(envelope, recipient)
        envelope.recipients.append(recipient)
        self._send(Reply(250, "2.1.5", "Ok"))

    def _data(self, argument: bytes) -> None:
        """DATA (RFC 5321 section 4.1.1.4)."""
        if argument.strip():
            raise Refused(Reply(501, "5.5.4", "Syntax: DATA has no parameters"))
        if self._envelope is None or self._submitter is None:
            raise Refused(NO_TRANSACTION)
        if not self._envelope.recipients:
            raise Refused(Reply(554, "5.5.1", "No valid recipients"))
        content = self._submitter.content()
        self._content = content
        self._reader = ContentReader(content, self._submitter.max_size)
        self._phase = Phase.CONTENT
        self._send(GO_AHEAD)

    def _receive_content(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        rest = reader.feed(data)
        if rest is not None:
            self._buffer = rest
        write, reader.wait = reader.wait, None
        if write is not None:
            self._await_write(write, reader, self._end_of_content if rest is not None else _read_on)
        elif rest is not None:
            self._end_of_content(reader)

    def _await_write(self, write: Deferred[None], reader: ContentReader, then: Callable[[ContentReader], None]) -> None:
        """Read no more until the content's buffer has taken what it has; it is handed on only when it has all of it."""
        self._phase = Phase.ANSWERING
        self._paused = True
        self._wire.pause()
        write.addErrback(self._write_failed, reader)
        write.addCallback(self._written, reader, then)

    def _write_failed(self, failure: Failure, reader: ContentReader) -> None:
        if isinstance(failure.value, Refused):
            reader.fail(failure.value.reply)
        else:
            self.log.failure("content of {peer.address} could not be written", failure=failure, peer=self._peer)
            reader.fail(INSUFFICIENT_STORAGE)

    def _written(self, _: None, reader: ContentReader, then: Callable[[ContentReader], None]) -> None:
        if self._phase is Phase.ANSWERING:
            self._phase = Phase.CONTENT
            then(reader)
            self._go_on()

    def _end_of_content(self, reader: ContentReader) -> None:
        """Whatever comes of it, the transaction is over, and the next one starts from nothing (HARD-CASES row 6)."""
        envelope, submitter, content = self._envelope, self._submitter, self._content
        assert envelope is not None
        assert submitter is not None
        assert content is not None
        self._content = None
        self._reset()
        self._phase = Phase.COMMAND
        if reader.fault is not None:
            self._refuse(reader.fault, "content")
            return
        self._await(submitter.submit(envelope, content))

    def _reset(self) -> None:
        """Forget the transaction."""
        if self._content is not None:
            self._content.discard()
            self._content = None
        self._reader = None
        self._envelope = None
        self._submitter = None


def _read_on(reader: ContentReader) -> None:
    """The content goes on."""


def _decode(response: bytes) -> bytes:
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise MalformedResponse from None


def _apply_parameters(envelope: Envelope, parameters: Mapping[str, str | None], submitter: ISubmitter) -> None:
    for keyword, value in parameters.items():
        if keyword == "SIZE":
            if value is None or not value.isdecimal() or len(value) > 20:
                raise grammar.SyntaxFault("SIZE=octets is expected")
            envelope.size = int(value)
            if envelope.size > submitter.max_size:
                raise Refused(Reply(552, "5.3.4", "Message larger than the limit"))
        elif keyword == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                raise grammar.SyntaxFault("BODY=7BIT or BODY=8BITMIME is expected")
            envelope.eight_bit = value.upper() == "8BITMIME"
        elif keyword != "AUTH":
            raise Refused(Reply(555, "5.5.4", f"Parameter {keyword} is not supported"))


_COMMANDS: Mapping[bytes, Callable[[ServerSession, bytes], None]] = {
    b"HELO": ServerSession._helo,
    b"EHLO": ServerSession._ehlo,
    b"STARTTLS": ServerSession._begin_tls,
    b"AUTH": ServerSession._auth,
    b"MAIL": ServerSession._mail,
    b"RCPT": ServerSession._rcpt,
    b"DATA": ServerSession._data,
    b"RSET": ServerSession._rset,
    b"NOOP": ServerSession._noop,
    b"QUIT": ServerSession._quit,
    b"VRFY": ServerSession._vrfy,
    b"HELP": ServerSession._help,
    b"EXPN": ServerSession._not_implemented,
    b"TURN": ServerSession._not_implemented,
}
