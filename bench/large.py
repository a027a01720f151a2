"""A message of 50 MB: how much the daemon's memory grows while it comes in, and while it goes out.

    python bench/large.py [--megabytes 50]

Each row has a daemon of its own. The source sends as fast as the daemon takes it; the sink reads nothing for a moment once it has said 354,
so that every buffer on the way out is full, and compares the body that came with the one that was sent. What counts is the daemon's
resident memory: its growth from before the message to behind it, and its peak in between. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import queue
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, Process, free_port
from bench.idle import Client, ask, connect, in_clear, in_tls
from lettermta.smtp.tls import self_signed

GROWTH_MB = 10.0
"""The goal: less than this, also at the peak."""
STALL_SECONDS = 1.0
"""How long the sink makes the daemon wait."""
PATIENCE = 120.0
"""Seconds for a whole message; a machine on which it takes longer is broken."""

HEAD = b"From: a@source.example\r\nTo: b@destination.example\r\nSubject: large\r\n\r\n"
LINE = b"No line of this begins with a dot, so that there is none to be stuffed.....\r\n"
PIECE = LINE * 800

INI = """
[limits]
message_size = {size}
[delivery]
relayhost = 127.0.0.1:{sink}
"""

Send = Callable[[Client, int], None]


def pieces(octets: int) -> Iterator[bytes]:
    """A body of about so many octets."""
    for _ in range(octets // len(PIECE) + 1):
        yield PIECE


def body_digest(octets: int) -> str:
    """SHA-256 of that body."""
    told = hashlib.sha256()
    for piece in pieces(octets):
        told.update(piece)
    return told.hexdigest()


def by_data(client: Client, octets: int) -> None:
    """Send the message behind DATA."""
    ask(client, b"DATA\r\n", b"354")
    client.sendall(HEAD)
    for piece in pieces(octets):
        client.sendall(piece)
    ask(client, b".\r\n", b"250")


def by_one_chunk(client: Client, octets: int) -> None:
    """Send the message as a single BDAT (RFC 3030)."""
    client.sendall(b"BDAT %d LAST\r\n" % (len(HEAD) + sum(map(len, pieces(octets)))))
    client.sendall(HEAD)
    for piece in pieces(octets):
        client.sendall(piece)
    ask(client, b"", b"250")


def by_chunks(client: Client, octets: int) -> None:
    """Send the message as many BDATs without waiting for their replies."""
    replies = threading.Thread(target=_replies, args=(client, 1 + len(list(pieces(octets)))))
    replies.start()
    client.sendall(b"BDAT %d\r\n%b" % (len(HEAD), HEAD))
    for piece in pieces(octets):
        client.sendall(b"BDAT %d\r\n%b" % (len(piece), piece))
    replies.join()
    ask(client, b"BDAT 0 LAST\r\n", b"250")


def _replies(client: Client, count: int) -> None:
    while count:
        octets = client.recv(65536)
        if not octets:
            raise ConnectionError("the daemon hung up between chunks")
        count -= octets.count(b"\n")


class Sink:
    """A receiver of one message at a time that keeps none of it but the SHA-256 of its body; with ``tls`` it offers STARTTLS."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.bodies: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client:
                self._session(client)

    def _session(self, client: Client) -> None:
        client.sendall(b"220 sink.example\r\n")
        waiting = b""
        while octets := client.recv(65536):
            waiting += octets
            while b"\n" in waiting:
                line, _, waiting = waiting.partition(b"\n")
                client = self._carry_out(line[:8].strip().upper(), client)

    def _carry_out(self, verb: bytes, client: Client) -> Client:
        if verb.startswith(b"EHLO") and self._tls is not None:
            client.sendall(b"250-sink.example\r\n250 STARTTLS\r\n")
        elif verb == b"STARTTLS" and self._tls is not None:
            client.sendall(b"220 Go ahead\r\n")
            return self._tls.wrap_socket(client, server_side=True)
        elif verb == b"DATA":
            client.sendall(b"354 Go ahead\r\n")
            time.sleep(STALL_SECONDS)
            self.bodies.put(_read_content(client))
            client.sendall(b"250 Ok\r\n")
        else:
            client.sendall(b"250 Ok\r\n")
        return client

    def close(self) -> None:
        """Listen no more."""
        self._listening.close()


def _read_content(client: Client) -> str:
    """Read to the final dot; returns the SHA-256 of the body."""
    head, told, held = b"", hashlib.sha256(), b""
    while b"\r\n\r\n" not in head:
        head += _more(client)
    held = head.partition(b"\r\n\r\n")[2]
    while not held.endswith(b"\r\n.\r\n"):
        told.update(held[:-5])
        held = held[-5:] + _more(client)
    told.update(held[:-3])
    return told.hexdigest()


def _more(client: Client) -> bytes:
    octets = client.recv(262144)
    if not octets:
        raise ConnectionError("the daemon hung up in mid-content")
    return octets


class Passage:
    """What a message of ``octets`` comes to on its way through, measured; ``send`` is how it goes in."""

    def __init__(self, process: Process, client: Client, sink: Sink, octets: int, send: Send) -> None:
        before, began = _at_rest(process), time.monotonic()
        send(_addressed(client), octets)
        self.taken_in = time.monotonic() - began
        self.peak_in = process.peak() - before
        """MB above what there was before, until the 250."""
        self.came_whole = sink.bodies.get(timeout=PATIENCE) == body_digest(octets)
        self.gone_out = time.monotonic() - began
        self.peak = process.peak() - before
        """The same, until the sink had all of it."""
        self.growth = process.memory() - before
        """MB that are kept."""

    @property
    def good(self) -> bool:
        """Whether the goals are met."""
        return self.came_whole and max(self.peak, self.growth) < GROWTH_MB


def _at_rest(process: Process) -> float:
    process.forget_peak()
    return process.memory()


def _addressed(client: Client) -> Client:
    ask(client, b"MAIL FROM:<sender@source.example>\r\n", b"250")
    ask(client, b"RCPT TO:<recipient@destination.example>\r\n", b"250")
    return client


def warm_up(client: Client, sink: Sink) -> None:
    """Send a message that is just large enough to go by a file, so that what the first of them loads is counted for nobody."""
    by_data(_addressed(client), 500_000)
    sink.bodies.get(timeout=PATIENCE)


ROWS: dict[str, tuple[Callable[[Client], Client], Send]] = {
    "DATA": (in_clear, by_data),
    "one BDAT": (in_clear, by_one_chunk),
    "many BDATs": (in_clear, by_chunks),
    "DATA in TLS": (in_tls, by_data),
}


def measure(name: str, octets: int) -> Passage:
    """Measure one way in (and, from TLS, out in TLS) with a daemon of its own."""
    dialogue, send = ROWS[name]
    with tempfile.TemporaryDirectory() as directory:
        sink = Sink(tls_context(Path(directory)) if dialogue is in_tls else None)
        daemon = Daemon(Path(directory), free_port(), INI.format(size=octets + 1_000_000, sink=sink.port))
        try:
            client = dialogue(connect(daemon.port))
            warm_up(client, sink)
            with client:
                return Passage(daemon, client, sink, octets, send)
        finally:
            daemon.stop()
            sink.close()


def row(name: str, octets: int) -> bool:
    """Measure one way, print it, and say whether it is as it should be."""
    passage = measure(name, octets)
    print(
        f"{name:<12} {octets / 1e6:7.1f} MB {passage.taken_in:7.2f} s {passage.gone_out:7.2f} s"
        f" {passage.peak_in:9.1f} MB {passage.peak:9.1f} MB {passage.growth:9.1f} MB  {'whole' if passage.came_whole else 'DAMAGED'}",
        flush=True,
    )
    return passage.good


def tls_context(directory: Path) -> ssl.SSLContext:
    """TLS for a sink, with a certificate that nobody trusts."""
    pair = self_signed(directory / "sink", "sink.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.private_key)
    return context


def main() -> int:
    """Measure each way in and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=50)
    args = parser.parse_args()
    print(f"{'way in':<12} {'size':>10} {'250 in':>9} {'out in':>9} {'peak coming':>12} {'peak in all':>12} {'growth':>12}")
    good = [row(name, args.megabytes * 1_000_000) for name in ROWS]
    print(f"goal: less than {GROWTH_MB:g} MB, also at the peak: {'met' if all(good) else 'MISSED'}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
