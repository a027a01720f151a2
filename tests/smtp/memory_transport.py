"""A connection without sockets: the server's transport, where TLS can be started as on a TCP connection, and a client that speaks TLS."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure


class MemoryTransport:
    """What the server's protocol sees. ``sent`` is what has left; ``closing``, ``aborted`` and ``reading`` tell what was asked for."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol: Any = protocol
        self.sent = b""
        self.reading = True
        self.closing = False
        self.aborted = False
        self._tls: TLSMemoryBIOProtocol | None = None
        protocol.makeConnection(self)

    def receive(self, octets: bytes) -> None:
        """Octets arrive from the client."""
        if not self.aborted:
            self.protocol.dataReceived(octets)

    def hang_up(self) -> None:
        """The connection is gone."""
        self.protocol.connectionLost(Failure(ConnectionAborted() if self.aborted else ConnectionDone()))

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled

    def startTLS(self, creator: Any) -> None:
        factory = TLSMemoryBIOFactory(creator, False, None, Clock())
        self._tls = TLSMemoryBIOProtocol(factory, self.protocol, False)
        self.protocol = self._tls
        self._tls.makeConnection(_Below(self))

    def getHandle(self) -> SSL.Connection:
        assert self._tls is not None
        return self._tls.getHandle()

    def write(self, data: bytes) -> None:
        if self._tls is not None:
            self._tls.write(data)
        elif not self.closing:
            self.sent += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming

    def unregisterProducer(self) -> None: ...

    def loseConnection(self) -> None:
        if self._tls is not None:
            self._tls.loseConnection()
        else:
            self.closing = True

    def abortConnection(self) -> None:
        self.aborted = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True


class _Below:
    """The transport as TLS sees it: octets written here are on the wire."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        self._transport.sent += data

    def loseConnection(self) -> None:
        self._transport.closing = True

    def abortConnection(self) -> None:
        self._transport.aborted = True


class TLSClient:
    """The client's end of TLS, over octets. ``step`` is how many of them a read brings (0: all there are)."""

    def __init__(self, transport: MemoryTransport, name: str | None = None, *, context: SSL.Context | None = None, step: int = 0) -> None:
        self._transport = transport
        self._step = step
        self.connection = SSL.Connection(context or SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        if name is not None:
            self.connection.set_tlsext_host_name(name.encode())
        self.connection.set_connect_state()

    def handshake(self) -> TLSClient:
        """Until it is complete; raises SSL.Error when it fails."""
        for _ in range(10):
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                self._exchange()
            except SSL.Error:
                self._exchange()  # the alert that tells the server why
                raise
            else:
                self._exchange()
                return self
        raise AssertionError("the server says nothing")

    def sends(self, data: bytes) -> bytes:
        """Send octets, and return what is answered."""
        self.connection.send(data)
        self._exchange()
        return self.reads()

    def reads(self) -> bytes:
        """All that the server has sent."""
        self._exchange()
        received = b""
        while True:
            try:
                received += self.connection.recv(65536)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return received

    def _exchange(self) -> None:
        try:
            octets = self.connection.bio_read(1 << 20)
        except SSL.WantReadError:
            octets = b""
        step = self._step or len(octets) or 1
        for start in range(0, len(octets), step):
            self._transport.receive(octets[start : start + step])
        sent, self._transport.sent = self._transport.sent, b""
        if sent:
            self.connection.bio_write(sent)
