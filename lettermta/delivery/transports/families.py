"""IPv6 and IPv4: in which order a host's addresses are tried, and what is remembered when one of the two does not work here.

The families alternate, IPv6 first (RFC 8305 section 4), so that one that fails costs one attempt. A family without a route, or that let
several connections in a row time out, is tried last for a while, by everyone.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define
from twisted.internet.interfaces import IReactorTime

AVOID_SECONDS = 60.0
"""How long a family that does not work is tried last."""
MOST_SILENT = 3
"""Connections of one family in a row that time out before it counts as not working."""


@define(eq=False)
class Families:
    """What was seen of both families lately."""

    _avoided: dict[bool, float] = Factory(dict)
    _silent: dict[bool, int] = Factory(dict)

    def order(self, clock: IReactorTime, addresses: Sequence[str]) -> list[str]:
        """A host's addresses, as they are to be tried."""
        six = [address for address in addresses if ":" in address]
        four = [address for address in addresses if ":" not in address]
        now = clock.seconds()
        if self._avoided.get(True, now) > now and self._avoided.get(False, now) <= now:
            return [*four, *six]
        if self._avoided.get(False, now) > now and self._avoided.get(True, now) <= now:
            return [*six, *four]
        pairs = min(len(six), len(four))
        alternating = [address for pair in zip(six, four, strict=False) for address in pair]
        return [*alternating, *six[pairs:], *four[pairs:]]

    def no_route(self, clock: IReactorTime, address: str) -> None:
        """There is no way to addresses like this one."""
        self._avoided[":" in address] = clock.seconds() + AVOID_SECONDS

    def silent(self, clock: IReactorTime, address: str) -> None:
        """A connection timed out."""
        family = ":" in address
        self._silent[family] = self._silent.get(family, 0) + 1
        if self._silent[family] >= MOST_SILENT:
            self.no_route(clock, address)

    def works(self, address: str) -> None:
        """A connection stands."""
        family = ":" in address
        self._silent.pop(family, None)
        self._avoided.pop(family, None)
