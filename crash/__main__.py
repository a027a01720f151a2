"""The long form: ``python -m crash [--kills 2000] [--seed N] [--arenas 2] [--write docs/durability.md]``.

Ends with a status other than 0 when anything was lost, came twice without an explanation, or was told wrongly; the files are then left
where they are. The seed is printed; the same one makes the same choices of points, cuts and messages, though not the same moments.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from crash import report
from crash.suite import run


def main() -> int:
    """Run, print the figures, and tell by the status whether the promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m crash", description="Kill the daemon over and over, and keep a ledger.")
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=None, help="default: by chance")
    parser.add_argument("--arenas", type=int, default=2, help="daemons side by side, each with its share of the kills")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page when all was well")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    directory = Path(tempfile.mkdtemp(prefix="lettermta-crash-"))
    print(f"seed {seed}, files in {directory}", flush=True)
    account = run(directory, options.kills, seed, arenas=options.arenas, told=lambda line: print(line, flush=True))
    told = report.text(account, f"make crash CRASH_KILLS={options.kills} CRASH_SEED={seed}")
    print(told)
    for token, reasons in account.lost.items():
        print(f"LOST {token}: {'; '.join(reasons)}")
    for fault in account.faults:
        print(f"FAULT {fault}")
    if not account.kept:
        print(f"The promise was broken: seed {seed}, files in {directory}")
        return 1
    if options.write is not None:
        report.write(options.write, told)
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
