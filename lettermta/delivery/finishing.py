"""The last that is done to a message, once it is known what the peer takes: its signatures.

Nothing touches the content behind this but the transport's own framing, so what is signed is what leaves (HARD-CASES row 33).
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.delivery.dkim.signer import Signer
from lettermta.interfaces import IFinisher, IStoredContent
from lettermta.message import QueueEntry

_AS_IT_IS = ""

Finished = tuple[QueueEntry, IStoredContent]


@implementer(IFinisher)
@frozen
class Finisher:
    """Finishes what leaves by SMTP."""

    signer: Signer

    def finish(self, entry: QueueEntry, content: IStoredContent, *, eight_bit: bool, binary: bool) -> Finished | Deferred[Finished]:
        """See IFinisher."""
        signed = self.signer.sign(entry, content, _AS_IT_IS)
        if isinstance(signed, Deferred):
            return signed.addCallback(lambda content: (entry, content))
        return entry, signed
