"""When a deferred recipient is tried again (RFC 5321 section 4.5.4.1)."""

from __future__ import annotations

import random
from collections.abc import Sequence

JITTER = 0.1
"""Each delay is made longer by up to this part of itself, so that what failed together does not come back together."""


class Schedule:
    """A list of delays in seconds, one for each failed attempt; the last one repeats until the message expires."""

    def __init__(self, delays: Sequence[float], jitter: float = JITTER) -> None:
        self.delays = tuple(delays)
        self._jitter = jitter

    def due(self, attempts: int, now: float, expires: float) -> float:
        """When to try again after ``attempts`` failures; never behind ``expires``, so that a last attempt is made then."""
        delay = self.delays[min(attempts, len(self.delays)) - 1]
        # Spreading a herd needs no unpredictable numbers.
        return min(now + delay * (1 + random.random() * self._jitter), expires)  # noqa: S311
