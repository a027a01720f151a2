"""The next server, as a program: ``RemoteMX`` with a bad memory for some addresses, and a line for each message before its 250.

    python -m crash.sink INTERFACE PORT FILE

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
from pathlib import Path
from typing import Any

from lettermta.testing.mx import ReceivedMessage, RemoteMX

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


class ForgetfulMX(RemoteMX):
    """Knows the addresses that it refuses, and those that it has put off."""

    def __init__(self, path: Path) -> None:
        super().__init__(keep=False, taken=self._tell)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._put_off: set[str] = set()

    def rule(self, stage: str, recipient: str | None) -> Any:
        """See RemoteMX: the rules are made as the addresses come."""
        if stage == "RCPT" and recipient is not None:
            self.clear()
            if recipient.startswith("gone"):
                self.script("RCPT", "550 5.1.1 no such user")
            elif recipient.startswith("later") and recipient not in self._put_off:
                self._put_off.add(recipient)
                self.script("RCPT", "451 4.7.1 come again")
        return super().rule(stage, recipient) if stage == "RCPT" else None

    def _tell(self, message: ReceivedMessage) -> None:
        told = {**facts(message.content), "recipients": message.recipients, "helo": message.helo, "moment": time.time()}
        os.write(self._file, json.dumps(told).encode() + b"\n")


def main() -> None:
    from twisted.internet import reactor

    interface, port, path = sys.argv[1:]
    ForgetfulMX(Path(path)).listen(reactor, int(port), interface)
    print("listening", flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
