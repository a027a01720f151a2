"""BDAT, as the client says it (RFC 3030)."""

from __future__ import annotations

import pytest

from lettermta.message import BodyType
from lettermta.smtp.client import Phase
from tests.smtp.client_peer import CHUNKED, Content, Peer, entry, shown

OK = "250 2.0.0 Ok: queued"
LOCK_STEP = "250-mx.test\r\n250 CHUNKING\r\n"
BINARY = b"Subject: hi\r\n\r\n\x00\n.\r\n\rend"
CHUNK = b"BDAT 22 LAST\r\nSubject: hi\r\n\r\nhello\r\n"


def test_the_whole_message_goes_in_one_round_trip() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(entry("b@in.test", "c@in.test"))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nRCPT TO:<c@in.test>\r\n" + CHUNK
    assert peer.says(f"250 ok\r\n250 ok\r\n550 5.1.1 who\r\n{OK}\r\n") == b""
    assert shown(told) == [(OK, True, True), ("550 5.1.1 who", True, False)]
    assert peer.session.phase is Phase.READY


def test_without_pipelining_the_chunk_waits_for_the_recipients() -> None:
    peer = Peer().greet(LOCK_STEP)
    told = peer.send()
    assert peer.wire.take().startswith(b"MAIL")
    assert peer.says("250 ok\r\n").startswith(b"RCPT")
    assert peer.says("250 ok\r\n") == CHUNK
    peer.says(f"{OK}\r\n")
    assert shown(told) == [(OK, True, True)]
    told = peer.send()
    peer.says("250 ok\r\n")
    assert peer.says("550 5.1.1 who\r\n") == b""
    assert shown(told) == [("550 5.1.1 who", True, False)]
    assert peer.session.phase is Phase.SOILED


def test_dots_stay_as_they_are_and_bare_line_ends_do_not() -> None:
    peer = Peer().greet(CHUNKED)
    peer.send(content=Content(b".a\r\n.\r\nb\n.\nc\r.\r"))
    assert peer.wire.take().endswith(b"BDAT 19 LAST\r\n.a\r\n.\r\nb\r\n.\r\nc\r\n.\r\n")


@pytest.mark.parametrize("pieces", [None, [BINARY[:-4], BINARY[-4:]]])
def test_binary_content_goes_as_it_is(pieces: list[bytes | Exception] | None) -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(entry(body=BodyType.BINARY), Content(BINARY, pieces))
    said = peer.wire.take()
    assert said.startswith(b"MAIL FROM:<a@out.test> BODY=BINARYMIME\r\n")
    said += peer.says("250 ok\r\n250 ok\r\n")
    if pieces is None:
        assert said.endswith(b"BDAT %d LAST\r\n%b" % (len(BINARY), BINARY))
    else:
        assert said.endswith(b"BDAT %d\r\n%bBDAT 4 LAST\r\n%b" % (len(BINARY) - 4, BINARY[:-4], BINARY[-4:]))
        peer.says("250 ok\r\n")
    peer.says(f"{OK}\r\n")
    assert shown(told) == [(OK, True, True)]


@pytest.mark.parametrize("ehlo", [LOCK_STEP, "250-mx.test\r\n250-PIPELINING\r\n250 BINARYMIME\r\n"])
def test_binary_content_is_not_for_a_peer_without_binarymime(ehlo: str) -> None:
    peer = Peer().greet(ehlo)
    told = peer.send(entry(body=BodyType.BINARY), Content(BINARY))
    assert peer.wire.take() == b""
    [(reply, remote, handed_over)] = shown(told)
    assert reply.startswith("554 5.6.3") and not remote and not handed_over
    assert peer.session.usable


@pytest.mark.parametrize("reply", ["503 5.5.1 no RCPT", "554 5.5.1 no valid recipients", "452 4.3.1 no"])
def test_with_every_recipient_refused_the_chunk_is_swallowed_and_rset_follows(reply: str) -> None:
    """HARD-CASES row 23, the way of BDAT."""
    peer = Peer().greet(CHUNKED)
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.wire.take()
    assert peer.says(f"250 ok\r\n550 5.1.1 b\r\n451 4.2.1 c\r\n{reply}\r\n") == b""
    assert shown(told) == [("550 5.1.1 b", True, False), ("451 4.2.1 c", True, False)]
    told = peer.send()
    assert peer.wire.take().startswith(b"RSET\r\nMAIL FROM:")
    peer.says(f"250 ok\r\n250 ok\r\n250 ok\r\n{OK}\r\n")
    assert shown(told) == [(OK, True, True)]


def test_a_refusal_of_mail_is_the_verdict_and_the_session_stays_in_step() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send()
    peer.says("451 4.7.1 later\r\n503 no\r\n503 no\r\n")
    assert shown(told) == [("451 4.7.1 later", True, False)]
    peer.wire.take()
    peer.send()
    assert peer.wire.take().startswith(b"RSET\r\nMAIL FROM:")


@pytest.mark.parametrize("reply", ["452 4.3.1 full", "554 5.7.1 spam"])
def test_a_refusal_of_the_chunk_is_the_verdict_and_rset_follows(reply: str) -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(entry("b@in.test", "c@in.test"))
    peer.says(f"250 ok\r\n250 ok\r\n550 5.1.1 c\r\n{reply}\r\n")
    assert shown(told) == [(reply, True, True), ("550 5.1.1 c", True, False)]
    assert peer.session.phase is Phase.SOILED


def test_large_content_waits_for_a_recipient_and_goes_in_chunks() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=[b"one\r", b"\ntwo\n", b".\r\n"]))
    assert peer.wire.take() == b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\n"
    assert peer.says("250 ok\r\n250 ok\r\n") == b"BDAT 3\r\noneBDAT 7\r\n\r\ntwo\r\nBDAT 3 LAST\r\n.\r\n"
    peer.says(f"250 ok\r\n250 ok\r\n{OK}\r\n")
    assert shown(told) == [(OK, True, True)]
    assert peer.session.phase is Phase.READY


def test_large_content_is_kept_when_every_recipient_is_refused() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=[b"one\r\n"]))
    peer.wire.take()
    assert peer.says("250 ok\r\n550 5.1.1 who\r\n") == b""
    assert shown(told) == [("550 5.1.1 who", True, False)]
    assert peer.session.phase is Phase.SOILED


def test_without_pipelining_each_chunk_waits_for_its_answer() -> None:
    peer = Peer().greet(LOCK_STEP)
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n")
    assert peer.says("250 ok\r\n") == b"BDAT 5\r\none\r\n"
    assert peer.says("250 ok\r\n") == b"BDAT 5 LAST\r\ntwo\r\n"
    peer.says(f"{OK}\r\n")
    assert shown(told) == [(OK, True, True)]
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n")
    peer.says("250 ok\r\n")
    peer.wire.take()
    assert peer.says("452 4.3.1 full\r\n") == b""
    assert shown(told) == [("452 4.3.1 full", True, False)]
    assert peer.session.phase is Phase.SOILED


def test_no_chunk_follows_a_refused_one_and_those_under_way_are_answered_first() -> None:
    """RFC 3030 section 2."""
    peer = Peer().greet(CHUNKED)
    peer.wire.full = True
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n", b"three\r\n", b"four\r\n"]))
    peer.wire.take()
    assert peer.says("250 ok\r\n250 ok\r\n") == b"BDAT 5\r\none\r\n"
    peer.wire.drain()
    assert peer.wire.take() == b"BDAT 5\r\ntwo\r\n"
    peer.says("552 5.3.4 too much\r\n")
    peer.wire.drain()
    assert peer.wire.take() == b"" and told == []
    peer.says("503 5.5.1 no\r\n")
    assert shown(told) == [("552 5.3.4 too much", True, False)]
    peer.send()
    assert peer.wire.take().startswith(b"RSET\r\n")


def test_a_refusal_when_all_chunks_are_out_waits_for_the_answer_to_the_last_one() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n250 ok\r\n")
    peer.says("452 4.3.1 full\r\n")
    assert told == []
    peer.says("503 5.5.1 no\r\n")
    assert [reply for reply, _, _ in shown(told)] == ["452 4.3.1 full"]
    assert peer.session.phase is Phase.SOILED


@pytest.mark.parametrize("code", ["354", "150"])
@pytest.mark.parametrize("pieces", [None, [b"one\r\n", b"two\r\n"]])
def test_an_answer_out_of_place_ends_the_session(code: str, pieces: list[bytes | Exception] | None) -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=pieces))
    peer.says(f"250 ok\r\n250 ok\r\n{code} what\r\n")
    [(reply, remote, handed_over)] = shown(told)
    assert reply.startswith("451 4.5.0") and not remote and handed_over
    assert peer.wire.closed


@pytest.mark.parametrize(("before", "handed_over"), [("", False), ("250 ok\r\n", False), ("250 ok\r\n250 ok\r\n", True)])
def test_a_connection_lost_behind_an_accepted_recipient_is_unknown(before: str, handed_over: bool) -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send()
    peer.says(before)
    peer.session.lost("")
    [(reply, remote, told_so)] = shown(told)
    assert reply.startswith("451 4.4.2") and not remote and told_so is handed_over


def test_a_chunk_under_way_has_its_deadline() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=[b"one\r\n", b"two\r\n"]))
    peer.says("250 ok\r\n250 ok\r\n250 ok\r\n")
    peer.clock.advance(301)
    peer.clock.advance(298)
    assert told == []
    peer.clock.advance(2)
    assert shown(told) == [("451 4.4.2 No answer to the end of the content in time", False, True)]


@pytest.mark.parametrize("pieces", [None, [b"one\r\n", b"two\r\n"]], ids=["whole", "in pieces"])
@pytest.mark.parametrize("reply", ["502 5.5.1 Error: command not recognized", "500 what?", "503 5.5.1 bad sequence"])
def test_a_peer_that_offers_chunking_and_does_not_know_bdat_gets_data_the_next_time(
    reply: str, pieces: list[bytes | Exception] | None
) -> None:
    """It takes the content for commands: nothing more is said to it, and the message is no worse for that."""
    peer = Peer().greet(CHUNKED)
    told = peer.send(content=Content(pieces=pieces))
    peer.says("250 ok\r\n250 ok\r\n")
    peer.says(f"{reply}\r\n502 5.5.1 Subject: what?\r\n")
    [(said, remote, handed_over)] = shown(told)
    assert said == f"451 4.5.0 The other side offers CHUNKING and doesn't know BDAT: {reply}"
    assert not remote and not handed_over
    assert peer.wire.closed is not None
    again = Peer(no_chunks=peer.settings.no_chunks).greet(CHUNKED)
    told = again.send()
    assert again.wire.take().endswith(b"DATA\r\n")
    again.says(f"250 ok\r\n250 ok\r\n354 go\r\n{OK}\r\n")
    assert shown(told) == [(OK, True, True)]


def test_a_content_that_is_refused_by_a_word_of_its_own_is_no_unknown_bdat() -> None:
    peer = Peer().greet(CHUNKED)
    told = peer.send()
    peer.says("250 ok\r\n250 ok\r\n501 5.6.0 bad content\r\n")
    assert shown(told) == [("501 5.6.0 bad content", True, True)]
    assert peer.session.usable
