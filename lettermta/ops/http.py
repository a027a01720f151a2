"""The daemon's own pages over HTTP: ``/metrics`` for Prometheus, ``/health`` and ``/ready`` for whoever restarts or routes.

Promises to answer whatever state the daemon is in, within :data:`CHECK_SECONDS`, and to read nothing but GET and HEAD: what a request
carries besides is refused or dropped. There is neither login nor TLS, so it listens on loopback, or the log has a warning.
"""

from __future__ import annotations

import enum
import errno
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from io import BytesIO
from ipaddress import ip_address
from typing import Any

import orjson
from attrs import frozen
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as GaveUp
from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource

from lettermta.config import HostPort
from lettermta.metrics import Registry
from lettermta.smtp.listening import CannotListen

CHECK_SECONDS = 5.0
"""How long a check may take before it counts as failed."""
IDLE_SECONDS = 30.0
"""How long a client may take over a request, or between two."""
MOST_BODY = 4096
"""Octets of a request's body that are read (and dropped); a larger one ends the connection."""
BACKLOG = 64

_PRODUCT = b"lettermta"
_TEXT = b"text/plain; charset=utf-8"
_JSON = b"application/json"

_log = Logger()

# -- health


class Condition(enum.Enum):
    """What the daemon is about."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class Severity(enum.Enum):
    """What a check's complaint means."""

    FAILURE = "failure"
    """The daemon does not do its work."""
    WARNING = "warning"
    """It does, and somebody should look at it."""


Check = Callable[[], "str | Deferred[str | None] | None"]
"""What is wrong, in words for an operator and without a secret; None when all is well."""


@frozen
class Finding:
    """What the checks say: complaints by the name of the check."""

    failures: Mapping[str, str]
    warnings: Mapping[str, str]


class Health:
    """The daemon's condition, which the wiring sets, and the checks that it registers."""

    def __init__(self) -> None:
        self.condition = Condition.STARTING
        self._checks: dict[str, tuple[Check, Severity]] = {}

    def check(self, name: str, function: Check, severity: Severity = Severity.FAILURE) -> None:
        """Have ``function`` asked at each look, in the place of an earlier one of the same name. One that raises has failed."""
        self._checks[name] = function, severity

    async def look(self, clock: IReactorTime) -> Finding:
        """Ask every check, all at once; does not fail."""
        checks = dict(self._checks)
        answers = await DeferredList([_asked(name, function, clock) for name, (function, _) in checks.items()])
        found: dict[Severity, dict[str, str]] = {severity: {} for severity in Severity}
        for (name, (_, severity)), (_, complaint) in zip(checks.items(), answers, strict=True):
            if complaint is not None:
                found[severity][name] = complaint
        return Finding(found[Severity.FAILURE], found[Severity.WARNING])


def _asked(name: str, function: Check, clock: IReactorTime) -> Deferred[str | None]:
    async def ask() -> str | None:
        answer = function()
        return await answer if isinstance(answer, Deferred) else answer

    def failed(failure: Failure) -> str:
        if isinstance(failure.value, GaveUp | CancelledError):
            return f"no answer within {CHECK_SECONDS:g} s"
        _log.failure("the check {name} failed", failure=failure, name=name)
        return f"the check itself failed ({type(failure.value).__name__}); the log has more"

    return Deferred.fromCoroutine(ask()).addTimeout(CHECK_SECONDS, clock).addErrback(failed)


# -- pages


@frozen
class Answer:
    """What a page says."""

    code: int
    kind: bytes
    body: bytes


class Page(Resource):
    """One page, for GET and HEAD alone."""

    def __init__(self, answer: Callable[[], Answer | Coroutine[Any, Any, Answer]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer

    def render(self, request: Any) -> int:
        """See IResource."""
        Deferred.fromCoroutine(self._render(request))
        return server.NOT_DONE_YET

    def getChild(self, path: bytes, request: Any) -> Resource:
        """There is nothing below a page."""
        return NOT_FOUND

    async def _render(self, request: Any) -> None:
        gone = request.notifyFinish().addErrback(lambda _: "gone")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            answer = Answer(405, _TEXT, b"Only GET and HEAD are answered.\n")
        else:
            try:
                made = self._answer()
                answer = made if isinstance(made, Answer) else await made
            except Exception:
                _log.failure("the page {path} could not be made", path=request.path.decode("ascii", "replace"))
                answer = Answer(500, _TEXT, b"The page could not be made; the log says why.\n")
        if not gone.called:
            _send(request, answer)


def _send(request: Any, answer: Answer) -> None:
    request.setResponseCode(answer.code)
    request.setHeader(b"Content-Type", answer.kind)
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    request.setHeader(b"Cache-Control", b"no-store")
    request.write(answer.body)
    request.finish()


def _not_found() -> Answer:
    return Answer(404, _TEXT, b"Not found. There are /metrics, /health and /ready.\n")


NOT_FOUND = Page(_not_found)


def _told(status: str, finding: Finding) -> Answer:
    """200 and a word when nothing has failed, and a line for each warning; else 503 and all of it as JSON."""
    if status in ("ok", "ready") and not finding.failures:
        lines = [status, *(f"warning: {name}: {text}" for name, text in finding.warnings.items())]
        return Answer(200, _TEXT, ("\n".join(lines) + "\n").encode())
    status = "failing" if finding.failures else status
    document = {"status": status, "failures": finding.failures, "warnings": finding.warnings}
    return Answer(503, _JSON, orjson.dumps(document) + b"\n")


def make_site(registry: Registry, health: Health, reactor: IReactorTime) -> server.Site:
    """The pages as a factory for connections. ``/health`` tells if the daemon works, ``/ready`` also if mail should be sent to it now."""

    async def metrics() -> Answer:
        return Answer(200, CONTENT_TYPE_PLAIN_0_0_4.encode(), await registry.expose(reactor))

    async def healthy() -> Answer:
        return _told("ok", await health.look(reactor))

    async def ready() -> Answer:
        return _told(health.condition.value, await health.look(reactor))

    root = Page(_not_found)
    root.putChild(b"metrics", Page(metrics))
    root.putChild(b"health", Page(healthy))
    root.putChild(b"ready", Page(ready))
    return _Site(root, reactor)


# -- the server


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


class _Site(server.Site):
    """Serves the pages without a log of accesses."""

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


# -- listening


def listen(reactor: Any, addresses: Iterable[HostPort], site: server.Site) -> list[IListeningPort]:
    """Answer on each of the addresses; raises CannotListen, with a line for each that is not to be had, and then listens on none."""
    sockets: list[socket.socket] = []
    faults: list[str] = []
    for address in addresses:
        try:
            sockets.append(_bound(address))
        except OSError as error:
            faults.append(f"[http] listen {address}: {_explain(error, address)}")
        else:
            if not ip_address(address.host).is_loopback:
                _log.warn("[http] listens on {address} without login and TLS: everyone who gets there can read it", address=str(address))
    try:
        if faults:
            raise CannotListen("\n".join(faults))
        return [reactor.adoptStreamPort(one.fileno(), one.family, site) for one in sockets]
    finally:
        for one in sockets:
            one.close()  # the reactor has descriptors of its own


def _bound(address: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] is IPv6 alone, as it is for the listeners of mail.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address.host, address.port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _explain(error: OSError, address: HostPort) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{reason}. Another program listens there (ss -ltnp 'sport = :{address.port}' names it): stop it, or take another port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{reason}. Ports below 1024 need root or CAP_NET_BIND_SERVICE: take a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}. This machine does not have the address {address.host}"
    return reason
