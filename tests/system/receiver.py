"""The other end of the wire as a program of its own: ``RemoteMX`` with the manners that its one argument, a JSON object, tells.

Keys: ``interface port`` (required), ``extensions``, ``certificate key implicit`` (TLS), ``credentials`` (user names and passwords),
``script`` (a list of the keyword arguments of ``RemoteMX.script``). Prints ``listening`` once it answers, and each message as a line of
JSON before its 250.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lettermta.testing.mx import EXTENSIONS, ReceivedMessage, RemoteMX, ServerTLS


def main() -> None:
    from twisted.internet import reactor

    told = json.loads(sys.argv[1])
    tls = ServerTLS(Path(told["certificate"]), Path(told["key"])) if "certificate" in told else None
    mx = RemoteMX(
        extensions=told.get("extensions", EXTENSIONS),
        tls=tls,
        implicit=told.get("implicit", False),
        credentials=told.get("credentials"),
        keep=False,
        taken=_tell,
    )
    for rule in told.get("script", ()):
        mx.script(**rule)
    mx.listen(reactor, told["port"], told["interface"])
    print("listening", flush=True)
    reactor.run()  # type: ignore[attr-defined]


def _tell(message: ReceivedMessage) -> None:
    sys.stdout.buffer.write(message.line(time.time()))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
