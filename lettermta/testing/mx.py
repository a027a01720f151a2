"""An SMTP server for tests: takes every message, keeps it, and misbehaves where it is told to.

    mx = RemoteMX()
    port = mx.listen(reactor)
    mx.script("RCPT", "550 5.1.1 no such user", recipient="gone@example.com")
    mx.script("MAIL", "451 4.3.0 later", times=2)
    mx.script("DOT", drop=True, times=1)              takes the content, and is gone without an answer
    mx.script("EHLO", b"\\x00\\xff rubbish\\r\\n")        octets as they stand
    mx.script("DATA", delay=30.0)
    mx.script("MAIL", b"")                            silence

Stages are ``CONNECT EHLO HELO STARTTLS AUTH MAIL RCPT DATA DOT RSET NOOP QUIT``. Of several rules that fit, the first one counts while its
``times`` last. Whatever a script says in place of a positive reply, the server's own state follows it.

As a program: ``python -m lettermta.testing.mx --port 0 --out FILE.jsonl`` prints ``listening PORT`` once it answers, and appends a line of
JSON for each message before its 250: ``sender``, ``recipients``, ``content`` (or ``content_base64`` where it isn't UTF-8), ``helo``,
``tls``, ``connection``, ``received``. Where ``--out`` names a directory, each message is a file ``NUMBER.json`` in it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson
from attrs import define, frozen
from OpenSSL import SSL
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IOpenSSLServerConnectionCreator,
    IReactorTime,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

STAGES = frozenset(["CONNECT", "EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "DOT", "RSET", "NOOP", "QUIT"])
EXTENSIONS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")

_POSITIVE = {
    "CONNECT": "220 {hostname} ESMTP",
    "HELO": "250 {hostname}",
    "STARTTLS": "220 2.0.0 go ahead",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "DOT": "250 2.0.0 Ok: queued as {number}",
    "RSET": "250 2.0.0 ok",
    "NOOP": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
}
_LONGEST_LINE = 65_536


@frozen
class ReceivedMessage:
    """One message as it came."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    """Dot-stuffing undone."""
    parameters: str
    """Those of MAIL, as they came."""
    helo: str
    tls: bool
    connection: int
    """The number of the connection it came by, from 1."""

    def line(self, moment: float) -> bytes:
        """The message as a line of JSON."""
        try:
            content = {"content": self.content.decode()}
        except UnicodeDecodeError:
            content = {"content_base64": b64encode(self.content).decode()}
        told = {"sender": self.sender, "recipients": self.recipients, **content, "parameters": self.parameters}
        return orjson.dumps({**told, "helo": self.helo, "tls": self.tls, "connection": self.connection, "received": moment}) + b"\n"


@define
class _Rule:
    stage: str
    reply: bytes | None
    recipient: str | None
    times: int | None
    delay: float
    drop: bool

    def fits(self, stage: str, recipient: str | None) -> bool:
        return self.stage == stage and self.times != 0 and (self.recipient is None or self.recipient == recipient)


class RemoteMX:
    """The server. ``tls``: what STARTTLS is offered with (:class:`ServerTLS` or the like), or with ``implicit`` what speaks first.

    ``credentials``: user names and passwords for AUTH PLAIN, which is offered inside TLS when there are any. ``keep`` False counts only.
    ``taken`` is called with each message before its 250.
    """

    def __init__(
        self,
        *,
        hostname: str = "mx.test",
        extensions: Sequence[str] = EXTENSIONS,
        tls: object | None = None,
        implicit: bool = False,
        credentials: Mapping[str, str] | None = None,
        keep: bool = True,
        taken: Callable[[ReceivedMessage], None] | None = None,
    ) -> None:
        self.hostname = hostname
        self.extensions = list(extensions)
        self.tls = tls
        self.implicit = implicit
        self.credentials = dict(credentials or {})
        self.keep = keep
        self.taken = taken
        self.messages: list[ReceivedMessage] = []
        self.commands: list[bytes] = []
        """Every command of every connection, in the order in which they came (not with ``keep`` False)."""
        self.count = 0
        self.connections = 0
        self.sessions: set[_Session] = set()
        self._rules: list[_Rule] = []
        self._port: Any = None

    def script(
        self,
        stage: str,
        reply: str | bytes | None = None,
        *,
        recipient: str | None = None,
        times: int | None = None,
        delay: float = 0.0,
        drop: bool = False,
    ) -> None:
        """Have ``stage`` answered otherwise: by ``reply`` (text gets its CRLF, octets stand as they are), late, or by hanging up."""
        if stage not in STAGES:
            raise ValueError(f"no stage {stage!r}: {sorted(STAGES)}")
        octets = reply.encode() + b"\r\n" if isinstance(reply, str) else reply
        self._rules.append(_Rule(stage, octets, recipient, times, delay, drop))

    def clear(self) -> None:
        """Behave from now on."""
        self._rules.clear()

    def rule(self, stage: str, recipient: str | None) -> _Rule | None:
        """The rule that is to be followed now; counts as followed."""
        for rule in self._rules:
            if rule.fits(stage, recipient):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None

    def listen(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> int:
        """Take connections; returns the port's number."""
        self._port = reactor.listenTCP(port, _Factory(self, reactor), interface=interface, backlog=1024)
        return int(self._port.getHost().port)

    def stop(self) -> Deferred[None]:
        """Take no more connections and cut those that stand; fires once all are gone."""
        port, self._port = self._port, None
        waits: list[Deferred[Any]] = [] if port is None else [maybeDeferred(port.stopListening)]
        for session in list(self.sessions):
            waits.append(session.gone)
            session.hang_up()
        return gatherResults(waits).addCallback(lambda _: None)

    def session(self, clock: IReactorTime) -> Protocol:
        """A session to be put on a transport by hand."""
        return _Session(self, clock)

    def take(self, message: ReceivedMessage) -> None:
        """A message is here."""
        self.count += 1
        if self.keep:
            self.messages.append(message)
        if self.taken is not None:
            self.taken(message)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, mx: RemoteMX, clock: IReactorTime) -> None:
        self._mx = mx
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._mx.session(self._clock)


class _Session(Protocol):
    def __init__(self, mx: RemoteMX, clock: IReactorTime) -> None:
        self.gone: Deferred[None] = Deferred()
        self._mx = mx
        self._clock = clock
        self._buffer = bytearray()
        self._searched = 0
        self._in_content = False
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

    def connectionMade(self) -> None:
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
        self._closed = True
        self._mx.sessions.discard(self)
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self.gone.callback(None)

    def hang_up(self) -> None:
        self._closed = True
        cast(Any, self.transport).abortConnection()

    def _close(self) -> None:
        self._flush()
        self._closed = True
        cast(Any, self.transport).loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def _work(self) -> None:
        """Take what is in the buffer as far as it goes, and answer it in one write."""
        while not self._closed and self._late is None and (self._content() if self._in_content else self._line()):
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
        rule = self._mx.rule("DATA", None)
        if rule is None and not self._recipients:
            self._out.append(b"503 5.5.1 no RCPT\r\n")
        elif self._follow("DATA", rule):
            self._in_content = True
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
        self._in_content = False
        if self._mx.keep or self._mx.taken is not None:
            content = content.replace(b"\r\n..", b"\r\n.")
            content = content[1:] if content.startswith(b"..") else content
        message = ReceivedMessage(
            self._sender or "", tuple(self._recipients), content, self._parameters, self._helo, self._secure, self._number
        )
        self._forget()
        rule = self._mx.rule("DOT", None)
        if rule is None or rule.reply is None or rule.reply.startswith(b"2"):
            # Also when the connection is cut instead of an answer: that is what makes a duplicate.
            self._mx.take(message)
        self._follow("DOT", rule)
        return True

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
        rule = self._mx.rule("AUTH", None)
        if rule is not None:
            self._follow("AUTH", rule)
        elif mechanism.upper() == "PLAIN" and username in self._mx.credentials and self._mx.credentials[username] == password:
            self._out.append(b"235 2.7.0 welcome\r\n")
        else:
            self._out.append(b"535 5.7.8 no\r\n")

    def _answer(self, stage: str, recipient: str | None = None) -> bool:
        """Answer; whether the answer was a positive one."""
        return self._follow(stage, self._mx.rule(stage, recipient))

    def _follow(self, stage: str, rule: _Rule | None) -> bool:
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
        return rule.reply is None or rule.reply[:1] in (b"2", b"3")

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


class _Log:
    """Appends a line for each message; a write is whole, so a reader never sees half a line's beginning without its end for long."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, message: ReceivedMessage) -> None:
        left = message.line(time.time())
        while left:
            left = left[os.write(self._file, left) :]


class _Files:
    """A file for each message, there as a whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0

    def __call__(self, message: ReceivedMessage) -> None:
        self._number += 1
        part = self._directory / f".{self._number}.part"
        part.write_bytes(message.line(time.time()))
        part.rename(self._directory / f"{self._number}.json")


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """TLS by a certificate chain and a key in PEM; ``key`` None: it is in the certificate's file."""

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate_chain_file(str(certificate))
        self._context.use_privatekey_file(str(key or certificate))

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Called by Twisted when TLS begins."""
        return SSL.Connection(self._context, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lettermta.testing.mx", description="An SMTP sink for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--interface", default="127.0.0.1")
    parser.add_argument("--out", type=Path, help="a JSON-lines file, or a directory for a file per message")
    parser.add_argument("--count-only", action="store_true", help="keep nothing; the count is printed at the end")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--certificate", type=Path, help="PEM; offers STARTTLS")
    parser.add_argument("--key", type=Path, help="PEM; default: in the certificate's file")
    parser.add_argument("--script", nargs=2, action="append", default=[], metavar=("STAGE", "REPLY"), help="like MAIL '451 4.3.0 later'")
    options = parser.parse_args(arguments)

    taken: Callable[[ReceivedMessage], None] | None = None
    if options.out is not None and not options.count_only:
        taken = _Files(options.out) if options.out.is_dir() else _Log(options.out)
    extensions = [name for name in EXTENSIONS if not (options.no_pipelining and name == "PIPELINING")]
    mx = RemoteMX(
        extensions=extensions, tls=ServerTLS(options.certificate, options.key) if options.certificate else None, keep=False, taken=taken
    )
    for stage, reply in options.script:
        mx.script(stage, reply)

    from twisted.internet import reactor as installed

    reactor = cast(Any, installed)
    print(f"listening {mx.listen(reactor, options.port, options.interface)}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reactor.callFromThread(reactor.stop))
    reactor.run(installSignalHandlers=False)
    print(f"received {mx.count}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
