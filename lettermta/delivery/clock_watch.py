"""Whether the wall clock was set back (HARD-CASES row 27): then what was put off by it would wait longer by as much.

The monotonic clock, which nobody sets, is the measure. A clock that is set forward needs nothing: what is due comes early, once.
"""

from __future__ import annotations

from collections.abc import Callable

LEAST = 10.0
"""Seconds that the clock has to be set back by: for less nothing is done."""


class ClockWatch:
    """Watches ``wall`` by ``monotonic``, both in seconds."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()
        """How far the wall clock is ahead of the other one, less what it was set back by since :meth:`mended`."""

    def set_back(self) -> float:
        """By how many seconds the wall clock has been set back, as far as that has not been mended; 0 when it has not."""
        ahead = self._wall() - self._monotonic()
        behind = self._ahead - ahead
        if behind < 0:
            self._ahead = ahead
        return behind if behind >= LEAST else 0.0

    def mended(self, seconds: float) -> None:
        """What was put off has been made due earlier by so much."""
        self._ahead -= seconds
