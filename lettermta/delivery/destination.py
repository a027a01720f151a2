"""A destination: the channels that lead to one place, and the lanes that share them in turn.

Channels are opened while more waits than is free, up to a limit, and are kept for a while when nothing waits. When none can be opened,
what waits is told so, and the destination is probed again by one attempt after a growing pause, not by each message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.lane import LaneQueue
from lettermta.delivery.rounds import Rounds
from lettermta.interfaces import IChannel, IStoredContent, ITransport
from lettermta.message import QueueEntry, Reply, Unreachable, Verdict

MAX_CHANNELS = 20
"""Channels of one destination at once."""
IDLE_SECONDS = 10.0
"""How long a channel is kept when nothing waits."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a destination that could not be reached is probed again: the first pause, doubled each time up to the longest."""
TURN = 100
"""Attempts that a channel makes at least before it is given up for a destination that has none."""

Load = Callable[[QueueEntry], Deferred[IStoredContent]]
Settle = Callable[[LaneQueue, QueueEntry, Sequence[Verdict], str, IChannel | None], object]
"""Told what an attempt came to; the last arguments say by which way, and are the channel where there was one."""
Lost = Callable[[LaneQueue, QueueEntry, str], None]
"""Told that an entry has no content to send."""


class ChannelBudget:
    """How many channels all destinations may have together.

    A destination that was refused its first one is told when there is room; while any waits for that, nobody keeps idle channels, and
    whoever has more than an equal share, or has had :data:`TURN` attempts out of a channel, gives it up.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._held: dict[Destination, int] = {}
        self._refused: OrderedDict[Destination, None] = OrderedDict()
        self._sparing: OrderedDict[Destination, None] = OrderedDict()
        self._granting = False

    @property
    def short(self) -> bool:
        """Whether a destination waits for its first channel."""
        return bool(self._refused)

    def take(self, destination: Destination) -> bool:
        """Whether one more may be opened."""
        if not self._free:
            self._reclaim()
        if not self._free:
            if destination not in self._held:
                self._refused[destination] = None
            return False
        self._free -= 1
        self._held[destination] = self._held.get(destination, 0) + 1
        self._refused.pop(destination, None)
        return True

    def give_back(self, destination: Destination) -> None:
        """One has been closed, or could not be opened."""
        self._held[destination] -= 1
        if not self._held[destination]:
            del self._held[destination]
        self._free += 1
        if self._granting:
            return
        self._granting = True
        try:
            while self._free and self._refused:
                self._refused.popitem(last=False)[0].pump()
        finally:
            self._granting = False

    def spare(self, destination: Destination) -> None:
        """The destination has a channel that it does not need now."""
        self._sparing[destination] = None

    def due_elsewhere(self, destination: Destination, attempts: int) -> bool:
        """Whether a channel that has made so many attempts should be given up for those who have none."""
        if not self._refused:
            return False
        share = self._limit // (len(self._held) + len(self._refused))
        return attempts >= TURN or self._held[destination] > max(share, 1)

    def _reclaim(self) -> None:
        while self._sparing:
            if self._sparing.popitem(last=False)[0].give_up_idle():
                return


@define(eq=False)
class _Held:
    """A channel and how many attempts it has made."""

    channel: IChannel
    attempts: int = 0


class Destination:
    """Where the mail of one or more lanes goes."""

    log = Logger()

    def __init__(
        self, name: str, transport: ITransport, clock: IReactorTime, budget: ChannelBudget, load: Load, settle: Settle, lost: Lost
    ) -> None:
        self.name = name
        self._transport = transport
        self._clock = clock
        self._budget = budget
        self._load = load
        self._settle = settle
        self._lost = lost
        self._lanes = Rounds()
        self._idle: list[_Held] = []
        self._least_idle = 0
        """The fewest that were idle since the reaper was last here: so many were idle all the time."""
        self._channels = 0
        self._opening = 0
        self._pause = 0.0
        """How long the next pause is to be; 0 while all is well."""
        self._probe: IDelayedCall | None = None
        self._reaper: IDelayedCall | None = None
        self._pumping = False
        self._stopped: Deferred[None] | None = None

    @property
    def unused(self) -> bool:
        """Whether nothing waits for it, leads to it, or is being opened."""
        return not (self._lanes or self._channels or self._opening or self._probe or self._reaper)

    @property
    def channels(self) -> int:
        """How many are open."""
        return self._channels

    @property
    def in_doubt(self) -> bool:
        """Whether mail waits for it and no channel leads to it: it may be one that can't be reached."""
        return bool(self._lanes) and not self._channels

    @property
    def failing(self) -> bool:
        """Whether it could not be reached when that was last tried."""
        return self._pause > 0 and not self._channels

    def shed(self, keep: int) -> int:
        """Leave what waits here to the spool, but for about ``keep`` entries and one of each lane; returns how many were left."""
        each = max(keep // len(self._lanes), 1)
        return sum([lane.shed(each) for lane in self._lanes])

    def offer(self, lane: LaneQueue) -> None:
        """Serve a lane that has entries waiting."""
        lane.way = self.name
        self._lanes.add(lane)
        self.pump()

    def withdraw(self, lane: LaneQueue) -> None:
        """What waits in the lane is to go another way."""
        self._lanes.remove(lane)
        lane.way = None

    def pump(self) -> None:
        """Send what can be sent, and open a channel where more waits than is free."""
        if self._pumping:
            return  # what is under way goes round once more: however much is done at once, the stack does not grow
        self._pumping = True
        try:
            while self._stopped is None:
                while self._lanes and (held := self._free_channel()):
                    self._attempt(held, *self._next())
                if not self._open_one():
                    break
        finally:
            self._pumping = False
        if self._idle:
            self._keep()

    def _free_channel(self) -> _Held | None:
        while self._idle:
            held = self._idle.pop()
            self._least_idle = min(self._least_idle, len(self._idle))
            if held.channel.usable:
                return held
            self._part(held)
        return None

    def _next(self) -> tuple[LaneQueue, QueueEntry]:
        """The next entry; its lane goes to the end of the round."""
        lane = self._lanes.turn()
        entry = lane.take()
        if not len(lane):
            self.withdraw(lane)
        return lane, entry

    # -- opening

    def _open_one(self) -> bool:
        """Begin to open one more channel, when more waits than is being opened."""
        if self._probe is not None or self._channels + self._opening >= MAX_CHANNELS or not self._lacking():
            return False
        # After a failure one channel probes, and the others follow it.
        if (self._pause and self._opening) or not self._budget.take(self):
            return False
        self._opening += 1
        self._transport.open().addCallbacks(self._opened, self._not_opened)
        return True

    def _lacking(self) -> bool:
        waiting = 0
        for lane in self._lanes:
            waiting += len(lane)
            if waiting > self._opening:
                return True
        return False

    def _opened(self, channel: IChannel) -> None:
        self._opening -= 1
        self._pause = 0.0
        self._channels += 1
        self._release(_Held(channel))

    def _not_opened(self, failure: Failure) -> None:
        self._opening -= 1
        if isinstance(failure.value, Unreachable):
            reply, remote = failure.value.reply, failure.value.remote
        else:
            self.log.failure("opening a channel to {name} failed", failure=failure, name=self.name)
            reply, remote = Reply(451, "4.3.0", "Local error"), False
        alone = not self._opening and not self._channels
        if self._stopped is None:
            if self._opening:
                # Another one may have better luck, and the last one decides; no more are begun meanwhile.
                self._pause = self._pause or FIRST_PAUSE
            elif self._channels or not reply.permanent:
                self._pause_now()
        self._budget.give_back(self)
        if self._stopped is not None or not alone:
            return  # the channels that are there go on with what waits
        waiting = [self._next() for _ in range(sum(map(len, self._lanes)))]
        for lane, entry in waiting:
            self._settle(lane, entry, [Verdict(recipient, reply, remote) for recipient in entry.recipients], self.name, None)

    def _pause_now(self) -> None:
        if self._probe is None:
            pause = self._pause or FIRST_PAUSE
            self._pause = min(pause * 2, LONGEST_PAUSE)
            self._probe = self._clock.callLater(pause, self._probe_now)

    def hurry(self) -> None:
        """Probe now, if a pause is on."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe_now()

    def _probe_now(self) -> None:
        self._probe = None
        self.pump()

    # -- attempts

    def _attempt(self, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        entry.began = self._clock.seconds()
        self._load(entry).addCallbacks(self._send, self._not_loaded, (held, lane, entry), {}, (held, lane, entry))

    def _send(self, content: IStoredContent, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        if held.channel.usable:
            held.channel.send(entry, content).addCallbacks(self._sent, self._broken, (held, lane, entry), {}, (held, lane, entry))
        else:
            self._try_again(held, lane, entry)

    def _not_loaded(self, failure: Failure, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        if not isinstance(failure.value, LookupError):
            self.log.failure("the content of {id} could not be read", failure=failure, id=entry.id)
            reply = Reply(451, "4.3.0", "The content could not be read from the spool")
            self._settle(lane, entry, [Verdict(recipient, reply, remote=False) for recipient in entry.recipients], self.name, None)
        else:
            self._lost(lane, entry, str(failure.value))
        self._release(held)

    def _sent(self, verdicts: Sequence[Verdict], held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        held.attempts += 1
        if held.attempts > 1 and not held.channel.usable and all(_never_arrived(verdict) for verdict in verdicts):
            # The other side closed a kept connection just as we used it: that says nothing about this message.
            self._try_again(held, lane, entry)
            return
        self._settle(lane, entry, verdicts, held.channel.description, held.channel)
        self._release(held)

    def _broken(self, failure: Failure, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        """A channel that fails where it may not is not used again; its entry must not be stuck for that."""
        self.log.failure("{id}: the channel by {via} failed", failure=failure, id=entry.id, via=held.channel.description)
        reply = Reply(451, "4.3.0", "Local error")
        self._settle(
            lane, entry, [Verdict(recipient, reply, remote=False) for recipient in entry.recipients], held.channel.description, held.channel
        )
        self._part(held)
        self.pump()

    def _try_again(self, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        lane.put_back(entry)
        self.offer(lane)
        self._release(held)

    def _release(self, held: _Held) -> None:
        """A channel is free: for the next entry, for later, or for nothing any more."""
        if self._stopped is not None or not held.channel.usable or self._budget.due_elsewhere(self, held.attempts):
            self._part(held)
            self.pump()
            return
        self._idle.append(held)
        self.pump()

    def _keep(self) -> None:
        """Keep the idle channels for a while, unless they are wanted elsewhere."""
        if self._budget.short:
            while self.give_up_idle():
                pass
            return
        self._budget.spare(self)
        if self._reaper is None:
            self._watch_idle()

    def _watch_idle(self) -> None:
        self._least_idle = len(self._idle)
        self._reaper = self._clock.callLater(IDLE_SECONDS, self._reap)

    def _reap(self) -> None:
        """Close the channels that were idle all the time: the first ones, as the last one is used first."""
        self._reaper = None
        for _ in range(min(self._least_idle, len(self._idle))):
            self._part(self._idle.pop(0))
        if self._idle and self._reaper is None:
            self._watch_idle()

    def give_up_idle(self) -> bool:
        """Close one idle channel; tells if there was one."""
        if not self._idle:
            return False
        held = self._idle.pop(0)
        self._least_idle = min(self._least_idle, len(self._idle))
        self._part(held)
        return True

    def _part(self, held: _Held) -> None:
        self._channels -= 1
        held.channel.close()
        self._budget.give_back(self)
        if self._stopped is not None and not self._channels and not self._stopped.called:
            self._stopped.callback(None)

    # -- stopping

    def stop(self) -> Deferred[None]:
        """Begin nothing new; fires when the attempts under way are through."""
        self._stopped = Deferred()
        for timer in (self._probe, self._reaper):
            if timer is not None:
                timer.cancel()
        self._probe = self._reaper = None
        while self.give_up_idle():
            pass
        if not self._channels and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped


def _never_arrived(verdict: Verdict) -> bool:
    return not verdict.remote and not verdict.handed_over and not verdict.reply.permanent
