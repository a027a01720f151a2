"""Who has not logged in, where mail may come back: other servers with their bounces (listeners whose role is bounces or both).

They may send to the return path's own addresses alone; everything else needs a login, so this is no open relay.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from lettermta.interfaces import IContent, ISubmitter
from lettermta.message import Envelope, Refused, Reply

AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")


@implementer(ISubmitter)
class Stranger:
    """May begin a transaction, and finds no recipient that would take it: no return path has an address yet."""

    max_recipients = 10

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size

    def mail(self, envelope: Envelope) -> None:
        """See ISubmitter."""

    def recipient(self, envelope: Envelope, address: str) -> None:
        """See ISubmitter."""
        raise Refused(AUTHENTICATION_REQUIRED)

    def content(self) -> IContent:
        """See ISubmitter: never reached, as there is no recipient."""
        raise Refused(AUTHENTICATION_REQUIRED)

    def submit(self, envelope: Envelope, content: IContent) -> Deferred[Reply]:
        """See ISubmitter: never reached either."""
        content.discard()
        return fail(Refused(AUTHENTICATION_REQUIRED))
