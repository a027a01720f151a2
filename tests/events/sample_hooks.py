"""Hooks, good and bad, for the tests to load by name."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import succeed
from zope.interface import implementer

from lettermta.interfaces import IEventHook


@implementer(IEventHook)
class Noting:
    def __init__(self) -> None:
        self.events = []

    def event_happened(self, event):
        self.events.append(event)


@implementer(IEventHook)
class Coroutine:
    def __init__(self) -> None:
        self.events = []

    async def event_happened(self, event):
        await succeed(None)
        self.events.append(event)


instance = Noting()


def factory():
    return Noting()


@implementer(IEventHook)
class Raises:
    def __init__(self) -> None:
        raise LookupError("no such queue")


@implementer(IEventHook)
class WantsArguments:
    def __init__(self, url) -> None:
        self.url = url

    def event_happened(self, event):
        pass


@implementer(IEventHook)
@define
class Settled:
    size: int = field(default=1, converter=int)

    def event_happened(self, event):
        pass


class Undeclared:
    def event_happened(self, event):
        pass


@implementer(IEventHook)
class Lacking:
    pass


@implementer(IEventHook)
class WrongArguments:
    def event_happened(self):
        pass


number = 42
