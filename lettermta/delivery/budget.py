"""How many channels several destinations may have together: all of them, or those that lead to one receiver."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

TURN = 100
"""Attempts that a channel makes at least before it is given up for a destination that has none."""


class Claimant(Protocol):
    """Whoever takes channels: a destination."""

    def pump(self) -> None:
        """There may be room now."""

    def give_up_idle(self) -> bool:
        """Close one idle channel; tells if there was one."""


class ChannelBudget:
    """So many channels, and who has them.

    A destination that was refused its first one is told when there is room; while any waits for that, nobody keeps idle channels, and
    whoever has more than an equal share, or has had :data:`TURN` attempts out of a channel, gives it up.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._held: dict[Claimant, int] = {}
        self._refused: OrderedDict[Claimant, None] = OrderedDict()
        self._sparing: OrderedDict[Claimant, None] = OrderedDict()
        self._granting = False

    @property
    def limit(self) -> int:
        """How many there may be."""
        return self._limit

    @property
    def taken(self) -> int:
        """How many there are; for a while more than :attr:`limit`, when that came down."""
        return self._limit - self._free

    @property
    def short(self) -> bool:
        """Whether a destination waits for its first channel."""
        return bool(self._refused)

    @property
    def idle(self) -> bool:
        """Whether nobody has or wants one."""
        return not self._held and not self._refused

    def resize(self, limit: int) -> None:
        """Allow more or fewer from now on; who has one keeps it until it is released."""
        more = limit > self._limit
        self._free += limit - self._limit
        self._limit = limit
        if more:
            self._grant()

    def room(self, claimant: Claimant) -> bool:
        """Whether the claimant may take one more now; if not and it has none, it is told when it may."""
        if self._free <= 0:
            self._reclaim(claimant)
        if self._free > 0:
            return True
        if claimant not in self._held:
            self._refused[claimant] = None
        return False

    def take(self, claimant: Claimant) -> bool:
        """Take one, where there is room."""
        if not self.room(claimant):
            return False
        self._free -= 1
        self._held[claimant] = self._held.get(claimant, 0) + 1
        self._refused.pop(claimant, None)
        return True

    def give_back(self, claimant: Claimant) -> None:
        """One has been closed, or could not be opened."""
        self._held[claimant] -= 1
        if not self._held[claimant]:
            del self._held[claimant]
        self._free += 1
        self._grant()

    def spare(self, claimant: Claimant) -> None:
        """The claimant has a channel that it does not need now."""
        self._sparing[claimant] = None

    def forget(self, claimant: Claimant) -> None:
        """The claimant wants none any more."""
        self._refused.pop(claimant, None)
        self._sparing.pop(claimant, None)

    def due_elsewhere(self, claimant: Claimant, attempts: int) -> bool:
        """Whether a channel that has made so many attempts should be given up: for those who have none, or since there are too many."""
        if self._free < 0:
            return True
        if not self._refused:
            return False
        share = self._limit // (len(self._held) + len(self._refused))
        return attempts >= TURN or self._held[claimant] > max(share, 1)

    def _grant(self) -> None:
        if self._granting:
            return
        self._granting = True
        try:
            while self._free > 0 and self._refused:
                self._refused.popitem(last=False)[0].pump()
        finally:
            self._granting = False

    def _reclaim(self, claimant: Claimant) -> None:
        while self._sparing:
            spared = self._sparing.popitem(last=False)[0]
            if spared is not claimant and spared.give_up_idle():
                return
