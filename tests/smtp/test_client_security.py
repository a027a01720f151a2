"""TLS and logging in, as the client's state machine sees them."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode

import pytest

from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_opening import TLSFailed
from lettermta.smtp.client_settings import TLSMode
from tests.smtp.client_peer import CLEAR, Peer

TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
SECRET = Credentials("user", "s3cret-pässword")
OFFER = "250-mx\r\n250 STARTTLS\r\n"


def asked(mode: TLSMode, ehlo: str = OFFER, **changes: object) -> Peer:
    peer = Peer(CLEAR, tls=mode, **changes)
    peer.says("220 mx\r\n")
    peer.last = peer.says(ehlo)  # type: ignore[attr-defined]
    return peer


def logging_in(offer: str, *, fault: str | None = None) -> Peer:
    peer = asked(TLSMode.REQUIRE, credentials=SECRET, verify=fault is None)
    peer.says("220 go\r\n")
    peer.session.secured(TLS, fault)
    peer.wire.take()
    peer.last = peer.says(f"250-mx\r\n250 {offer}\r\n")  # type: ignore[attr-defined]
    return peer


def test_starttls_is_taken_where_it_is_offered_and_ehlo_is_said_again() -> None:
    peer = asked(TLSMode.OPPORTUNISTIC, "250-mx\r\n250-SIZE 10\r\n250 starttls\r\n")
    assert peer.last == b"STARTTLS\r\n"  # type: ignore[attr-defined]
    assert peer.says("220 go\r\n") == b""
    assert peer.wire.handshakes == 1
    peer.session.secured(TLS, "nobody asked")
    assert peer.wire.take() == b"EHLO out.test\r\n"
    peer.says("250 mx\r\n")
    assert peer.opened == [peer.session]
    assert peer.session.description == f"mx.test [192.0.2.1]:25 {TLS}"
    assert peer.session.capabilities.size is None


def test_octets_behind_the_answer_to_starttls_are_an_attack() -> None:
    """HARD-CASES row 3 (CVE-2011-0411), as a client."""
    for behind in ("250 mx\r\n", "2", "rubbish\r\n"):
        peer = asked(TLSMode.OPPORTUNISTIC)
        assert peer.says("220 go\r\n" + behind) == b""
        assert (peer.wire.handshakes, peer.wire.closed) == (0, "aborted")
        [error] = peer.failed
        assert not isinstance(error, TLSFailed)


@pytest.mark.parametrize("ehlo", ["250 mx\r\n", OFFER])
def test_require_fails_temporarily_where_tls_is_not_to_be_had(ehlo: str) -> None:
    peer = asked(TLSMode.REQUIRE, ehlo)
    if ehlo is OFFER:
        peer.says("454 4.7.0 no\r\n")
    [error] = peer.failed
    assert str(error).startswith("451 4.7.4")


def test_opportunistic_goes_on_in_clear_when_starttls_is_refused() -> None:
    peer = asked(TLSMode.OPPORTUNISTIC)
    peer.says("454 4.7.0 no\r\n")
    assert peer.opened == [peer.session]
    assert peer.session.description.endswith("in clear")


def test_off_never_asks() -> None:
    assert asked(TLSMode.OFF).last == b""  # type: ignore[attr-defined]


def test_a_failed_handshake_is_told_apart() -> None:
    peer = asked(TLSMode.OPPORTUNISTIC)
    peer.says("220 go\r\n")
    peer.session.lost("TLS: no shared cipher")
    [error] = peer.failed
    assert isinstance(error, TLSFailed) and "no shared cipher" in str(error)


def test_a_peer_that_is_gone_at_the_first_word_inside_tls_failed_at_tls() -> None:
    peer = asked(TLSMode.OPPORTUNISTIC)
    peer.says("220 go\r\n")
    peer.session.secured(TLS, None)
    peer.session.lost("TLS: alert")
    assert isinstance(peer.failed[0], TLSFailed)


def test_the_handshake_has_a_deadline() -> None:
    peer = asked(TLSMode.OPPORTUNISTIC)
    peer.says("220 go\r\n")
    peer.clock.advance(300)
    assert isinstance(peer.failed[0], TLSFailed) and "handshake in time" in str(peer.failed[0])
    assert peer.wire.closed == "aborted"


def test_implicit_tls_comes_before_the_banner() -> None:
    peer = Peer(CLEAR, tls=TLSMode.IMPLICIT)
    assert peer.wire.handshakes == 1
    peer.session.secured(TLS, None)
    peer.greet("250 mx\r\n")


def test_an_unverified_certificate_is_no_reason_to_go_on_where_it_must_be_verified() -> None:
    peer = asked(TLSMode.REQUIRE, verify=True)
    peer.says("220 go\r\n")
    peer.session.secured(TLS, "it has expired")
    [error] = peer.failed
    assert str(error).startswith("451 4.7.5") and "expired" in str(error) and not isinstance(error, TLSFailed)


@pytest.mark.parametrize("mode", [TLSMode.OFF, TLSMode.OPPORTUNISTIC])
def test_credentials_never_go_out_in_clear(mode: TLSMode) -> None:
    peer = asked(mode, "250-mx\r\n250 AUTH PLAIN LOGIN\r\n", credentials=SECRET)
    assert peer.last == b"QUIT\r\n"  # type: ignore[attr-defined]
    assert str(peer.failed[0]).startswith("451 4.7.11")


def test_credentials_never_go_out_over_unverified_tls() -> None:
    """HARD-CASES row 24."""
    peer = logging_in("AUTH PLAIN", fault="it is self-signed")
    assert peer.last == b"QUIT\r\n"  # type: ignore[attr-defined]
    assert str(peer.failed[0]).startswith("451 4.7.11")


def test_plain() -> None:
    peer = logging_in("AUTH LOGIN PLAIN")
    assert peer.last == b"AUTH PLAIN " + b64encode("\0user\0s3cret-pässword".encode()) + b"\r\n"  # type: ignore[attr-defined]
    peer.says("235 2.7.0 welcome\r\n")
    assert peer.opened == [peer.session]


def test_login() -> None:
    peer = logging_in("AUTH LOGIN")
    assert peer.last == b"AUTH LOGIN\r\n"  # type: ignore[attr-defined]
    assert b64decode(peer.says("334 VXNlcm5hbWU6\r\n")) == b"user"
    assert b64decode(peer.says("334 UGFzc3dvcmQ6\r\n")).decode() == SECRET.password
    peer.says("235 welcome\r\n")
    assert peer.opened == [peer.session]


def test_cram_md5() -> None:
    peer = logging_in("AUTH CRAM-MD5")
    challenge = b"<1896.697170952@mx>"
    answer = b64decode(peer.says(b"334 " + b64encode(challenge) + b"\r\n")).decode()
    assert answer == "user " + hmac.new(SECRET.password.encode(), challenge, "md5").hexdigest()
    peer.says("235 welcome\r\n")
    assert peer.opened == [peer.session]


def test_a_failed_login_shows_no_secret_anywhere() -> None:
    peer = logging_in("AUTH PLAIN")
    peer.says("535 5.7.8 no\r\n")
    [error] = peer.failed
    assert (str(error), error.remote) == ("535 5.7.8 no", True)
    told = repr(error) + repr(SECRET) + repr(peer.session._settings)
    assert "s3cret" not in told and b64encode(b"\0user\0s3cret")[:12].decode() not in told


@pytest.mark.parametrize("offer", ["AUTH PLAIN", "AUTH CRAM-MD5"])
def test_a_server_that_asks_without_end_is_given_up(offer: str) -> None:
    peer = logging_in(offer)
    peer.says("334 \r\n")
    if offer == "AUTH CRAM-MD5":
        peer.says("334 \r\n")
    assert peer.says("334 \r\n") == b"QUIT\r\n"
    assert peer.failed


def test_no_mechanism_in_common_is_temporary() -> None:
    peer = logging_in("AUTH GSSAPI")
    assert str(peer.failed[0]).startswith("451 4.7.4")
