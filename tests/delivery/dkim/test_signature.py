"""The canonical forms and the signatures against the RFCs' own examples, and against every way of cutting a body."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from lettermta.delivery.dkim.canonical import BodyHash, body_hash, relaxed_value, split_fields
from lettermta.delivery.dkim.signature import signatures, signing
from tests.delivery.dkim.judges import BOTH, by_dkimpy

pytestmark = pytest.mark.filterwarnings("ignore::BytesWarning:dkim")

# RFC 8463 appendix A.
ED25519_SEED = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
RSA_PEM = b"""\
-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQi
Y/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM
KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB
AoGAH0cxOhFZDgzXWhDhnAJDw5s4roOXN4OhjiXa8W7Y3rhX3FJqmJSPuC8N9vQm
6SVbaLAE4SG5mLMueHlh4KXffEpuLEiNp9Ss3O4YfLiQpbRqE7Tm5SxKjvvQoZZe
zHorimOaChRL2it47iuWxzxSiRMv4c+j70GiWdxXnxe4UoECQQDzJB/0U58W7RZy
6enGVj2kWF732CoWFZWzi1FicudrBFoy63QwcowpoCazKtvZGMNlPWnC7x/6o8Gc
uSe0ga2xAkEA8C7PipPm1/1fTRQvj1o/dDmZp243044ZNyxjg+/OPN0oWCbXIGxy
WvmZbXriOWoSALJTjExEgraHEgnXssuk7QJBALl5ICsYMu6hMxO73gnfNayNgPxd
WFV6Z7ULnKyV7HSVYF0hgYOHjeYe9gaMtiJYoo0zGN+L3AAtNP9huqkWlzECQE1a
licIeVlo1e+qJ6Mgqr0Q7Aa7falZ448ccbSFYEPD6oFxiOl9Y9se9iYHZKKfIcst
o7DUw1/hz2Ck4N5JrgUCQQCyKveNvjzkkd8HjYs0SwM0fPjK16//5qDZ2UiDGnOe
uEzxBDAr518Z8VFbR41in3W4Y3yCDgQlLlcETrS+zYcL
-----END RSA PRIVATE KEY-----
"""
SIGNATURES = """\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
"""
HEAD = """\
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>
"""
BODY = "Hi.\n\nWe lost the game.  Are you hungry yet?\n\nJoe.\n"


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


def keys() -> tuple[Ed25519PrivateKey, RSAPrivateKey]:
    rsa = load_pem_private_key(RSA_PEM, None)
    assert isinstance(rsa, RSAPrivateKey)
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(ED25519_SEED)), rsa


def test_the_signatures_of_rfc_8463_come_out_octet_for_octet() -> None:
    """Both algorithms are deterministic: with the RFC's own ``h=`` there is one right answer."""
    fields = split_fields(crlf(HEAD))
    values = dict(fields)
    signed = b"".join(b"%b:%b\r\n" % (name, relaxed_value(values[name])) for name in (b"from", b"to", b"subject", b"date", b"message-id"))
    for key, (name, value) in zip(keys(), split_fields(crlf(SIGNATURES)), strict=True):
        tags = {tag: text for tag, _, text in (part.strip().partition("=") for part in value.decode().split(";"))}
        assert base64.b64encode(body_hash(crlf(BODY))).decode() == tags["bh"]
        unsigned = relaxed_value(value.rpartition(b"b=")[0] + b"b=")
        signature = signing(tags["d"], tags["s"], key).sign(b"%b%b:%b" % (signed, name, unsigned))
        assert base64.b64encode(signature).decode() == tags["b"].replace(" ", "")


PUBLISHED = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": "v=DKIM1; k=rsa; p="
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
    "DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}


def made_of(head: str) -> bytes:
    ed25519, rsa = keys()
    at_work = [signing("football.example.com", "test", rsa), signing("football.example.com", "brisbane", ed25519)]
    return signatures(split_fields(crlf(head)), body_hash(crlf(BODY)), at_work, 1528637909.0)


def test_our_own_fields_with_these_keys_verify() -> None:
    top = made_of(HEAD)
    assert by_dkimpy(top + crlf(HEAD) + b"\r\n" + crlf(BODY), PUBLISHED) == BOTH
    assert max(map(len, top.split(b"\r\n"))) <= 78


@pytest.mark.parametrize("more", ["List-a;b: x\n", "List-Éa: x\n", "List-a b: x\n", f"List-{'x' * 900}: x\n"])
def test_a_list_field_whose_name_has_no_place_in_a_signature_is_not_signed(more: str) -> None:
    """RFC 6376 section 2.9: no semicolon in ``h=``; one would have every receiver take both signatures for broken."""
    assert made_of(HEAD + more) == made_of(HEAD)


def test_any_number_of_list_fields_makes_no_signature_of_any_length() -> None:
    head = HEAD + "".join(f"List-{number}: x\n" for number in range(2000))
    top = made_of(head)
    assert by_dkimpy(top + crlf(head) + b"\r\n" + crlf(BODY), PUBLISHED) == BOTH
    assert len(top) < 3000


def test_the_relaxed_forms_are_those_of_rfc_6376() -> None:
    """Section 3.4.5, example 1."""
    fields = split_fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n")
    assert [(name, relaxed_value(value)) for name, value in fields] == [(b"a", b"X"), (b"b", b"Y Z")]
    assert body_hash(b" C \r\nD \t E\r\n\r\n\r\n") == hashlib.sha256(b" C\r\nD E\r\n").digest()


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \r\n\t\r\n", b" ", b"\t"])
def test_a_body_of_nothing_is_empty(body: bytes) -> None:
    """Section 3.4.4: unlike in the simple form, no line is added."""
    assert body_hash(body) == hashlib.sha256(b"").digest()


def slow(body: bytes) -> bytes:
    """Section 3.4.4, read aloud."""
    body = re.sub(rb"[ \t]+", b" ", body).replace(b" \r\n", b"\r\n").removesuffix(b" ")
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body else b""


@given(st.lists(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\r", b"\n", b"\r\n\r\n"]), max_size=6).map(b"".join), max_size=6))
def test_the_hash_is_the_same_however_a_body_is_cut(pieces: Sequence[bytes]) -> None:
    hashed = BodyHash()
    for piece in pieces:
        hashed.update(piece)
    body = b"".join(pieces)
    assert hashed.digest() == body_hash(body) == hashlib.sha256(slow(body)).digest()


def test_many_blank_lines_take_no_memory_and_no_time_to_speak_of() -> None:
    hashed = BodyHash()
    hashed.update(b"x")
    for _ in range(1000):
        hashed.update(b"\r\n" * 10_000)
    hashed.update(b"y")
    assert hashed.digest() == hashlib.sha256(b"x" + b"\r\n" * 10_000_000 + b"y\r\n").digest()
