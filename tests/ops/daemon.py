"""A daemon with a spool and its control socket, and nothing else: ``python -m tests.ops.daemon STATE_DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.internet import reactor

from lettermta.ops.control import listen
from lettermta.spool.store import Spool


def main(state_dir: Path) -> None:
    spool = Spool(state_dir / "spool" / "0", reactor)  # type: ignore[arg-type]
    spool.open()
    port = listen(reactor, state_dir, spool)  # type: ignore[arg-type]
    reactor.callWhenRunning(lambda: print("ready", flush=True))  # type: ignore[attr-defined]
    reactor.addSystemEventTrigger("before", "shutdown", lambda: (port.stopListening(), spool.close())[1])  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
