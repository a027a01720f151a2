"""BDAT in all its ways (RFC 3030): never out of step, bounded memory, and the same answers however the octets come (HARD-CASES row 7)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from lettermta.message import BodyType, Refused, Reply
from lettermta.smtp.chunks import GATHER, ChunkReader
from lettermta.smtp.content import BARE_LINE_END, TOO_LARGE
from lettermta.smtp.session import SessionRules
from lettermta.smtp.transaction import ContentRules
from lettermta.testing.spool import MemoryContent
from tests.smtp.server_peer import ACCEPTED, Client, Office, codes

HEAD = b"Subject: x\r\n\r\n"
REPAIRING = SessionRules(content=ContentRules(repair=True))
FULL = Reply(452, "4.3.1", "Full")


@pytest.fixture
def client() -> Client:
    return Client().log_in()


def chunk(octets: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets), b" LAST" if last else b"") + octets


def content(client: Client) -> bytes:
    return client.office.submitted[-1][2].replace(b"|", b"\r\n", 1)


# -- a message in chunks


def test_a_message_in_one_chunk(client: Client) -> None:
    client.mail()
    assert client.sends(chunk(HEAD + b"hello\r\n", last=True)) == [ACCEPTED]
    assert content(client) == HEAD + b"hello\r\n"
    assert codes(client.says("RCPT TO:<c@in.test>")) == ["503 5.5.1"]


def test_each_chunk_is_answered_with_its_octets(client: Client) -> None:
    client.mail()
    assert client.sends(chunk(HEAD)) == ["250 2.0.0 14 octets received"]
    assert client.sends(chunk(b"")) == ["250 2.0.0 0 octets received"]
    assert client.sends(chunk(b"hel")) == ["250 2.0.0 3 octets received"]
    assert client.sends(chunk(b"lo\r\n")) == ["250 2.0.0 4 octets received"]
    assert client.sends(b"bdat 0 last\r\n") == [ACCEPTED]
    assert content(client) == HEAD + b"hello\r\n"


def test_chunks_are_pipelined_with_all_the_rest(client: Client) -> None:
    """RFC 3030 section 2: the whole message in one round trip, and the next one behind it."""
    one = b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\n" + chunk(HEAD) + chunk(b"hello\r\n", last=True)
    replies = client.sends(one * 2 + b"QUIT\r\n")
    assert codes(replies) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"] * 2 + ["221 2.0.0"]
    assert [message[2] for message in client.office.submitted] == [b"Subject: x\r\n|hello\r\n"] * 2


def test_dots_and_commands_in_a_chunk_are_content(client: Client) -> None:
    """There is no stuffing, and no end but the count: nothing in a chunk is ever executed."""
    client.mail()
    text = HEAD + b"..\r\n.\r\nQUIT\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<victim@y>\r\nBDAT 0 LAST\r\n"
    assert client.sends(chunk(text, last=True)) == [ACCEPTED]
    assert content(client) == text
    assert not client.wire.closed


def test_a_chunk_need_not_end_where_a_line_ends(client: Client) -> None:
    """Also not between CR and LF."""
    client.mail()
    text = HEAD + b"one\r\ntwo\r\n\r\n"
    assert codes(client.sends(b"".join(chunk(text[i : i + 1]) for i in range(len(text))))) == ["250 2.0.0"] * len(text)
    assert client.sends(b"BDAT 0 LAST\r\n") == [ACCEPTED]
    assert content(client) == text


def test_an_empty_message_is_a_message(client: Client) -> None:
    client.mail()
    assert client.sends(b"BDAT 0 LAST\r\n") == [ACCEPTED]


def test_rset_forgets_the_chunks(client: Client) -> None:
    client.mail()
    client.sends(chunk(HEAD))
    assert codes(client.says("RSET", "BDAT 0 LAST")) == ["250 2.0.0", "503 5.5.1"]
    assert client.office.contents[0].discarded
    client.mail()
    assert client.sends(chunk(b"Subject: y\r\n\r\n", last=True)) == [ACCEPTED]
    assert content(client) == b"Subject: y\r\n\r\n"


def test_a_connection_lost_between_chunks_leaves_nothing(client: Client) -> None:
    client.mail()
    client.sends(chunk(HEAD))
    client.session.lost()
    assert client.office.contents[0].discarded
    assert client.office.submitted == []


# -- out of order: exactly the octets are swallowed, and the transaction is over


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        ([], "503 5.5.1"),
        (["MAIL FROM:<a@out.test>"], "554 5.5.1"),
        (["MAIL FROM:<a@out.test>", "RCPT TO:<refused"], "554 5.5.1"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 5, 70_000])
def test_a_chunk_without_mail_or_rcpt_is_swallowed_whole(client: Client, before: list[str], answer: str, size: int) -> None:
    client.says(*before)
    octets = (b"NOOP\r\n" * 12_000)[:size]
    replies = client.sends(chunk(octets) + chunk(octets, last=True) + b"NOOP\r\n")
    assert codes(replies) == [answer, "503 5.5.1", "250 2.0.0"]
    assert client.office.submitted == []


def test_a_chunk_before_its_recipients_never_loses_a_message_its_beginning(client: Client) -> None:
    """What comes behind a refused chunk must not become a message by itself."""
    client.says("MAIL FROM:<a@out.test>")
    replies = client.sends(chunk(HEAD) + b"RCPT TO:<b@in.test>\r\n" + chunk(b"rest\r\n", last=True))
    assert codes(replies) == ["554 5.5.1", "503 5.5.1", "503 5.5.1"]
    assert client.office.submitted == []


def test_nobody_who_has_not_logged_in_gets_a_chunk_in() -> None:
    client = Client().ehlo()
    replies = client.sends(b"MAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n" + chunk(b"MAIL FROM:<a@b>\r\n", last=True) + b"NOOP\r\n")
    assert codes(replies) == ["530 5.7.0", "503 5.5.1", "503 5.5.1", "250 2.0.0"]
    assert client.office.contents == []


def test_data_behind_bdat_and_rcpt_behind_bdat_are_refused(client: Client) -> None:
    """RFC 3030 section 2: the two ways are not to be mixed; the message may still be ended in its own."""
    client.mail()
    client.sends(chunk(HEAD))
    assert codes(client.says("DATA", "RCPT TO:<c@in.test>", "MAIL FROM:<a@b>", "STARTTLS", "AUTH PLAIN x")) == ["503 5.5.1"] * 5
    assert client.sends(chunk(b"hello\r\n", last=True)) == [ACCEPTED]
    assert content(client) == HEAD + b"hello\r\n"


def test_content_that_submission_does_not_take_is_swallowed(client: Client) -> None:
    """A full spool says so before the first octet; those octets are content all the same."""
    client.office.refusals = {"DATA": FULL}
    client.mail()
    replies = client.sends(chunk(b"QUIT\r\nNOOP\r\n") + chunk(b"NOOP\r\n", last=True) + b"NOOP\r\n")
    assert replies == ["452 4.3.1 Full", "503 5.5.1 MAIL first", "250 2.0.0 Ok"]
    assert not client.wire.closed
    client.office.refusals = {}
    client.mail()
    assert client.sends(chunk(HEAD, last=True)) == [ACCEPTED]


@pytest.mark.parametrize(
    "argument",
    [b"", b" ", b" -1", b" +1", b" x", b" 1x", b" 0x10", b" 1 FIRST", b" LAST", b" 1 LAST LAST", b" 1,000", b" " + b"9" * 19, b"\xd9\xa1"],
)
def test_a_chunk_of_no_known_length_ends_the_session(client: Client, argument: bytes) -> None:
    """What follows can't be told from commands."""
    client.mail()
    replies = client.sends(b"BDAT" + argument + b"\r\nRSET\r\nMAIL FROM:<evil@x>\r\n")
    if argument == b"\xd9\xa1":
        assert codes(replies)[0] == "500 5.5.1"  # another verb
        return
    assert codes(replies) == ["501 5.5.4", "421 4.7.0"]
    assert client.wire.closed


# -- sizes


def test_the_size_is_checked_before_anything_is_read(client: Client) -> None:
    """HARD-CASES row 7: a huge chunk is refused by its number; its octets are passed over without being kept."""
    client.mail()
    assert client.sends(b"BDAT 100001 LAST\r\n") == []
    assert client.office.contents[0].discarded
    for _ in range(10):
        assert client.sends(b"x" * 10_000) == []
        assert client.office.contents[0].size == 0
    assert codes(client.sends(b"yNOOP\r\n")) == ["552 5.3.4", "250 2.0.0"]
    assert codes(client.says("RCPT TO:<b@in.test>", "DATA", "BDAT 0 LAST")) == ["503 5.5.1"] * 3


def test_the_limit_is_that_of_all_chunks_together(client: Client) -> None:
    client.mail()
    lines = (b"x" * 98 + b"\r\n") * 500
    assert codes(client.sends(chunk(lines) + chunk(lines))) == ["250 2.0.0"] * 2
    assert codes(client.sends(chunk(b"x") + chunk(b"y", last=True))) == ["552 5.3.4", "503 5.5.1"]
    client.mail()
    assert codes(client.sends(chunk(lines) + chunk(lines, last=True))) == ["250 2.0.0"] * 2
    assert client.office.contents[-1].size == 100_000


def test_the_largest_chunk_that_can_be_said_is_swallowed_for_ever(client: Client) -> None:
    assert client.sends(b"BDAT " + b"9" * 18 + b" LAST\r\n") == []
    assert client.sends(b"NOOP\r\n" * 10_000) == []
    assert client.session._buffer == b""


def test_tiny_chunks_are_gathered(client: Client) -> None:
    """HARD-CASES row 7: thousands of them take no more memory, and no more writes, than a few large ones."""
    client.mail()
    writes: list[int] = []
    client.sends(chunk(HEAD))
    body = client.office.contents[0]
    write = body.write
    body.write = lambda data: [writes.append(len(data)), write(data)][1]  # type: ignore[method-assign,assignment]
    for _ in range(100):
        assert codes(client.sends(chunk(b"x") * 500)) == ["250 2.0.0"] * 500
    assert client.sends(chunk(b"\r\n", last=True)) == [ACCEPTED]
    assert len(writes) == 50_002 // GATHER + 1
    assert content(client) == HEAD + b"x" * 50_000 + b"\r\n"


# -- lines


@pytest.mark.parametrize("bare", [b"a\nb\r\n", b"a\rb\r\n", b"\n.\n", b"a\r\r\n", b"\n", b"a\r"])
def test_bare_line_ends_are_refused_in_chunks_too(client: Client, bare: bytes) -> None:
    """HARD-CASES row 1: the next server may take them for an end of data, when the message leaves by DATA."""
    client.mail()
    replies = client.sends(chunk(HEAD + bare, last=True) + b"NOOP\r\n")
    assert codes(replies) == ["550 5.6.0", "250 2.0.0"]
    assert client.office.submitted == []
    assert client.office.contents[0].discarded
    assert codes(client.says("RCPT TO:<b@in.test>", "BDAT 0 LAST")) == ["503 5.5.1"] * 2


def test_a_cr_at_a_border_waits_for_its_lf(client: Client) -> None:
    client.mail()
    assert codes(client.sends(chunk(HEAD + b"a\r") + chunk(b"") + chunk(b"\nb\r\n", last=True))) == ["250 2.0.0"] * 3
    assert content(client) == HEAD + b"a\r\nb\r\n"
    client.mail()
    assert codes(client.sends(chunk(HEAD + b"a\r") + chunk(b"b\r\n", last=True))) == ["250 2.0.0", "550 5.6.0"]
    client.mail()
    assert codes(client.sends(chunk(HEAD + b"a\r") + b"BDAT 0 LAST\r\n")) == ["250 2.0.0", "550 5.6.0"]
    assert len(client.office.submitted) == 1


def test_binary_content_may_hold_anything() -> None:
    """RFC 3030 section 3: with BODY=BINARYMIME a bare LF is an octet like any other; only chunks can carry it."""
    client = Client().log_in()
    text = HEAD + bytes(range(256)) + b"\n.\n\r.\r\r\n.\r\nQUIT\r"
    assert codes(client.says("MAIL FROM:<a@out.test> BODY=BINARYMIME", "RCPT TO:<b@in.test>", "DATA")) == [
        "250 2.1.0",
        "250 2.1.5",
        "503 5.6.1",
    ]
    assert codes(client.sends(chunk(text[:100]) + chunk(text[100:], last=True))) == ["250 2.0.0"] * 2
    assert content(client) == text
    assert client.office.envelopes[0].options.body is BodyType.BINARY
    assert codes(client.says("MAIL FROM:<a@out.test> BODY=8BITMIME", "RCPT TO:<b@in.test>")) == ["250 2.1.0", "250 2.1.5"]
    assert codes(client.sends(chunk(text, last=True))) == ["550 5.6.0"]


@pytest.mark.parametrize(
    ("chunks", "repaired"),
    [
        ([b"a\nb\rc\r\n"], b"a\r\nb\r\nc\r\n"),
        ([b"a\n.\n"], b"a\r\n.\r\n"),
        ([b"a\r", b"\n.", b"\r", b"\r"], b"a\r\n.\r\n\r\n"),
        ([b"a\r", b"", b"\n"], b"a\r\n"),
        ([b"a\r", b"b"], b"a\r\nb"),
        ([b"\n\r", b"\n\r"], b"\r\n\r\n\r\n"),
    ],
)
def test_chunks_can_be_repaired(chunks: list[bytes], repaired: bytes) -> None:
    client = Client(rules=REPAIRING).log_in().mail()
    client.sends(chunk(HEAD))
    for one in chunks:
        assert codes(client.sends(chunk(one))) == ["250 2.0.0"]
    assert client.sends(b"BDAT 0 LAST\r\n") == [ACCEPTED]
    assert content(client) == HEAD + repaired


def test_what_grows_by_repair_is_bounded_too() -> None:
    client = Client(rules=REPAIRING).log_in().mail()
    assert codes(client.sends(chunk(HEAD + b"\n" * 60_000, last=True) + b"NOOP\r\n")) == ["552 5.3.4", "250 2.0.0"]


# -- writing


class Pending(Office):
    """Takes writes late."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = True


@pytest.mark.parametrize("size", [10, GATHER, 60_000])
def test_a_chunk_is_answered_when_it_is_written(size: int) -> None:
    client = Client(Pending()).log_in().mail()
    text = HEAD + (b"x" * 98 + b"\r\n") * (size // 100 + 1)
    assert client.sends(chunk(text, last=True) + b"NOOP\r\n") == []
    assert client.office.submitted == []
    assert client.wire.paused
    client.office.answer()
    assert client.take() == [ACCEPTED, "250 2.0.0 Ok"]
    assert not client.wire.paused
    assert content(client) == text


@pytest.mark.parametrize(
    ("error", "answer"), [(OSError(28, "No space left on device"), "452 4.3.1"), (Refused(Reply(552, "5.3.4", "x")), "552 5.3.4")]
)
@pytest.mark.parametrize("last", [True, False])
def test_a_chunk_that_can_not_be_written_is_refused(error: Exception, answer: str, last: bool) -> None:
    """HARD-CASES rows 6 and 26."""
    client = Client(Pending()).log_in().mail()
    text = HEAD + b"x" * 20_000 + b"\r\n"
    assert client.sends(chunk(text, last) + chunk(b"NOOP\r\n", last=True) + b"NOOP\r\n") == []
    client.office.answer(error)
    assert codes(client.take()) == [answer, "503 5.5.1", "250 2.0.0"]
    assert client.office.submitted == []
    assert client.office.contents[0].discarded


# -- however it is split


class Sink(MemoryContent):
    """Refuses what is above ``most``, as a spool does with a header block."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.gone = False

    def write(self, data: bytes) -> Deferred[None] | None:  # type: ignore[override]
        assert data, "written for nothing"
        assert not self.gone
        super().write(data)
        if self.size > self.most:
            raise Refused(FULL)
        return None

    def discard(self) -> None:
        super().discard()
        self.gone = True


def replies(chunks: list[bytes], cuts: list[int], *, binary: bool, repair: bool, most: int, limit: int) -> list[object]:
    """The fault behind each chunk, up to the first, and the content where there is none."""
    sink = Sink(most)
    reader = ChunkReader(sink, limit, binary=binary, repair=repair)
    found: list[object] = []
    for number, one in enumerate(chunks):
        reader.begin(len(one), number == len(chunks) - 1)
        rest = reader.feed(b"")
        places = sorted({0, *(cut for cut in cuts if cut < len(one)), len(one)})
        for start, end in pairwise(places):
            assert rest is None
            rest = reader.feed(one[start:end] + (b"behind" if end == len(one) else b""))
        assert rest == (b"behind" if one else b"")
        found.append(reader.fault)
        if reader.fault is not None:
            return found
    return [*found, bytes(sink._data)]


PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"abc", b"x" * 5000, b"x" * GATHER])


@given(
    chunks=st.lists(st.lists(PIECES, max_size=6).map(b"".join), min_size=1, max_size=5),
    cuts=st.lists(st.integers(0, 60_000), max_size=6),
    binary=st.booleans(),
    repair=st.booleans(),
    most=st.sampled_from([10, 20_000, 10**9]),
    limit=st.sampled_from([15, 30_000, 10**9]),
)
def test_every_way_of_splitting_comes_to_the_same(
    chunks: list[bytes], cuts: list[int], binary: bool, repair: bool, most: int, limit: int
) -> None:
    whole = replies(chunks, [], binary=binary, repair=repair, most=most, limit=limit)
    assert replies(chunks, cuts, binary=binary, repair=repair, most=most, limit=limit) == whole
    everything = b"".join(chunks)
    if whole[-1] is None or isinstance(whole[-1], bytes):
        kept = whole[-1]
        assert isinstance(kept, bytes)
        assert len(kept) <= limit
        if binary:
            assert kept == everything
        else:
            assert kept.count(b"\r") == kept.count(b"\n") == kept.count(b"\r\n")
            assert repair or kept == everything
    else:
        assert whole[-1] in (TOO_LARGE, BARE_LINE_END, FULL)
        assert (whole[-1] is BARE_LINE_END) <= (not repair and not binary)
