"""The server's side on Twisted: connections, TLS on them, and the choice between TLS and clear text by the first octet.

:class:`ESMTPFactory` builds one :class:`ESMTPProtocol` a connection, which lends its transport to a
:class:`~lettermta.smtp.session.ServerSession`. Twisted's own SMTP classes are not used; ``docs/design.md`` says why.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IHandshakeListener, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.interfaces import ISMTPServer
from lettermta.message import Peer, Reply
from lettermta.smtp.sending import send
from lettermta.smtp.session import SHUTTING_DOWN, TOO_SLOW, IWire, ServerSession

TLS_HELLO = b"\x16"
"""The first octet of a TLS record that carries a ClientHello (RFC 8446 section 5.1); no SMTP command begins with it."""
PARTING_SECONDS = 5.0
"""How long the peer may take to close its side (and TLS) before the connection is cut."""
COMMAND_SECONDS = 300.0
"""How long a client may take over a command or a piece of content (RFC 5321 section 4.5.3.2.7)."""


class Opening(enum.Enum):
    """How a connection begins."""

    CLEAR = "clear text, STARTTLS offered"
    TLS = "TLS at once"
    DETECT = "either, by the client's first octet"


class ESMTPFactory(Factory):
    """Builds the server's protocols for one listener from an ISMTPServer."""

    noisy = False

    def __init__(
        self,
        server: ISMTPServer,
        clock: IReactorTime,
        *,
        listener: str = "smtp",
        opening: Opening = Opening.CLEAR,
        tls: IOpenSSLServerConnectionCreator | None = None,
        detection_time: float = 0.5,
    ) -> None:
        self.server = server
        self.clock = clock
        self.listener = listener
        self.opening = opening
        self.tls = tls
        self.detection_time = detection_time
        self.protocols: set[ESMTPProtocol] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """An ESMTPProtocol for a connection from ``addr``."""
        protocol = ESMTPProtocol(self, _peer(addr, self.listener))
        protocol.factory = self
        return protocol

    def drain(self) -> int:
        """End every session that has no message in hand (421); returns how many go on."""
        for protocol in list(self.protocols):
            protocol.drain()
        return len(self.protocols)

    def abort(self) -> None:
        """Cut every connection that is left."""
        for protocol in list(self.protocols):
            protocol.abort()


def _peer(addr: IAddress | None, listener: str) -> Peer:
    """The peer of a connection; an IPv4 client of an IPv6 socket is known by its IPv4 address."""
    address = ipaddress.ip_address(str(getattr(addr, "host", "0.0.0.0")).partition("%")[0])  # noqa: S104
    mapped = getattr(address, "ipv4_mapped", None)
    return Peer(str(mapped or address), int(getattr(addr, "port", 0)), listener)


@implementer(IWire, IHandshakeListener)
class ESMTPProtocol(Protocol):
    """One incoming connection."""

    log = Logger()
    factory: ESMTPFactory
    transport: Any

    def __init__(self, factory: ESMTPFactory, peer: Peer) -> None:
        self._clock = factory.clock
        self._peer = peer
        self._session = ServerSession(factory.server, peer, self, starttls=factory.tls is not None)
        self._detection: IDelayedCall | None = None
        self._parting: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._deadline = 0.0
        self._greeted = False

    # -- the transport calls

    def connectionMade(self) -> None:
        """Begin as the listener says."""
        self.factory.protocols.add(self)
        self.transport.setTcpNoDelay(True)
        self._postpone()
        self._timer = self._clock.callLater(COMMAND_SECONDS, self._check_deadline)
        if self.factory.opening is Opening.CLEAR:
            self._greet()
        elif self.factory.opening is Opening.TLS:
            self.start_tls()
        else:
            self._detection = self._clock.callLater(self.factory.detection_time, self._detected_clear)

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client, decrypted where TLS is on."""
        if self._detection is not None:
            self._detect(data)
            return
        self._postpone()
        self._session.receive(data)

    def handshakeCompleted(self) -> None:
        """TLS is up, by STARTTLS or from the beginning."""
        connection = self.transport.getHandle()
        description = f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"
        self._session.secured(description)
        if not self._greeted and self._parting is None:
            self._greet()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.factory.protocols.discard(self)
        for timer in (self._detection, self._parting, self._timer):
            if timer is not None and timer.active():
                timer.cancel()
        self._session.lost()

    # -- the first octet

    def _detect(self, data: bytes) -> None:
        assert self._detection is not None
        self._detection.cancel()
        self._detection = None
        if data.startswith(TLS_HELLO):
            self.start_tls()
            self.transport.protocol.dataReceived(data)
        else:
            self._greet()
            self._session.receive(data)

    def _detected_clear(self) -> None:
        self._detection = None
        self._greet()

    def _greet(self) -> None:
        self._greeted = True
        self._session.greet()

    # -- the session calls (IWire)

    def write(self, data: bytes) -> None:
        """Send replies; from then on it is the client's time that runs, however long we took."""
        self._postpone()
        send(self.transport, data)

    def start_tls(self) -> None:
        """Put TLS between the transport and this protocol."""
        self.transport.startTLS(self.factory.tls)

    def close(self) -> None:
        """Part; a peer that does not follow is cut off, since TLS's closing has no timer of its own."""
        if self._parting is None:
            if self._detection is not None:
                self._detection.cancel()
                self._detection = None
            self._parting = self._clock.callLater(PARTING_SECONDS, self.transport.abortConnection)
            self.transport.loseConnection()

    def pause(self) -> None:
        """Read no more for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    # -- time

    def _postpone(self) -> None:
        self._deadline = self._clock.seconds() + COMMAND_SECONDS

    def _check_deadline(self) -> None:
        """One timer a connection, armed again at most once a period: resetting a timer at every read would cost more than the read."""
        rest = self._deadline - self._clock.seconds()
        if rest <= 0 and not self._session.answering:
            self.log.info("{peer.address} timed out", peer=self._peer)
            self._timer = None
            self._end(TOO_SLOW)
        else:
            self._timer = self._clock.callLater(max(rest, 1.0), self._check_deadline)

    # -- shutting down

    def drain(self) -> None:
        """End the session unless a message is in hand."""
        if not self._session.busy:
            self._end(SHUTTING_DOWN)

    def _end(self, reply: Reply) -> None:
        """End the session by ``reply``, or without a word where TLS is not up yet or may be what the client is about to begin."""
        if self._greeted:
            self._session.end(reply)
        else:
            self._session.lost()
        self.close()

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()
