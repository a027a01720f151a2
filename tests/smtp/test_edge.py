"""The edge against everyone who scans the internet: time, caps, guessed passwords, and what is no SMTP (HARD-CASES rows 10, 11 and 30)."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.logger import LogEvent, capturedLogs, formatEvent

from lettermta.smtp.admission import IDLE_BEFORE_YIELDING, Caps
from lettermta.smtp.connection import PARTING_SECONDS, Opening
from lettermta.smtp.tls import ServerTLS
from tests.smtp.memory_transport import MemoryTransport, TLSClient
from tests.smtp.server_peer import USER
from tests.smtp.server_place import BANNER, EHLO, HERE, LOG_IN, MESSAGE, PACE, Place, take, tls
from tests.smtp.test_tls import client as client_context
from tests.test_counts import grown

__all__ = ["tls"]

TIMED_OUT = b"421 4.4.2 Timed out, closing the connection\r\n"
WRONG = b"AUTH PLAIN " + b64encode(b"\0" + USER + b"\0wrong") + b"\r\n"
INVALID = b"535 5.7.8 Authentication credentials invalid\r\n"
LAST_TRY = b"421 4.7.0 Too many failed logins, closing the connection\r\n"
SHUT_OUT = b"421 4.7.0 Too many failed logins from your address, try again later\r\n"
CROWDED = b"421 4.7.0 Too many connections"
PACED: dict[str, object] = {"caps": None}
"""An edge with the deadlines of the defaults."""


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


def said(logged: Sequence[LogEvent]) -> list[str]:
    return [str(formatEvent(event)) for event in logged]


# -- time


@pytest.mark.parametrize("octets", [EHLO, b"MAIL FROM:<a@out.test>\r\n", b"x" * 500])
def test_a_whole_command_has_one_deadline_however_its_octets_come(octets: bytes, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 10: one octet each 59 s outlives every timer that starts anew at each read."""
    place = Place(Opening.CLEAR, None, **PACED)
    transport = place.connect()
    take(transport)
    with grown() as growth:
        for octet in octets:
            transport.receive(bytes([octet]))
            place.clock.advance(59)
            if transport.closing:
                break
    assert place.clock.seconds() < PACE.command_seconds + 60
    assert take(transport) == TIMED_OUT
    assert growth == {"lettermta_sessions_ended_total cause=timed_out": 1}
    assert said(logged) == [f"{HERE}: timed out"]


def test_a_response_of_a_login_has_the_same_deadline() -> None:
    place = Place(Opening.CLEAR, None, **PACED)
    place.office.in_clear = ("PLAIN",)
    transport = place.greeted()
    transport.receive(b"AUTH PLAIN\r\n")
    take(transport)
    for _ in range(6):
        transport.receive(b"A")
        place.clock.advance(59)
    assert take(transport) == TIMED_OUT


def test_a_handshake_has_the_same_deadline(tls: ServerTLS, logged: Sequence[LogEvent]) -> None:
    """Each octet of a ClientHello by itself, for as long as one likes to."""
    place = Place(Opening.TLS, tls, **PACED)
    transport = place.connect()
    with grown() as growth:
        for octet in b"\x16\x03\x01\x02\x00\x01":
            transport.receive(bytes([octet]))
            place.clock.advance(59)
        place.clock.advance(PARTING_SECONDS)
        assert transport.aborted
        transport.hang_up()
    assert growth == no_tls("timed_out")
    assert said(logged) == [f"{HERE}: no TLS on here: timed out (the client took too long)"]


@pytest.mark.parametrize("begin", [b"DATA\r\nSubject: x\r\n\r\n", b"BDAT 90000 LAST\r\nSubject: x\r\n\r\n"])
def test_content_has_to_come_at_the_least_rate(begin: bytes, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 10."""
    place = Place(Opening.CLEAR, None, **PACED)
    transport = place.trusting()
    transport.receive(b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\n" + begin)
    take(transport)
    with grown() as growth:
        for _ in range(10):
            transport.receive(b"x")
            place.clock.advance(59)
    assert take(transport) == TIMED_OUT
    assert place.clock.seconds() >= PACE.content_seconds
    assert growth == {"lettermta_sessions_ended_total cause=too_slow": 1}
    assert said(logged) == [f"{HERE}: too slow"]
    assert place.office.contents[0].discarded
    assert place.office.submitted == []


def test_a_pause_of_ours_is_no_new_credit_for_a_slow_sender() -> None:
    """HARD-CASES row 10: the disk's pauses cost the client nothing, and give it nothing either."""
    place = Place(Opening.CLEAR, None, **PACED)
    place.office.slow = True
    transport = place.trusting()
    transport.receive(b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\n")
    take(transport)
    spent = 0.0
    while not take(transport):
        transport.receive(b"x")
        while place.office.waiting:
            place.office.answer()
        place.clock.advance(59)
        spent += 59
        assert spent < 3 * PACE.content_seconds
    assert spent >= PACE.content_seconds


def test_content_at_the_least_rate_may_take_its_time() -> None:
    place = Place(Opening.CLEAR, None, **PACED)
    transport = place.trusting()
    transport.receive(b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\nSubject: x\r\n\r\n")
    take(transport)
    for _ in range(100):
        transport.receive(b"x" * 898 + b"\r\n")
        place.clock.advance(900 / PACE.minimum_rate)
    place.clock.advance(PACE.content_seconds - 5)
    transport.receive(b".\r\n")
    assert take(transport) == b"250 2.0.0 Ok: queued as 1\r\n"


def test_who_says_something_now_and_then_may_stay() -> None:
    place = Place(Opening.CLEAR, None, **PACED)
    transport = place.greeted()
    for _ in range(100):
        place.clock.advance(PACE.command_seconds - 1)
        transport.receive(b"NOOP\r\n")
    assert take(transport) == b"250 2.0.0 Ok\r\n" * 100


# -- caps


def test_an_address_has_its_cap_and_its_neighbour_comes_in(logged: Sequence[LogEvent]) -> None:
    place = Place(Opening.CLEAR, None, caps=Caps(100, 2, 3))
    first, _ = place.connect(), place.connect()
    with grown() as growth:
        third = place.connect()
    assert take(third) == CROWDED + b" from your address, try again later\r\n"
    assert third.closing
    assert growth["lettermta_connections_refused_total cause=address_limit listener=here"] == 1
    assert said(logged) == [f"{HERE} is not let in: connections of its address"]
    third.receive(EHLO + MESSAGE)
    third.hang_up()
    assert take(place.connect("192.0.2.10")) == BANNER
    with grown() as growth:
        assert take(place.connect("192.0.2.11")).startswith(CROWDED)
    assert growth["lettermta_connections_refused_total cause=network_limit listener=here"] == 1
    assert take(place.connect("192.0.3.9")) == BANNER
    first.hang_up()
    assert take(place.connect()) == BANNER


def test_exempt_networks_have_no_cap_of_their_own() -> None:
    place = Place(Opening.CLEAR, None, caps=Caps(100, 1, 1), exempt=[ip_network("192.0.2.0/24")])
    assert [take(place.connect()) for _ in range(5)] == [BANNER] * 5


def test_the_longest_idle_stranger_makes_room() -> None:
    place = Place(Opening.CLEAR, None, caps=Caps(3, 9, 9))
    place.office.in_clear = ("PLAIN",)
    logged_in, idle, talking = place.greeted("192.0.2.1"), place.greeted("192.0.2.2"), place.greeted("192.0.2.3")
    logged_in.receive(LOG_IN)
    assert take(logged_in).startswith(b"235 ")
    with grown() as growth:
        refused = place.connect("192.0.2.4")
    assert take(refused) == CROWDED + b", try again later\r\n"
    assert growth["lettermta_connections_refused_total cause=total_limit listener=here"] == 1
    refused.hang_up()
    place.clock.advance(IDLE_BEFORE_YIELDING)
    talking.receive(b"NOOP\r\n")
    take(talking)
    assert take(place.connect("192.0.2.4")) == BANNER
    assert take(idle) == CROWDED + b", and this one was idle\r\n"
    assert idle.closing
    assert take(logged_in) == take(talking) == b""
    place.clock.advance(1)
    assert take(place.connect("192.0.2.5")).startswith(CROWDED)


def test_a_refusal_is_not_said_in_clear_where_tls_is_expected(tls: ServerTLS) -> None:
    place = Place(Opening.TLS, tls, caps=Caps(100, 1, 1))
    place.connect()
    refused = place.connect()
    assert take(refused) == b""
    assert refused.closing
    refused.receive(b"\x16\x03\x01")
    place.clock.advance(PARTING_SECONDS)
    assert refused.aborted


# -- guessed passwords


def guarded(failures: int = 4, **edge: object) -> Place:
    place = Place(Opening.CLEAR, None, failures=failures, **edge)
    place.office.in_clear = ("PLAIN", "LOGIN")
    return place


def waited(place: Place, transport: MemoryTransport) -> float:
    """How long the answer takes."""
    begun = place.clock.seconds()
    while not transport.sent:
        place.clock.advance(0.25)
        assert place.clock.seconds() - begun < 60
    return place.clock.seconds() - begun


def test_each_wrong_password_is_answered_later_than_the_one_before() -> None:
    """HARD-CASES row 11."""
    place = guarded(failures=100)
    transport = place.greeted()
    delays = []
    for _ in range(7):
        transport.receive(WRONG)
        assert take(transport) == b""
        delays.append(waited(place, transport))
        assert take(transport) == INVALID
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_a_new_connection_does_not_make_guessing_quick_again() -> None:
    place = guarded(failures=100)
    delays = []
    for _ in range(3):
        transport = place.greeted()
        transport.receive(WRONG)
        delays.append(waited(place, transport))
        transport.hang_up()
    assert delays == [0.5, 1.0, 2.0]


def test_commands_behind_a_wrong_password_wait_for_its_answer() -> None:
    """RFC 2920: order is kept; and nobody tries ten in one read."""
    place = guarded(failures=100)
    transport = place.greeted()
    transport.receive(WRONG + b"NOOP\r\n" + WRONG + b"NOOP\r\n")
    place.clock.advance(0.49)
    assert take(transport) == b""
    place.clock.advance(0.02)
    assert take(transport) == INVALID + b"250 2.0.0 Ok\r\n"
    place.clock.advance(0.9)
    assert take(transport) == b""
    place.clock.advance(0.2)
    assert take(transport) == INVALID + b"250 2.0.0 Ok\r\n"


def test_a_client_that_leaves_before_the_answer_leaves_nothing() -> None:
    place = guarded()
    transport = place.greeted()
    transport.receive(WRONG)
    transport.hang_up()
    place.clock.advance(60)
    assert place.clock.getDelayedCalls() == []


def test_too_many_wrong_passwords_end_the_session_and_shut_the_address_out(logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 11: for ten minutes, and nobody else."""
    place = guarded(failures=3)
    transport, other = place.greeted(), place.greeted()
    with grown() as growth:
        transport.receive(WRONG * 5 + b"NOOP\r\n")
        place.clock.pump([0.25] * 40)
    assert take(transport) == INVALID * 3 + LAST_TRY
    assert transport.closing
    assert growth == {
        "lettermta_logins_total mechanism=PLAIN result=unknown_token": 3,
        "lettermta_commands_refused_total code=535": 3,
        "lettermta_sessions_ended_total cause=login_failures": 1,
    }
    assert len([line for line in said(logged) if line.startswith(f"{HERE} was refused a login by PLAIN: ")]) == 3
    with grown() as growth:
        refused = place.connect()
    assert take(refused) == SHUT_OUT
    assert refused.closing
    assert growth["lettermta_connections_refused_total cause=login_failures listener=here"] == 1
    assert said(logged)[-1] == f"{HERE} is not let in: failed logins"
    assert take(place.connect("192.0.2.10")) == BANNER
    with grown() as growth:
        other.receive(LOG_IN + b"NOOP\r\n")
    assert take(other) == SHUT_OUT
    assert other.closing
    assert growth["lettermta_logins_total mechanism=PLAIN result=too_many"] == 1
    place.clock.advance(600)
    again = place.greeted()
    again.receive(LOG_IN)
    assert take(again).startswith(b"235 ")


def test_everyone_behind_an_exempt_gateway_answers_for_the_session_alone() -> None:
    place = guarded(failures=3, exempt=[ip_network("192.0.2.0/24")])
    transport = place.greeted()
    transport.receive(WRONG * 3)
    place.clock.pump([0.25] * 40)
    assert take(transport) == INVALID * 3 + LAST_TRY
    again = place.greeted()
    again.receive(LOG_IN)
    assert take(again).startswith(b"235 ")


def test_a_right_password_makes_good_the_wrong_ones_of_its_address() -> None:
    place = guarded(failures=3)
    for _ in range(4):
        transport = place.greeted()
        transport.receive(WRONG * 2)
        place.clock.pump([0.25] * 10)
        assert take(transport) == INVALID * 2
        transport.receive(LOG_IN)
        assert take(transport).startswith(b"235 ")
        transport.hang_up()


# -- PROXY

PROXIED = "198.51.100.7"
V1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xc0\x00\x02\x01\x9c\x40\0\x19"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
BALANCER = [ip_network("192.0.2.9/32")]


def behind(opening: Opening, tls: ServerTLS | None, **edge: object) -> Place:
    return Place(opening, tls, proxies=BALANCER, **(edge or PACED))


def sent_by(place: Place) -> tuple[str, int]:
    peer = place.office.envelopes[-1].peer
    return peer.address, peer.port


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_speaks_for_its_client_in_clear(header: bytes, step: int) -> None:
    place = behind(Opening.CLEAR, None)
    place.office.trusts = True
    transport = place.connect()
    assert take(transport) == b""
    octets = header + EHLO + MESSAGE
    for start in range(0, len(octets), step or len(octets)):
        transport.receive(octets[start : start + (step or len(octets))])
    sent = take(transport)
    assert sent.startswith(BANNER)
    assert sent.endswith(b"250 2.0.0 Ok: queued as 1\r\n")
    assert sent_by(place) == (PROXIED, 40000)


class Behind(MemoryTransport):
    """A connection through a balancer, which puts its header before the client's first octets, in one read with them."""

    header = b""

    def receive(self, octets: bytes) -> None:
        header, self.header = self.header, b""
        super().receive(header + octets)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("opening", [Opening.TLS, Opening.DETECT])
@pytest.mark.parametrize("header", [V1, V2])
def test_a_proxy_speaks_for_its_client_in_front_of_tls(tls: ServerTLS, header: bytes, opening: Opening, step: int) -> None:
    place = behind(opening, tls)
    transport = Behind(place.factory.buildProtocol(IPv4Address("TCP", HERE, 4711)))
    transport.header = header
    client = TLSClient(transport, step=step).handshake()
    assert client.reads() == BANNER
    client.sends(EHLO)
    client.sends(LOG_IN)
    assert client.sends(MESSAGE).endswith(b"250 2.0.0 Ok: queued as 1\r\n")
    assert sent_by(place) == (PROXIED, 40000)


def test_a_proxy_and_then_silence_is_clear_text_where_both_are_possible(tls: ServerTLS) -> None:
    place = behind(Opening.DETECT, tls)
    place.office.trusts = True
    transport = place.connect()
    place.clock.advance(10)
    assert take(transport) == b""
    transport.receive(V2)
    place.clock.advance(1)
    assert take(transport) == BANNER
    transport.receive(EHLO + MESSAGE)
    assert sent_by(place) == (PROXIED, 40000)


def test_what_a_proxy_says_for_itself_keeps_its_address() -> None:
    place = behind(Opening.CLEAR, None)
    place.office.trusts = True
    place.connect().receive(LOCAL + EHLO + MESSAGE)
    assert sent_by(place) == (HERE, 4711)


def test_caps_hold_for_the_client_and_not_for_the_proxy() -> None:
    place = behind(Opening.CLEAR, None, caps=Caps(100, 1, 100))
    first, second, third = place.connect(), place.connect(), place.connect()
    first.receive(V1)
    second.receive(V1)
    third.receive(V1.replace(b"100.7", b"100.8"))
    assert [take(transport)[:9] for transport in (first, second, third)] == [BANNER[:9], b"421 4.7.0", BANNER[:9]]


@pytest.mark.parametrize(
    "octets",
    [
        EHLO,
        b"PROXY TCP4 forged 192.0.2.1 1 2\r\n" + EHLO,
        b"PROXY " + b"x" * 200,
        V2.replace(b"\x21\x11", b"\x51\x11"),
        V2.replace(b"\0\x0c", b"\xff\xff"),
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("opening", list(Opening))
def test_a_proxy_without_a_good_header_is_dropped(tls: ServerTLS, opening: Opening, octets: bytes, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 30: the receiver must not guess; no word is said, one line is logged, one counter grows."""
    place = behind(opening, tls)
    transport = place.connect()
    with grown() as growth:
        transport.receive(octets)
        transport.receive(EHLO)
    assert take(transport) == b""
    assert transport.closing
    assert growth == {"lettermta_connections_refused_total cause=proxy_header listener=here": 1}
    [line] = said(logged)
    assert line.startswith(f"{HERE} sent no PROXY header that can be accepted: ")
    assert "forged" not in line


def test_a_proxy_that_is_silent_is_waited_for_no_longer_than_a_command() -> None:
    place = behind(Opening.CLEAR, None)
    transport = place.connect()
    for octet in V1[:8]:
        transport.receive(bytes([octet]))
        place.clock.advance(59)
    assert take(transport) == b""
    assert transport.closing


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("header", [V1, V2])
def test_nobody_else_is_believed(header: bytes, step: int) -> None:
    """HARD-CASES row 30: a header from an address that is not listed ends the connection, and nothing behind it is carried out."""
    place = behind(Opening.CLEAR, None)
    place.office.trusts = True
    transport = place.connect("192.0.2.10")
    assert take(transport) == BANNER
    octets = header + EHLO + MESSAGE
    for piece in [octets[at : at + 1] for at in range(len(octets))] if step else [octets]:
        transport.receive(piece)
    assert take(transport).endswith(b"421 4.7.0 This is an SMTP server\r\n")
    assert transport.closing
    assert place.office.submitted == []


# -- TLS that comes to nothing: each cause with one line and one count


def no_tls(cause: str) -> dict[str, float]:
    return {f"lettermta_tls_failures_total cause={cause}": 1, "lettermta_sessions_ended_total cause=tls": 1}


def test_a_tls_hello_on_a_port_that_begins_in_clear(tls: ServerTLS, logged: Sequence[LogEvent]) -> None:
    """The mistake made most: implicit TLS configured for a STARTTLS port."""
    place = Place(Opening.CLEAR, tls)
    transport = place.connect()
    with grown() as growth:
        transport.receive(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\nMAIL FROM:<a@b>\r\n")
    assert take(transport) == BANNER
    assert transport.closing
    assert growth == no_tls("hello_on_starttls_port")
    assert said(logged) == [f"{HERE}: no TLS on here: hello on starttls port (the client began TLS at once on a port that begins in clear)"]


def test_a_hello_behind_the_first_command_is_only_a_bad_line() -> None:
    place = Place(Opening.CLEAR, None)
    transport = place.greeted()
    transport.receive(b"\x16\x03\x01\r\nNOOP\r\n")
    assert take(transport) == b"500 5.5.1 Command not recognized\r\n250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("octets", [EHLO, b"QUIT\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(100)])
def test_clear_text_on_a_port_that_begins_with_tls(tls: ServerTLS, octets: bytes, logged: Sequence[LogEvent]) -> None:
    place = Place(Opening.TLS, tls)
    transport = place.connect()
    with grown() as growth:
        transport.receive(octets)
        assert transport.closing or transport.aborted
        transport.hang_up()
    assert b"220" not in transport.sent
    assert growth == no_tls("clear_on_tls_port")
    [line] = said(logged)
    assert line.startswith(f"{HERE}: no TLS on here: clear on tls port (")


def failing(place: Place, context: SSL.Context) -> dict[str, float]:
    transport = place.connect()
    with grown() as growth:
        if place.factory.opening is Opening.CLEAR:
            transport.receive(b"STARTTLS\r\n")
            take(transport)
        with pytest.raises((SSL.Error, AssertionError)):
            client = TLSClient(transport, context=context).handshake()
            client.sends(EHLO)
            client.sends(EHLO)
            raise AssertionError("TLS is up")
        transport.hang_up()
    return growth


@pytest.mark.parametrize("opening", list(Opening))
def test_a_version_that_is_too_old(tls: ServerTLS, opening: Opening, logged: Sequence[LogEvent]) -> None:
    growth = failing(Place(opening, tls), client_context(SSL.TLS1_VERSION, SSL.TLS1_1_VERSION))
    assert growth == no_tls("version")
    [line] = said(logged)
    assert line.startswith(f"{HERE}: no TLS on here: version (")


@pytest.mark.parametrize("opening", list(Opening))
def test_no_cipher_in_common(tls: ServerTLS, opening: Opening, logged: Sequence[LogEvent]) -> None:
    context = client_context(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
    context.set_cipher_list(b"AES128-SHA:@SECLEVEL=0")
    growth = failing(Place(opening, tls), context)
    assert growth == no_tls("cipher")
    [line] = said(logged)
    assert line.startswith(f"{HERE}: no TLS on here: cipher (")


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("opening", list(Opening))
def test_a_certificate_that_the_client_refuses(tls: ServerTLS, opening: Opening, version: int, logged: Sequence[LogEvent]) -> None:
    """Ours is self-signed until somebody gives us another."""
    context = client_context(version, version)
    context.set_verify(SSL.VERIFY_PEER)
    growth = failing(Place(opening, tls), context)
    assert growth == no_tls("certificate")
    [line] = said(logged)
    assert line.startswith(f"{HERE}: no TLS on here: certificate (")


@pytest.mark.parametrize("opening", [Opening.CLEAR, Opening.TLS])
def test_a_client_that_hangs_up_in_a_handshake(tls: ServerTLS, opening: Opening, logged: Sequence[LogEvent]) -> None:
    place = Place(opening, tls)
    transport = place.connect()
    with grown() as growth:
        if opening is Opening.CLEAR:
            transport.receive(b"STARTTLS\r\n")
        transport.receive(b"\x16\x03\x01")
        transport.hang_up()
    assert growth == no_tls("closed")
    assert len(said(logged)) == 1


@pytest.mark.parametrize("opening", [Opening.CLEAR, Opening.TLS])
def test_a_handshake_that_is_not_made_in_time(tls: ServerTLS, opening: Opening, logged: Sequence[LogEvent]) -> None:
    place = Place(opening, tls, **PACED)
    transport = place.connect()
    with grown() as growth:
        if opening is Opening.CLEAR:
            transport.receive(b"STARTTLS\r\n")
        take(transport)
        place.clock.advance(PACE.command_seconds + 1)
        place.clock.advance(PARTING_SECONDS)
        transport.hang_up()
    assert b"421" not in take(transport)
    assert growth == no_tls("timed_out")
    assert len(said(logged)) == 1


def test_a_handshake_that_is_made_is_counted_by_its_version(tls: ServerTLS) -> None:
    with grown() as growth:
        TLSClient(Place(Opening.TLS, tls).connect()).handshake().reads()
    assert growth == {"lettermta_connections_accepted_total listener=here": 1, "lettermta_tls_handshakes_total version=TLSv1.3": 1}


# -- other protocols


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"CONNECT", b"post"])
def test_http_is_told_where_it_is_and_nothing_of_it_is_carried_out(method: bytes, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 30: a browser that was made to post commands to this port gets nowhere."""
    place = Place(Opening.CLEAR, None)
    place.office.trusts = True
    transport = place.connect()
    take(transport)
    with grown() as growth:
        transport.receive(method + b" / HTTP/1.1\r\nHost: mta.test:25\r\nContent-Length: 200\r\n\r\n" + EHLO + MESSAGE)
    assert take(transport) == b"421 4.7.0 This is an SMTP server\r\n"
    assert transport.closing
    assert place.office.submitted == []
    assert growth == {"lettermta_sessions_ended_total cause=errors": 1}
    assert said(logged) == [f"{HERE}: session ended: 421 4.7.0 This is an SMTP server"]


def test_octets_behind_starttls_are_counted_and_logged(tls: ServerTLS, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 3."""
    transport = Place(Opening.CLEAR, tls).connect()
    with grown() as growth:
        transport.receive(b"STARTTLS\r\nMAIL FROM:<evil@x>\r\n")
    assert growth == {"lettermta_sessions_ended_total cause=injection": 1}
    assert said(logged) == [f"{HERE} sent octets behind STARTTLS: connection dropped"]


def test_sessions_are_counted_by_their_end() -> None:
    place = Place(Opening.CLEAR, None)
    with grown() as growth:
        leaving, lost = place.greeted(), place.greeted()
        leaving.receive(b"QUIT\r\n")
        leaving.hang_up()
        lost.hang_up()
    assert growth == {
        "lettermta_connections_accepted_total listener=here": 2,
        "lettermta_sessions_ended_total cause=quit": 1,
        "lettermta_sessions_ended_total cause=lost": 1,
    }


def test_a_session_that_is_over_does_not_time_out_as_well(logged: Sequence[LogEvent]) -> None:
    """The client's time runs out while the connection is parting: it was told already why that is."""
    place = Place(Opening.CLEAR, None, caps=Caps(100, 100, 100))
    transport = place.greeted()
    place.clock.advance(299)
    with grown() as growth:
        transport.receive(b"GET / HTTP/1.1\r\n")
        place.clock.advance(PARTING_SECONDS)
    assert transport.aborted
    assert growth == {"lettermta_sessions_ended_total cause=errors": 1}
    assert len(said(logged)) == 1
