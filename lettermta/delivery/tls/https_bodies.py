"""The bodies of requests and answers, in memory; whoever made the connection bounds them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer


@implementer(IBodyProducer)
class RequestBody:
    """What a request carries: small enough to be written at once."""

    def __init__(self, octets: bytes) -> None:
        self.length = len(octets)
        self._octets = octets

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """See IBodyProducer."""
        consumer.write(self._octets)
        return succeed(None)

    def pauseProducing(self) -> None:
        """All of it has been written."""

    def resumeProducing(self) -> None:
        """See pauseProducing."""

    def stopProducing(self) -> None:
        """See pauseProducing."""


class CutOff(Exception):
    """An answer ended before its time: the connection was lost, or cut since too much came."""


class ResponseBody(Protocol):
    """Gathers what an answer carries: ``whole`` fires with it, or fails with :class:`CutOff`."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """One more piece."""
        self._octets += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end. One that the server did not announce may be anybody's, who wants the rest not to be seen."""
        if self.whole.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.whole.callback(bytes(self._octets))
        else:
            self.whole.errback(CutOff())
