"""A destination: the channels that lead to one place, and the lanes that share them in turn.

Channels are opened while more waits than is free, up to a limit, and are kept for a while when nothing waits. When none can be opened,
what waits is told so, and the destination is probed again by one attempt after a growing pause, not by each message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.lane import LaneQueue
from lettermta.interfaces import IChannel, IStoredContent, ITransport
from lettermta.message import QueueEntry, Reply, Unreachable, Verdict

MAX_CHANNELS = 20
"""Channels of one destination at once."""
IDLE_SECONDS = 10.0
"""How long a channel is kept when nothing waits."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a destination that could not be reached is probed again: the first pause, doubled each time up to the longest."""

Load = Callable[[QueueEntry], Deferred[IStoredContent]]
Settle = Callable[[LaneQueue, QueueEntry, Sequence[Verdict], str], None]
"""Told what an attempt came to; the last argument says by which channel."""
Lost = Callable[[LaneQueue, QueueEntry, str], None]
"""Told that an entry has no content to send."""


class ChannelBudget:
    """How many channels all destinations may have together; a destination that was refused one is told when there is room again."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._refused: deque[Destination] = deque()

    def take(self, destination: Destination) -> bool:
        """Whether one more may be opened."""
        if self._free > 0:
            self._free -= 1
            return True
        if destination not in self._refused:
            self._refused.append(destination)
        return False

    def give_back(self) -> None:
        """One has been closed."""
        self._free += 1
        if self._refused:
            self._refused.popleft().pump()


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
        self._lanes: deque[LaneQueue] = deque()
        self._idle: list[IChannel] = []
        self._uses: dict[IChannel, int] = {}
        self._opening = 0
        self._pause = 0.0
        self._probe: IDelayedCall | None = None
        self._reaper: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    @property
    def unused(self) -> bool:
        """Whether nothing waits for it, leads to it, or is being opened."""
        return not (self._lanes or self._uses or self._opening or self._probe)

    def offer(self, lane: LaneQueue) -> None:
        """Serve a lane that has entries waiting."""
        if not lane.offered:
            lane.offered = True
            self._lanes.append(lane)
        self.pump()

    def pump(self) -> None:
        """Send what can be sent, and open a channel where more waits than is free."""
        if self._stopped is not None:
            return
        while self._lanes and (channel := self._free_channel()):
            self._attempt(channel, *self._next())
        if self._probe is None:
            self._open_more()

    def _free_channel(self) -> IChannel | None:
        while self._idle:
            channel = self._idle.pop()
            if channel.usable:
                return channel
            self._part(channel)
        return None

    def _next(self) -> tuple[LaneQueue, QueueEntry]:
        """The next entry; its lane goes to the end of the round."""
        lane = self._lanes.popleft()
        entry = lane.take()
        if len(lane):
            self._lanes.append(lane)
        else:
            lane.offered = False
        return lane, entry

    # -- opening

    def _open_more(self) -> None:
        wanted = 0
        for lane in self._lanes:
            wanted += len(lane)
            if wanted > MAX_CHANNELS:
                break
        while self._opening < wanted and len(self._uses) + self._opening < MAX_CHANNELS:
            # After a failure one channel probes, and the others follow it.
            if (self._pause and self._opening) or not self._budget.take(self):
                return
            self._opening += 1
            self._transport.open().addCallbacks(self._opened, self._not_opened)

    def _opened(self, channel: IChannel) -> None:
        self._opening -= 1
        self._pause = 0.0
        self._uses[channel] = 0
        self._release(channel)

    def _not_opened(self, failure: Failure) -> None:
        self._opening -= 1
        self._budget.give_back()
        if isinstance(failure.value, Unreachable):
            reply, remote = failure.value.reply, failure.value.remote
        else:
            self.log.failure("opening a channel to {name} failed", failure=failure, name=self.name)
            reply, remote = Reply(451, "4.3.0", "Local error"), False
        if self._stopped is not None or self._uses:
            return  # the channels that are there go on with what waits
        if not reply.permanent:
            self._pause = min(self._pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
            if self._probe is None:
                self._probe = self._clock.callLater(self._pause, self._probe_now)
        waiting = [self._next() for _ in range(sum(map(len, self._lanes)))]
        for lane, entry in waiting:
            self._settle(lane, entry, [Verdict(recipient, reply, remote) for recipient in entry.recipients], self.name)

    def _probe_now(self) -> None:
        self._probe = None
        self.pump()

    # -- attempts

    def _attempt(self, channel: IChannel, lane: LaneQueue, entry: QueueEntry) -> None:
        self._load(entry).addCallbacks(self._send, self._not_loaded, (channel, lane, entry), {}, (channel, lane, entry))

    def _send(self, content: IStoredContent, channel: IChannel, lane: LaneQueue, entry: QueueEntry) -> None:
        if not channel.usable:
            lane.put_back(entry)
            self._release(channel)
            self.offer(lane)
            return
        channel.send(entry, content).addCallback(self._sent, channel, lane, entry)

    def _not_loaded(self, failure: Failure, channel: IChannel, lane: LaneQueue, entry: QueueEntry) -> None:
        if not isinstance(failure.value, LookupError):
            self.log.failure("the content of {id} could not be read", failure=failure, id=entry.id)
            reply = Reply(451, "4.3.0", "The content could not be read from the spool")
            self._settle(lane, entry, [Verdict(recipient, reply, remote=False) for recipient in entry.recipients], self.name)
        else:
            self._lost(lane, entry, str(failure.value))
        self._release(channel)

    def _sent(self, verdicts: Sequence[Verdict], channel: IChannel, lane: LaneQueue, entry: QueueEntry) -> None:
        reused = self._uses[channel] > 0
        self._uses[channel] += 1
        if reused and not channel.usable and all(_never_arrived(verdict) for verdict in verdicts):
            # The other side closed a kept connection just as we used it: that says nothing about this message.
            lane.put_back(entry)
            self._release(channel)
            self.offer(lane)
            return
        self._settle(lane, entry, verdicts, channel.description)
        self._release(channel)

    def _release(self, channel: IChannel) -> None:
        """A channel is free: for the next entry, for later, or for nothing any more."""
        if self._stopped is not None or not channel.usable:
            self._part(channel)
        elif self._lanes:
            self._attempt(channel, *self._next())
            return
        else:
            self._idle.append(channel)
            if self._reaper is None:
                self._reaper = self._clock.callLater(IDLE_SECONDS, self._reap, len(self._idle))
        self.pump()

    def _reap(self, before: int) -> None:
        """Close the channels that were idle all the time."""
        self._reaper = None
        for _ in range(min(before, len(self._idle))):
            self._part(self._idle.pop(0))
        if self._idle:
            self._reaper = self._clock.callLater(IDLE_SECONDS, self._reap, len(self._idle))

    def _part(self, channel: IChannel) -> None:
        del self._uses[channel]
        channel.close()
        self._budget.give_back()
        if self._stopped is not None and not self._uses and not self._stopped.called:
            self._stopped.callback(None)

    # -- stopping

    def stop(self) -> Deferred[None]:
        """Begin nothing new; fires when the attempts under way are through."""
        self._stopped = Deferred()
        for timer in (self._probe, self._reaper):
            if timer is not None and timer.active():
                timer.cancel()
        while self._idle:
            self._part(self._idle.pop())
        if not self._uses and not self._stopped.called:
            self._stopped.callback(None)
        return self._stopped


def _never_arrived(verdict: Verdict) -> bool:
    return not verdict.remote and not verdict.handed_over and not verdict.reply.permanent
