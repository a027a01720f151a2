"""What an attempt adds to the counters: what it came to at once, what became of a recipient once that is durable."""

from __future__ import annotations

from collections.abc import Sequence

from lettermta import metrics
from lettermta.message import FINAL, Outcome, QueueEntry, State, Verdict

_ENDED = {state: metrics.RECIPIENTS[state.value] for state in FINAL}
_ATTEMPTS = {result: metrics.ATTEMPTS[result] for result in ("delivered", "partial", "deferred", "refused")}
_REFUSALS = metrics.REFUSALS
_BY_REMOTE, _BY_US = metrics.DEFERRALS["remote"], metrics.DEFERRALS["local"]


def count_attempt(verdicts: Sequence[Verdict], outcomes: Sequence[Outcome]) -> None:
    """An attempt is over; ``outcomes`` are in the order of ``verdicts``."""
    delivered = deferred = 0
    for verdict, outcome in zip(verdicts, outcomes, strict=True):
        if outcome.reply_class is not None:
            _REFUSALS[outcome.state, outcome.reply_class].inc()
        if outcome.state is State.DELIVERED:
            delivered += 1
        elif outcome.state is State.DEFERRED:
            deferred += 1
            (_BY_REMOTE if verdict.remote else _BY_US).inc()
    if delivered:
        result = "delivered" if delivered == len(outcomes) else "partial"
    else:
        result = "deferred" if deferred else "refused"
    _ATTEMPTS[result].inc()


def count_recorded(entry: QueueEntry, outcomes: Sequence[Outcome], now: float) -> None:
    """What it came to is durable."""
    for outcome in outcomes:
        ended = _ENDED.get(outcome.state)
        if ended is not None:
            ended.inc()
            if outcome.state is State.DELIVERED:
                metrics.DELIVERY_SECONDS.observe(max(now - entry.created, 0.0))
        elif outcome.state is State.QUARANTINED:
            metrics.SPOOL_QUARANTINED.inc()
