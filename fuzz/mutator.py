"""An engine for machines without atheris: it knows no coverage, but the seeds, the target's words and where parsers break.

The same seed gives the same inputs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

LONGEST = 4096
_EDGES = (b"\0", b"\x7f", b"\x80", b"\xff", b"\r", b"\n", b"\r\n", b" ", b"\t")


def inputs(seeds: Sequence[bytes], words: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """The seeds, and then without end what becomes of them by a few changes each."""
    yield from seeds
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    sources = [*seeds, b"", *words]
    while True:
        data = bytearray(chance.choice(sources))
        for _ in range(chance.choice((1, 1, 2, 3, 5, 8, 20))):
            _change(data, sources, words, chance)
        yield bytes(data[:LONGEST])


def _change(data: bytearray, sources: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16)))
    match chance.randrange(8):
        case 0:
            data[at:at] = chance.choice(words)
        case 1:
            data[at:end] = chance.choice(words)
        case 2:
            data[at:at] = chance.choice(_EDGES)
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * chance.choice((1, 2, 70))
        case 5:
            data[at:] = chance.choice(sources)[chance.randint(0, 20) :]
        case 6:
            data[at:at] = chance.randbytes(chance.choice((1, 4)))
        case _:
            if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
