"""Header blocks and the texts in them."""

from __future__ import annotations

import time
from base64 import b64encode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.header import Field, decode_words, mailboxes, split_fields
from lettermta.message import Refused


def field(raw: bytes) -> Field:
    [one] = split_fields(raw)
    return one


def test_fields_keep_their_octets() -> None:
    head = b"A: 1\r\nb:2\r\n\t folded\r\nC :  3 \r\nD:\r\n \r\nX-\xff: \xfe\r\n"
    fields = split_fields(head)
    assert b"".join(one.raw for one in fields) == head
    assert [one.key for one in fields] == ["a", "b", "c", "d", "x-\ufffd"]
    assert [one.text for one in fields] == ["1", "2\t folded", "3", "", "\ufffd"]
    assert split_fields(b"") == []


@pytest.mark.parametrize(
    "head",
    [b"no colon\r\n", b": no name\r\n", b" begins with a fold: x\r\n", b"\tX: y\r\n", b"A: 1\r\nhello\r\n b: c\r\n", b"\r\nA: 1\r\n"],
)
def test_a_line_that_is_no_field_refuses_the_message(head: bytes) -> None:
    with pytest.raises(Refused, match=r"550 5\.6\.0 Header line . is not of the form Name: value"):
        split_fields(head)


def test_a_nul_refuses_the_message() -> None:
    """HARD-CASES row 13."""
    with pytest.raises(Refused, match=r"550 5\.6\.0"):
        split_fields(b"X-Tag: a\0b\r\n")


@pytest.mark.parametrize(
    "head", [b"X: a\nBcc: b\r\n", b"X: a\rY: b\r\n", b"X: a\n\nbody\r\n", b"X: a\r\r\n", b"\nX: a\r\n", b"X: a\n b\r\n"]
)
def test_a_bare_line_end_in_a_header_refuses_the_message(head: bytes) -> None:
    """HARD-CASES rows 1 and 32: with BODY=BINARYMIME content may hold any octets, and a field behind a bare LF would escape our rules."""
    with pytest.raises(Refused, match=r"550 5\.6\.0 A bare CR or LF in the header block"):
        split_fields(head)


@pytest.mark.parametrize("head", [b"X", b"X: a", b"X: a\r\nY: b", b"X: a\r\n folded", b"X: a\r\n "])
def test_a_line_without_an_end_refuses_the_message_for_good(head: bytes) -> None:
    """BDAT can bring one; a reply of 4xx would have it sent again and again."""
    with pytest.raises(Refused, match=r"550 5\.6\.0 The last header line does not end in CRLF"):
        split_fields(head)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"X: a\r\n", "a"),
        (b"X:a\r\n", "a"),
        (b"X: \t a \t \r\n", "a"),
        (b"X:\r\n a\r\n", "a"),
        (b"X: a\r\n b\r\n\tc\r\n", "a b\tc"),
        (b"X: a: b\r\n", "a: b"),
        ("X: jürgen\r\n".encode(), "jürgen"),
        ("X-mü: wert\r\n".encode(), "wert"),
        (b"X: \xfc\r\n", "\ufffd"),
        (b"X: =?utf-8?Q?a?=\r\n =?utf-8?Q?b?=\r\n", "ab"),
        (b"X:\r\n\t=?utf-8?Q?_a_?=\r\n", "a"),
    ],
)
def test_values_are_unfolded_and_stripped(raw: bytes, text: str) -> None:
    assert field(raw).text == text


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("plain =?utf-8?Q?m=C3=BCsli?= and plain", "plain müsli and plain"),
        ("=?UTF-8?q?a_b=20c=5F?=", "a b c_"),
        ("=?utf-8?B?bcO8c2xp?=", "müsli"),
        ("=?utf-8?b?bcO8c2xp?=", "müsli"),
        ("=?utf-8?B?bcO8c2w?=", "müsl"),
        ("=?iso-8859-1?Q?m=FCsli?=", "müsli"),
        ("=?windows-1252?Q?=80?=", "€"),
        ("=?utf-8*de?Q?m=C3=BCsli?=", "müsli"),
        ("=?utf-8?Q??=", ""),
        ("=?utf-8?Q?line=0Abreak?=", "line\nbreak"),
        ("=?utf-8?Q?blanks in it?=", "blanks in it"),
        ("=?utf-8?Q?a?= =?utf-8?Q?b?=", "ab"),
        ("=?utf-8?Q?a?= \t =?iso-8859-1?Q?=FC?=", "aü"),
        ("=?utf-8?Q?a?= b =?utf-8?Q?c?=", "a b c"),
        ("=?utf-8?Q?a?=b", "ab"),
        ("(=?utf-8?Q?a?=)", "(a)"),
        (" =?utf-8?Q?a?= ", " a "),
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "ü"),
        ("=?utf-8?B?w7w?==?utf-8?Q?=C3=BC?=", "üü"),
        ("=?utf-8?Q?=C3?= x", "\ufffd x"),
        ("ü =?utf-8?Q?=C3=BC?= \\u0041", "ü ü \\u0041"),
        ("=?utf-7?Q?+2AA-?=", "?"),
    ],
)
def test_encoded_words_are_decoded(written: str, said: str) -> None:
    """RFC 2047."""
    assert decode_words(written) == said


@pytest.mark.parametrize(
    "written",
    [
        "=?unknown-charset?Q?abc?=",
        "=?hex?Q?6162?=",
        "=?idna?Q?xn--a?=",
        "=?punycode?Q?a-b?=",
        "=?cp9999?Q?a?=",
        "=?utf-8?B?a?=",
        "=?utf-8?B?****?=",
        "=?utf-8?X?a?=",
        "=?utf-8?Q?no end",
        "=?",
        "=?=?=?=",
        "=?\udcff?Q?a?=",
    ],
)
def test_what_can_not_be_decoded_stays_as_it_is_written(written: str) -> None:
    assert decode_words(written) == written
    assert decode_words(f"{written} =?utf-8?Q?x?=") == f"{written} x"


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["utf-8", "utf-16", "iso-8859-1", "shift_jis"]))
def test_what_was_encoded_is_decoded(text: str, charset: str) -> None:
    octets = text.encode(charset, "replace")
    assert decode_words(f"=?{charset}?B?{b64encode(octets).decode()}?=") == octets.decode(charset)


@given(
    st.text(alphabet="=?utf-8QqBb_ \tCä*(", max_size=60)
    | st.binary(max_size=60).map(lambda octets: f"=?utf-16?B?{b64encode(octets).decode()}?=")
)
def test_every_text_can_be_told_in_json(text: str) -> None:
    assert orjson.loads(orjson.dumps(decode_words(text))) == decode_words(text)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@b", [("", "a@b")]),
        ("<a@b>", [("", "a@b")]),
        ("Ann <a@b>", [("Ann", "a@b")]),
        ('"Doe, Ann" <a@b>, c@d', [("Doe, Ann", "a@b"), ("", "c@d")]),
        ('"Ann \\"X\\" Doe" <a@b>', [('Ann "X" Doe', "a@b")]),
        ("=?utf-8?Q?J=C3=BCrgen?= <a@b>", [("Jürgen", "a@b")]),
        ("=?utf-8?Q?Doe=2C_x=40y=2C?= <a@b>", [("Doe, x@y,", "a@b")]),
        ("=?utf-8?Q?=3Cevil=40x=3E?= <a@b>", [("<evil@x>", "a@b")]),
        ("Team: a@b, Ann <c@d>;, e@f", [("", "a@b"), ("Ann", "c@d"), ("", "e@f")]),
        ("undisclosed-recipients:;", []),
        ("a@b (a comment, with x@y), c@d", [("", "a@b"), ("", "c@d")]),
        ('"a b"@c', [("", '"a b"@c')]),
        ("jürgen@example.com", [("", "jürgen@example.com")]),
        ("nobody", []),
        ("words with a@b in them", []),
        ("Ann <nobody>", []),
        ("", []),
        (",,;", []),
        ('"open quote <a@b>', []),
        ("Ann <a@b", [("Ann", "a@b")]),
    ],
)
def test_mailboxes_of_address_fields(value: str, found: list[tuple[str, str]]) -> None:
    """RFC 5322 section 3.4."""
    assert mailboxes([value]) == found


N = 120_000


@pytest.mark.parametrize(
    "value",
    [
        "a" + " " * N + "b",
        "=?a?q?" * (N // 6),
        "=?" * (N // 2),
        "=?utf-8?Q?x?= " * (N // 14),
        "=?utf-8?Q?x?= =?utf-16?Q?x?= " * (N // 30),
        "=?punycode?q?a-" + "9" * N + "?=",
        "(" * N,
        '"' * N,
        '"\\' * (N // 2),
        "<" * N,
        "a@b," * (N // 4),
    ],
)
def test_a_large_field_made_to_be_slow_is_not(value: str) -> None:
    """A field as large as a header block may be: a quadratic look at it would hold up everyone for minutes."""
    start = time.process_time()
    decode_words(value)
    mailboxes([value])
    split_fields(b"X: " + value.encode() + b"\r\n")
    assert time.process_time() - start < 1.0
