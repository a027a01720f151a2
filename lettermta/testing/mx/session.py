"""One client's dialogue with the server under test."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport, ITLSTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from lettermta.testing.mx.received import ReceivedMessage
from lettermta.testing.mx.script import Rule

if TYPE_CHECKING:
    from lettermta.testing.mx import RemoteMX

_POSITIVE = {
    "CONNECT": "220 {hostname} ESMTP",
    "HELO": "250 {hostname}",
    "STARTTLS": "220 2.0.0 go ahead",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "DOT": "250 2.0.0 Ok: queued as {number}",
    "BDAT": "250 2.0.0 Ok: {number} so far",
    "RSET": "250 2.0.0 ok",
    "NOOP": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}
_LONGEST_LINE = 65_536


class Session(Protocol):
    """One client's dialogue."""

    def __init__(self, mx: RemoteMX, clock: IReactorTime) -> None:
        self.gone: Deferred[None] = Deferred()
        self._mx = mx
        self._clock = clock
        self._buffer = bytearray()
        self._searched = 0
        self._reading: Callable[[], bool] = self._line
        """What takes the next octets: a command's line, content up to its dot, or a chunk."""
        self._late: IDelayedCall | None = None
        self._closed = False
        self._secure = False
        self._helo = ""
        self._number = 0
        self._out: list[bytes] = []
        self._forget()

    def _forget(self) -> None:
        self._sender: str | None = None
        self._parameters = ""
        self._recipients: list[str] = []
        self._chunks: list[bytes] = []

    def connectionMade(self) -> None:
        """Greet."""
        mx = self._mx
        mx.connections += 1
        mx.sessions.add(self)
        self._number = mx.connections
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if mx.implicit:
            self._start_tls()
        self._answer("CONNECT")
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The client is gone."""
        self._closed = True
        self._mx.sessions.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self.gone.callback(None)

    def hang_up(self) -> None:
        """Cut the connection."""
        self._closed = True
        cast(Any, self.transport).abortConnection()

    def _close(self) -> None:
        self._flush()
        self._closed = True
        cast(Any, self.transport).loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client, decrypted."""
        self._buffer += data
        self._work()

    def _work(self) -> None:
        """Take what is in the buffer as far as it goes, and answer it in one write."""
        while not self._closed and self._late is None and self._reading():
            pass
        self._flush()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._closed and self.transport is not None:
            self.transport.write(b"".join(out))

    def _line(self) -> bool:
        end = self._buffer.find(b"\n")
        if end < 0:
            if len(self._buffer) > _LONGEST_LINE:
                self.hang_up()
            return False
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        if self._mx.keep:
            self._mx.commands.append(line)
        verb, _, argument = line.partition(b" ")
        self._command(verb.upper().decode("latin-1"), argument.decode("utf-8", "replace"))
        return True

    def _command(self, verb: str, argument: str) -> None:
        if verb == "MAIL":
            self._mail(argument)
        elif verb == "RCPT":
            self._rcpt(argument)
        elif verb == "DATA":
            self._data()
        elif verb == "BDAT" and "CHUNKING" in self._mx.extensions:
            self._bdat(argument)
        elif verb in ("EHLO", "HELO"):
            if self._answer(verb):
                self._helo = argument
                self._forget()
        elif verb == "STARTTLS" and self._mx.tls is not None and not self._secure:
            self._starttls()
        elif verb == "AUTH" and self._secure and self._mx.credentials:
            self._auth(argument)
        elif verb in ("RSET", "NOOP"):
            if self._answer(verb) and verb == "RSET":
                self._forget()
        elif verb == "QUIT":
            self._answer(verb)
            self._close()
        else:
            self._out.append(b"502 5.5.1 not here\r\n")

    def _mail(self, argument: str) -> None:
        if self._sender is not None:
            self._out.append(b"503 5.5.1 nested MAIL\r\n")
        elif self._answer("MAIL"):
            path, _, parameters = argument.partition(":")[2].lstrip().partition(" ")
            self._sender, self._parameters = path[1:-1], parameters

    def _rcpt(self, argument: str) -> None:
        address = argument.partition("<")[2].rpartition(">")[0]
        if self._sender is None:
            self._out.append(b"503 5.5.1 no MAIL\r\n")
        elif self._answer("RCPT", address):
            self._recipients.append(address)

    def _data(self) -> None:
        rule = self._mx.rules.rule("DATA")
        if (rule is None and not self._recipients) or self._chunks:
            self._out.append(b"503 5.5.1 no RCPT\r\n")
        elif self._follow("DATA", rule):
            self._reading = self._content
            self._searched = 0

    def _content(self) -> bool:
        buffer = self._buffer
        if buffer.startswith(b".\r\n"):
            content, behind = b"", 3
        else:
            end = buffer.find(b"\r\n.\r\n", self._searched)
            if end < 0:
                self._searched = max(len(buffer) - 4, 0)
                return False
            content, behind = bytes(buffer[: end + 2]), end + 5
        del buffer[:behind]
        self._reading = self._line
        if self._mx.keep or self._mx.taken is not None:
            content = content.replace(b"\r\n..", b"\r\n.")
            content = content[1:] if content.startswith(b"..") else content
        self._take(content, "DOT", self._mx.rules.rule("DOT"))
        return True

    def _bdat(self, argument: str) -> None:
        """RFC 3030 section 2: the octets are swallowed, whatever the answer is to be."""
        number, _, last = argument.partition(" ")
        if not number.isdecimal():
            self.hang_up()
            return
        self._reading = partial(self._chunk, int(number), last.upper() == "LAST")

    def _chunk(self, size: int, last: bool) -> bool:
        if len(self._buffer) < size:
            return False
        self._reading = self._line
        chunk = bytes(self._buffer[:size])
        del self._buffer[:size]
        if not self._recipients:
            self._out.append(b"503 5.5.1 no RCPT, or an earlier chunk was refused\r\n")
            return True
        self._chunks.append(chunk)
        rule = self._mx.rules.rule("BDAT")
        if rule is not None and not rule.positive:
            # Indeterminate until RSET: the sender stays, so that a MAIL without it is found out.
            self._recipients, self._chunks = [], []
            self._follow("BDAT", rule)
        elif last:
            self._take(b"".join(self._chunks), "BDAT", rule)
        else:
            self._follow("BDAT", rule)
        return True

    def _take(self, content: bytes, stage: str, rule: Rule | None) -> None:
        message = ReceivedMessage(
            self._sender or "", tuple(self._recipients), content, self._parameters, self._helo, self._secure, self._number
        )
        self._forget()
        if rule is None or rule.reply is None or rule.reply.startswith(b"2"):
            # Also when the connection is cut instead of an answer: that is what makes a duplicate.
            self._mx.take(message)
        self._follow(stage, rule)

    def _starttls(self) -> None:
        if not self._answer("STARTTLS") or self._closed:
            return
        self._flush()
        if self._buffer:
            self.hang_up()
            return
        self._start_tls()
        self._helo = ""
        self._forget()

    def _start_tls(self) -> None:
        cast(ITLSTransport, self.transport).startTLS(cast(Any, self._mx.tls))
        self._secure = True

    def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        _, _, pair = b64decode(initial).decode().partition("\0")
        username, _, password = pair.partition("\0")
        rule = self._mx.rules.rule("AUTH")
        if rule is not None:
            self._follow("AUTH", rule)
        elif mechanism.upper() == "PLAIN" and username in self._mx.credentials and self._mx.credentials[username] == password:
            self._out.append(b"235 2.7.0 welcome\r\n")
        else:
            self._out.append(b"535 5.7.8 no\r\n")

    def _answer(self, stage: str, recipient: str | None = None) -> bool:
        """Answer; whether the answer was a positive one."""
        return self._follow(stage, self._mx.rules.rule(stage, recipient))

    def _follow(self, stage: str, rule: Rule | None) -> bool:
        if rule is None:
            self._out.append(self._positive(stage))
            return True
        if rule.drop:
            if rule.reply is not None:
                self._out.append(rule.reply)
            self._close()
            return False
        self._out.append(self._positive(stage) if rule.reply is None else rule.reply)
        if rule.delay:
            # What is answered already goes out, this answer and all that is behind it waits.
            late = self._out.pop()
            self._flush()
            self._late = self._clock.callLater(rule.delay, self._resume, late)
        return rule.positive

    def _resume(self, late: bytes) -> None:
        self._late = None
        self._out.append(late)
        self._work()

    def _positive(self, stage: str) -> bytes:
        if stage != "EHLO":
            return _POSITIVE[stage].format(hostname=self._mx.hostname, number=self._mx.count).encode() + b"\r\n"
        lines = [self._mx.hostname, *self._mx.extensions]
        if self._mx.tls is not None and not self._secure:
            lines.append("STARTTLS")
        if self._mx.credentials and self._secure:
            lines.append("AUTH PLAIN")
        return "".join(f"250{'-' if number < len(lines) else ' '}{line}\r\n" for number, line in enumerate(lines, 1)).encode()
