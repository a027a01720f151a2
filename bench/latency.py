"""Messages per second on ONE connection over a long distance: a proxy on loopback that delays each direction by half a round trip.

    python bench/latency.py [--messages 200] [--size 10240] [--round-trip 50]

One peer offers PIPELINING, another one CHUNKING besides, a third neither; each row has a daemon of its own that may open one connection
(``[shaping *] connections = 1``). The clock runs from the first message that the peer took to the last one. Ends with 1 when a goal is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import smtplib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, free_port

GOALS = {"PIPELINING": 15.0, "CHUNKING": 19.0, "neither": 0.0}
"""Messages per second at 50 ms; Postfix 3.7 makes 5 on such a connection."""
OFFERS: dict[str, Sequence[str]] = {"PIPELINING": (), "CHUNKING": ("--extension", "CHUNKING"), "neither": ("--no-pipelining",)}

RELAYED = """
[delivery]
relayhost = 127.0.0.1:{proxy}
[shaping *]
connections = 1
"""


class DelayingProxy:
    """Carries octets both ways, each of them ``seconds`` late, in order and without a limit of bandwidth; in a thread of its own."""

    def __init__(self, target: int, seconds: float) -> None:
        self.port = free_port()
        self.connections = 0
        self._target = target
        self._seconds = seconds
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await asyncio.sleep(2 * self._seconds)  # the handshake of TCP
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def arrive() -> None:
            while True:
                due, data = await on_the_way.get()
                await asyncio.sleep(due - self._loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)

        arriving = asyncio.create_task(arrive())
        try:
            while data := await reader.read(1 << 18):
                on_the_way.put_nowait((self._loop.time() + self._seconds, data))
        except ConnectionError:
            pass
        on_the_way.put_nowait((self._loop.time() + self._seconds, b""))
        await arriving


class Peer:
    """A server that takes everything, and when it took it."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self._out = folder / "received.jsonl"
        command = [sys.executable, "-m", "lettermta.testing.mx", "--port", "0", "--out", str(self._out), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        found = re.search(r"\d+", self._process.stdout.readline())
        assert found is not None
        self.port = int(found[0])

    def taken(self) -> list[float]:
        """When each message came, in seconds."""
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        return [float(json.loads(line)["received"]) for line in lines if line.endswith("}")]

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def one_row(args: argparse.Namespace, folder: Path, offer: str) -> tuple[float, int]:
    """Messages per second, and the connections that they took."""
    peer = Peer(folder, OFFERS[offer])
    proxy = DelayingProxy(peer.port, args.round_trip / 2000)
    daemon = Daemon(folder, port := free_port(), RELAYED.format(proxy=proxy.port))
    try:
        body = "x" * 70 + "\r\n"
        message = f"From: a@source.example\r\nTo: b@destination.example\r\nSubject: probe\r\n\r\n{body * (args.size // len(body))}"
        with smtplib.SMTP("127.0.0.1", port) as client:
            for _ in range(args.messages):
                client.sendmail("a@source.example", ["b@destination.example"], message)
        end = time.monotonic() + args.messages
        while len(taken := peer.taken()) < args.messages:
            if time.monotonic() > end:
                raise SystemExit(f"stalled: {len(taken)} of {args.messages} messages arrived")
            time.sleep(0.1)
        return (len(taken) - 1) / (taken[-1] - taken[0]), proxy.connections
    finally:
        daemon.stop()
        peer.stop()


def main() -> None:
    """Measure each peer and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--size", type=int, default=10_240)
    parser.add_argument("--round-trip", type=float, default=50.0, help="milliseconds")
    args = parser.parse_args()
    missed = False
    for offer, goal in GOALS.items():
        with tempfile.TemporaryDirectory() as folder:
            rate, connections = one_row(args, Path(folder), offer)
        verdict = "" if not goal else f"goal {goal:.0f}: {'met' if rate >= goal else 'MISSED'}"
        missed |= rate < goal
        print(f"{offer:<11} {rate:6.1f} messages/s  {connections} connection(s)  {verdict}".rstrip(), flush=True)
    print(f"{args.messages} messages of {args.size} octets each, {args.round_trip:.0f} ms round trip")
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()
