"""The next message's commands go out behind the content of the one before, where RFC 2920 section 3.1 allows it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from attrs import define, field

from lettermta.message import QueueEntry, Verdict
from tests.smtp.client_peer import CHUNKED, PIPELINED, PLAIN, Content, Peer, entry, shown

ACCEPTED = "250 ok\r\n250 ok\r\n"
CONTENT = b"Subject: hi\r\n\r\nhello\r\n.\r\n"
ENVELOPE = b"MAIL FROM:<a@out.test> SIZE=22\r\nRCPT TO:<b@in.test>\r\nDATA\r\n"
CHUNK = b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nBDAT 22 LAST\r\nSubject: hi\r\n\r\nhello\r\n"


@define
class Stream:
    """Messages that go out as soon as there is room, ``left`` of them; ``told`` has their verdicts in order."""

    peer: Peer
    left: int
    told: list[Sequence[Verdict]] = field(factory=list)
    dialogues: list[list[object]] = field(factory=list)
    rooms: int = 0
    queued: QueueEntry = field(factory=entry)

    def go(self) -> Stream:
        self.left -= 1
        self.peer.session.send(self.queued, Content(), self._room).addCallback(self._told)
        return self

    def _room(self) -> None:
        self.rooms += 1
        assert self.peer.session.usable
        if self.left:
            self.go()

    def _told(self, verdicts: Sequence[Verdict]) -> None:
        self.told.append(verdicts)
        self.dialogues.append([step["said"] for step in self.peer.session.details["dialogue"]])  # type: ignore[attr-defined]

    @property
    def replies(self) -> list[tuple[str, bool, bool]]:
        return [each for verdicts in self.told for each in shown([verdicts])]


def stream(ehlo: str, count: int, **changes: object) -> Stream:
    return Stream(Peer(**changes).greet(ehlo), count).go()


def test_the_next_envelope_goes_out_with_the_content() -> None:
    two = stream(PIPELINED, 3)
    peer = two.peer
    assert peer.wire.take() == ENVELOPE
    assert peer.says(ACCEPTED + "354 go on\r\n") == CONTENT + ENVELOPE
    assert two.told == []
    assert peer.says("250 one\r\n" + ACCEPTED + "354 go on\r\n") == CONTENT + ENVELOPE
    assert two.replies == [("250 one", True, True)]
    assert peer.says("250 two\r\n" + ACCEPTED + "354 go on\r\n") == CONTENT
    assert peer.says("250 three\r\n") == b""
    assert [reply for reply, _, _ in two.replies] == ["250 one", "250 two", "250 three"]


def test_no_more_than_one_goes_ahead() -> None:
    """What a crash may cost is bounded: of two messages the answer is not known, never of more."""
    many = stream(CHUNKED, 5)
    assert many.peer.wire.take() == CHUNK + b"RSET\r\n" + CHUNK
    assert many.rooms == 1
    assert many.peer.says(ACCEPTED + "250 one\r\n") == b"RSET\r\n" + CHUNK
    assert many.replies == [("250 one", True, True)]


def test_in_chunks_a_reset_goes_between_as_the_one_before_may_leave_something_behind() -> None:
    """RFC 3030 section 2: after a refused chunk nothing is known of the peer's state."""
    two = stream(CHUNKED, 2)
    two.peer.wire.take()
    two.peer.says("250 ok\r\n550 5.1.1 gone\r\n503 no recipients\r\n")
    assert two.replies == [("550 5.1.1 gone", True, False)]
    two.peer.says("250 reset\r\n" + ACCEPTED + "250 two\r\n")
    assert two.replies[1] == ("250 two", True, True)
    assert two.peer.session.usable


@pytest.mark.parametrize("reply", ["452 4.3.1 no room", "550 5.7.1 spam"])
def test_a_refusal_of_the_content_is_no_matter_of_the_next_one(reply: str) -> None:
    two = stream(PIPELINED, 2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    assert two.peer.says(f"{reply}\r\n" + ACCEPTED + "354 go on\r\n") == CONTENT
    two.peer.says("250 two\r\n")
    assert two.replies == [(reply, True, True), ("250 two", True, True)]


def test_without_pipelining_nothing_goes_ahead() -> None:
    """RFC 2920 section 3: only a server that says so can be trusted with it."""
    for ehlo in (PLAIN, "250-mx.test\r\n250 CHUNKING\r\n"):
        two = stream(ehlo, 2)
        for _ in range(2):
            two.peer.says("250 ok\r\n")
        two.peer.says("354 go on\r\n" if ehlo == PLAIN else "")
        assert two.rooms == 0
        assert not two.peer.session.usable


def test_421_to_the_one_before_leaves_the_next_one_untouched() -> None:
    two = stream(PIPELINED, 2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    two.peer.says("421 4.3.2 bye\r\n")
    assert two.replies == [
        ("421 4.3.2 bye", True, True),
        ("451 4.4.2 Before it was this message's turn: 421 4.3.2 bye", False, False),
    ]
    assert two.peer.session.ended


def test_a_connection_lost_hands_over_no_more_than_the_content_that_was_sent() -> None:
    two = stream(PIPELINED, 2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    two.peer.session.lost("")
    assert [(remote, handed_over) for _, remote, handed_over in two.replies] == [(False, True), (False, False)]


def test_421_behind_the_answer_is_for_the_next_one_and_gives_it_back_unsent() -> None:
    two = stream(PIPELINED, 2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    two.peer.says("250 one\r\n421 4.4.5 enough\r\n")
    assert two.replies[0] == ("250 one", True, True)
    assert two.replies[1] == ("421 4.4.5 enough", True, False)


def test_a_connection_carries_no_more_messages_than_it_may_however_they_go() -> None:
    two = stream(PIPELINED, 5, messages=2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    two.peer.says("250 one\r\n" + ACCEPTED + "354 go on\r\n")
    assert two.left == 3, "behind the last one there is no room"
    assert not two.peer.session.ended
    two.peer.says("250 two\r\n")
    assert two.peer.session.ended


def test_a_session_that_is_to_close_takes_nothing_more_and_finishes_both() -> None:
    two = stream(PIPELINED, 2)
    two.peer.says(ACCEPTED + "354 go on\r\n")
    two.peer.session.close()
    assert not two.peer.session.usable
    assert two.peer.says("250 one\r\n" + ACCEPTED + "354 go on\r\n") == CONTENT
    assert two.peer.says("250 two\r\n") == b"QUIT\r\n"
    assert len(two.told) == 2


def test_each_attempt_is_traced_by_its_own_words() -> None:
    three = stream(PIPELINED, 3)
    three.peer.says(ACCEPTED + "354 go on\r\n")
    three.peer.says("250 one\r\n" + ACCEPTED + "354 go on\r\n")
    three.peer.says("250 two\r\n" + ACCEPTED + "354 go on\r\n")
    three.peer.says("250 three\r\n")
    envelope = ["MAIL FROM:<a@out.test> SIZE=22", "RCPT TO:<b@in.test>", "DATA", "(content)"]
    assert three.dialogues == [[None, "EHLO out.test", *envelope], envelope, envelope]


def test_one_that_can_not_be_sent_does_not_hold_up_the_stream() -> None:
    peer = Peer().greet()
    told: list[Sequence[Verdict]] = []
    rooms: list[int] = []
    peer.session.send(entry(), Content(), lambda: rooms.append(1)).addCallback(told.append)
    peer.says(ACCEPTED + "354 go on\r\n")
    assert rooms == [1]
    peer.session.send(entry("b\r\n@in.test"), Content()).addCallback(told.append)
    assert shown(told[:1]) == [("553 5.1.3 The recipient's address can't be written in SMTP", False, False)]
    peer.session.send(entry(), Content()).addCallback(told.append)
    assert peer.says("250 one\r\n" + ACCEPTED + "354 go on\r\n").endswith(CONTENT)
    peer.says("250 two\r\n")
    assert len(told) == 3


@pytest.mark.parametrize("ehlo", [PIPELINED, CHUNKED])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_every_split_of_the_replies_gives_the_same_dialogue(ehlo: str, size: int) -> None:
    def run(step: int) -> tuple[bytes, list[tuple[str, bool, bool]]]:
        many = stream(ehlo, 4)
        written = many.peer.wire.take()
        begun = ACCEPTED + ("354 go on\r\n" if ehlo is PIPELINED else "")
        reset = "250 reset\r\n" if ehlo is CHUNKED else ""
        for said in (begun, *(f"250 {number}\r\n{reset}{begun}" for number in range(3)), "250 3\r\n"):
            for start in range(0, len(said), step):
                written += many.peer.says(said[start : start + step])
        return written, many.replies

    assert run(size) == run(1000)
    assert [reply for reply, _, _ in run(size)[1]] == ["250 0", "250 1", "250 2", "250 3"]


def test_content_in_pieces_makes_room_once_all_of_it_is_written() -> None:
    for ehlo, ready in ((PIPELINED, "354 go on\r\n"), (CHUNKED, "")):
        peer = Peer().greet(ehlo)
        peer.wire.full = True
        rooms: list[bytes] = []
        peer.session.send(entry(), Content(pieces=[b"a\r\n", b"b\r\n"]), partial(rooms.append, b""))
        peer.says(ACCEPTED + ready)
        while peer.wire._drained is not None:
            assert rooms == []
            peer.wire.drain()
        assert len(rooms) == 1
