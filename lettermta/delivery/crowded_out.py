"""Recipients that were not taken for there being too many at once (RFC 5321 section 4.5.3.1.10).

They go out right behind those that were taken, as many at once as those were: left to the schedule, a message for 100 people at a receiver
that takes 10 would need ten attempts, and the last ones hours. Promises an end: only what follows recipients that were taken goes out so.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from lettermta.message import QueueEntry, Reply, Verdict


def crowded_out(entry: QueueEntry, verdicts: Sequence[Verdict]) -> tuple[Sequence[Verdict], Sequence[QueueEntry]]:
    """The verdicts that count, and the entries that the others' recipients make; the entry itself has those of the former from then on."""
    if len(verdicts) == 1:
        return verdicts, ()
    left = [verdict.recipient for verdict in verdicts if _too_many(verdict)]
    taken = sum(verdict.reply.positive for verdict in verdicts) if left else 0
    if not taken:
        return verdicts, ()
    counting = [verdict for verdict in verdicts if not _too_many(verdict)]
    entry.recipients = [verdict.recipient for verdict in counting]
    return counting, [evolve(entry, recipients=left[start : start + taken]) for start in range(0, len(left), taken)]


def _too_many(verdict: Verdict) -> bool:
    reply: Reply = verdict.reply
    if reply.code != 452 or not verdict.remote or verdict.handed_over:
        return False
    return reply.enhanced == "4.5.3" or (reply.enhanced is None and "too many recipients" in reply.text.lower())
