"""Suppressions in memory: what :class:`~lettermta.interfaces.ISuppressions` promises. Every Deferred has fired when it is returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from lettermta import event
from lettermta.event import Event
from lettermta.interfaces import ISuppressions
from lettermta.spool.suppression_rows import events_of
from lettermta.suppression import AppliesTo, Mailing, Scope, Suppression, SuppressionReason, values_of


@implementer(ISuppressions)
class MemorySuppressions:
    """The suppressions of a :class:`~lettermta.testing.spool.MemorySpool`; ``broken`` makes every question fail with the error given."""

    def __init__(self, commit: Callable[[Sequence[Any], Sequence[Event]], None]) -> None:
        self.kept: dict[tuple[str, str, SuppressionReason], Suppression] = {}
        self.broken: Exception | None = None
        self._commit = commit

    def possible(self, addresses: Sequence[str]) -> Sequence[str]:
        """All of them, when there is anything."""
        return addresses if self.kept or self.broken else ()

    def find(self, mailing: Mailing, addresses: Sequence[str]) -> Deferred[Mapping[str, Suppression]]:
        """Which of the addresses are suppressed."""
        if self.broken is not None:
            return fail(self.broken)
        return succeed({address: one for address in addresses if (one := self._hit(mailing, address))})

    def _hit(self, mailing: Mailing, address: str) -> Suppression | None:
        values = values_of(address)
        hits = [
            one
            for one in self.kept.values()
            if one.value in values
            and one.scope.key in ("", mailing.project_id, mailing.route_id)
            and (mailing.broadcast or one.applies_to is AppliesTo.ALL)
        ]
        return min(hits, key=lambda one: list(SuppressionReason).index(one.reason), default=None)

    def page(self, filters: Mapping[str, str], after: int, limit: int) -> Deferred[Sequence[tuple[int, Suppression]]]:
        """The suppressions behind number ``after``; of the filters it knows ``scope``, ``value`` and ``reason``."""
        if self.broken is not None:
            return fail(self.broken)
        known: Mapping[str, Callable[[Suppression], str]] = {
            "scope": lambda one: one.scope.key,
            "value": lambda one: one.value,
            "reason": lambda one: one.reason.value,
        }
        numbered = [
            (number, one)
            for number, one in enumerate(self.kept.values(), 1)
            if number > after and all(known[name](one) == wanted for name, wanted in filters.items() if name in known)
        ]
        return succeed(numbered[:limit])

    def add(self, suppressions: Sequence[Suppression], *, told: bool = True) -> Deferred[Sequence[Suppression]]:
        """Add what is not there."""
        before = set(self.kept)
        events = self.keep(suppressions)
        self._commit([], events if told else [])
        return succeed([one for key, one in self.kept.items() if key not in before])

    def keep(self, suppressions: Sequence[Suppression]) -> list[Event]:
        """Add what is not there, within somebody's commit; returns the events of it."""
        added = []
        for one in suppressions:
            key = (one.value, one.scope.key, one.reason)
            known = self.kept.get(key)
            if known is None or known.applies_to is not one.applies_to:
                self.kept[key] = one if known is None else evolve(one, id=known.id)
                added.append(self.kept[key])
        return events_of(event.SUPPRESSION_ADDED, added, added[0].created) if added else []

    def remove(self, value: str, scope: Scope, reason: SuppressionReason | None, moment: float) -> Deferred[Sequence[Suppression]]:
        """Remove a value from a scope."""
        keys = [key for key in self.kept if key[:2] == (value, scope.key) and reason in (None, key[2])]
        removed = [self.kept.pop(key) for key in keys]
        self._commit([], events_of(event.SUPPRESSION_REMOVED, removed, moment))
        return succeed(removed)
