"""An endpoint whose connections take in so many octets and no more, whatever the other side sends.

It counts what comes from the network, below TLS, so head and body of an answer are bounded together, and TLS's own octets (a few thousand)
count as well.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
@define
class BoundedEndpoint:
    """Connects as ``endpoint`` does, to one place at a time; a connection that took in more than ``most`` octets is cut."""

    _endpoint: IStreamClientEndpoint
    _most: int
    _connection: Any = field(default=None, init=False)

    def abort(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.transport.abortConnection()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        connected: Deferred[Any] = self._endpoint.connect(_Counting(protocolFactory, self._most))
        return connected.addCallback(self._connected)

    def _connected(self, connection: Any) -> IProtocol:
        self._connection = connection
        return cast(IProtocol, connection.wrappedProtocol)


class _Counted(ProtocolWrapper):
    """One connection."""

    transport: Any
    _taken = 0

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, unless it is too much."""
        self._taken += len(data)
        if self._taken > self.factory.most:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


class _Counting(WrappingFactory):
    noisy = False
    protocol = _Counted

    def __init__(self, wrapped: IProtocolFactory, most: int) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.most = most
