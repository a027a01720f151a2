"""Content on its way in: in memory while it is small, in a synced file when it is not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from zope.interface.verify import verifyObject

from lettermta.interfaces import IContent, IStoredContent
from lettermta.message import Refused
from lettermta.spool.content import PIECE, SPILL, BodyFiles, FileContent, MemoryContent, SpoolContent

from .hand import large


class Threads:
    """Runs what is to run in a thread when the test says so; at once unless ``held``."""

    def __init__(self) -> None:
        self.held = False
        self.waiting: list[tuple[Deferred[Any], Any, tuple[Any, ...]]] = []

    def __call__(self, function: Any, *arguments: Any) -> Deferred[Any]:
        if not self.held:
            return execute(function, *arguments)
        self.waiting.append((Deferred(), function, arguments))
        return self.waiting[-1][0]

    def run_one(self) -> None:
        deferred, function, arguments = self.waiting.pop(0)
        execute(function, *arguments).chainDeferred(deferred)


@pytest.fixture
def threads() -> Threads:
    return Threads()


@pytest.fixture
def files(tmp_path: Path) -> BodyFiles:
    files = BodyFiles(tmp_path / "body")
    files.prepare()
    return files


def stored(files: BodyFiles, content: SpoolContent) -> bytes:
    """What comes of the content: head, empty line and body."""
    head, body = content.head(), content.body()
    if body is None:
        assert content.file is not None
        body = files.path(content.file).read_bytes()
    assert content.body_size() == len(body)
    return head + b"\r\n" + body


def fired(deferred: Deferred[Any] | None) -> Any:
    assert deferred is not None
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "has not fired"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]


def test_the_interfaces_are_provided(files: BodyFiles, threads: Threads) -> None:
    verifyObject(IContent, SpoolContent(files, threads))
    verifyObject(IStoredContent, MemoryContent(b"", b""))
    verifyObject(IStoredContent, FileContent(b"", Path("x"), 1, threads))


@pytest.mark.parametrize(
    ("data", "head", "body"),
    [
        (b"A: b\r\n\r\nbody\r\n", b"A: b\r\n", b"body\r\n"),
        (b"A: b\r\nC: d\r\n\r\n", b"A: b\r\nC: d\r\n", b""),
        (b"\r\nno header\r\n", b"", b"no header\r\n"),
        (b"A: b\r\n", b"A: b\r\n", b""),
        (b"", b"", b""),
        (b"A: b\r\n\r\n\r\n\r\nx\r\n", b"A: b\r\n", b"\r\n\r\nx\r\n"),
    ],
    ids=["usual", "no body", "no header", "no empty line", "nothing", "blank lines"],
)
def test_head_and_body_are_split_at_the_first_empty_line(files: BodyFiles, threads: Threads, data: bytes, head: bytes, body: bytes) -> None:
    for step in range(1, len(data) + 1):
        content = SpoolContent(files, threads)
        for start in range(0, len(data), step):
            assert content.write(data[start : start + step]) is None
        assert (content.head(), content.body(), content.body_size()) == (head, body, len(body))
        assert content.size == len(data)


@pytest.mark.parametrize("extra", [0, 1])
def test_only_what_is_larger_than_the_limit_goes_to_a_file(files: BodyFiles, threads: Threads, extra: int) -> None:
    data = b"A: b\r\n\r\n"
    data += b"x" * (SPILL - len(data) + extra)
    content = SpoolContent(files, threads)
    content.write(data)
    assert (content.file is not None) == bool(extra)
    fired(content.sync())
    assert stored(files, content) == data
    assert len(files.names()) == extra


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 150_000), min_size=1, max_size=8), st.integers(0, 5))
def test_every_way_of_splitting_a_large_content_comes_to_the_same(tmp_path_factory: Any, cuts: list[int], lines: int) -> None:
    files = BodyFiles(tmp_path_factory.getbasetemp() / "splits")
    files.prepare()
    content = SpoolContent(files, Threads())
    data = b"A: b\r\n" * lines + b"\r\n" + os.urandom(600_000)
    position = 0
    for cut in [*cuts, len(data)]:
        content.write(data[position : position + cut])
        position += cut
    fired(content.sync())
    assert stored(files, content) == data
    content.discard()


@pytest.mark.parametrize("step", [1 << 30, 4096, SPILL, SPILL + 1, SPILL + 2])
@pytest.mark.parametrize("size", [SPILL - 2, SPILL - 1, SPILL, SPILL + 1, SPILL + 2, SPILL + 100])
def test_a_header_block_that_is_too_large_is_refused_however_it_is_split(files: BodyFiles, threads: Threads, size: int, step: int) -> None:
    data = b"A: " + b"x" * (size - 5) + b"\r\n" + b"\r\n" + b"body" * 50_000
    content = SpoolContent(files, threads)

    def write() -> None:
        for start in range(0, len(data), step):
            content.write(data[start : start + step])

    if size <= SPILL:
        write()
        fired(content.sync())
        assert stored(files, content) == data
    else:
        with pytest.raises(Refused) as refused:
            write()
        assert (refused.value.reply.code, refused.value.reply.enhanced) == (552, "5.3.4")
        content.discard()
        assert files.names() == []


def test_a_writer_is_told_to_wait_while_a_piece_is_written(files: BodyFiles, threads: Threads) -> None:
    threads.held = True
    content = SpoolContent(files, threads)
    assert content.write(b"A: b\r\n\r\n" + b"x" * SPILL) is None, "memory is bounded by a piece"
    wait = content.write(b"y" * PIECE)
    assert wait is not None
    told: list[object] = []
    wait.addBoth(told.append)
    assert not told
    threads.run_one()
    assert told == [None]


def test_the_end_may_come_while_a_piece_is_being_written(files: BodyFiles, threads: Threads) -> None:
    """The final dot can be in the very read that fills a piece."""
    threads.held = True
    data = large(PIECE + 50_000)
    content = SpoolContent(files, threads)
    content.write(data)
    synced = content.sync()
    assert len(threads.waiting) == 1, "one thing at a time is done to the file"
    threads.run_one()
    threads.run_one()
    fired(synced)
    assert stored(files, content) == data


def test_a_piece_that_was_not_written_fails_the_sync(files: BodyFiles, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space may be back by then: the hole remains."""
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    content = SpoolContent(files, threads)
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        fired(content.write(large(PIECE + 50_000)))
    monkeypatch.setattr(os, "write", write)
    content.write(b"more\r\n")
    with pytest.raises(OSError, match="not written"):
        fired(content.sync())
    content.discard()
    assert files.names() == []


@pytest.mark.parametrize("size", [100, SPILL, SPILL + 1, PIECE * 2 + 100_000])
def test_a_body_can_be_looked_at_before_it_is_stored_and_as_often_as_wanted(files: BodyFiles, threads: Threads, size: int) -> None:
    data = large(size)
    content = SpoolContent(files, threads)
    for start in range(0, size, 50_000):
        if (wait := content.write(data[start : start + 50_000])) is not None:
            fired(wait)

    async def look() -> list[bytes]:
        return [piece async for piece in content.body_pieces()]

    for _ in range(2):
        pieces = fired(Deferred.fromCoroutine(look()))
        assert b"".join(pieces) == data.partition(b"\r\n\r\n")[2]
        assert max(map(len, pieces)) <= PIECE
    fired(content.sync())
    assert stored(files, content) == data


@pytest.mark.parametrize("begun", [0, 1, 2], ids=["while an earlier piece is written", "while the last one is", "while it is read"])
def test_a_look_that_is_broken_off_leaves_the_content_whole(files: BodyFiles, threads: Threads, begun: int) -> None:
    """What a policy that took too long was reading goes out as it came, if it goes out."""
    data = large(PIECE + 200_000)
    content = SpoolContent(files, threads)
    threads.held = True
    content.write(data[: PIECE + 100_000])
    content.write(data[PIECE + 100_000 :])

    async def look() -> None:
        async for _ in content.body_pieces():
            pass

    looking = Deferred.fromCoroutine(look())
    for _ in range(begun):
        threads.run_one()
    looking.addErrback(lambda _: None)
    looking.cancel()
    synced = content.sync()
    while threads.waiting:
        threads.run_one()
    fired(synced)
    assert stored(files, content) == data
    assert content.file_checksum == zlib.crc32(data.partition(b"\r\n\r\n")[2])


def test_a_file_is_synced_and_then_its_directory(files: BodyFiles, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    content = SpoolContent(files, threads)
    content.write(large())
    fired(content.sync())
    assert content.file is not None
    path = files.path(content.file)
    assert synced == [str(path), str(path.parent)]


def test_discarding_removes_the_file_and_closes_it(files: BodyFiles, threads: Threads) -> None:
    before = len(os.listdir("/proc/self/fd"))
    content = SpoolContent(files, threads)
    content.write(large(PIECE + 100_000))
    assert len(files.names()) == 1
    content.discard()
    content.discard()
    assert files.names() == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_discarding_while_a_thread_writes_waits_for_it(files: BodyFiles, threads: Threads) -> None:
    threads.held = True
    content = SpoolContent(files, threads)
    wait = content.write(large(PIECE + 100_000))
    content.discard()
    assert len(threads.waiting) == 1
    threads.run_one()
    fired(wait)
    assert len(files.names()) == 1
    threads.run_one()
    assert files.names() == []


def test_discarding_what_never_reached_the_file_leaves_nothing(files: BodyFiles, threads: Threads) -> None:
    content = SpoolContent(files, threads)
    content.write(b"A: b\r\n\r\n" + b"x" * SPILL)
    content.discard()
    small = SpoolContent(files, threads)
    small.write(b"A: b\r\n\r\n")
    small.discard()
    assert files.names() == []


def test_body_files_are_for_the_owner_alone(files: BodyFiles, threads: Threads) -> None:
    content = SpoolContent(files, threads)
    content.write(large())
    fired(content.sync())
    assert content.file is not None
    path = files.path(content.file)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_is_read_in_pieces_of_bounded_size(files: BodyFiles, threads: Threads) -> None:
    data = large(PIECE * 3)
    content = SpoolContent(files, threads)
    content.write(data)
    fired(content.sync())
    assert content.file is not None
    back = FileContent(content.head(), files.path(content.file), content.body_size(), threads)
    assert back.size == len(data)
    assert back.whole() is None

    async def read() -> list[bytes]:
        return [piece async for piece in back.pieces()]

    pieces = fired(Deferred.fromCoroutine(read()))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= PIECE
