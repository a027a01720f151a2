"""A long suppression list: what it takes to bring it in, to hold it, and to ask it for each recipient.

    python bench/suppressions.py [--entries 1000000]

The list comes in by ``lettermta-admin suppression import`` while the daemon runs, and another client sends a message every 50 ms meanwhile.
CPU for each message is the daemon's, with 20 clients at once, each message to one recipient who is not on the list, delivered into the
void. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import resource
import smtplib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.daemon import BIN, Daemon, free_port, wait_for
from bench.deep import Table
from lettermta.spool import suppression_rows
from lettermta.spool.key_filter import KeyFilter
from lettermta.spool.schema import connect
from lettermta.suppression import Mailing, values_of
from tests.tools import need

MEMORY_MB_PER_MILLION = 20.0
"""What a million entries may add to the daemon."""
TOOL_MB = 100.0
LOOKUP_US = 5.0
"""For a recipient who is not on the list, which nearly all are."""
LATENCY_MS = 500.0
"""For the other client, at the worst, while the list comes in."""
MESSAGES = 5000


def cpu_per_message(daemon: Daemon) -> float:
    """Microseconds of the daemon's CPU: the median of three, behind one that is not counted."""
    figures = []
    for _ in range(4):
        before = daemon.cpu()
        command = [need("smtp-source", "postfix"), "-d", "-s", "20", "-m", str(MESSAGES), "-l", "10000",
                   "-f", "sender@source.example", "-t", "recipient@waiting.example", f"127.0.0.1:{daemon.port}"]  # fmt: skip
        subprocess.run(command, check=True)
        figures.append((daemon.cpu() - before) / MESSAGES * 1e6)
    return statistics.median(figures[1:])


class Client(threading.Thread):
    """Sends a message every 50 ms; ``slowest`` is the longest that one took."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.slowest = 0.0
        self._port = port
        self._over = threading.Event()

    def run(self) -> None:
        """Send until it is stopped."""
        with smtplib.SMTP("127.0.0.1", self._port) as smtp:
            while not self._over.wait(0.05):
                began = time.monotonic()
                smtp.sendmail("a@source.example", ["b@waiting.example"], "From: a@source.example\r\nSubject: x\r\n\r\nx\r\n")
                self.slowest = max(self.slowest, time.monotonic() - began)

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        self.join()


def write_list(path: Path, entries: int) -> None:
    """A file with an address on each line, in no order."""
    with path.open("w") as out:
        for number in range(entries):
            out.write(f"{number * 2654435761 % 2**32:08x}.user{number}@example{number % 5000}.com\n")


def lookups(database: Path, table: Table) -> None:
    """What a question costs, in this process."""
    connection = connect(database, writable=False)
    known = KeyFilter(sum(suppression_rows.count(connection).values()))
    began = time.perf_counter()
    for value in suppression_rows.values(connection):
        known.add(value)
    table.row("learning all of them, in a thread", f"{time.perf_counter() - began:.1f} s")
    table.row("memory of what was learned", f"{known.octets / 1e6:.1f} MB")
    others = [f"recipient{number}@gmail.com" for number in range(100_000)]
    began = time.perf_counter()
    hits = sum(any(value in known for value in values_of(address)) for address in others)
    each = (time.perf_counter() - began) / len(others) * 1e6
    table.row("a recipient who is not on it", f"{each:.1f} us", f"{LOOKUP_US:.0f} us", each <= LOOKUP_US)
    table.row("of those, asked of the database in vain", f"{hits / len(others):.2%}")
    listed = [value for (value,) in connection.execute("SELECT value FROM suppression WHERE number % 997 = 0")]
    mailing = Mailing("p", "r", broadcast=False)
    began = time.perf_counter()
    for address in listed:
        assert suppression_rows.find(connection, mailing, [address])
    table.row("a recipient who is on it", f"{(time.perf_counter() - began) / len(listed) * 1e6:.0f} us")
    connection.close()


def measure(entries: int, directory: Path, table: Table) -> None:
    """Fill the table's rows."""
    path = directory / "list"
    write_list(path, entries)
    daemon = Daemon(directory, free_port())
    try:
        daemon.admin("route", "update", "--project", "bench", "outgoing", "--transport", "discard")
        table.row("CPU for a message, no list", f"{cpu_per_message(daemon):.0f} us")
        empty = daemon.memory()
        client = Client(daemon.port)
        client.start()
        began = time.monotonic()
        daemon.admin("suppression", "import", "--global", "--reason", "hard_bounce", "--no-events", str(path))
        took = time.monotonic() - began
        client.stop()
        tool = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        table.row(f"import of {entries:,}", f"{took:.1f} s ({entries / took:,.0f}/s)")
        table.row("the tool's memory", f"{tool:.0f} MB", f"{TOOL_MB:.0f} MB", tool <= TOOL_MB)
        slowest = client.slowest * 1e3
        table.row("slowest 250 to another client meanwhile", f"{slowest:.0f} ms", f"{LATENCY_MS:.0f} ms", slowest <= LATENCY_MS)
        began = time.monotonic()
        again = daemon.admin("suppression", "import", "--global", "--reason", "hard_bounce", "--json", str(path))
        assert f'"added": 0, "known": {entries}' in again
        table.row("the same once more", f"{time.monotonic() - began:.1f} s")
        table.row("CPU for a message, with the list", f"{cpu_per_message(daemon):.0f} us")
        bound = max(MEMORY_MB_PER_MILLION * entries / 1e6, 10.0)
        grown = daemon.memory() - empty
        table.row("the daemon's memory has grown by", f"{grown:.1f} MB", f"{bound:.0f} MB", grown <= bound)
        began = time.monotonic()
        lines = subprocess.run([BIN / "lettermta-admin", "-c", daemon.ini, "suppression", "export"], check=True, capture_output=True).stdout
        assert lines.count(b"\n") == entries + 1
        table.row("export", f"{time.monotonic() - began:.1f} s")
    finally:
        daemon.stop()
    database = directory / "state" / "spool" / "0" / "spool.db"
    began = time.monotonic()
    daemon = Daemon(directory, daemon.port, again=True)
    try:
        wait_for(daemon.port)
        table.row("start with the list", f"{time.monotonic() - began:.1f} s")
    finally:
        daemon.stop()
    lookups(database, table)
    table.row("the database", f"{database.stat().st_size / 1e6:.0f} MB")


def main() -> None:
    """Measure, print, and say by the exit code whether the goals were met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    args = parser.parse_args()
    table = Table(judges_time=True)
    with tempfile.TemporaryDirectory(prefix="lettermta-bench-") as directory:
        measure(args.entries, Path(directory), table)
    sys.exit(0 if table.met else 1)


if __name__ == "__main__":
    main()
