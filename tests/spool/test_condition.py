"""A full disk, a failed disk: nothing is lost, new mail is refused in good time, and it goes on by itself (HARD-CASES row 26)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import capturedLogs

from lettermta import metrics
from lettermta.interfaces import NotStored
from lettermta.message import State
from lettermta.spool import schema, writer
from lettermta.spool.condition import Condition, Room

from .hand import SMALL, Desk, large

ROOT = Path(__file__).parents[2]
MB = 1 << 20


class Disk:
    """What the writer's connections come to: ``fault`` is the code that every commit fails with, ``connections`` counts them."""

    def __init__(self) -> None:
        self.fault: int | None = None
        self.connections = 0
        self.failed: list[int] = []

    def connect(self, path: Path, *, writable: bool) -> sqlite3.Connection:
        disk = self
        disk.connections += 1
        mine = disk.connections

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                if statement == "COMMIT" and disk.fault is not None:
                    disk.failed.append(mine)
                    error = sqlite3.OperationalError("disk I/O error")
                    error.sqlite_errorcode = disk.fault
                    raise error
                return super().execute(statement, *values)

        plain = schema.connect(path, writable=writable)
        plain.close()
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Connection)
        connection.execute("PRAGMA synchronous = FULL")
        return connection


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(writer, "connect", disk.connect)
    monkeypatch.setattr(writer, "LOOK_SECONDS", 0.05)
    return disk


@pytest.fixture
def shop(disk: Disk, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "0")
    yield desk
    desk.close()


def failures() -> float:
    return metrics.SPOOL_COMMIT_FAILURES._value.get()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN])
def test_after_a_failed_sync_the_batch_is_lost_and_nothing_is_tried_again_on_that_connection(disk: Disk, shop: Desk, code: int) -> None:
    kept = shop.store("kept@example.com")
    before, disk.fault = failures(), code
    with capturedLogs() as logged:
        waiting = [shop.storing(shop.message(f"u{number}@example.com")) for number in range(3)]
        for stored in waiting:
            with pytest.raises(NotStored):
                shop.reactor.wait(stored)
        assert shop.spool._writer.condition is Condition.BROKEN
        assert not shop.spool.room(1)
        assert "broken" in str(shop.spool.complaint())
        with pytest.raises(NotStored):
            shop.record(shop.entries[0], State.DELIVERED)
        disk.fault = None
        shop.until_working()
    assert failures() == before + 1
    assert len(set(disk.failed)) == len(disk.failed), "one commit for each connection"
    assert disk.connections > 1
    lines = [event["log_format"] for event in logged if "the spool" in event["log_format"]]
    assert [("takes no new mail" in lines[0]), ("working again" in lines[1]), len(lines)] == [True, True, 2], "a line for each change"
    after = shop.store("after@example.com")
    assert [row["id"] for row in shop.rows()] == [kept.id, after.id]
    assert shop.spool._fresh.get(shop.entries[-1].number) is not None


def test_what_was_not_stored_is_not_kept_in_memory(disk: Disk, shop: Desk) -> None:
    disk.fault = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(NotStored):
        shop.store("a@example.com")
    assert len(shop.spool._fresh) == 0
    assert shop.spool._fresh.octets == 0
    disk.fault = None
    shop.until_working()


def test_one_units_own_fault_is_its_own(shop: Desk) -> None:
    first = shop.store("a@example.com")
    before = failures()
    with pytest.raises(sqlite3.IntegrityError):
        shop.store("b@example.com", id=first.id)
    assert shop.spool.complaint() is None
    assert failures() == before
    assert len(shop.spool._fresh) == 1


def test_damage_that_a_write_meets_fails_that_write_alone_and_is_told(disk: Disk, shop: Desk) -> None:
    disk.fault = sqlite3.SQLITE_CORRUPT
    with pytest.raises(sqlite3.OperationalError):
        shop.store("a@example.com")
    disk.fault = None
    shop.store("b@example.com")
    assert shop.spool.complaint() is None
    assert "disk I/O error" in str(shop.spool.damage())


def test_while_full_new_mail_is_refused_and_outcomes_are_recorded(disk: Disk, shop: Desk) -> None:
    shop.store("a@example.com")
    disk.fault = sqlite3.SQLITE_FULL
    with pytest.raises(NotStored):
        shop.store("b@example.com")
    disk.fault = None
    shop.record(shop.entries[0], State.DELIVERED)
    shop.until_working()
    shop.store("c@example.com")
    assert [row["recipient"] for row in shop.rows()] == ["c@example.com"]


# -- room


def test_below_the_floor_new_mail_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LOOK_SECONDS", 0.05)
    free = [100 * MB]
    found = os.statvfs(tmp_path)

    class Found:
        f_frsize, f_files, f_favail = 1, found.f_files, found.f_favail

        @property
        def f_bavail(self) -> int:
            return free[0]

    monkeypatch.setattr("lettermta.spool.condition.os.statvfs", lambda path: Found())
    desk = Desk(tmp_path / "0", 80 * MB)
    try:
        desk.store("a@example.com")
        assert desk.spool.room(19 * MB)
        assert not desk.spool.room(21 * MB), "SIZE counts (RFC 1870)"
        free[0] = 79 * MB
        while desk.spool.complaint() is None:
            desk.reactor.turn_once()
        assert "free_space" in str(desk.spool.complaint())
        with pytest.raises(NotStored):
            desk.store("b@example.com", data=large())
        desk.record(desk.entries[0], State.DELIVERED)
        free[0] = 100 * MB
        desk.until_working()
        desk.store("c@example.com")
    finally:
        desk.close()


def test_the_floor_has_hysteresis_and_counts_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, 1000)
    seen = []
    for free, files, inodes in ((1000, 9, 9), (999, 9, 9), (1050, 9, 9), (1100, 9, 9), (1001, 9, 9), (9000, 9, 0), (9000, 0, 0)):
        found = os.statvfs_result((1, 1, 9999, free, free, files, inodes, inodes, 0, 255))
        monkeypatch.setattr("lettermta.spool.condition.os.statvfs", lambda path, found=found: found)
        seen.append(room.look())
    assert seen == [True, False, False, True, True, False, True]


def test_the_reserve_is_made_given_back_and_made_again(tmp_path: Path) -> None:
    room = Room(tmp_path, 8000)
    room.look()
    for _ in range(2):
        room.keep_reserve()
        assert (tmp_path / "reserve").stat().st_size == 1000
        room.give_reserve()
        assert not (tmp_path / "reserve").exists()


def test_outcomes_are_recorded_on_a_file_system_that_others_have_filled(tmp_path: Path) -> None:
    """A real one of 24 MB, in a mount namespace of its own; needs the right to mount, or user namespaces."""
    unshare = shutil.which("unshare")
    assert unshare, "unshare is missing (Debian: util-linux)"
    script = f'mount -t tmpfs -o size=24m none "{tmp_path}" && exec "{sys.executable}" -m tests.spool.filling "{tmp_path}"'
    command = [unshare, "--mount", "--map-root-user", "sh", "-c", script]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if run.returncode and ("unshare failed" in run.stderr or "mount:" in run.stderr):
        pytest.fail(f"no file system may be mounted here, which this test needs (root, or a user namespace): {run.stderr.strip()}")
    assert run.stdout.splitlines() == [
        "NotStored",
        "refused low True True",
        "taken 0",
        "recorded True [] True",
        "again True",
    ], run.stderr


def test_figures_of_the_queue_are_measured(desk: Desk) -> None:
    from twisted.internet.defer import Deferred

    desk.store("a@example.com", "b@example.com", created=1000.0)
    desk.store("c@example.com", data=SMALL, hold_until=2e9)
    desk.record(desk.entries[0], State.DELIVERED, State.DEFERRED, due=3e9)
    desk.reactor.wait(Deferred.fromCoroutine(desk.spool.measure()))
    told = {state: metrics.QUEUE_RECIPIENTS[state]._value.get() for state in ("queued", "scheduled", "deferred", "held", "quarantined")}
    assert told == {"queued": 0, "scheduled": 1, "deferred": 1, "held": 0, "quarantined": 0}
    assert metrics.QUEUE_MESSAGES._value.get() == 2
    assert metrics.QUEUE_OLDEST_SECONDS._value.get() > 1e9
    assert metrics.SPOOL_FREE_BYTES._value.get() > 0


def test_a_sink_that_is_gone_keeps_no_events(desk: Desk) -> None:
    for _ in range(5):
        desk.store("a@example.com", created=1000.0)
    for sink, sequence in (("json_log", 4), ("hook:gone", 1)):
        desk.reactor.wait(desk.spool.advance(sink, sequence))
    assert desk.reactor.wait(desk.spool.trim(2000.0)) == 1
    assert desk.reactor.wait(desk.spool.retire(["json_log", "hook:new"])) == ["hook:gone"]
    assert desk.reactor.wait(desk.spool.trim(2000.0)) == 3
    assert desk.reactor.wait(desk.spool.cursor("json_log")) == 4
