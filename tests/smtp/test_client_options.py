"""What a message asks for, passed on to a peer that offers it (and what becomes of it where the peer doesn't)."""

from __future__ import annotations

from typing import Any

import pytest

from lettermta.message import DeliverBy, Notify, QueuedRecipient
from lettermta.smtp.client_settings import TLSMode
from tests.smtp.client_peer import CLEAR, PLAIN, Content, Peer, entry, shown

OK = "250 2.0.0 Ok: queued"
TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
GO = "250 ok\r\n250 ok\r\n354 go\r\n"


def offering(*extensions: str, **settings: Any) -> Peer:
    lines = ["mx.test", "PIPELINING", *extensions]
    said = "".join(f"250{'-' if line is not lines[-1] else ' '}{line}\r\n" for line in lines)
    return Peer(CLEAR, **settings).greet(said)


def secured(fault: str | None, *extensions: str, before: str = "STARTTLS") -> Peer:
    peer = Peer(CLEAR, tls=TLSMode.OPPORTUNISTIC)
    peer.says("220 mx\r\n")
    peer.says(f"250-mx\r\n250 {before}\r\n")
    if before == "STARTTLS":
        peer.says("220 go\r\n")
        peer.session.secured(TLS, fault)
        peer.says("".join(f"250-{line}\r\n" for line in ("mx", *extensions)) + "250 PIPELINING\r\n")
    peer.wire.take()
    return peer


def test_dsn_is_passed_on_as_it_came() -> None:
    """RFC 3461 section 5.2.1."""
    peer = offering("DSN")
    both = QueuedRecipient(1, "b@in.test", notify=frozenset([Notify.DELAY, Notify.SUCCESS]), orcpt="rfc822;x+y=z@in.test")
    never = QueuedRecipient(2, "c@in.test", notify=frozenset([Notify.NEVER]))
    peer.send(entry(both, never, "d@in.test", ret="HDRS", envid="a+b c=\r"))
    assert peer.wire.take().splitlines() == [
        b"MAIL FROM:<a@out.test> RET=HDRS ENVID=a+2Bb+20c+3D+0D",
        b"RCPT TO:<b@in.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By+3Dz@in.test",
        b"RCPT TO:<c@in.test> NOTIFY=NEVER",
        b"RCPT TO:<d@in.test>",
        b"DATA",
    ]


def test_a_return_path_stands_in_the_senders_place_and_what_the_sender_asked_for_is_passed_on() -> None:
    peer = offering("DSN")
    asked = entry("b@in.test", envid="a b")
    asked.return_path = "bxyz@rp.out.test"
    peer.send(asked)
    assert peer.wire.take().startswith(b"MAIL FROM:<bxyz@rp.out.test> ENVID=a+20b\r\nRCPT TO:<b@in.test>\r\n")


def test_wishes_are_left_out_where_they_are_not_offered() -> None:
    peer = offering()
    wish = QueuedRecipient(1, "b@in.test", notify=frozenset([Notify.NEVER]), orcpt="rfc822;b@in.test")
    peer.send(entry(wish, ret="FULL", envid="x", priority=5, deliver_by=DeliverBy(1e12, bounce=True)))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\n"


def test_a_word_that_would_break_the_line_is_left_out() -> None:
    peer = offering("DSN")
    recipient = QueuedRecipient(1, "b@in.test", orcpt="rfc822\r\nRSET;b@in.test")
    peer.send(entry(recipient, ret="FULL\r\nRSET", envid="ü"))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\n"


def test_priority_is_passed_on() -> None:
    """RFC 6710 section 4."""
    for priority, said in ((-9, b" MT-PRIORITY=-9"), (0, b""), (4, b" MT-PRIORITY=4")):
        peer = offering("MT-PRIORITY MIXER")
        peer.send(entry(priority=priority))
        assert peer.wire.take().startswith(b"MAIL FROM:<a@out.test>" + said + b"\r\n")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (DeliverBy(1060.9, bounce=True, trace=True), b" BY=60;RT"),
        (DeliverBy(1060.0, bounce=False), b" BY=60;N"),
        (DeliverBy(940.0, bounce=False), b" BY=-60;N"),
        (DeliverBy(1e12, bounce=False), b" BY=999999999;N"),
    ],
)
def test_the_seconds_that_are_left_are_passed_on(wish: DeliverBy, said: bytes) -> None:
    """RFC 2852 section 4.1.4."""
    peer = offering("DELIVERBY 60", wall_clock=lambda: 1000.0)
    peer.send(entry(deliver_by=wish))
    assert peer.wire.take().startswith(b"MAIL FROM:<a@out.test>" + said + b"\r\n")


@pytest.mark.parametrize(("offer", "left"), [("DELIVERBY", 0.5), ("8BITMIME", -1), ("DELIVERBY 240", 239)])
def test_a_deadline_that_can_not_be_kept_ends_the_message(offer: str, left: float) -> None:
    peer = offering(offer, wall_clock=lambda: 1000.0)
    told = peer.send(entry(deliver_by=DeliverBy(1000 + left, bounce=True)))
    assert peer.wire.take() == b""
    [(reply, remote, _)] = shown(told)
    assert reply.startswith("554 5.4.7") and not remote


def test_a_message_with_a_utf8_header_is_not_for_a_peer_without_smtputf8() -> None:
    peer = offering("SMTPUTF8")
    peer.send(entry(smtputf8=True))
    assert peer.wire.take().startswith(b"MAIL FROM:<a@out.test> SMTPUTF8\r\n")
    peer = offering()
    told = peer.send(entry("b@in.test", "c@in.test", smtputf8=True))
    assert peer.wire.take() == b""
    assert [(reply[:9], remote) for reply, remote, _ in shown(told)] == [("550 5.6.7", False)] * 2
    assert peer.session.usable


def test_requiretls_goes_over_verified_tls_to_a_peer_that_offers_it() -> None:
    """RFC 8689 section 4.2.1."""
    peer = secured(None, "REQUIRETLS")
    peer.send(entry(require_tls=True))
    assert peer.wire.take().startswith(b"MAIL FROM:<a@out.test> REQUIRETLS\r\n")


def test_requiretls_never_goes_another_way() -> None:
    """RFC 8689 section 4.2.1, HARD-CASES row 24."""
    for peer, why in (
        (offering("REQUIRETLS"), "in clear"),
        (secured(None, before="REQUIRETLS"), "in clear"),
        (secured("it has expired", "REQUIRETLS"), "it has expired"),
        (secured(None), "doesn't offer it"),
    ):
        told = peer.send(entry("b@in.test", "c@in.test", require_tls=True))
        assert peer.wire.take() == b""
        for reply, remote, handed_over in shown(told):
            assert reply.startswith("550 5.7.30 REQUIRETLS support required: ") and why in reply
            assert not remote and not handed_over
        assert peer.session.usable


def test_what_rcptmax_does_not_allow_at_once_goes_in_turn() -> None:
    """RFC 9422 section 4.2."""
    peer = offering("LIMITS MAILMAX=9 rcptmax=2 RCPTDOMAINMAX=x")
    told = peer.send(entry(*(f"{name}@in.test" for name in "bcdef")))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nRCPT TO:<c@in.test>\r\nDATA\r\n"
    peer.says("250 ok\r\n250 ok\r\n550 5.1.1 c\r\n354 go\r\n")
    assert peer.says(OK + " 1\r\n") == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<d@in.test>\r\nRCPT TO:<e@in.test>\r\nDATA\r\n"
    said = peer.says("250 ok\r\n550 5.1.1 d\r\n550 5.1.1 e\r\n554 none\r\n")
    assert said == b"RSET\r\nMAIL FROM:<a@out.test>\r\nRCPT TO:<f@in.test>\r\nDATA\r\n"
    peer.says("250 ok\r\n" + GO)
    assert told == []
    peer.says(OK + " 3\r\n")
    assert [reply for reply, _, _ in shown(told)] == [OK + " 1", "550 5.1.1 c", "550 5.1.1 d", "550 5.1.1 e", OK + " 3"]
    assert peer.session.sent == 3


def test_a_loss_between_two_parts_leaves_the_rest_for_later() -> None:
    for end in ("lost", "cancel"):
        peer = offering("LIMITS RCPTMAX=1")
        told: list[Any] = []
        attempt = peer.session.send(entry("b@in.test", "c@in.test", "d@in.test"), Content())
        attempt.addBoth(told.append)
        peer.says(GO)
        peer.says(OK + "\r\n")
        if end == "lost":
            peer.session.lost("")
        else:
            attempt.cancel()
        first, *rest = shown(told)
        assert first == (OK, True, True)
        assert [(reply[:9], remote) for reply, remote, _ in rest] == [("451 4.4.2", False)] * 2


def test_mailmax_is_the_end_of_a_connection() -> None:
    """RFC 9422 section 4.1."""
    peer = offering("LIMITS MAILMAX=2")
    for left in (True, False):
        peer.send()
        peer.says(GO)
        peer.says(OK + "\r\n")
        assert peer.session.usable is left


def test_an_entry_that_mailmax_would_cut_waits_for_a_new_connection() -> None:
    peer = offering("LIMITS MAILMAX=3 RCPTMAX=1")
    peer.send()
    peer.says(GO)
    peer.says(OK + "\r\n")
    told = peer.send(entry("b@in.test", "c@in.test", "d@in.test"))
    assert peer.wire.take().endswith(b"QUIT\r\n")
    assert [(reply[:9], remote, handed_over) for reply, remote, handed_over in shown(told)] == [("451 4.4.2", False, False)] * 3
    assert not peer.session.usable


def test_limits_that_make_no_sense_are_none() -> None:
    for limits in ("LIMITS", "LIMITS RCPTMAX=0 MAILMAX=-1", "LIMITS RCPTMAX MAILMAX=many", f"LIMITS RCPTMAX={'9' * 300}"):
        peer = offering(limits)
        assert (peer.session.capabilities.rcpt_max, peer.session.capabilities.mail_max) == (None, None)


def test_a_peer_after_helo_gets_the_bare_commands() -> None:
    peer = Peer().greet(PLAIN)
    peer.send(entry(eight_bit=True, ret="FULL", priority=1))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\n"
