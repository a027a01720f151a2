"""The daemon's pages over HTTP: what Prometheus, a supervisor and a load balancer see."""

from __future__ import annotations

import json
import socket
import textwrap
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody

from lettermta import metrics
from lettermta.config import Config, ConfigError, HostPort, Listener, load
from lettermta.metrics import Registry
from lettermta.ops.http import CHECK_SECONDS, Condition, Health, Severity, listen, make_site
from lettermta.ops.web import IDLE_SECONDS, MOST_BODY
from lettermta.smtp.listening import CannotListen


class Answered:
    """A response, taken apart."""

    def __init__(self, octets: bytes) -> None:
        head, _, self.body = octets.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.code = int(status.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)


class Pages(SynchronousTestCase):
    """A site with a connection to it, without sockets."""

    def setUp(self):
        self.registry = Registry()
        self.health = Health()
        self.clock = Clock()
        self.site = make_site(self.registry, self.health, self.clock)
        self.connect()

    def connect(self):
        self.channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        self.transport = StringTransport()
        self.channel.makeConnection(self.transport)

    def send(self, octets: bytes) -> bytes:
        self.transport.clear()
        self.channel.dataReceived(octets)
        return self.transport.value()

    def ask(self, path: str, method: str = "GET", *fields: str, body: bytes = b"") -> Answered:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
        return Answered(self.send("\r\n".join(lines).encode() + body))

    # -- metrics

    def test_metrics_are_in_the_text_format(self):
        self.registry.part("Test").counter("t_tries", "Tries.").inc(3)
        answered = self.ask("/metrics")
        assert answered.code == 200
        assert answered.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answered.headers["content-length"] == str(len(answered.body))
        assert b"\nt_tries_total 3.0\n" in answered.body

    def test_a_query_behind_the_path_does_not_matter(self):
        assert self.ask("/metrics?name[]=up").code == 200

    def test_metrics_come_when_the_parts_have_given_their_numbers(self):
        size = self.registry.part("Test").gauge("t_size", "Size.")
        counted: Deferred[int] = Deferred()
        self.registry.measure("queue", lambda: counted.addCallback(size.set))
        assert self.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        counted.callback(12)
        assert b"\nt_size 12.0\n" in Answered(self.transport.value()).body

    def test_a_client_that_has_gone_meanwhile_is_no_fault(self):
        counted: Deferred[None] = Deferred()
        self.registry.measure("queue", lambda: counted)
        self.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.channel.connectionLost(Failure(connectionDone.value))
        counted.callback(None)
        assert self.transport.value() == b""
        assert not self.flushLoggedErrors()

    def test_one_connection_serves_many_requests_in_their_order(self):
        answers = self.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answers.count(b"HTTP/1.1 200 OK\r\n") == 2
        assert answers.endswith(b"\r\n\r\nok\n")

    def test_a_page_that_can_not_be_made_says_so_and_the_log_says_why(self):
        self.registry.expose = lambda clock: 1 / 0
        answered = self.ask("/metrics")
        assert answered.code == 500
        assert b"ZeroDivision" not in answered.body
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    # -- health

    def test_health_without_a_complaint_is_ok(self):
        self.health.check("spool", lambda: None)
        answered = self.ask("/health")
        assert (answered.code, answered.body) == (200, b"ok\n")

    def test_a_warning_is_shown_and_fails_nothing(self):
        self.health.check("tls", lambda: "the certificate is self-signed", Severity.WARNING)
        answered = self.ask("/health")
        assert (answered.code, answered.body) == (200, b"ok\nwarning: tls: the certificate is self-signed\n")

    def test_failures_are_503_with_the_reasons_as_json(self):
        self.health.check("spool", lambda: "no space left on device")
        self.health.check("listeners", lambda: None)
        self.health.check("tls", lambda: "the certificate is self-signed", Severity.WARNING)
        answered = self.ask("/health")
        assert answered.code == 503
        assert answered.headers["content-type"] == "application/json"
        assert json.loads(answered.body) == {
            "status": "failing",
            "failures": {"spool": "no space left on device"},
            "warnings": {"tls": "the certificate is self-signed"},
        }

    def test_a_check_that_does_not_answer_has_failed(self):
        self.health.check("spool", lambda: Deferred())
        assert self.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        self.clock.advance(CHECK_SECONDS)
        answered = Answered(self.transport.value())
        assert answered.code == 503
        assert json.loads(answered.body)["failures"] == {"spool": "no answer within 5 s"}

    def test_a_check_that_raises_has_failed_and_its_words_stay_in_the_log(self):
        def check():
            raise RuntimeError("password=secret")

        self.health.check("spool", check)
        answered = self.ask("/health")
        assert answered.code == 503
        assert b"RuntimeError" in answered.body
        assert b"secret" not in answered.body
        assert len(self.flushLoggedErrors(RuntimeError)) == 1

    def test_ready_follows_the_daemons_condition(self):
        told = []
        for condition in (Condition.STARTING, Condition.READY, Condition.STOPPING):
            self.health.condition = condition
            answered = self.ask("/ready")
            told.append((answered.code, answered.body if answered.code == 200 else json.loads(answered.body)["status"]))
            assert self.ask("/health").code == 200
        assert told == [(503, "starting"), (200, b"ready\n"), (503, "stopping")]

    def test_no_mail_is_to_be_sent_to_a_daemon_that_fails(self):
        self.health.condition = Condition.READY
        self.health.check("spool", lambda: "no space left on device")
        assert self.ask("/ready").code == 503

    # -- what is not answered

    def test_an_unknown_path_is_404_in_plain_text(self):
        for path in ("/", "/metric", "/metrics/", "/health/x/y", "/<script>", "/%2e%2e/etc/passwd", "//"):
            answered = self.ask(path)
            assert answered.code == 404
            assert answered.headers["content-type"] == "text/plain; charset=utf-8"
            assert answered.body == b"Not found. There are /metrics, /health and /ready.\n"

    def test_only_get_and_head_are_answered(self):
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"):
            answered = self.ask("/metrics", method)
            assert (answered.code, answered.headers["allow"]) == (405, "get, head")
            assert answered.headers["content-type"] == "text/plain; charset=utf-8"

    def test_head_has_the_headers_alone(self):
        whole, head = self.ask("/health"), self.ask("/health", "HEAD")
        assert (head.code, head.body) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]

    def test_nothing_tells_what_the_server_is_made_of(self):
        requests = [("/health", "GET"), ("/nothing", "GET"), ("/metrics", "POST"), ("*", "OPTIONS"), ("*", "GET"), ("/health", "HEAD")]
        answers = [self.ask(path, method) for path, method in requests]
        assert {answered.headers["server"] for answered in answers} == {"lettermta"}
        assert not any("twisted" in str(answered.headers) for answered in answers)

    def test_a_small_body_is_dropped_and_the_connection_goes_on(self):
        assert self.ask("/health", "POST", "Content-Length: 10", body=b"0123456789").code == 405
        assert self.ask("/health").code == 200

    def test_a_large_body_is_refused_before_it_is_read(self):
        answered = self.ask("/health", "POST", f"Content-Length: {MOST_BODY + 1}")
        assert answered.code == 413
        assert self.transport.disconnecting
        assert self.send(b"x" * 100_000) == b""

    def test_a_body_of_unknown_length_is_refused(self):
        assert self.ask("/health", "GET", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n").code == 413
        assert self.transport.disconnecting

    def test_a_large_header_block_ends_the_connection(self):
        for octets in (b"GET /" + b"x" * 70_000, b"GET / HTTP/1.1\r\n" + b"X-Filler: 0123456789abcdef\r\n" * 2000):
            self.connect()
            self.send(octets)
            assert self.transport.disconnecting

    def test_what_is_not_http_ends_the_connection(self):
        for octets in (b"EHLO client.example\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n"):
            self.connect()
            self.send(octets)
            assert self.transport.disconnecting

    def test_a_silent_client_is_dropped(self):
        self.send(b"GET /health HTTP/1.1\r\nHost")
        self.clock.advance(IDLE_SECONDS)
        assert self.transport.disconnecting

    def test_accesses_are_not_logged(self):
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        timers = len(self.clock.getDelayedCalls())
        self.site.doStart()
        self.ask("/health")
        self.ask("/nothing")
        assert len(self.clock.getDelayedCalls()) == timers
        self.site.doStop()
        assert len(observer) == 0


class Listening(TestCase):
    """Real sockets on loopback."""

    def listen(self, *addresses: HostPort):
        from twisted.internet import reactor

        self.health = Health()
        ports = listen(reactor, addresses, make_site(metrics.REGISTRY, self.health, reactor))
        self.addCleanup(lambda: DeferredList([port.stopListening() for port in ports]))
        return [port.getHost().port for port in ports]

    async def get(self, url: str) -> tuple[int, bytes]:
        from twisted.internet import reactor

        response = await Agent(reactor).request(b"GET", url.encode())
        return response.code, await readBody(response)

    def test_every_address_answers(self):
        ports = self.listen(HostPort("127.0.0.1", 0), HostPort("127.0.0.1", 0))

        async def scenario():
            for port in ports:
                code, body = await self.get(f"http://127.0.0.1:{port}/metrics")
                self.assertEqual(code, 200)
                self.assertIn(b'lettermta_build_info{python="', body)
                self.assertIn(b"process_resident_memory_bytes ", body)
            self.health.check("spool", lambda: "no space left on device")
            code, _ = await self.get(f"http://127.0.0.1:{ports[0]}/health")
            self.assertEqual(code, 503)

        return ensureDeferred(scenario())

    def test_a_port_in_use_is_named_with_reason_and_remedy(self):
        from twisted.internet import reactor

        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            site = make_site(metrics.REGISTRY, Health(), reactor)
            with self.assertRaises(CannotListen) as raised:
                listen(reactor, [HostPort("127.0.0.1", 0), HostPort("127.0.0.1", port), HostPort("192.0.2.1", 9110)], site)
        first, second = str(raised.exception).splitlines()
        self.assertTrue(first.startswith(f"[http] listen 127.0.0.1:{port}: Address already in use. Another program listens there"), first)
        self.assertTrue(second.endswith("This machine does not have the address 192.0.2.1"), second)

    def test_an_address_that_strangers_may_reach_is_warned_about(self):
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.listen(HostPort("127.0.0.1", 0))
        self.assertEqual([event for event in observer if event["log_level"].name == "warn"], [])
        self.listen(HostPort("0.0.0.0", 0))
        [event] = [event for event in observer if event["log_level"].name == "warn"]
        self.assertEqual(event["lacking"], "login and TLS")


class TestConfiguration:
    """[http] in the file."""

    @pytest.fixture
    def read(self, tmp_path: Path):
        def read(text: str) -> Config:
            path = tmp_path / "mta.ini"
            path.write_text(textwrap.dedent(text) + "\n[listener smtp]\nports = 2525\n")
            return load(path, {})

        return read

    def test_nothing_is_listened_on_by_default(self, read):
        assert read("").http.listen == ()
        assert Config(path=Path("/x"), listeners=(Listener(name="a", ports=(25,)),)).http.listen == ()

    def test_addresses_have_ports(self, read):
        config = read("[http]\nlisten = 127.0.0.1:9110, [::1]:9110")
        assert config.http.listen == (HostPort("127.0.0.1", 9110), HostPort("::1", 9110))

    @pytest.mark.parametrize(
        ("value", "complaint"),
        [
            ("9110", "'9110' is not an IP address"),
            ("localhost:9110", "'localhost:9110' is not an IP address"),
            ("127.0.0.1", "'127.0.0.1' has no port"),
            ("::1", "'::1' has no port"),
            ("127.0.0.1:0", "'127.0.0.1:0' is not a port"),
            ("0.0.0.0:9110, 127.0.0.1:9110", "'127.0.0.1:9110' overlaps another one"),
        ],
    )
    def test_faults_are_named(self, read, value, complaint):
        with pytest.raises(ConfigError) as raised:
            read(f"[http]\nlisten = {value}")
        assert f"mta.ini:2: [http] listen: {complaint}" in str(raised.value)
