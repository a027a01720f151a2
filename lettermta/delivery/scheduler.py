"""The scheduler: brings what is due to its destination, and records what came of it.

New entries come straight from the commit that stored them; everything else is fetched from the spool, lane by lane, when its time has
come. Memory is bounded: a lane holds a window of its entries, all lanes together hold :data:`LARGEST_HAND`, and of a lane that only waits
for its time nothing is held but that time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.budget import ChannelBudget
from lettermta.delivery.classes import Classifier
from lettermta.delivery.crowds import Crowds
from lettermta.delivery.destination import Destination
from lettermta.delivery.due_times import DueTimes
from lettermta.delivery.exchange import LOOK_UP
from lettermta.delivery.flow import Flows
from lettermta.delivery.judge import Classify, ScheduleOf
from lettermta.delivery.lane import WINDOW, Hand, LaneQueue
from lettermta.delivery.recorder import Recorder
from lettermta.delivery.reporter import Reporter
from lettermta.delivery.suppressing import Suppressing
from lettermta.delivery.throttling import ThrottleRules
from lettermta.delivery.way import Way
from lettermta.event import Event
from lettermta.interfaces import ISpool, ISpoolListener
from lettermta.message import Lane, Outcome, QueueEntry, Reply, State, Verdict

LARGEST_HAND = 20_000
"""Entries in memory, of all lanes together."""
LOOK_FOR_ROOM_SECONDS = 1.0
"""When the hand is full, how often what waits for destinations in doubt is left to the spool at the most."""
MAX_CHANNELS = 500
"""Channels of all destinations together."""
MOST_DEAD = 5_000
"""Destinations that are remembered as dead while nothing waits for them, some 5 KB each."""
STOP_SECONDS = 10.0
"""How long attempts under way may take to finish when the daemon stops."""
LEAST_HELD, MOST_HELD = 5.0, 120.0
"""Seconds after which a lane that waits in a crowd is fetched although nobody called it: the longer, the more of them wait."""
HELD_A_SECOND = 100
"""How many of those there are to be in a second, as long as that is within the bounds."""
ASK_AGAIN_SECONDS = 5.0
"""When the spool could not be asked for a lane, it is asked again after this."""
LOOK_AGAIN_SECONDS = 5.0
"""When recipients of a lane are under way by another one, it is looked at again after this."""


def whole(entry: QueueEntry) -> Sequence[QueueEntry]:
    """An entry's recipients stay together."""
    return (entry,)


@implementer(ISpoolListener)
class Scheduler:
    """Runs delivery. ``way`` tells where a lane's mail goes, ``schedule_of`` when it is tried again; ``clock`` gives timers, ``now``
    the wall clock for due times. Without a ``reporter`` no sender is told of anything; without ``classify`` the shipped rules tell what
    refusals are about. ``parted`` tells which recipients of an entry have to go by themselves.
    """

    log = Logger()

    def __init__(
        self,
        spool: ISpool,
        way: Callable[[Lane], Way],
        schedule_of: ScheduleOf,
        clock: IReactorTime,
        now: Callable[[], float],
        reporter: Reporter | None = None,
        classify: Classify | None = None,
        parted: Callable[[QueueEntry], Sequence[QueueEntry]] = whole,
        throttles: ThrottleRules | None = None,
        suppressing: Suppressing | None = None,
    ) -> None:
        self._parted = parted
        self._spool = spool
        self._way = way
        self._recorder = Recorder(
            spool,
            schedule_of,
            clock,
            now,
            reporter,
            classify or Classifier().classify,
            suppressing or Suppressing(spool.suppressions),
            self,
        )
        self._clock = clock
        self._now = now
        self._budget = ChannelBudget(MAX_CHANNELS)
        self._lanes: dict[Lane, LaneQueue] = {}
        self._destinations: dict[str, Destination] = {}
        self._flows = Flows(throttles or ThrottleRules(), clock)
        self._hungry: OrderedDict[Lane, None] = OrderedDict()
        self._crowds = Crowds()
        self._hand = 0
        self._room_made: float | None = None
        self._in_hand = Hand()
        self._asked = 0
        """How many lanes the spool has been asked for and has not answered yet."""
        self._feeding = False
        self._most_destinations = 2 * MAX_CHANNELS
        self._due_times = DueTimes(spool, clock, now, self._come)
        self._stopping = False

    def start(self) -> Deferred[None]:
        """Take up what the spool holds from before; new entries may come in meanwhile."""
        self._spool.subscribe(self)
        return self._spool.lanes().addCallback(self._take_up)

    def _take_up(self, lanes: Sequence[tuple[Lane, float]]) -> None:
        for lane, due in lanes:
            self._due_times.expect(lane, due)

    def stop(self) -> Deferred[object]:
        """Begin no more attempts; fires when those under way are through, or after a bound. What came of them is durable when the spool
        has been closed.
        """
        self._stopping = True
        self._due_times.stop()
        self._recorder.stop()
        attempts = gatherResults([destination.stop() for destination in self._destinations.values()], consumeErrors=True)
        finished: Deferred[object] = attempts.addCallback(lambda _: self._recorder.reports_made())
        return finished.addTimeout(STOP_SECONDS, self._clock).addErrback(lambda _: None)

    # -- taking in

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        """See ISpoolListener."""
        if self._stopping:
            return
        now = self._now()
        for entry in entries:
            if entry.due > now:
                self._due_times.expect(entry.lane, entry.due)
        for entry in self._parts([entry for entry in entries if entry.due <= now]):
            lane = self._lane(entry.lane)
            if not self._welcome(lane, entry):
                lane.leave(entry)
                self._leave(entry.lane)
            else:
                lane.add(entry)
                self._hand += 1 - lane.shed(lane.window)
                self.serve(lane)

    def _welcome(self, lane: LaneQueue, entry: QueueEntry) -> bool:
        """Whether a new entry is taken in at once."""
        # What is asked for now may be in the answer too: then it is taken from there.
        behind = lane.more or lane.full or lane.asking or entry.lane in self._hungry
        if behind and not lane.passes(entry):
            return False
        if self._hand >= LARGEST_HAND and not self._make_room():
            return False
        # Making room may have taken all that this very lane had.
        return not (self._crowds and not len(lane) and self._flow_of(entry.lane) in self._crowds)

    def events_stored(self, events: Sequence[tuple[int, Event]]) -> None:
        """See ISpoolListener: events are no business of the scheduler's."""

    def _parts(self, entries: Sequence[QueueEntry]) -> Sequence[QueueEntry]:
        return [part for entry in entries for part in self._parted(entry)]

    def _lane(self, key: Lane) -> LaneQueue:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = LaneQueue(key, self._in_hand)
        return lane

    def _leave(self, *lanes: Lane) -> None:
        """Leave the due entries of lanes in the spool until there is room."""
        for key in lanes:
            lane = self._lanes.get(key)
            if lane is not None:
                lane.more = True
            if lane is None or not (len(lane) or lane.asking):
                self._hungry[key] = None
        self._feed()

    def serve(self, lane: LaneQueue) -> None:
        """See IQueue."""
        if self._stopping:
            return
        way = self._way(lane.lane)
        if way.limits is not LOOK_UP:
            lane.flow = way.flow
        if lane.way not in (None, way.key):
            # The route was changed while mail waited for its old way, or the domain's hosts were.
            self._destinations[lane.way].withdraw(lane)
        destination = self._destinations.get(way.key)
        if destination is None:
            self._forget_unused()
            flow = self._flows.of(way.flow, way.limits)
            destination = self._destinations[way.key] = Destination(
                way.key, way.transport(), flow, way.limits, self._clock, self._budget, self._recorder, self
            )
        elif destination.limits is not way.limits:
            destination.reshape(way.transport(), way.limits)
        destination.offer(lane)

    def reshape(self) -> None:
        """Ways, limits and throttle rules may have changed: have what waits follow them."""
        self._flows.reconsider()
        for destination in list(self._destinations.values()):
            for lane in destination.waiting:
                if lane.way == destination.name:
                    self.serve(lane)

    def _forget_unused(self) -> None:
        """Keep the destinations in memory to about twice those that are in use, or are to be remembered as dead."""
        if len(self._destinations) >= self._most_destinations:
            unused = [destination for destination in self._destinations.values() if destination.unused]
            dead = [destination for destination in unused if destination.remembered]
            for destination in [*(one for one in unused if not one.remembered), *dead[:-MOST_DEAD]]:
                del self._destinations[destination.name]
                destination.retire()
            self._most_destinations = 2 * max(len(self._destinations), MAX_CHANNELS)

    # -- what an operator asks

    def look(self, lane: Lane, key: str, flow: str) -> Mapping[str, object]:
        """How the destination of ``key`` and the flow of that name stand, or those of the lane as far as it is known here; empty where
        nothing is known, since nothing was sent there lately.
        """
        way = self._way(lane)
        destination = self._destinations.get(key) or self._destinations.get(way.key)
        known = self._flows.known(flow) or self._flows.known(way.flow)
        return {**({} if destination is None else destination.shown()), **({} if known is None else known.shown())}

    def refusal(self, lane: Lane) -> str | None:
        """Why what is due in a lane is not tried: what was said when its destination could not be reached; None where that is not so."""
        destination = self._destinations.get(self._way(lane).key)
        return None if destination is None else destination.refusal

    # -- what an operator changed

    def reread(self, lanes: Iterable[Lane]) -> None:
        """What these lanes have in the spool was changed behind us: let go of what waits in memory, and fetch what is due now. An attempt
        under way goes on.
        """
        if self._stopping:
            return
        lanes = tuple(lanes)
        self._let_go(lanes)
        # Only now, or what was moved from one lane to another would be found still in the hand of the first.
        self._leave(*lanes)

    def hurry(self, lanes: Iterable[Lane]) -> None:
        """Reread these lanes, and don't wait for the end of a pause where their destinations could not be reached."""
        lanes = tuple(lanes)
        self.reread(lanes)
        for key in lanes:
            destination = self._destinations.get(self._way(key).key)
            if destination is not None:
                destination.hurry()

    def destination_of(self, lane: Lane) -> str:
        """The name of the destination that a lane's mail goes to, as far as that is known."""
        way = self._way(lane)
        return way.name or way.flow

    def _let_go(self, lanes: Iterable[Lane]) -> None:
        for lane in [self._lanes[key] for key in lanes if key in self._lanes]:
            if lane.way is not None:
                self._destinations[lane.way].withdraw(lane)
            self._hand -= lane.forget()

    async def bounce(self, asked: Deferred[tuple[Sequence[QueueEntry], int | None]], reply: Reply) -> tuple[int, int | None, bool]:
        """End the recipients that the spool is being ``asked`` for (:meth:`ISpool.entries`) by ``reply``, as if we had found no way to
        deliver them; one that is under way, unless its attempt ends it.

        Returns, once that is durable, how many, where the spool's answer goes on, and whether that has to be asked for again: attempts
        at some ended while it was read, so it does not tell how they stand.
        """
        settled = self._in_hand.asking[asked] = set()
        try:
            entries, following = await asked
        finally:
            del self._in_hand.asking[asked]
        lanes = {entry.lane for entry in entries}
        self._let_go(lanes)
        count, again = 0, False
        recorded: list[Deferred[None]] = []
        for entry in entries:
            known = [one for one in entry.recipients if one.number not in settled]
            again |= len(known) < len(entry.recipients)
            count += len(known)
            self._recorder.doom([one.number for one in known if one.number in self._in_hand.numbers], reply)
            entry.recipients = [one for one in known if one.number not in self._in_hand.numbers]
            if entry.recipients:
                recorded.append(self.doomed(entry, [Verdict(one, reply, remote=False) for one in entry.recipients]))
        await gatherResults(recorded, consumeErrors=True)
        self.reread(lanes)
        return count, following, again

    def doomed(self, entry: QueueEntry, verdicts: Sequence[Verdict]) -> Deferred[None]:
        """See IHand: end them without an attempt."""
        lane = self._lane(entry.lane)
        lane.take_in_hand(entry)
        self._hand += 1
        return self._recorder.settle(lane, entry, verdicts, "the operator")

    # -- what waits in the spool

    def _come(self, lanes: Sequence[Lane]) -> None:
        if self._crowds:
            # Whatever the crowds do: whoever was to call them may be gone.
            for lane in lanes:
                self._crowds.leave(self._flow_of(lane), lane)
        self._leave(*lanes)

    def _make_room(self) -> bool:
        """The hand is full: leave to the spool what waits for destinations without a channel, but for an equal share of half the hand.

        They can't use it, and whoever can be reached must not wait for them (HARD-CASES row 35). Tells if there is room now.
        """
        now = self._clock.seconds()
        if self._room_made is None or now - self._room_made >= LOOK_FOR_ROOM_SECONDS:
            self._room_made = now
            doubtful = [destination for destination in self._destinations.values() if destination.in_doubt]
            flows = Counter(destination.flow.name for destination in doubtful)
            if flows:
                # By receiver, however many destinations lead there.
                share = LARGEST_HAND // 2 // len(flows)
                room = dict.fromkeys(flows, share)
                for destination in doubtful:
                    name = destination.flow.name
                    keep = min(max(share // flows[name], 1), WINDOW, room[name])
                    room[name] -= keep
                    left, parted = destination.shed(keep)
                    self._hand -= left
                    for lane in parted:
                        self._hold(lane.lane)
                        self._tidy(lane)
        return self._hand < LARGEST_HAND

    # -- crowds

    def _flow_of(self, key: Lane) -> str:
        lane = self._lanes.get(key)
        return (lane and lane.flow) or self._way(key).flow

    def _hold(self, lane: Lane) -> None:
        """A lane of a receiver that has a crowd waits in the spool until something of that receiver's has gone through."""
        waiting = self._crowds.hold(self._flow_of(lane), lane)
        self._due_times.expect(lane, self._now() + min(LEAST_HELD + waiting / HELD_A_SECOND, MOST_HELD))

    def _call(self, lane: LaneQueue) -> None:
        """One of the receiver's has gone through: another one's turn."""
        called = self._crowds.next(self._flow_of(lane.lane))
        if called is not None:
            self._leave(called)

    def _window(self, lane: Lane) -> int:
        """As many entries as there may be where they are known to go out; else as many as there is room for if all lanes have so many."""
        destination = self._destinations.get(self._way(lane).key)
        if destination is not None and destination.channels and not destination.failing:
            return WINDOW
        return max(min(LARGEST_HAND // 2 // (len(self._lanes) + len(self._hungry)), WINDOW), 1)

    def _feed(self) -> None:
        """Ask the spool for what hungry lanes have due, while there is room."""
        if self._feeding:
            return
        self._feeding = True
        # Each answer may bring a whole window.
        while self._hungry and not self._stopping:
            if self._hand + self._asked * WINDOW >= LARGEST_HAND and (self._asked or not self._make_room()):
                break
            key, _ = self._hungry.popitem(last=False)
            if not self._crowds.admits(key) and self._crowds and self._flow_of(key) in self._crowds:
                self._hold(key)
            elif not (lane := self._lane(key)).asking:
                self._ask_due(lane)
        self._feeding = False

    def _ask_due(self, lane: LaneQueue) -> None:
        lane.window = self._window(lane.lane)
        limit = lane.window + lane.in_hand
        now = self._now()
        lane.ask()
        self._asked += 1
        self._spool.due(lane.lane, now, limit).addCallbacks(self._fed, self._not_fed, (lane, limit, now), {}, (lane,))

    def _fed(self, entries: Sequence[QueueEntry], lane: LaneQueue, limit: int, now: float) -> None:
        self._asked -= 1
        before = len(lane)
        found = lane.answered(self._parts(entries))
        lane.shed(lane.window)
        self._hand += len(lane) - before
        if lane.elsewhere:
            # They are under way by another lane, and may be put off by its attempt.
            self._due_times.expect(lane.lane, self._now() + LOOK_AGAIN_SECONDS)
        if found >= limit:
            lane.more = True
        else:
            # What is due up to then is in hand: the first behind it is the next to look for.
            self._spool.next_due(lane.lane, now).addCallbacks(self._look_later, self._not_asked, (lane.lane,), {}, (lane.lane,))
        if self._stopping:
            return
        if len(lane):
            self.serve(lane)
        if lane.overlooked or (lane.more and not len(lane) and not lane.elsewhere):
            # Something was stored too late for this answer, or all that was found was settled meanwhile.
            self._hungry[lane.lane] = None
        if self._crowds and not entries:
            self._call(lane)
        self._feed()
        self._tidy(lane)

    def _look_later(self, due: float | None, lane: Lane) -> None:
        if due is not None:
            self._due_times.expect(lane, due)

    def _not_asked(self, failure: Failure, lane: Lane) -> None:
        self.log.failure("the spool could not be asked for {lane.domain}", failure=failure, lane=lane)
        self._due_times.expect(lane, self._now() + ASK_AGAIN_SECONDS)

    def _not_fed(self, failure: Failure, lane: LaneQueue) -> None:
        self._asked -= 1
        lane.answered(())
        self._not_asked(failure, lane.lane)
        self._feed()

    # -- what came of it

    def split(self) -> None:
        """See IQueue and IHand."""
        self._hand += 1

    def recorded(self, lane: LaneQueue, entry: QueueEntry, outcomes: Sequence[Outcome]) -> None:
        """See IHand."""
        lane.settle(entry)
        self._hand -= 1
        for outcome in outcomes:
            if outcome.state is State.DEFERRED:
                self._due_times.expect(lane.lane, outcome.due)
        if lane.more and not len(lane):
            self._hungry[lane.lane] = None
        if self._crowds:
            self._call(lane)
        if self._hungry:
            self._feed()
        self._tidy(lane)

    def measure(self) -> None:
        """Set the gauges of what is in memory."""
        metrics.QUEUE_IN_HAND.set(self._hand)
        metrics.QUEUE_LANES.set(len(self._lanes))
        metrics.QUEUE_DESTINATIONS.set(len(self._destinations))
        self._flows.measure()
        metrics.CHANNELS_OPEN.set(sum(destination.channels for destination in self._destinations.values()))

    def _tidy(self, lane: LaneQueue) -> None:
        """Of a lane that has nothing in memory only its name is kept: among those that are hungry, held, or expected."""
        if lane.idle and lane.way is None:
            self._lanes.pop(lane.lane, None)
