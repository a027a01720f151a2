"""8-bit and binary content in 7-bit form: what a reader decodes from it is what was there before, and nothing else is touched."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage, Message

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lettermta.delivery.conversion import Inconvertible, to_seven_bit

HEAD = b"From: App <app@sender.test>\r\nSubject: hi\r\nMIME-Version: 1.0\r\n"


def converted(message: bytes, *, binary: bool = False) -> bytes:
    made = to_seven_bit(message, binary=binary)
    assert made.partition(b"\r\n\r\n")[2].isascii()
    assert max(map(len, made.split(b"\r\n"))) <= 998
    assert made.count(b"\r\n") == made.count(b"\r") == made.count(b"\n")
    return made


def parsed(message: bytes) -> Message:
    return email.message_from_bytes(message, policy=email.policy.compat32)


def leaves(message: bytes) -> list[tuple[str, bytes]]:
    """What there is to be read, part by part."""
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in parsed(message).walk() if not part.is_multipart()]


def test_text_becomes_quoted_printable_and_the_rest_of_the_header_stays() -> None:
    head = HEAD + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Last: folded\r\n here\r\n"
    made = converted(head + b"\r\n" + "Grüße, = und \tBlanks  \r\n.\r\n..\r\nFrom here\r\n".encode())
    assert made.startswith(head.replace(b"8bit", b"quoted-printable") + b"\r\n")
    assert leaves(made) == [("text/plain", "Grüße, = und \tBlanks  \r\n.\r\n..\r\nFrom here\r\n".encode())]


@pytest.mark.parametrize("body", ["ü", "ü\r\n", "ü" * 500, "\r\n\r\nü\r\n\r\n", "a" * 5000 + "ü", "ü \r\n \r\n"])
def test_every_body_of_text_comes_back(body: str) -> None:
    made = converted(HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + body.encode())
    assert leaves(made) == [("text/html", body.encode())]


def test_what_is_not_text_becomes_base64() -> None:
    body = bytes(range(128, 256)) * 20
    made = converted(HEAD + b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body)
    assert b"Content-Transfer-Encoding: base64\r\n" in made
    assert leaves(made) == [("application/octet-stream", body)]


def test_text_without_mime_becomes_mime() -> None:
    """RFC 1428 section 3: a charset that isn't known is called so."""
    plain = b"From: app@sender.test\r\n\r\n"
    made = converted(plain + "Grüße\r\n".encode())
    assert parsed(made)["MIME-Version"] == "1.0"
    assert parsed(made)["Content-Type"] == "text/plain; charset=utf-8"
    assert b"charset=unknown-8bit" in converted(plain + b"Gr\xfc\xdfe\r\n")


def test_an_encoding_with_a_comment_is_that_encoding() -> None:
    """RFC 2045 section 6.1 has a mechanism there, and RFC 5322 section 3.2.2 comments about everything."""
    head = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit (of course)\r\n\r\n"
    assert b"Content-Transfer-Encoding: quoted-printable\r\n" in converted(head + "hé\r\n".encode())


def test_seven_bit_content_is_not_touched() -> None:
    for message in (HEAD + b"\r\nplain\r\n", HEAD.replace(b"hi", "ü".encode()) + b"\r\nplain\r\n", b"", b"\r\nbody\r\n", HEAD):
        assert to_seven_bit(message, binary=False) is message


def test_only_the_parts_that_need_it_are_converted() -> None:
    """Preamble, clean parts, boundaries and their blanks stay octet by octet; parents are labelled right."""
    boundary = b"--=_the (boundary)?"
    untouched = b'--=_the (boundary)?\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\nclean = "text"  \r\n'
    message = (
        HEAD
        + b'Content-Type: multipart/mixed;\r\n boundary="=_the (boundary)?"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n'
        + b"A preamble.\r\n\r\n"
        + untouched
        + boundary
        + b"  \r\n\r\nno header, \xc3\xbc\r\n"
        + boundary
        + b"\r\n"
        + boundary
        + b'\r\nContent-Type: image/png; name="x"\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0K\r\n'
        + boundary
        + b"--\r\nAn epilogue.\r\n"
    )
    made = converted(message)
    assert b'boundary)?"\r\nContent-Transfer-Encoding: 7bit\r\n\r\nA preamble.\r\n\r\n' + untouched in made
    assert boundary + b"  \r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nno header, =C3=BC\r\n" + boundary in made
    assert made.endswith(b"\r\niVBORw0K\r\n" + boundary + b"--\r\nAn epilogue.\r\n")


def test_what_stands_around_the_parts_is_left_out_when_it_is_not_clean() -> None:
    head = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    part = b"--b\r\nContent-Type: text/plain\r\n\r\nclean\r\n--b--\r\n"
    assert to_seven_bit(head + b"\xfc\r\n" + part, binary=False) == head + b"\r\n" + part
    assert to_seven_bit(head + part + b"\xfc\r\n", binary=False) == head + part


def test_messages_in_messages_are_converted_inside() -> None:
    inner = b"From: x@example.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\ngr\xc3\xbcn\r\n"
    message = (
        HEAD
        + b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n"
        + inner
        + b"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + inner
        + b"--b--\r\n"
    )
    made = converted(message)
    assert made.count(b"Content-Transfer-Encoding: quoted-printable") == 2
    assert made.count(b"Content-Transfer-Encoding: 7bit") == 1
    assert [text for _, text in leaves(made)] == ["grün".encode()] * 2


@pytest.mark.parametrize(
    "octets",
    [
        b"Content-Type: multipart/signed; boundary=b; protocol=x\r\n\r\n--b\r\n\r\n\xfc\r\n--b\r\n\r\nsig\r\n--b--\r\n",
        b"Content-Type: message/partial; id=1\r\n\r\n\xfc\r\n",
        b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xfc\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--b\r\n\r\n\xfc\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n\xfc\r\n",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n\xfc\r\n",
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-own\r\n\r\n\xfc\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: \xfc\r\n--b--\r\n",
        b"Content-Type: message/rfc822\r\n\r\n" * 60 + b"\r\n\xfc\r\n",
    ],
)
def test_what_cant_be_converted_is_said_so(octets: bytes) -> None:
    with pytest.raises(Inconvertible):
        to_seven_bit(HEAD + octets, binary=False)


def test_a_binary_header_has_to_be_lines() -> None:
    """Brought to lines later, it would end elsewhere."""
    with pytest.raises(Inconvertible):
        to_seven_bit(b"Subject: x\n\r\nInjected: \xfc\r\n\r\n\xfc", binary=True)


def test_any_content_type_is_read() -> None:
    """Found by the fuzzer: the standard library's reader fails on this one."""
    kind = b"Content-Type: multipart/mixed; boundary*0=b; boundary*=utf-8''%FF; boundary=\"b\\ b\"\r\n\r\n"
    message = kind + b"--b b\r\n\r\n\xfc\r\n--b b--\r\n"
    assert b"=FC" in to_seven_bit(HEAD + message, binary=False)


def test_a_signed_part_that_is_clean_is_no_hindrance() -> None:
    signed = b"--b\r\nContent-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\nclean\r\n--c\r\n\r\nsig\r\n--c--\r\n"
    message = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + signed + b"--b\r\n\r\n\xc3\xbc\r\n--b--\r\n"
    assert signed in converted(message)


def test_binary_content_becomes_lines() -> None:
    """RFC 3030 section 3: bare CRs and LFs, NULs and long lines are what binary content may have."""
    body = b"a\nb\rc\0" + b"x" * 2000
    message = HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n" + body
    assert leaves(converted(message, binary=True)) == [("text/plain", body)]
    long = HEAD + b"Content-Type: text/plain\r\nContent-Transfer-Encoding: binary\r\n\r\n" + b"y" * 2000 + b"\r\n"
    made = converted(long, binary=True)
    assert b"quoted-printable" in made
    assert leaves(made) == [("text/plain", b"y" * 2000 + b"\r\n")]


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    """MIME as the standard library writes it: alternatives, related parts, attachments of all sorts, messages within."""
    text = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=200)
    # As numbers: Hypothesis compares what it has drawn, and octets with text is what "python -b" warns of.
    octets = st.lists(st.integers(0, 255), max_size=200)
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = "app@sender.test"
    message.set_content(draw(text), cte="8bit")
    if draw(st.booleans()):
        message.add_alternative(draw(text), subtype="html", cte=draw(st.sampled_from(["8bit", "quoted-printable", "base64"])))
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            message.add_attachment(bytes(draw(octets)), maintype="application", subtype="octet-stream", filename="x")
        else:
            inner = EmailMessage(policy=email.policy.SMTP)
            inner["Subject"] = "inner"
            inner.set_content(draw(text), cte="8bit")
            message.add_attachment(inner)
    # Left to itself the library rolls dice for the boundaries, behind Hypothesis's back.
    for number, part in enumerate(part for part in message.walk() if part.get_content_maintype() == "multipart"):
        part.set_boundary(f"=_part_{number}_=")
    return message.as_bytes()


@settings(max_examples=150, derandomize=True, deadline=None)
@given(_messages())
def test_what_is_decoded_stays_the_same(message: bytes) -> None:
    assert leaves(converted(message)) == leaves(message)
