"""The power cut: takes away from a dead daemon's files what it had not synced, by the journal that the shim kept.

Two kinds. ``lost``: everything that was not synced is gone. ``torn``: of the changes to directories the first few survive, and of what was
written each sector of 512 octets for itself has some state between the last sync and the end; what a file grew by and did not keep is
zeros. An entry of a directory counts as synced once the directory was, content once the file was; neither stands for the other.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from random import Random

from attrs import define, field, frozen

from tests.tools import need

SECTOR = 512
_HEAD = struct.Struct("=IIQqqQII")
_MAGIC = 0x43524153


class Cut(Enum):
    """What becomes of what was not synced."""

    NONE = "kill"
    """It stays in the kernel's memory: the process was killed, no more."""
    LOST = "lost"
    TORN = "torn"


def build(directory: Path) -> Path:
    """The shim, compiled."""
    library = directory / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [
        need("gcc", "gcc"),
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(source),
        "-ldl",
        "-lpthread",
    ]
    subprocess.run(command, check=True, timeout=120)  # noqa: S603 - our own words
    return library


@frozen
class Record:
    """One change, or a sync, or the death; see ``shim.c`` for what the numbers mean."""

    position: int
    op: str
    inode: int
    offset: int
    size: int
    length: int
    first: bytes
    second: bytes

    @property
    def path(self) -> Path:
        """The path of an entry."""
        return Path(os.fsdecode(self.first))

    @property
    def other(self) -> Path:
        """The old name of a renamed entry."""
        return Path(os.fsdecode(self.second))


@define
class Layer:
    """The journal of one daemon's files. A plain kill leaves it as it is: what was not synced then is still not synced."""

    root: Path
    journal: Path
    entries: int = 0
    """Changes to directories that were taken back so far."""
    writes: int = 0
    """Changes of content that were taken back so far."""
    died: bool = field(default=False, init=False)
    """Whether the last death was the shim's doing."""
    _settled: int = field(default=0, init=False)
    """How long the journal was behind the death before."""

    def __attrs_post_init__(self) -> None:
        (self.journal / "saved").mkdir(parents=True)

    def environment(self, library: Path) -> dict[str, str]:
        """What the daemon is started with."""
        return {"LD_PRELOAD": str(library), "CRASH_ROOT": str(self.root), "CRASH_JOURNAL": str(self.journal)}

    def settle(self, cut: Cut, random: Random) -> None:
        """What a dead daemon's files are after this kind of death."""
        records = list(self._records())
        self.died = any(record.op == "K" and record.position >= self._settled for record in records)
        self._settled = records[-1].position + 1 if records else 0
        if cut is Cut.NONE:
            return
        synced: dict[int, int] = {}
        for record in records:
            if record.op == "S":
                synced[record.inode] = max(record.offset, synced.get(record.inode, 0))
        doubtful = [record for record in records if record.op in "WTCUR" and record.position >= synced.get(record.inode, 0)]
        # Content first, while every file can still be found.
        self._undo_content([record for record in doubtful if record.op in "WT"], random if cut is Cut.TORN else None)
        entries = [record for record in doubtful if record.op in "CUR"]
        survive = random.randint(0, len(entries)) if cut is Cut.TORN else 0
        self._undo_entries(entries[survive:])
        for memory in self.root.rglob("*-shm"):
            memory.unlink()
        self._forget()

    def _records(self) -> Iterator[Record]:
        """All whole records; what the last kill left of one that was being written is cut off."""
        path = self.journal / "journal"
        data = path.read_bytes() if path.exists() else b""
        position = 0
        while position + _HEAD.size <= len(data):
            magic, op, inode, offset, size, length, first, second = _HEAD.unpack_from(data, position)
            assert magic == _MAGIC, f"the journal is out of step at {position}"
            middle = position + _HEAD.size + first
            if middle + second > len(data):
                break
            yield Record(
                position, chr(op), inode, offset, size, length, data[position + _HEAD.size : middle], data[middle : middle + second]
            )
            position = middle + second
        if position < len(data):
            os.truncate(path, position)

    def _forget(self) -> None:
        self._settled = 0
        (self.journal / "journal").unlink(missing_ok=True)
        shutil.rmtree(self.journal / "saved")
        (self.journal / "saved").mkdir()

    # -- content

    def _undo_content(self, records: list[Record], random: Random | None) -> None:
        files = {
            os.stat(os.path.join(folder, name)).st_ino: os.path.join(folder, name)
            for top in (self.root, self.journal / "saved")
            for folder, _, names in os.walk(top)
            for name in names
        }
        by_file: dict[int, list[Record]] = {}
        for record in records:
            by_file.setdefault(record.inode, []).append(record)
        for inode, changes in by_file.items():
            # A file that was killed before it was made has no content to undo.
            if inode in files:
                with open(files[inode], "r+b", buffering=0) as file:
                    gone = _back(file.fileno(), changes)
                    if random is not None:
                        _forward(file.fileno(), gone, random)
                self.writes += len(changes)

    # -- entries

    def _undo_entries(self, entries: list[Record]) -> None:
        for record in reversed(entries):
            saved = self.journal / "saved" / str(record.position)
            self.entries += 1
            if record.op == "C":
                _remove(record.path)
            elif record.op == "R":
                if not record.other.exists() and record.path.exists():
                    record.path.rename(record.other)
                if saved.exists() and not record.path.exists():
                    saved.rename(record.path)
            elif saved.exists() and not record.path.exists():
                saved.rename(record.path)


def _remove(path: Path) -> None:
    """What is below a directory whose own name was lost is lost with it."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@frozen
class _Newer:
    """What one change made of a file, so that it can be made again in part."""

    offset: int
    content: bytes
    size: int


def _back(descriptor: int, changes: list[Record]) -> list[_Newer]:
    """Take a file back to its last sync; returns what is gone, oldest first."""
    gone = []
    for record in reversed(changes):
        content = os.pread(descriptor, record.length, record.offset) if record.op == "W" else b""
        gone.append(_Newer(record.offset, content, os.fstat(descriptor).st_size))
        os.ftruncate(descriptor, record.size)
        os.pwrite(descriptor, record.first, record.offset)
    return gone[::-1]


def _forward(descriptor: int, gone: list[_Newer], random: Random) -> None:
    """Make some of what is gone again: each sector has seen so many of the changes, and the size is that behind one of them."""
    reach: dict[int, int] = {}
    sizes = [os.fstat(descriptor).st_size, *(change.size for change in gone)]
    for number, change in enumerate(gone):
        start, last = change.offset, change.offset + len(change.content)
        while start < last:
            sector = start // SECTOR
            end = min((sector + 1) * SECTOR, last)
            if sector not in reach:
                reach[sector] = len(gone) if random.random() < 0.5 else random.randint(0, len(gone))
            if number < reach[sector]:
                os.pwrite(descriptor, change.content[start - change.offset : end - change.offset], start)
            start = end
    os.ftruncate(descriptor, random.choice(sizes))
