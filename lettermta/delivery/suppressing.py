"""What suppressions mean for mail that is in the queue already, and which refusals make one.

An address that was suppressed since its mail came in is looked for twice: before each attempt, and before a recipient is put off, so that
mail for a host that can't be reached is not kept for days either. Such a recipient is ``suppressed``, told by ``message.suppressed``; no
report goes to the sender. Reports of ours are not subject to any of this: whoever sent the mail is told what became of it.

An address is suppressed for its project when its own server refused it for good, for a reason that means a dead address
(:attr:`~lettermta.message.ReplyClass.dead_address`): never for what we said ourselves, nor for what is about us or the message, nor
for what was said before a recipient was named or to several of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson
from attrs import define, evolve
from twisted.internet.defer import Deferred

from lettermta import event, metrics
from lettermta.accounts.model import without_care
from lettermta.delivery.classes import shows_dead_address
from lettermta.event import Event
from lettermta.interfaces import ISuppressions
from lettermta.message import WAITING, Lane, Outcome, QueuedRecipient, QueueEntry, State, Verdict
from lettermta.suppression import Mailing, Scope, Suppression, SuppressionReason, address_value, suppress

Found = Mapping[str, Suppression]
"""The addresses that are suppressed, each with why."""


class NobodyLeft(Exception):
    """All recipients of an entry have been suppressed: there is nothing to send."""


@define
class Suppressing:
    """``broadcast`` tells of a lane whether its route is one for broadcasts; ``learn``: whether refusals suppress addresses."""

    suppressions: ISuppressions
    broadcast: Callable[[Lane], bool] = lambda _: False
    learn: bool = True

    def sought(self, entry: QueueEntry, recipients: Sequence[QueuedRecipient]) -> Deferred[Found] | None:
        """Which of an entry's recipients are suppressed now; None, at once, when certainly none is."""
        if entry.options.report:
            return None
        possible = self.suppressions.possible([one.address for one in recipients])
        if not possible:
            return None
        return self.suppressions.find(Mailing(_project_id(entry), without_care(entry.lane.route_id), self.broadcast(entry.lane)), possible)

    def take_out(self, entry: QueueEntry, found: Found, now: float) -> tuple[QueueEntry, list[Outcome], list[Event]] | None:
        """Take those that were found out of an entry: what they are as an entry of their own, and what they come to; None if it is none."""
        gone = [one for one in entry.recipients if one.address in found]
        if not gone:
            return None
        part = evolve(entry, recipients=gone)
        entry.recipients = [one for one in entry.recipients if one.address not in found]
        outcomes = [_outcome(one, found) for one in gone]
        return part, outcomes, self._events(entry, gone, found, now)

    def put_off(self, entry: QueueEntry, found: Found, outcomes: Sequence[Outcome], now: float) -> tuple[list[Outcome], list[Event]]:
        """The outcomes, where those that would be put off and were found have come to an end; and the events of these."""
        gone = [one.recipient for one in outcomes if one.state in WAITING and one.recipient.address in found]
        changed = [_outcome(one.recipient, found) if one.recipient in gone else one for one in outcomes]
        return changed, self._events(entry, gone, found, now)

    def _events(self, entry: QueueEntry, gone: Sequence[QueuedRecipient], found: Found, now: float) -> list[Event]:
        metrics.RECIPIENTS_SUPPRESSED["queued"].inc(len(gone))
        return [
            event.message_event(
                event.SUPPRESSED, now, entry.id, entry.facts, entry.context, recipient=one.address, reason=found[one.address].reason.value
            )
            for one in gone
        ]

    def learned(self, entry: QueueEntry, verdicts: Sequence[Verdict], outcomes: Sequence[Outcome], now: float) -> list[Suppression]:
        """The suppressions that an attempt's refusals make; each verdict is the one that the outcome in its place was made of."""
        if not self.learn or entry.options.report:
            return []
        dead = [outcome.recipient.address for verdict, outcome in zip(verdicts, outcomes, strict=True) if _shows_dead(verdict, outcome)]
        project_id = _project_id(entry) if dead else ""
        if not project_id:
            return []  # without a project it would be for everybody's mail
        scope = Scope(project_id, entry.project)
        return [suppress(address_value(one), scope, SuppressionReason.HARD_BOUNCE, now, message_id=entry.id) for one in dead]


def _shows_dead(verdict: Verdict, outcome: Outcome) -> bool:
    """Whether the other side said that the address is dead, and of this recipient alone."""
    if outcome.state is not State.BOUNCED or outcome.reply_class is None or not verdict.remote or verdict.general:
        return False
    return shows_dead_address(verdict.reply, outcome.reply_class)


def _outcome(recipient: QueuedRecipient, found: Found) -> Outcome:
    return Outcome(recipient, State.SUPPRESSED, f"suppressed: {found[recipient.address].reason.value}")


def _project_id(entry: QueueEntry) -> str:
    project_id: str = orjson.loads(entry.context).get("project_id", "")
    return project_id
