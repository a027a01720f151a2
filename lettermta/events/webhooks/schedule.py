"""When a delivery that failed is tried again, and how long an endpoint that asks for it is left alone."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from attrs import frozen

DELAYS = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds before each attempt but the first one, which is made at once (COMPATIBILITY.md section 3)."""
LONGEST_RETRY_AFTER = 86_400.0
"""Seconds for which an endpoint can have itself left alone."""
GRACE = 86_400.0
"""Seconds beyond the whole schedule after which a delivery is over, whatever kept it from being attempted."""
_JITTER = 0.1
"""By which part of a delay it is made longer at the most, so that what failed together doesn't return together."""
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


@frozen
class Schedule:
    """The attempts of one delivery. ``jitter`` gives a number from 0 up to 1."""

    delays: tuple[float, ...] = DELAYS
    jitter: Callable[[], float] = random.random

    def after(self, attempt: int) -> float | None:
        """Seconds from the failure of the ``attempt``-th attempt (from 1 on) to the next one; None when that was the last."""
        if attempt > len(self.delays):
            return None
        return self.delays[attempt - 1] * (1 + _JITTER * self.jitter())

    @property
    def longest(self) -> float:
        """Seconds that a delivery may wait in all, attempts and pauses of its endpoint together."""
        return sum(self.delays) * (1 + _JITTER) + GRACE


def retry_after(text: str, now: float) -> float | None:
    """The seconds that a ``Retry-After`` asks for (RFC 9110 section 10.2.3), bounded; None when it makes no sense.

    It is a number of seconds or a date, which we read by our own clock.
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # An HTTP-date is always GMT; Python takes one without a zone for local time.
    seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
