"""An SMTP server for tests: takes every message, keeps it, and misbehaves where it is told to.

    mx = RemoteMX()
    port = mx.listen(reactor)
    mx.script("RCPT", "550 5.1.1 no such user", recipient="gone@example.com")
    mx.script("MAIL", "451 4.3.0 later", times=2)
    mx.script("DOT", drop=True, times=1)              takes the content, and is gone without an answer
    mx.script("EHLO", b"\\x00\\xff rubbish\\r\\n")        octets as they stand
    mx.script("DATA", delay=30.0)
    mx.script("MAIL", b"")                            silence

Stages are ``CONNECT EHLO HELO STARTTLS AUTH MAIL RCPT DATA DOT BDAT RSET NOOP QUIT``; BDAT is the answer to each chunk, where CHUNKING is
among the extensions. Of several rules that fit, the first one counts while its ``times`` last. Whatever a script says in place of a
positive reply, the server's own state follows it. Parameters of MAIL and RCPT are taken as they come.

As a program: ``python -m lettermta.testing.mx --port 0 --out FILE.jsonl`` prints ``listening PORT`` once it answers, and appends a line of
JSON for each message before its 250: ``sender``, ``recipients``, ``content`` (or ``content_base64`` where it isn't UTF-8), ``helo``,
``tls``, ``connection``, ``received``. Where ``--out`` names a directory, each message is a file ``NUMBER.json`` in it.
``--script``, ``--delay`` and ``--drop`` are the script, for the whole run; ``--extension`` and ``--without`` are what it offers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory

from lettermta.testing.mx.received import ReceivedMessage
from lettermta.testing.mx.script import Rule, Script
from lettermta.testing.mx.session import Session
from lettermta.testing.mx.tls import ServerTLS

__all__ = ["EXTENSIONS", "ReceivedMessage", "RemoteMX", "ServerTLS"]

EXTENSIONS = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


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
        self.sessions: set[Session] = set()
        self.rules = Script()
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
        octets = reply.encode() + b"\r\n" if isinstance(reply, str) else reply
        self.rules.add(Rule(stage, octets, recipient, times, delay, drop))

    def clear(self) -> None:
        """Behave from now on."""
        self.rules.clear()

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
        return Session(self, clock)

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
