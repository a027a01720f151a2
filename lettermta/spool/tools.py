"""What the queue tools ask of a running spool: looking, changing in steps, standing rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lettermta.event import Event
from lettermta.message import Change, Changed, HoldRule, QueueEntry
from lettermta.spool import changes, daily, event_queries, figures, queries, salvage
from lettermta.spool.fresh import FreshContent
from lettermta.spool.new_mail import NewMail
from lettermta.spool.writer import Unit


class Tools:
    """This part of ISpool. ``look`` asks a reader, ``put`` queues a unit of work, ``remove_body`` removes a file that no row names."""

    def __init__(
        self,
        look: Callable[..., Deferred[Any]],
        put: Callable[[Unit], Deferred[Any]],
        remove_body: Callable[[str | None], None],
        new: NewMail,
        fresh: FreshContent,
    ) -> None:
        self._look = look
        self._put = put
        self._remove_body = remove_body
        self._new = new
        self._fresh = fresh
        self._next_rule = 1

    def query(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._look(salvage.recipients, filters, after, limit)

    def message(self, identifier: str) -> Deferred[Mapping[str, Any] | None]:
        """See ISpool."""
        return self._look(salvage.message, identifier)

    def count(self, change: Change, filters: Mapping[str, Any]) -> Deferred[int]:
        """See ISpool."""
        return self._look(changes.count, change, filters)

    def change(self, change: Change, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Changed]:
        """See ISpool. They are chosen by a reader, so that a filter which few rows pass does not hold up the writer."""
        chosen = self._look(changes.choose, change, filters, after, limit)
        return chosen.addCallback(self._change_chosen, change, limit)

    def _change_chosen(self, numbers: Sequence[int], change: Change, limit: int) -> Changed | Deferred[Changed]:
        if not numbers:
            return Changed(0, None)
        sequence = self._new.reserve_events(len(numbers))
        told: list[tuple[int, Event]] = []

        def work(connection: sqlite3.Connection) -> changes.Applied:
            applied = changes.apply(connection, change, numbers, sequence)
            told[:] = applied.events
            return applied

        def applied(result: changes.Applied) -> Changed:
            for number in result.gone:
                self._fresh.drop(number)
            for name in result.files:
                self._remove_body(name)
            return Changed(result.count, numbers[-1] if len(numbers) >= limit else None, frozenset(result.lanes))

        return self._put(Unit(rows=(), told=((), told), work=work)).addCallback(applied)

    def entries(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[tuple[Sequence[QueueEntry], int | None]]:
        """See ISpool."""
        return self._look(salvage.entries, filters, after, limit)

    def hold_rules(self) -> Sequence[HoldRule]:
        """See ISpool."""
        return tuple(self._new.rules)

    def add_hold_rule(self, conditions: Mapping[str, str], reason: str, moment: float) -> Deferred[HoldRule]:
        """See ISpool. Raises ValueError when the conditions are none. What is stored behind it is held in its commit."""
        rule = changes.new_hold_rule(self._next_rule, conditions, reason, moment)
        self._next_rule += 1
        self._new.rules.append(rule)

        def failed(failure: Failure) -> Failure:
            self._new.rules.remove(rule)
            return failure

        added = self._put(Unit(rows=(), work=lambda connection: changes.add_hold_rule(connection, rule)))
        return added.addCallbacks(lambda _: rule, failed)

    def drop_hold_rule(self, identifier: int) -> Deferred[bool]:
        """See ISpool."""

        def dropped(there_was: bool) -> bool:
            self._new.rules = [rule for rule in self._new.rules if rule.id != identifier]
            return there_was

        work = Unit(rows=(), work=lambda connection: changes.drop_hold_rule(connection, identifier))
        return self._put(work).addCallback(dropped)

    def trace(self, message_id: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._look(queries.trace, message_id)

    def figures(self, by: str, filters: Mapping[str, Any]) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._look(figures.figures, by, filters)

    def daily(self, by: str, since: float, project: str | None) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._look(daily.figures, by, since, project)

    def find_events(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._look(event_queries.find_events, filters, after, limit)
