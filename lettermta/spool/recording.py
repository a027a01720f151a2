"""What attempts came to, in a running spool: outcomes with their events, reports and suppressions, all of one attempt in one commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from lettermta.event import Event
from lettermta.message import FINAL, Attempt, Message, Outcome, QueueEntry
from lettermta.spool.attempts import rows_of
from lettermta.spool.fresh import FreshContent
from lettermta.spool.new_mail import NewMail
from lettermta.spool.statements import (
    ATTEMPT,
    EVENT,
    FINISH_CONTENT,
    FINISH_MESSAGE,
    FINISH_RECIPIENTS,
    UPDATE,
    finish_content,
    waits_of,
)
from lettermta.spool.suppressions import Suppressions, counted
from lettermta.spool.writer import Unit
from lettermta.suppression import Suppression


class Recording:
    """This part of ISpool. ``put`` queues a unit of work, ``remove_body`` removes a file that no row names."""

    def __init__(
        self,
        put: Callable[[Unit], Deferred[Any]],
        remove_body: Callable[[str | None], None],
        new: NewMail,
        fresh: FreshContent,
        suppressions: Suppressions,
    ) -> None:
        self._put = put
        self._remove_body = remove_body
        self._new = new
        self._fresh = fresh
        self.suppressions = suppressions

    def record(
        self,
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None = None,
        reports: Sequence[Message] = (),
        suppressions: Sequence[Suppression] = (),
    ) -> Deferred[None]:
        """See ISpool."""
        updates = [
            (o.state.value, o.due, int(o.handed_over), o.reply, o.first_deferred, int(o.warned), o.recipient.number) for o in outcomes
        ]
        told, rows = self._new.events(events)
        statements: list[tuple[int, Sequence[tuple[Any, ...]]]] = [(UPDATE, updates), (EVENT, rows)]
        if attempt is not None:
            statements.append((ATTEMPT, list(rows_of(entry.id, outcomes, attempt))))
        entries: list[QueueEntry] = []
        for report in reports:
            new = self._new.report(report)
            statements += new.rows
            entries += new.told[0]
        work = None
        waits: Sequence[tuple[Any, ...]] = ()
        if any(outcome.state in FINAL for outcome in outcomes):
            waits = waits_of(entry, outcomes)
            fresh = self._fresh.drop(entry.number)
            finished = ((entry.number,),)
            statements += [(FINISH_MESSAGE, finished), (FINISH_RECIPIENTS, finished)]
            if not fresh:
                work = finish_content(entry.number)
            else:
                statements.append((FINISH_CONTENT, finished))
        if suppressions:
            return self._record_and_suppress(statements, entries, told, work, suppressions, waits)
        unit = Unit(rows=statements, told=(entries, told), work=work, more=waits)
        done = self._put(unit)
        return done.addCallback(self._remove_body) if work is not None else done

    def tell(self, events: Sequence[Event], suppressions: Sequence[Suppression] = ()) -> Deferred[None]:
        """See ISpool."""
        told, rows = self._new.events(events)
        if suppressions:
            return self._record_and_suppress([(EVENT, rows)], (), told, None, suppressions)
        return self._put(Unit(rows=((EVENT, rows),), told=((), told)))

    def _record_and_suppress(
        self,
        statements: Sequence[tuple[int, Sequence[tuple[Any, ...]]]],
        entries: Sequence[QueueEntry],
        told: Sequence[tuple[int, Event]],
        finish: Callable[[sqlite3.Connection], str | None] | None,
        suppressions: Sequence[Suppression],
        waits: Sequence[tuple[Any, ...]] = (),
    ) -> Deferred[None]:
        """What an attempt came to, and in the same commit that nothing more is sent there."""
        suppress, events = self.suppressions.addition(suppressions)
        all_told = list(told)

        def work(connection: sqlite3.Connection) -> tuple[str | None, Sequence[Suppression]]:
            added = suppress(connection)
            all_told[len(told) :] = events
            return None if finish is None else finish(connection), added

        def done(result: tuple[str | None, Sequence[Suppression]]) -> None:
            self._remove_body(result[0])
            counted(result[1])

        return self._put(Unit(rows=statements, told=(entries, all_told), work=work, more=waits)).addCallback(done)
