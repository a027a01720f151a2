"""One incoming connection: what comes before its session, TLS, and the end.

:class:`ESMTPProtocol` lends its transport to a :class:`~lettermta.smtp.session.ServerSession`, which knows no sockets. Twisted's own SMTP
classes are not used; ``docs/design.md`` says why.

    ARRIVING (PROXY header) -> DETECTING (first octet) -> HANDSHAKE -> SPEAKING -> PARTING
"""

from __future__ import annotations

import enum
import ipaddress
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.message import Peer, Reply
from lettermta.smtp.admission import Admitted, Cause, Denied, Visit
from lettermta.smtp.channel_binding import channel_binding
from lettermta.smtp.patience import Deadline, Patience, Turn
from lettermta.smtp.proxy import ProxyFault, ProxyHeader
from lettermta.smtp.sending import send
from lettermta.smtp.session import SHUTTING_DOWN, TOO_SLOW, ServerSession
from lettermta.smtp.tls import failure_cause
from lettermta.smtp.wire import IWire

if TYPE_CHECKING:
    from lettermta.smtp.server import ESMTPFactory

TLS_HELLO = b"\x16"
"""The first octet of a TLS record that carries a ClientHello (RFC 8446 section 5.1); no SMTP command begins with it."""
PARTING_SECONDS = 5.0
"""How long the peer may take to close its side (and TLS) before the connection is cut."""

MAKING_ROOM = Reply(421, "4.7.0", "Too many connections, and this one was idle")

_REFUSALS = {
    Cause.ALL: "total_limit",
    Cause.ADDRESS: "address_limit",
    Cause.NETWORK: "network_limit",
    Cause.FAILED_LOGINS: "login_failures",
}


class Opening(enum.Enum):
    """How a connection begins."""

    CLEAR = "clear text, STARTTLS offered"
    TLS = "TLS at once"
    DETECT = "either, by the client's first octet"


class Stage(enum.Enum):
    """How far a connection is."""

    ARRIVING = "a PROXY header is awaited"
    DETECTING = "the first octet is awaited"
    HANDSHAKE = "TLS is being made, before the banner"
    SPEAKING = "the session has the connection"
    PARTING = "it is over, but for the closing"


@implementer(IWire, IHandshakeListener, IPushProducer)
class ESMTPProtocol(Protocol):
    """One incoming connection."""

    log = Logger()
    factory: ESMTPFactory
    transport: Any

    def __init__(self, factory: ESMTPFactory, peer: Peer) -> None:
        self._clock = factory.clock
        self._peer = peer
        self._edge = factory.edge
        self._session = ServerSession(
            factory.server,
            peer,
            self,
            factory.edge.guard,
            factory.clock,
            starttls=factory.tls is not None,
            rules=factory.edge.rules,
        )
        self._patience = Patience(factory.edge.pace, factory.clock)
        self._stage = Stage.DETECTING
        self._visit: Visit | None = None
        self._header: ProxyHeader | None = None
        self._spoken = False
        """The client has sent something in the session."""
        self._in_handshake = False
        self._detection: IDelayedCall | None = None
        self._parting: IDelayedCall | None = None
        self._deadline: Deadline | None = None

    # -- the transport calls

    def connectionMade(self) -> None:
        """Begin with a PROXY header where the peer is a named proxy, else with whatever the listener begins with."""
        self.factory.protocols.add(self)
        self.factory.accepted.inc()
        self.factory.open.inc()
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._deadline = Deadline(self._patience, self._edge.pace, self._clock, self._late)
        if self.factory.proxies and any(ipaddress.ip_address(self._peer.address) in network for network in self.factory.proxies):
            self._stage = Stage.ARRIVING
            self._header = ProxyHeader()
        else:
            self._enter()

    def dataReceived(self, data: bytes) -> None:
        """Octets from the client, decrypted where TLS is on."""
        if self._stage is Stage.SPEAKING:
            self._patience.received(len(data))
            if not self._spoken and not self._begins_well(data):
                return
            self._session.receive(data)
        elif self._stage is Stage.DETECTING:
            self._detect(data)
        elif self._stage is Stage.ARRIVING:
            self._read_header(data)

    def handshakeCompleted(self) -> None:
        """TLS is up, by STARTTLS or from the beginning."""
        if self._stage is Stage.PARTING:
            return
        connection = self.transport.getHandle()
        version = connection.get_protocol_version_name()
        metrics.TLS_HANDSHAKES[version].inc()
        self._in_handshake = False
        self._session.secured(f"{version} {connection.get_cipher_name()}", channel_binding(connection))
        if self._stage is Stage.HANDSHAKE:
            self._greet()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.factory.protocols.discard(self)
        self.factory.open.dec()
        if self._in_handshake:
            self._no_tls(failure_cause(reason), reason.getErrorMessage())
        elif self._stage is Stage.SPEAKING:
            metrics.SESSIONS_ENDED["lost"].inc()
        self._stage = Stage.PARTING
        self._leave()
        for timer in (self._detection, self._parting):
            if timer is not None and timer.active():
                timer.cancel()
        self._detection = self._parting = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._session.lost()

    # -- the transport calls when the client reads too slowly, or again (IPushProducer)

    def pauseProducing(self) -> None:
        """More than can be sent is waiting."""
        self._session.congested()

    def resumeProducing(self) -> None:
        """All that waited has been sent."""
        self._session.relieved()

    def stopProducing(self) -> None:
        """The connection is gone, which :meth:`connectionLost` tells too."""

    # -- coming in

    def _read_header(self, data: bytes) -> None:
        assert self._header is not None
        try:
            header = self._header.feed(data)
        except ProxyFault as fault:
            self.log.warn("{peer.address} sent no PROXY header that can be accepted: {fault}", peer=self._peer, fault=str(fault))
            metrics.CONNECTIONS_REFUSED[self.factory.listener, "proxy_header"].inc()
            self.close()
            return
        if header is None:
            return
        self._header = None
        if header.source is not None:
            self._peer.address, self._peer.port = header.source.address, header.source.port
        self._enter()
        if header.rest and self._stage is not Stage.PARTING:
            self.transport.protocol.dataReceived(header.rest)

    def _enter(self) -> None:
        """The client's address is known: let it in or not."""
        denied: Denied | Admitted | None = self._edge.guard.denies(self._peer.address)
        if denied is None:
            denied = self._edge.admission.enter(self._peer.address, self)
        if isinstance(denied, Denied):
            self.log.info("{peer.address} is not let in: {cause}", peer=self._peer, cause=denied.cause.value)
            metrics.CONNECTIONS_REFUSED[self.factory.listener, _REFUSALS[denied.cause]].inc()
            if self.factory.opening is not Opening.TLS:
                self.transport.write(denied.reply.encode())
            self.close()
            return
        self._visit = denied.visit
        if denied.yields is not None:
            yielding: ESMTPProtocol = denied.yields.connection  # type: ignore[assignment]
            yielding.make_room()
        self._open()

    def _open(self) -> None:
        self._patience.command()
        if self.factory.opening is Opening.CLEAR:
            self._greet()
        elif self.factory.opening is Opening.TLS:
            self._stage = Stage.HANDSHAKE
            self.start_tls()
        else:
            self._stage = Stage.DETECTING
            self._detection = self._clock.callLater(self.factory.detection_time, self._detected_clear)

    def _detect(self, data: bytes) -> None:
        if self._detection is not None:
            self._detection.cancel()
            self._detection = None
        if data.startswith(TLS_HELLO):
            self._stage = Stage.HANDSHAKE
            self.start_tls()
            self.transport.protocol.dataReceived(data)
        else:
            self._greet()
            self.dataReceived(data)

    def _detected_clear(self) -> None:
        self._detection = None
        self._greet()

    def _greet(self) -> None:
        self._stage = Stage.SPEAKING
        self._patience.command()
        self._session.greet()

    def _begins_well(self, data: bytes) -> bool:
        """Whether what a client says first may be SMTP; TLS on a port that begins in clear is the mistake made most."""
        self._spoken = True
        if self._peer.tls is None and data.startswith(TLS_HELLO):
            self._no_tls("hello_on_starttls_port", "the client began TLS at once on a port that begins in clear")
            self.close()
            return False
        return True

    def _no_tls(self, cause: str, reason: str) -> None:
        """TLS came to nothing; ``cause`` as the counters call it. Told once."""
        self._in_handshake = False
        metrics.TLS_FAILURES[cause].inc()
        metrics.SESSIONS_ENDED["tls"].inc()
        self.log.info(
            "{peer.address}: no TLS on {peer.listener}: {cause} ({reason})", peer=self._peer, cause=cause.replace("_", " "), reason=reason
        )

    def _leave(self) -> None:
        if self._visit is not None:
            self._edge.admission.leave(self._visit)
            self._visit = None

    # -- the session calls (IWire)

    def write(self, data: bytes) -> None:
        """Send replies."""
        send(self.transport, data)

    def start_tls(self) -> None:
        """Put TLS between the transport and this protocol."""
        self._in_handshake = True
        self._patience.command()
        self.transport.startTLS(self.factory.tls)

    def close(self) -> None:
        """Part; a peer that does not follow is cut off, since TLS's closing has no timer of its own."""
        self._stage = Stage.PARTING
        if self._parting is None:
            if self._detection is not None:
                self._detection.cancel()
                self._detection = None
            if self._deadline is not None:
                self._deadline.cancel()
            self._parting = self._clock.callLater(PARTING_SECONDS, self.transport.abortConnection)
            # TLS is not closed as long as more could come from a producer.
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def pause(self) -> None:
        """Read no more for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def turn(self, whose: Turn) -> None:
        """Whose time runs from now on."""
        if whose is Turn.OURS:
            self._patience.pause()
        elif whose is Turn.CONTENT and self._patience.turn is Turn.OURS:
            self._patience.resume_content()
        elif whose is Turn.CONTENT:
            self._patience.content()
        else:
            self._patience.command()
            if self._visit is not None:
                self._edge.admission.active(self._visit)

    def logged_in(self) -> None:
        """The client has shown who it is: it makes room for nobody."""
        if self._visit is not None:
            self._edge.admission.logged_in(self._visit)

    # -- ending it

    def _late(self) -> None:
        """The client's time is over."""
        if self._in_handshake:
            self._no_tls("timed_out", "the client took too long")
        else:
            cause = "too_slow" if self._patience.turn is Turn.CONTENT else "timed_out"
            self.log.info("{peer.address}: {cause}", peer=self._peer, cause=cause.replace("_", " "))
            metrics.SESSIONS_ENDED[cause].inc()
        self._end(TOO_SLOW)

    def make_room(self) -> None:
        """Another connection takes the place of this idle one, which has been counted out."""
        self._visit = None
        self._end(MAKING_ROOM)

    def drain(self) -> None:
        """End the session unless a message is in hand."""
        if not self._session.busy and self._stage is not Stage.PARTING:
            metrics.SESSIONS_ENDED["shutting_down"].inc()
            self._end(SHUTTING_DOWN)

    def _end(self, reply: Reply) -> None:
        """End the session by ``reply``, or without a word where TLS is not up yet or may be what the client is about to begin."""
        self._in_handshake = False
        if self._stage is Stage.SPEAKING:
            self._session.end(reply)
        else:
            self._session.lost()
        self.close()

    def abort(self) -> None:
        """Cut the connection."""
        self.transport.abortConnection()
