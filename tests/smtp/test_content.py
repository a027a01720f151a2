"""The content behind DATA, however its octets are split over reads."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lettermta.message import Refused, Reply
from lettermta.smtp.client_content import stuffed
from lettermta.smtp.content import BARE_LINE_END, TOO_LARGE, ContentReader
from lettermta.testing.spool import MemoryContent


class Sink(MemoryContent):
    discarded = False
    full: Reply | None = None

    def write(self, data: bytes) -> None:
        if self.full is not None:
            raise Refused(self.full)
        super().write(data)

    def discard(self) -> None:
        super().discard()
        self.discarded = True

    @property
    def octets(self) -> bytes:
        return bytes(self._data)


def read(*reads: bytes, limit: int = 1000, repair: bool = False) -> tuple[bytes | None, bytes, Reply | None]:
    """What comes behind the end (None: there was no end), the content, and its fault."""
    sink = Sink()
    reader = ContentReader(sink, limit, repair=repair)
    for number, piece in enumerate(reads):
        rest = reader.feed(piece)
        if rest is not None:
            return rest + b"".join(reads[number + 1 :]), sink.octets, reader.fault
    return None, sink.octets, reader.fault


def expected(octets: bytes, limit: int = 1000, repair: bool = False) -> tuple[bytes | None, bytes, Reply | None]:
    """The same by the words of RFC 5321, for content that ends, without any regard to speed."""
    content, end, rest = (b"\r\n" + octets).partition(b"\r\n.\r\n")
    assert end
    lines = (content + b"\r\n").split(b"\r\n")[1:-1]
    if any(b"\r" in line or b"\n" in line for line in lines) and not repair:
        return rest, b"", BARE_LINE_END
    lines = [line.removeprefix(b".").replace(b"\r", b"\n") for line in lines]
    unstuffed = b"".join([line + b"\r\n" for text in lines for line in text.split(b"\n")])
    return (rest, b"", TOO_LARGE) if len(unstuffed) > limit else (rest, unstuffed, None)


def splits(octets: bytes) -> list[list[bytes]]:
    """Whole, octet by octet, and in two at each place."""
    return [[octets], [octets[i : i + 1] for i in range(len(octets))], *([octets[:i], octets[i:]] for i in range(1, len(octets)))]


@pytest.mark.parametrize(
    ("octets", "content"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n...\r\n.b\r\n.\r\n", b"a\r\n.\r\n..\r\nb\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"a\r\n\r\n\r\n.\r\n", b"a\r\n\r\n\r\n"),
    ],
)
def test_dots_are_unstuffed_and_only_a_lone_one_ends_the_content(octets: bytes, content: bytes) -> None:
    for reads in splits(octets + b"QUIT\r\n"):
        assert read(*reads) == (b"QUIT\r\n", content, None)


SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n.\r\r\n",
    b"\n\n.\r\n",
    b"\r\n\0.\r\n",
    b"\r\n. \r\n",
]


@pytest.mark.parametrize("sequence", SMUGGLING)
def test_nothing_but_crlf_dot_crlf_ends_the_content(sequence: bytes) -> None:
    """HARD-CASES row 1 (CVE-2023-51764, -51765, -51766, CVE-2024-27305)."""
    octets = b"Subject: x\r\n\r\na" + sequence + b"MAIL FROM:<evil@x>\r\n.\r\nNOOP\r\n"
    bare = b"\r" in octets.replace(b"\r\n", b"") or b"\n" in octets.replace(b"\r\n", b"")
    for reads in splits(octets):
        rest, content, fault = read(*reads)
        assert rest == b"NOOP\r\n"
        assert fault == (BARE_LINE_END if bare else None)
        assert bare == (content == b"")


@pytest.mark.parametrize("sequence", SMUGGLING)
def test_repairing_never_makes_an_end_and_what_leaves_is_stuffed(sequence: bytes) -> None:
    """HARD-CASES row 1 with bare_line_ends = repair: the end was looked for before, and a dot that has come to stand alone is stuffed."""
    octets = b"Subject: x\r\n\r\na" + sequence + b"MAIL FROM:<evil@x>\r\n.\r\nNOOP\r\n"
    for reads in splits(octets):
        rest, content, fault = read(*reads, repair=True)
        assert (rest, fault) == (b"NOOP\r\n", None)
        assert content == re.sub(
            rb"\r\n|\r|\n", b"\r\n", b"Subject: x\r\n\r\na" + sequence.replace(b"\r\n.", b"\r\n") + b"MAIL FROM:<evil@x>\r\n"
        )
        wire = stuffed(content)
        assert wire.index(b"\r\n.\r\n") == len(wire) - 5
        assert wire.endswith(b"MAIL FROM:<evil@x>\r\n.\r\n")


def test_repair_counts_what_it_adds() -> None:
    assert read(b"\n" * 10 + b"\r\n.\r\n", limit=22, repair=True) == (b"", b"\r\n" * 11, None)
    assert read(b"\n" * 10 + b"\r\n.\r\n", limit=21, repair=True) == (b"", b"", TOO_LARGE)


def test_a_fault_is_kept_to_the_end_and_what_was_written_is_given_up() -> None:
    sink = Sink()
    reader = ContentReader(sink, 1000)
    assert reader.feed(b"good\r\nbad\nline\r\n") is None
    assert sink.discarded
    assert reader.feed(b"good again\r\n" * 1000) is None
    assert sink.octets == b""
    assert reader.feed(b".\r\n") == b""
    assert reader.fault == BARE_LINE_END


def test_the_size_counts_content_not_stuffing() -> None:
    octets = b"..\r\n" * 10 + b".\r\n"
    assert read(octets, limit=30) == (b"", b".\r\n" * 10, None)
    assert read(octets, limit=29) == (b"", b"", TOO_LARGE)


def test_too_large_content_is_swallowed_to_its_end() -> None:
    piece = b"x" * 998 + b"\r\n"
    sink = Sink()
    reader = ContentReader(sink, 5000)
    most = 0
    for _ in range(100):
        assert reader.feed(piece) is None
        most = max(most, sink.size)
    assert most <= 5000
    assert reader.feed(b"\r\n.\r\nRSET\r\n") == b"RSET\r\n"
    assert reader.fault == TOO_LARGE


def test_a_sink_that_refuses_decides_the_reply() -> None:
    sink = Sink()
    sink.full = Reply(552, "5.3.4", "header block too large")
    reader = ContentReader(sink, 1000)
    assert reader.feed(b"a\r\n.\r\n") == b""
    assert reader.fault == sink.full
    assert sink.discarded


PIECES = st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"\r\n.", b"\r\n..", b"\r\n.\r", b"bc"])


@given(st.lists(PIECES, max_size=12).map(b"".join), st.lists(st.integers(0, 40), max_size=8), st.sampled_from([1000, 6]), st.booleans())
@example(b"a\r\n.\r", [4], 1000, False)
@example(b"a\r\n.\r", [4], 1000, True)
def test_every_way_of_splitting_comes_to_the_same(body: bytes, cuts: list[int], limit: int, repair: bool) -> None:
    octets = body + b"\r\n.\r\nNOOP\r\n"
    places = sorted({0, *(cut for cut in cuts if cut < len(octets)), len(octets)})
    reads = [octets[start:end] for start, end in pairwise(places)]
    assert read(*reads, limit=limit, repair=repair) == expected(octets, limit, repair)
    assert read(*[octets[i : i + 1] for i in range(len(octets))], limit=limit, repair=repair) == expected(octets, limit, repair)
