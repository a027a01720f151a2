"""When attempts are made, and how ``Retry-After`` is read."""

from __future__ import annotations

import pytest

from lettermta.events.webhooks.schedule import DELAYS, LONGEST_RETRY_AFTER, Schedule, retry_after


def test_attempts_are_those_that_are_promised() -> None:
    """COMPATIBILITY.md section 3: at 0, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h."""
    schedule = Schedule(jitter=lambda: 0.0)
    minute, hour = 60, 3600
    delays = [schedule.after(attempt) for attempt in range(1, 11)]
    assert delays == [5, 5 * minute, 30 * minute, 2 * hour, 5 * hour, 10 * hour, 14 * hour, 20 * hour, 24 * hour, None]


def test_jitter_makes_delays_longer_never_shorter() -> None:
    assert Schedule(jitter=lambda: 0.999).after(2) == pytest.approx(300 * 1.0999)
    assert all(DELAYS[0] <= delay < DELAYS[0] * 1.1 for delay in (Schedule().after(1) for _ in range(100)) if delay)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("999999999", LONGEST_RETRY_AFTER),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 59.0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 59.0),
        ("Fri, 31 Dec 1999 23:00:00 GMT", 0.0),
        ("Fri, 31 Dec 2100 23:00:00 GMT", LONGEST_RETRY_AFTER),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Fri, 99 Dec 1999 23:59:59 GMT", None),
        ("9" * 400, None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """RFC 9110 section 10.2.3: seconds or an HTTP-date; ours is bounded."""
    assert retry_after(text, 946684740.0) == seconds
