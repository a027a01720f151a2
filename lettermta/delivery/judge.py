"""From what a channel saw to what becomes of each recipient, and which events tell it (COMPATIBILITY.md section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lettermta import event
from lettermta.delivery.schedule import Schedule
from lettermta.event import Event
from lettermta.message import Lane, Outcome, QueueEntry, Reply, ReplyClass, State, Verdict

ScheduleOf = Callable[[Lane], Schedule]
"""The schedule of a lane's route, as it is now."""

Classify = Callable[[Reply], ReplyClass]
"""What a reply that refuses something is about."""


def judge(
    entry: QueueEntry,
    verdicts: Sequence[Verdict],
    schedule_of: ScheduleOf,
    classify: Classify,
    now: float,
    warn_after: float | None = None,
) -> tuple[list[Outcome], list[Event]]:
    """The outcome of each verdict, and the events in the order in which they are to be told; of a report of ours nothing is told.

    A recipient that is put off ``warn_after`` seconds or more behind its first deferral, or behind the time at which it was
    due first, is ``warned`` from then on.

    ``sent`` comes once per recipient, with the first attempt that handed the content over; ``soft_bounced`` only from what the other side
    said; ``hard_bounced`` when it ended the recipient, ``failed`` when we did. Each of these three has the class of the refusal, which is
    ``expired`` where we gave up.
    """
    outcomes: list[Outcome] = []
    events: list[Event] = []
    silent = entry.options.report
    for verdict in verdicts:
        recipient, reply = verdict.recipient, verdict.reply
        handed_over = recipient.handed_over or verdict.handed_over
        said = event.response(reply) if verdict.remote else None

        def tell(name: str, address: str = recipient.address, **data: object) -> None:
            if not silent:
                events.append(event.message_event(name, now, entry.id, entry.facts, entry.context, recipient=address, **data))

        if verdict.handed_over and not recipient.handed_over:
            tell(event.SENT)
        due, first_deferred, warned = 0.0, recipient.first_deferred, recipient.warned
        refusal = None if reply.positive else classify(reply)
        if reply.positive:
            state = State.DELIVERED
            tell(event.DELIVERED, response=event.response(reply))
        elif reply.permanent:
            state = State.BOUNCED
            if verdict.remote:
                tell(event.HARD_BOUNCED, response=said, classification=refusal)
            else:
                tell(event.FAILED, reason=reply.text, response=None, classification=refusal)
        elif now >= entry.expires:
            state = State.EXPIRED
            refusal = ReplyClass.EXPIRED
            reason = f"expired after {recipient.attempts + 1} attempts; the last one: {reply}"
            tell(event.FAILED, reason=reason, response=said, classification=refusal)
        else:
            state = State.DEFERRED
            due = schedule_of(entry.lane).due(recipient.attempts + 1, now, entry.expires)
            # It may have waited for a destination in a pause before it was tried at all: that was the first delay.
            first_deferred = first_deferred or entry.since or now
            warned = warned or (warn_after is not None and now - first_deferred >= warn_after)
            if verdict.remote:
                tell(event.SOFT_BOUNCED, response=said, classification=refusal)
        outcomes.append(Outcome(recipient, state, str(reply), due, handed_over, first_deferred, warned, refusal))
    return outcomes, events
