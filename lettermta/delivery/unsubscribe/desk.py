"""What becomes of an unsubscription: the address is suppressed for broadcasts of the project, and ``message.unsubscribed`` tells of it.

Promises that both are in one commit, durable when it is answered. It is told once, however often a link is followed: who is on the list
already has unsubscribed. Whoever was taken off the list by hand is back on it by another click, though the same message does not tell it
again. While the message's events are kept, the new one has all of their facts; later it has what the link says: message, recipient, tag.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

import orjson
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from lettermta import event, metrics
from lettermta.accounts.directory import Directory
from lettermta.delivery.returns.path import Returned, recipient_digest
from lettermta.delivery.returns.telling import known_of
from lettermta.delivery.unsubscribe.token import NoLink, Unsubscription, read
from lettermta.interfaces import ISpool
from lettermta.suppression import Scope, SuppressionReason, address_value, suppress


class NotNow(Exception):
    """It could not be stored: whoever asked should ask again."""


class Result(enum.StrEnum):
    """What an unsubscription came to; either way the address is on the list."""

    DONE = "done"
    REPEATED = "repeated"


@define(eq=False)
class UnsubscribeDesk:
    """Takes unsubscriptions. ``now`` is the wall clock."""

    log = Logger()

    directory: Directory
    spool: ISpool
    now: Callable[[], float]
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    """One at a time, so that two of the same are not both the first."""

    def read(self, token: str) -> Unsubscription:
        """What a link's token stands for; raises NoLink, and counts it."""
        try:
            return read(token, self.directory.unsubscribe_key)
        except NoLink as error:
            metrics.UNSUBSCRIPTIONS[error.cause].inc()
            raise

    async def unsubscribe(self, asked: Unsubscription) -> Result:
        """Do it; raises NotNow."""
        try:
            result: Result = await self._turn.run(lambda: Deferred.fromCoroutine(self._unsubscribe(asked)))
        except Exception:
            metrics.UNSUBSCRIPTIONS["failed"].inc()
            self.log.failure("{id}: <{recipient}> could not be unsubscribed", id=asked.message_id, recipient=asked.address)
            raise NotNow from None
        metrics.UNSUBSCRIPTIONS[result.value].inc()
        self.log.info(
            "{id}: unsubscribed <{recipient}>{repeated}",
            id=asked.message_id,
            recipient=asked.address,
            repeated=" (told before)" if result is Result.REPEATED else "",
        )
        return result

    async def _unsubscribe(self, asked: Unsubscription) -> Result:
        moment = self.now()
        project = self.directory.project(asked.project_id)
        scope = Scope(asked.project_id, None if project is None else project.slug)
        reason = SuppressionReason.UNSUBSCRIBE
        value = address_value(asked.address)
        if await self.spool.suppressions.page({"scope": scope.key, "value": value, "reason": reason.value}, 0, 1):
            # Nothing is added: what is there may apply to more mail.
            return Result.REPEATED
        told = await self._told(asked, scope, moment)
        await self.spool.tell(told, [suppress(value, scope, reason, moment, message_id=asked.message_id)])
        return Result.DONE if told else Result.REPEATED

    async def _told(self, asked: Unsubscription, scope: Scope, moment: float) -> Sequence[event.Event]:
        """The event that tells it, unless it was told before."""
        returned = Returned(asked.message_id, recipient_digest(asked.address))
        known = known_of(await self.spool.message(asked.message_id), returned)
        if known is not None and known.told[event.UNSUBSCRIBED]:
            return ()
        facts, context = _facts(asked), event.context(scope.project_id, scope.project)
        if known is not None:
            facts, context = known.facts, known.context
        data = {"recipient": asked.address, "unsubscribed_at": event.timestamp(moment)}
        return [event.message_event(event.UNSUBSCRIBED, moment, asked.message_id, facts, context, **data)]


def _facts(asked: Unsubscription) -> bytes:
    """What the link alone knows of a message."""
    return orjson.dumps({"message_id": asked.message_id, "subject": None, "metadata": {}, "tag": asked.tag, "tags": [], "headers": []})
