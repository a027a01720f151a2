"""The event log as a file: whole lines appended, and what is already there known after a restart.

Everything here blocks, so it runs in a thread, one call at a time. A line is one event's payload as it stands. Several workers may
append to the same file. Fails with OSError; what was written before a failure stays, and the next call carries on behind it.

It can be rotated by anybody who renames it, and, where it may have only so many octets, rotates itself: ``events.jsonl`` becomes
``events.jsonl.1``, that becomes ``.2``, and the oldest goes. A line is never split between two files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from lettermta.event import Event

TAIL = 2 * 1024 * 1024
"""Octets at the file's end in which events are looked for that need not be written again."""
CHECK_EVERY = 1.0
"""Seconds after which it is looked whether the file was renamed away."""
_ID = b'{"id":"'


@frozen
class Rotation:
    """A file of more than ``size`` octets makes way for a new one; ``keep`` of those that did are kept."""

    size: int
    keep: int


class LogFile:
    """The file at ``path``; ``seconds`` is a clock. Without ``rotation`` it grows until somebody renames it."""

    def __init__(self, path: Path, seconds: Callable[[], float], rotation: Rotation | None = None) -> None:
        self.path = path
        self._rotation = rotation
        self._seconds = seconds
        self._descriptor: int | None = None
        self._identity = (0, 0)
        self._checked = 0.0
        self._renamed: list[int] = []  # descriptors of files renamed away, with lines that were not synced yet
        self._known: set[str] = set()  # ids of events in the file's tail that may be offered again
        self._newest = ""  # the last of them in the file
        self._owed = b""  # a line feed, when the file ends in the middle of a line
        self._doubtful = 0  # lines behind this offset may not be on the disk, although they can be read

    def open(self) -> None:
        """Open the file, made with mode 0640 less the umask if it is new, and its directory too."""
        if self._descriptor is not None:
            return
        self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "The event log must be a regular file", str(self.path))
            if status.st_size == 0:
                self._sync_directory()
            self._take_stock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._identity = (status.st_dev, status.st_ino)
        self._checked = self._seconds()

    def append(self, events: Sequence[tuple[int, Event]]) -> None:
        """Write the events that are not in the file yet, so that a reader sees them; durable only after :meth:`sync`."""
        self._follow_rename()
        self.open()
        descriptor = self._descriptor
        assert descriptor is not None
        fresh = self._fresh(events)
        if not fresh:
            return
        lines = b"\n".join(fresh) + b"\n"
        if self._rotation is not None and self._too_large(descriptor, len(lines), self._rotation):
            self._rotate(self._rotation)
            self.open()
            descriptor = self._descriptor
            assert descriptor is not None
        rest = memoryview(self._owed + lines)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            self._owed = b""
        except OSError:
            with suppress(OSError):
                self._take_stock(descriptor)
            raise

    def sync(self) -> None:
        """Have all lines on the disk. After a failure the lines written since the last success count as not written."""
        try:
            while self._renamed:
                os.fsync(self._renamed[-1])
                os.close(self._renamed.pop())
            if self._descriptor is not None:
                os.fsync(self._descriptor)
        except OSError:
            self._distrust()
            raise

    def close(self) -> None:
        """Let go of the file."""
        descriptors, self._renamed = self._renamed, []
        if self._descriptor is not None:
            descriptors.append(self._descriptor)
            self._descriptor = None
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)

    def _fresh(self, events: Sequence[tuple[int, Event]]) -> list[bytes]:
        if not self._known:
            return [event.payload for _, event in events]
        fresh = [event.payload for _, event in events if event.id not in self._known]
        if len(fresh) == len(events) or any(event.id == self._newest for _, event in events):
            # Events come in the file's order: what follows is not in it.
            self._known.clear()
        return fresh

    def _follow_rename(self) -> None:
        """Look, at most once a second, whether logrotate or the like has renamed the file away."""
        now = self._seconds()
        if self._descriptor is None or 0 <= now - self._checked < CHECK_EVERY:
            return
        self._checked = now
        try:
            status = self.path.stat()
        except FileNotFoundError:
            pass
        else:
            if (status.st_dev, status.st_ino) == self._identity:
                return
        self._let_go()

    def _let_go(self) -> None:
        """The file has another name: it is still to be synced, and nothing more is written to it."""
        if self._descriptor is not None:
            self._renamed.append(self._descriptor)
            self._descriptor = None
        self._doubtful = 0

    def _too_large(self, descriptor: int, more: int, rotation: Rotation) -> bool:
        size = os.fstat(descriptor).st_size
        return size > 0 and size + more > rotation.size

    def _rotate(self, rotation: Rotation) -> None:
        """Each step is a rename, so a crash between two of them loses nothing. A line torn at the file's end stays there."""
        for number in range(rotation.keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number).rename(self._numbered(number + 1))
        self.path.rename(self._numbered(1))
        self._let_go()
        self._owed = b""

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _take_stock(self, descriptor: int) -> None:
        """Learn from the file's end which events are in it, and whether its last line is torn."""
        with open(descriptor, "rb", closefd=False) as file:
            size = file.seek(0, os.SEEK_END)
            start = max(size - TAIL, min(self._doubtful, size))
            file.seek(start)
            lines = file.read(size - start).split(b"\n")
            file.seek(max(size - 1, 0))
            self._owed = b"" if file.read(1) in (b"", b"\n") else b"\n"
        # The first piece may be the end of a line, the last one is either empty or torn.
        whole = lines[1 if start else 0 : -1]
        ids = [
            line[len(_ID) : len(_ID) + 36].decode("ascii", "replace")
            for line in whole
            if line.startswith(_ID) and line.endswith(b"}") and b"\0" not in line
        ]
        if ids:
            self._known.update(ids)
            self._newest = ids[-1]

    def _distrust(self) -> None:
        """After a failed fsync the kernel may have dropped what it could not write, and still show it: write all of it again."""
        if self._descriptor is not None:
            with suppress(OSError):
                self._doubtful = os.fstat(self._descriptor).st_size
        self._known.clear()
        self.close()

    def _sync_directory(self) -> None:
        """A new file's name is durable only once its directory is."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
