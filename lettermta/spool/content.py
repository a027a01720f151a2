"""The content of messages, on its way in and on its way out.

Up to :data:`SPILL` octets stay in memory and go into the database with their message; of a larger one the header block stays in memory
and the body goes to a file, in pieces written off the reactor's thread. A file is synced, with its directory, before any row names it;
a file that no row names is an orphan, and removed at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, succeed
from zope.interface import implementer

from lettermta.interfaces import IContent, IStoredContent
from lettermta.message import Refused, Reply, new_id
from lettermta.spool.checksum import check_file

SPILL = 131_072
"""Content of more octets than this has its body in a file (DESIGN.md section 5.1)."""
PIECE = 262_144
"""Octets written or read at a time."""

T = TypeVar("T")
Threaded = Callable[..., Deferred[Any]]
"""Runs a function off the reactor's thread."""


class BodyFiles:
    """The directory of body files: 256 folders, so that none grows without bound."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def prepare(self) -> None:
        """Make what is missing, durably."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for index in range(256):
            (self._directory / f"{index:02x}").mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._directory)
        sync_directory(self._directory.parent)

    def path(self, name: str) -> Path:
        """Where the file ``name`` is; its last two digits, the random end of a UUIDv7, choose the folder."""
        return self._directory / name[-2:] / name

    def names(self) -> list[str]:
        """Every body's file that is there."""
        return [name for folder, name in self._all() if folder == name[-2:]]

    def strays(self) -> list[str]:
        """What is there besides, in words of ``body/…``: nobody here has put it there, as it would be in another folder."""
        return [f"body/{folder}/{name}" for folder, name in self._all() if folder != name[-2:]]

    def _all(self) -> Iterator[tuple[str, str]]:
        for folder in os.scandir(self._directory):
            if folder.is_dir():
                yield from ((folder.name, entry.name) for entry in os.scandir(folder.path))

    def remove(self, name: str) -> None:
        """Remove a file; one that is gone already is no fault."""
        self.path(name).unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it durably: what is synced in a directory that a power cut takes away is lost too."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


@implementer(IContent)
class SpoolContent:
    """A new message's content: in memory at first, in a file once it has become large.

    What is done to the file takes its turn: the end of the content may come while a thread is still writing what came before.
    """

    def __init__(self, files: BodyFiles, threaded: Threaded) -> None:
        self._files = files
        self._threaded = threaded
        self._pieces: list[bytes] = []
        self._pending = 0
        self._front: bytes | None = None
        self._turn: DeferredLock | None = None
        self._descriptor: int | None = None
        self.size = 0
        self.file: str | None = None
        self.file_checksum = 0
        """CRC-32 of what has been written to the file."""

    def write(self, data: bytes) -> Deferred[None] | None:
        """See IContent. Raises Refused when the header block is larger than :data:`SPILL`."""
        self._pieces.append(data)
        self.size += len(data)
        self._pending += len(data)
        if self.file is None and (self.size <= SPILL or not self._spill()):
            return None
        if self._pending < PIECE:
            return None
        pieces, self._pieces, self._pending = self._pieces, [], 0
        return self._in_turn(self._append, self.file, pieces)

    def _spill(self) -> bool:
        """Split off the header block, and send everything behind it to a file from now on; False while its end may just be coming."""
        head, body = _split(b"".join(self._pieces))
        if (len(head) if body is not None else self.size - 1) > SPILL:
            self.discard()
            raise Refused(Reply(552, "5.3.4", f"Header block larger than {SPILL} octets"))
        if body is None:
            return False
        self._front = head
        self._pieces = [body]
        self._pending = len(body)
        self.file = new_id()
        self._turn = DeferredLock()
        return True

    def _in_turn(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Run in a thread what is next to be done to the file."""
        assert self._turn is not None
        return self._turn.run(self._threaded, function, *arguments)

    def _append(self, name: str, pieces: list[bytes]) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(self._files.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        data = b"".join(pieces)
        self.file_checksum = zlib.crc32(data, self.file_checksum)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def head(self) -> bytes:
        """See IContent."""
        if self._front is None:
            self._front, body = _split(b"".join(self._pieces))
            self._pieces = [body or b""]
        return self._front

    def body_size(self) -> int:
        """See IContent."""
        head = self.head()
        return max(self.size - len(head) - 2, 0)

    def body(self) -> bytes | None:
        """The body when it is in memory, else None: then it is in :attr:`file`."""
        self.head()
        return None if self.file is not None else self._pieces[0]

    def digest(self) -> Deferred[bytes]:
        """See IContent."""
        body = self.body()
        if body is not None:
            return succeed(hashlib.sha256(body).digest())
        pieces, self._pieces, self._pending = self._pieces, [], 0
        return self._in_turn(self._file_digest, self.file, pieces)

    def _file_digest(self, name: str, pieces: list[bytes]) -> bytes:
        self._append(name, pieces)
        with self._files.path(name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """See IContent."""
        body = self.body()
        if body is not None:
            yield body
            return
        assert self.file is not None
        pieces, self._pieces, self._pending = self._pieces, [], 0
        # Who reads may be canceled, what is being written may not: else the turn would be over while a thread still writes.
        written: Deferred[None] = Deferred()
        self._in_turn(self._append, self.file, pieces).addCallbacks(written.callback, written.errback)
        await written
        async for piece in _pieces(self._files.path(self.file), self._threaded):
            yield piece

    def sync(self) -> Deferred[None]:
        """Make a body file durable, with its name; fires at once when there is none."""
        if self.file is None:
            return succeed(None)
        pieces, self._pieces = self._pieces, []
        return self._in_turn(self._finish, self.file, pieces, self.body_size())

    def _finish(self, name: str, pieces: list[bytes], size: int) -> None:
        self._append(name, pieces)
        assert self._descriptor is not None
        descriptor, self._descriptor = self._descriptor, None
        try:
            if os.fstat(descriptor).st_size != size:
                raise OSError(errno.EIO, "an earlier piece of the body was not written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._files.path(name).parent)

    def discard(self) -> None:
        """See IContent."""
        self._pieces = []
        if self.file is not None:
            name, self.file = self.file, None
            self._in_turn(self._remove, name).addErrback(lambda _: None)  # what stays is an orphan for the next start

    def _remove(self, name: str) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)
        self._files.remove(name)


def _split(data: bytes) -> tuple[bytes, bytes | None]:
    """Header block and body; the body is None when the empty line between them is not there (RFC 5322 section 2.1)."""
    if data.startswith(b"\r\n"):
        return b"", data[2:]
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return data, None
    return data[: end + 2], data[end + 4 :]


@implementer(IStoredContent)
class MemoryContent:
    """Stored content that is in memory."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self._head = head
        self._body = body
        self.size = len(head) + 2 + len(body)

    def whole(self) -> bytes | None:
        """See IStoredContent."""
        return b"%b\r\n%b" % (self._head, self._body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """See IStoredContent."""
        yield self._head + b"\r\n"
        yield self._body


@implementer(IStoredContent)
class FileContent:
    """Stored content whose body is in a file. ``form`` and ``checksum`` are what :meth:`check` goes by."""

    def __init__(self, head: bytes, path: Path, body_size: int, threaded: Threaded, form: int = 0, checksum: int | None = None) -> None:
        self._form = form
        self._checksum = checksum
        self._body_size = body_size
        self._head = head
        self._path = path
        self._threaded = threaded
        self.size = len(head) + 2 + body_size

    def whole(self) -> bytes | None:
        """See IStoredContent."""
        return None

    def check(self) -> Deferred[None]:
        """Fails with Damaged unless it is what was stored; reads all of it, in a thread."""
        return self._threaded(check_file, self._head, self._path, self._body_size, self._form, self._checksum)

    async def pieces(self) -> AsyncIterator[bytes]:
        """See IStoredContent; raises OSError when the file can't be read."""
        yield self._head + b"\r\n"
        async for piece in _pieces(self._path, self._threaded):
            yield piece


async def _pieces(path: Path, threaded: Threaded) -> AsyncIterator[bytes]:
    """The content of a body file."""
    file = await threaded(path.open, "rb", 0)
    try:
        while piece := await threaded(file.read, PIECE):
            yield piece
    finally:
        file.close()
