"""Messages per second, end to end: kept-open sessions submit, the daemon stores and relays, a sink counts.

    python bench/relay.py [--messages 10000] [--sessions 20] [--size 10240] [--rounds 3] [--sign] [--return-path]

Source and sink are Postfix's own test tools (smtp-source, smtp-sink; Debian's package postfix), on loopback. The clock runs from the first
connection of the source to the last message in the sink; CPU is the daemon's own, of all its threads. With --sign the sender's domain has
DKIM keys, so that each message leaves with two signatures; with --return-path each leaves with a return path, too.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, free_port, wait_for
from tests.tools import need

COUNT = re.compile(rb"mesg=(\d+)")

RELAYED = """
[delivery]
relayhost = 127.0.0.1:{sink}
"""


class Sink:
    """smtp-sink, and the count of messages that it prints: it waits for whoever reads it."""

    def __init__(self, port: int) -> None:
        command = [need("smtp-sink", "postfix"), "-c", f"127.0.0.1:{port}", "1024"]
        if os.geteuid() == 0:
            command[1:1] = ["-u", "nobody"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._tail = b""
        self.count = 0

    def read(self) -> int:
        """The count so far."""
        assert self._process.stdout is not None
        self._tail = (self._tail + (self._process.stdout.read() or b""))[-200:]
        if found := COUNT.findall(self._tail):
            self.count = int(found[-1])
        return self.count

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


def one_round(args: argparse.Namespace, port: int, sink: Sink, daemon: Daemon) -> tuple[float, float]:
    """Messages per second and CPU microseconds per message."""
    before, cpu = sink.read(), daemon.cpu()
    began = time.monotonic()
    source = subprocess.Popen(
        [need("smtp-source", "postfix"), "-d", "-s", str(args.sessions), "-m", str(args.messages), "-l", str(args.size),
         "-f", "sender@source.example", "-t", "recipient@destination.example", f"127.0.0.1:{port}"]
    )  # fmt: skip
    last, quiet = 0, time.monotonic()
    while (done := sink.read() - before) < args.messages:
        if done != last:
            last, quiet = done, time.monotonic()
        if time.monotonic() - quiet > 20:
            raise SystemExit(f"stalled: {done} of {args.messages} messages arrived")
        time.sleep(0.005)
    took = time.monotonic() - began
    source.wait()
    return args.messages / took, (daemon.cpu() - cpu) / args.messages * 1e6


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sign", action="store_true")
    parser.add_argument("--return-path", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        port, sink_port = free_port(), free_port()
        sink = Sink(sink_port)
        wait_for(sink_port)
        daemon = Daemon(Path(directory), port, RELAYED.format(sink=sink_port))
        try:
            if args.sign or args.return_path:
                daemon.admin("domain", "create", "--project", "bench", "source.example")
                daemon.admin(
                    "domain", "update", "--project", "bench", "source.example", "--return-path", "on" if args.return_path else "off"
                )
            results = []
            for number in range(args.rounds + 1):
                rate, cpu = one_round(args, port, sink, daemon)
                name = f"round {number}" if number else "warm-up"
                print(f"{name:<8} {rate:8,.0f} messages/s  {cpu:6.0f} us CPU a message  {daemon.memory():6.1f} MB", flush=True)
                results.append(rate)
            print(f"median   {statistics.median(results[1:]):8,.0f} messages/s of {args.size} octets, {args.sessions} sessions, 1 process")
        finally:
            daemon.stop()
            sink.stop()


if __name__ == "__main__":
    main()
