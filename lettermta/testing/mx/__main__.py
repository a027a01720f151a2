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

from OpenSSL import SSL
from twisted.internet.error import CannotListenError

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
    parser.add_argument(
        "--without", action="append", default=[], metavar="KEYWORD", help="don't offer one, like 8BITMIME, SMTPUTF8 or SIZE"
    )
    parser.add_argument("--script", nargs=2, action="append", default=[], metavar=("STAGE", "REPLY"), help="like MAIL '451 4.3.0 later'")
    parser.add_argument("--delay", nargs=2, action="append", default=[], metavar=("STAGE", "SECONDS"), help="answer late, like DOT 30")
    parser.add_argument("--drop", action="append", default=[], metavar="STAGE", help="hang up instead of an answer, like DOT")
    options = parser.parse_args(arguments)
    try:
        mx = _made(options)
    except (ValueError, OSError, SSL.Error) as error:
        parser.error(f"{options.certificate}: no certificate and key: {error}" if isinstance(error, SSL.Error) else str(error))

    from twisted.internet import reactor as installed

    reactor = cast(Any, installed)
    try:
        print(f"listening {mx.listen(reactor, options.port, options.interface)}", flush=True)
    except CannotListenError as error:
        parser.error(str(error))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reactor.callFromThread(reactor.stop))
    reactor.run(installSignalHandlers=False)
    print(f"received {mx.count}", flush=True)
    return 0


def _made(options: argparse.Namespace) -> RemoteMX:
    """The server that the options describe. Raises ValueError, OSError or SSL.Error for what can't be."""

    taken: Callable[[ReceivedMessage], None] | None = None
    if options.out is not None and not options.count_only:
        taken = _Files(options.out) if options.out.is_dir() else _Log(options.out)
    without = {word.upper() for word in options.without} | ({"PIPELINING"} if options.no_pipelining else set())
    extensions = [line for line in EXTENSIONS if line.partition(" ")[0] not in without] + options.extension
    tls = ServerTLS(options.certificate, options.key) if options.certificate else None
    mx = RemoteMX(extensions=extensions, tls=tls, keep=False, taken=taken)
    for stage, reply in options.script:
        mx.script(stage, reply)
    for stage, seconds in options.delay:
        if not seconds.isdecimal():
            raise ValueError(f"--delay {stage}: {seconds!r} is no number of seconds")
        mx.script(stage, delay=float(seconds))
    for stage in options.drop:
        mx.script(stage, drop=True)
    return mx


if __name__ == "__main__":
    sys.exit(main())
