"""Who has to wait for whom: one project's few messages, while another one has a hundred thousand.

    python bench/fair.py [--backlog 100000] [--messages 300]

Each row has a daemon of its own. The project ``few`` submits a message at a time, 20 a second, and what is told is how long each one
took from its acceptance to its delivery, as its events have it. Meanwhile the project ``bench`` has a backlog: none; for a domain that
refuses connections; for another domain that takes all; for the same domain as ``few``. The last two are being sent as fast as the one
process can, so ``few`` shares its processor with them. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import smtplib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import Daemon, free_port, wait_for
from bench.filling import Sender, fill
from bench.names import ALIVE, DEAD, SENDING, names
from bench.relay import Sink

HOSTS = {"live.example": ALIVE, "other.example": ALIVE, "dead.example": DEAD}
BACKLOGS = {"nothing": None, "a dead domain": "dead.example", "another domain": "other.example", "the same domain": "live.example"}
WORST_MS = 250.0
"""The goal for the 99th percentile, whatever the others have waiting."""
PAUSE_SECONDS = 0.05

FEW = """
[listener few]
ports = {port}
addresses = 127.0.0.1
trusted_networks = 127.0.0.0/8
trusted_project = few
"""
MESSAGE = b"From: few@source.example\r\nTo: jane@live.example\r\nSubject: few\r\n\r\n" + b"All is well.\r\n" * 100


def submit(port: int, count: int, sink: Sink) -> list[float]:
    """Send one message after the other; the milliseconds that each 250 took."""
    took = []
    with smtplib.SMTP("127.0.0.1", port) as client:
        for _ in range(count):
            began = time.monotonic()
            client.sendmail("few@source.example", ["jane@live.example"], MESSAGE)
            took.append((time.monotonic() - began) * 1000)
            sink.read()
            time.sleep(PAUSE_SECONDS)
    return took


def delivered(log: Path, count: int, sink: Sink) -> list[float]:
    """Milliseconds from acceptance to delivery of each message of the project ``few``, once all of them are there."""
    accepted: dict[str, datetime] = {}
    took: list[float] = []
    end = time.monotonic() + 120
    with log.open("rb") as lines:
        while len(took) < count:
            if time.monotonic() > end:
                raise SystemExit(f"only {len(took)} of {count} messages were delivered")
            line = lines.readline()
            if not line.endswith(b"\n"):
                lines.seek(-len(line), 1)
                sink.read()
                time.sleep(0.05)
                continue
            if b'"project":"few"' not in line:
                continue
            event = orjson.loads(line)
            identifier, moment = event["data"]["message_id"], datetime.fromisoformat(event["timestamp"])
            if event["event"] == "message.created":
                accepted[identifier] = moment
            elif event["event"] == "message.delivered":
                took.append((moment - accepted[identifier]).total_seconds() * 1000)
    return took


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[min(len(ordered) * 99 // 100, len(ordered) - 1)]


def scenario(backlog: str | None, args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """The milliseconds to the 250 and from there to the delivery, with a backlog for that domain."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        port, few, sink_port = free_port(), free_port(), free_port()
        sink = Sink(sink_port)
        wait_for(sink_port)
        with names(HOSTS, directory) as dns:
            more = SENDING.format(sink=sink_port, dns=dns) + FEW.format(port=few)
            daemon = Daemon(directory, port, more)
            daemon.admin("project", "create", "few")
            sender = Sender.of(daemon)
            daemon.stop()
            if backlog is not None:
                fill(directory / "state", sender, (f"u{number}@{backlog}" for number in range(args.backlog)), 10_240)
            daemon = Daemon(directory, port, more, again=True)
            try:
                answered = submit(few, args.messages, sink)
                return answered, delivered(directory / "events.jsonl", args.messages, sink)
            finally:
                daemon.stop()
                sink.stop()


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=300)
    args = parser.parse_args()
    print(f"{args.backlog:,} messages wait for    250: median     p99   delivery: median     p99   (goal: p99 {WORST_MS:.0f} ms)")
    met = True
    for name, backlog in BACKLOGS.items():
        answered, took = scenario(backlog, args)
        (a_median, a_worst), (median, worst) = percentiles(answered), percentiles(took)
        good = worst <= WORST_MS
        met = met and good
        missed = "" if good else "  <-- MISSED"
        print(f"{name:<26} {a_median:9.1f} ms {a_worst:6.1f} ms {median:13.1f} ms {worst:6.1f} ms{missed}", flush=True)
    if not met:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
