"""A destination: the channels that lead to one place, and the lanes that share them in turn.

Channels are opened while more waits than is free, as far as the flow and the budget of all destinations allow, and are kept for a while
when nothing waits. When none can be opened, the first few that wait are put off by that; the others wait on, untouched, until the
destination is probed again after a growing pause, by one connection. So a dead destination costs a record a minute, whatever waits for
it, and all of that goes out as soon as it is back. What has outlived its time meanwhile, or is so late that its sender is to hear of it,
is told so without a probe of its own. What the receiver says about us, and not about one message, is the flow's to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.backlog import Backlog
from lettermta.delivery.budget import ChannelBudget
from lettermta.delivery.crowded_out import crowded_out
from lettermta.delivery.flow import Flow
from lettermta.delivery.lane import LaneQueue
from lettermta.delivery.reach import Reach
from lettermta.delivery.rounds import Rounds
from lettermta.delivery.shaping import Limits
from lettermta.delivery.suppressing import NobodyLeft
from lettermta.delivery.way import Elsewhere
from lettermta.interfaces import IChannel, IStoredContent, ITransport
from lettermta.message import QueueEntry, Reply, Unreachable, Verdict

CROWD = 1_000
"""Lanes of one destination that are too many to hold a window of each."""
TOLD = 10
"""Entries of a dead destination that are put off at once: whoever looks at a small queue finds the reason with each message. Behind these
each probe that fails puts off one more, so that a thousand dead destinations cost little.
"""
FIRST_CHANNELS = 2
"""Channels that are opened at once to a destination that none leads to: it may be one that takes none."""

Trace = Mapping[str, object]
NOTHING: Trace = {}


class IRecorder(Protocol):
    """Whoever knows what is to be sent, and what becomes of it."""

    backlog: Backlog

    def load(self, lane: LaneQueue, entry: QueueEntry) -> Deferred[IStoredContent]:
        """The content of an entry, which may have fewer recipients then; fails with NobodyLeft when it would have none."""

    def settle(
        self, lane: LaneQueue, entry: QueueEntry, verdicts: Sequence[Verdict], via: str, channel: IChannel | None, trace: Trace = NOTHING
    ) -> object:
        """An attempt is over; ``via`` says by which way, ``trace`` has its details, ``channel`` is the channel where there was one."""

    def lost(self, lane: LaneQueue, entry: QueueEntry, reason: str) -> None:
        """An entry has no content to send."""

    def overdue(self, entry: QueueEntry) -> bool:
        """Whether an entry that can't be sent now has to be told of: its lifetime is over, or its sender is to hear of the delay."""


class IQueue(Protocol):
    """What a destination asks of the scheduler."""

    def split(self) -> None:
        """An entry has become two."""

    def serve(self, lane: LaneQueue) -> None:
        """Bring what waits in the lane to where it goes now, which may be another destination."""


@define(eq=False)
class _Held:
    """A channel, how many attempts it has made, and how many are under way: a second one goes behind the first one's content."""

    channel: IChannel
    attempts: int = 0
    under_way: int = 0
    broken: bool = False


@frozen
class _Refusal:
    """Why no channel could be opened: what was said, by the other side or (not ``remote``) by us, what was tried, and when that began."""

    reply: Reply
    remote: bool
    trace: Trace
    began: float


class Destination:
    """Where the mail of one or more lanes goes."""

    log = Logger()

    def __init__(
        self,
        name: str,
        transport: ITransport,
        flow: Flow,
        limits: Limits,
        clock: IReactorTime,
        budget: ChannelBudget,
        recorder: IRecorder,
        queue: IQueue,
    ) -> None:
        self.name = name
        self.flow = flow
        self.limits = limits
        flow.users += 1
        self._transport = transport
        self._clock = clock
        self._budget = budget
        self._recorder = recorder
        self._queue = queue
        self._lanes = Rounds()
        self._idle: list[_Held] = []
        self._roomy: list[_Held] = []
        """Those that have one attempt under way, and room for another one behind it."""
        self._least_idle = 0
        """The fewest that were idle since the reaper was last here: so many were idle all the time."""
        self._channels = 0
        self._opening = 0
        self._reach = Reach(clock, self.pump)
        self._refusal: _Refusal | None = None
        """Why it could not be reached when that was last tried; None once it could."""
        self._told = 0
        """Entries that were put off by that."""
        self._reaper: IDelayedCall | None = None
        self._pumping = False
        self._stopped: Deferred[None] | None = None

    def reshape(self, transport: ITransport, limits: Limits) -> None:
        """Follow other limits from now on: channels by ``transport``, which leads to the same place."""
        self._transport = transport
        self.limits = limits
        self.flow.reshape(limits)

    @property
    def unused(self) -> bool:
        """Whether nothing waits for it, leads to it, or is being opened."""
        return not (self._lanes or self._channels or self._opening or self._reaper)

    @property
    def remembered(self) -> bool:
        """Whether it is known that it could not be reached a while ago."""
        return self._reach.remembered

    @property
    def channels(self) -> int:
        """How many are open."""
        return self._channels

    def shown(self) -> Mapping[str, object]:
        """How it stands, for operators; times are seconds from now."""
        return {
            "channels": self._channels,
            "opening": self._opening,
            "lanes_waiting": len(self._lanes),
            "probe_in": self._reach.probe_in,
            "refusal": self.refusal,
        }

    @property
    def refusal(self) -> str | None:
        """What was said when it could not be reached, as long as it can't."""
        return None if self._refusal is None else str(self._refusal.reply)

    @property
    def waiting(self) -> list[LaneQueue]:
        """The lanes that have entries waiting."""
        return list(self._lanes)

    @property
    def in_doubt(self) -> bool:
        """Whether mail waits for it that may wait for long: no channel leads to it, its flow is held back, or there is a crowd."""
        return bool(self._lanes) and (not self._channels or self.flow.held_back or self.crowded)

    @property
    def crowded(self) -> bool:
        """Whether more lanes wait than all of memory has room for a window of."""
        return len(self._lanes) > CROWD

    @property
    def failing(self) -> bool:
        """Whether it could not be reached when that was last tried, or lets less through than there is."""
        return (self._reach.lost and not self._channels) or self.flow.held_back or self.crowded

    def shed(self, keep: int) -> tuple[int, list[LaneQueue]]:
        """Leave what waits here to the spool, but for about ``keep`` entries of as many lanes as that makes.

        Returns how many were left, and the lanes that have nothing here any more.
        """
        each = max(keep // len(self._lanes), 1)
        lanes = list(self._lanes)
        left = sum([lane.shed(each) for lane in lanes[:keep]])
        for lane in lanes[keep:]:
            left += lane.shed(0)
            self.withdraw(lane)
        return left, lanes[keep:]

    def offer(self, lane: LaneQueue) -> None:
        """Serve a lane that has entries waiting."""
        begins = lane.way is None
        lane.way = self.name
        self._lanes.add(lane)
        if begins and self._refusal is not None:
            self._refuse_overdue(lane, self._refusal)
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
                while self._lanes and self._may_begin() and (held := self._free_channel()):
                    self._attempt(held, *self._next())
                if self._open_one():
                    continue
                if not (self._roomy and not self._opening and self._lanes and self._may_begin()):
                    break
                self._attempt(self._roomy.pop(0), *self._next())
        finally:
            self._pumping = False
        if self._idle:
            self._keep()

    def _may_begin(self) -> bool:
        return self.flow.open(self) and self._recorder.backlog.open(self)

    def _free_channel(self) -> _Held | None:
        while self._idle:
            held = self._idle.pop()
            self._least_idle = min(self._least_idle, len(self._idle))
            if held.channel.usable:
                return held
            self._part(held)
        return None

    def _next(self) -> tuple[LaneQueue, QueueEntry]:
        """The next entry, or as much of it as one transaction may have; its lane goes to the end of the round."""
        lane = self._lanes.turn()
        entry = lane.take()
        most = self.limits.recipients_per_message
        if len(entry.recipients) > most:
            lane.put_back(evolve(entry, recipients=entry.recipients[most:]))
            entry = evolve(entry, recipients=entry.recipients[:most])
            self._queue.split()
        if not len(lane):
            self.withdraw(lane)
        return lane, entry

    # -- opening

    def _open_one(self) -> bool:
        """Begin to open one more channel, when more waits than is being opened."""
        if self._reach.left_alone or not self._lacking():
            return False
        # After a failure one channel probes, and the others follow it.
        if (self._reach.lost and self._opening) or (not self._channels and self._opening >= FIRST_CHANNELS):
            return False
        if not self._may_begin() or not self._take():
            return False
        self._opening += 1
        self._transport.open().addCallbacks(self._opened, self._not_opened, (), {}, (self._clock.seconds(),))
        return True

    def _take(self) -> bool:
        budgets = (self.flow.budget, self._budget)
        # Both or none: what one gave and the other refused would have to be given back. Asking one may take from the other.
        for budget in budgets:
            if not budget.room(self):
                return False
        if not all(budget.room(self) for budget in budgets):
            return False
        for budget in budgets:
            budget.take(self)
        return True

    def _give_back(self) -> None:
        self.flow.budget.give_back(self)
        self._budget.give_back(self)

    def _lacking(self) -> bool:
        waiting = 0
        for lane in self._lanes:
            waiting += len(lane)
            if waiting > self._opening:
                return True
        return False

    def _opened(self, channel: IChannel) -> None:
        self._opening -= 1
        self._forget_refusal()
        self._channels += 1
        self._free(_Held(channel))

    def _forget_refusal(self) -> None:
        self._reach.reached()
        self._refusal = None
        self._told = 0

    def _not_opened(self, failure: Failure, began: float) -> None:
        self._opening -= 1
        if isinstance(failure.value, Elsewhere):
            self._move()
            return
        if isinstance(failure.value, Unreachable):
            reply, remote, trace = failure.value.reply, failure.value.remote, failure.value.trace
            said = failure.value.said
            self.flow.refused(said or reply, remote or said is not None, failure.value.host)
        else:
            self.log.failure("opening a channel to {name} failed", failure=failure, name=self.name)
            reply, remote, trace = Reply(451, "4.3.0", "Local error"), False, NOTHING
        alone = not self._opening and not self._channels
        if self._stopped is None:
            if self._opening:
                # Another one may have better luck, and the last one decides; no more are begun meanwhile.
                self._reach.doubt()
            elif self._channels or not reply.permanent:
                self._reach.lose()
        self._give_back()
        if self._stopped is not None or not alone:
            return  # the channels that are there go on with what waits
        refusal = _Refusal(reply, remote, trace, began)
        if reply.permanent:
            waiting = []
            while self._lanes:
                waiting.append(self._next())
            for lane, entry in waiting:
                self._refuse(lane, entry, refusal)
            return
        self._refusal = refusal
        for _ in range(max(TOLD - self._told, 1)):
            if self._lanes:
                self._told += 1
                self._refuse(*self._next(), refusal)
        for lane in list(self._lanes):
            if lane.way == self.name:  # recording what became of one may have moved others
                self._refuse_overdue(lane, refusal)

    def _refuse(self, lane: LaneQueue, entry: QueueEntry, refusal: _Refusal) -> None:
        entry.began = refusal.began
        verdicts = [Verdict(recipient, refusal.reply, refusal.remote, general=True) for recipient in entry.recipients]
        self._recorder.settle(lane, entry, verdicts, self.name, None, refusal.trace)

    def _refuse_overdue(self, lane: LaneQueue, refusal: _Refusal) -> None:
        overdue = lane.take_those(self._recorder.overdue)
        if overdue and not len(lane):
            self.withdraw(lane)
        for entry in overdue:
            self._refuse(lane, entry, refusal)

    def _move(self) -> None:
        self._give_back()
        self._forget_refusal()
        if self._stopped is None:
            for lane in list(self._lanes):
                self._queue.serve(lane)

    def hurry(self) -> None:
        """Probe now, if a pause is on."""
        self._reach.hurry()

    # -- attempts

    def _attempt(self, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        self.flow.begin(1)
        held.under_way += 1
        entry.began = self._clock.seconds()
        self._recorder.load(lane, entry).addCallbacks(self._send, self._not_loaded, (held, lane, entry), {}, (held, lane, entry))

    def _send(self, content: IStoredContent, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        if held.channel.usable:
            attempt = held.channel.send(entry, content, partial(self._room, held))
            attempt.addCallbacks(self._sent, self._broken, (held, lane, entry), {}, (held, lane, entry))
        else:
            self._try_again(held, lane, entry)

    def _not_loaded(self, failure: Failure, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        if isinstance(failure.value, NobodyLeft):
            pass  # what became of them is on its way to the record
        elif not isinstance(failure.value, LookupError):
            self.log.failure("the content of {id} could not be read", failure=failure, id=entry.id)
            reply = Reply(451, "4.3.0", "The content could not be read from the spool")
            self._recorder.settle(lane, entry, [Verdict(recipient, reply, remote=False) for recipient in entry.recipients], self.name, None)
        else:
            self._recorder.lost(lane, entry, str(failure.value))
        self._release(held)

    def _room(self, held: _Held) -> None:
        """One more entry may go behind the one that is under way on a channel."""
        if self._stopped is None and held.under_way == 1 and not self._due_elsewhere(held.attempts):
            self._roomy.append(held)
            self.pump()

    def _sent(self, verdicts: Sequence[Verdict], held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        held.attempts += 1
        if held.attempts > 1 and held.channel.ended and all(_never_arrived(verdict) for verdict in verdicts):
            # The other side closed a kept connection, or took its leave by 421 (RFC 5321 section 3.8), just as we used it: that says
            # nothing about this message, though it may say something about us.
            if verdicts[0].remote:
                self.flow.refused(verdicts[0].reply, True, held.channel.host)
            self._try_again(held, lane, entry)
            return
        verdicts, left = crowded_out(entry, verdicts)
        for part in reversed(left):
            self._queue.split()
            lane.put_back(part)
        self.flow.told(verdicts, held.channel.host)
        self._recorder.settle(lane, entry, verdicts, held.channel.description, held.channel, held.channel.details)
        if left:
            self._queue.serve(lane)
        self._release(held)

    def _broken(self, failure: Failure, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        """A channel that fails where it may not is not used again; its entry must not be stuck for that."""
        self.log.failure("{id}: the channel by {via} failed", failure=failure, id=entry.id, via=held.channel.description)
        reply = Reply(451, "4.3.0", "Local error")
        self._recorder.settle(
            lane, entry, [Verdict(recipient, reply, remote=False) for recipient in entry.recipients], held.channel.description, held.channel
        )
        held.broken = True
        self._release(held)

    def _try_again(self, held: _Held, lane: LaneQueue, entry: QueueEntry) -> None:
        lane.put_back(entry)
        self._queue.serve(lane)  # its mail may go another way by now
        self._release(held)

    def _release(self, held: _Held) -> None:
        """An attempt on a channel is over."""
        held.under_way -= 1
        if held in self._roomy:
            self._roomy.remove(held)
        if held.under_way:
            self.pump()
        else:
            self._free(held)

    def _free(self, held: _Held) -> None:
        """A channel is free: for the next entry, for later, or for nothing any more."""
        if self._stopped is not None or held.broken or not held.channel.usable or self._due_elsewhere(held.attempts):
            self._part(held)
            self.pump()
            return
        self._idle.append(held)
        self.pump()

    def _due_elsewhere(self, attempts: int) -> bool:
        return self.flow.budget.due_elsewhere(self, attempts) or self._budget.due_elsewhere(self, attempts)

    def _keep(self) -> None:
        """Keep the idle channels for a while, unless they are wanted elsewhere."""
        if self._budget.short or self.flow.budget.short:
            while self.give_up_idle():
                pass
            return
        self._budget.spare(self)
        self.flow.budget.spare(self)
        if self._reaper is None:
            self._watch_idle()

    def _watch_idle(self) -> None:
        self._least_idle = len(self._idle)
        self._reaper = self._clock.callLater(self.limits.idle_time, self._reap)

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
        self._give_back()
        if self._stopped is not None and not self._channels and not self._stopped.called:
            self._stopped.callback(None)

    # -- stopping

    def retire(self) -> None:
        """Want nothing of anybody any more."""
        self._reach.stop()
        self.flow.forget(self)
        self._budget.forget(self)
        self._recorder.backlog.forget(self)
        self.flow.users -= 1

    def stop(self) -> Deferred[None]:
        """Begin nothing new; fires when the attempts under way are through."""
        self._stopped = Deferred()
        self.retire()
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self.give_up_idle():
            pass
        if not self._channels and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped


def _never_arrived(verdict: Verdict) -> bool:
    return not verdict.handed_over and not verdict.reply.permanent and (not verdict.remote or verdict.reply.code == 421)
