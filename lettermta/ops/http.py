"""The daemon's own pages over HTTP: ``/metrics`` for Prometheus, ``/health`` and ``/ready`` for whoever restarts or routes.

Promises to answer whatever state the daemon is in, within :data:`CHECK_SECONDS`, and to read nothing but GET and HEAD: what a request
carries besides is refused or dropped. There is no login, so it listens on loopback, or the log has a warning.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import orjson
from attrs import frozen
from OpenSSL import SSL
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.defer import TimeoutError as GaveUp
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import Resource
from zope.interface import implementer

from lettermta.config import HostPort
from lettermta.metrics import Registry
from lettermta.ops import web
from lettermta.ops.web import TEXT, Answer, Answering, Site
from lettermta.smtp.tls import ServerTLS

CHECK_SECONDS = 5.0
"""How long a check may take before it counts as failed."""
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


class Page(Answering):
    """One page, for GET and HEAD alone."""

    def __init__(self, made: Callable[[], Answer | Coroutine[Any, Any, Answer]]) -> None:
        super().__init__()
        self._made = made

    def answer(self, request: Any) -> Answer | Coroutine[Any, Any, Answer]:
        """See Answering."""
        return self._made()

    def getChild(self, path: bytes, request: Any) -> Resource:
        """There is nothing below a page."""
        return NOT_FOUND


def _not_found() -> Answer:
    return Answer(404, TEXT, b"Not found. There are /metrics, /health and /ready.\n")


NOT_FOUND = Page(_not_found)


def _told(status: str, finding: Finding) -> Answer:
    """200 and a word when nothing has failed, and a line for each warning; else 503 and all of it as JSON."""
    if status in ("ok", "ready") and not finding.failures:
        lines = [status, *(f"warning: {name}: {text}" for name, text in finding.warnings.items())]
        return Answer(200, TEXT, ("\n".join(lines) + "\n").encode())
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
    return Site(root, reactor)


# -- listening


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class _InForce:
    """Begins TLS by whatever certificates are in force at that moment."""

    tls: Callable[[], ServerTLS]

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        return self.tls().serverConnectionForTLS(tlsProtocol)


def listen(
    reactor: Any, addresses: Iterable[HostPort], site: server.Site, tls: Callable[[], ServerTLS] | None = None
) -> list[IListeningPort]:
    """Answer on each of the addresses, by HTTPS where ``tls`` tells by what certificates; raises CannotListen as
    :func:`lettermta.ops.web.listen` does.
    """
    factory: Any = site if tls is None else TLSMemoryBIOFactory(_InForce(tls), False, site)
    lacking = "login and TLS" if tls is None else "login"

    def warn_of(address: HostPort) -> None:
        if not ip_address(address.host).is_loopback:
            _log.warn(
                "[http] listens on {address} without {lacking}: everyone who gets there can read it", address=str(address), lacking=lacking
            )

    return web.listen(reactor, "http", addresses, factory, warn_of)
