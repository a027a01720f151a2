"""Where mail leaves from: local addresses with names of their own, in pools that routes choose.

A pool's sources are used in turn, a channel each. One that is being warmed up goes first as long as its plan has something left for the
receiver now, and after that only the others are used; so what is more than the plan overflows to the older ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from attrs import Factory, define, field, frozen

from lettermta.delivery.warm_up import Plan, WarmUp
from lettermta.message import Reply, Unreachable


@frozen
class Source:
    """Local addresses, one of each family at the most, and the name in EHLO. ``plan``: None for one that is not (or no more) new."""

    name: str
    addresses: tuple[str, ...]
    hostname: str
    plan: Plan | None = None

    def address_for(self, target: str) -> str | None:
        """The address from which ``target`` is reached, if there is one of its family."""
        version = ip_address(target.partition("%")[0]).version
        return next((each for each in self.addresses if ip_address(each).version == version), None)


@frozen
class Chosen:
    """A source for one channel. ``left``: how many messages its plan grants; None: any number. ``day``: the day that they are for."""

    source: Source
    left: int | None = None
    day: str = ""


@define(eq=False)
class SourcePool:
    """Sources in turn."""

    name: str
    sources: Sequence[Source]
    warm_up: WarmUp
    _turn: int = field(default=0, init=False)

    async def choose(self, receiver: str) -> Chosen:
        """A source for a channel to ``receiver``. Raises Unreachable when only new ones are there and their plans are used up for now."""
        older: list[Source] = []
        for source in self.sources:
            if source.plan is None or self.warm_up.over(source.name, source.plan):
                older.append(source)
                continue
            day = self.warm_up.today
            if granted := await self.warm_up.reserve(source.name, source.plan, receiver):
                return Chosen(source, granted, day)
        if not older:
            raise Unreachable(Reply(451, "4.3.2", f"The warm-up plans of pool {self.name} grant {receiver} no more for now"))
        self._turn += 1
        return Chosen(older[self._turn % len(older)])

    def give_back(self, receiver: str, chosen: Chosen, unused: int) -> None:
        """Of what was granted so many were not sent."""
        if chosen.left is not None and unused:
            self.warm_up.give_back(chosen.source.name, receiver, unused, chosen.day)

    def granted(self, chosen: Chosen) -> bool:
        """Whether what its plan granted may be used yet."""
        return chosen.day == self.warm_up.today


@frozen
class SourcePools:
    """All pools by their names; ``default`` is for routes that name none."""

    pools: dict[str, SourcePool] = Factory(dict)
    default: SourcePool | None = None
