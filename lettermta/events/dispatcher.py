"""The readers of the outbox, side by side: each has a feed of its own, so none can delay another, nor the mail.

Promises each sink every event at least once and in order, also over a crash, as long as the spool keeps the events: that is for the
retention time, and in any case until every sink has confirmed them. A sink that fails is tried again for ever.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.event import Event
from lettermta.events.feed import Feed, FeedState
from lettermta.events.sink import IEventSink
from lettermta.interfaces import ISpool, ISpoolListener
from lettermta.message import QueueEntry

RETENTION = 7 * 86_400.0
"""Seconds that events are kept for replay by default."""
TRIM_EVERY = 600.0
"""Seconds between two rounds of forgetting."""
TRIM_PAUSE = 0.2
"""Seconds between two commits of one round."""


@implementer(ISpoolListener)
class Dispatcher:
    """Takes events from the spool to the sinks. ``feeds`` tells of each how far it is, in the order of the sinks given."""

    _log = Logger()

    def __init__(
        self,
        spool: ISpool,
        sinks: Sequence[IEventSink],
        clock: IReactorTime,
        *,
        retention: float = RETENTION,
        now: Callable[[], float] = time.time,
    ) -> None:
        twice = [name for name, count in Counter(sink.name for sink in sinks).items() if count > 1]
        if twice:
            raise ValueError(f"event sinks named twice: {', '.join(twice)}; each needs a cursor of its own")
        self.feeds = tuple(Feed(spool, sink, clock) for sink in sinks)
        self._spool = spool
        self._retention = retention
        self._now = now
        self._clock = clock
        self._newest = 0
        self._trimming = LoopingCall(lambda: Deferred.fromCoroutine(self._trim()))
        self._trimming.clock = clock
        spool.subscribe(self)

    def start(self) -> Deferred[None]:
        """Begin to serve every sink from where it left off; one that is no longer configured keeps no events from being forgotten.

        Fails with the error of a sink that cannot be opened; the others are then stopped again, so the caller may give up.
        """
        return self._spool.retire([feed.sink.name for feed in self.feeds]).addCallback(self._open)

    def _open(self, retired: Sequence[str]) -> Deferred[None]:
        for name in retired:
            self._log.warn("event sink {name} is no longer configured: how far it was is forgotten", name=name)
        opened = gatherResults([feed.start() for feed in self.feeds], consumeErrors=True)
        return opened.addCallbacks(self._started, self._refused)

    def stop(self) -> Deferred[None]:
        """Let each sink finish what it has, within a bound, and note how far it came. Call it before the spool is closed."""
        if self._trimming.running:
            self._trimming.stop()
        stopped: Deferred[None] = DeferredList([feed.stop() for feed in self.feeds]).addCallback(lambda _: None)
        return stopped

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        """New mail is delivery's business."""

    def events_stored(self, events: Sequence[tuple[int, Event]]) -> None:
        """Hand what a commit stored to every feed."""
        self._newest = events[-1][0]
        for feed in self.feeds:
            feed.offer(events)

    def complaint(self) -> str | None:
        """Which readers fail now, or None; their events wait."""
        failing = [feed.sink.name for feed in self.feeds if feed.state is FeedState.BACKING_OFF]
        return f"readers of events fail and are tried again, the log says why: {', '.join(failing)}" if failing else None

    def measure(self) -> None:
        """Set the gauges that tell how far each sink is."""
        newest = max([self._newest, *(feed.position for feed in self.feeds)])
        for feed in self.feeds:
            metrics.EVENTS_BEHIND[feed.sink.name].set(newest - feed.position)
            metrics.EVENTS_WORKING[feed.sink.name].set(feed.working)

    def _started(self, _: object) -> None:
        self._trimming.start(TRIM_EVERY, now=False)

    def _refused(self, failure: Failure) -> Deferred[None]:
        # gatherResults wraps the first error; the caller wants the sink's own.
        cause = cast(FirstError, failure.value).subFailure
        return self.stop().addCallback(lambda _: cause.raiseException())

    async def _trim(self) -> None:
        """One round of forgetting: the spool does it in small commits, which are spread out so that none of the mail waits for them."""
        count = 0
        try:
            while self._trimming.running and (trimmed := await self._spool.trim(self._now() - self._retention)):
                count += trimmed
                metrics.EVENTS_FORGOTTEN.inc(trimmed)
                await deferLater(self._clock, TRIM_PAUSE)
        except Exception:
            self._log.failure("old events could not be forgotten; it is tried again in {seconds:g} s", seconds=TRIM_EVERY)
        if count:
            self._log.debug("{count} events behind the retention time are forgotten", count=count)
