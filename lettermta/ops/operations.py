"""What an operator asks of the queue: changes in steps, so that the mail goes on between them, and standing rules.

A request is a mapping as it comes over the control socket: ``operation``, ``filters`` and what the operation needs. What is asked wrongly
raises ValueError, KeyError or NoSuch with words for the operator. After each step delivery looks again at the lanes that it touched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from lettermta.accounts.directory import Directory
from lettermta.interfaces import ISpool
from lettermta.message import Change, Changed, HoldRule, Lane, Operation, QueueEntry, Reply, State
from lettermta.spool.figures import LANE, merged

STEP = 500
"""Recipients of one commit."""
DESTINATION = "destination"
"""What is counted by where delivery is asked which lanes share one."""
BOUNCE = "bounce"
"""The operation that needs delivery, which judges and tells."""


class NoSuch(Exception):
    """There is nothing of the name that was asked for; the text says what."""


class Delivery(Protocol):
    """What is asked of the scheduler."""

    def reread(self, lanes: Iterable[Lane]) -> None:
        """Look again at these lanes."""

    def hurry(self, lanes: Iterable[Lane]) -> None:
        """The same, and without waiting for destinations that were out of reach."""

    async def bounce(self, asked: Deferred[tuple[Sequence[QueueEntry], int | None]], reply: Reply) -> tuple[int, int | None, bool]:
        """End the recipients that the spool is asked for by the reply: how many, where it goes on, whether to ask for the same again."""

    def look(self, lane: Lane, key: str, flow: str) -> Mapping[str, object]:
        """How a destination stands."""

    def refusal(self, lane: Lane) -> str | None:
        """Why what is due in a lane is not tried, where its destination can't be reached."""

    def destination_of(self, lane: Lane) -> str:
        """The name of the destination that a lane's mail goes to, as far as that is known."""


def change_of(request: Mapping[str, Any], now: float) -> Change:
    """The change that a request is for; for bouncing one that is for the same recipients. Raises ValueError."""
    name = request["operation"]
    operation = Operation.REMOVE if name == BOUNCE else Operation(name)
    reason = request.get("reason") or ("held by the operator" if operation is Operation.HOLD else "")
    return Change(operation, now, reason, request.get("rule"))


class Operations:
    """The operations of a running daemon."""

    def __init__(self, spool: ISpool, delivery: Delivery, directory: Directory, now: Callable[[], float]) -> None:
        self._spool = spool
        self._delivery = delivery
        self._directory = directory
        self._now = now

    def count(self, request: Mapping[str, Any]) -> Deferred[int]:
        """How many recipients the request is for."""
        return self._spool.count(self._change(request), request["filters"])

    async def stats(self, by: str, filters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """What is in the queue, counted by destination too."""
        if by != DESTINATION:
            return await self._spool.figures(by, filters)
        rows = await self._spool.figures(LANE, filters)
        lanes = [(row, Lane(row["route_id"], row["domain"])) for row in rows]
        return merged([{**row, by: self._delivery.destination_of(lane)} for row, lane in lanes], by)

    def told(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Rows of recipients, with ``not_tried`` in those that wait behind a destination which can't be reached: what that one said."""
        now = self._now()
        refusals: dict[tuple[str, str], str | None] = {}
        for row in rows:
            if row["attempts"] or row["state"] != State.QUEUED or row["due"] > now:
                yield row
                continue
            key = row["route_id"], row["domain"]
            if key not in refusals:
                refusals[key] = self._delivery.refusal(Lane(*key))
            yield row if refusals[key] is None else {**row, "not_tried": refusals[key]}

    async def steps(self, request: Mapping[str, Any]) -> AsyncIterator[int]:
        """Do what is asked, and tell after each step how many recipients it changed."""
        if request["operation"] == BOUNCE:
            async for count in self._bounce(request):
                yield count
            return
        change = self._change(request)
        after: int | None = 0
        while after is not None:
            changed: Changed = await self._spool.change(change, request["filters"], after, STEP)
            look = self._delivery.hurry if change.operation is Operation.RETRY else self._delivery.reread
            look(changed.lanes)
            yield changed.count
            after = changed.last

    async def _bounce(self, request: Mapping[str, Any]) -> AsyncIterator[int]:
        reply = Reply(550, "5.7.1", f"{request.get('reason') or 'Returned to the sender'} (by the operator)")
        after: int | None = 0
        while after is not None:
            asked = self._spool.entries(request["filters"], after, STEP)
            count, following, again = await self._delivery.bounce(asked, reply)
            yield count
            after = after if again else following

    def destination(self, request: Mapping[str, Any]) -> Mapping[str, object]:
        """How the destination of a lane stands; ``key`` and ``flow`` say what it is called where its hosts have been looked up."""
        return self._delivery.look(Lane(request["route_id"], request["domain"]), request["key"], request["flow"])

    def _change(self, request: Mapping[str, Any]) -> Change:
        change = change_of(request, self._now())
        if change.operation is not Operation.REROUTE:
            return change
        project = self._directory.project_by_slug(request["filters"]["project"])
        route = None if project is None else self._directory.route(project.id, request["to"])
        if project is None or route is None:
            raise NoSuch(f"there is no project {request['filters']['project']} with a route {request['to']}")
        return Change(change.operation, change.moment, project_id=project.id, route_id=route.id, route=route.slug)

    def add_rule(self, request: Mapping[str, Any]) -> Deferred[HoldRule]:
        """Add the standing rule that is asked for. New mail meets it at once, what is there is held by a change of its own."""
        return self._spool.add_hold_rule(request["conditions"], request.get("reason") or "", self._now())

    def drop_rule(self, identifier: int) -> Deferred[bool]:
        """End a standing rule. What it holds is released by a change of its own."""
        return self._spool.drop_hold_rule(identifier)


def rule_row(rule: HoldRule) -> Mapping[str, Any]:
    """A standing rule as it is shown."""
    return {"id": rule.id, "where": dict(rule.conditions), "reason": rule.reason, "created": rule.created}
