"""Whose turn it is at a destination: the routes in turn, and of a route its lanes in turn.

However many messages one route has waiting, and for however many domains, another route's first one waits for one of its at the most.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from lettermta.delivery.lane import LaneQueue


class Rounds:
    """The lanes of one destination that have entries waiting."""

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: OrderedDict[str, deque[LaneQueue]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._routes)

    def __len__(self) -> int:
        return sum(map(len, self._routes.values()))

    def __iter__(self) -> Iterator[LaneQueue]:
        for lanes in self._routes.values():
            yield from lanes

    def add(self, lane: LaneQueue) -> None:
        """A lane begins to wait."""
        route = lane.lane.route_id
        lanes = self._routes.get(route)
        if lanes is None:
            self._routes[route] = deque((lane,))
        else:
            lanes.append(lane)

    def remove(self, lane: LaneQueue) -> None:
        """A lane waits no more."""
        route = lane.lane.route_id
        self._routes[route].remove(lane)
        if not self._routes[route]:
            del self._routes[route]

    def turn(self) -> LaneQueue:
        """The lane whose turn it is; it has another one once all others had theirs, unless it is removed."""
        route, lanes = next(iter(self._routes.items()))
        self._routes.move_to_end(route)
        lane = lanes[0]
        lanes.rotate(-1)
        return lane
