"""A new message whose recipients are suppressed, some or all: it is accepted like any other, and nothing is sent to those.

They are part of the message from the start in the state ``suppressed``, told by ``message.suppressed`` in the commit that accepts it. No
report goes to the sender: that nothing is sent there was known before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lettermta import event, metrics
from lettermta.accounts.model import Route, RouteKind
from lettermta.event import Event
from lettermta.interfaces import ISpool
from lettermta.message import Message, State
from lettermta.suppression import Mailing, Suppression

_log = Logger()


def store(spool: ISpool, message: Message, events: Sequence[Event], route: Route) -> Deferred[None]:
    """Store a message less what is suppressed; fires and fails as ``ISpool.store``, and fails when suppressions can't be read."""
    possible = spool.suppressions.possible([recipient.address for recipient in message.recipients])
    if not possible:
        return spool.store(message, events)
    mailing = Mailing(message.project_id, route.id, route.kind is RouteKind.BROADCAST)
    return Deferred.fromCoroutine(_store(spool, message, events, spool.suppressions.find(mailing, possible)))


async def _store(spool: ISpool, message: Message, events: Sequence[Event], looked_up: Deferred[Mapping[str, Suppression]]) -> None:
    found = await looked_up
    suppressed = {address: one.reason.value for address, one in found.items()}
    told = [
        event.message_event(event.SUPPRESSED, message.created, message.id, message.facts, message.context, recipient=address, reason=reason)
        for address, reason in suppressed.items()
    ]
    await spool.store(evolve(message, suppressed=suppressed), [*events, *told])
    metrics.RECIPIENTS[State.SUPPRESSED].inc(len(suppressed))
    metrics.RECIPIENTS_SUPPRESSED["submitted"].inc(len(suppressed))
    for address, reason in suppressed.items():
        _log.info("{id}: suppressed to=<{recipient}> reason={reason}", id=message.id, recipient=address, reason=reason)
