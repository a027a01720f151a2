"""The client's dialogue, byte by byte."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError
from zope.interface.verify import verifyObject

from lettermta.interfaces import IChannel
from lettermta.smtp.client import Phase
from tests.smtp.client_peer import CHUNKED, CLEAR, PIPELINED, PLAIN, Content, Peer, entry, shown

MESSAGE = b"Subject: hi\r\n\r\nhello\r\n.\r\n"
OK = "250 2.0.0 Ok: queued"


def test_pipelining_sends_the_envelope_in_one_write_and_the_content_in_another() -> None:
    peer = Peer().greet()
    verifyObject(IChannel, peer.session)
    told = peer.send(entry("b@in.test", "c@in.test"))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test> SIZE=22\r\nRCPT TO:<b@in.test>\r\nRCPT TO:<c@in.test>\r\nDATA\r\n"
    assert peer.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n") == MESSAGE
    assert peer.says(OK + "\r\n") == b""
    assert shown(told) == [(OK, True, True)] * 2
    assert peer.session.usable


def test_without_pipelining_each_command_waits_for_its_answer() -> None:
    peer = Peer().greet(PLAIN)
    told = peer.send(entry("b@in.test", "c@in.test"))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\n"
    assert peer.says("250 ok\r\n") == b"RCPT TO:<b@in.test>\r\n"
    assert peer.says("250 ok\r\n") == b"RCPT TO:<c@in.test>\r\n"
    assert peer.says("550 5.1.1 who\r\n") == b"DATA\r\n"
    assert peer.says("354 go\r\n") == MESSAGE
    peer.says(OK + "\r\n")
    assert shown(told) == [(OK, True, True), ("550 5.1.1 who", True, False)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_split_of_the_replies_gives_the_same_dialogue(size: int) -> None:
    peer = Peer()
    for said in ("220-mx\r\n220 mx\r\n", PIPELINED):
        for start in range(0, len(said), size):
            peer.says(said[start : start + size])
    told = peer.send()
    peer.wire.take()
    said = "250 ok\r\n250-a\r\n250 b\r\n354 go\r\n"
    assert b"".join(peer.says(said[start : start + size]) for start in range(0, len(said), size)) == MESSAGE
    for octet in OK + "\r\n":
        peer.says(octet)
    assert shown(told) == [(OK, True, True)]


def test_8bitmime_and_smtputf8_are_declared_where_they_are_needed_and_offered() -> None:
    peer = Peer().greet()
    peer.send(entry("ü@in.test", eight_bit=True))
    assert peer.wire.take().startswith("MAIL FROM:<a@out.test> SIZE=22 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<ü@in.test>\r\n".encode())
    plain = Peer().greet(PLAIN)
    plain.send(entry(eight_bit=True))
    assert plain.wire.take() == b"MAIL FROM:<a@out.test>\r\n"


def test_an_address_that_needs_smtputf8_fails_alone_when_the_peer_lacks_it() -> None:
    peer = Peer().greet("250-mx\r\n250 PIPELINING\r\n")
    told = peer.send(entry("ü@in.test", "b@bücher.example", sender=""))
    assert peer.wire.take() == b"MAIL FROM:<>\r\nRCPT TO:<b@xn--bcher-kva.example>\r\nDATA\r\n"
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says(OK + "\r\n")
    refused, taken = shown(told)
    assert (refused[0][:9], refused[1]) == ("553 5.6.7", False)
    assert taken == (OK, True, True)


def test_a_message_above_the_peers_size_fails_without_a_word() -> None:
    peer = Peer().greet("250-mx\r\n250 size 10\r\n")
    told = peer.send()
    assert peer.wire.take() == b""
    [(reply, remote, handed_over)] = shown(told)
    assert reply.startswith("552 5.3.4") and not remote and not handed_over
    assert peer.session.usable


@pytest.mark.parametrize("address", ["b\r\nRSET\r\n@in.test", "b@in.test> SIZE=1", "b\0@in.test", '"b"c"@in.test', "b@in.test\n"])
def test_an_address_that_would_break_the_line_is_never_sent(address: str) -> None:
    peer = Peer().greet()
    told = peer.send(entry(address))
    assert peer.wire.take() == b""
    assert shown(told)[0][0].startswith("553 5.1.3")


def test_a_refusal_of_mail_is_the_verdict_on_every_recipient() -> None:
    for reply in ("451 4.7.1 later", "550 5.7.1 never"):
        peer = Peer().greet()
        told = peer.send(entry("b@in.test", "c@in.test"))
        peer.wire.take()
        assert peer.says(f"{reply}\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n") == b""
        assert shown(told) == [(reply, True, False)] * 2
        peer.send()
        assert peer.wire.take().startswith(b"MAIL")


def test_a_refusal_of_mail_or_of_content_for_several_tells_nothing_of_one_recipient() -> None:
    for recipients, replies, general in (
        (("b@in.test",), "550 5.1.7 Invalid address\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n", [True]),
        (("b@in.test", "c@in.test"), "250 ok\r\n250 ok\r\n550 5.1.1 who\r\n554 5.1.1 Unknown user\r\n", [False, False]),
        (("b@in.test", "c@in.test"), "250 ok\r\n250 ok\r\n250 ok\r\n554 5.1.1 Unknown user\r\n", [True, True]),
    ):
        peer = Peer().greet()
        told = peer.send(entry(*recipients))
        peer.says(replies)
        assert [verdict.general for verdict in told[0]] == general


def test_a_refusal_of_mail_in_lock_step_asks_for_nothing_more() -> None:
    peer = Peer().greet(PLAIN)
    told = peer.send()
    peer.wire.take()
    assert peer.says("550 no\r\n") == b""
    assert shown(told) == [("550 no", True, False)]
    assert peer.session.usable


def test_all_recipients_refused_and_354_gets_a_lone_dot_and_no_content() -> None:
    peer = Peer().greet()
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.wire.take()
    assert peer.says("250 ok\r\n550 5.1.1 b\r\n451 4.2.1 c\r\n354 go\r\n") == b".\r\n"
    peer.says("554 5.5.1 no valid recipients\r\n")
    assert shown(told) == [("550 5.1.1 b", True, False), ("451 4.2.1 c", True, False)]
    assert peer.session.phase is Phase.READY


@pytest.mark.parametrize("ehlo", [PIPELINED, PLAIN])
def test_rset_goes_before_the_next_message_after_all_recipients_were_refused(ehlo: str) -> None:
    peer = Peer().greet(ehlo)
    told = peer.send()
    peer.says("250 ok\r\n")
    peer.says("550 5.1.1 who\r\n")
    if ehlo is PIPELINED:
        peer.says("554 5.5.1 no valid recipients\r\n")
    assert shown(told) == [("550 5.1.1 who", True, False)]
    peer.wire.take()
    told = peer.send()
    if ehlo is PIPELINED:
        assert peer.wire.take().startswith(b"RSET\r\nMAIL FROM:")
        peer.says("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    else:
        assert peer.wire.take() == b"RSET\r\n"
        assert peer.says("250 ok\r\n").startswith(b"MAIL FROM:")
        peer.says("250 ok\r\n")
        peer.says("250 ok\r\n")
        peer.says("354 go\r\n")
    peer.says(OK + "\r\n")
    assert shown(told) == [(OK, True, True)]


def test_a_refused_rset_ends_the_session() -> None:
    peer = Peer().greet()
    peer.send()
    peer.says("250 ok\r\n550 no\r\n554 no\r\n")
    told = peer.send()
    peer.says("502 what\r\n503 nested\r\n")
    assert shown(told)[0][0].startswith("451 4.5.0")
    assert peer.wire.closed


def test_a_refusal_of_data_is_the_verdict_on_the_accepted_recipients() -> None:
    peer = Peer().greet()
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n550 5.1.1 c\r\n451 4.3.2 full\r\n") == b""
    assert shown(told) == [("451 4.3.2 full", True, False), ("550 5.1.1 c", True, False)]
    assert peer.session.phase is Phase.SOILED


@pytest.mark.parametrize("reply", ["452 4.3.1 full", "554 5.7.1 spam"])
def test_a_refusal_of_the_content_is_the_verdict_and_the_connection_goes_on(reply: str) -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says(f"{reply}\r\n")
    assert shown(told) == [(reply, True, True)]
    peer.wire.take()
    peer.send()
    assert peer.wire.take().startswith(b"MAIL")


CLOSING = "421 4.3.2 shutting down"


@pytest.mark.parametrize(
    ("before", "verdicts"),
    [
        ("", [(CLOSING, True, False)] * 2),
        ("250 ok\r\n", [(CLOSING, True, False)] * 2),
        ("250 ok\r\n550 5.1.1 b\r\n", [("550 5.1.1 b", True, False), (CLOSING, True, False)]),
        ("250 ok\r\n250 ok\r\n250 ok\r\n", [(CLOSING, True, False)] * 2),
        ("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", [(CLOSING, True, True)] * 2),
    ],
)
def test_421_ends_the_session_at_any_stage(before: str, verdicts: list[tuple[str, bool, bool]]) -> None:
    peer = Peer().greet()
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.says(before)
    peer.says(CLOSING + "\r\n")
    assert shown(told) == verdicts
    assert (peer.wire.closed, peer.session.usable) == ("closed", False)


def test_421_right_behind_the_verdict_does_not_meet_the_next_message() -> None:
    peer = Peer().greet()
    usable: list[bool] = []
    peer.session.send(entry(), Content()).addCallback(lambda _: usable.append(peer.session.usable))
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says(OK + "\r\n" + CLOSING + "\r\n")
    assert usable == [False]


def test_421_to_an_idle_connection_makes_it_unusable() -> None:
    peer = Peer().greet()
    peer.says(CLOSING + "\r\n")
    assert not peer.session.usable
    assert shown(peer.send())[0][0].startswith("451 4.4.2")


def test_a_connection_lost_behind_the_final_dot_is_unknown_and_temporary() -> None:
    peer = Peer().greet()
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.says("250 ok\r\n250 ok\r\n550 5.1.1 c\r\n354 go\r\n")
    peer.session.lost("closed by the other side")
    unknown, refused = shown(told)
    assert unknown == ("451 4.4.2 Connection lost before the answer to the end of the content: closed by the other side", False, True)
    assert refused == ("550 5.1.1 c", True, False)


def test_a_connection_lost_before_the_dot_hands_nothing_over() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.session.lost("")
    assert shown(told) == [("451 4.4.2 Connection lost before the answer to MAIL", False, False)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01\x02\r\n",
        b"250\tok\r\n",
        b"25 ok\r\n",
        b"\r\n",
        b"999 what\r\n",
        b"000 what\r\n",
        b"150 hold on\r\n",
        b"354 go\r\n",
        b"250 o\0k\r\n",
        b"\xff\xfe\xfd\r\n",
        b"250-one\r\n550 two\r\n",
        b"250-" + b"x" * 5000,
        b"250-line\r\n" * 101,
        (b"250-" + b"x" * 2000 + b"\r\n") * 40,
    ],
)
def test_garbage_for_a_reply_closes_the_session_and_is_temporary(garbage: bytes) -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.wire.take()
    assert peer.says(garbage) == b""
    [(reply, remote, handed_over)] = shown(told)
    assert reply.startswith("451 4.5.0") and not remote and not handed_over
    assert (peer.wire.closed, peer.session.usable) == ("aborted", False)


@pytest.mark.parametrize("said", ["250 ok\r\n150 hm\r\n", "250 ok\r\n354 hm\r\n", "250 ok\r\n250 ok\r\n250 not a go\r\n"])
def test_a_reply_out_of_place_at_rcpt_or_data_closes_the_session(said: str) -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.wire.take()
    assert peer.says(said) == b""
    assert shown(told)[0][0].startswith("451 4.5.0")
    assert peer.wire.closed


def test_354_to_the_final_dot_is_unknown_and_temporary() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says("354 more\r\n")
    [(reply, remote, handed_over)] = shown(told)
    assert reply.startswith("451 4.5.0") and not remote and handed_over


def test_a_nul_in_the_last_answer_does_not_make_a_duplicate() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says(b"250 2.0.0 o\0k\r\n")
    assert shown(told) == [("250 2.0.0 o?k", True, True)]
    assert not peer.session.usable


def test_text_in_another_charset_is_no_garbage() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says(b"250 bient\xf4t\r\n550 5.1.1 " + "Empfänger\tunbekannt".encode() + b"\r\n554 no\r\n")
    assert shown(told) == [("550 5.1.1 Empfänger?unbekannt", True, False)]


def test_long_lines_and_bare_lf_are_tolerated() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\n550 5.1.1 " + "x" * 2000 + "\n554 no\n")
    assert shown(told)[0][0] == "550 5.1.1 " + "x" * 2000


def test_a_reply_nobody_asked_for_ends_the_session() -> None:
    peer = Peer().greet()
    peer.says("250 ok\r\n")
    assert not peer.session.usable


def test_multi_line_refusals_are_kept_whole() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n550-5.7.1 see\r\n550 5.7.1 https://example.com\r\n554 no\r\n")
    assert shown(told)[0][0] == "550 5.7.1 see / https://example.com"


def test_an_answer_in_mid_content_ends_the_session_with_its_verdict() -> None:
    peer = Peer().greet()
    peer.wire.full = True
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.says("552 5.3.4 too much\r\n")
    assert shown(told) == [("552 5.3.4 too much", True, False)]
    assert peer.wire.closed == "aborted"
    assert peer.wire.take() == b""


def test_content_in_pieces_is_stuffed_over_their_borders() -> None:
    peer = Peer().greet()
    told = peer.send(content=Content(pieces=[b".a\r\n", b".b\r", b"\n.c\r\n.", b"\r\n", b".", b"end"]))
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n354 go\r\n") == b"..a\r\n..b\r\n..c\r\n..\r\n..end\r\n.\r\n"
    peer.says(OK + "\r\n")
    assert shown(told) == [(OK, True, True)]


@pytest.mark.parametrize("ehlo", [PIPELINED, CHUNKED])
def test_content_that_can_not_be_read_is_never_ended(ehlo: str) -> None:
    peer = Peer().greet(ehlo)
    content = Content(pieces=[b"half\r\n", b"of\r\n", OSError("disk")])
    told = peer.send(content=content)
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n" + ("354 go\r\n" if ehlo is PIPELINED else "")).endswith(b"half\r\n")
    assert shown(told) == [("451 4.3.0 The content could not be read from the spool", False, False)]
    assert peer.wire.closed == "aborted"


@pytest.mark.parametrize("ehlo", [PIPELINED, CHUNKED])
def test_content_that_is_shorter_than_it_was_is_never_ended(ehlo: str) -> None:
    peer = Peer().greet(ehlo)
    content = Content(pieces=[b"half\r\n"])
    content.size += 1
    told = peer.send(content=content)
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n" + ("354 go\r\n" if ehlo is PIPELINED else "")) == b""
    assert shown(told)[0][0].startswith("451 4.3.0")
    assert peer.wire.closed == "aborted"


def test_each_wait_has_its_deadline() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.clock.advance(299)
    peer.says("250 ok\r\n")
    peer.clock.advance(299)
    assert told == []
    peer.clock.advance(2)
    assert shown(told) == [("451 4.4.2 No answer to RCPT in time", False, False)]
    assert peer.wire.closed == "aborted"


def test_data_has_a_deadline_of_its_own() -> None:
    """RFC 5321 section 4.5.3.2.4."""
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n")
    peer.clock.advance(119)
    assert told == []
    peer.clock.advance(1)
    assert shown(told) == [("451 4.4.2 No answer to DATA in time", False, False)]


def test_the_final_dot_has_the_longer_deadline_and_is_unknown_behind_it() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.clock.advance(301)
    peer.clock.advance(298)
    assert told == []
    peer.clock.advance(2)
    assert shown(told) == [("451 4.4.2 No answer to the end of the content in time", False, True)]


def test_a_shorter_deadline_behind_a_longer_one_is_kept() -> None:
    peer = Peer().greet()
    peer.send()
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.clock.advance(301)
    peer.says(OK + "\r\n")
    told = peer.send()
    peer.clock.advance(300)
    assert shown(told)[0][0] == "451 4.4.2 No answer to MAIL in time"


def test_a_peer_that_takes_no_content_runs_into_the_deadline() -> None:
    peer = Peer().greet()
    peer.wire.full = True
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
    peer.clock.advance(179)
    peer.wire.drain()
    peer.clock.advance(179)
    assert told == []
    peer.clock.advance(1)
    assert shown(told)[0][2] is False
    assert peer.wire.closed == "aborted"


def test_an_idle_connection_has_no_deadline_and_leaves_no_timer() -> None:
    peer = Peer().greet()
    for _ in range(3):
        peer.clock.advance(1000)
    assert peer.session.usable
    peer.session.lost("")
    assert peer.clock.getDelayedCalls() == []


def test_the_silent_host_runs_into_the_deadline_of_its_banner() -> None:
    peer = Peer()
    peer.clock.advance(300)
    assert [str(error) for error in peer.failed] == ["451 4.4.2 No answer to our connection in time"]


@pytest.mark.parametrize("banner", ["554 5.3.2 go away", "450 4.3.2 not now"])
def test_a_refusing_banner_fails_the_opening_by_its_own_words(banner: str) -> None:
    peer = Peer()
    assert peer.says(f"{banner}\r\n") == b"QUIT\r\n"
    assert [(str(error), error.remote) for error in peer.failed] == [(banner, True)]


def test_421_for_a_banner() -> None:
    peer = Peer()
    assert peer.says("421 4.3.2 busy\r\n") == b""
    assert [(str(error), error.remote) for error in peer.failed] == [("421 4.3.2 busy", True)]


def test_helo_is_said_where_ehlo_is_unknown() -> None:
    peer = Peer()
    peer.says("220 mx\r\n")
    assert peer.says("502 what\r\n") == b"HELO out.test\r\n"
    peer.says("250 mx\r\n")
    assert peer.opened == [peer.session]
    peer.send()
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\n"


def test_a_temporary_refusal_of_ehlo_is_no_reason_for_helo() -> None:
    peer = Peer()
    peer.says("220 mx\r\n")
    assert peer.says("451 4.3.0 no\r\n") == b"QUIT\r\n"
    assert [str(error) for error in peer.failed] == ["451 4.3.0 no"]


def test_extension_names_are_compared_without_case_and_empty_lines_do_no_harm() -> None:
    peer = Peer().greet("250-mx\r\n250-\r\n250-pipelining\r\n250-AUTH=LOGIN PLAIN\r\n250 Size nonsense\r\n")
    assert peer.session.capabilities.pipelining
    assert peer.session.capabilities.size == 0
    assert peer.session.capabilities.mechanisms == {"LOGIN", "PLAIN"}


def test_a_connection_carries_so_many_messages_and_no_more() -> None:
    peer = Peer(CLEAR, messages=2).greet()
    for left in (True, False):
        peer.send()
        peer.says("250 ok\r\n250 ok\r\n354 go\r\n")
        peer.says(OK + "\r\n")
        assert peer.session.usable is left


def test_close_says_quit_and_waits_a_few_seconds_for_its_answer() -> None:
    polite, mute = Peer().greet(), Peer().greet()
    for peer in (polite, mute):
        peer.session.close()
        assert peer.wire.take() == b"QUIT\r\n"
        assert not peer.session.usable
    polite.says("221 bye\r\n")
    assert polite.wire.closed == "closed"
    mute.clock.advance(5)
    assert mute.wire.closed == "aborted"


def test_close_in_mid_transaction_waits_for_its_end() -> None:
    peer = Peer().greet()
    told = peer.send()
    peer.session.close()
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n354 go\r\n") == MESSAGE
    assert peer.says(OK + "\r\n") == b"QUIT\r\n"
    assert shown(told) == [(OK, True, True)]


def test_a_canceled_attempt_is_given_up_with_its_connection() -> None:
    peer = Peer().greet()
    told: list[object] = []
    attempt = peer.session.send(entry(), Content())
    attempt.addBoth(told.append)
    attempt.cancel()
    [[verdict]] = told  # type: ignore[misc]
    assert not verdict.reply.permanent and not verdict.remote
    assert peer.wire.closed == "aborted"


def test_a_canceled_opening_is_a_cancellation() -> None:
    peer = Peer()
    peer.session.opened.cancel()
    assert [type(error) for error in peer.failed] == [CancelledError]
    assert peer.wire.closed == "aborted"


@pytest.mark.parametrize("said", ["552 too many recipients", "552 5.5.3 Too many"])
def test_552_for_too_many_recipients_is_temporary(said: str) -> None:
    """RFC 5321 section 4.5.3.1.10; a mailbox that is full is refused by 552 too, and for good."""
    peer = Peer().greet()
    told = peer.send(entry("b@in.test", "c@in.test", "d@in.test"))
    peer.says(f"250 ok\r\n250 ok\r\n{said}\r\n552 5.2.2 mailbox full\r\n354 go\r\n")
    peer.says(f"{OK}\r\n")
    text = said.removeprefix("552 ").removeprefix("5.5.3 ")
    assert [reply for reply, _, _ in shown(told)] == [OK, f"452 4.5.3 {text}", "552 5.2.2 mailbox full"]


@pytest.mark.parametrize("behind", ["250 early", "250-half a"])
def test_a_peer_that_speaks_before_it_is_asked_is_left(behind: str) -> None:
    """Each of its answers would be taken for one to the command after it."""
    peer = Peer()
    assert peer.says(f"220 mx.test\r\n{behind}\r\n") == b""
    [failure] = peer.failed
    assert str(failure.reply) == "451 4.5.0 mx.test [192.0.2.1]:25 spoke before it was asked"
    assert peer.wire.closed is not None
