"""What was promised survives: kill -9 at any moment, a disk that is full (HARD-CASES rows 15 and 26)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .hand import SMALL, Desk, large

ROOT = Path(__file__).parents[2]


def storing(directory: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.spool.storing", str(directory), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("promises", [1, 7, 60, 200])
def test_kill_9_loses_nothing_that_was_promised(tmp_path: Path, promises: int) -> None:
    process = storing(tmp_path / "0")
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(promises)]
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=60)
    promised = {line for line in [*lines, *rest.splitlines()] if len(line) == 36}
    assert len(promised) >= promises
    desk = Desk(tmp_path / "0")
    try:
        entries = {entry.id: entry for entry in desk.due(limit=1_000_000)}
        assert promised <= entries.keys()
        for entry in entries.values():
            assert desk.content(entry) in (SMALL, large()), "whole, or not at all"
        events = {event.message_id for _, event in desk.events(limit=1_000_000)}
        assert events == entries.keys(), "a message and its event are there together"
        assert len(desk.bodies()) == sum(entry.size > 200_000 for entry in entries.values()), "no orphan is left"
    finally:
        desk.close()


def test_a_full_disk_refuses_and_the_spool_goes_on_when_there_is_space(tmp_path: Path) -> None:
    process = storing(tmp_path / "0", "full", "600000")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    lines = output.splitlines()
    stored = lines.count("filling stored")
    assert stored > 3
    assert lines[stored:] == ["filling refused", *["full refused"] * 6, f"read {stored}", "again stored", "again stored", "closed"]
    desk = Desk(tmp_path / "0")
    try:
        assert len(desk.due(limit=10_000)) == stored + 2
        for entry in desk.due(limit=10_000):
            assert len(desk.content(entry)) == entry.size
        assert len(desk.bodies()) == 1
    finally:
        desk.close()
