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
    command = [need("gcc", "gcc"), "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl", "-lpthread"]
    subprocess.run([*command], check=True, timeout=120)
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
    death: str = field(default="", init=False)
    """The point and the path of the last death that the shim brought about."""

    def __attrs_post_init__(self) -> None:
        (self.journal / "saved").mkdir(parents=True)

    def environment(self, library: Path) -> dict[str, str]:
        """What the daemon is started with."""
        return {"LD_PRELOAD": str(library), "CRASH_ROOT": str(self.root), "CRASH_JOURNAL": str(self.journal)}

    def settle(self, cut: Cut, random: Random) -> None:
        """What a dead daemon's files are after this kind of death."""
        records = list(self._records())
        deaths = [record for record in records if record.op == "K"]
        self.death = f"{os.fsdecode(deaths[-1].second)} {deaths[-1].path.name}" if deaths else ""
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
                with open(files[inode], "r+b") as file:
                    _undo(file, changes, random)
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


def _undo(file: object, changes: list[Record], random: Random | None) -> None:
    """Take a file back to its last sync and, with ``random``, some of its sectors forward again."""
    descriptor = file.fileno()  # type: ignore[attr-defined]
    newer: list[tuple[int, bytes, int]] = []
    for record in reversed(changes):
        size = os.fstat(descriptor).st_size
        if random is not None:
            content = os.pread(descriptor, record.length, record.offset) if record.op == "W" else b""
            newer.append((record.offset, content, size))
        os.ftruncate(descriptor, record.size)
        if record.first:
            os.pwrite(descriptor, record.first, record.offset)
    if random is None:
        return
    newer.reverse()
    reach: dict[int, int] = {}
    """How many of the changes each sector has seen."""

    def seen(sector: int) -> int:
        if sector not in reach:
            reach[sector] = len(newer) if random.random() < 0.5 else random.randint(0, len(newer))
        return reach[sector]

    for number, (offset, content, _) in enumerate(newer):
        start = offset
        while start < offset + len(content):
            end = min((start // SECTOR + 1) * SECTOR, offset + len(content))
            if number < seen(start // SECTOR):
                os.pwrite(descriptor, content[start - offset : end - offset], start)
            start = end
    sizes = [changes[0].size, *(size for _, _, size in newer)]
    os.ftruncate(descriptor, random.choice(sizes))
