"""When a deferred recipient is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.delivery.schedule import JITTER, Schedule


@pytest.mark.parametrize(("attempts", "delay"), [(1, 30.0), (2, 300.0), (3, 1800.0), (4, 1800.0), (100, 1800.0)])
def test_each_failure_has_its_delay_and_the_last_one_repeats(attempts: int, delay: float) -> None:
    assert Schedule((30.0, 300.0, 1800.0), jitter=0.0).due(attempts, 1000.0, 1e9) == 1000.0 + delay


def test_the_last_attempt_is_made_at_expiry_and_not_behind_it() -> None:
    assert Schedule((300.0,)).due(1, 1000.0, 1100.0) == 1100.0


@given(st.integers(1, 20), st.floats(1.0, 1e6))
def test_jitter_makes_a_delay_longer_by_a_tenth_at_the_most(attempts: int, delay: float) -> None:
    waited = Schedule((delay,)).due(attempts, 0.0, 1e12)
    assert delay <= waited <= delay * (1 + JITTER) * 1.000001


def test_what_failed_together_does_not_come_back_together() -> None:
    schedule = Schedule((1000.0,))
    assert len({schedule.due(1, 0.0, 1e9) for _ in range(50)}) > 40
