"""Whose turn it is at a destination: the routes in turn, and of a route what has the highest priority and was due first.

However many messages one route has waiting, and for however many domains, another route's first one waits for one of its at the most. Of
one route first attempts go by priority (RFC 6710) and age, whatever domain they are for; what was put off goes in the same order among
itself, and has every second turn, so that much of it holds up no new mail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from lettermta.delivery.lane import LaneQueue

_SLACK = 64
"""Items of a line that may be out of date before it is made anew, at the least."""

_Place = tuple[int, float, int, str, int, LaneQueue]
"""Priority (the highest first), since when it is due, the number of the message, and the lane: its domain, and what tells it from one that
was forgotten since, of which a place that is out of date may still be there.
"""


class Rounds:
    """The lanes of one destination that have entries waiting."""

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: OrderedDict[str, _Route] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._routes)

    def __len__(self) -> int:
        return sum(len(route.places) for route in self._routes.values())

    def __iter__(self) -> Iterator[LaneQueue]:
        for route in self._routes.values():
            yield from route.places

    def add(self, lane: LaneQueue) -> None:
        """A lane begins to wait, or has another first entry."""
        route = self._routes.get(lane.lane.route_id)
        if route is None:
            route = self._routes[lane.lane.route_id] = _Route()
        route.add(lane)

    def remove(self, lane: LaneQueue) -> None:
        """A lane waits no more."""
        name = lane.lane.route_id
        places = self._routes[name].places
        del places[lane]
        if not places:
            del self._routes[name]

    def turn(self) -> LaneQueue:
        """The lane whose turn it is; its first entry is to be taken before the next turn."""
        name, route = next(iter(self._routes.items()))
        self._routes.move_to_end(name)
        return route.turn()


class _Route:
    """The lanes of one route, in two lines: those whose first entry is new, and those whose first entry was put off before.

    A lane's place in a line is that of the entry it was first with; where that is not its first entry any more, it is corrected when it
    comes to the head of the line.
    """

    __slots__ = ("_lines", "_next", "places")

    def __init__(self) -> None:
        self.places: dict[LaneQueue, _Place] = {}
        self._lines: tuple[list[_Place], list[_Place]] = ([], [])
        self._next = 0

    def add(self, lane: LaneQueue) -> None:
        place = _place(lane)
        if self.places.get(lane) == place:
            return
        self.places[lane] = place
        line = self._lines[_again(lane)]
        heappush(line, place)
        if len(line) > 2 * len(self.places) + _SLACK:
            line[:] = [one for one in line if self.places.get(one[-1]) is one]
            heapify(line)

    def turn(self) -> LaneQueue:
        # Looking for the head of one line may correct places into the other.
        for number in (self._next, 1 - self._next, self._next):
            lane = self._head(number)
            if lane is not None:
                self._next = 1 - number
                return lane
        raise AssertionError("a route without lanes is not here")

    def _head(self, number: int) -> LaneQueue | None:
        line = self._lines[number]
        while line:
            place = line[0]
            lane = place[-1]
            known = self.places.get(lane)
            if known is place and known == _place(lane) and _again(lane) == number:
                return lane
            heappop(line)
            if known is place:
                del self.places[lane]
                self.add(lane)
        return None


def _place(lane: LaneQueue) -> _Place:
    entry = lane.head
    return -entry.options.priority, entry.since, entry.number, lane.lane.domain, id(lane), lane


def _again(lane: LaneQueue) -> bool:
    return lane.head.recipients[0].attempts > 0
