"""The event log: one line for each event, as ``tail -f``, ``jq`` and log shippers like it.

Lines are appended in batches off the reactor's thread and can be read at once; they are synced before the log's cursor moves on, so
no event is missing from the log after a crash. On a full disk, an I/O error or a missing permission the log waits and tries again; the
reason is logged once, and so is its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.event import Event
from lettermta.events.log_file import LogFile, Rotation
from lettermta.events.sink import Backoff, IEventSink, SinkFailed


@implementer(IEventSink)
class JSONLog:
    """Writes events to the file at ``path``. ``in_thread`` calls a function with its arguments off the reactor's thread."""

    batch = 500
    _log = Logger()

    def __init__(
        self,
        path: Path | str,
        clock: IReactorTime,
        *,
        in_thread: Callable[..., Deferred[Any]] = deferToThread,
        name: str = "json_log",
        rotation: Rotation | None = None,
    ) -> None:
        self.name = name
        self.retry = Backoff(first=1.0, most=30.0)
        self._file = LogFile(Path(path), clock.seconds, rotation)
        self._in_thread = in_thread
        self._trouble: str | None = None

    def open(self) -> Deferred[None]:
        """Open the file; fails with OSError when it cannot be written where it is configured."""
        return self._in_thread(self._file.open)

    def deliver(self, events: Sequence[tuple[int, Event]]) -> Deferred[int]:
        """Append the events as one batch: all of them, or, when that fails, none as far as the caller knows."""
        written = self._in_thread(self._file.append, events)
        return written.addCallbacks(self._written, self._not_written, callbackArgs=(len(events),))

    def sync(self) -> Deferred[None]:
        """Sync the file."""
        return self._in_thread(self._file.sync).addErrback(self._not_synced)

    def close(self) -> Deferred[None]:
        """Close the file."""
        return self._in_thread(self._file.close)

    def _written(self, _: None, count: int) -> int:
        if self._trouble is not None:
            self._log.info("event log {path}: written again", path=str(self._file.path))
            self._trouble = None
        return count

    def _not_written(self, failure: Failure) -> int:
        self._note(failure)
        return 0

    def _not_synced(self, failure: Failure) -> None:
        self._note(failure)
        raise SinkFailed(failure.value)

    def _note(self, failure: Failure) -> None:
        """Log a fault of the file when it is not the one already logged; raise any other exception."""
        if not isinstance(failure.value, OSError):
            failure.raiseException()
        trouble = str(failure.value)
        if trouble != self._trouble:
            self._log.error(
                "event log {path}: {reason}; events are kept in the spool and written once it is over",
                path=str(self._file.path),
                reason=trouble,
            )
        self._trouble = trouble
