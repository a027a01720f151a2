"""Hooks: a user's Python objects that are told of every event.

A hook gets the events in order, one at a time, in the reactor's thread. One that fails is told of the same event again, with a growing
delay, until it takes it; the others go on meanwhile. One that blocks holds up the whole process: that is its author's to avoid, by
returning a Deferred (``docs/events.md``).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from lettermta.event import Event
from lettermta.events.sink import Backoff, IEventSink
from lettermta.interfaces import IEventHook

TIME_LIMIT = 60.0
"""Seconds that a hook's Deferred may take before it counts as failed."""


class HookError(ValueError):
    """A hook cannot be had by its name; the text tells what is wrong, and what was expected."""


def load_hook(dotted: str) -> IEventHook:
    """The hook that ``package.module.Name`` names: a class (called without arguments), a factory, or the object itself.

    Raises :class:`HookError`.
    """
    module_name, _, name = dotted.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in dotted.split(".")):
        raise HookError(f"hook {dotted!r}: expected a dotted name like package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise HookError(
            f"hook {dotted!r}: module {module_name!r} cannot be imported: {_said(error)}; expected it on Python's path"
        ) from error
    try:
        named = getattr(module, name)
    except AttributeError as error:
        raise HookError(f"hook {dotted!r}: module {module_name!r} has no {name!r}; expected a class, a factory or an object") from error
    hook = named if not inspect.isclass(named) and IEventHook.providedBy(named) else _made(dotted, named)
    try:
        verifyObject(IEventHook, hook)
    except Invalid as error:
        raise HookError(
            f"hook {dotted!r}: does not provide IEventHook: {' '.join(str(error).split())}; "
            "expected a class with @implementer(IEventHook) and a method event_happened(self, event)"
        ) from error
    return cast(IEventHook, hook)


def _made(dotted: str, factory: Callable[[], object]) -> object:
    if not callable(factory):
        raise HookError(f"hook {dotted!r}: is {type(factory).__name__}; expected a class, a factory or an object that provides IEventHook")
    try:
        return factory()
    except Exception as error:
        raise HookError(f"hook {dotted!r}: making it failed: {_said(error)}; expected it to be made without arguments") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


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
            try:
                answer = _deferred(self._hook.event_happened(event))
                if answer is not None:
                    await answer.addTimeout(self._time_limit, self._clock)
            except Exception:
                self._log.failure(
                    "{sink} failed at event {event_id} ({event_name} of message {message_id}); it will be told again",
                    sink=self.name,
                    event_id=event.id,
                    event_name=event.name,
                    message_id=event.message_id,
                )
                return taken
        return len(events)


def _deferred(answer: object) -> Deferred[None] | None:
    """What a hook answered as a Deferred, or None when it has taken the event."""
    if answer is None or isinstance(answer, Deferred):
        return answer
    if inspect.iscoroutine(answer):
        return Deferred.fromCoroutine(answer)
    raise TypeError(f"a hook's event_happened returned {type(answer).__name__}; expected None, a Deferred or a coroutine")
