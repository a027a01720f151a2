"""Mail into nothing, for load tests and routes that must not send: every recipient is delivered at once, and nobody gets anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from lettermta.delivery.transports.counting import counted
from lettermta.interfaces import IChannel, IStoredContent, ITransport
from lettermta.message import QueueEntry, Reply, Verdict

_DISCARDED = Reply(250, "2.0.0", "discarded")


@implementer(ITransport)
class DiscardTransport:
    """The way to the void."""

    def open(self) -> Deferred[IChannel]:
        """Always there."""
        return counted("discard", succeed(_DiscardChannel()))


@implementer(IChannel)
class _DiscardChannel:
    description = "discarded"
    details: Mapping[str, object] = {}
    host = None
    dsn = False

    def __init__(self) -> None:
        self.usable = True

    @property
    def ended(self) -> bool:
        """See IChannel."""
        return not self.usable

    def send(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        """All is well."""
        return succeed([Verdict(recipient, _DISCARDED, handed_over=True) for recipient in entry.recipients])

    def close(self) -> None:
        """There is nothing to part from."""
        self.usable = False
