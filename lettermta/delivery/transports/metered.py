"""A channel from an address that is being warmed up: it carries as many messages as the plan granted, and gives back what is left.

What was granted for one day is not used on the next, however long the channel lives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.interfaces import IChannel, IStoredContent
from lettermta.message import QueueEntry, Verdict


@implementer(IChannel)
@define(eq=False)
class MeteredChannel:
    """``left``: how many messages it may carry as long as they are ``granted``; ``give_back`` is told, once, how many it did not."""

    channel: IChannel
    left: int
    granted: Callable[[], bool]
    give_back: Callable[[int], None]

    @property
    def usable(self) -> bool:
        """See IChannel."""
        return self.left > 0 and self.channel.usable and self.granted()

    @property
    def ended(self) -> bool:
        """See IChannel."""
        return self.channel.ended

    @property
    def description(self) -> str:
        """See IChannel."""
        return self.channel.description

    @property
    def host(self) -> str | None:
        """See IChannel."""
        return self.channel.host

    @property
    def details(self) -> Mapping[str, object]:
        """See IChannel."""
        return self.channel.details

    @property
    def dsn(self) -> bool:
        """See IChannel."""
        return self.channel.dsn

    def send(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        """See IChannel. Behind the last message there is no room."""
        self.left -= 1
        return self.channel.send(entry, content, room if self.left > 0 else None)

    def close(self) -> None:
        """See IChannel."""
        unused, self.left = self.left, 0
        self.give_back(unused)
        self.channel.close()
