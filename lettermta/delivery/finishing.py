"""The last that is done to a message, once it is known what the peer takes: the form of its content, and then its signatures.

Promises that a server without 8BITMIME gets 7-bit content or nothing (RFC 6152 section 3), likewise one without BINARYMIME (RFC 3030
section 3). Nothing touches the content behind the signatures but the transport's own framing, so what is signed is what leaves (HARD-CASES
row 33). Content that is not in memory is read for conversion, one message at a time, and converted in a thread.
"""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.conversion import Inconvertible, to_seven_bit
from lettermta.delivery.dkim.signer import Signer, Threaded
from lettermta.delivery.leaving import WholeContent
from lettermta.interfaces import IFinisher, IStoredContent
from lettermta.message import BodyType, QueueEntry, Reply
from lettermta.smtp.client_envelope import Unsendable

_CONVERTED = metrics.CONVERSIONS["converted"]
_REFUSED = metrics.CONVERSIONS["refused"]

_AS_IT_IS, _SEVEN_BIT = "", "7bit"

Finished = tuple[QueueEntry, IStoredContent]


@implementer(IFinisher)
@define(eq=False)
class Finisher:
    """Finishes what leaves by SMTP. ``threaded`` runs a function off the reactor's thread."""

    signer: Signer
    threaded: Threaded
    _turn: DeferredLock = field(init=False, factory=DeferredLock)

    def finish(self, entry: QueueEntry, content: IStoredContent, *, eight_bit: bool, binary: bool) -> Finished | Deferred[Finished]:
        """See IFinisher."""
        body = entry.options.body
        if eight_bit and (binary or body is not BodyType.BINARY):
            return self._signed(_declared(entry, content), content, _AS_IT_IS)
        whole = content.whole()
        if whole is None:
            return self._turn.run(Deferred.fromCoroutine, self._converted_large(entry, content)).addCallback(
                lambda ready: self._signed(*ready)
            )
        return self._signed(*_converted(entry, content, whole, _seven_bit(whole, body)))

    async def _converted_large(self, entry: QueueEntry, content: IStoredContent) -> tuple[QueueEntry, IStoredContent, str]:
        whole = b"".join([piece async for piece in content.pieces()])
        return _converted(entry, content, whole, await self.threaded(_seven_bit, whole, entry.options.body))

    def _signed(self, entry: QueueEntry, content: IStoredContent, form: str) -> Finished | Deferred[Finished]:
        signed = self.signer.sign(entry, content, form)
        if isinstance(signed, Deferred):
            return signed.addCallback(lambda content: (entry, content))
        return entry, signed


def _declared(entry: QueueEntry, content: IStoredContent) -> QueueEntry:
    """The entry with 8-bit content declared as such, which not every application does."""
    if entry.options.body is not BodyType.SEVEN_BIT:
        return entry
    whole = content.whole()
    return entry if whole is None or whole.isascii() else _with_body(entry, BodyType.EIGHT_BIT)


def _seven_bit(whole: bytes, body: BodyType) -> bytes:
    try:
        return to_seven_bit(whole, binary=body is BodyType.BINARY)
    except Inconvertible as fault:
        _REFUSED.inc()
        lacks = "BINARYMIME" if body is BodyType.BINARY else "8BITMIME"
        raise Unsendable(
            Reply(554, "5.6.3", f"The other side doesn't offer {lacks}, and the message can't be converted: {fault}")
        ) from fault


def _converted(entry: QueueEntry, content: IStoredContent, whole: bytes, made: bytes) -> tuple[QueueEntry, IStoredContent, str]:
    entry = entry if entry.options.body is BodyType.SEVEN_BIT else _with_body(entry, BodyType.SEVEN_BIT)
    if made is whole:
        return entry, content, _AS_IT_IS
    _CONVERTED.inc()
    return entry, WholeContent(made), _SEVEN_BIT


def _with_body(entry: QueueEntry, body: BodyType) -> QueueEntry:
    return evolve(entry, options=evolve(entry.options, body=body))
