"""Memory has bounds whatever clients do: the benches of idle connections and of large messages, in a size for every run of the tests."""

from __future__ import annotations

import statistics

import pytest

from bench import idle, large
from lettermta.ops import descriptors

CONNECTIONS = int(min(1_000, descriptors.allowed() // 2))
"""Fewer where the machine allows less; a tenth of what ``make bench-idle`` holds."""


@pytest.mark.parametrize("sort", ["clear", "TLS"])
def test_idle_connections_cost_little_and_keep_nobody_waiting(sort: str) -> None:
    descriptors.raise_limit()
    held = idle.measure(sort, CONNECTIONS, messages=50)
    assert held.kb_each <= idle.SORTS[sort]
    # The worst of them is for the bench: here it would tell of whatever else the machine does.
    assert statistics.median(held.waits) <= idle.WORST_MS
    assert statistics.median(held.waits_before) <= idle.WORST_MS, "nor while they arrive"


@pytest.mark.parametrize("way", ["DATA", "many BDATs", "DATA in TLS"])
def test_a_message_of_50_mb_passes_in_bounded_memory(way: str) -> None:
    passage = large.measure(way, 50_000_000)
    assert passage.came_whole
    assert passage.peak_in < large.GROWTH_MB, "on the way in"
    assert passage.peak < large.GROWTH_MB, "on the way out to a sink that takes nothing for a while"
    assert passage.growth < large.GROWTH_MB
