"""Lanes of receivers for which more waits than may be held in memory: left to the spool, and fetched one by one as theirs goes through.

One receiver may have mail of ten thousands of domains waiting, and be slow or left alone: what waits for it must not take the room of
everybody else (HARD-CASES row 35). Promises nothing by itself about when a lane comes back: who holds one here looks at it again some time.
"""

from __future__ import annotations

from collections import OrderedDict

from lettermta.message import Lane


class Crowds:
    """By the name of a flow, the lanes that wait for a place, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, OrderedDict[Lane, None]] = {}
        self._called: set[Lane] = set()
        """Those whose turn has come, and which have not been admitted yet."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, flow: str) -> bool:
        return flow in self._waiting

    def hold(self, flow: str, lane: Lane) -> int:
        """A lane waits for a place; returns how many do."""
        waiting = self._waiting.setdefault(flow, OrderedDict())
        waiting[lane] = None
        return len(waiting)

    def admits(self, lane: Lane) -> bool:
        """Whether the lane's turn has come; once for each time that it has."""
        called = lane in self._called
        self._called.discard(lane)
        return called

    def next(self, flow: str) -> Lane | None:
        """The lane whose turn it is now, if one waits."""
        waiting = self._waiting.get(flow)
        if waiting is None:
            return None
        lane, _ = waiting.popitem(last=False)
        self._called.add(lane)
        if not waiting:
            del self._waiting[flow]
        return lane

    def leave(self, flow: str, lane: Lane) -> None:
        """The lane's turn has come if it waits, whoever is before it."""
        waiting = self._waiting.get(flow)
        if waiting is not None and lane in waiting:
            del waiting[lane]
            self._called.add(lane)
            if not waiting:
                del self._waiting[flow]
