"""An endpoint that costs as little as possible: ``python -m bench.webhook_receiver PORT`` answers 200 to each POST, and how many there were
to ``GET /count``.
"""

from __future__ import annotations

import asyncio
import json
import sys

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class Counted:
    """What came."""

    requests = 0
    ids: set[bytes] = set()  # noqa: RUF012 - one of them


class Endpoint(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        self._got = b""

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = self._got[:end].lower()
            if head.startswith(b"get"):
                body = json.dumps({"requests": Counted.requests, "ids": len(Counted.ids)}).encode()
                self._transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                self._transport.close()
                return
            size = int(_field(head, b"content-length"))
            if len(self._got) < end + 4 + size:
                return
            Counted.requests += 1
            Counted.ids.add(_field(head, b"webhook-id"))
            self._got = self._got[end + 4 + size :]
            self._transport.write(_OK)


def _field(head: bytes, name: bytes) -> bytes:
    return head.partition(name + b": ")[2].partition(b"\r\n")[0]


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
