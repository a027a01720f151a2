"""The content of stored messages, for attempts and for the tools. Nothing is given out that is not what was stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from lettermta.interfaces import IStoredContent
from lettermta.message import QueueEntry
from lettermta.spool import queries
from lettermta.spool.checksum import check_body
from lettermta.spool.content import BodyFiles, FileContent, MemoryContent
from lettermta.spool.damage import Damaged, is_damage, undecodable
from lettermta.spool.fresh import FreshContent


class Loading:
    """This part of ISpool. ``read`` asks a reader, ``threaded`` runs what reads a body file."""

    def __init__(
        self,
        read: Callable[..., Deferred[Any]],
        threaded: Callable[..., Deferred[Any]],
        files: BodyFiles,
        fresh: FreshContent,
    ) -> None:
        self._read_content = read
        self._threaded = threaded
        self._files = files
        self._fresh = fresh

    def load(self, entry: QueueEntry) -> Deferred[IStoredContent]:
        """See ISpool."""
        fresh = self._fresh.get(entry.number)
        if fresh is not None:
            return succeed(fresh)
        return self._read_content(self._stored, entry.number, entry.id, entry.size).addCallback(_checked)

    def content_of(self, identifier: str) -> Deferred[IStoredContent | None]:
        """See ISpool."""
        return self._read_content(self._named, identifier).addCallback(_checked)

    def _named(self, connection: sqlite3.Connection, identifier: str) -> IStoredContent | None:
        row = connection.execute("SELECT number, size FROM message WHERE id = ?", (identifier,)).fetchone()
        return None if row is None else self._stored(connection, row[0], identifier, row[1])

    def _stored(self, connection: sqlite3.Connection, number: int, identifier: str, size: int) -> IStoredContent:
        """In the reader's thread; raises Damaged. A body file is not looked at here, as that takes long."""
        try:
            row = queries.content(connection, number)
        except sqlite3.DatabaseError as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            raise Damaged(f"the content of message {identifier} can't be read from the database: {error}") from error
        if row is None:
            raise Damaged(f"message {identifier} has no content in the spool")
        head, body, file, form, checksum = row
        if body is not None:
            check_body(head, body, form, checksum)
            return MemoryContent(head, body)
        if file is None:
            raise Damaged(f"message {identifier} has no body in the spool")
        return FileContent(head, self._files.path(file), size - len(head) - 2, self._threaded, form, checksum)


def _checked(content: IStoredContent | None) -> Any:
    """What is in a file is read once more than it is sent: whether it is sound must be known before its first octet leaves."""
    return content.check().addCallback(lambda _: content) if isinstance(content, FileContent) else content
