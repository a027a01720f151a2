"""The daemon's end: a sink of the outbox that hands events to the process that sends them (:mod:`lettermta.webhook_sender`).

Webhooks are sent by a process of their own, at a lower priority, so that neither the requests nor a backlog of them takes time or memory
from the mail. It is started when there is a webhook; when it dies it is started again, and what it had not put on the disk is told to it
again: ``sync`` fails, and with it the place in the outbox stays where it was. When the daemon dies, the process sees its socket closed and
ends.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.accounts.webhooks import Webhook
from lettermta.event import Event
from lettermta.events.sink import Backoff, IEventSink, SinkFailed
from lettermta.events.webhooks.frames import Frames, Kind, packed

MODULE = "lettermta.webhook_sender"
DESCRIPTOR = 3
"""Where the process finds its end of the pair of sockets."""
MOST_UNTAKEN = 4_194_304
"""Octets of events that may be on their way to the process; beyond that the outbox waits."""
WATCH_SECONDS = 1.0
"""How often it is looked whether a process is needed and missing."""
MOST_FAILURES = 3
"""Times in a row that the process may end before health tells of it."""
STUCK_SECONDS = 60.0
"""How long it may take over a sync, or over taking events, before it counts as stuck and is killed."""
END_SECONDS = 8.0
"""How long it may take to end when it is told to, before it is killed."""


@implementer(IEventSink)
class WebhookSink:
    """Has webhooks told. ``webhooks`` gives all there are, ``settings`` is what the process is told first, as JSON; ``gone`` is called
    with a webhook that was switched off for a 410.
    """

    name = "webhooks"
    batch = 500
    _log = Logger()

    def __init__(
        self,
        webhooks: Callable[[], Mapping[str, Webhook]],
        settings: Mapping[str, Any],
        gone: Callable[[Webhook], object],
        reactor: Any,
    ) -> None:
        self._gone = gone
        self.retry = Backoff(first=1.0, most=30.0)
        self.failing: Mapping[str, str] = {}
        """What is wrong with endpoints that have been failing for a while, by the webhooks' ids."""
        self._webhooks = webhooks
        self._settings = settings
        self._reactor = reactor
        self._frames: Frames | None = None
        self._process: Any = None
        self._ended: Deferred[None] = succeed(None)
        self._limit: IDelayedCall | None = None
        """Kills one that is to end and doesn't."""
        self._lost = False
        """Whether a process died that had events which were not synced."""
        self._unsynced = False
        self._known: Mapping[str, Webhook] | None = None
        self._on = False
        self._untaken = 0
        self._room: Deferred[None] | None = None
        self._synced: Deferred[None] | None = None
        self._renewing = False
        """Whether the process was told to end so that another one takes over."""
        self._failures = 0
        """Times in a row that it ended before it had synced anything."""
        self._start_at = 0.0
        self._counted: dict[str, int] = {}
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    # -- IEventSink

    def open(self) -> Deferred[None]:
        """Start the process if there is anything for it to do."""
        self._watch.start(WATCH_SECONDS, now=True)
        return succeed(None)

    def deliver(self, events: Sequence[tuple[int, Event]]) -> Deferred[int]:
        """Hand the events over; waits only while too much of what was handed over before is not taken."""
        if not self._anyone():
            return succeed(len(events))
        self._look()
        if self._lost or self._frames is None:
            return succeed(0)
        body = packed([event.payload for _, event in events])
        self._unsynced = True
        self._untaken += len(body)
        self._frames.send(Kind.EVENTS, body)
        if self._untaken <= MOST_UNTAKEN:
            return succeed(len(events))
        room = self._room = Deferred()
        stuck = self._reactor.callLater(STUCK_SECONDS, self._kill)
        return room.addBoth(_canceling, stuck).addCallback(lambda _: len(events))

    def sync(self) -> Deferred[None]:
        """Fires when the process has on the disk what was handed over; fails when one died that had not."""
        if self._lost:
            self._lost = False
            return fail(SinkFailed("the process that sends webhooks died"))
        if self._frames is None or not self._unsynced:
            return succeed(None)
        synced = self._synced = Deferred()
        stuck = self._reactor.callLater(STUCK_SECONDS, self._kill)
        self._frames.send(Kind.SYNC)
        return synced.addBoth(_canceling, stuck)

    def close(self) -> Deferred[None]:
        """Have the process end."""
        if self._watch.running:
            self._watch.stop()
        self._part()
        return self._ended

    def _anyone(self) -> bool:
        """Whether any webhook is on; looked for anew only when accounts have changed."""
        webhooks = self._webhooks()
        if webhooks is not self._known:
            self._known, self._on = webhooks, any(webhook.disabled is None for webhook in webhooks.values())
        return self._on

    def renew(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings: where there is a process, it ends in good order and another one takes over."""
        if settings != self._settings:
            self._settings = settings
            if self._frames is not None:
                self._renewing = True
                self._part()

    # -- the process

    @property
    def pid(self) -> int | None:
        """The process's number, or None while there is none."""
        return None if self._process is None else self._process.pid

    def _look(self) -> None:
        wanted = self._process is None and self._watch.running and self._webhooks()
        if wanted and self._reactor.seconds() >= self._start_at:
            self._try_to_start()

    def _try_to_start(self) -> None:
        try:
            self._start()
        except OSError as error:  # too many open files, or no memory for another process
            self._failures += 1
            self._start_at = self._reactor.seconds() + self.retry.delay(self._failures)
            self._log.error("the process that sends webhooks can't be started: {error}; it is tried again", error=error)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, open(os.devnull, "rb") as nothing:
                self._process = self._reactor.spawnProcess(
                    _Ending(self._died),
                    sys.executable,
                    [sys.executable, "-P", "-m", MODULE],
                    env=dict(os.environ),
                    childFDs={0: nothing.fileno(), 1: 1, 2: 2, DESCRIPTOR: theirs.fileno()},
                )
            self._ended = Deferred()
            ours.setblocking(False)
            frames = Frames(self._received, self._closed)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: frames))
        self._frames = frames
        frames.send(Kind.SETTINGS, orjson.dumps(self._settings))

    def _part(self) -> None:
        """Have it end."""
        if self._frames is not None:
            self._frames.transport.loseConnection()
        self._limit_end()

    def _limit_end(self) -> None:
        """From now on it has so long to end."""
        if self._process is not None and self._limit is None:
            self._limit = self._reactor.callLater(END_SECONDS, self._kill)

    def _received(self, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.TAKEN:
                self._untaken -= int(body)
                if self._room is not None and self._untaken <= MOST_UNTAKEN:
                    room, self._room = self._room, None
                    room.callback(None)
            case Kind.SYNCED:
                self._unsynced = self._untaken > 0
                self._failures = 0
                if self._synced is not None:
                    synced, self._synced = self._synced, None
                    synced.callback(None)
            case Kind.LOG:
                level, text = body.decode().split("\n", 1)
                self._log.emit(LogLevel.levelWithName(level), "{text}", text=text)
            case Kind.GONE:
                if (webhook := self._webhooks().get(body.decode())) is not None:
                    self._gone(webhook)
            case Kind.CONDITION:
                self._told(orjson.loads(body))

    def _told(self, condition: Mapping[str, Any]) -> None:
        """Count what the process has counted since it was heard last."""
        for status, count in condition["attempts"].items():
            metrics.WEBHOOK_ATTEMPTS[status].inc(count - self._counted.get(status, 0))
        self._counted = condition["attempts"]
        self.failing = condition["failing"]
        metrics.WEBHOOK_PENDING.set(condition["pending"])
        metrics.WEBHOOK_OLDEST_SECONDS.set(condition["oldest"])
        metrics.WEBHOOKS_FAILING.set(len(self.failing))

    def _closed(self) -> None:
        """The process is gone or going: what it had not synced counts as lost."""
        self._lost = self._lost or self._unsynced
        self._unsynced = False
        self._untaken = 0
        self._counted = {}
        self._frames = None
        self._limit_end()
        room, self._room = self._room, None
        synced, self._synced = self._synced, None
        if room is not None:
            room.callback(None)
        if synced is not None:
            self._lost = False  # told by this failure
            synced.errback(SinkFailed("the process that sends webhooks died"))

    def _died(self, failure: Failure) -> None:
        self._process = None
        if self._limit is not None:
            _canceling(None, self._limit)
            self._limit = None
        if self._renewing:
            self._renewing = False
        elif self._watch.running:
            self._failures += 1
            self._start_at = self._reactor.seconds() + self.retry.delay(self._failures)
            metrics.WEBHOOK_RESTARTS.inc()
            self._log.error("the process that sends webhooks has ended ({why}); it is started again", why=failure.getErrorMessage())
        self._ended.callback(None)

    def _kill(self) -> None:
        if self._process is not None:
            self._log.warn("the process that sends webhooks does not answer; it is killed, and what was under way is told again")
            self._process.signalProcess("KILL")

    # -- for metrics and health

    def measure(self) -> None:
        """Set the gauges that the daemon knows by itself."""
        metrics.WEBHOOKS_OFF.set(sum(webhook.disabled is not None for webhook in self._webhooks().values()))

    def complaint(self) -> str | None:
        """Which webhooks are not told what they should be, or None."""
        if self._failures >= MOST_FAILURES:
            return f"the process that sends webhooks ended {self._failures} times in a row; the log says why"
        webhooks = self._webhooks()
        gone = [f"webhook {webhook.id} is off: {webhook.disabled_reason}" for webhook in webhooks.values() if webhook.given_up]
        failing = [f"webhook {webhook_id} {why}" for webhook_id, why in self.failing.items() if webhook_id in webhooks]
        found = gone + failing
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        return "; ".join(found[:3]) + more if found else None


def _canceling(result: Any, call: IDelayedCall) -> Any:
    if call.active():
        call.cancel()
    return result


class _Ending(ProcessProtocol):
    def __init__(self, ended: Callable[[Failure], object]) -> None:
        self._ended = ended

    def processEnded(self, reason: Failure) -> None:
        """See IProcessProtocol."""
        self._ended(reason)
