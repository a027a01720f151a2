"""One attempt: an event posted to a webhook's endpoint over HTTP/1.1, and what came of it as an :class:`Answer`.

Never fails: whatever happens is an answer, within :data:`~Poster.time_limit` seconds from the look-up of the name to the end of the body.
2xx is success; redirects are not followed (COMPATIBILITY.md section 3). Of the body the beginning is kept; one that is longer than
:data:`MOST_BODY` is not read to its end, and then the status alone counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from attrs import evolve
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from lettermta import __version__
from lettermta.accounts.webhooks import Webhook
from lettermta.address_policy import Network
from lettermta.events.webhooks.connecting import CheckedEndpoints, NoAddress, NotAllowed
from lettermta.events.webhooks.schedule import retry_after
from lettermta.events.webhooks.signing import headers
from lettermta.webhook import Answer, Delivery, DeliveryStatus

TIME_LIMIT = 15.0
"""Seconds that one attempt may take in all."""
KEPT_IDLE = 4.0
"""Seconds that a connection is kept for the next request: less than the five after which much server software closes it."""
KEPT_BODY = 4_096
"""Octets of an answer's body that are kept."""
MOST_BODY = 65_536
"""Octets of an answer's body that are read."""

_CLOSED = (ConnectionDone, ConnectionLost)
_USER_AGENT = f"lettermta/{__version__}"


class _Fields(Headers):
    """Header fields that go out as they are: spelt as the two schemes write them, where Twisted would capitalise each word, and not looked
    through for line ends, as every value is of our own making.
    """

    def __init__(self, host: bytes, fields: Mapping[str, str]) -> None:
        super().__init__({b"Host": [host]})  # which Twisted looks for
        self._fields = [(name.encode(), [value.encode()]) for name, value in fields.items()]

    def getAllRawHeaders(self) -> Iterator[tuple[bytes, Sequence[bytes]]]:
        """See Headers."""
        return chain(super().getAllRawHeaders(), self._fields)


class Poster:
    """Posts to the endpoint of one webhook, over connections that nobody else has. ``now`` is the wall clock."""

    def __init__(
        self,
        reactor: Any,
        allowed: Sequence[Network],
        resolve: Callable[[str], Deferred[Sequence[str]]],
        now: Callable[[], float],
        *,
        connections: int,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self._reactor = reactor
        self._now = now
        self._time_limit = time_limit
        pool: Any = HTTPConnectionPool(reactor)  # type: ignore[no-untyped-call]
        self._pool = pool
        self._pool.maxPersistentPerHost = connections
        self._pool.cachedConnectionTimeout = KEPT_IDLE
        endpoints = self._endpoints = CheckedEndpoints(reactor, allowed, resolve)
        self._agent: Any = Agent.usingEndpointFactory(reactor, endpoints, self._pool)  # type: ignore[no-untyped-call]

    def post(self, webhook: Webhook, delivery: Delivery) -> Deferred[Answer]:
        """Make one attempt."""
        began = self._reactor.seconds()
        attempt = Deferred.fromCoroutine(self._post(webhook, delivery)).addTimeout(self._time_limit, self._reactor)
        return attempt.addErrback(self._failed, began).addCallback(self._timed, began)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    async def _post(self, webhook: Webhook, delivery: Delivery) -> Answer:
        made = headers(webhook, delivery.event_id, delivery.event, delivery.payload, delivery.attempt, self._now())
        made["User-Agent"] = _USER_AGENT
        url, host = _target(webhook.url)
        response = await self._request(url, _Fields(host, made), delivery.payload)
        taken = _Taken()
        response.deliverBody(taken)  # type: ignore[no-untyped-call]
        return self._answer(response, await taken.done)

    async def _request(self, url: bytes, fields: Headers, payload: bytes) -> IResponse:
        while True:
            opened = self._endpoints.opened
            answer: Deferred[IResponse] = self._agent.request(b"POST", url, fields, _Body(payload))
            fresh = self._endpoints.opened != opened
            try:
                return await answer
            except ResponseNeverReceived as error:
                # A kept connection that the other side was about to close tells nothing of the endpoint: another one is tried at once,
                # as RFC 9112 section 9.3.1 lets a client do that knows its request may come twice.
                if fresh or not any(reason.check(*_CLOSED) for reason in error.reasons):
                    raise

    def _answer(self, response: IResponse, body: bytes) -> Answer:
        code = response.code
        given = _field(response, b"Retry-After") if code in (429, 502, 503, 504) else ""
        problem = ""
        if 300 <= code < 400:
            problem = f"a redirect to {_field(response, b'Location')[:200] or 'elsewhere'}, which is not followed"
        wait = retry_after(given, self._now()) if given else None
        return Answer(_status(code), code, response=body.decode("utf-8", "replace"), problem=problem, retry_after=wait)

    def _failed(self, failure: Failure, began: float) -> Answer:
        # What is cancelled comes out of the Agent in many forms, so the clock tells which failure was ours.
        late = self._reactor.seconds() - began >= self._time_limit
        if late or failure.check(ConnectTimeout):  # type: ignore[no-untyped-call]
            return Answer(DeliveryStatus.TIMEOUT, problem=f"no whole answer within {self._time_limit:g} s")
        return Answer(DeliveryStatus.FAILED, problem=_printable(_words(failure)[:500]))

    def _timed(self, answer: Answer, began: float) -> Answer:
        return evolve(answer, seconds=round(self._reactor.seconds() - began, 6))


def _status(code: int) -> DeliveryStatus:
    match code // 100:
        case 2:
            return DeliveryStatus.SUCCESS
        case 4:
            return DeliveryStatus.CLIENT_ERROR
        case 5:
            return DeliveryStatus.SERVER_ERROR
    return DeliveryStatus.FAILED


@lru_cache(maxsize=1_000)
def _target(url: str) -> tuple[bytes, bytes]:
    """The URL as Twisted takes it, and the value of ``Host``: without the scheme's own port (RFC 9110 section 7.2)."""
    parts = urlsplit(url)
    if not parts.path:
        # Twisted would leave an empty path empty in front of a query, where it is ``/`` (RFC 9112 section 3.2.1).
        url = urlunsplit(parts._replace(path="/"))
    host = parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")
    return url.encode("ascii"), host.encode("ascii")


def _field(response: IResponse, name: bytes) -> str:
    """The last value of a header field, whatever octets are in it; empty where there is none."""
    values = response.headers.getRawHeaders(name)
    return _printable(values[-1].decode("utf-8", "replace")) if values else ""


def _printable(text: str) -> str:
    """A text of the other side's as it may be shown on a terminal and in the log."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _words(failure: Failure) -> str:
    """What went wrong, for the endpoint's owner."""
    error = failure.value
    # What failed inside a request is wrapped in as many layers as it went through.
    while reasons := getattr(error, "reasons", None):
        error = reasons[0].value
    if isinstance(error, VerificationError):
        return "the certificate is not one of this host"
    if isinstance(error, SSL.Error):
        return f"TLS: {_openssl(error)}"
    if isinstance(error, NotAllowed | NoAddress):
        return str(error)
    if isinstance(error, ConnectError):
        return f"no connection: {error.getErrorMessage() if hasattr(error, 'getErrorMessage') else error}"
    return f"no answer: {type(error).__name__}: {error}"


def _openssl(error: SSL.Error) -> str:
    """The reasons in OpenSSL's queue of errors."""
    queue = error.args[0] if error.args else ()
    return ", ".join(str(entry[-1]) for entry in queue) if isinstance(queue, list) and queue else "the other side ended the handshake"


@implementer(IBodyProducer)
class _Body:
    """A request's body that is there already."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length = len(octets)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """All at once: it is small, and the connection has room for it."""
        consumer.write(self._octets)
        return succeed(None)

    def stopProducing(self) -> None:
        """There is nothing to stop."""

    pauseProducing = resumeProducing = stopProducing


class _Taken(Protocol):
    """Takes an answer's body: ``done`` fires with its beginning, fails when it ends before its time."""

    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred(self._cancel)
        self._kept = b""
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        """Keep the beginning, up to a bound."""
        self._size += len(data)
        if len(self._kept) < KEPT_BODY:
            self._kept = (self._kept + data)[:KEPT_BODY]
        if self._size > MOST_BODY and not self.done.called:
            self.done.callback(self._kept)
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body is over, in one way or the other."""
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):  # type: ignore[no-untyped-call]
            self.done.callback(self._kept)
        else:
            self.done.errback(reason)

    def _cancel(self, _: object) -> None:
        self.transport.loseConnection()
