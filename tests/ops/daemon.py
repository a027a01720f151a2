"""A daemon with a spool, its control socket and delivery into the void, and nothing else: ``python -m tests.ops.daemon STATE_DIR``.

The accounts have the project ``demo`` if a test made it; nothing is delivered but on the routes that are named behind the directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.delivery.schedule import Schedule
from lettermta.delivery.scheduler import Scheduler
from lettermta.delivery.transports.discard import DiscardTransport
from lettermta.delivery.way import Way
from lettermta.interfaces import IChannel, ITransport
from lettermta.message import Lane
from lettermta.ops.control import listen
from lettermta.ops.operations import Operations
from lettermta.spool.store import Spool

from ..spool.hand import NOW


@implementer(ITransport)
class Silent:
    """Never connects: what is due for it stays in hand."""

    def open(self) -> Deferred[IChannel]:
        return Deferred()


def main(state_dir: Path, delivered: list[str]) -> None:
    spool = Spool(state_dir / "spool" / "0", reactor)  # type: ignore[arg-type]
    spool.open()

    def way(lane: Lane) -> Way:
        key, transport = ("void", DiscardTransport) if lane.route_id in delivered else (lane.domain, Silent)
        return Way(key, transport, key)

    scheduler = Scheduler(spool, way, Schedule([3600.0]), reactor, lambda: NOW)  # type: ignore[arg-type]
    operations = Operations(spool, scheduler, Directory(state_dir), lambda: NOW)
    port = listen(reactor, state_dir, spool, operations)  # type: ignore[arg-type]
    if delivered:
        scheduler.start()
    reactor.callWhenRunning(lambda: print("ready", flush=True))  # type: ignore[attr-defined]
    reactor.addSystemEventTrigger("before", "shutdown", lambda: (port.stopListening(), spool.close())[1])  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
