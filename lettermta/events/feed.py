"""One sink's way through the outbox: in order, at least once, at the sink's own pace.

A feed gets new events straight from the commit that stored them, so the database is not read again while the sink keeps up. It holds
at most :data:`KEEP` of them; a sink that falls further behind is served from the spool until it has caught up. How far the sink has
come is noted in the spool only now and then, so after a crash up to :data:`SAVE_EVERY` events, or those of :data:`SAVE_WITHIN`
seconds, and the batch in hand are told again. ``docs/events.md`` has a picture of the states.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lettermta import metrics
from lettermta.event import Event
from lettermta.events.sink import IEventSink, SinkFailed
from lettermta.interfaces import ISpool

KEEP = 2_000
"""The most events that a feed holds for a sink that is busy."""
LINGER = 0.02
"""Seconds that a new event waits for company: a hop to a thread costs as much as forty events do."""
SAVE_EVERY = 1_000
"""Events after which the cursor is advanced."""
SAVE_WITHIN = 1.0
"""Seconds after which the cursor is advanced when fewer events came."""
STOP_WITHIN = 5.0
"""Seconds that a sink has to finish when the service stops."""


class FeedState(enum.Enum):
    """What a feed is about."""

    STOPPED = "stopped"
    CATCHING_UP = "catching up"
    """Reads from the spool, a page at a time."""
    LIVE = "live"
    """Has every event that the sink has not seen yet in memory."""
    BACKING_OFF = "backing off"
    """Waits until the sink may be tried again; holds no events."""
    STOPPING = "stopping"
    """Hands over what it holds, advances the cursor, and ends."""


class Feed:
    """Serves one sink from the outbox; ``state`` and ``position`` (the last event that the sink took) are for all to read."""

    _log = Logger()

    def __init__(self, spool: ISpool, sink: IEventSink, clock: IReactorTime) -> None:
        self.sink = sink
        self.state = FeedState.STOPPED
        self.position = 0
        self._spool = spool
        self._clock = clock
        self._saved = 0
        self._unsaved_since = 0.0
        self._failures = 0
        self._newest = 0
        # The newest events without a gap since the last read from the spool began; None while there is or may be a gap.
        self._tail: list[tuple[int, Event]] | None = None
        self._sleeper: Deferred[None] | None = None
        self._alarm: IDelayedCall | None = None
        self._running: Deferred[None] = succeed(None)
        self._told = metrics.EVENTS_TOLD[sink.name]
        self._failed = metrics.EVENTS_FAILED[sink.name]

    @property
    def working(self) -> bool:
        """Whether the sink takes events, as far as is known."""
        return self.state is FeedState.LIVE or self.state is FeedState.CATCHING_UP

    def start(self) -> Deferred[None]:
        """Open the sink and begin where it left off; fires when that is under way, fails when the sink cannot be opened."""
        opened: Deferred[None] = Deferred()
        self.state = FeedState.CATCHING_UP
        self._running = Deferred.fromCoroutine(self._run(opened))
        return opened

    def offer(self, events: Sequence[tuple[int, Event]]) -> None:
        """Take what a commit has just stored. Costs next to nothing and never calls the sink."""
        tail = self._tail
        if tail is None or not events:
            return
        if len(tail) + len(events) > KEEP:
            self._fall_behind()
            return
        if events[0][0] <= self._newest:
            events = [pair for pair in events if pair[0] > self._newest]
        idle = not tail
        tail.extend(events)
        self._newest = max(self._newest, events[-1][0]) if events else self._newest
        if idle and self.state is FeedState.LIVE:
            self._rouse()

    def stop(self) -> Deferred[None]:
        """Hand over what is in memory, note how far the sink has come, and close it: all within :data:`STOP_WITHIN` seconds."""
        done: Deferred[None] = Deferred()
        if self.state is FeedState.STOPPED:
            return succeed(None)
        if self.state is not FeedState.LIVE:
            self._tail = None
        self.state = FeedState.STOPPING
        limit = self._clock.callLater(STOP_WITHIN, self._abandon, done)

        def finished(_: object) -> None:
            if limit.active():
                limit.cancel()
                done.callback(None)

        self._running.addBoth(finished)
        self._rouse()
        return done

    async def _run(self, opened: Deferred[None]) -> None:
        try:
            await self._open()
        except Exception:
            self.state = FeedState.STOPPED
            opened.errback()
            return
        opened.callback(None)
        steps = {
            FeedState.CATCHING_UP: self._read_page,
            FeedState.LIVE: self._serve,
            FeedState.BACKING_OFF: self._wait_for_sink,
        }
        while (step := steps.get(self.state)) is not None:
            try:
                await step()
            except Exception as error:
                self._complain(error)
                self._back_off()
        await self._finish()

    async def _open(self) -> None:
        await self.sink.open()
        self.position = self._saved = await self._spool.cursor(self.sink.name)
        # So that the spool knows this sink from now on, and trims nothing that it has not confirmed.
        await self._spool.advance(self.sink.name, self.position)

    async def _read_page(self) -> None:
        """Serve one page from the spool, or go live with it when it is the last one.

        A page that is not full reaches the end of what was committed when the read began, and the tail has what came since:
        together they have no gap. Events may be in both, as a commit can be read before it is announced.
        """
        self._tail, self._newest = [], self.position
        page = await self._spool.events(self.position, self.sink.batch)
        if self.state is not FeedState.CATCHING_UP:
            return
        tail = self._tail
        if tail is None or len(page) >= self.sink.batch:
            self._tail = None
            await self._deliver(page)
            return
        last = page[-1][0] if page else self.position
        self._tail = [*page, *(pair for pair in tail if pair[0] > last)]
        self._newest = max(self._newest, last)
        self.state = FeedState.LIVE

    async def _serve(self) -> None:
        """Serve one batch from memory, or sleep until there is something to do."""
        assert self._tail is not None
        if not self._tail:
            if self.position == self._saved:
                await self._sleep(None)
            elif (rest := self._unsaved_since + SAVE_WITHIN - self._clock.seconds()) > 0:
                await self._sleep(rest)
            else:
                await self._save()
            return
        # Even a full batch waits for one turn of the reactor: a hook that answers at once must not keep it from the mail.
        await self._sleep(LINGER if len(self._tail) < self.sink.batch else 0)
        if self.state is FeedState.LIVE:
            await self._deliver(self._take())

    def _take(self) -> Sequence[tuple[int, Event]]:
        assert self._tail is not None
        batch, self._tail = self._tail[: self.sink.batch], self._tail[self.sink.batch :]
        return batch

    async def _deliver(self, events: Sequence[tuple[int, Event]]) -> None:
        if not events:
            return
        taken = await self.sink.deliver(events)
        if taken:
            if self.position == self._saved:
                self._unsaved_since = self._clock.seconds()
            self.position = events[taken - 1][0]
            self._failures = 0
            self._told.inc(taken)
        if taken < len(events):
            if self.position != self._saved:
                await self._save()
            self._back_off()
        elif self.position - self._saved >= SAVE_EVERY or self._clock.seconds() >= self._unsaved_since + SAVE_WITHIN:
            await self._save()

    async def _save(self) -> None:
        """Have the sink sync, then advance its cursor: never the other way round, or a crash between the two would lose events."""
        position = self.position
        try:
            await self.sink.sync()
        except Exception:
            # What was not synced may be gone (a second fsync would succeed and mean nothing): tell it all again.
            self.position = self._saved
            raise
        if self.state is not FeedState.STOPPED:
            await self._spool.advance(self.sink.name, position)
            self._saved = position

    async def _wait_for_sink(self) -> None:
        await self._sleep(self.sink.retry.delay(self._failures))
        if self.state is FeedState.BACKING_OFF:
            self.state = FeedState.CATCHING_UP

    def _fall_behind(self) -> None:
        """Let go of the events in memory: from here on the spool serves the sink."""
        self._tail = None
        if self.state is FeedState.LIVE:
            self.state = FeedState.CATCHING_UP
            self._rouse()

    def _back_off(self) -> None:
        self._failures += 1
        self._failed.inc()
        self._tail = None
        if self.working:
            self.state = FeedState.BACKING_OFF

    async def _finish(self) -> None:
        try:
            while self._tail and self.state is FeedState.STOPPING:
                await self._deliver(self._take())
            if self.position != self._saved:
                await self._save()
        except Exception as error:
            self._complain(error)
        await self.sink.close()
        self.state = FeedState.STOPPED

    def _abandon(self, done: Deferred[None]) -> None:
        self._log.warn(
            "event sink {sink}: not done {seconds:g} s after the stop; events behind number {position} will be told again",
            sink=self.sink.name,
            seconds=STOP_WITHIN,
            position=self._saved,
        )
        self._tail = None
        self.state = FeedState.STOPPED
        done.callback(None)

    def _complain(self, error: Exception) -> None:
        """Log the exception at hand, unless the sink has done so."""
        if not isinstance(error, SinkFailed):
            self._log.failure("event sink {sink}: failed behind event number {position}", sink=self.sink.name, position=self.position)

    def _sleep(self, seconds: float | None) -> Deferred[None]:
        """Until :meth:`_rouse`, or for so many seconds at most."""
        sleeper: Deferred[None] = Deferred()
        self._sleeper = sleeper
        self._alarm = None if seconds is None else self._clock.callLater(seconds, self._rouse)
        return sleeper

    def _rouse(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        alarm, self._alarm = self._alarm, None
        if alarm is not None and alarm.active():
            alarm.cancel()
        if sleeper is not None:
            sleeper.callback(None)
