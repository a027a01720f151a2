"""The last that is done to a message, once it is known what the peer takes: its link to unsubscribe, if it is to have one, the form of its
content, and then its signatures.

Promises that a server without 8BITMIME gets 7-bit content or nothing (RFC 6152 section 3), likewise one without BINARYMIME (RFC 3030
section 3). Nothing touches the content behind the signatures but the transport's own framing, so what is signed is what leaves (HARD-CASES
row 33). Memory is bounded: of what is not in memory only what has to be converted is read whole, up to :data:`LARGEST_CONVERTED` octets and
one message at a time, and its new form goes to a file; larger ones are refused.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.conversion import Inconvertible, to_seven_bit
from lettermta.delivery.dkim.signer import Signer, Threaded
from lettermta.delivery.leaving import PassingContent, WholeContent, split
from lettermta.delivery.unsubscribe.links import Links
from lettermta.interfaces import IFinisher, IStoredContent
from lettermta.message import BodyType, QueueEntry, Reply
from lettermta.smtp.client_envelope import Unsendable

LARGEST_CONVERTED = 32 << 20
"""Octets of a message that is still converted; it takes some seven times as many of memory for that moment."""

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
    links: Links | None = None
    _turn: DeferredLock = field(init=False, factory=DeferredLock)

    def finish(self, entry: QueueEntry, content: IStoredContent, *, eight_bit: bool, binary: bool) -> Finished | Deferred[Finished]:
        """See IFinisher."""
        if self.links is not None:
            content = self.links.topped(entry, content)
        body = entry.options.body
        if eight_bit and (binary or body is not BodyType.BINARY):
            return self._signed(_declared(entry, content), content, _AS_IT_IS)
        whole = content.whole()
        if whole is None:
            return Deferred.fromCoroutine(self._finished_large(entry, content))
        made = _seven_bit(whole, body)
        if made is whole:
            return self._signed(_with_body(entry, BodyType.SEVEN_BIT), content, _AS_IT_IS)
        _CONVERTED.inc()
        return self._signed(_with_body(entry, BodyType.SEVEN_BIT), WholeContent(made), _SEVEN_BIT)

    async def _finished_large(self, entry: QueueEntry, content: IStoredContent) -> Finished:
        """Read once to see whether it has to be converted, so that what needs it not, nearly all there is, takes no memory."""
        form = _AS_IT_IS
        if entry.options.body is BodyType.BINARY or not await _is_ascii(content):
            if content.size > LARGEST_CONVERTED:
                raise _refused(entry.options.body, f"it has more than {LARGEST_CONVERTED} octets")
            made = await self._turn.run(lambda: Deferred.fromCoroutine(self._convert(entry, content)))
            if made is not None:
                content, form = made, _SEVEN_BIT
        ready = self._signed(_with_body(entry, BodyType.SEVEN_BIT), content, form)
        return await ready if isinstance(ready, Deferred) else ready

    async def _convert(self, entry: QueueEntry, content: IStoredContent) -> IStoredContent | None:
        """The content in 7-bit form, in a file of its own that goes with it; None when it is in that form already."""
        whole = b"".join([piece async for piece in content.pieces()])
        made = await self.threaded(_seven_bit, whole, entry.options.body)
        if made is whole:
            return None
        _CONVERTED.inc()
        kept: IStoredContent = await self.threaded(PassingContent, made, self.threaded)
        return kept

    def _signed(self, entry: QueueEntry, content: IStoredContent, form: str) -> Finished | Deferred[Finished]:
        copy = self.links is not None and self.links.recipient(entry) is not None
        signed = self.signer.sign(entry, content, form, copy=copy)
        if isinstance(signed, Deferred):
            return signed.addCallback(lambda content: (entry, content))
        return entry, signed


def _declared(entry: QueueEntry, content: IStoredContent) -> QueueEntry:
    """The entry with 8-bit content declared as such, which not every application does."""
    if entry.options.body is not BodyType.SEVEN_BIT:
        return entry
    whole = content.whole()
    return entry if whole is None or whole.isascii() else _with_body(entry, BodyType.EIGHT_BIT)


async def _is_ascii(content: IStoredContent) -> bool:
    """Whether the body has no octet above 127."""
    front, in_body = b"", False
    async with aclosing(cast("AsyncGenerator[bytes, None]", content.pieces())) as pieces:
        async for piece in pieces:
            if not in_body:
                front += piece
                if b"\r\n\r\n" not in front and not front.startswith(b"\r\n"):
                    continue
                piece, in_body = split(front)[1], True
            if not piece.isascii():
                return False
    return True


def _seven_bit(whole: bytes, body: BodyType) -> bytes:
    try:
        return to_seven_bit(whole, binary=body is BodyType.BINARY)
    except Inconvertible as fault:
        raise _refused(body, str(fault)) from fault


def _refused(body: BodyType, why: str) -> Unsendable:
    _REFUSED.inc()
    lacks = "BINARYMIME" if body is BodyType.BINARY else "8BITMIME"
    return Unsendable(Reply(554, "5.6.3", f"The other side doesn't offer {lacks}, and the message can't be converted: {why}"))


def _with_body(entry: QueueEntry, body: BodyType) -> QueueEntry:
    return entry if entry.options.body is body else evolve(entry, options=evolve(entry.options, body=body))
