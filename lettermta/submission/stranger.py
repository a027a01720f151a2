"""Who has not logged in, where mail may come back: other servers with their bounces (listeners whose role is bounces or both).

They may send to return paths and to the addresses for complaints alone; everything else needs a login, or on a listener for bounces is
refused for good: this is no open relay. What they send is not submitted: nothing in it steers anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from lettermta.interfaces import IContent, IReturns, ISubmitter
from lettermta.message import Envelope, Refused, Reply

AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")
FRONT = 262_144
"""Octets of a message that are kept to be looked at: reports stand before what they return."""
NOBODY = Reply(550, "5.1.1", "No such address here")
_THANKS = Reply(250, "2.0.0", "Ok")


@implementer(IReturns)
class NothingReturns:
    """Nothing may come back."""

    def check(self, client: str, address: str) -> None:
        """See IReturns."""
        raise Refused(NOBODY)

    def take(self, sender: str, addresses: Sequence[str], octets: bytes) -> Deferred[None]:
        """See IReturns: never reached, as there is no address."""
        return fail(Refused(NOBODY))


@implementer(ISubmitter)
@define(eq=False)
class Stranger:
    """Brings messages back. ``may_log_in``: whether a login would allow what is refused."""

    returns: IReturns
    max_size: int
    may_log_in: bool
    max_recipients: int = 10

    def mail(self, envelope: Envelope) -> None:
        """See ISubmitter."""

    def recipient(self, envelope: Envelope, address: str) -> None:
        """See ISubmitter."""
        try:
            self.returns.check(envelope.peer.address, address)
        except Refused as refused:
            if self.may_log_in and refused.reply.permanent:
                raise Refused(AUTHENTICATION_REQUIRED, refused.cause) from None
            raise

    def content(self) -> IContent:
        """See ISubmitter."""
        return Front()

    def submit(self, envelope: Envelope, content: IContent) -> Deferred[Reply]:
        """See ISubmitter."""
        assert isinstance(content, Front)
        addresses = [recipient.address for recipient in envelope.recipients]
        return self.returns.take(envelope.sender, addresses, content.octets()).addCallback(lambda _: _THANKS)


@implementer(IContent)
@define(eq=False)
class Front:
    """The first :data:`FRONT` octets of a message, in memory; what is behind them is counted and forgotten."""

    size: int = 0
    _front: bytearray = field(init=False, factory=bytearray)

    def write(self, data: bytes) -> None:
        """See IContent."""
        self.size += len(data)
        self._front += data[: max(FRONT - len(self._front), 0)]

    def octets(self) -> bytes:
        """What is kept."""
        return bytes(self._front)

    def head(self) -> bytes:
        """See IContent."""
        head, end, _ = bytes(self._front).partition(b"\r\n\r\n")
        return head + b"\r\n" if end else head

    def body_size(self) -> int:
        """See IContent."""
        return max(self.size - len(self.head()) - 2, 0)

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """See IContent: of what is kept."""
        yield bytes(self._front).partition(b"\r\n\r\n")[2]

    def digest(self) -> Deferred[bytes]:
        """See IContent: of what is kept, which is all that is looked at."""
        return succeed(hashlib.sha256(bytes(self._front)).digest())

    def discard(self) -> None:
        """See IContent."""
        self._front.clear()
