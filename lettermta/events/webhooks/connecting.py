"""Connections to a webhook's endpoint: only to addresses that are allowed, and bounded in what they take in (HARD-CASES row 31).

The host's name is resolved anew for each connection, and the connection goes to an address of that very answer that was found to be
allowed: what the name stands for a moment later makes no difference. For TLS the certificate has to be good for the name.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from lettermta.address_policy import Network, permits

CONNECT_SECONDS = 5.0
"""How long one address may take to accept a connection before the next one is tried."""
MOST_ADDRESSES = 4
"""Addresses that are tried for one connection."""
MOST_RECEIVED = 131_072
"""Octets that one answer may have in all, status line and header fields included; more of them ends the connection."""
CLOSE_SECONDS = 2.0
"""How long the other side may take to close a connection that we have done with."""


class NotAllowed(Exception):
    """The endpoint's address is not one that may be connected to."""


class NoAddress(Exception):
    """The endpoint's host has no address."""


class BoundedConnection(ProtocolWrapper):
    """A connection that ends itself when an answer is too long, and that closes within a bound."""

    transport: Any
    _received = 0
    _closing: Any = None

    def connectionMade(self) -> None:
        """A request is a write for its head and one for its body: the second must not wait for the first's acknowledgement."""
        self.transport.setTcpNoDelay(True)
        super().connectionMade()  # type: ignore[no-untyped-call]

    def write(self, data: bytes) -> None:
        """A request goes out: the next answer is counted from here."""
        self._received = 0
        super().write(data)  # type: ignore[no-untyped-call]

    def dataReceived(self, data: bytes) -> None:
        """Pass on what came, as long as it is not too much."""
        self._received += len(data)
        if self._received > MOST_RECEIVED:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        """Close; what has not closed by itself soon is cut (a TLS connection waits for its peer without end)."""
        if self._closing is None and self.connected:
            self._closing = self.factory.clock.callLater(CLOSE_SECONDS, self._cut)
        super().loseConnection()  # type: ignore[no-untyped-call]

    def _cut(self) -> None:
        self._closing = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over; some close it once more when it is, which there is nothing to wait for."""
        self.connected = 0
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _BoundingFactory(WrappingFactory):
    noisy = False
    protocol = BoundedConnection

    def __init__(self, wrapped: IProtocolFactory, clock: Any) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.clock = clock


@implementer(IStreamClientEndpoint)
class CheckedEndpoint:
    """Where one URL leads to, as far as that is allowed."""

    def __init__(
        self,
        reactor: Any,
        uri: URI,
        allowed: Sequence[Network],
        addresses: Callable[[str], Deferred[Sequence[str]]],
        opening: Callable[[], None],
    ) -> None:
        self._opening = opening
        self._reactor = reactor
        self._uri = uri
        self._allowed = allowed
        self._addresses = addresses

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        """A connection to the first address that takes it; fails with NotAllowed, NoAddress, or as the last address did."""
        self._opening()
        factory.noisy = False  # it would tell of each connection in the log
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        host = self._uri.host.decode("ascii")
        addresses = [host] if isIPAddress(host) or isIPv6Address(host) else await self._addresses(host)
        if not addresses:
            raise NoAddress(f"{host} has no address")
        allowed = [address for address in addresses if permits(address, self._allowed)][:MOST_ADDRESSES]
        if not allowed:
            where = host if addresses == [host] else f"{host} is {', '.join(addresses[:3])}, which"
            raise NotAllowed(f"{where} is not allowed ([events] webhook_allow_networks)")
        for address in allowed[:-1]:
            try:
                return await self._open(address, factory)
            except (ConnectError, SSL.Error):
                continue
        return await self._open(allowed[-1], factory)

    async def _open(self, address: str, factory: IProtocolFactory) -> IProtocol:
        kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        endpoint: Any = kind(self._reactor, address, self._uri.port, timeout=CONNECT_SECONDS)
        if self._uri.scheme == b"https":
            endpoint = wrapClientTLS(optionsForClientTLS(self._uri.host.decode("ascii")), endpoint)
        connection: Any = await endpoint.connect(_BoundingFactory(factory, self._reactor))
        wrapped: IProtocol = connection.wrappedProtocol
        return wrapped


@implementer(IAgentEndpointFactory)
class CheckedEndpoints:
    """Makes the endpoints of the Agent of one webhook. ``resolve`` asks for a host's addresses; one question waits at a time."""

    def __init__(self, reactor: Any, allowed: Sequence[Network], resolve: Callable[[str], Deferred[Sequence[str]]]) -> None:
        self.opened = 0
        """Connections that were asked for."""
        self._reactor = reactor
        self._allowed = allowed
        self._resolve = resolve
        self._asking: dict[str, list[Deferred[Sequence[str]]]] = {}

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory."""
        endpoint: IStreamClientEndpoint = CheckedEndpoint(self._reactor, uri, self._allowed, self._addresses, self._open)
        return endpoint

    def _open(self) -> None:
        self.opened += 1

    def _addresses(self, host: str) -> Deferred[Sequence[str]]:
        """The host's addresses. All that ask at the same time share one look-up: a name server that hangs holds one thread, not all."""
        answer: Deferred[Sequence[str]] = Deferred()
        asking = self._asking.setdefault(host, [])
        asking.append(answer)
        if len(asking) == 1:
            self._resolve(host).addBoth(self._resolved, host)
        return answer

    def _resolved(self, result: Sequence[str] | Failure, host: str) -> None:
        for answer in self._asking.pop(host):
            if not answer.called:
                answer.callback(result)


def system_addresses(reactor: Any) -> Callable[[str], Deferred[Sequence[str]]]:
    """Look-ups as the system does them, hosts file and all: who runs an endpoint in his own network names it there."""

    def look_up(host: str) -> Sequence[str]:
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NoAddress(f"{host} can't be resolved: {error.strerror}") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def resolve(host: str) -> Deferred[Sequence[str]]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), look_up, host)

    return resolve
