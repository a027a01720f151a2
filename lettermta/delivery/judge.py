"""From what a channel saw to what becomes of each recipient, and which events tell it (COMPATIBILITY.md section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from lettermta import event
from lettermta.delivery.schedule import Schedule
from lettermta.event import Event
from lettermta.message import Outcome, QueueEntry, State, Verdict


def judge(entry: QueueEntry, verdicts: Sequence[Verdict], schedule: Schedule, now: float) -> tuple[list[Outcome], list[Event]]:
    """The outcome of each verdict, and the events in the order in which they are to be told.

    ``sent`` comes once per recipient, with the first attempt that handed the content over; ``soft_bounced`` only from what the other side
    said; ``hard_bounced`` when it ended the recipient, ``failed`` when we did.
    """
    outcomes: list[Outcome] = []
    events: list[Event] = []
    for verdict in verdicts:
        recipient, reply = verdict.recipient, verdict.reply
        handed_over = recipient.handed_over or verdict.handed_over
        said = event.response(reply) if verdict.remote else None

        def tell(name: str, address: str = recipient.address, **data: object) -> None:
            events.append(event.message_event(name, now, entry.id, entry.facts, entry.context, recipient=address, **data))

        if verdict.handed_over and not recipient.handed_over:
            tell(event.SENT)
        due = 0.0
        if reply.positive:
            state = State.DELIVERED
            tell(event.DELIVERED, response=event.response(reply))
        elif reply.permanent:
            state = State.BOUNCED
            if verdict.remote:
                tell(event.HARD_BOUNCED, response=said)
            else:
                tell(event.FAILED, reason=reply.text, response=None)
        elif now >= entry.expires:
            state = State.EXPIRED
            tell(event.FAILED, reason=f"expired after {recipient.attempts + 1} attempts; the last one: {reply}", response=said)
        else:
            state = State.DEFERRED
            due = schedule.due(recipient.attempts + 1, now, entry.expires)
            if verdict.remote:
                tell(event.SOFT_BOUNCED, response=said)
        outcomes.append(Outcome(recipient, state, str(reply), due, handed_over))
    return outcomes, events
