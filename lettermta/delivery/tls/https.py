"""HTTPS to a host that a stranger's DNS names: for MTA-STS policies and for reports on TLS.

Promises bounds on everything: the time of the whole exchange, the octets of the answer (head and body together), addresses that mail might
go to as well (so nobody can have us ask within our own network), no redirects, and TLS by the trust roots and the host's name. It fails
with :class:`HTTPSFailed` alone, which tells if TLS was to blame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from attrs import define, frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from lettermta import __version__
from lettermta.address_policy import Network, permits
from lettermta.delivery.resolver import DNSFailure
from lettermta.interfaces import IResolver

SECONDS = 30.0
"""For a whole exchange, the look-up of the host included (RFC 8461 section 3.3 has a minute)."""
MOST_OCTETS = 65_536
"""Of an answer's body (RFC 8461 section 3.2 suggests it as the limit of a policy)."""
_MOST_HEAD = 32_768
_MOST_ADDRESSES = 4


# Without types in Twisted.
_platform_trust: Any = ssl.platformTrust
_trust: Any = ssl.trustRootFromCertificates
_certificate: Any = ssl.Certificate


class HTTPSFailed(Exception):
    """There is no answer that can be used. ``tls``: the host's certificate or the handshake was to blame."""

    def __init__(self, text: str, *, tls: bool = False) -> None:
        super().__init__(text)
        self.tls = tls


@frozen
class Answer:
    """What came back, whole."""

    status: int
    media_type: str
    """Of Content-Type, in lower case and without parameters."""
    body: bytes


@define(eq=False)
class HTTPSClient:
    """Asks hosts by HTTPS. ``port`` is what a URL without one means; ``trust``: a PEM file of authorities, None for the system's."""

    reactor: Any
    resolver: IResolver
    allow_networks: tuple[Network, ...] = ()
    trust: Path | None = None
    port: int = 443

    async def get(self, url: str) -> Answer:
        """The answer to GET, whatever its status. Raises HTTPSFailed."""
        return await self._within(self._exchange(b"GET", url, {}, None))

    async def post(self, url: str, media_type: str, body: bytes) -> Answer:
        """The answer to POST, whatever its status. Raises HTTPSFailed."""
        return await self._within(self._exchange(b"POST", url, {b"Content-Type": media_type.encode()}, body))

    async def _within(self, exchange: Any) -> Answer:
        waiting: Deferred[Answer] = Deferred.fromCoroutine(exchange)
        ends = self.reactor.seconds() + SECONDS
        try:
            return await waiting.addTimeout(SECONDS, self.reactor)
        except (TimeoutError, CancelledError, HTTPSFailed) as error:
            # What a connection ends with that was given up looks like any other failure.
            if self.reactor.seconds() < ends and isinstance(error, HTTPSFailed):
                raise
            raise HTTPSFailed("it took too long") from None

    async def _exchange(self, method: bytes, url: str, headers: Mapping[bytes, bytes], body: bytes | None) -> Answer:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or self.port
        except ValueError as error:
            raise HTTPSFailed(f"{url!r} is no URL: {error}") from None
        if parts.scheme != "https" or not host or parts.username is not None or not url.isascii():
            raise HTTPSFailed(f"{url!r} is no https URL of a host")
        last = HTTPSFailed(f"{host} has no address")
        for address in await self._addresses(host):
            try:
                return await self._ask(address, port, host, method, url, headers, body)
            except ConnectError as error:
                last = HTTPSFailed(f"{host} [{address}]:{port} can't be reached: {error}")
        raise last

    async def _addresses(self, host: str) -> Sequence[str]:
        try:
            found = [str(ip_address(host))]
        except ValueError:
            try:
                found = list(await self.resolver.addresses(host))
            except DNSFailure as error:
                raise HTTPSFailed(str(error)) from None
        permitted = [address for address in found if permits(address, self.allow_networks)]
        if found and not permitted:
            raise HTTPSFailed(f"{host} has no public address ({', '.join(found[:3])}), and allow_networks doesn't name it")
        return permitted[:_MOST_ADDRESSES]

    async def _ask(
        self, address: str, port: int, host: str, method: bytes, url: str, headers: Mapping[bytes, bytes], body: bytes | None
    ) -> Answer:
        family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        bounded = _Bounded(family(self.reactor, address, port, timeout=SECONDS / 2))
        endpoint = wrapClientTLS(self._options(host), bounded)
        agent = cast(Any, Agent).usingEndpointFactory(self.reactor, _Pinned(endpoint))
        head = Headers({b"User-Agent": [f"lettermta/{__version__}".encode()], **{name: [value] for name, value in headers.items()}})
        try:
            response = await agent.request(method, url.encode("ascii"), head, None if body is None else _Body(body))
            return Answer(response.code, _media_type(response), await _read(response))
        except ResponseFailed as error:
            raise _failed(host, [reason.value for reason in error.reasons]) from None
        except (SSL.Error, VerificationError, CertificateError, ConnectionClosed) as error:
            raise _failed(host, [error]) from None
        finally:
            bounded.abort()

    def _options(self, host: str) -> Any:
        try:
            roots = _platform_trust() if self.trust is None else _trust(_certificates(self.trust))
            return optionsForClientTLS(host, trustRoot=roots, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2})
        except ValueError as error:
            raise HTTPSFailed(f"TLS can't be done with {host}: {error}", tls=True) from None


def _certificates(path: Path) -> list[Any]:
    return [_certificate(crypto.X509.from_cryptography(one)) for one in load_pem_x509_certificates(path.read_bytes())]


def _media_type(response: IResponse) -> str:
    values = response.headers.getRawHeaders(b"Content-Type") or [b""]
    return bytes(values[0]).decode("ascii", "replace").partition(";")[0].strip().lower()


def _failed(host: str, errors: Sequence[BaseException]) -> HTTPSFailed:
    for error in errors:
        if isinstance(error, SSL.Error | VerificationError | CertificateError):
            return HTTPSFailed(f"the certificate of {host} does not verify: {_words(error)}", tls=True)
    told = next((str(error) for error in errors if str(error)), "the connection was lost")
    return HTTPSFailed(f"{host}: {told}")


def _words(error: Exception) -> str:
    if isinstance(error, SSL.Error):
        faults = error.args[0] if error.args else ()
        return "; ".join(str(fault[-1]) for fault in faults) if isinstance(faults, list | tuple) else str(faults)
    return f"it is not for that name ({type(error).__name__})"


@define
class _Pinned:
    """Gives an Agent the one endpoint whose address was looked at."""

    _endpoint: IStreamClientEndpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory."""
        return self._endpoint


@implementer(IBodyProducer)
class _Body:
    """A request's body, in memory."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """See IBodyProducer."""
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """All of it has been written."""

    def resumeProducing(self) -> None:
        """See pauseProducing."""

    def stopProducing(self) -> None:
        """See pauseProducing."""


class _Read(Protocol):
    """Gathers a response's body."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """One more piece; the whole is bounded by the connection."""
        self._octets += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end; only one that the server announced is one."""
        if self.done.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.done.callback(bytes(self._octets))
        else:
            self.done.errback(HTTPSFailed("the answer was cut off, or is too long"))


def _read(response: IResponse) -> Deferred[bytes]:
    body = _Read()
    cast(Any, response).deliverBody(body)
    return body.done


@implementer(IStreamClientEndpoint)
@define
class _Bounded:
    """An endpoint whose connection is cut when more comes in than an answer may have; TLS adds little to it."""

    _endpoint: IStreamClientEndpoint
    _counted: Any = None

    def abort(self) -> None:
        """Close the connection, if there is one."""
        if self._counted is not None:
            self._counted.transport.abortConnection()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        cast(Any, protocolFactory).wrappedFactory.noisy = False  # the Agent's, which would tell of each connection in the log
        connected: Deferred[Any] = self._endpoint.connect(cast(Any, _Counting)(protocolFactory))
        return connected.addCallback(self._connected)

    def _connected(self, counted: Any) -> IProtocol:
        self._counted = counted
        return cast(IProtocol, counted.wrappedProtocol)


class _Counted(ProtocolWrapper):
    """Counts what comes in."""

    _left = MOST_OCTETS + _MOST_HEAD

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, unless it is too much."""
        self._left -= len(data)
        if self._left < 0:
            cast(Any, self.transport).abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


class _Counting(WrappingFactory):
    noisy = False
    protocol = _Counted

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See WrappingFactory."""
        return super().buildProtocol(addr)
