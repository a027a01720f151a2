"""HTTPS to hosts that strangers name: real sockets, real TLS, and the bounds."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from lettermta.address_policy import networks
from lettermta.delivery.resolver import Resolver
from lettermta.delivery.tls import https
from lettermta.delivery.tls.https import MOST_OCTETS, HTTPSClient, HTTPSFailed
from lettermta.testing.dns import DNSAuthority
from lettermta.testing.mx.tls import ServerTLS
from tests.delivery.tls.certificates import Signed, alone, root

HOST = "mta-sts.in.test"


class Pages(Resource):
    """Answers by what a test says."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status, self.body, self.headers = 200, b"hello\n", {b"Content-Type": b"text/plain; charset=utf-8"}
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        self.silent = False

    def render(self, request: Any) -> Any:
        self.asked.append((request.method, request.uri, request.content.read()))
        if self.silent:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return self.body


class Raw(Protocol):
    """Says the same to everyone, as it stands."""

    said = b""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.said)


class WebServer(TestCase):
    """A web server by HTTPS, and a client that trusts its authority."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.authority = root()
        self.trust = self.authority.write(self.directory / "root.pem")
        self.dns = DNSAuthority({HOST: {"A": ["127.0.0.1"]}})
        self.resolver = Resolver(reactor, [("127.0.0.1", self.dns.listen(reactor))], 5)
        self.addCleanup(self.dns.stop)
        self.pages = Pages()
        site = Site(self.pages)
        site.noisy = False
        self.port = self.serve(site)

    def serve(self, factory: Any, certificate: Signed | None = None) -> int:
        descriptor, path = tempfile.mkstemp(dir=self.directory)
        os.close(descriptor)
        tls = ServerTLS((certificate or self.authority.issue(HOST)).write(Path(path)))
        port = self.reactor.listenSSL(0, factory, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def client(self, port: int | None = None, **changes: Any) -> HTTPSClient:
        told: dict[str, Any] = {"allow_networks": networks(["127.0.0.0/8"]), "trust": self.trust, "port": port or self.port, **changes}
        return HTTPSClient(self.reactor, self.resolver, **told)

    async def failing(self, client: HTTPSClient, url: str = f"https://{HOST}/x") -> tuple[str, bool]:
        error = await self.assertFailure(Deferred.fromCoroutine(client.get(url)), HTTPSFailed)
        return str(error), error.tls


class HTTPSTests(WebServer):
    async def test_an_answer_comes_whole(self) -> None:
        answer = await self.client().get(f"https://{HOST}/.well-known/mta-sts.txt?x")
        assert (answer.status, answer.media_type, answer.body) == (200, "text/plain", b"hello\n")
        assert self.pages.asked == [(b"GET", b"/.well-known/mta-sts.txt?x", b"")]

    async def test_a_post_carries_its_body(self) -> None:
        self.pages.status = 201
        assert (await self.client().post(f"https://{HOST}:{self.port}/in", "application/tlsrpt+gzip", b"\x1f\x8b")) == 201
        assert self.pages.asked == [(b"POST", b"/in", b"\x1f\x8b")]

    async def test_the_status_is_all_that_a_post_waits_for(self) -> None:
        """An answer without a length ends with the connection, if it ever does; what it says is of no interest (RFC 8460 section 5.4)."""
        factory = Factory.forProtocol(Raw)  # type: ignore[no-untyped-call]
        factory.noisy = False
        for head in (b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nhal"):
            Raw.said = head
            client = self.client(self.serve(factory))
            assert await client.post(f"https://{HOST}/in", "application/tlsrpt+gzip", b"x") == int(head[9:12])

    async def test_redirects_are_answers_like_any_other(self) -> None:
        """RFC 8461 section 3.3."""
        self.pages.status, self.pages.headers[b"Location"] = 302, f"https://{HOST}:{self.port}/other".encode()
        assert (await self.client().get(f"https://{HOST}/x")).status == 302
        assert len(self.pages.asked) == 1

    async def test_a_certificate_that_does_not_verify_is_no_answer_and_told_apart(self) -> None:
        for certificate, why in (
            (self.authority.issue("other.test"), "not for that name"),
            (self.authority.issue(HOST, days=-1), "verify failed"),
            (alone(HOST), "verify failed"),
        ):
            said, tls = await self.failing(self.client(self.serve(Site(Pages()), certificate)))
            assert tls and why in said, said

    async def test_private_addresses_are_refused_unless_they_are_allowed(self) -> None:
        said, tls = await self.failing(self.client(allow_networks=()))
        assert "no public address (127.0.0.1)" in said and not tls
        said, _ = await self.failing(self.client(allow_networks=()), f"https://127.0.0.1:{self.port}/")
        assert "no public address" in said
        assert self.pages.asked == []

    async def test_too_long_an_answer_is_cut_off(self) -> None:
        self.pages.body = b"x" * (MOST_OCTETS + 100_000)
        said, _ = await self.failing(self.client())
        assert "cut off" in said or "lost" in said

    async def test_a_head_without_end_is_cut_off(self) -> None:
        factory = Factory.forProtocol(Raw)  # type: ignore[no-untyped-call]
        factory.noisy = False
        Raw.said = b"HTTP/1.1 200 OK\r\n" + b"X-More: and more and more and more and more\r\n" * 10_000
        await self.failing(self.client(self.serve(factory)))

    async def test_what_is_no_http_is_no_answer(self) -> None:
        factory = Factory.forProtocol(Raw)  # type: ignore[no-untyped-call]
        factory.noisy = False
        for said in (
            b"220 mx.test ESMTP\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal",
        ):
            Raw.said = said
            client = self.client(self.serve(factory))
            waiting = Deferred.fromCoroutine(client.get(f"https://{HOST}/x"))
            if said.endswith(b"hal"):
                waiting.addTimeout(0.2, self.reactor)
                await self.assertFailure(waiting, Exception)
            else:
                await self.assertFailure(waiting, HTTPSFailed)

    async def test_a_host_that_can_not_be_reached_or_found_is_no_answer(self) -> None:
        for url, why in ((f"https://{HOST}:1/", "can't be reached"), ("https://gone.test/", "NXDOMAIN")):
            said, tls = await self.failing(self.client(), url)
            assert why in said and not tls

    async def test_what_is_no_https_url_is_refused(self) -> None:
        for url in ("http://in.test/", "https://", "https://user:secret@in.test/", "https://[::1/", "https://ü.test/", "ftp://x"):
            said, _ = await self.failing(self.client(), url)
            assert "URL" in said

    async def test_a_server_that_says_nothing_is_given_up(self) -> None:
        self.pages.silent = True
        client = self.client()
        self.patch(https, "SECONDS", 0.3)
        said, _ = await self.failing(client)
        assert "too long" in said
