"""When lanes that wait for nothing but their time are to be looked at.

Of such a lane nothing is in memory but that time. Due times are by the wall clock, which may jump (HARD-CASES row 27): it is looked at once
a minute at least, and where it was set back, what was put off is made due as much earlier.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.clock_watch import ClockWatch
from lettermta.interfaces import ISpool
from lettermta.message import Lane

LOOK_SECONDS = 60.0
"""How often the wall clock is looked at, at the least."""


class DueTimes:
    """Calls ``come`` with the lanes whose time has come; ``now`` is the wall clock, ``clock`` gives timers."""

    log = Logger()

    def __init__(self, spool: ISpool, clock: IReactorTime, now: Callable[[], float], come: Callable[[Sequence[Lane]], None]) -> None:
        self._spool = spool
        self._clock = clock
        self._now = now
        self._come = come
        self._heap: list[tuple[float, str, str]] = []
        self._next: dict[Lane, float] = {}
        """The time that counts for a lane; the heap may have later ones of it, too."""
        self._wake: IDelayedCall | None = None
        self._watch = ClockWatch(now, clock.seconds)
        self._mending = False
        """What was put off is being made due earlier, as the wall clock was set back."""
        self._stopped = False

    def expect(self, lane: Lane, due: float) -> None:
        """Look at a lane when ``due`` has come, unless it is looked at before."""
        known = self._next.get(lane)
        if known is not None and known <= due:
            return
        self._next[lane] = due
        heapq.heappush(self._heap, (due, lane.route_id, lane.domain))
        if self._heap[0][0] == due:
            self._set_alarm()

    def stop(self) -> None:
        """Call nobody any more."""
        self._stopped = True
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._stopped:
            return
        self._look_at_clock()
        if self._heap:
            self._wake = self._clock.callLater(min(max(self._heap[0][0] - self._now(), 0.0), LOOK_SECONDS), self._alarm)

    def _alarm(self) -> None:
        self._wake = None
        now = self._now()
        come: list[Lane] = []
        while self._heap and self._heap[0][0] <= now:
            due, route_id, domain = heapq.heappop(self._heap)
            lane = Lane(route_id, domain)
            if self._next.get(lane) == due:
                del self._next[lane]
                come.append(lane)
        self._come(come)
        self._set_alarm()

    def _look_at_clock(self) -> None:
        """Where the wall clock was set back, have what was put off wait no longer than it was put off for."""
        seconds = self._watch.set_back()
        if not seconds or self._mending:
            return
        self._mending = True
        self.log.warn("the clock was set back by {seconds:.0f} s: what was put off is due as much earlier", seconds=seconds)

        def mended(_: int) -> None:
            self._watch.mended(seconds)
            # Whoever looks too early asks the spool when to look again.
            self._heap = [(due - seconds, route_id, domain) for due, route_id, domain in self._heap]
            heapq.heapify(self._heap)
            self._next = {lane: due - seconds for lane, due in self._next.items()}
            self._mending = False
            self._set_alarm()

        def failed(failure: Failure) -> None:
            self.log.failure("what was put off could not be made due earlier; the next alarm tries again", failure=failure)
            self._mending = False

        self._spool.hasten(seconds, self._now()).addCallbacks(mended, failed)
