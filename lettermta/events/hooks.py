"""Hooks: a user's Python objects that are told of every event.

A hook gets the events in order, one at a time, in the reactor's thread. One that fails is told of the same event again, with a growing
delay, until it takes it; the others go on meanwhile. One that blocks holds up the whole process: that is its author's to avoid, by
returning a Deferred (``docs/events.md``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from lettermta.event import Event
from lettermta.events.sink import Backoff, IEventSink
from lettermta.interfaces import IEventHook
from lettermta.plugged import FAULTS, NO_SETTINGS, answered, plug, within

TIME_LIMIT = 60.0
"""Seconds that a hook's Deferred may take before it counts as failed."""
BLOCKING = 0.1
"""Seconds in the reactor's thread from which on a call is said to block; whatever else the process does has waited for so long."""
SAY_AGAIN = 60.0
"""Seconds for which that is not said again of the same hook."""


def load_hook(dotted: str, settings: Mapping[str, str] = NO_SETTINGS) -> IEventHook:
    """The hook that ``package.module.Name`` names, made with ``settings``; raises :class:`~lettermta.plugged.Unpluggable`."""
    hook: IEventHook = plug(dotted, IEventHook, settings)
    return hook


@implementer(IEventSink)
class HookSink:
    """Tells one hook. ``dotted`` is its name in the configuration, which its cursor goes by."""

    batch = 100
    _log = Logger()

    def __init__(self, dotted: str, hook: IEventHook, clock: IReactorTime, *, time_limit: float = TIME_LIMIT) -> None:
        self.name = f"hook:{dotted}"
        self.retry = Backoff(first=1.0, most=300.0)
        self._hook = hook
        self._clock = clock
        self._time_limit = time_limit
        self._quiet_until = 0.0

    def open(self) -> Deferred[None]:
        """Nothing to open: the hook was made when it was loaded."""
        return succeed(None)

    def deliver(self, events: Sequence[tuple[int, Event]]) -> Deferred[int]:
        """Tell the hook of each event, waiting for its answer to one before the next."""
        return Deferred.fromCoroutine(self._tell(events))

    def sync(self) -> Deferred[None]:
        """Nothing to sync: a hook that has returned, or whose Deferred has fired, has taken the event."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Nothing to close."""
        return succeed(None)

    async def _tell(self, events: Sequence[tuple[int, Event]]) -> int:
        for taken, (_, event) in enumerate(events):
            began = self._clock.seconds()
            try:
                answer = _deferred(self._hook.event_happened(event))
                self._judge(event, began)
                if answer is not None:
                    await within(answer, self._time_limit, self._clock)
            except FAULTS:
                self._log.failure(
                    "{sink} failed at event {event_id} ({event_name} of message {message_id}); it will be told again",
                    sink=self.name,
                    event_id=event.id,
                    event_name=event.name,
                    message_id=event.message_id,
                )
                return taken
        return len(events)

    def _judge(self, event: Event, began: float) -> None:
        now = self._clock.seconds()
        if now - began >= BLOCKING and now >= self._quiet_until:
            self._quiet_until = now + SAY_AGAIN
            self._log.warn(
                "{sink} blocked the whole process for {seconds:.1f} s at event {event_id}; expected a Deferred from what takes long",
                sink=self.name,
                seconds=now - began,
                event_id=event.id,
            )


def _deferred(answer: object) -> Deferred[None] | None:
    """What a hook answered as a Deferred, or None when it has taken the event."""
    waiting = answered(answer)
    if waiting is None or isinstance(waiting, Deferred):
        return waiting
    raise TypeError(f"a hook's event_happened returned {type(answer).__name__}; expected None, a Deferred or a coroutine")
