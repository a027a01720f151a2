"""What attempts came to: judged, told to the sender where that is due, and put on record, all of one attempt in one commit.

Promises that nobody is sent to again whose outcome could not be written: it stays in hand until it is on record (HARD-CASES row 16), and
while too much of that waits no more attempts begin. Suppressions are looked for before an attempt and before a recipient is put off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.backlog import Backlog
from lettermta.delivery.counting import count_attempt, count_recorded
from lettermta.delivery.destination import NOTHING, Trace
from lettermta.delivery.judge import Classify, ScheduleOf, judge
from lettermta.delivery.lane import LaneQueue
from lettermta.delivery.reporter import Reporter
from lettermta.delivery.suppressing import Found, NobodyLeft, Suppressing
from lettermta.event import Event
from lettermta.interfaces import IChannel, ISpool, IStoredContent
from lettermta.message import WAITING, Attempt, Message, Outcome, QueueEntry, Reply, State, Verdict
from lettermta.suppression import Suppression

MOST_UNRECORDED = 2_000
"""Attempts whose outcome waits for its commit: twice as many as one commit has, so that the next one fills while one is synced."""
RECORD_AGAIN_SECONDS = 5.0
"""When what an attempt came to could not be stored, it is tried again after this."""


class IHand(Protocol):
    """What the recorder tells whoever has entries in hand."""

    def split(self) -> None:
        """An entry has become two."""

    def recorded(self, lane: LaneQueue, entry: QueueEntry, outcomes: Sequence[Outcome]) -> None:
        """What became of an entry is durable."""

    def doomed(self, entry: QueueEntry, verdicts: Sequence[Verdict]) -> object:
        """Recipients that were put off are to be bounced all the same."""


@frozen
class _Record:
    """What is written in one commit."""

    lane: LaneQueue
    entry: QueueEntry
    outcomes: Sequence[Outcome]
    events: Sequence[Event]
    attempt: Attempt | None = None
    reports: Sequence[Message] = ()
    dead: Sequence[Suppression] = ()


class Recorder:
    """Of one scheduler. See :class:`~.scheduler.Scheduler` for ``schedule_of``, ``reporter`` and ``classify``."""

    log = Logger()

    def __init__(
        self,
        spool: ISpool,
        schedule_of: ScheduleOf,
        clock: IReactorTime,
        now: Callable[[], float],
        reporter: Reporter | None,
        classify: Classify,
        suppressing: Suppressing,
        hand: IHand,
    ) -> None:
        self.backlog = Backlog(MOST_UNRECORDED)
        self._spool = spool
        self._schedule_of = schedule_of
        self._clock = clock
        self._now = now
        self._reporter = reporter
        self._classify = classify
        self._suppressing = suppressing
        self._hand = hand
        self._reports: set[Deferred[None]] = set()
        """Reports that are being made; what they tell of is on record only with them."""
        self._doomed: dict[int, Reply] = {}
        self._unrecorded: dict[IDelayedCall, Callable[[], None]] = {}
        self._stopping = False

    def doom(self, recipients: Iterable[int], reply: Reply) -> None:
        """An operator wants these bounced, which are under way: the reply ends each of them, by its number, unless its attempt does."""
        self._doomed.update(dict.fromkeys(recipients, reply))

    def stop(self) -> None:
        """Try once more to write what could not be written, and then no more."""
        self._stopping = True
        for call, again in list(self._unrecorded.items()):
            call.cancel()
            again()

    def reports_made(self) -> Deferred[list[None]]:
        """Fires when no report is being made any more, of those that are now."""
        return gatherResults(list(self._reports), consumeErrors=True)

    # -- before an attempt

    def load(self, lane: LaneQueue, entry: QueueEntry) -> Deferred[IStoredContent]:
        """See IRecorder: those that were suppressed meanwhile are taken out."""
        sought = self._suppressing.sought(entry, entry.recipients)
        return self._spool.load(entry) if sought is None else sought.addCallback(self._load_less, lane, entry)

    def _load_less(self, found: Found, lane: LaneQueue, entry: QueueEntry) -> Deferred[IStoredContent]:
        taken = self._suppressing.take_out(entry, found, self._now())
        if taken is not None:
            part, outcomes, events = taken
            if entry.recipients:
                self._hand.split()
            self._log_outcomes(part, outcomes, "nowhere")
            self._record(_Record(lane, part, outcomes, events))
            if not entry.recipients:
                raise NobodyLeft
        return self._spool.load(entry)

    def overdue(self, entry: QueueEntry) -> bool:
        """See IRecorder."""
        now = self._now()
        if now >= entry.expires:
            return True
        warn_after = self._warn_after
        return warn_after is not None and any(
            not recipient.warned and now - (recipient.first_deferred or entry.since) >= warn_after for recipient in entry.recipients
        )

    @property
    def _warn_after(self) -> float | None:
        return None if self._reporter is None else self._reporter.warn_after

    # -- behind an attempt

    def settle(
        self,
        lane: LaneQueue,
        entry: QueueEntry,
        verdicts: Sequence[Verdict],
        via: str,
        channel: IChannel | None = None,
        trace: Trace = NOTHING,
    ) -> Deferred[None]:
        """See IRecorder. Fires once what an attempt came to is on record, or could not be written for now."""
        if self._doomed:
            verdicts = [self._as_doomed(verdict) for verdict in verdicts]
        outcomes, events = judge(entry, verdicts, self._schedule_of, self._classify, self._now(), self._warn_after)
        count_attempt(verdicts, outcomes)
        seconds = 0.0 if entry.began is None else self._clock.seconds() - entry.began
        attempt = Attempt(self._now(), seconds, via, trace)
        sought = self._suppressing.sought(entry, [one.recipient for one in outcomes if one.state in WAITING])
        if sought is None:
            return self._conclude(lane, entry, verdicts, outcomes, events, attempt, channel)

        def suppressed(found: Found) -> Deferred[None]:
            ended, told = self._suppressing.put_off(entry, found, outcomes, self._now())
            return self._conclude(lane, entry, verdicts, ended, [*events, *told], attempt, channel)

        def not_known(failure: Failure) -> Deferred[None]:
            """They are put off: they will be looked for again."""
            self.log.failure("{id}: suppressions could not be read", failure=failure, id=entry.id)
            return self._conclude(lane, entry, verdicts, outcomes, events, attempt, channel)

        return sought.addCallbacks(suppressed, not_known)

    def _as_doomed(self, verdict: Verdict) -> Verdict:
        reply = self._doomed.pop(verdict.recipient.number, None)
        if reply is None or verdict.reply.positive or verdict.reply.permanent:
            return verdict
        return Verdict(verdict.recipient, reply, remote=False, handed_over=verdict.handed_over)

    def _conclude(
        self,
        lane: LaneQueue,
        entry: QueueEntry,
        verdicts: Sequence[Verdict],
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt,
        channel: IChannel | None,
    ) -> Deferred[None]:
        """What becomes of each recipient is certain now: put it on record, with reports to the sender and suppressions."""
        self._log_outcomes(entry, outcomes, attempt.via)
        dead = self._suppressing.learned(entry, verdicts, outcomes, self._now())
        reporter = self._reporter
        told = () if reporter is None else reporter.told(entry, outcomes, verdicts, channel)
        if reporter is None or not told:
            return self._record(_Record(lane, entry, outcomes, events, attempt, (), dead))
        written = Deferred.fromCoroutine(reporter.write(entry, told))
        done: Deferred[None] = written.addCallback(
            lambda reports: self._record(_Record(lane, entry, outcomes, events, attempt, reports, dead))
        )
        if not done.called:
            self._reports.add(done)
            done.addCallback(lambda _: self._reports.discard(done))
        return done

    def _log_outcomes(self, entry: QueueEntry, outcomes: Sequence[Outcome], via: str) -> None:
        for outcome in outcomes:
            self.log.info(
                "{id}: {state} to=<{recipient}> via={via} attempt={attempt} class={reply_class} reply={reply}",
                id=entry.id,
                state=outcome.state.value,
                recipient=outcome.recipient.address,
                via=via,
                attempt=outcome.recipient.attempts + 1,
                reply_class=outcome.reply_class or "-",
                reply=outcome.reply,
            )

    def lost(self, lane: LaneQueue, entry: QueueEntry, reason: str) -> None:
        """See IRecorder. An entry without content can't be sent, and must not be forgotten (HARD-CASES row 14)."""
        self.log.error("{id}: quarantined: {reason}", id=entry.id, reason=reason)
        self._record(_Record(lane, entry, [Outcome(one, State.QUARANTINED, reason) for one in entry.recipients], []))

    # -- the record

    def _record(self, record: _Record) -> Deferred[None]:
        self.backlog.add()
        return self._write(record)

    def _write(self, record: _Record) -> Deferred[None]:
        written = self._spool.record(record.entry, record.outcomes, record.events, record.attempt, record.reports, record.dead)
        return written.addCallbacks(self._written, self._not_written, (record,), {}, (record,))

    def _written(self, _: None, record: _Record) -> None:
        count_recorded(record.entry, record.outcomes, self._now())
        self._hand.recorded(record.lane, record.entry, record.outcomes)
        self.backlog.remove()
        if self._doomed:
            self._end_doomed(record)

    def _end_doomed(self, record: _Record) -> None:
        """The operator's word came when an attempt was over, and what it came to was not on record yet."""
        verdicts: list[Verdict] = []
        for outcome in record.outcomes:
            one = outcome.recipient
            reply = self._doomed.pop(one.number, None)
            if reply is not None and outcome.state in WAITING:
                now = evolve(
                    one,
                    attempts=one.attempts + 1,
                    handed_over=outcome.handed_over,
                    first_deferred=outcome.first_deferred,
                    warned=outcome.warned,
                )
                verdicts.append(Verdict(now, reply, remote=False))
        if verdicts:
            self._hand.doomed(evolve(record.entry, recipients=[verdict.recipient for verdict in verdicts]), verdicts)

    def _not_written(self, failure: Failure, record: _Record) -> None:
        """The other side has the message, and only we know: keep it in hand, so that nobody sends it again, until it is on record."""
        self.log.failure("{id}: what came of an attempt could not be stored", failure=failure, id=record.entry.id)
        if self._stopping:
            return  # its recipients are still waiting in the spool, and will be tried once more after the next start

        def again() -> None:
            del self._unrecorded[call]
            self._write(record)

        call = self._clock.callLater(RECORD_AGAIN_SECONDS, again)
        self._unrecorded[call] = again
