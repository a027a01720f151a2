"""One question to one name server: a datagram, and a TCP stream when the answer was truncated.

Promises: id and source port are random for each datagram; only a datagram from that server with this id, the QR bit and the very
question ends the wait (RFC 5452 section 9); the AD bit is asked for (RFC 6840 section 5.7); one deadline holds for the whole try.
It fails with :class:`TryFailed` alone: no answer in time, port closed, stream closed, malformed answer, an rcode that is no answer.

The socket is a read descriptor of our own and not ``listenUDP``: that one writes two log lines for each port, here for each
question, and would leave the check of the source address to us, which the kernel does for a connected socket.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import struct
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

PAYLOAD = 1232
"""Octets of UDP payload that we announce by EDNS0 (RFC 6891): what passes an IPv6 path of 1280 octets unfragmented."""

_LARGEST_DATAGRAM = 4096
_HEADER = struct.Struct(">HHHHHH")
_QR_AND_OPCODE = 0xF800
_RCODES_WITHOUT_QUESTION = frozenset({dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})


@frozen
class Server:
    """The address of a name server; ``host`` is an IP address."""

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> Server:
        """Raises ValueError unless ``host`` is an IP address."""
        ipaddress.ip_address(host)
        return cls(host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TryFailed(Exception):
    """One server gave no usable answer. ``rcode`` is the name of the one it gave, or None when it didn't get as far."""

    def __init__(self, server: Server, reason: str, *, rcode: str | None = None, answered: bool = True) -> None:
        super().__init__(f"{server}: {reason}")
        self.server = server
        self.reason = reason
        self.rcode = rcode
        self.answered = answered
        """False when the server was silent or could not be reached, so that asking it again has a point."""


@frozen
class Query:
    """One query as octets, and what its answer is known by."""

    wire: bytes
    ident: int
    name: bytes
    """The name asked for, in wire form and lower case."""
    kind: bytes
    """Type and class asked for, in wire form."""

    @classmethod
    def make(cls, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, *, edns: bool) -> Query:
        """A query with a new random id."""
        ident = secrets.randbits(16)
        message = dns.message.make_query(name, rdtype, id=ident, flags=dns.flags.RD | dns.flags.AD)
        if edns:
            message.use_edns(0, payload=PAYLOAD)
        wire = message.to_wire()
        end = _HEADER.size + len(name.to_wire() or b"")
        return cls(wire, ident, wire[_HEADER.size : end].lower(), wire[end : end + 4])

    def answered_by(self, data: bytes) -> bool:
        """Whether ``data`` claims to be the answer to this query: id, QR, opcode and question, whatever follows them."""
        if len(data) < _HEADER.size:
            return False
        ident, flags, questions = struct.unpack_from(">HHH", data)
        if ident != self.ident or flags & _QR_AND_OPCODE != dns.flags.QR:
            return False
        if questions == 0:
            # Some servers answer an error by a bare header.
            return flags & 0xF in _RCODES_WITHOUT_QUESTION
        end = _HEADER.size + len(self.name)
        return questions == 1 and data[_HEADER.size : end].lower() == self.name and data[end : end + 4] == self.kind


async def ask(
    reactor: Any, server: Server, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, timeout: float
) -> dns.message.QueryMessage:
    """Ask ``server`` once, for at most ``timeout`` seconds in all, and return its NOERROR or NXDOMAIN; anything else raises TryFailed."""
    ends = reactor.seconds() + timeout
    for edns in (True, False):
        query = Query.make(name, rdtype, edns=edns)
        data = await _before(reactor, ends, server, _Datagram(reactor, server, query).start())
        if _truncated(data):
            data = await _ask_by_stream(reactor, ends, server, query)
        message = _decode(server, data)
        # A server older than EDNS says FORMERR to the OPT record and sends none itself (RFC 6891 section 7).
        if message.rcode() != dns.rcode.FORMERR or message.edns >= 0:
            break
    if message.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        rcode = dns.rcode.to_text(message.rcode())
        raise TryFailed(server, rcode, rcode=rcode)
    return message


def _before(reactor: Any, ends: float, server: Server, waiting: Deferred[Any]) -> Deferred[Any]:
    """``waiting``, given up as silence at the moment ``ends``."""

    def silent(_result: object, _after: float) -> Any:
        raise TryFailed(server, "no answer in time", answered=False)

    return waiting.addTimeout(max(0.0, ends - reactor.seconds()), reactor, silent)


def _truncated(data: bytes) -> bool:
    return bool(int.from_bytes(data[2:4], "big") & dns.flags.TC)


def _decode(server: Server, data: bytes) -> dns.message.QueryMessage:
    try:
        message = dns.message.from_wire(data)
    except Exception as error:  # whatever the codec trips over, a stranger sent it
        raise TryFailed(server, f"malformed answer ({type(error).__name__})") from error
    assert isinstance(message, dns.message.QueryMessage)
    return message


@implementer(IReadDescriptor)
class _Datagram:
    """A query sent from a socket of its own; ``start`` gives the first datagram that is its answer."""

    def __init__(self, reactor: Any, server: Server, query: Query) -> None:
        self._reactor = reactor
        self._server = server
        self._query = query
        self._answer: Deferred[bytes] = Deferred(lambda _: self._close())
        self._socket: socket.socket | None = None

    def start(self) -> Deferred[bytes]:
        """Send; the Deferred may be cancelled, which closes the socket."""
        family = socket.AF_INET6 if ":" in self._server.host else socket.AF_INET
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            # An unbound socket gets its port, a random one, from the kernel here, and from here on only this server's datagrams.
            self._socket.connect((self._server.host, self._server.port))
            self._socket.send(self._query.wire)
        except OSError as error:
            self._fail(error)
        else:
            self._reactor.addReader(self)
        return self._answer

    def fileno(self) -> int:
        """The socket's descriptor, or -1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """The name in the reactor's log lines."""
        return "dns"

    def doRead(self) -> None:
        """Take one datagram; one that isn't the answer is as if it had never come."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_LARGEST_DATAGRAM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if self._query.answered_by(data):
            self._close()
            self._answer.callback(data)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw an error on the socket, mostly the ICMP message that nobody listens there."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(OSError(code, "port closed") if code else OSError("socket closed"))

    def _fail(self, error: OSError) -> None:
        self._close()
        self._answer.errback(TryFailed(self._server, f"unreachable ({error})", answered=False))

    def _close(self) -> None:
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None


async def _ask_by_stream(reactor: Any, ends: float, server: Server, query: Query) -> bytes:
    """The same query over TCP (RFC 7766), which gives the whole answer."""
    factory = Factory.forProtocol(lambda: _Stream(server, query))
    factory.noisy = False
    endpoint = TCP4ClientEndpoint(reactor, server.host, server.port, timeout=max(1.0, ends - reactor.seconds()))
    try:
        stream = await _before(reactor, ends, server, endpoint.connect(factory))
    except (ConnectError, ConnectingCancelledError) as error:
        raise TryFailed(server, f"TCP connection failed ({error})", answered=False) from error
    assert isinstance(stream, _Stream)
    try:
        data: bytes = await _before(reactor, ends, server, stream.answer)
    finally:
        stream.abort()
    if _truncated(data):
        raise TryFailed(server, "malformed answer (truncated over TCP)")
    return data


class _Stream(Protocol):
    """A TCP connection for one query: two octets of length before each message (RFC 1035 section 4.2.2)."""

    def __init__(self, server: Server, query: Query) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._server = server
        self._query = query
        self._buffer = b""

    def connectionMade(self) -> None:
        """Send the query."""
        assert self.transport is not None
        self.transport.write(len(self._query.wire).to_bytes(2, "big") + self._query.wire)

    def dataReceived(self, data: bytes) -> None:
        """Gather one message; what follows it is of no interest."""
        if self.answer.called:
            return
        self._buffer += data
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) < max(end, 3):
            return
        message = self._buffer[2:end]
        if self._query.answered_by(message):
            self.answer.callback(message)
        else:
            self.answer.errback(TryFailed(self._server, "malformed answer (to another question, over TCP)"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """A stream that ends without an answer is a failure at once, not at the deadline."""
        if not self.answer.called:
            self.answer.errback(TryFailed(self._server, "connection closed without an answer"))

    def abort(self) -> None:
        """Close without waiting for the other side."""
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]
