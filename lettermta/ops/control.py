"""The control socket: how the queue tools ask a running daemon.

A Unix socket of mode 0600 under ``state_dir``. One request a connection, a line of JSON: ``{"verb": …, …}``; the answer is a line of JSON
for each row, and at the end ``{"end": true}``, or ``{"error": …}`` in its place. Rows are fetched in pages, and the next page only when
the last one has been taken, so a reader that is slow costs no memory.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
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

from lettermta.interfaces import ISpool

SOCKET = "control.sock"
PAGE = 500
"""Rows fetched at a time."""


class ControlFactory(Factory):
    """Answers on the control socket from the spool."""

    noisy = False

    def __init__(self, spool: ISpool) -> None:
        self.spool = spool

    def buildProtocol(self, addr: object) -> Any:
        """A protocol for one request."""
        protocol = ControlProtocol(self.spool)
        protocol.factory = self
        return protocol


def listen(reactor: IReactorUNIX, state_dir: Path, spool: ISpool) -> IListeningPort:
    """Open the control socket; one that a killed daemon left behind is replaced (the spool's lock says that it is nobody's)."""
    path = state_dir / SOCKET
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        return reactor.listenUNIX(str(path), ControlFactory(spool), mode=0o600)
    finally:
        os.umask(before)


@implementer(IPushProducer)
class ControlProtocol(LineOnlyReceiver):
    """One request and its answer."""

    log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = 65_536
    transport: Any

    def __init__(self, spool: ISpool) -> None:
        self._spool = spool
        self._drained: Deferred[None] | None = None
        self._asked = False
        self._gone = False

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
            await verb(request)
            end = {"end": True}
        except (orjson.JSONDecodeError, KeyError, TypeError) as fault:
            end = {"error": f"not a request that this daemon knows: {fault}"}
        except Exception as fault:
            self.log.failure("a request on the control socket failed")
            end = {"error": str(fault)}
        if not self._gone:
            self._row(end)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    async def _list(self, request: Mapping[str, Any]) -> None:
        after = 0
        while not self._gone:
            rows = await self._spool.query(request["filters"], after, PAGE)
            for row in rows:
                self._row(row)
            if len(rows) < PAGE:
                return
            after = rows[-1]["number"]
            if self._drained is not None:
                await self._drained

    async def _show(self, request: Mapping[str, Any]) -> None:
        shown = await self._spool.message(request["id"])
        if shown is not None:
            self._row(shown)

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

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The reader has gone."""
        self.stopProducing()


_VERBS: Mapping[str, Callable[..., Awaitable[None]]] = {"list": ControlProtocol._list, "show": ControlProtocol._show}
