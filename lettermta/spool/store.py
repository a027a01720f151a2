"""The spool: SQLite in WAL mode under group commit, large bodies in files beside it (DESIGN.md section 5.1).

Promise: a Deferred that stands for a write fires after the sync that makes it durable, and what has not been answered may be lost whole,
never in part. One process owns a spool; a second one is refused by a lock. Everything here is called in the reactor's thread.

Here the spool is opened, takes new mail, and tells what became durable. The other parts of ISpool have modules of their own: what waits for
attempts (waiting, loading), what came of them (recording), the events (outbox), what operators do (tools), what is wrong (complaints).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from lettermta import metrics
from lettermta.event import Event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, NotStored
from lettermta.message import FINAL, Message, QueueEntry, State
from lettermta.spool import queries
from lettermta.spool.complaints import Complaints
from lettermta.spool.condition import Condition, Room
from lettermta.spool.content import BodyFiles, SpoolContent, make_directory
from lettermta.spool.daily import Daily
from lettermta.spool.fresh import FreshContent
from lettermta.spool.loading import Loading
from lettermta.spool.new_mail import NewMail
from lettermta.spool.opening import open_database
from lettermta.spool.outbox import Outbox
from lettermta.spool.reader import Reader
from lettermta.spool.recording import Recording
from lettermta.spool.statements import CONTENT, EVENT, STATEMENTS, with_checksum
from lettermta.spool.suppressions import Suppressions
from lettermta.spool.tools import Tools
from lettermta.spool.waiting import Waiting
from lettermta.spool.writer import Unit, Writer

FRESH_OCTETS = 67_108_864
"""Content of new messages that is kept in memory until its first attempt, so that it need not be read back."""
COUNTING_SHARE = 20
"""Counting the queue may take one part in so many of a thread's time."""


class SpoolInUse(Exception):
    """Another process owns the spool."""


@implementer(ISpool)
class Spool(Tools, Outbox, Loading, Waiting, Recording, Complaints):
    """The spool of one process, in ``directory``, which takes no new mail while less than ``free_space`` octets are free there."""

    log = Logger()

    def __init__(self, directory: Path, reactor: IReactorThreads, free_space: int = 0) -> None:
        self._directory = directory
        self._reactor = reactor
        self._files = BodyFiles(directory / "body")
        self._listeners: list[ISpoolListener] = []
        self._fresh = FreshContent(FRESH_OCTETS)
        self._new = NewMail(self._fresh)
        self._lock: int | None = None
        path = directory / "spool.db"
        self._path = path
        self._room = Room(directory, free_space)
        self._writer = Writer(
            path,
            STATEMENTS,
            reactor.callFromThread,
            self._committed,
            self._failed,
            self._changed,
            room=self._room,
            complete={CONTENT: with_checksum},
            summary=self._count_by_day,
        )
        self._daily = Daily()
        self._counted_until = 0.0
        self._reader = Reader(path, reactor.callFromThread)
        # A filter that few rows pass reads many: nobody's mail waits for that.
        self._tools_reader = Reader(path, reactor.callFromThread)
        look, find, put = self._tools_reader.ask, self._reader.ask, self._writer.put
        Complaints.__init__(self)
        Tools.__init__(self, look, put, self._remove_body, self._new, self._fresh)
        Outbox.__init__(self, find, put, self._note_damage)
        Loading.__init__(self, find, self._in_thread, self._files, self._fresh)
        Waiting.__init__(self, find, look, put, self._note_damage)
        suppressions = Suppressions(find, look, put, self._new.reserve_events)
        Recording.__init__(self, put, self._remove_body, self._new, self._fresh, suppressions)

    # -- opening and closing

    def open(self) -> None:
        """Take the lock, bring the schema up to date, remove orphans, and start. Blocks: called before the reactor runs.

        Raises SpoolInUse, SpoolVersionError, SpoolDamaged when nothing of the database can be read, OSError or sqlite3.Error.
        """
        make_directory(self._directory)
        self._take_lock()
        try:
            self._prepare()
        except BaseException:
            self._closed(None)
            raise
        self._writer.start()
        self._reader.start()
        self._tools_reader.start()
        self.suppressions.start()
        self.look_for_unknown_states()

    def _prepare(self) -> None:
        self._files.prepare()
        opened = open_database(self._path, self._files)
        self._new.begin_behind(opened)
        self._newest = opened.message
        self._next_rule = opened.rule + 1
        for text in opened.damage:
            self._note_damage(text)
        self._room.look()

    def _take_lock(self) -> None:
        lock = os.open(self._directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise SpoolInUse(f"{self._directory} is in use by another lettermta") from None
        self._lock = lock

    def close(self) -> Deferred[None]:
        """See ISpool."""
        closed = gatherResults([self._writer.close(), self._reader.close(), self._tools_reader.close()])
        return closed.addCallback(self._closed)

    def _closed(self, _: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def subscribe(self, listener: ISpoolListener) -> None:
        """See ISpool."""
        self._listeners.append(listener)

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    # -- new messages

    def content(self) -> IContent:
        """See ISpool."""
        return SpoolContent(self._files, self._in_thread)

    def room(self, size: int) -> bool:
        """See ISpool."""
        return self._writer.condition is Condition.WORKING and self._room.takes(size)

    def keep_free(self, free_space: int) -> None:
        """Other octets that are to stay free, from the next look on. The reserve within keeps the size that it has."""
        self._room.floor = free_space

    def store(self, message: Message, events: Sequence[Event]) -> Deferred[None]:
        """See ISpool."""
        content = message.content
        assert isinstance(content, SpoolContent)
        if not self.room(content.size):
            return fail(NotStored(self.complaint() or "the message would take what is to stay free ([limits] free_space)"))
        if len(message.suppressed) == len(message.recipients):
            content.discard()
            return self._writer.put(self._new.events_alone(message, events))
        self._room.spend(content.size)
        if content.file is None:
            return self._writer.put(self._new.message(message, content, events))
        synced = content.sync()
        return synced.addCallback(lambda _: self._writer.put(self._new.message(message, content, events)))

    def recall(self, project_id: str, key: str, now: float) -> Deferred[tuple[bytes, str] | None]:
        """See ISpool."""
        return self._reader.ask(queries.recall, project_id, key, now)

    def _committed(self, units: Sequence[Unit]) -> None:
        """In the reactor's thread, once per commit: answer first, then tell the listeners."""
        entries: list[QueueEntry] = []
        events: list[tuple[int, Event]] = []
        for unit in units:
            if unit.told is not None:
                entries += unit.told[0]
                events += unit.told[1]
                # What is held whole is told to nobody; it may be found due once it is released.
                self._newest = max(self._newest, unit.new or 0)
            unit.done.callback(unit.result)
        if entries:
            self._newest = max(self._newest, entries[-1].number)
        for listener in self._listeners:
            if entries:
                listener.entries_stored(entries)
            if events:
                listener.events_stored(events)

    def _failed(self, units: Sequence[Unit], error: Exception) -> None:
        """In the reactor's thread: none of these units was written."""
        for unit in units:
            if unit.new is not None:
                self._fresh.drop(unit.new)
            unit.done.errback(error)

    def _count_by_day(self, connection: sqlite3.Connection, rows: Sequence[Sequence[tuple[Any, ...]]]) -> None:
        """In the writer's thread, in the transaction of what is counted."""
        events, waits = rows[EVENT], rows[-1]
        if (events or waits) and self._daily.damage is None:
            self._daily.count(connection, events, waits)
            if (damage := self._daily.damage) is not None:
                self._reactor.callFromThread(self._note_damage, f"the figures by day are damaged and no longer kept: {damage}")

    def _remove_body(self, name: str | None) -> None:
        """The row is gone for good, so the file may go: whether that is durable does not matter, the next start looks for orphans."""
        if name is not None:
            self._in_thread(self._files.remove, name).addErrback(
                lambda failure: self.log.failure("body file {name} was not removed", failure=failure, name=name)
            )

    # -- how much there is

    async def measure(self) -> None:
        """Set the gauges of the spool and the queue; the queue is counted anew when the last count is old enough for what it cost."""
        metrics.SPOOL_FREE_BYTES.set(self._room.on_disk)
        if time.monotonic() < self._counted_until:
            return
        began = time.monotonic()
        figures = await self._tools_reader.ask(queries.figures)
        await self.suppressions.measure()
        ended = time.monotonic()
        self._counted_until = ended + (ended - began) * COUNTING_SHARE
        for state in set(State) - FINAL:
            metrics.QUEUE_RECIPIENTS[state.value].set(figures.states[state])
        metrics.QUEUE_MESSAGES.set(figures.messages)
        metrics.QUEUE_OLDEST_SECONDS.set(0 if figures.oldest is None else max(time.time() - figures.oldest, 0))
