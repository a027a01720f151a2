"""Content in the form in which it leaves: made in memory, kept in a file for the moment, or what is stored with something on top."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from tempfile import TemporaryFile
from typing import Any, cast

from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.interfaces import IStoredContent

_PIECE = 262_144
"""Octets that are read at a time."""


@implementer(IStoredContent)
class WholeContent:
    """A content that is in memory in one piece."""

    __slots__ = ("_data", "size")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def whole(self) -> bytes | None:
        """See IStoredContent."""
        return self._data

    async def pieces(self) -> AsyncIterator[bytes]:
        """See IStoredContent."""
        yield self._data


@implementer(IStoredContent)
class ToppedContent:
    """A content with header fields on top of it."""

    __slots__ = ("_content", "_top", "size")

    def __init__(self, top: bytes, content: IStoredContent) -> None:
        self._top = top
        self._content = content
        self.size = len(top) + content.size

    def whole(self) -> bytes | None:
        """See IStoredContent."""
        whole = self._content.whole()
        return None if whole is None else self._top + whole

    async def pieces(self) -> AsyncIterator[bytes]:
        """See IStoredContent."""
        yield self._top
        async with aclosing(cast("AsyncGenerator[bytes, None]", self._content.pieces())) as pieces:
            async for piece in pieces:
                yield piece


@implementer(IStoredContent)
class PassingContent:
    """A content in a file without a name, which is gone with it. Made in a thread."""

    def __init__(self, data: bytes, threaded: Callable[..., Deferred[Any]]) -> None:
        self._file = TemporaryFile(prefix="lettermta-")  # noqa: SIM115 - it is closed with this object
        self._file.write(data)
        self._file.flush()
        self._threaded = threaded
        self.size = len(data)

    def whole(self) -> bytes | None:
        """See IStoredContent."""
        return None

    async def pieces(self) -> AsyncIterator[bytes]:
        """See IStoredContent; raises OSError when the file can't be read."""
        at = 0
        while piece := await self._threaded(os.pread, self._file.fileno(), _PIECE, at):
            at += len(piece)
            yield piece


def split(whole: bytes) -> tuple[bytes, bytes]:
    """Header block, each line of it with its end, and body (RFC 5322 section 2.1); what has no empty line is all header block."""
    if whole.startswith(b"\r\n"):
        return b"", whole[2:]
    end = whole.find(b"\r\n\r\n")
    return (whole, b"") if end < 0 else (whole[: end + 2], whole[end + 4 :])
