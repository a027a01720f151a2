"""The one thread that reads the spool for the reactor, on a connection of its own (readers and the writer don't wait for each other in
WAL mode). Questions are short and answered in their order; a long list is asked for in pages, so that it keeps nobody waiting.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from lettermta.spool.schema import connect

T = TypeVar("T")

_Question = tuple[Callable[..., Any], tuple[Any, ...], "Deferred[Any]"]


def _to_read(path: Path) -> sqlite3.Connection:
    return connect(path, writable=False)


class Reader:
    """Runs questions (functions of a connection) in its thread; ``opening`` makes the connection."""

    def __init__(
        self,
        path: Path,
        to_reactor: Callable[..., object],
        opening: Callable[[Path], sqlite3.Connection] = _to_read,
    ) -> None:
        self._opening = opening
        self._path = path
        self._to_reactor = to_reactor
        self._queue: SimpleQueue[_Question | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool-reader", daemon=True)
        self.closed: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def ask(self, question: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Ask ``question(connection, *arguments)``; fires with what it returns, fails with what it raises."""
        answer: Deferred[T] = Deferred()
        self._queue.put((question, arguments, answer))
        return answer

    def close(self) -> Deferred[None]:
        """Answer what was asked, then end."""
        self._queue.put(None)
        return self.closed

    def _run(self) -> None:
        connection = self._opening(self._path)
        try:
            while (asked := self._queue.get()) is not None:
                self._answer(connection, *asked)
        finally:
            connection.close()
            self._to_reactor(self.closed.callback, None)

    def _answer(
        self, connection: sqlite3.Connection, question: Callable[..., Any], arguments: tuple[Any, ...], answer: Deferred[Any]
    ) -> None:
        try:
            result = question(connection, *arguments)
        except Exception as error:
            self._to_reactor(answer.errback, error)
        else:
            self._to_reactor(answer.callback, result)
