"""The server under test as a program: ``python -m lettermta.testing.mx``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from lettermta.testing.mx import EXTENSIONS, ReceivedMessage, RemoteMX, ServerTLS


class _Log:
    """Appends a line for each message; a write is whole, so a reader never sees half a line's beginning without its end for long."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, message: ReceivedMessage) -> None:
        left = message.line(time.time())
        while left:
            left = left[os.write(self._file, left) :]


class _Files:
    """A file for each message, there as a whole or not at all."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0

    def __call__(self, message: ReceivedMessage) -> None:
        self._number += 1
        part = self._directory / f".{self._number}.part"
        part.write_bytes(message.line(time.time()))
        part.rename(self._directory / f"{self._number}.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lettermta.testing.mx", description="An SMTP sink for tests.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--interface", default="127.0.0.1")
    parser.add_argument("--out", type=Path, help="a JSON-lines file, or a directory for a file per message")
    parser.add_argument("--count-only", action="store_true", help="keep nothing; the count is printed at the end")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument(
        "--extension", action="append", default=[], metavar="LINE", help="offer one more, like CHUNKING or 'LIMITS RCPTMAX=5'"
    )
    parser.add_argument("--certificate", type=Path, help="PEM; offers STARTTLS")
    parser.add_argument("--key", type=Path, help="PEM; default: in the certificate's file")
    parser.add_argument("--script", nargs=2, action="append", default=[], metavar=("STAGE", "REPLY"), help="like MAIL '451 4.3.0 later'")
    options = parser.parse_args(arguments)

    taken: Callable[[ReceivedMessage], None] | None = None
    if options.out is not None and not options.count_only:
        taken = _Files(options.out) if options.out.is_dir() else _Log(options.out)
    extensions = [name for name in EXTENSIONS if not (options.no_pipelining and name == "PIPELINING")] + options.extension
    mx = RemoteMX(
        extensions=extensions, tls=ServerTLS(options.certificate, options.key) if options.certificate else None, keep=False, taken=taken
    )
    for stage, reply in options.script:
        mx.script(stage, reply)

    from twisted.internet import reactor as installed

    reactor = cast(Any, installed)
    print(f"listening {mx.listen(reactor, options.port, options.interface)}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reactor.callFromThread(reactor.stop))
    reactor.run(installSignalHandlers=False)
    print(f"received {mx.count}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
