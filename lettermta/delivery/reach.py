"""Whether a destination can be reached, as far as that is known.

    REACHABLE ── no channel could be opened ──> LEFT ALONE ── the pause is over ──> TO BE PROBED ── a channel opens ──> REACHABLE
                                                    ^──────────── it does not: a longer pause ────────┘

It is left alone for a growing pause, and then probed by one channel. That it failed is remembered for a while, whether anything waits for
it or not: what comes for it then does not find it new.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a destination that could not be reached is probed again: the first pause, doubled each time up to the longest."""
SPREAD = 0.25
"""Each pause is shorter by up to this part of itself, so that destinations that were lost together are not all probed together."""
REMEMBERED = 2 * LONGEST_PAUSE
"""Seconds for which it is known that a destination could not be reached."""


class Reach:
    """Of one destination; ``probe`` is called when a pause is over."""

    def __init__(self, clock: IReactorTime, probe: Callable[[], None]) -> None:
        self._clock = clock
        self._probe = probe
        self._pause = 0.0
        """How long the next pause is to be; 0 while all is well."""
        self._until = float("-inf")
        """Until when a failure is to be remembered."""
        self._timer: IDelayedCall | None = None

    @property
    def lost(self) -> bool:
        """Whether the last channel that was tried could not be opened."""
        return self._pause > 0

    @property
    def left_alone(self) -> bool:
        """Whether a pause is on."""
        return self._timer is not None

    @property
    def remembered(self) -> bool:
        """Whether something would be forgotten with this."""
        return self.left_alone or (self.lost and self._clock.seconds() < self._until)

    @property
    def probe_in(self) -> float | None:
        """Seconds until the pause is over, if one is on."""
        return None if self._timer is None else max(self._timer.getTime() - self._clock.seconds(), 0.0)

    def reached(self) -> None:
        """A channel was opened, or it has turned out that there is none to be opened here."""
        self._pause = 0.0

    def doubt(self) -> None:
        """A channel could not be opened, while others are being opened: one of these may have better luck."""
        self._pause = self._pause or FIRST_PAUSE

    def lose(self) -> None:
        """No channel could be opened: begin a pause, if none is on."""
        if self._timer is None:
            self.doubt()
            pause = self._pause
            self._pause = min(pause * 2, LONGEST_PAUSE)
            self._until = self._clock.seconds() + REMEMBERED
            # Spreading a herd needs no unpredictable numbers.
            self._timer = self._clock.callLater(pause * (1 - random.random() * SPREAD), self._over)  # noqa: S311

    def hurry(self) -> None:
        """End the pause, if one is on."""
        if self._timer is not None:
            self._timer.cancel()
            self._over()

    def stop(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer = None
        self._probe()
