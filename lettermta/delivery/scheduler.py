"""The scheduler: brings what is due to its destination, and records what came of it.

New entries come straight from the commit that stored them; everything else is fetched from the spool, lane by lane, when its time has
come. Memory is bounded: a lane holds a window of its entries, all lanes together hold :data:`LARGEST_HAND`, and of a lane that only waits
for its time nothing is held but that time.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.delivery.destination import ChannelBudget, Destination
from lettermta.delivery.judge import judge
from lettermta.delivery.lane import WINDOW, Hand, LaneQueue
from lettermta.delivery.routing import Way
from lettermta.delivery.schedule import Schedule
from lettermta.event import Event
from lettermta.interfaces import ISpool, ISpoolListener
from lettermta.message import Attempt, Lane, Outcome, QueueEntry, Reply, State, Verdict

LARGEST_HAND = 20_000
"""Entries in memory, of all lanes together."""
MAX_CHANNELS = 500
"""Channels of all destinations together."""
STOP_SECONDS = 10.0
"""How long attempts under way may take to finish when the daemon stops."""
RECORD_AGAIN_SECONDS = 5.0
"""When what an attempt came to could not be stored, it is tried again after this."""
LOOK_AGAIN_SECONDS = 5.0
"""While something is in hand, the spool can't say when the rest of a lane is due: it is looked for after this."""


@implementer(ISpoolListener)
class Scheduler:
    """Runs delivery. ``way`` tells where a lane's mail goes; ``clock`` gives timers, ``now`` the wall clock for due times."""

    log = Logger()

    def __init__(
        self, spool: ISpool, way: Callable[[Lane], Way], schedule: Schedule, clock: IReactorTime, now: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._way = way
        self._schedule = schedule
        self._clock = clock
        self._now = now
        self._budget = ChannelBudget(MAX_CHANNELS)
        self._lanes: dict[Lane, LaneQueue] = {}
        self._destinations: dict[str, Destination] = {}
        self._hungry: OrderedDict[Lane, None] = OrderedDict()
        self._hand = 0
        self._in_hand = Hand()
        self._doomed: dict[int, Reply] = {}
        """What an operator wants bounced and is under way: the reply that ends it unless the attempt does."""
        self._asked = 0
        """How many lanes the spool has been asked for and has not answered yet."""
        self._feeding = False
        self._most_destinations = 2 * MAX_CHANNELS
        self._due: list[tuple[float, str, str]] = []
        self._next_due: dict[Lane, float] = {}
        self._wake: IDelayedCall | None = None
        self._unrecorded: dict[IDelayedCall, Callable[[], None]] = {}
        self._stopping = False

    def start(self) -> Deferred[None]:
        """Take up what the spool holds from before; new entries may come in meanwhile."""
        self._spool.subscribe(self)
        return self._spool.lanes().addCallback(self._take_up)

    def _take_up(self, lanes: Sequence[tuple[Lane, float]]) -> None:
        for lane, due in lanes:
            self._expect(lane, due)

    def stop(self) -> Deferred[object]:
        """Begin no more attempts; fires when those under way are through, or after a bound. What came of them is durable when the spool
        has been closed.
        """
        self._stopping = True
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        for call, again in list(self._unrecorded.items()):
            call.cancel()
            again()  # a last try
        finished = gatherResults([destination.stop() for destination in self._destinations.values()], consumeErrors=True)
        return finished.addTimeout(STOP_SECONDS, self._clock).addErrback(lambda _: None)

    # -- taking in

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        """See ISpoolListener."""
        if self._stopping:
            return
        for entry in entries:
            if entry.due > self._now():
                self._expect(entry.lane, entry.due)
                continue
            lane = self._lane(entry.lane)
            # What is asked for now may be in the answer too: then it is taken from there.
            if lane.more or lane.full or lane.asking or self._hand >= LARGEST_HAND:
                self._leave(lane)
            else:
                lane.add(entry)
                self._hand += 1
                self._serve(lane)

    def events_stored(self, events: Sequence[tuple[int, Event]]) -> None:
        """See ISpoolListener: events are no business of the scheduler's."""

    def _lane(self, key: Lane) -> LaneQueue:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = LaneQueue(key, self._in_hand)
        return lane

    def _leave(self, lane: LaneQueue) -> None:
        """Leave a lane's due entries in the spool until there is room."""
        lane.more = True
        if not len(lane) and not lane.asking:
            self._hungry[lane.lane] = None
            self._feed()

    def _serve(self, lane: LaneQueue) -> None:
        key, transport = self._way(lane.lane)
        if lane.way not in (None, key):
            # The route was changed while mail waited for its old way.
            self._destinations[lane.way].withdraw(lane)
        destination = self._destinations.get(key)
        if destination is None:
            self._forget_unused()
            destination = self._destinations[key] = Destination(
                key, transport(), self._clock, self._budget, self._spool.load, self._settle, self._quarantine
            )
        destination.offer(lane)

    def _forget_unused(self) -> None:
        """Keep the destinations in memory to about twice those that are in use."""
        if len(self._destinations) >= self._most_destinations:
            for key in [key for key, destination in self._destinations.items() if destination.unused]:
                del self._destinations[key]
            self._most_destinations = 2 * max(len(self._destinations), MAX_CHANNELS)

    # -- what an operator changed

    def reread(self, lanes: Iterable[Lane]) -> None:
        """What these lanes have in the spool was changed behind us: let go of what waits in memory, and fetch what is due now. An attempt
        under way goes on.
        """
        if self._stopping:
            return
        changed = [self._lane(key) for key in lanes]
        for lane in changed:
            self._let_go(lane)
        for lane in changed:
            # Only now, or what was moved from one lane to another would be found still in the hand of the first.
            self._leave(lane)

    def hurry(self, lanes: Iterable[Lane]) -> None:
        """Reread these lanes, and don't wait for the end of a pause where their destinations could not be reached."""
        lanes = tuple(lanes)
        self.reread(lanes)
        for key in lanes:
            destination = self._destinations.get(self._way(key)[0])
            if destination is not None:
                destination.hurry()

    def _let_go(self, lane: LaneQueue) -> None:
        if lane.way is not None:
            self._destinations[lane.way].withdraw(lane)
        self._hand -= lane.forget()

    def bounce(self, entries: Sequence[QueueEntry], reply: Reply) -> Deferred[int]:
        """End these entries' recipients by ``reply``, as if we had found no way to deliver them; one that is under way, unless its attempt
        ends it. Fires with how many, once that is durable.
        """
        lanes = {entry.lane for entry in entries}
        for key in lanes:
            self._let_go(self._lane(key))
        count = 0
        recorded: list[Deferred[None]] = []
        for entry in entries:
            count += len(entry.recipients)
            self._doomed.update({one.number: reply for one in entry.recipients if one.number in self._in_hand.numbers})
            entry.recipients = [one for one in entry.recipients if one.number not in self._in_hand.numbers]
            if entry.recipients:
                lane = self._lane(entry.lane)
                lane.take_in_hand(entry)
                self._hand += 1
                verdicts = [Verdict(one, reply, remote=False) for one in entry.recipients]
                recorded.append(self._settle(lane, entry, verdicts, "the operator"))

        def done(_: object) -> int:
            self.reread(lanes)
            return count

        return gatherResults(recorded, consumeErrors=True).addCallback(done)

    def _as_doomed(self, verdict: Verdict) -> Verdict:
        reply = self._doomed.pop(verdict.recipient.number, None)
        if reply is None or verdict.reply.positive or verdict.reply.permanent:
            return verdict
        return Verdict(verdict.recipient, reply, remote=False, handed_over=verdict.handed_over)

    # -- what waits in the spool

    def _expect(self, lane: Lane, due: float) -> None:
        """Look at a lane when ``due`` has come, unless it is looked at before."""
        known = self._next_due.get(lane)
        if known is not None and known <= due:
            return
        self._next_due[lane] = due
        heapq.heappush(self._due, (due, lane.route_id, lane.domain))
        if self._due[0][0] == due:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._due and not self._stopping:
            # The wall clock may jump (HARD-CASES row 27): look at it once a minute at least.
            self._wake = self._clock.callLater(min(max(self._due[0][0] - self._now(), 0.0), 60.0), self._alarm)

    def _alarm(self) -> None:
        self._wake = None
        now = self._now()
        while self._due and self._due[0][0] <= now:
            due, route_id, domain = heapq.heappop(self._due)
            key = Lane(route_id, domain)
            if self._next_due.get(key) == due:
                del self._next_due[key]
                self._leave(self._lane(key))
        self._set_alarm()

    def _feed(self) -> None:
        """Ask the spool for what hungry lanes have due, while there is room."""
        if self._feeding:
            return
        self._feeding = True
        # Each answer may bring a whole window.
        while self._hungry and self._hand + self._asked * WINDOW < LARGEST_HAND and not self._stopping:
            key, _ = self._hungry.popitem(last=False)
            lane = self._lane(key)
            if not lane.asking:
                self._ask_due(lane)
        self._feeding = False

    def _ask_due(self, lane: LaneQueue) -> None:
        limit = WINDOW + lane.in_hand
        lane.ask()
        self._asked += 1
        self._spool.due(lane.lane, self._now(), limit).addCallbacks(self._fed, self._not_fed, (lane, limit), {}, (lane,))

    def _fed(self, entries: Sequence[QueueEntry], lane: LaneQueue, limit: int) -> None:
        self._asked -= 1
        before = len(lane)
        found = lane.answered(entries)
        self._hand += len(lane) - before
        if found >= limit:
            lane.more = True
        else:
            self._ask_next_due(lane)
        if self._stopping:
            return
        if len(lane):
            self._serve(lane)
        elif lane.more:
            # Something was stored too late for this answer, or all that was found was settled meanwhile.
            self._hungry[lane.lane] = None
        self._feed()
        self._tidy(lane)

    def _ask_next_due(self, lane: LaneQueue) -> None:
        lane.unsure = False
        self._spool.next_due(lane.lane).addCallbacks(self._look_later, self._not_asked, (lane.lane,), {}, (lane.lane,))

    def _look_later(self, due: float | None, key: Lane) -> None:
        if due is None:
            return
        lane = self._lane(key)
        if due > self._now():
            self._expect(key, due)
        elif lane.in_hand or lane.elsewhere:
            # That is one in hand, and it hides when the others are due: ask again behind it.
            lane.unsure = True
            # A busy lane is never without any.
            self._expect(key, self._now() + LOOK_AGAIN_SECONDS)
        else:
            self._leave(lane)
        self._tidy(lane)

    def _not_asked(self, failure: Failure, lane: Lane) -> None:
        self.log.failure("the spool could not be asked for {lane.domain}", failure=failure, lane=lane)
        self._expect(lane, self._now() + RECORD_AGAIN_SECONDS)

    def _not_fed(self, failure: Failure, lane: LaneQueue) -> None:
        self._asked -= 1
        lane.answered(())
        self._not_asked(failure, lane.lane)
        self._feed()

    # -- what came of it

    def _settle(self, lane: LaneQueue, entry: QueueEntry, verdicts: Sequence[Verdict], via: str) -> Deferred[None]:
        if self._doomed:
            verdicts = [self._as_doomed(verdict) for verdict in verdicts]
        outcomes, events = judge(entry, verdicts, self._schedule, self._now())
        for outcome in outcomes:
            self.log.info(
                "{id}: {state} to=<{recipient}> via={via} attempt={attempt} reply={reply}",
                id=entry.id,
                state=outcome.state.value,
                recipient=outcome.recipient.address,
                via=via,
                attempt=outcome.recipient.attempts + 1,
                reply=outcome.reply,
            )
        seconds = 0.0 if entry.began is None else self._clock.seconds() - entry.began
        return self._record(lane, entry, outcomes, events, Attempt(self._now(), seconds, via))

    def _quarantine(self, lane: LaneQueue, entry: QueueEntry, reason: str) -> None:
        """An entry without content can't be sent, and must not be forgotten (HARD-CASES row 14)."""
        self.log.error("{id}: quarantined: {reason}", id=entry.id, reason=reason)
        self._record(lane, entry, [Outcome(recipient, State.QUARANTINED, reason) for recipient in entry.recipients], [])

    def _record(
        self,
        lane: LaneQueue,
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None = None,
    ) -> Deferred[None]:
        return self._spool.record(entry, outcomes, events, attempt).addCallbacks(
            self._recorded, self._not_recorded, (lane, entry, outcomes), {}, (lane, entry, outcomes, events, attempt)
        )

    def _recorded(self, _: None, lane: LaneQueue, entry: QueueEntry, outcomes: Sequence[Outcome]) -> None:
        lane.settle(entry)
        self._hand -= 1
        for outcome in outcomes:
            if outcome.state is State.DEFERRED:
                self._expect(lane.lane, outcome.due)
        if lane.more and not len(lane):
            self._hungry[lane.lane] = None
        if self._hungry:
            self._feed()
        if lane.unsure and not lane.in_hand and not lane.asking:
            self._ask_next_due(lane)
        self._tidy(lane)

    def _not_recorded(
        self,
        failure: Failure,
        lane: LaneQueue,
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None,
    ) -> None:
        """The other side has the message, and only we know: keep it in hand, so that nobody sends it again, until it is on record."""
        self.log.failure("{id}: what came of an attempt could not be stored", failure=failure, id=entry.id)

        if self._stopping:
            return  # its recipients are still waiting in the spool, and will be tried once more after the next start

        def again() -> None:
            del self._unrecorded[call]
            self._record(lane, entry, outcomes, events, attempt)

        call = self._clock.callLater(RECORD_AGAIN_SECONDS, again)
        self._unrecorded[call] = again

    def _tidy(self, lane: LaneQueue) -> None:
        if lane.idle and lane.way is None:
            self._lanes.pop(lane.lane, None)
