"""The control socket: how the queue tools ask a running daemon.

A Unix socket of mode 0600 under ``state_dir``. One request a connection, a line of JSON: ``{"verb": …, …}``; the answer is a line of JSON
for each row, and at the end ``{"end": true}``, or ``{"error": …}`` in its place. Rows are fetched in pages, and the next page only when
the last one has been taken, so a reader that is slow costs no memory. A change goes on only while somebody waits for its end.
"""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IPushProducer, IReactorUNIX
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.event import Event
from lettermta.interfaces import ISpool, ISpoolListener
from lettermta.message import QueueEntry
from lettermta.ops.operations import NoSuch, Operations, rule_row
from lettermta.ops.suppressing import asked_for, reason_of, scope_of, suppression_row
from lettermta.spool.event_queries import event_row

SOCKET = "control.sock"
PAGE = 500
"""Rows fetched at a time."""


@implementer(ISpoolListener)
class Newest:
    """Wakes those that follow the events."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        """See ISpoolListener."""

    def events_stored(self, events: Sequence[tuple[int, Event]]) -> None:
        """See ISpoolListener."""
        self.wake()

    def next(self) -> Deferred[None]:
        """Fires when there may be more to read."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def wake(self) -> None:
        """Let all who wait look again."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)


class ControlFactory(Factory):
    """Answers on the control socket from the spool, and has ``operations`` done."""

    noisy = False

    def __init__(self, spool: ISpool, operations: Operations | None = None) -> None:
        self.spool = spool
        self.operations = operations
        self.newest = Newest()
        spool.subscribe(self.newest)

    def buildProtocol(self, addr: object) -> Any:
        """A protocol for one request."""
        protocol = ControlProtocol(self.spool, self.operations, self.newest)
        protocol.factory = self
        return protocol


def listen(reactor: IReactorUNIX, state_dir: Path, spool: ISpool, operations: Operations | None = None) -> IListeningPort:
    """Open the control socket; one that a killed daemon left behind is replaced (the spool's lock says that it is nobody's)."""
    path = state_dir / SOCKET
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return reactor.listenUNIX(str(path), ControlFactory(spool, operations), mode=0o600)
    finally:
        os.umask(before)


@implementer(IPushProducer)
class ControlProtocol(LineOnlyReceiver):
    """One request and its answer."""

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = 65_536
    transport: Any

    def __init__(self, spool: ISpool, operations: Operations | None, newest: Newest) -> None:
        self._spool = spool
        self._operations = operations
        self._newest = newest
        self._drained: Deferred[None] | None = None
        self._asked = False
        self._gone = False
        self._follows = False

    def connectionMade(self) -> None:
        """Be told when the reader can't keep up."""
        self.transport.registerProducer(self, True)

    def lineReceived(self, line: bytes) -> None:
        """Take the request; what comes behind it is nobody's."""
        if not self._asked:
            self._asked = True
            Deferred.fromCoroutine(self._answer(line))

    async def _answer(self, line: bytes) -> None:
        end: Mapping[str, Any]
        try:
            request = orjson.loads(line)
            verb: Callable[[Mapping[str, Any]], Awaitable[None]] = _VERBS[request["verb"]].__get__(self)
        except (ValueError, KeyError, TypeError) as fault:
            self._end({"error": f"not a request that this daemon knows: {fault}"})
            return
        try:
            await verb(request)
            end = {"end": True}
        except NoSuch as fault:
            end = {"error": str(fault), "no_such": True}
        except (KeyError, TypeError) as fault:
            end = {"error": f"not a request that this daemon knows: {fault}"}
        except ValueError as fault:
            end = {"error": str(fault)}
        except Exception as fault:
            self.log.failure("a request on the control socket failed")
            end = {"error": str(fault)}
        self._end(end)

    def _end(self, end: Mapping[str, Any]) -> None:
        if not self._gone:
            self._row(end)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    async def _list(self, request: Mapping[str, Any]) -> None:
        after = 0
        while not self._gone:
            rows = await self._spool.query(request["filters"], after, PAGE)
            for row in rows if self._operations is None else self._operations.told(rows):
                self._row(row)
            if len(rows) < PAGE:
                return
            after = rows[-1]["number"]
            if self._drained is not None:
                await self._drained

    async def _suppressions(self, request: Mapping[str, Any]) -> None:
        after = 0
        while not self._gone:
            found = await self._spool.suppressions.page(request["filters"], after, PAGE)
            for _, one in found:
                self._row(suppression_row(one))
            if len(found) < PAGE:
                return
            after = found[-1][0]
            if self._drained is not None:
                await self._drained

    async def _suppress(self, request: Mapping[str, Any]) -> None:
        added = await self._spool.suppressions.add(asked_for(request, time.time()), told=request["told"])
        self._row({"added": len(added)})

    async def _unsuppress(self, request: Mapping[str, Any]) -> None:
        scope = scope_of(request["scope"])
        for one in await self._spool.suppressions.remove(request["value"], scope, reason_of(request), time.time()):
            self._row(suppression_row(one))

    async def _show(self, request: Mapping[str, Any]) -> None:
        shown = await self._spool.message(request["id"])
        if shown is not None:
            told = self._operations
            self._row(shown if told is None else {**shown, "recipients": list(told.told(shown["recipients"]))})

    async def _count(self, request: Mapping[str, Any]) -> None:
        self._row({"count": await self._working.count(request)})

    async def _change(self, request: Mapping[str, Any]) -> None:
        async for count in self._working.steps(request):
            self._row({"changed": count})
            if self._gone:
                return

    async def _rules(self, request: Mapping[str, Any]) -> None:
        for rule in self._spool.hold_rules():
            self._row(rule_row(rule))

    async def _add_rule(self, request: Mapping[str, Any]) -> None:
        self._row(rule_row(await self._working.add_rule(request)))

    async def _drop_rule(self, request: Mapping[str, Any]) -> None:
        self._row({"dropped": await self._working.drop_rule(request["id"])})

    @property
    def _working(self) -> Operations:
        if self._operations is None:
            raise ValueError("this daemon changes nothing")
        return self._operations

    async def _destination(self, request: Mapping[str, Any]) -> None:
        self._row(self._working.destination(request))

    async def _trace(self, request: Mapping[str, Any]) -> None:
        for row in await self._spool.trace(request["id"]):
            self._row(row)

    async def _stats(self, request: Mapping[str, Any]) -> None:
        for row in await self._working.stats(request["by"], request["filters"]):
            self._row(row)

    async def _daily(self, request: Mapping[str, Any]) -> None:
        for row in await self._spool.daily(request["by"], request["since"], request["project"]):
            self._row(row)

    async def _content(self, request: Mapping[str, Any]) -> None:
        """The octets of a message in pieces, nothing where it is not in the queue, and ``damaged`` where they are not what was stored."""
        try:
            content = await self._spool.content_of(request["id"])
        except LookupError as fault:
            self._row({"damaged": str(fault)})
            return
        if content is None:
            return
        whole = content.whole()
        if whole is not None:
            self._octets(whole)
            return
        async for piece in content.pieces():
            self._octets(piece)
            if self._gone:
                return
            if self._drained is not None:
                await self._drained

    def _octets(self, octets: bytes) -> None:
        self._row({"octets": b64encode(octets).decode()})

    async def _events(self, request: Mapping[str, Any]) -> None:
        """Events behind a sequence number; with ``follow`` also those to come, as long as somebody listens."""
        after = request.get("after", 0)
        while not self._gone:
            more = self._newest.next()
            found = await self._spool.find_events(request["filters"], after, PAGE)
            for sequence, event in found:
                self._row(event_row(sequence, event))
                after = sequence
            if self._drained is not None:
                await self._drained
            if len(found) < PAGE:
                if not request.get("follow"):
                    return
                self._follows = True
                await more

    def _row(self, row: Mapping[str, Any]) -> None:
        self.transport.write(orjson.dumps(row) + b"\n")

    def pauseProducing(self) -> None:
        """See IPushProducer."""
        if self._drained is None:
            self._drained = Deferred()

    def resumeProducing(self) -> None:
        """See IPushProducer."""
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def stopProducing(self) -> None:
        """See IPushProducer."""
        self._gone = True
        self.resumeProducing()
        if self._follows:
            self._follows = False
            self._newest.wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The reader has gone."""
        self.stopProducing()


_VERBS: Mapping[str, Callable[..., Awaitable[None]]] = {
    "list": ControlProtocol._list,
    "show": ControlProtocol._show,
    "suppressions": ControlProtocol._suppressions,
    "suppress": ControlProtocol._suppress,
    "unsuppress": ControlProtocol._unsuppress,
    "count": ControlProtocol._count,
    "destination": ControlProtocol._destination,
    "change": ControlProtocol._change,
    "rules": ControlProtocol._rules,
    "add_rule": ControlProtocol._add_rule,
    "drop_rule": ControlProtocol._drop_rule,
    "trace": ControlProtocol._trace,
    "content": ControlProtocol._content,
    "stats": ControlProtocol._stats,
    "daily": ControlProtocol._daily,
    "events": ControlProtocol._events,
}
