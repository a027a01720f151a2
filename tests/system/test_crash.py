"""The crash ledger's short form (HARD-CASES rows 15, 16, 19 and 26), and that it sees a sync that is missing.

The long form is ``make crash``; ``docs/durability.md`` tells what is shown. LETTERMTA_CRASH_SEED repeats the choices of a run that failed.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from crash.suite import run, run_broken
from tests.system.site import Site

KILLS = 50
SEED = int(os.environ.get("LETTERMTA_CRASH_SEED") or secrets.randbelow(10**6))

# Put on the daemon's path: Python imports a module of this name at its start.
WEAKER = """
import sqlite3

class Weaker(sqlite3.Connection):
    def execute(self, statement, *arguments):
        return super().execute(statement.replace("synchronous = FULL", "synchronous = {level}"), *arguments)

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **more: connect(*arguments, factory=Weaker, **more)
"""


def test_what_got_its_250_survives_fifty_deaths(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    account = run(tmp_path, KILLS, SEED)
    assert not account.lost, (SEED, account.lost)
    assert not account.faults, (SEED, account.faults)
    assert account.duplicates == account.explained, SEED
    # The run was worth its name.
    assert sum(each.snapshot is not None for each in account.rounds) == KILLS
    assert account.acknowledged > 2 * KILLS
    assert account.writes > KILLS, "the power cuts took back what was not synced"


@pytest.mark.parametrize("level", ["NORMAL", "OFF"])
def test_a_database_that_does_not_sync_its_commits_is_found_out(site: Site, tmp_path: Path, level: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WEAKER.format(level=level))
    assert run_broken(tmp_path, site, {"PYTHONPATH": str(tmp_path)}, SEED).lost


@pytest.mark.parametrize(
    "syncs", ["any *", "file /body/", "directory /body/", "any spool.db-wal"], ids=["none", "body-files", "body-folders", "commits"]
)
def test_a_missing_sync_is_found_out(site: Site, tmp_path: Path, syncs: str) -> None:
    assert run_broken(tmp_path, site, {"CRASH_SWALLOW": syncs}, SEED).lost


def test_without_a_fault_nothing_is_found(site: Site, tmp_path: Path) -> None:
    """The counterpart of the two above: the same kills of a daemon as it is."""
    account = run_broken(tmp_path, site, {}, SEED, kills=3)
    assert sum(each.acknowledged for each in account.rounds) > 0
    assert not account.lost
