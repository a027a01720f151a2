"""Many idle connections on one worker: what each costs in memory, and how long another client waits for its 250 meanwhile.

    python bench/idle.py [--connections 10000] [--messages 500]

Each row has a daemon of its own. A connection is idle once it has had the answer to its EHLO (or AUTH); at the end each of them is asked a
NOOP, so all are known to have been held. Memory is the daemon's resident memory; the kernel's own for a socket comes on top. The other
client makes a new connection for each message and waits from the first SYN to the 250 behind the content; it does so while the others
arrive, one after the other without a pause, and while they are held. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, Process, free_port
from lettermta.ops import descriptors

KB_EACH = 20.0
"""The goal for a connection."""
KB_EACH_TLS = 32.0
"""The bound for one in TLS: OpenSSL 4.0 alone takes 24 of them, for its own structures and keys, with all of its buffers released."""
SORTS = {"clear": KB_EACH, "TLS": KB_EACH_TLS, "TLS, logged in": KB_EACH_TLS}
"""The sorts of connections, each with its bound."""
WORST_MS = 100.0
"""The goal for the other client, while connections are held."""
PAUSE_SECONDS = 0.02
"""Between two messages of the other client while connections arrive."""
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


def ask(client: Client, command: bytes, code: bytes) -> None:
    """Send a command and read its reply, which has to have this code."""
    if command:
        client.sendall(command)
    reply = b""
    while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] != b" ":
        octets = client.recv(65536)
        if not octets:
            raise ConnectionError(f"the daemon hung up behind {reply!r}")
        reply += octets
    if not reply.startswith(code):
        raise ConnectionError(f"to {command!r} the daemon said {reply!r}")


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


def probe(port: int) -> float:
    """Send a message; returns the milliseconds from connecting to the 250."""
    began = time.monotonic()
    with contextlib.closing(in_clear(connect(port))) as client:
        ask(client, b"MAIL FROM:<sender@source.example>\r\n", b"250")
        ask(client, b"RCPT TO:<recipient@destination.example>\r\n", b"250")
        ask(client, b"DATA\r\n", b"354")
        ask(client, MESSAGE + b".\r\n", b"250")
        return (time.monotonic() - began) * 1000


class Meanwhile:
    """Messages that another client sends while the body of the ``with`` goes on; ``waits`` are those of :func:`probe`."""

    def __init__(self, port: int) -> None:
        self.waits: list[float] = []
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            self.waits.append(probe(self._port))

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Held:
    """What holding ``count`` connections comes to, measured."""

    def __init__(self, process: Process, port: int, count: int, dialogue: Dialogue, messages: int) -> None:
        for client in hold(port, WARM_UP, dialogue):
            client.close()
        for _ in range(WARM_UP):
            probe(port)
        before, began = process.memory(), time.monotonic()
        with Meanwhile(port) as meanwhile:
            clients = hold(port, count, dialogue)
        self.seconds = time.monotonic() - began
        self.waits_before = meanwhile.waits
        """The other client's while they arrived, in milliseconds."""
        self.memory = process.memory()
        """MB."""
        self.kb_each = (self.memory - before) * 1000 / count
        """KB of 1,000 octets for each connection."""
        self.waits = [probe(port) for _ in range(messages)]
        """The other client's while they were held."""
        for client in clients:
            ask(client, b"NOOP\r\n", b"250")
            client.close()


def measure(name: str, count: int, messages: int) -> Held:
    """Measure ``count`` connections of one sort with a daemon of their own."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(Path(directory), free_port(), INI.format(limit=count + 1000))
        try:
            return Held(daemon, daemon.port, count, _dialogue(name, daemon), messages)
        finally:
            daemon.stop()


def row(name: str, count: int, messages: int) -> bool:
    """Measure one sort of connection, print it, and say whether it is as it should be."""
    held = measure(name, count, messages)
    print(
        f"{name:<14} {count:11,} {held.seconds:8.1f} s {held.memory:8.1f} MB {held.kb_each:7.1f} KB"
        f" {max(held.waits_before):14.1f} ms {statistics.median(held.waits):9.1f} ms {max(held.waits):8.1f} ms",
        flush=True,
    )
    return held.kb_each <= SORTS[name] and max(held.waits) <= WORST_MS


def _dialogue(name: str, daemon: Daemon) -> Dialogue:
    if name == "clear":
        return in_clear
    return in_tls if name == "TLS" else logged_in(daemon.admin("token", "create", "--project", "bench").strip())


def main() -> int:
    """Measure each sort of connection and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=500)
    args = parser.parse_args()
    if descriptors.connections_within(args.connections, descriptors.raise_limit()) < args.connections:
        parser.error(f"a process may have only {descriptors.allowed():.0f} open files here: raise ulimit -Hn, or ask for fewer connections")
    print(f"{'':<57} {'another client waits for its 250':>43}")
    print(
        f"{'idle':<14} {'connections':>11} {'opened in':>10} {'resident':>11} {'each':>10}"
        f" {'arriving, worst':>17} {'held':>12} {'worst':>11}"
    )
    good = [row(name, args.connections, args.messages) for name in SORTS]
    verdict = "met" if all(good) else "MISSED"
    print(f"goals: {KB_EACH:g} KB each ({KB_EACH_TLS:g} in TLS), {WORST_MS:g} ms at worst while they are held: {verdict}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
