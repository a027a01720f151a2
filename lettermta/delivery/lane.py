"""A lane in memory: what of one domain's mail of one route is due and at hand.

Memory is bounded: a lane holds at most :data:`WINDOW` entries, the rest stays in the spool, and :attr:`LaneQueue.more` says that there is
some. A recipient is in hand from the moment its entry is taken in until its outcome is durable, and never taken in twice meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from lettermta.message import LOWEST, Lane, QueueEntry

WINDOW = 500
"""Entries of one lane in memory."""


class Hand:
    """What all lanes together have in hand: a recipient that is moved from one lane to another while it is under way is in both, by turns,
    and must not be taken in by the one while the other has it.
    """

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.asking: dict[object, set[int]] = {}
        """For whom the spool is being asked (lanes, and operators), with what was settled since."""


class LaneQueue:
    """The entries of one lane that wait for a channel, and the numbers of its recipients in hand."""

    def __init__(self, lane: Lane, hand: Hand | None = None) -> None:
        self.lane = lane
        self._hand = hand or Hand()
        self.elsewhere = False
        """What was last asked for had recipients in it that another lane has in hand."""
        self._stale = False
        """What is being asked for will not count."""
        self.more = False
        """The spool holds due recipients of this lane that are not in hand."""
        self.window = WINDOW
        """Entries that may wait here at once."""
        self.way: str | None = None
        """The name of the destination in whose round the lane is; None while nothing waits."""
        self.flow: str | None = None
        """The name of the flow of its last destination."""
        self._waiting: deque[QueueEntry] = deque()
        self._lowest = LOWEST
        """The priority of the last entry that waits."""
        self._left = LOWEST
        """The highest priority of what was left to the spool since that was last asked."""
        self._in_hand: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def in_hand(self) -> int:
        """How many recipients are waiting or under way."""
        return len(self._in_hand)

    @property
    def idle(self) -> bool:
        """Whether nothing of the lane is in hand or asked for."""
        return not self._in_hand and not self.asking

    @property
    def head(self) -> QueueEntry:
        """The next entry, where there is one."""
        return self._waiting[0]

    def passes(self, entry: QueueEntry) -> bool:
        """Whether the entry goes before some that wait: then it must not be left to the spool behind them."""
        return bool(self._waiting) and entry.options.priority > self._lowest

    def leave(self, entry: QueueEntry) -> None:
        """The entry is left to the spool."""
        self.more = True
        self._left = max(self._left, entry.options.priority)

    @property
    def overlooked(self) -> bool:
        """Whether something was left to the spool that goes before some that wait."""
        return bool(self._waiting) and self._left > self._lowest

    @property
    def full(self) -> bool:
        """Whether no more entries are to be taken in."""
        return len(self._waiting) >= self.window

    def add(self, entry: QueueEntry) -> None:
        """Take in an entry whose recipients are not in hand: behind all that wait, but before those of lower priority (RFC 6710)."""
        if entry.options.priority > self._lowest:
            self._insert(entry)
        else:
            self._waiting.append(entry)
            self._lowest = entry.options.priority
        self.take_in_hand(entry)

    def take_in_hand(self, entry: QueueEntry) -> None:
        """Have the entry's recipients in hand without waiting for a channel."""
        for recipient in entry.recipients:
            self._in_hand.add(recipient.number)
            self._hand.numbers.add(recipient.number)

    def forget(self) -> int:
        """Let go of what waits, and of what is being asked for: the spool knows better now. Returns how many entries waited."""
        dropped = len(self._waiting)
        for entry in self._waiting:
            self._let_go(entry)
        self._waiting.clear()
        self._lowest = LOWEST
        self._stale = self.asking
        return dropped

    def _insert(self, entry: QueueEntry) -> None:
        place = len(self._waiting)
        while place and self._waiting[place - 1].options.priority < entry.options.priority:
            place -= 1
        self._waiting.insert(place, entry)

    def put_back(self, entry: QueueEntry) -> None:
        """Have an entry that was taken tried next."""
        self._waiting.appendleft(entry)

    def take(self) -> QueueEntry:
        """The next entry."""
        entry = self._waiting.popleft()
        if not self._waiting:
            self._lowest = LOWEST
        return entry

    def take_those(self, wanted: Callable[[QueueEntry], bool]) -> list[QueueEntry]:
        """The entries that are wanted, out of their turn."""
        taken: list[QueueEntry] = []
        left: deque[QueueEntry] = deque()
        for entry in self._waiting:
            (taken if wanted(entry) else left).append(entry)
        if taken:
            self._waiting = left
            self._lowest = self._waiting[-1].options.priority if self._waiting else LOWEST
        return taken

    def shed(self, keep: int) -> int:
        """Leave all but the first ``keep`` entries to the spool, and take in no more than that; returns how many were left."""
        self.window = max(keep, 1)  # what is put back must not be lost to the next one
        before = len(self._waiting)
        while len(self._waiting) > keep:
            self._let_go(self._waiting.pop())
            self.more = True
        self._lowest = self._waiting[-1].options.priority if self._waiting else LOWEST
        return before - len(self._waiting)

    def settle(self, entry: QueueEntry) -> None:
        """The entry's outcome is durable."""
        numbers = self._let_go(entry)
        for settled in self._hand.asking.values():
            settled.update(numbers)

    def _let_go(self, entry: QueueEntry) -> list[int]:
        numbers = [recipient.number for recipient in entry.recipients]
        self._in_hand.difference_update(numbers)
        self._hand.numbers.difference_update(numbers)
        return numbers

    # -- refilling from the spool

    @property
    def asking(self) -> bool:
        """Whether the spool has been asked and has not answered yet."""
        return self in self._hand.asking

    def ask(self) -> None:
        """The spool is being asked. What is settled until it answers may still look due in its answer, which was read before."""
        self._hand.asking[self] = set()
        self._left = LOWEST
        self.more = self.elsewhere = self._stale = False

    def answered(self, entries: Iterable[QueueEntry]) -> int:
        """Take in what the spool found due, less what is in hand or was settled meanwhile; returns the number of recipients it found."""
        settled = self._hand.asking.pop(self, set())
        if self._stale:
            self.more = True
            return 0
        found = 0
        in_hand = self._hand.numbers
        for entry in entries:
            found += len(entry.recipients)
            self.elsewhere |= any(r.number in in_hand and r.number not in self._in_hand for r in entry.recipients)
            entry.recipients = [r for r in entry.recipients if r.number not in in_hand and r.number not in settled]
            if entry.recipients:
                self.add(entry)
        return found
