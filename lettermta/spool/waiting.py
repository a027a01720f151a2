"""What waits in a running spool, as the scheduler asks for it; what makes no sense there is put into quarantine on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta import metrics
from lettermta.message import Lane, QueueEntry
from lettermta.spool import changes, queries, salvage
from lettermta.spool.damage import DamagedRecipient
from lettermta.spool.statements import QUARANTINE
from lettermta.spool.writer import Unit

HASTEN_ROWS = 5_000
"""Recipients that one commit makes due earlier at the most."""


class Waiting:
    """This part of ISpool. ``find`` asks the reader that the mail waits for, ``search`` the one for long questions; ``put`` queues a unit
    of work, ``damaged`` notes what can't be read.
    """

    log = Logger()

    def __init__(
        self,
        find: Callable[..., Deferred[Any]],
        search: Callable[..., Deferred[Any]],
        put: Callable[[Unit], Deferred[Any]],
        damaged: Callable[[str], None],
    ) -> None:
        self._find = find
        self._search = search
        self._put = put
        self._damaged = damaged
        self._newest = 0
        """The number of the last message that the listeners were told of."""

    def lanes(self) -> Deferred[Sequence[tuple[Lane, float]]]:
        """See ISpool."""
        return self._find(salvage.lanes).addCallback(self._lanes_found)

    def _lanes_found(self, found: tuple[Sequence[tuple[Lane, float]], str]) -> Sequence[tuple[Lane, float]]:
        lanes, wrong = found
        if wrong:
            self._damaged(f"the index of what is due can't be read: {wrong}")
        return lanes

    def due(self, lane: Lane, now: float, limit: int) -> Deferred[Sequence[QueueEntry]]:
        """See ISpool."""
        return self._find(salvage.due, lane, now, limit).addCallback(self._due_found, lane, now, limit)

    def _due_found(self, found: tuple[Sequence[QueueEntry], Sequence[DamagedRecipient], str], lane: Lane, now: float, limit: int) -> Any:
        entries, damaged, wrong = found
        if wrong:
            self._damaged(f"the index of what is due can't be read: {wrong}")
        # What a commit has stored and its listeners have not heard of yet is left out: the reader may see it before they do, and whoever
        # got it here and then as news would send it twice.
        entries = [entry for entry in entries if entry.number <= self._newest]
        if not damaged:
            return entries

        # Those in quarantine made room for others. Where that can't be written now, what is sound goes out all the same.
        def sound(failure: Failure) -> Sequence[QueueEntry] | Failure:
            return entries or failure

        return self._quarantine(damaged).addCallback(lambda _: self.due(lane, now, limit)).addErrback(sound)

    def next_due(self, lane: Lane, after: float) -> Deferred[float | None]:
        """See ISpool."""
        return self._find(queries.next_due, lane, after)

    def hasten(self, seconds: float, now: float) -> Deferred[int]:
        """See ISpool: :data:`HASTEN_ROWS` of them a commit, so that none takes long."""
        return Deferred.fromCoroutine(self._hasten(seconds, now))

    async def _hasten(self, seconds: float, now: float) -> int:
        count: int = 0
        after: int = 0
        found: int
        while True:
            work = partial(changes.hasten, seconds=seconds, now=now, after=after, limit=HASTEN_ROWS)
            found, after = await self._put(Unit(rows=(), work=work))
            count += found
            if found < HASTEN_ROWS:
                return count

    # -- quarantine

    def _quarantine(self, damaged: Sequence[DamagedRecipient]) -> Deferred[None]:
        """Take recipients that can't be attempted out of the queue, durably; they are never forgotten (HARD-CASES row 14)."""
        for one in damaged:
            self.log.error("recipient number {number} is put into quarantine: {reason}", number=one.number, reason=one.reason)
        unit = Unit(rows=((QUARANTINE, [(one.reason, one.number) for one in damaged]),))
        return self._put(unit).addCallback(lambda _: metrics.SPOOL_QUARANTINED.inc(len(damaged)))

    def look_for_unknown_states(self) -> None:
        """In the background, as it reads every recipient's row."""

        def found(damaged: Sequence[DamagedRecipient]) -> Deferred[None] | None:
            return self._quarantine(damaged) if damaged else None

        looked = self._search(salvage.unknown_states).addCallback(found)
        looked.addErrback(lambda failure: self._damaged(f"the states of the recipients could not be looked at: {failure.value}"))
