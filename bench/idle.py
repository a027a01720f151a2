"""Many idle connections on one worker: what each costs in memory, and how long another client waits for its 250 meanwhile.

    python bench/idle.py [--connections 10000] [--messages 500]

Each row has a daemon of its own. A connection is idle once it has had the answer to its EHLO; at the end each of them is asked a NOOP, so
all are known to have been held. Memory is the daemon's resident memory; the kernel's own for a socket comes on top. The other client
makes a new connection for each message and waits from the first SYN to the 250 behind the content. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, Process, free_port

KB_EACH = 20.0
"""The goal for a connection in clear and for one in TLS alike."""
WORST_MS = 100.0
"""The goal for the other client."""
WARM_UP = 100
"""Connections and messages before the first measurement, so that what the first of them loads is counted for nobody."""

MESSAGE = b"From: a@source.example\r\nTo: b@destination.example\r\nSubject: probe\r\n\r\n" + b"All is well.\r\n" * 700

INI = """
[limits]
connections = {limit}
[delivery]
capture_all = yes
"""

Client = socket.socket
Dialogue = Callable[[Client], Client]


def raise_limit() -> None:
    """Have as many descriptors as the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def ask(client: Client, command: bytes, code: bytes) -> None:
    """Send a command and read its reply, which has to have this code."""
    if command:
        client.sendall(command)
    reply = b""
    while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] != b" ":
        octets = client.recv(65536)
        if not octets:
            raise SystemExit(f"the daemon hung up behind {reply!r}")
        reply += octets
    if not reply.startswith(code):
        raise SystemExit(f"to {command!r} the daemon said {reply!r}")


def connect(port: int) -> Client:
    """A connection with its banner read."""
    client = socket.create_connection(("127.0.0.1", port), 60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ask(client, b"", b"220")
    return client


def in_clear(client: Client) -> Client:
    """EHLO."""
    ask(client, b"EHLO client.example\r\n", b"250")
    return client


def in_tls(client: Client) -> Client:
    """EHLO, STARTTLS, EHLO."""
    ask(in_clear(client), b"STARTTLS\r\n", b"220")
    return in_clear(_UNVERIFIED.wrap_socket(client))


def logged_in(token: str) -> Dialogue:
    """The same and AUTH."""
    initial = base64.b64encode(f"\0lettermint\0{token}".encode())

    def dialogue(client: Client) -> Client:
        client = in_tls(client)
        ask(client, b"AUTH PLAIN %b\r\n" % initial, b"235")
        return client

    return dialogue


_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE


def hold(port: int, count: int, dialogue: Dialogue) -> list[Client]:
    """So many idle connections."""
    return [dialogue(connect(port)) for _ in range(count)]


def probe(port: int, messages: int) -> list[float]:
    """Milliseconds from connecting to the 250, for each message."""
    took = []
    for _ in range(messages):
        began = time.monotonic()
        with contextlib.closing(in_clear(connect(port))) as client:
            ask(client, b"MAIL FROM:<sender@source.example>\r\n", b"250")
            ask(client, b"RCPT TO:<recipient@destination.example>\r\n", b"250")
            ask(client, b"DATA\r\n", b"354")
            ask(client, MESSAGE + b".\r\n", b"250")
            took.append((time.monotonic() - began) * 1000)
    return took


class Held:
    """What holding ``count`` connections comes to, measured."""

    def __init__(self, process: Process, port: int, count: int, dialogue: Dialogue, messages: int) -> None:
        for client in hold(port, WARM_UP, dialogue):
            client.close()
        probe(port, WARM_UP)
        before, began = process.memory(), time.monotonic()
        clients = hold(port, count, dialogue)
        self.seconds = time.monotonic() - began
        self.memory = process.memory()
        self.kb_each = (self.memory - before) * 1000 / count
        """KB of 1,000 octets of the daemon's memory for each connection."""
        self.waits = sorted(probe(port, messages))
        """The other client's, in milliseconds."""
        for client in clients:
            ask(client, b"NOOP\r\n", b"250")
            client.close()

    @property
    def good(self) -> bool:
        """Whether the goals are met."""
        return self.kb_each <= KB_EACH and self.waits[-1] <= WORST_MS


def row(name: str, count: int, messages: int) -> bool:
    """Measure one sort of connection, print it, and say whether it is as it should be."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(Path(directory), free_port(), INI.format(limit=count + 1000))
        try:
            dialogue = {"clear": in_clear, "TLS": in_tls}.get(name) or logged_in(
                daemon.admin("token", "create", "--project", "bench").strip()
            )
            held = Held(daemon, daemon.port, count, dialogue, messages)
        finally:
            daemon.stop()
    print(
        f"{name:<14} {count:11,} {held.seconds:8.1f} s {held.memory:10.1f} MB {held.kb_each:9.1f} KB"
        f" {statistics.median(held.waits):9.1f} ms {held.waits[-1]:8.1f} ms",
        flush=True,
    )
    return held.good


def main() -> int:
    """Measure each sort of connection and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=500)
    args = parser.parse_args()
    raise_limit()
    print(f"{'idle':<14} {'connections':>11} {'opened in':>10} {'resident':>13} {'each':>12} {'250 within':>12} {'at worst':>11}")
    good = [row(name, args.connections, args.messages) for name in ("clear", "TLS", "TLS, logged in")]
    print(f"goals: {KB_EACH:g} KB each, {WORST_MS:g} ms at worst: {'met' if all(good) else 'MISSED'}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
