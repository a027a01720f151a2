"""What all our HTTP servers have in common: resources that answer the methods they name, connections with bounds, and sockets.

Promises that a request takes at most :data:`IDLE_SECONDS` of silence and :data:`MOST_BODY` octets of body (which nobody here reads), that
nobody learns our version or what we are made of, and that no answer is kept by a cache. There is no login.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from io import BytesIO
from types import MappingProxyType
from typing import Any, ClassVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web import server
from twisted.web.resource import Resource

from lettermta.config import HostPort
from lettermta.smtp.listening import CannotListen, listening_socket

IDLE_SECONDS = 30.0
"""How long a client may take over a request, or between two."""
MOST_BODY = 4096
"""Octets of a request's body that are read (and dropped); a larger one ends the connection."""
BACKLOG = 64

TEXT = b"text/plain; charset=utf-8"
_PRODUCT = b"lettermta"

_log = Logger()


@frozen
class Answer:
    """What is said to a request."""

    code: int
    kind: bytes
    body: bytes


class Answering(Resource):
    """Answers the ``methods``, and tells others which these are; ``fields`` go on top of each answer."""

    methods: ClassVar[Sequence[bytes]] = (b"GET", b"HEAD")
    fields: ClassVar[Mapping[bytes, bytes]] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def answer(self, request: Any) -> Answer | Coroutine[Any, Any, Answer]:
        """What is said to a request of one of the methods."""
        raise NotImplementedError

    def described(self, request: Any) -> str:
        """What was asked for, for the log."""
        return f"the page {request.path.decode('ascii', 'replace')}"

    def render(self, request: Any) -> int:
        """See IResource."""
        Deferred.fromCoroutine(self._render(request))
        return server.NOT_DONE_YET

    async def _render(self, request: Any) -> None:
        gone = request.notifyFinish().addErrback(lambda _: "gone")
        if request.method not in self.methods:
            allowed = [method.decode() for method in self.methods]
            request.setHeader(b"Allow", ", ".join(allowed).encode())
            answer = Answer(405, TEXT, f"Only {', '.join(allowed[:-1])} and {allowed[-1]} are answered.\n".encode())
        else:
            try:
                made = self.answer(request)
                answer = made if isinstance(made, Answer) else await made
            except Exception:
                _log.failure("{page} could not be made", page=self.described(request))
                answer = Answer(500, TEXT, b"The page could not be made; the log says why.\n")
        if not gone.called:
            self._send(request, answer)

    def _send(self, request: Any, answer: Answer) -> None:
        request.setResponseCode(answer.code)
        request.setHeader(b"Content-Type", answer.kind)
        request.setHeader(b"Content-Length", b"%d" % len(answer.body))
        request.setHeader(b"Cache-Control", b"no-store")
        for name, value in self.fields.items():
            request.setHeader(name, value)
        request.write(answer.body)
        request.finish()


class _Request(server.Request):
    """A request whose body nobody wants."""

    def gotLength(self, length: int | None) -> None:
        """The header block is read; ``length`` is that of the body, None when it is chunked."""
        self.content = BytesIO()
        if length is None or length > MOST_BODY:
            channel: Any = self.channel
            channel.transport.write(b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            channel.loseConnection()
            channel.dataReceived = _drop  # what is still on its way is not looked at

    def handleContentChunk(self, data: bytes) -> None:
        """Drop a piece of the body."""

    def write(self, data: bytes) -> None:
        """Send a piece of the answer. Whoever asks learns our name, but neither our version nor what we are made of."""
        if not self.startedWriting:
            self.setHeader(b"Server", _PRODUCT)  # type: ignore[no-untyped-call]
        super().write(data)  # type: ignore[no-untyped-call]


def _drop(data: bytes) -> None:
    """Take octets and forget them."""


class Site(server.Site):
    """Serves the pages below ``root`` without a log of accesses."""

    noisy = False
    requestFactory = _Request

    def __init__(self, root: Resource, reactor: IReactorTime) -> None:
        super().__init__(root, timeout=IDLE_SECONDS, reactor=reactor, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]

    def startFactory(self) -> None:
        """No log to open, and no clock for its lines."""

    def stopFactory(self) -> None:
        """No log to close."""

    def log(self, request: Any) -> None:
        """An access is not worth a line."""


class Bounded(WrappingFactory[ProtocolWrapper]):
    """A site that everybody gets to: ``most`` connections at once, and others are closed, so that mail keeps its share of open files."""

    noisy = False

    def __init__(self, site: Site, most: int) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]
        self._most = most

    def buildProtocol(self, addr: Any) -> Any:
        """See IProtocolFactory."""
        return super().buildProtocol(addr) if len(self.protocols) < self._most else None


def listen(
    reactor: Any, section: str, addresses: Iterable[HostPort], site: Any, listening: Callable[[HostPort], None]
) -> list[IListeningPort]:
    """Answer on each of the addresses, which ``[section] listen`` names, and of which ``listening`` is told; raises CannotListen, with a
    line for each that is not to be had, and then listens on none.
    """
    sockets: list[socket.socket] = []
    faults: list[str] = []
    for address in addresses:
        try:
            sockets.append(listening_socket(address.host, address.port, BACKLOG))
        except OSError as error:
            faults.append(f"[{section}] listen {address}: {_explain(error, address)}")
        else:
            listening(address)
    try:
        if faults:
            raise CannotListen("\n".join(faults))
        return [reactor.adoptStreamPort(one.fileno(), one.family, site) for one in sockets]
    finally:
        for one in sockets:
            one.close()  # the reactor has descriptors of its own


def _explain(error: OSError, address: HostPort) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{reason}. Another program listens there (ss -ltnp 'sport = :{address.port}' names it): stop it, or take another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{reason}. Ports below 1024 need root or CAP_NET_BIND_SERVICE: take a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}. This machine does not have the address {address.host}"
    return reason
