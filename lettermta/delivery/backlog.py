"""What attempts came to that is not on record yet: while there is too much of it, no more of them begin.

It bounds memory where attempts are faster than the spool's commits (mail that is thrown away takes no time at all), and how many messages
a crash can make arrive twice, also while the disk takes nothing.
"""

from __future__ import annotations

from collections import OrderedDict

from lettermta.delivery.budget import Claimant


class Backlog:
    """Counts attempts from their end to their commit, and tells who had to wait when there is room again, in the order of asking."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._waiting: OrderedDict[Claimant, None] = OrderedDict()

    def open(self, claimant: Claimant) -> bool:
        """Whether an attempt may begin now; if not, the claimant is told when it may."""
        if self._count < self._most:
            return True
        self._waiting[claimant] = None
        return False

    def add(self) -> None:
        """One is over."""
        self._count += 1

    def remove(self) -> None:
        """One is on record."""
        self._count -= 1
        if self._waiting and self._count < self._most:
            self._waiting.popitem(last=False)[0].pump()

    def forget(self, claimant: Claimant) -> None:
        """The claimant wants nothing any more."""
        self._waiting.pop(claimant, None)
