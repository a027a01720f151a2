"""What is kept of a dialogue: all that an operator needs to know, no secret, no content, and never without bound."""

from __future__ import annotations

from base64 import b64encode

from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_settings import TLSMode
from lettermta.smtp.client_transcript import LONGEST, MOST, Transcript
from tests.smtp.client_peer import CLEAR, Peer, entry

TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
SECRET = Credentials("user", "s3cret")


def told(peer: Peer) -> list[tuple[str | None, str | None]]:
    dialogue: list[dict[str, str | None]] = peer.session.details["dialogue"]  # type: ignore[assignment]
    return [(one["said"], one["answer"]) for one in dialogue]


def test_an_attempt_has_what_was_said_and_the_first_one_the_opening_too() -> None:
    peer = Peer(CLEAR)
    peer.says("220 mx.test hello\r\n")
    peer.says("250-mx.test\r\n250 PIPELINING\r\n")
    peer.send(entry("a@example.com"))
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says("250 2.0.0 taken\r\n")
    assert told(peer) == [
        (None, "220 mx.test hello"),
        ("EHLO out.test", "250 mx.test\nPIPELINING"),
        ("MAIL FROM:<a@out.test>", "250 ok"),
        ("RCPT TO:<a@example.com>", "250 ok"),
        ("DATA", "354 go"),
        ("(content)", "250 2.0.0 taken"),
    ]
    where = {"host": "mx.test", "address": "192.0.2.1", "port": 25, "tls": {"policy": "", "result": "clear"}}
    assert {name: told for name, told in peer.session.details.items() if name != "dialogue"} == where
    peer.send(entry("b@example.com"))
    peer.says("250 ok\r\n550 5.1.1 nobody\r\n554 none\r\n")
    assert told(peer)[0] == ("MAIL FROM:<a@out.test>", "250 ok")
    assert ("RCPT TO:<b@example.com>", "550 5.1.1 nobody") in told(peer)


def test_what_was_never_answered_shows() -> None:
    peer = Peer(CLEAR)
    peer.says("220 mx\r\n")
    peer.says("250 mx\r\n")
    peer.send(entry("a@example.com"))
    peer.says("250 ok\r\n")
    peer.session.lost("")
    assert told(peer)[-1] == ("RCPT TO:<a@example.com>", None)


def test_tls_is_told_and_no_secret_is() -> None:
    peer = Peer(CLEAR, tls=TLSMode.REQUIRE, credentials=SECRET, verify=True)
    peer.says("220 mx\r\n")
    peer.says("250-mx\r\n250 STARTTLS\r\n")
    peer.says("220 go\r\n")
    peer.session.secured(TLS, None)
    peer.says("250-mx\r\n250 AUTH LOGIN\r\n")
    peer.says("334 VXNlcm5hbWU6\r\n")
    peer.says("334 UGFzc3dvcmQ6\r\n")
    peer.says("235 2.7.0 ok\r\n")
    assert peer.session.details["tls"] == {"policy": "", "result": "verified", "version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}
    said = [one for one, _ in told(peer)]
    assert said[-3:] == ["AUTH LOGIN ...", "...", "..."]
    for secret in (SECRET.password, b64encode(SECRET.password.encode()).decode()):
        assert secret not in str(peer.session.details)


def test_a_transcript_is_bounded_and_prints() -> None:
    transcript = Transcript()
    for _ in range(MOST + 10):
        transcript.said(b"RCPT TO:<" + b"x" * 2 * LONGEST + b">\r\n", ["RCPT"])
        transcript.heard(250, [b"\x1b[31m" + b"y" * 2 * LONGEST])
    exchanges = transcript.exchanges
    assert len(exchanges) == MOST
    assert all(len(text) <= LONGEST and text.isprintable() for one in exchanges for text in one.values() if text)
