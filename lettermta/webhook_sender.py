"""The process that sends webhooks: started by the daemon, which is at the other end of the socket at descriptor 3, and ended with it.

It takes the daemon's events, writes what webhooks are to be told to ``state_dir/webhooks``, and tells them. Its log goes to the daemon's.
It ends when the socket is closed, whether the daemon said so or died; SIGTERM and SIGINT are the daemon's to act upon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import orjson
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent, globalLogBeginner
from twisted.python.failure import Failure

from lettermta.accounts.directory import Directory
from lettermta.accounts.errors import AccountError
from lettermta.accounts.store import AccountStore
from lettermta.accounts.webhooks import GONE_REASON, Webhook, WebhookStore
from lettermta.events.webhooks.connecting import system_addresses
from lettermta.events.webhooks.frames import Frames, Kind, unpacked
from lettermta.events.webhooks.process import DESCRIPTOR
from lettermta.events.webhooks.schedule import Schedule
from lettermta.events.webhooks.sender import Sender, SenderSettings
from lettermta.spool.deliveries import Deliveries, DeliveriesInUse, DeliveriesVersionError, directory_of
from lettermta.spool.schema import DatabaseFault

NICE = 19
"""By how much the mail comes before webhooks where they need the same core."""
THREADS = 32
"""Look-ups of names that may wait at the same time."""
LOCK_SECONDS = 15.0
"""How long a process of a daemon that died may hold the lock."""
CONDITION_SECONDS = 5.0
"""How often it tells how it goes."""

_log = Logger()


def settings_for(
    state_dir: Path, *, concurrency: int, delays: tuple[float, ...], allowed: tuple[Any, ...], retention: float, shard: int = 0
) -> Mapping[str, Any]:
    """What the daemon tells the process first."""
    return {
        "state_dir": str(state_dir),
        "shard": shard,
        "concurrency": concurrency,
        "delays": delays,
        "allowed": [str(network) for network in allowed],
        "retention": retention,
    }


class SenderProcess:
    """The process: frames in, a :class:`Sender`, frames out."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._frames = Frames(self._received, self._closed)
        self._sender: Sender | None = None
        self._directory: Directory | None = None
        self._state_dir = Path()
        self._telling = LoopingCall(lambda: Deferred.fromCoroutine(self._tell()))
        self._status = os.EX_OK

    def run(self) -> int:
        """Run until the daemon's end is closed."""
        with socket.socket(fileno=DESCRIPTOR) as pair:
            pair.setblocking(False)
            self._reactor.adoptStreamConnection(pair.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: self._frames))
        self._reactor.suggestThreadPoolSize(THREADS)
        globalLogBeginner.beginLoggingTo([cast(ILogObserver, self._logged)], redirectStandardIO=False)
        self._reactor.run(installSignalHandlers=False)
        return self._status

    def _received(self, kind: Kind, body: bytes) -> None:
        match kind:
            case Kind.SETTINGS:
                self._start(orjson.loads(body))
            case Kind.EVENTS:
                if self._sender is None:
                    return  # on the way out; the daemon tells them again
                self._sender.take(unpacked(body)).addCallbacks(self._done, self._broken, (Kind.TAKEN, b"%d" % len(body)))
            case Kind.SYNC:
                if self._sender is None:
                    return
                self._sender.sync().addCallbacks(self._done, self._broken, (Kind.SYNCED,))

    def _start(self, told: Mapping[str, Any]) -> None:
        self._state_dir = Path(told["state_dir"])
        settings = SenderSettings(
            told["concurrency"],
            Schedule(tuple(told["delays"])),
            tuple(map(ip_network, told["allowed"])),
            retention=told["retention"],
        )
        try:
            directory = self._directory = Directory(self._state_dir)
            deliveries = Deliveries(directory_of(self._state_dir, told["shard"]), self._reactor.callFromThread)
            _open(deliveries)
        except (AccountError, DeliveriesInUse, DeliveriesVersionError, OSError, DatabaseFault) as error:
            _log.critical("webhooks can't be sent: {error}", error=error)
            self._fail(os.EX_UNAVAILABLE)
            return
        addresses = system_addresses(self._reactor)
        self._sender = Sender(settings, directory.webhooks, deliveries, addresses, self._switch_off, self._reactor)
        self._sender.start()
        self._telling.start(CONDITION_SECONDS, now=False)

    def _switch_off(self, webhook: Webhook) -> None:
        """An endpoint said 410."""
        _log.error(
            "webhook {id} is switched off, as {url} answered 410 Gone; `webhook enable` ends that, `webhook replay` tells what it missed",
            id=webhook.id,
            url=webhook.url.partition("?")[0],
        )

        def disable() -> None:
            with AccountStore(self._state_dir) as accounts:
                WebhookStore(accounts).disable(webhook.id, GONE_REASON)

        disabled = deferToThread(disable).addCallback(lambda _: self._frames.send(Kind.GONE, webhook.id.encode()))
        disabled.addErrback(lambda failure: _log.failure("webhook {id} could not be switched off", failure=failure, id=webhook.id))

    async def _tell(self) -> None:
        try:
            if self._sender is not None:
                self._frames.send(Kind.CONDITION, orjson.dumps(await self._sender.condition()))
        except Exception:
            _log.failure("how webhooks go could not be told")

    def _done(self, _: None, kind: Kind, body: bytes = b"") -> None:
        """Say so, unless anything before it could not be written: then it must not look as if all were."""
        if self._status == os.EX_OK:
            self._frames.send(kind, body)

    def _broken(self, failure: Failure) -> None:
        """Events could not be put on record: end, so that the daemon tells them again."""
        _log.failure("what webhooks are to be told can't be written", failure=failure)
        self._fail(os.EX_IOERR)

    def _logged(self, event: LogEvent) -> None:
        # Of Twisted's own only what went wrong: it has a line for each interim response, of which an endpoint may send thousands.
        ours = event["log_namespace"].startswith("lettermta.") or event["log_namespace"] == "__main__"
        if event["log_level"] >= (LogLevel.info if ours else LogLevel.warn) and self._frames.transport is not None:
            text = formatEvent(event)
            if (failure := event.get("log_failure")) is not None:
                text += f"\n{failure.getTraceback()}"
            self._frames.send(Kind.LOG, f"{event['log_level'].name}\n{text}".encode())

    def _fail(self, status: int) -> None:
        """End by ourselves; the daemon's log gets to know why, as closing sends what was said before."""
        self._status = status
        self._frames.transport.loseConnection()

    def _closed(self) -> None:
        """The daemon is gone, or wants us to, or we have failed."""
        sender, self._sender = self._sender, None
        if self._telling.running:
            self._telling.stop()
        stopped = succeed(None) if sender is None else Deferred.fromCoroutine(sender.stop())
        stopped.addBoth(lambda _: self._reactor.callLater(0, self._reactor.stop))


def _open(deliveries: Deliveries) -> None:
    """Open the database; the process of a daemon that was killed needs a moment to see that and let go of it."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            deliveries.open()
            return
        except DeliveriesInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def main() -> int:
    """What ``python -m lettermta.webhook_sender`` runs."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICE)  # where the system forbids it, the mail still has a core of its own on most machines
    from twisted.internet import reactor

    return SenderProcess(reactor).run()


if __name__ == "__main__":
    sys.exit(main())
