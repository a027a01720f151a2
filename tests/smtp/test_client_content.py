"""What content becomes on its way out."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.smtp.client_content import DotStuffer, stuffed


def unstuffed(wire: bytes) -> bytes:
    """As a strict receiver reads it: everything up to the first CRLF . CRLF, which must be the last thing there is."""
    wire = b"\r\n" + wire
    end = wire.index(b"\r\n.\r\n")
    assert end == len(wire) - 5
    return wire[: end + 2].replace(b"\r\n.", b"\r\n")[2:]


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n.\r\n", b"..\r\n..\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\n.\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\rb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\r\nRSET\r\n", b"a\r\n..\r\nRSET\r\n.\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
    ],
)
def test_bare_line_ends_are_normalised_before_dots_are_stuffed(content: bytes, wire: bytes) -> None:
    """HARD-CASES row 1 (CVE-2023-51764, -51765, -51766)."""
    assert stuffed(content) == wire


@given(st.lists(st.binary(max_size=6) | st.text("\r\n.a", max_size=6).map(str.encode), max_size=6))
def test_every_split_into_pieces_gives_the_same_octets_and_no_bare_line_end(pieces: list[bytes]) -> None:
    """HARD-CASES row 1; a client that stuffs chunk by chunk misses the dot at a border (TWISTED.md section 1)."""
    stuffer = DotStuffer()
    wire = b"".join(map(stuffer.feed, pieces)) + stuffer.finish()
    content = b"".join(pieces)
    assert wire == stuffed(content)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    expected = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    assert unstuffed(wire) == (expected if not expected or expected.endswith(b"\r\n") else expected + b"\r\n")
