"""Which keys are certainly not in a table, told from memory: two octets for each key that is, whatever its length (a Bloom filter).

Never says no of a key that was added. Says yes of others now and then: about one in 200 while no more than the capacity were added, more
often beyond. Not safe to be added to in two threads at once; asking is.
"""

from __future__ import annotations

_BITS = 16
"""For each key of the capacity; with three of them set by each key, 0.5 % of the others find all of theirs set."""
_LEAST = 1024


class KeyFilter:
    """A filter for about ``capacity`` keys."""

    __slots__ = ("_bits", "_mask", "capacity", "count")

    def __init__(self, capacity: int = 0) -> None:
        size = 1 << (max(capacity, _LEAST) * _BITS - 1).bit_length()
        self._bits = bytearray(size // 8)
        self._mask = size - 1
        self.capacity = size // _BITS
        self.count = 0
        """Keys added, the same one counted each time."""

    def add(self, key: str) -> None:
        """From now on the key may be there."""
        # The hash is seeded anew in each process, so nobody outside can choose keys that fall together.
        place, step = hash(key), (hash(key) >> 32) | 1
        bits, mask = self._bits, self._mask
        for _ in range(3):
            bit = place & mask
            bits[bit >> 3] |= 1 << (bit & 7)
            place += step
        self.count += 1

    def __contains__(self, key: str) -> bool:
        place = hash(key)
        bits, mask = self._bits, self._mask
        bit = place & mask
        if not bits[bit >> 3] >> (bit & 7) & 1:
            return False
        step = (place >> 32) | 1
        bit = (place + step) & mask
        if not bits[bit >> 3] >> (bit & 7) & 1:
            return False
        bit = (place + 2 * step) & mask
        return bool(bits[bit >> 3] >> (bit & 7) & 1)

    @property
    def octets(self) -> int:
        """Memory that it takes."""
        return len(self._bits)
