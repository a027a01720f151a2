"""Mail into a Maildir instead of out, for development: what would have left, as it would have left.

Promises that a message in ``new/`` is whole and on the disk before its recipients count as delivered: written under ``tmp/``, synced,
renamed, and the directory synced, all in threads. The file's name holds the message's id, so nothing is added to the content but what
a final delivery adds: Return-Path (RFC 5321 section 4.4) and a Delivered-To for each recipient (RFC 9228). A fault of the disk is
temporary.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from lettermta.delivery.transports.counting import counted
from lettermta.delivery.unsubscribe.links import Links
from lettermta.interfaces import IChannel, IStoredContent, ITransport
from lettermta.message import QueueEntry, Reply, Unreachable, Verdict

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = Logger()


@define(eq=False)
class _Threads:
    """Where files are touched."""

    reactor: Any

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        """Call ``function`` in a thread of the reactor's pool."""
        called: Deferred[_T] = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *args, **kwargs)
        return called


@implementer(ITransport)
@define(eq=False)
class CaptureTransport:
    """The way into the Maildir at ``directory``, which is made (mode 0700) where it isn't there."""

    directory: Path
    reactor: Any
    links: Links | None = None

    def open(self) -> Deferred[IChannel]:
        """A channel; fails with Unreachable when the Maildir can't be made."""
        return counted("capture", Deferred.fromCoroutine(self._open()))

    async def _open(self) -> IChannel:
        threads = _Threads(self.reactor)
        try:
            await threads.run(_make_maildir, self.directory)
        except OSError as error:
            raise Unreachable(_fault(error)) from None
        return _CaptureChannel(self.directory, self.reactor, threads, self.links)


@implementer(IChannel)
@define(eq=False)
class _CaptureChannel:
    directory: Path
    reactor: Any
    threads: _Threads
    links: Links | None
    usable: bool = True
    host: str | None = None
    dsn: bool = False
    details: Mapping[str, object] = field(factory=dict)

    @property
    def description(self) -> str:
        """The Maildir."""
        return f"Maildir {self.directory}"

    @property
    def ended(self) -> bool:
        """See IChannel."""
        return not self.usable

    def send(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        """One file for the entry, whatever the number of its recipients."""
        return Deferred.fromCoroutine(self._send(entry, content))

    def close(self) -> None:
        """Nothing is kept open."""
        self.usable = False

    async def _send(self, entry: QueueEntry, content: IStoredContent) -> Sequence[Verdict]:
        name = f"{int(time.time())}.{entry.id}.{secrets.token_hex(4)}"
        if self.links is not None:
            content = self.links.topped(entry, content)
        try:
            await self._store(name, _trace(entry), content)
        except OSError as error:
            reply = _fault(error)
        except Exception:
            _log.failure("content of {id} could not be captured", id=entry.id)
            reply = Reply(451, "4.3.0", "The content could not be read from the spool")
        else:
            stored = Reply(250, "2.0.0", f"captured as {name}")
            return [Verdict(recipient, stored, handed_over=True) for recipient in entry.recipients]
        return [Verdict(recipient, reply, remote=False) for recipient in entry.recipients]

    async def _store(self, name: str, trace: bytes, content: IStoredContent) -> None:
        whole = content.whole()
        if whole is not None:
            await self.threads.run(_store_whole, self.directory, name, trace + whole)
            return
        file = await self.threads.run(_create, self.directory, name, trace)
        try:
            async with aclosing(cast("AsyncGenerator[bytes, None]", content.pieces())) as pieces:
                async for piece in pieces:
                    await self.threads.run(_write, file, piece)
            await self.threads.run(_settle, self.directory, name, file)
        except BaseException:
            await self.threads.run(_forget, self.directory, name)
            raise
        finally:
            os.close(file)


def _trace(entry: QueueEntry) -> bytes:
    lines = [f"Return-Path: <{entry.sender}>\r\n", *(f"Delivered-To: {recipient.address}\r\n" for recipient in entry.recipients)]
    return "".join(lines).encode()


def _fault(error: OSError) -> Reply:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reply(452, "4.3.1", "No room in the Maildir for captured mail")
    return Reply(451, "4.3.0", f"The Maildir for captured mail: {error.strerror or error}")


def _make_maildir(directory: Path) -> None:
    if all((directory / part).is_dir() for part in ("tmp", "new", "cur")):
        return
    for path in (directory, *(directory / part for part in ("tmp", "new", "cur"))):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A power cut must not take away the folder of what was captured (HARD-CASES row 15).
    for path in (directory, directory.parent):
        _sync_directory(path)


def _create(directory: Path, name: str, trace: bytes) -> int:
    file = os.open(directory / "tmp" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write(file, trace)
    except BaseException:
        os.close(file)
        _forget(directory, name)
        raise
    return file


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _settle(directory: Path, name: str, file: int) -> None:
    """Make the message durable under its name in ``new``."""
    os.fsync(file)
    os.rename(directory / "tmp" / name, directory / "new" / name)
    _sync_directory(directory / "new")


def _sync_directory(directory: Path) -> None:
    entries = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def _forget(directory: Path, name: str) -> None:
    with suppress(OSError):
        os.unlink(directory / "tmp" / name)


def _store_whole(directory: Path, name: str, data: bytes) -> None:
    file = _create(directory, name, data)
    try:
        _settle(directory, name, file)
    except BaseException:
        _forget(directory, name)
        raise
    finally:
        os.close(file)
