"""The promises that several targets check."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

CPU_SECONDS = 1.0
"""What no input may take. All are below :data:`LONGEST`, so linear code takes a hundredth; a quadratic one gets caught by pumping."""
LONGEST = 8192
"""Octets that an input is pumped up to."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Broken(AssertionError):
    """A promise is broken."""


def require(condition: object, promise: str) -> None:
    """Fail unless ``condition``; unlike an assert it can't be switched off."""
    if not condition:
        raise Broken(promise)


def clean(text: str, what: str) -> None:
    """Nothing in ``text`` can end a line or a string, or steer a terminal (HARD-CASES row 13)."""
    require(_CONTROL.search(text) is None, f"{what} holds a control character")


@contextmanager
def swift(what: str) -> Iterator[None]:
    """The block takes no more time than linear code could; the processor's time counts, so that a busy machine does not fail it."""
    began = time.thread_time()
    yield
    took = time.thread_time() - began
    require(took < CPU_SECONDS, f"{what} took {took:.2f} s")


def pumped(data: bytes, longest: int = LONGEST) -> list[bytes]:
    """``data``, and for a quarter of all inputs also the same with a part repeated: which one, its first two octets say.

    So an engine can learn what hurts, and most inputs stay quick.
    """
    if len(data) < 4 or data[1] % 4:
        return [data[:longest]]
    body = data[2:]
    start = data[0] % len(body)
    part = body[start : start + 1 + data[1] // 4 % 8]
    times = max(1, (longest - len(body)) // len(part))
    return [data[:longest], body[:start] + part * times + body[start:]]


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The octets to be read, and the same in pieces, whose lengths the first four octets say."""
    cuts, rest = data[:4], data[4:]
    found: list[bytes] = []
    at = 0
    for length in cuts:
        found.append(rest[at : at + length % 64])
        at += length % 64
    return rest, [*found, rest[at:]]
