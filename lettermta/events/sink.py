"""What the dispatcher asks of a reader of the outbox, and how a reader that failed is tried again.

A sink is told of events in the order of their sequence numbers and one call at a time: the next ``deliver`` or ``sync`` comes only
after the last one's Deferred has fired. So a sink needs no queue and no lock of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from lettermta.event import Event


class SinkFailed(Exception):
    """What a sink's ``sync`` fails with once the sink has logged the reason itself."""


@frozen
class Backoff:
    """How long to leave a failing sink alone: ``first`` seconds, doubled with each failure in a row, at most ``most``."""

    first: float
    most: float
    jitter: Callable[[], float] = random.random
    """Gives a number from 0 up to 1; at 1 the delay is a fifth shorter, so that sinks which failed together do not return together."""

    def delay(self, failures: int) -> float:
        """Seconds to wait after the ``failures``-th failure in a row, counted from 1."""
        longest = min(self.first * (1 << min(failures - 1, 30)), self.most)
        return longest * (1 - self.jitter() / 5)


class IEventSink(Interface):
    """A reader of the outbox with a pace of its own."""

    name: str = Attribute("What its cursor in the spool is called; must stay the same over restarts.")
    batch: int = Attribute("The most events it is handed at once.")
    retry: Backoff = Attribute("How it is tried again after a failure.")

    def open() -> Deferred[None]:
        """Get ready for events. Fails when the sink cannot work as it is configured."""

    def deliver(events: Sequence[tuple[int, Event]]) -> Deferred[int]:
        """Tell the events, in order; fires with how many of them, from the first on, have been taken.

        Fewer than all means that the sink failed at the next one and has logged why: that one is offered again after a delay.
        """

    def sync() -> Deferred[None]:
        """Make all that was taken durable. When it fails, whatever was taken since the last success is told again."""

    def close() -> Deferred[None]:
        """Let go of everything; nothing is told afterwards. Fires when done and does not fail."""
