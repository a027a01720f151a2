"""The spool: SQLite in WAL mode under group commit, large bodies in files beside it (DESIGN.md section 5.1).

Promise: a Deferred that stands for a write fires after the sync that makes it durable, and what has not been answered may be lost whole,
never in part. One process owns a spool; a second one is refused by a lock. Everything here is called in the reactor's thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.event import Event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, NotStored
from lettermta.message import (
    FINAL,
    Attempt,
    Lane,
    Message,
    Outcome,
    QueueEntry,
    State,
)
from lettermta.spool import changes, queries, salvage
from lettermta.spool.attempts import rows_of
from lettermta.spool.condition import Condition, Room
from lettermta.spool.content import BodyFiles, SpoolContent, make_directory
from lettermta.spool.daily import Daily
from lettermta.spool.damage import DamagedRecipient
from lettermta.spool.fresh import FreshContent
from lettermta.spool.loading import Loading
from lettermta.spool.new_mail import NewMail
from lettermta.spool.opening import open_database
from lettermta.spool.outbox import Outbox
from lettermta.spool.reader import Reader
from lettermta.spool.statements import (
    ATTEMPT,
    CONTENT,
    EVENT,
    FINISH_CONTENT,
    FINISH_MESSAGE,
    FINISH_RECIPIENTS,
    QUARANTINE,
    STATEMENTS,
    UPDATE,
    finish_content,
    waits_of,
    with_checksum,
)
from lettermta.spool.suppressions import Suppressions, counted
from lettermta.spool.tools import Tools
from lettermta.spool.writer import Unit, Writer
from lettermta.suppression import Suppression

FRESH_OCTETS = 67_108_864
"""Content of new messages that is kept in memory until its first attempt, so that it need not be read back."""
HASTEN_ROWS = 5_000
"""Recipients that one commit makes due earlier at the most."""
MOST_DAMAGE = 100
"""Kinds of damage that are kept for the health check."""
COUNTING_SHARE = 20
"""Counting the queue may take one part in so many of a thread's time."""


class SpoolInUse(Exception):
    """Another process owns the spool."""


@implementer(ISpool)
class Spool(Tools, Outbox, Loading):
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
        self._trouble = ""
        self._damage: list[str] = []
        self._counted_until = 0.0
        self._reader = Reader(path, reactor.callFromThread)
        # A filter that few rows pass reads many: nobody's mail waits for that.
        self._tools_reader = Reader(path, reactor.callFromThread)
        Tools.__init__(self, self._tools_reader.ask, self._writer.put, self._remove_body, self._new, self._fresh)
        Outbox.__init__(self, self._reader.ask, self._writer.put, self._note_damage)
        Loading.__init__(self, self._reader.ask, self._in_thread, self._files, self._fresh)
        self.suppressions = Suppressions(self._reader.ask, self._tools_reader.ask, self._writer.put, self._new.reserve_events)
        self._newest = 0
        """The number of the last message that the listeners were told of."""

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
        self._look_for_unknown_states()

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

    # -- its condition

    def _changed(self, condition: Condition | None, why: str) -> None:
        """In the reactor's thread: the writer has another condition now, or (None) has met damage."""
        if condition is None:
            self._note_damage(why)
            return
        trouble = self._trouble = "" if condition is Condition.WORKING else f"{condition.value}: {why}"
        for known in Condition:
            metrics.SPOOL_CONDITION[known.value].set(known is condition)
        if trouble:
            self.log.error("the spool takes no new mail, it is {trouble}", trouble=trouble)
        else:
            self.log.info("the spool is working again: {why}", why=why)

    def complaint(self) -> str | None:
        """Why the spool takes no new mail, or None while it does."""
        return f"the spool takes no new mail, it is {self._trouble}" if self._trouble else None

    def damage(self) -> str | None:
        """What was found to be damaged since the start, in short, or None."""
        if not self._damage:
            return None
        more = f" (and {len(self._damage) - 1} more)" if len(self._damage) > 1 else ""
        return f"damage was found in the spool, `lettermta-queue verify` tells more: {self._damage[0]}{more}"

    def _note_damage(self, text: str) -> None:
        if text not in self._damage and len(self._damage) < MOST_DAMAGE:
            self._damage.append(text)
            self.log.error("damage in the spool: {text}", text=text)

    def _quarantine(self, damaged: Sequence[DamagedRecipient]) -> Deferred[None]:
        """Take recipients that can't be attempted out of the queue, durably; they are never forgotten (HARD-CASES row 14)."""
        for one in damaged:
            self.log.error("recipient number {number} is put into quarantine: {reason}", number=one.number, reason=one.reason)
        unit = Unit(rows=((QUARANTINE, [(one.reason, one.number) for one in damaged]),))
        return self._writer.put(unit).addCallback(lambda _: metrics.SPOOL_QUARANTINED.inc(len(damaged)))

    def _look_for_unknown_states(self) -> None:
        """In the background, as it reads every recipient's row."""

        def found(damaged: Sequence[DamagedRecipient]) -> Deferred[None] | None:
            return self._quarantine(damaged) if damaged else None

        looked = self._tools_reader.ask(salvage.unknown_states).addCallback(found)
        looked.addErrback(lambda failure: self._note_damage(f"the states of the recipients could not be looked at: {failure.value}"))

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

    # -- attempts

    def record(
        self,
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None = None,
        reports: Sequence[Message] = (),
        suppressions: Sequence[Suppression] = (),
    ) -> Deferred[None]:
        """See ISpool."""
        updates = [
            (o.state.value, o.due, int(o.handed_over), o.reply, o.first_deferred, int(o.warned), o.recipient.number) for o in outcomes
        ]
        told, rows = self._new.events(events)
        statements: list[tuple[int, Sequence[tuple[Any, ...]]]] = [(UPDATE, updates), (EVENT, rows)]
        if attempt is not None:
            statements.append((ATTEMPT, list(rows_of(entry.id, outcomes, attempt))))
        entries: list[QueueEntry] = []
        for report in reports:
            new = self._new.report(report)
            statements += new.rows
            entries += new.told[0]
        work = None
        waits: Sequence[tuple[Any, ...]] = ()
        if any(outcome.state in FINAL for outcome in outcomes):
            waits = waits_of(entry, outcomes)
            fresh = self._fresh.drop(entry.number)
            finished = ((entry.number,),)
            statements += [(FINISH_MESSAGE, finished), (FINISH_RECIPIENTS, finished)]
            if not fresh:
                work = finish_content(entry.number)
            else:
                statements.append((FINISH_CONTENT, finished))
        if suppressions:
            return self._record_and_suppress(statements, entries, told, work, suppressions, waits)
        unit = Unit(rows=statements, told=(entries, told), work=work, more=waits)
        done = self._writer.put(unit)
        return done.addCallback(self._remove_body) if work is not None else done

    def tell(self, events: Sequence[Event], suppressions: Sequence[Suppression] = ()) -> Deferred[None]:
        """See ISpool."""
        told, rows = self._new.events(events)
        if suppressions:
            return self._record_and_suppress([(EVENT, rows)], (), told, None, suppressions)
        return self._writer.put(Unit(rows=((EVENT, rows),), told=((), told)))

    def _record_and_suppress(
        self,
        statements: Sequence[tuple[int, Sequence[tuple[Any, ...]]]],
        entries: Sequence[QueueEntry],
        told: Sequence[tuple[int, Event]],
        finish: Callable[[sqlite3.Connection], str | None] | None,
        suppressions: Sequence[Suppression],
        waits: Sequence[tuple[Any, ...]] = (),
    ) -> Deferred[None]:
        """What an attempt came to, and in the same commit that nothing more is sent there."""
        suppress, events = self.suppressions.addition(suppressions)
        all_told = list(told)

        def work(connection: sqlite3.Connection) -> tuple[str | None, Sequence[Suppression]]:
            added = suppress(connection)
            all_told[len(told) :] = events
            return None if finish is None else finish(connection), added

        def done(result: tuple[str | None, Sequence[Suppression]]) -> None:
            self._remove_body(result[0])
            counted(result[1])

        return self._writer.put(Unit(rows=statements, told=(entries, all_told), work=work, more=waits)).addCallback(done)

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

    def lanes(self) -> Deferred[Sequence[tuple[Lane, float]]]:
        """See ISpool."""
        return self._reader.ask(salvage.lanes).addCallback(self._lanes_found)

    def _lanes_found(self, found: tuple[Sequence[tuple[Lane, float]], str]) -> Sequence[tuple[Lane, float]]:
        lanes, wrong = found
        if wrong:
            self._note_damage(f"the index of what is due can't be read: {wrong}")
        return lanes

    def due(self, lane: Lane, now: float, limit: int) -> Deferred[Sequence[QueueEntry]]:
        """See ISpool."""
        return self._reader.ask(salvage.due, lane, now, limit).addCallback(self._due_found, lane, now, limit)

    def _due_found(self, found: tuple[Sequence[QueueEntry], Sequence[DamagedRecipient], str], lane: Lane, now: float, limit: int) -> Any:
        entries, damaged, wrong = found
        if wrong:
            self._note_damage(f"the index of what is due can't be read: {wrong}")
        # What a commit has stored and its listeners have not heard of yet is left out: the reader may see it before they do, and whoever
        # got it here and then as news would send it twice.
        entries = [entry for entry in entries if entry.number <= self._newest]
        if not damaged:
            return entries

        # Those in quarantine made room for others. Where that can't be written now, what is sound goes out all the same.
        def sound(failure: Failure) -> Sequence[QueueEntry] | Failure:
            return entries or failure

        return self._quarantine(damaged).addCallback(lambda _: self.due(lane, now, limit)).addErrback(sound)

    def recall(self, project_id: str, key: str, now: float) -> Deferred[tuple[bytes, str] | None]:
        """See ISpool."""
        return self._reader.ask(queries.recall, project_id, key, now)

    def next_due(self, lane: Lane, after: float) -> Deferred[float | None]:
        """See ISpool."""
        return self._reader.ask(queries.next_due, lane, after)

    def hasten(self, seconds: float, now: float) -> Deferred[int]:
        """See ISpool: :data:`HASTEN_ROWS` of them a commit, so that none takes long."""
        return Deferred.fromCoroutine(self._hasten(seconds, now))

    async def _hasten(self, seconds: float, now: float) -> int:
        count: int = 0
        after: int = 0
        found: int
        while True:
            work = partial(changes.hasten, seconds=seconds, now=now, after=after, limit=HASTEN_ROWS)
            found, after = await self._writer.put(Unit(rows=(), work=work))
            count += found
            if found < HASTEN_ROWS:
                return count
