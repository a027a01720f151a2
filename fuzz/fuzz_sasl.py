"""The responses of a SASL exchange (lettermta.smtp.sasl, lettermta.smtp.scram): one a line."""

from __future__ import annotations

from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword

from fuzz.promises import clean, pumped, require, swift
from lettermta.smtp.sasl import MAX_RESPONSE, MECHANISMS, Challenge, MalformedResponse, Mechanism
from lettermta.smtp.scram import IScramCredentials, Scram

TOKENS = (
    *(b"n,, y,, p=tls-exporter,, p=tls-unique,, n=user ,r= c=biws c=cD10bHMtZXhwb3J0ZXIsLA== ,p= a= m= =2C =3D =2 , = user <x@y>".split()),
    b"\0",
    b"\0user\0token",
    b"\n",
    b"n,,n=user,r=abc\nc=biws,r=abcnonce,p=" + b"A" * 43 + b"=",
    b" " + b"0" * 32,
    b"\xff",
)

_KEYS = (bytes(32), bytes(range(32)))


def _salts(username: bytes) -> tuple[bytes, int]:
    return b"salt", 4096


def _binding(name: str) -> bytes | None:
    return b"channel" if name == "tls-exporter" else None


def _exchanges() -> list[Mechanism]:
    plain = [MECHANISMS[name]("mta.example") for name in ("PLAIN", "LOGIN", "CRAM-MD5") if name in MECHANISMS]
    return [*plain, *(Scram(_salts, _binding, plus=plus, nonce=lambda: "nonce") for plus in (False, True))]


def one(data: bytes) -> None:
    """Have ``data``, as it is and pumped, answer every mechanism, with and without an initial response."""
    for octets in pumped(data, MAX_RESPONSE):
        lines = octets.split(b"\n")[:6]
        with swift("an exchange"):
            for mechanism in _exchanges():
                _exchange(mechanism, lines)
            for mechanism in _exchanges():
                _exchange(mechanism, [None, *lines])


def _exchange(mechanism: Mechanism, responses: list[bytes] | list[bytes | None]) -> None:
    try:
        step = mechanism.begin(responses[0])
        for response in responses[1:]:
            if not isinstance(step, Challenge):
                break
            clean(step.octets.decode("utf-8", "replace"), "a challenge")
            step = mechanism.respond(response or b"")
    except MalformedResponse:
        return
    if not isinstance(step, Challenge):
        _check(step)


def _check(given: Any) -> None:
    if IScramCredentials.providedBy(given):
        require(given.username and not set(given.username) & set(range(32)), "a SCRAM user name is clean")
        require(not given.verify(*_KEYS) and given.server_final is None, "nobody logs in by chance")
        clean(given.fault, "a fault")
    elif IUsernamePassword.providedBy(given):
        require(given.username and given.password, "neither name nor password is empty")
    else:
        require(IUsernameHashedPassword.providedBy(given), "credentials of a kind that a checker knows")
        require(not given.checkPassword(b"token"), "nobody logs in by chance")
