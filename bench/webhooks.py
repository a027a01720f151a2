"""What webhooks cost the mail: messages per second with and without a webhook that gets three events for each, in turn.

    python bench/webhooks.py [--messages 10000] [--sessions 20] [--size 10240] [--rounds 3]

As bench/relay.py; the endpoint is a process of its own on loopback that answers at once. Each round is a pair, so that a machine which is
slower for a while is so for both. "told" is how many events a second the endpoint got until it had them all, and "behind" how long after
the last message that was. Ends with status 1 when mail with the webhook is slower by more than --bound percent, or an event is missing.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, Process, free_port, wait_for
from bench.relay import RELAYED, Sink, one_round

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = "webhook_allow_networks = 127.0.0.0/8\n"
"""Goes on with the section [events]."""
PER_MESSAGE = 3
PATIENCE = 300.0
"""Seconds without any event, after which the missing ones are missing."""


class Endpoint:
    """The endpoint, and what it got."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process = subprocess.Popen([sys.executable, "-m", "bench.webhook_receiver", str(self.port)], cwd=ROOT)
        wait_for(self.port)

    def count(self) -> int:
        """The events so far, each once."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/count") as answer:
            return int(json.load(answer)["ids"])

    def wait(self, count: int) -> None:
        """Until there are so many."""
        last, quiet = -1, time.monotonic()
        while (done := self.count()) < count:
            if done != last:
                last, quiet = done, time.monotonic()
            if time.monotonic() - quiet > PATIENCE:
                raise SystemExit(f"stalled: {done} of {count} events arrived")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def sender_of(daemon: Daemon) -> Process:
    """The process that sends the daemon's webhooks."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == daemon.pid and b"webhook_sender" in (path.parent / "cmdline").read_bytes():
                return Process(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    raise SystemExit("no process sends webhooks")


def round_with(args: argparse.Namespace, port: int, sink: Sink, daemon: Daemon, endpoint: Endpoint) -> tuple[float, float, str]:
    """Messages per second and CPU a message with the webhook, and words about the events."""
    daemon.admin("webhook", "create", "--project", "bench", "--url", f"http://127.0.0.1:{endpoint.port}/")
    webhook = json.loads(daemon.admin("webhook", "list", "--project", "bench", "--json"))["id"]
    daemon.admin("webhook", "test", webhook)
    sender = sender_of(daemon)
    before, cpu, began = endpoint.count(), sender.cpu(), time.monotonic()
    rate, spent = one_round(args, port, sink, daemon)
    mailed = time.monotonic()
    endpoint.wait(before + args.messages * PER_MESSAGE)
    done = time.monotonic()
    events = args.messages * PER_MESSAGE
    each = (sender.cpu() - cpu) / events * 1e6
    words = (
        f"told {events / (done - began):6,.0f} events/s, behind {done - mailed:5.1f} s, {each:4.0f} us an event, {sender.memory():.0f} MB"
    )
    daemon.admin("webhook", "delete", webhook, "--yes")
    return rate, spent, words


def round_with_dead_ones(args: argparse.Namespace, port: int, sink: Sink, daemon: Daemon) -> str:
    """A pair with two webhooks that take nothing: one that nobody answers at, and one that hangs over each request."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as hanging:
        ports = (free_port(), hanging.getsockname()[1])
        without, _ = one_round(args, port, sink, daemon)
        for dead in ports:
            daemon.admin("webhook", "create", "--project", "bench", "--url", f"http://127.0.0.1:{dead}/")
        rate, _ = one_round(args, port, sink, daemon)
        for line in daemon.admin("webhook", "list", "--project", "bench", "--json").splitlines():
            daemon.admin("webhook", "delete", json.loads(line)["id"], "--yes")
    return f"two dead endpoints: without {without:,.0f} messages/s, with {rate:,.0f}; the sender has {sender_of(daemon).memory():.0f} MB"


def main() -> None:
    """Run the pairs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=10_240)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bound", type=float, default=25.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        port, sink_port = free_port(), free_port()
        sink, endpoint = Sink(sink_port), Endpoint()
        wait_for(sink_port)
        daemon = Daemon(Path(directory), port, ALLOWED + RELAYED.format(sink=sink_port))
        try:
            one_round(args, port, sink, daemon)
            costs = []
            for number in range(1, args.rounds + 1):
                without, cpu = one_round(args, port, sink, daemon)
                rate, spent, words = round_with(args, port, sink, daemon, endpoint)
                costs.append(100 * (1 - rate / without))
                print(f"round {number}  without {without:6,.0f} messages/s {cpu:4.0f} us   with {rate:6,.0f} messages/s {spent:4.0f} us")
                print(f"         {words}", flush=True)
            print(round_with_dead_ones(args, port, sink, daemon), flush=True)
            cost = statistics.median(costs)
            print(f"median   a webhook with {PER_MESSAGE} events a message costs {cost:.1f} % of the mail's throughput")
        finally:
            daemon.stop()
            endpoint.stop()
            sink.stop()
    if cost > args.bound:
        raise SystemExit(f"more than {args.bound:g} %")


if __name__ == "__main__":
    main()
