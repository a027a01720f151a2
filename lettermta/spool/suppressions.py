"""Suppressions as the daemon asks for them, and changes them, in the reactor's thread.

Of nearly every address it is known from memory, in some microseconds, that nothing keeps mail from it; only for the others is the database
asked, in a thread that reads. Memory is two octets for each suppression. A change is one commit with its events, and holds for every
question asked after its Deferred has fired; the memory learns of it before, so that in between the database decides.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from lettermta import event, metrics
from lettermta.event import Event
from lettermta.interfaces import ISuppressions
from lettermta.spool import suppression_rows
from lettermta.spool.key_filter import KeyFilter
from lettermta.spool.writer import Unit
from lettermta.suppression import Mailing, Scope, Suppression, SuppressionReason, values_of

Ask = Callable[..., Deferred[Any]]
"""Runs a function of a connection, with arguments, in a reading thread."""


@implementer(ISuppressions)
class Suppressions:
    """The suppressions of one spool. ``ask`` answers soon, ``ask_at_leisure`` may be kept by a long question; ``put`` queues a unit for the
    writer, ``reserve`` gives the first of so many numbers for events.
    """

    log = Logger()

    def __init__(self, ask: Ask, ask_at_leisure: Ask, put: Callable[[Unit], Deferred[Any]], reserve: Callable[[int], int]) -> None:
        self._ask = ask
        self._ask_at_leisure = ask_at_leisure
        self._put = put
        self._reserve = reserve
        self._filter: KeyFilter | None = None
        """None until all values have been read: so long the database is asked for every address."""
        self._meanwhile: list[str] | None = None
        """What was added while they are being read, or None while they aren't."""

    def start(self) -> None:
        """Begin to learn what there is, in the background."""
        self._learn([])

    def _learn(self, expected: Sequence[str]) -> None:
        """Read all values. What was queued before is committed by then, and what is queued from now on is noted, as is ``expected``."""
        self._meanwhile = list(expected)
        behind_all = self._put(Unit(rows=()))
        behind_all.addCallback(lambda _: self._ask_at_leisure(_filter_of_all)).addCallbacks(self._learned, self._not_learned)

    def _learned(self, found: KeyFilter) -> None:
        meanwhile, self._meanwhile = self._meanwhile or [], None
        for value in meanwhile:
            found.add(value)
        self._filter = found

    def _not_learned(self, failure: Any) -> None:
        """The database goes on to be asked for every address; what it can't answer then is told there."""
        self._meanwhile = None
        self.log.error("suppressions can't be read: {reason}", reason=failure.getErrorMessage())

    def expect(self, values: Sequence[str]) -> None:
        """These may be there from now on."""
        if self._meanwhile is not None:
            self._meanwhile += values
        known = self._filter
        if known is None:
            return
        for value in values:
            known.add(value)
        if known.count > known.capacity and self._meanwhile is None:
            self._learn(values)

    # -- asking

    def possible(self, addresses: Sequence[str]) -> Sequence[str]:
        """See ISuppressions."""
        known = self._filter
        if known is None:
            if self._meanwhile is None:
                self.start()  # it failed before
            return addresses
        if not known.count:
            return ()
        return [address for address in addresses if any(value in known for value in values_of(address))]

    def find(self, mailing: Mailing, addresses: Sequence[str]) -> Deferred[Mapping[str, Suppression]]:
        """See ISuppressions."""
        return self._ask(suppression_rows.find, mailing, addresses)

    def page(self, filters: Mapping[str, str], after: int, limit: int) -> Deferred[Sequence[tuple[int, Suppression]]]:
        """See ISuppressions."""
        return self._ask_at_leisure(suppression_rows.page, filters, after, limit)

    # -- changing

    def add(self, suppressions: Sequence[Suppression], *, told: bool = True) -> Deferred[Sequence[Suppression]]:
        """See ISuppressions."""
        change, events = self.addition(suppressions, told=told)
        # Many at once are new mail's equal: not while there is no room.
        unit = Unit(rows=(), told=([], events), work=change, new=0 if len(suppressions) > 1 else None)
        return self._put(unit).addCallback(counted)

    def addition(
        self, suppressions: Sequence[Suppression], *, told: bool = True
    ) -> tuple[Callable[[sqlite3.Connection], Sequence[Suppression]], list[tuple[int, Event]]]:
        """Work for the writer, to be done within the transaction that what they came of is written in, and the events that it will have
        made then.
        """
        self.expect([one.value for one in suppressions])
        events: list[tuple[int, Event]] = []
        sequence = self._reserve(len(suppressions)) if told else 0

        def work(connection: sqlite3.Connection) -> Sequence[Suppression]:
            added = suppression_rows.add(connection, suppressions)
            if told and added:
                new = suppression_rows.events_of(event.SUPPRESSION_ADDED, added, suppressions[0].created)
                events[:] = suppression_rows.write_events(connection, new, sequence)
            return added

        return work, events

    def remove(self, value: str, scope: Scope, reason: SuppressionReason | None, moment: float) -> Deferred[Sequence[Suppression]]:
        """See ISuppressions. What is gone may stay possible in memory: then the database says that it is gone."""
        events: list[tuple[int, Event]] = []
        sequence = self._reserve(len(SuppressionReason))

        def work(connection: sqlite3.Connection) -> Sequence[Suppression]:
            removed = suppression_rows.remove(connection, value, scope, reason)
            new = suppression_rows.events_of(event.SUPPRESSION_REMOVED, removed, moment)
            events[:] = suppression_rows.write_events(connection, new, sequence)
            return removed

        return self._put(Unit(rows=(), told=([], events), work=work)).addCallback(_count, metrics.SUPPRESSIONS_REMOVED)

    async def measure(self) -> None:
        """Set the gauges."""
        for reason, number in (await self._ask_at_leisure(suppression_rows.count)).items():
            metrics.SUPPRESSIONS[reason.value].set(number)


def counted(added: Sequence[Suppression]) -> Sequence[Suppression]:
    """Count what is durable now."""
    return _count(added, metrics.SUPPRESSIONS_ADDED)


def _count(changed: Sequence[Suppression], family: metrics.Family[Any]) -> Sequence[Suppression]:
    for one in changed:
        family[one.reason.value].inc()
    return changed


def _filter_of_all(connection: sqlite3.Connection) -> KeyFilter:
    """All there is, in a filter with room for half as much again."""
    number = connection.execute("SELECT COUNT(*) FROM suppression").fetchone()[0]
    found = KeyFilter(number + number // 2)
    for value in suppression_rows.values(connection):
        found.add(value)
    return found
