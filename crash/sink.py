"""The next server, as a program: ``RemoteMX`` that knows addresses to refuse, and tells a line for each message before its 250.

    python -m crash.sink INTERFACE PORT FILE [EXTENSION ...]

A recipient whose name begins with ``gone`` is refused; one that begins with ``later`` is put off the first time it is asked for. A line of
FILE is JSON: ``token``, ``id`` (lettermta's), ``recipients``, ``digest`` (of the body), ``helo``, ``moment``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from typing import Any

from lettermta.testing.mx import EXTENSIONS, ReceivedMessage, RemoteMX
from lettermta.testing.mx.script import Rule, Script

_TOKEN = re.compile(rb"^X-Crash: (\S+)\r$", re.MULTILINE)
_ID = re.compile(rb"\bid ([0-9a-f-]{36});")


def facts(content: bytes) -> dict[str, Any]:
    """What the ledger wants to know of a message that has arrived."""
    head, _, body = content.partition(b"\r\n\r\n")
    token, identifier = _TOKEN.search(head + b"\r\n"), _ID.search(head)
    return {
        "token": token[1].decode() if token else "",
        "id": identifier[1].decode() if identifier else "",
        "digest": hashlib.sha256(body).hexdigest(),
    }


class Forgetful(Script):
    """Refuses and puts off by the addresses themselves."""

    def __init__(self) -> None:
        super().__init__()
        self._put_off: set[str] = set()

    def rule(self, stage: str, recipient: str | None = None) -> Rule | None:
        """See Script."""
        if recipient is None:
            return None
        if recipient.startswith("gone"):
            return Rule("RCPT", b"550 5.1.1 no such user\r\n", None, None, 0.0, False)
        if recipient.startswith("later") and recipient not in self._put_off:
            self._put_off.add(recipient)
            return Rule("RCPT", b"451 4.7.1 come again\r\n", None, None, 0.0, False)
        return None


def main() -> None:
    """Serve until killed."""
    from twisted.internet import reactor

    interface, port, path, *extensions = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(message: ReceivedMessage) -> None:
        told = {**facts(message.content), "recipients": message.recipients, "helo": message.helo, "moment": time.time()}
        os.write(file, json.dumps(told).encode() + b"\n")

    mx = RemoteMX(extensions=[*EXTENSIONS, *extensions], keep=False, taken=tell)
    mx.rules = Forgetful()
    mx.listen(reactor, int(port), interface)
    print("listening", flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
