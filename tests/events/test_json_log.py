"""The event log: the octets as they are, nothing lost, hardly anything twice."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from lettermta.events.dispatcher import Dispatcher
from lettermta.events.feed import LINGER
from lettermta.events.json_log import JSONLog
from lettermta.events.log_file import TAIL, LogFile, Rotation
from lettermta.events.sink import IEventSink
from lettermta.testing.spool import MemorySpool

from .conftest import submit
from .test_dispatcher import fired


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "events.jsonl"


@pytest.fixture
def run(spool, clock, path):
    """Starts a log on the spool, as the daemon does."""

    def start():
        log = JSONLog(path, clock, in_thread=maybeDeferred)
        dispatcher = Dispatcher(spool, [log], clock)
        fired(dispatcher.start())
        clock.advance(LINGER)
        return dispatcher

    return start


@pytest.fixture
def file_size_limit():
    """Sets the kernel's limit on the size of files: writing over it fails as a full disk does, after writing what fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(octets=None):
        resource.setrlimit(resource.RLIMIT_FSIZE, before if octets is None else (octets, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_it_is_a_sink(path, clock):
    verifyObject(IEventSink, JSONLog(path, clock))


def test_each_event_is_one_line_with_its_own_octets(run, spool, clock, path):
    run()
    events = [submit(spool) for _ in range(1200)]
    clock.pump([LINGER] * 4)
    assert path.read_bytes() == b"".join(event.payload + b"\n" for event in events)


def test_the_file_and_its_directory_are_made_and_not_for_everyone(run, path):
    run()
    assert stat.S_IMODE(path.stat().st_mode) & 0o137 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o027 == 0


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "file as directory"])
def test_a_path_that_cannot_be_a_log_fails_the_start_by_name(spool, clock, path, obstacle):
    if obstacle == "file as directory":
        path.parent.write_text("")
    else:
        path.parent.mkdir()
        path.mkdir() if obstacle == "directory" else os.mkfifo(path)
    dispatcher = Dispatcher(spool, [JSONLog(path, clock, in_thread=maybeDeferred)], clock)
    with pytest.raises(OSError, match=str(path.parent)):
        fired(dispatcher.start())


def test_the_file_is_synced_before_the_cursor_moves(run, spool, clock, monkeypatch):
    run()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(spool.cursors["json_log"]))
    submit(spool)
    clock.pump([LINGER, 1])
    assert synced == [0]
    assert spool.cursors["json_log"] == 1


def test_after_a_crash_lines_that_are_there_are_not_written_again(run, spool, clock, path):
    run()
    events = [submit(spool) for _ in range(20)]
    clock.advance(LINGER)
    assert spool.cursors["json_log"] == 0, "the crash comes before the cursor moved"
    spool._listeners.clear()
    run()
    events += [submit(spool) for _ in range(3)]
    clock.advance(LINGER)
    assert path.read_bytes().splitlines() == [event.payload for event in events]


def test_a_torn_last_line_is_ended_and_its_event_written_in_full(run, spool, clock, path):
    run()
    events = [submit(spool) for _ in range(3)]
    clock.advance(LINGER)
    spool._listeners.clear()
    torn = path.read_bytes()[:-30]
    path.write_bytes(torn)
    run()
    assert path.read_bytes() == torn + b"\n" + events[2].payload + b"\n"


def test_a_line_of_zeros_after_a_power_cut_is_not_taken_for_an_event(run, spool, clock, path):
    path.parent.mkdir()
    event = submit(spool)
    half = len(event.payload) // 2
    path.write_bytes(event.payload[:half] + b"\0" * (len(event.payload) - half - 1) + b"}\n")
    run()
    assert path.read_bytes().splitlines()[1:] == [event.payload]


def test_only_the_tail_of_a_large_log_is_read(clock, path):
    path.parent.mkdir()
    event = submit(MemorySpool())
    with path.open("wb") as file:
        file.write(event.payload + b"\n")
        file.write((b"x" * 999 + b"\n") * (TAIL // 1000 + 1))
    log = LogFile(path, clock.seconds)
    log.append([(1, event)])
    log.close()
    assert path.read_bytes().count(event.payload) == 2


def test_a_file_renamed_away_is_followed_by_a_new_one(run, spool, clock, path):
    run()
    before = submit(spool)
    clock.pump([LINGER, 1])
    rotated = path.with_suffix(".1")
    path.rename(rotated)
    after = submit(spool)
    clock.advance(1)
    assert rotated.read_bytes() == before.payload + b"\n"
    assert path.read_bytes() == after.payload + b"\n"
    clock.advance(1)
    assert spool.cursors["json_log"] == 2


def lines_of(path):
    """All lines of all files, the oldest first, and how many files there are."""
    numbered = [path.with_name(f"{path.name}.{number}") for number in range(1, 100)]
    files = [one for one in [*reversed(numbered), path] if one.exists()]
    return [line for one in files for line in one.read_bytes().splitlines()], len(files)


def rotating(spool, clock, path, size, keep=10):
    dispatcher = Dispatcher(spool, [JSONLog(path, clock, in_thread=maybeDeferred, rotation=Rotation(size, keep))], clock)
    fired(dispatcher.start())
    clock.advance(LINGER)
    return dispatcher


def test_a_log_that_would_get_too_large_makes_way_for_a_new_one(spool, clock, path):
    dispatcher = rotating(spool, clock, path, size=3000)
    events = []
    for _ in range(40):
        events.append(submit(spool))
        clock.advance(LINGER)
    lines, files = lines_of(path)
    assert lines == [event.payload for event in events]
    assert files > 5
    assert all(one.stat().st_size <= 3000 for one in path.parent.iterdir())
    fired(dispatcher.stop())
    assert spool.cursors["json_log"] == 40


def test_only_so_many_logs_are_kept(spool, clock, path):
    rotating(spool, clock, path, size=1, keep=3)
    events = []
    for _ in range(10):
        events.append(submit(spool))
        clock.advance(LINGER)
    assert sorted(one.name for one in path.parent.iterdir()) == ["events.jsonl", *(f"events.jsonl.{number}" for number in (1, 2, 3))]
    assert lines_of(path)[0] == [event.payload for event in events[-4:]]


def test_a_rotated_log_is_synced_before_the_cursor_moves(spool, clock, path, monkeypatch):
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(os.fstat(descriptor).st_ino), fsync(descriptor)))
    rotating(spool, clock, path, size=1)
    for _ in range(3):
        submit(spool)
        clock.advance(LINGER)
    clock.advance(2)
    assert {one.stat().st_ino for one in path.parent.iterdir()} <= set(synced)
    assert spool.cursors["json_log"] == 3


def test_a_log_that_cannot_be_rotated_waits_and_loses_nothing(spool, clock, path):
    rotating(spool, clock, path, size=1, keep=1)
    first = submit(spool)
    clock.advance(LINGER)
    path.with_name("events.jsonl.1").mkdir()
    second = submit(spool)
    with capturedLogs() as logs:
        clock.pump([LINGER, 1, 1, 1])
    assert len([log for log in logs if "reason" in log]) == 1
    path.with_name("events.jsonl.1").rmdir()
    clock.pump([10, LINGER])
    assert lines_of(path)[0] == [first.payload, second.payload]


def test_a_full_disk_is_said_once_waited_for_and_survived(run, spool, clock, path, file_size_limit):
    run()
    first = submit(spool)
    clock.advance(LINGER)
    file_size_limit(len(first.payload) + 1 + 50)
    events = [submit(spool) for _ in range(5)]
    with capturedLogs() as logs:
        clock.pump([1.0] * 60)
        assert len([log for log in logs if log["log_level"].name == "error"]) == 1
        assert str(path) in logs[-1]["log_format"].format(**logs[-1])
        assert path.read_bytes().splitlines()[0] == first.payload
        file_size_limit()
        clock.pump([1.0] * 60)
    lines = path.read_bytes().splitlines()
    assert [line for line in lines if line.endswith(b"}")] == [first.payload, *(event.payload for event in events)]
    assert len(lines) == 7, "and one torn line"
    assert [log["log_level"].name for log in logs] == ["error", "info"]
    assert spool.cursors["json_log"] == 6


def test_after_a_failed_fsync_everything_since_the_last_good_one_is_written_again(run, spool, clock, path, monkeypatch):
    """HARD-CASES row 26: a second fsync would succeed although the kernel has dropped the pages."""
    run()
    confirmed = submit(spool)
    clock.pump([LINGER, 1])
    doubtful = submit(spool)
    fsync = os.fsync

    def failing(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with capturedLogs() as logs:
        clock.pump([LINGER] + [1.0] * 5)
    assert path.read_bytes().splitlines() == [event.payload for event in (confirmed, doubtful, doubtful)]
    assert spool.cursors["json_log"] == 2
    assert [log["log_level"].name for log in logs] == ["error", "info"]


class InThreads(TestCase):
    """The same with the reactor's real threads."""

    def test_lines_are_written_off_the_reactors_thread(self):
        from twisted.internet import reactor

        threads = set()

        class Watched(LogFile):
            def append(self, events):
                threads.add(threading.current_thread())
                super().append(events)

        directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, directory)
        path = directory / "events.jsonl"
        spool = MemorySpool()
        log = JSONLog(path, reactor)
        log._file = Watched(path, reactor.seconds)
        dispatcher = Dispatcher(spool, [log], reactor)

        async def scenario():
            await dispatcher.start()
            await deferLater(reactor, 0)
            events = [submit(spool) for _ in range(3)]
            await dispatcher.stop()
            return events

        def check(events):
            self.assertEqual(path.read_bytes(), b"".join(event.payload + b"\n" for event in events))
            self.assertEqual(threads & {threading.main_thread()}, set())
            self.assertTrue(threads)
            self.assertEqual(spool.cursors["json_log"], 3)

        return Deferred.fromCoroutine(scenario()).addCallback(check)
