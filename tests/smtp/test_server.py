"""Connections: how they begin, how long they may take, and how they end."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lettermta.smtp.connection import PARTING_SECONDS, Opening
from lettermta.smtp.server import COMMAND_SECONDS, ESMTPFactory
from lettermta.smtp.tls import ServerTLS, self_signed
from tests.smtp.memory_transport import MemoryTransport, TLSClient
from tests.smtp.server_peer import PLAIN, TOKEN, USER, Office
from tests.smtp.server_place import BANNER, EHLO, LOG_IN, MESSAGE, Place, take, tls

Make = Callable[[Opening], Place]


__all__ = ["tls"]


@pytest.fixture
def at(tls: ServerTLS) -> Make:
    return lambda opening: Place(opening, tls)


# -- how a connection begins


def test_in_clear_the_banner_comes_at_once(at: Make) -> None:
    transport = at(Opening.CLEAR).connect()
    assert take(transport) == BANNER
    transport.receive(EHLO)
    assert b" STARTTLS\r\n" in take(transport).replace(b"250-", b"250 ")


def test_starttls_and_a_message(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.connect()
    take(transport)
    transport.receive(b"STARTTLS\r\n")
    assert take(transport).startswith(b"220 ")
    client = TLSClient(transport).handshake()
    assert client.reads() == b""
    answer = client.sends(EHLO)
    assert b"STARTTLS" not in answer
    assert b"AUTH PLAIN LOGIN CRAM-MD5" in answer
    assert client.sends(LOG_IN).startswith(b"235 ")
    assert client.sends(MESSAGE).endswith(b"250 2.0.0 Ok: queued as 1\r\n")
    [envelope] = place.office.envelopes
    assert envelope.peer.tls == f"TLSv1.3 {client.connection.get_cipher_name()}"
    assert (envelope.peer.address, envelope.peer.port, envelope.peer.listener) == ("192.0.2.9", 4711, "here")
    assert client.sends(b"QUIT\r\n") == b"221 2.0.0 Bye\r\n"


def test_commands_behind_starttls_reach_neither_side_of_tls(at: Make) -> None:
    """HARD-CASES row 3, on the connection itself."""
    place = at(Opening.CLEAR)
    transport = place.connect()
    take(transport)
    transport.receive(b"STARTTLS\r\nEHLO evil\r\n")
    assert take(transport) == b""
    assert transport.closing
    transport.receive(EHLO)
    assert take(transport) == b""


@pytest.mark.parametrize("step", [0, 1])
def test_tls_at_once(at: Make, step: int) -> None:
    transport = at(Opening.TLS).connect()
    assert take(transport) == b""
    client = TLSClient(transport, step=step).handshake()
    assert client.reads() == BANNER
    assert b"STARTTLS" not in client.sends(EHLO)
    assert client.sends(b"STARTTLS\r\n").startswith(b"503 ")
    assert client.sends(LOG_IN).startswith(b"235 ")


def test_clear_text_where_tls_is_expected_gets_no_smtp(at: Make) -> None:
    """HARD-CASES row 30."""
    transport = at(Opening.TLS).connect()
    transport.receive(EHLO)
    assert b"220" not in transport.sent
    assert b"250" not in transport.sent
    assert transport.closing


@pytest.mark.parametrize("step", [0, 1])
def test_the_first_octet_chooses_tls(at: Make, step: int) -> None:
    """Port 2465 of COMPATIBILITY.md section 1."""
    place = at(Opening.DETECT)
    transport = place.connect()
    assert take(transport) == b""
    client = TLSClient(transport, step=step).handshake()
    assert client.reads() == BANNER
    assert b"STARTTLS" not in client.sends(EHLO)
    place.clock.advance(10)
    assert client.reads() == b""
    assert client.sends(b"NOOP\r\n") == b"250 2.0.0 Ok\r\n"


def test_silence_chooses_clear_text(at: Make) -> None:
    place = at(Opening.DETECT)
    transport = place.connect()
    place.clock.advance(0.49)
    assert take(transport) == b""
    place.clock.advance(0.02)
    assert take(transport) == BANNER
    transport.receive(EHLO)
    assert b" STARTTLS\r\n" in take(transport).replace(b"250-", b"250 ")
    transport.receive(b"STARTTLS\r\n")
    take(transport)
    assert TLSClient(transport).handshake().sends(EHLO).startswith(b"250-mta.test\r\n")


def test_a_client_that_talks_first_is_heard_after_the_banner(at: Make) -> None:
    place = at(Opening.DETECT)
    transport = place.connect()
    for octet in EHLO:
        transport.receive(bytes([octet]))
    sent = take(transport)
    assert sent.startswith(BANNER + b"250-mta.test\r\n")
    place.clock.advance(10)
    assert take(transport) == b""


def test_a_client_that_leaves_during_detection_leaves_nothing(at: Make) -> None:
    place = at(Opening.DETECT)
    transport = place.connect()
    transport.hang_up()
    assert place.clock.getDelayedCalls() == []
    assert place.factory.protocols == set()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::1"),
        (UNIXAddress(None), "0.0.0.0"),
        (None, "0.0.0.0"),
    ],
)
def test_peers_are_known_by_their_address(at: Make, address: object, shown: str) -> None:
    place = at(Opening.CLEAR)
    place.office.trusts = True
    transport = MemoryTransport(place.factory.buildProtocol(address))  # type: ignore[arg-type]
    transport.receive(EHLO + MESSAGE)
    assert place.office.envelopes[0].peer.address == shown


# -- time


def test_a_silent_client_is_told_and_cut(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.connect()
    take(transport)
    place.clock.advance(COMMAND_SECONDS - 1)
    assert take(transport) == b""
    place.clock.advance(2)
    assert take(transport) == b"421 4.4.2 Timed out, closing the connection\r\n"
    assert transport.closing
    assert not transport.aborted
    place.clock.advance(PARTING_SECONDS)
    assert transport.aborted
    transport.hang_up()
    assert place.clock.getDelayedCalls() == []


def test_a_client_that_speaks_has_its_time_anew(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.connect()
    for _ in range(5):
        place.clock.advance(COMMAND_SECONDS - 10)
        transport.receive(b"NOOP\r\n")
        assert take(transport).endswith(b"250 2.0.0 Ok\r\n")
    assert len(place.clock.getDelayedCalls()) == 1
    place.clock.pump([10] * int(COMMAND_SECONDS / 10 + 2))
    assert take(transport).startswith(b"421 4.4.2 ")


def test_our_own_slowness_is_not_the_clients(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.trusting()
    place.office.late = True
    transport.receive(MESSAGE)
    take(transport)
    place.clock.pump([10] * int(COMMAND_SECONDS / 5))
    assert take(transport) == b""
    place.office.answer()
    assert take(transport) == b"250 2.0.0 Ok: queued as 1\r\n"
    place.clock.advance(COMMAND_SECONDS - 5)
    transport.receive(b"NOOP\r\n")
    assert take(transport) == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("opening", [Opening.TLS, Opening.CLEAR])
def test_a_handshake_that_does_not_come_is_waited_for_no_longer_than_a_command(at: Make, opening: Opening) -> None:
    place = at(opening)
    transport = place.connect()
    if opening is Opening.CLEAR:
        transport.receive(b"STARTTLS\r\n")
    take(transport)
    place.clock.advance(COMMAND_SECONDS + 1)
    assert b"421" not in take(transport)
    assert transport.aborted
    transport.hang_up()
    assert place.clock.getDelayedCalls() == []


def test_a_peer_that_never_closes_its_tls_is_cut(at: Make) -> None:
    """TWISTED.md section 2: loseConnection over TLS waits for the peer's close without a timer."""
    place = at(Opening.TLS)
    transport = place.connect()
    client = TLSClient(transport).handshake()
    client.reads()
    client.sends(b"QUIT\r\n")
    assert not transport.aborted
    place.clock.advance(PARTING_SECONDS)
    assert transport.aborted


def test_what_comes_behind_quit_is_not_heard(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.trusting()
    transport.receive(b"QUIT\r\n")
    take(transport)
    transport.receive(EHLO + MESSAGE)
    assert take(transport) == b""
    assert place.office.submitted == []


def test_reading_pauses_with_the_session(at: Make) -> None:
    place = at(Opening.CLEAR)
    transport = place.trusting()
    place.office.slow = True
    transport.receive(MESSAGE)
    assert not transport.reading
    place.office.answer()
    assert transport.reading


# -- stopping


def test_stopping_ends_idle_sessions_and_lets_a_message_finish(at: Make) -> None:
    place = at(Opening.CLEAR)
    idle, sending, answering = place.trusting(), place.trusting(), place.trusting()
    sending.receive(b"MAIL FROM:<a@b>\r\nRCPT TO:<b@b>\r\nDATA\r\nSubject: x\r\n")
    place.office.late = True
    answering.receive(MESSAGE)
    for transport in (sending, answering):
        take(transport)
    assert place.factory.drain() == 3
    assert idle.sent == b"421 4.3.2 Shutting down, try again later\r\n"
    assert idle.closing
    assert not sending.closing
    assert not answering.closing
    sending.receive(b"\r\nbody\r\n.\r\n")
    place.office.answer()
    place.office.answer()
    for transport in (sending, answering):
        assert take(transport).startswith(b"250 2.0.0 Ok: queued as ")
    assert place.factory.drain() == 3
    for transport in (sending, answering):
        assert take(transport).startswith(b"421 4.3.2 ")
        assert transport.closing
    for transport in (idle, sending, answering):
        transport.hang_up()
    assert place.factory.drain() == 0
    assert place.clock.getDelayedCalls() == []


def test_stopping_says_nothing_before_it_is_clear_how_to_say_it(at: Make) -> None:
    for opening in (Opening.TLS, Opening.DETECT):
        place = at(opening)
        transport = place.connect()
        place.factory.drain()
        assert take(transport) == b""
        place.clock.advance(1)
        transport.receive(EHLO)
        place.clock.advance(PARTING_SECONDS)
        assert b"220" not in transport.sent
        assert transport.aborted


def test_stopping_ends_detection_too(at: Make) -> None:
    place = at(Opening.DETECT)
    transport = place.connect()
    place.factory.drain()
    with pytest.raises(AssertionError, match="the server says nothing"):
        TLSClient(transport).handshake()


def test_aborting_cuts_everything(at: Make) -> None:
    place = at(Opening.CLEAR)
    transports = [place.connect(), place.trusting()]
    transports[1].receive(b"MAIL FROM:<a@b>\r\nRCPT TO:<b@b>\r\nDATA\r\nSubject: x\r\n")
    place.factory.abort()
    assert all(transport.aborted for transport in transports)
    transports[1].hang_up()
    assert place.office.contents[0].discarded


# -- on real sockets


def small_buffers(connection: socket.socket) -> None:
    """Or the system takes in megabytes that nobody reads."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, 65_536)


class LoopbackTests(TestCase):
    """The same with Python's own client, over TCP and the system's reactor."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.office = Office()
        self.pair = self_signed(Path(self.mktemp()), "localhost")
        self.reactor = reactor

    def listen(self, opening: Opening) -> int:
        factory = ESMTPFactory(self.office, self.reactor, opening=opening, tls=ServerTLS([self.pair]), detection_time=0.1)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        small_buffers(port.socket)
        return int(port.getHost().port)

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pair.certificate))

    def submit(self, port: int, *, implicit: bool) -> Deferred[None]:
        return deferToThread(self._submit, port, implicit)

    def _submit(self, port: int, implicit: bool) -> None:
        import smtplib

        if implicit:
            client: smtplib.SMTP = smtplib.SMTP_SSL("localhost", port, timeout=10, context=self.client_context())
        else:
            client = smtplib.SMTP("localhost", port, timeout=10)
            client.starttls(context=self.client_context())
        with client:
            client.login(USER.decode(), TOKEN.decode())
            content = "Subject: x\r\n\r\n" + "line\r\n.\r\n" * 20_000
            client.sendmail("a@out.test", ["b@in.test"], content[:90_000])

    def check(self, result: None) -> None:
        [(sender, recipients, content)] = self.office.submitted
        self.assertEqual((sender, recipients), ("a@out.test", ("b@in.test",)))
        self.assertIn(b"\r\n.\r\n", content)
        self.assertGreaterEqual(len(content), 90_000)

    def test_starttls(self) -> Deferred[None]:
        return self.submit(self.listen(Opening.CLEAR), implicit=False).addCallback(self.check)

    def test_implicit_tls(self) -> Deferred[None]:
        return self.submit(self.listen(Opening.TLS), implicit=True).addCallback(self.check)

    def test_both_on_one_port(self) -> Deferred[None]:
        port = self.listen(Opening.DETECT)
        both = self.submit(port, implicit=True).addCallback(self.check)
        both.addCallback(lambda _: self.office.submitted.clear())
        both.addCallback(lambda _: self.submit(port, implicit=False))
        return both.addCallback(self.check)

    def test_a_client_that_does_not_read_is_read_no_further(self) -> Deferred[None]:
        return self.flood(self.listen(Opening.CLEAR), None)

    def test_a_client_that_does_not_read_is_read_no_further_in_tls(self) -> Deferred[None]:
        return self.flood(self.listen(Opening.TLS), self.client_context())

    def flood(self, port: int, context: ssl.SSLContext | None) -> Deferred[None]:
        """HARD-CASES row 8: a few octets that are answered by many must not fill the memory; when they are read, none is missing."""
        return deferToThread(self._flood, port, context)

    def _flood(self, port: int, context: ssl.SSLContext | None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        small_buffers(plain)
        with plain if context is None else context.wrap_socket(plain, server_hostname="localhost") as client:
            client.settimeout(0.5)
            sent = 0
            try:
                while sent < 100_000:
                    client.sendall(EHLO * 50)
                    sent += 50
            except TimeoutError:
                pass
            self.assertLess(sent, 100_000, "all was read, though no answer was")
            client.settimeout(10)
            answered, kept = 0, b""
            while answered < sent:
                kept = kept[-5:] + client.recv(1 << 20)
                answered += kept.count(b"\n250 ")


def test_the_recorded_login_is_what_it_says() -> None:
    assert b64encode(b"\0" + USER + b"\0" + TOKEN).decode() == PLAIN
