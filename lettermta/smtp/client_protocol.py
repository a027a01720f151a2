"""The connection under a client session: Twisted's protocol, the producer that streams content, and TLS.

Promises the session's wire on a real transport: writes go out in order, streaming keeps at most one piece beyond the transport's buffer in
memory, and a connection that is to close is closed within a few seconds, also when the peer doesn't take part.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.smtp.client import ClientSession
from lettermta.smtp.client_dialogue import IClientWire
from lettermta.smtp.client_settings import ClientSettings
from lettermta.smtp.client_tls import Handshake
from lettermta.smtp.sending import send

_CLOSING_SECONDS = 5.0


@implementer(IClientWire, IPushProducer, IHandshakeListener)
class ClientProtocol(Protocol):
    """One outgoing connection; :attr:`session` is what others deal with."""

    def __init__(self, clock: IReactorTime, settings: ClientSettings, handshake: Handshake, peer: str) -> None:
        self.session = ClientSession(self, clock, settings, peer)
        self._clock = clock
        self._handshake = handshake
        self._closing: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None
        self._paused = False
        self._up = False

    # From the transport.

    def connectionMade(self) -> None:
        """The TCP connection stands."""
        self._up = True
        if ITCPTransport.providedBy(self.transport):
            # Each write is a whole step of the dialogue: waiting for more to fill a segment only costs time.
            self.transport.setTcpNoDelay(True)
        self.session.connected()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the peer, decrypted."""
        self.session.received(data)

    def handshakeCompleted(self) -> None:
        """TLS is up; nothing has been sent in it yet."""
        self._handshake.done()
        fault = self._handshake.fault
        self.session.secured(self._handshake.description, None if fault is None else fault.text)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, for whatever reason."""
        self._up = False
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()
        self._handshake.over()
        self.session.lost(_words(reason))

    # IClientWire.

    def write(self, data: bytes) -> None:
        """Send octets."""
        if self._up and self.transport is not None:
            send(self.transport, data)

    def stream(self, pieces: AsyncIterator[bytes]) -> Deferred[None]:
        """Send pieces with back-pressure."""
        return Deferred.fromCoroutine(self._stream(pieces))

    def start_tls(self) -> None:
        """Begin the handshake as the client."""
        cast(ITLSTransport, self.transport).startTLS(self._handshake)

    def close(self) -> None:
        """Close once all is sent, or after a few seconds (TLS would wait for the peer's own close without end)."""
        if self._up and self._closing is None and self.transport is not None:
            self._closing = self._clock.callLater(_CLOSING_SECONDS, self._closing_passed)
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once."""
        if self._up:
            cast(Any, self.transport).abortConnection()

    # IPushProducer.

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._paused = False
        drained, self._drained = self._drained, None
        if drained is not None:
            drained.callback(None)

    def stopProducing(self) -> None:
        """The connection is gone; the session is told by ``connectionLost`` and cancels the stream."""
        self._paused = True

    async def _stream(self, pieces: AsyncIterator[bytes]) -> None:
        transport = cast(Any, self.transport)
        transport.registerProducer(self, True)
        try:
            async with aclosing(cast("AsyncGenerator[bytes, None]", pieces)):
                async for piece in pieces:
                    if self._paused:
                        self._drained = Deferred()
                        await self._drained
                    self.write(piece)
        finally:
            self._drained = None
            self._paused = False
            if self._up:
                transport.unregisterProducer()

    def _closing_passed(self) -> None:
        self._closing = None
        self.abort()


def _words(reason: Failure) -> str:
    """Why a connection was lost, as far as there is more to say than that it was."""
    error = reason.value
    if isinstance(error, ConnectionDone):
        return "closed by the other side"
    if isinstance(error, SSL.Error):
        faults = error.args[0] if error.args else ()
        told = "; ".join(str(fault[-1]) for fault in faults) if isinstance(faults, list | tuple) else str(faults)
        return f"TLS: {told or type(error).__name__}"
    if isinstance(error, ConnectionClosed):
        return ""
    return reason.getErrorMessage()
