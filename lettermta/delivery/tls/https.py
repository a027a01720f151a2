"""HTTPS to a host that a stranger's DNS names: for MTA-STS policies and for reports on TLS.

Promises bounds on everything: the time of the whole exchange, the octets of the answer (head and body together), addresses that mail might
go to as well (so nobody can have us ask within our own network), no redirects, and TLS by the trust roots and the host's name. It fails
with :class:`HTTPSFailed` alone, which tells if TLS was to blame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from attrs import frozen
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.ssl import TLSVersion, optionsForClientTLS
from twisted.web.client import Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from lettermta import __version__
from lettermta.address_policy import Network, permits
from lettermta.delivery.resolver import DNSFailure
from lettermta.delivery.tls.bounded_endpoint import BoundedEndpoint
from lettermta.delivery.tls.https_bodies import CutOff, RequestBody, ResponseBody
from lettermta.interfaces import IResolver

SECONDS = 30.0
"""For a whole exchange, the look-up of the host included (RFC 8461 section 3.3 has a minute)."""
MOST_OCTETS = 65_536
"""Of an answer's body (RFC 8461 section 3.2 suggests it as the limit of a policy)."""
_MOST_HEAD = 32_768
_MOST_ADDRESSES = 4

T = TypeVar("T")


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


@frozen
class _Request:
    """What is asked of whom."""

    method: bytes
    url: str
    host: str
    port: int
    headers: Headers
    body: bytes | None = None

    @classmethod
    def to(cls, url: str, port: int, method: bytes, media_type: str = "", body: bytes | None = None) -> _Request:
        """``port`` is what a URL without one means. Raises HTTPSFailed for what is no URL of a host by HTTPS."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or port
        except ValueError as error:
            raise HTTPSFailed(f"{url!r} is no URL: {error}") from None
        if parts.scheme != "https" or not host or parts.username is not None or not url.isascii():
            raise HTTPSFailed(f"{url!r} is no https URL of a host")
        headers = Headers({b"User-Agent": [f"lettermta/{__version__}".encode()]})
        if media_type:
            headers.addRawHeader(b"Content-Type", media_type.encode())
        return cls(method, url, host, port, headers, body)


@frozen(eq=False)
class HTTPSClient:
    """Asks hosts by HTTPS. ``port`` is what a URL without one means; ``trust``: a PEM file of authorities, None for the system's."""

    reactor: Any
    resolver: IResolver
    allow_networks: tuple[Network, ...] = ()
    trust: Path | None = None
    port: int = 443

    async def get(self, url: str) -> Answer:
        """The answer to GET, whatever its status. Raises HTTPSFailed."""
        return await self._within(self._exchange(_Request.to(url, self.port, b"GET"), _whole))

    async def post(self, url: str, media_type: str, body: bytes) -> int:
        """The status that answers POST; what else the answer says is not waited for. Raises HTTPSFailed."""
        return await self._within(self._exchange(_Request.to(url, self.port, b"POST", media_type, body), _status))

    async def _within(self, exchange: Coroutine[Any, Any, T]) -> T:
        """The result of an exchange, if it is there in time."""
        waiting = Deferred.fromCoroutine(exchange)
        ends = self.reactor.seconds() + SECONDS
        try:
            return await waiting.addTimeout(SECONDS, self.reactor)
        except (TimeoutError, CancelledError, HTTPSFailed) as error:
            # What a connection ends with that was given up looks like any other failure.
            if self.reactor.seconds() < ends and isinstance(error, HTTPSFailed):
                raise
            raise HTTPSFailed("it took too long") from None

    async def _exchange(self, request: _Request, take: Callable[[IResponse], Awaitable[T]]) -> T:
        """Ask the host at its first address that takes a connection; ``take`` makes of the response what is wanted of it."""
        last = HTTPSFailed(f"{request.host} has no address")
        for address in await self._addresses(request.host):
            try:
                return await self._ask(address, request, take)
            except ConnectError as error:
                last = HTTPSFailed(f"{request.host} [{address}]:{request.port} can't be reached: {error}")
        raise last

    async def _addresses(self, host: str) -> Sequence[str]:
        """Those that may be asked."""
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

    async def _ask(self, address: str, request: _Request, take: Callable[[IResponse], Awaitable[T]]) -> T:
        family = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        connection = BoundedEndpoint(family(self.reactor, address, request.port, timeout=SECONDS / 2), MOST_OCTETS + _MOST_HEAD)
        endpoint = _Quiet(wrapClientTLS(self._tls(request.host), connection))
        agent = cast(Any, Agent).usingEndpointFactory(self.reactor, _Pinned(endpoint))
        body = None if request.body is None else RequestBody(request.body)
        try:
            return await take(await agent.request(request.method, request.url.encode("ascii"), request.headers, body))
        except ResponseFailed as error:
            raise _failed(request.host, [reason.value for reason in error.reasons]) from None
        except (SSL.Error, VerificationError, CertificateError, ConnectionClosed) as error:
            raise _failed(request.host, [error]) from None
        finally:
            connection.abort()

    def _tls(self, host: str) -> Any:
        """SNI and the name that the certificate has to be for are the URL's host, whatever CNAME it is (RFC 8461 section 3.3)."""
        try:
            return optionsForClientTLS(host, trustRoot=_roots(self.trust), extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2})
        except (ValueError, OSError) as error:
            raise HTTPSFailed(f"TLS can't be done with {host}: {error}", tls=True) from None


@lru_cache(maxsize=4)
def _roots(path: Path | None) -> Any:
    if path is None:
        return _platform_trust()
    return _trust([_certificate(crypto.X509.from_cryptography(one)) for one in load_pem_x509_certificates(path.read_bytes())])


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


@implementer(IStreamClientEndpoint)
@frozen
class _Quiet:
    """Connects without a word in the log, where the Agent's factory would tell of each connection."""

    _endpoint: IStreamClientEndpoint

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """See IStreamClientEndpoint."""
        protocolFactory.noisy = False
        return self._endpoint.connect(protocolFactory)


@frozen
class _Pinned:
    """Gives an Agent the one endpoint whose address was looked at."""

    _endpoint: IStreamClientEndpoint

    def endpointForURI(self, uri: object) -> IStreamClientEndpoint:
        """See IAgentEndpointFactory."""
        return self._endpoint


async def _whole(response: IResponse) -> Answer:
    body = ResponseBody()
    cast(Any, response).deliverBody(body)
    try:
        return Answer(response.code, _media_type(response), await body.whole)
    except CutOff:
        raise HTTPSFailed("the answer was cut off, or is too long") from None


async def _status(response: IResponse) -> int:
    return int(response.code)
