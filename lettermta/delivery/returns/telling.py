"""From what came back to the events that tell of it, with what is known of the message they are about.

A message may have left the spool days ago: its events are still in the outbox, and each of them has all the facts
that events of the message share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import frozen

from lettermta import event
from lettermta.delivery.classes import shows_dead_address
from lettermta.delivery.judge import Classify
from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.path import Returned
from lettermta.event import Event
from lettermta.message import ReplyClass
from lettermta.suppression import Scope, Suppression, SuppressionReason, address_value, suppress

MOST_DELAYS = 10
"""Reports of delays that are told of one recipient."""

_FACTS = ("message_id", "subject", "metadata", "tag", "tags", "headers")
_LISTS = ("to", "cc", "bcc")
_NAMES = {
    Kind.FAILED: event.HARD_BOUNCED,
    Kind.DELAYED: event.SOFT_BOUNCED,
    Kind.COMPLAINT: event.SPAM_COMPLAINT,
    Kind.AUTO_REPLY: event.AUTO_REPLIED,
}
_MOST = {event.SOFT_BOUNCED: MOST_DELAYS}


@frozen
class Known:
    """What the spool knows of a message and one of its recipients."""

    message_id: str
    recipient: str
    facts: bytes
    context: bytes
    told: Counter[str]
    """How many events of each name there are of the recipient."""

    @property
    def sent(self) -> bool:
        """Whether an attempt that handed the message over is on record."""
        return bool(self.told[event.SENT])


@frozen
class Told:
    """What is to be stored."""

    events: Sequence[Event]
    suppressions: Sequence[Suppression] = ()
    reply_class: ReplyClass | None = None


def known_of(message: Mapping[str, Any] | None, returned: Returned) -> Known | None:
    """What a message as the spool shows it comes to; None when there is no event of it, or none of its recipients is the one."""
    documents = [told["document"] for told in (message or {}).get("events", ())]
    if message is None or not documents:
        return None
    addresses = [one["recipient"] for one in message.get("recipients", ())]
    for document in documents:
        data = document["data"]
        addresses += [data["recipient"]] if "recipient" in data else [one for name in _LISTS for one in data.get(name, ())]
    recipient = returned.meant(addresses)
    if recipient is None:
        return None
    data = documents[0]["data"]
    told = Counter(document["event"] for document in documents if document["data"].get("recipient", "").lower() == recipient.lower())
    facts = orjson.dumps({name: data[name] for name in _FACTS if name in data})
    return Known(returned.message_id, recipient, facts, orjson.dumps(documents[0]["context"]), told)


def telling(known: Known, finding: Finding, classify: Classify, now: float, *, suppress_bounced: bool = True) -> Told | None:
    """The events that tell it, and what they suppress; None when there is nothing to tell, or it was told before."""
    name = _NAMES.get(finding.kind)
    if name is None or known.told[name] >= _MOST.get(name, 1):
        return None
    data: dict[str, object] = {"recipient": known.recipient}
    reply_class = None
    if finding.reply is not None:
        reply_class = class_of(finding, classify)
        data |= {"response": event.response(finding.reply), "classification": reply_class}
    if finding.kind is Kind.COMPLAINT:
        data["feedback_type"] = finding.detail
    data["reported_by"] = finding.reporter or None
    dead = suppress_bounced and reply_class is not None and reply_class.dead_address
    told = event.message_event(name, now, known.message_id, known.facts, known.context, **data)
    return Told([told], _suppressions(known, finding, dead, now), reply_class)


def class_of(finding: Finding, classify: Classify) -> ReplyClass:
    """What a failure or delay is about. What is given up after temporary refusals is no dead address, whatever these said."""
    assert finding.reply is not None
    found = classify(finding.reply)
    given_up = finding.kind is Kind.FAILED and found.dead_address and not shows_dead_address(finding.reply, found)
    return ReplyClass.EXPIRED if given_up else found


def _suppressions(known: Known, finding: Finding, dead: bool, now: float) -> Sequence[Suppression]:
    if finding.kind is Kind.COMPLAINT:
        reason = SuppressionReason.SPAM_COMPLAINT
    elif finding.kind is Kind.FAILED and dead:
        reason = SuppressionReason.HARD_BOUNCE
    else:
        return ()
    context = orjson.loads(known.context)
    scope = Scope(context.get("project_id"), context.get("project"))
    if not scope.project_id:
        return ()  # without a project it would be for everybody's mail
    return [suppress(address_value(known.recipient), scope, reason, now, message_id=known.message_id)]
