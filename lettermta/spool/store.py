"""The spool: SQLite in WAL mode under group commit, large bodies in files beside it (DESIGN.md section 5.1).

Promise: a Deferred that stands for a write fires after the sync that makes it durable, and what has not been answered may be lost whole,
never in part. One process owns a spool; a second one is refused by a lock. Everything here is called in the reactor's thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.event import Event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, IStoredContent, NotStored
from lettermta.message import (
    FINAL,
    WAITING,
    Attempt,
    Change,
    Changed,
    HoldRule,
    Lane,
    Message,
    Outcome,
    QueuedRecipient,
    QueueEntry,
    State,
    domain_of,
)
from lettermta.spool import changes, daily, event_queries, figures, queries, salvage
from lettermta.spool.attempts import rows_of
from lettermta.spool.checksum import FORMAT, check_body, content_checksum
from lettermta.spool.condition import Condition, Room
from lettermta.spool.content import BodyFiles, FileContent, MemoryContent, SpoolContent, make_directory
from lettermta.spool.daily import Daily
from lettermta.spool.damage import Damaged, DamagedRecipient, is_damage, undecodable
from lettermta.spool.fresh import FreshContent
from lettermta.spool.opening import open_database
from lettermta.spool.options import encode_options, encode_recipient
from lettermta.spool.reader import Reader
from lettermta.spool.suppressions import Suppressions, counted
from lettermta.spool.writer import Unit, Writer
from lettermta.suppression import Suppression

_FINAL = ",".join(f"'{state}'" for state in sorted(FINAL))
_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))

(
    _MESSAGE, _CONTENT, _RECIPIENT, _HELD, _UPDATE, _ATTEMPT, _FINISH_MESSAGE, _FINISH_CONTENT, _FINISH_RECIPIENTS, _EVENT, _CURSOR,
    _FORGET_KEYS, _KEY, _QUARANTINE,
) = range(14)  # fmt: skip

_STATEMENTS = (
    "INSERT INTO message VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "INSERT INTO content VALUES (?,?,?,?,?,?)",
    "INSERT INTO recipient (number, message, address, route_id, domain, state, due, attempts, handed_over, reply, options, tag, priority)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "UPDATE recipient SET rule = ? WHERE number = ?",
    # An operator may have held or removed it while it was under way: only what ends it changes that.
    f"UPDATE recipient SET state = CASE WHEN ?1 IN ({_FINAL}) OR state IN ({_WAITING}) THEN ?1 ELSE state END,"  # noqa: S608 - as below
    " due = ?2, attempts = attempts + (?1 <> 'suppressed'), handed_over = handed_over OR ?3, reply = ?4, first_deferred = ?5, warned = ?6"
    " WHERE number = ?7",
    "INSERT OR REPLACE INTO attempt VALUES (?,?,?,?,?,?,?,?,?,?)",
    f"DELETE FROM message WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND state NOT IN ({_FINAL}))",  # noqa: S608 - the states are our own words
    "DELETE FROM content WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1)",
    "DELETE FROM recipient WHERE message = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1)",
    "INSERT INTO event VALUES (?,?,?,?,?,?)",
    "INSERT INTO cursor VALUES (?,?) ON CONFLICT (sink) DO UPDATE SET sequence = excluded.sequence",
    # Each new key takes a few old ones with it, so that they never pile up.
    "DELETE FROM idempotency WHERE (project_id, key) IN (SELECT project_id, key FROM idempotency WHERE expires <= ? LIMIT 4)",
    "INSERT OR REPLACE INTO idempotency VALUES (?,?,?,?,?)",
    "UPDATE recipient SET state = 'quarantined', due = 0, reply = ? WHERE number = ?",
)

FRESH_OCTETS = 67_108_864
"""Content of new messages that is kept in memory until its first attempt, so that it need not be read back."""
HASTEN_ROWS = 5_000
"""Recipients that one commit makes due earlier at the most."""
TRIM_ROWS = 5_000
"""Events that one commit forgets at the most."""
MOST_DAMAGE = 100
"""Kinds of damage that are kept for the health check."""
COUNTING_SHARE = 20
"""Counting the queue may take one part in so many of a thread's time."""


class SpoolInUse(Exception):
    """Another process owns the spool."""


@implementer(ISpool)
class Spool:
    """The spool of one process, in ``directory``, which takes no new mail while less than ``free_space`` octets are free there."""

    log = Logger()

    def __init__(self, directory: Path, reactor: IReactorThreads, free_space: int = 0) -> None:
        self._directory = directory
        self._reactor = reactor
        self._files = BodyFiles(directory / "body")
        self._listeners: list[ISpoolListener] = []
        self._fresh = FreshContent(FRESH_OCTETS)
        self._lock: int | None = None
        path = directory / "spool.db"
        self._path = path
        self._room = Room(directory, free_space)
        self._writer = Writer(
            path,
            _STATEMENTS,
            reactor.callFromThread,
            self._committed,
            self._failed,
            self._changed,
            room=self._room,
            complete={_CONTENT: _with_checksum},
            summary=self._count_by_day,
        )
        self._daily = Daily()
        self._trouble = ""
        self._damage: list[str] = []
        self._counted_until = 0.0
        self._reader = Reader(path, reactor.callFromThread)
        # A filter that few rows pass reads many: nobody's mail waits for that.
        self._tools_reader = Reader(path, reactor.callFromThread)
        self.suppressions = Suppressions(self._reader.ask, self._tools_reader.ask, self._writer.put, self._reserve_events)
        self._next_message = self._next_recipient = self._next_event = self._next_rule = 1
        self._rules: list[HoldRule] = []
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
        self._next_message, self._next_recipient, self._next_event = opened.message + 1, opened.recipient + 1, opened.sequence + 1
        self._newest = opened.message
        self._rules, self._next_rule = opened.rules, opened.rule + 1
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

    def _threaded(self, function: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    # -- new messages

    def content(self) -> IContent:
        """See ISpool."""
        return SpoolContent(self._files, self._threaded)

    def room(self, size: int) -> bool:
        """See ISpool."""
        return self._writer.condition is Condition.WORKING and self._room.takes(size)

    def store(self, message: Message, events: Sequence[Event]) -> Deferred[None]:
        """See ISpool."""
        content = message.content
        assert isinstance(content, SpoolContent)
        if not self.room(content.size):
            return fail(NotStored(self.complaint() or "the message would take what is to stay free ([limits] free_space)"))
        if len(message.suppressed) == len(message.recipients):
            content.discard()
            return self._writer.put(self._new_events_alone(message, events))
        self._room.spend(content.size)
        if content.file is None:
            return self._writer.put(self._new_message(message, content, events))
        synced = content.sync()
        return synced.addCallback(lambda _: self._writer.put(self._new_message(message, content, events)))

    def _new_message(self, message: Message, content: SpoolContent, events: Sequence[Event]) -> Unit:
        number = self._next_message
        self._next_message += 1
        body = content.body()
        if body is not None:
            self._fresh.keep(number, MemoryContent(message.head, body))
        entries, recipients, held = self._new_recipients(number, message)
        told, event_rows = self._new_events(events)
        rows: list[tuple[int, Sequence[tuple[Any, ...]]]] = [
            (_MESSAGE, (_message_row(number, message),)),
            (_CONTENT, ((number, message.head, body, content.file, content.file_checksum),)),
            (_RECIPIENT, recipients),
            (_EVENT, event_rows),
        ]
        if held:
            rows.append((_HELD, held))
        rows += _key_rows(message)
        unit = Unit(rows=rows, told=(entries, told), new=number)
        if not entries:
            unit.done.addCallback(self._all_held, number)
        return unit

    def _new_events_alone(self, message: Message, events: Sequence[Event]) -> Unit:
        """A message whose recipients are all suppressed is over when it comes in: what is kept of it is its events, and its key."""
        told, rows = self._new_events(events)
        return Unit(rows=[(_EVENT, rows), *_key_rows(message)], told=([], told), new=0)

    def _all_held(self, _: None, number: int) -> None:
        """There is nothing to tell of a message that is held whole; it may be found due once it is released."""
        self._newest = max(self._newest, number)

    def _new_report(self, report: Message) -> Unit:
        content = report.content
        assert isinstance(content, SpoolContent)
        assert content.file is None, "a report is small enough to be in memory"
        return self._new_message(report, content, ())

    def _new_recipients(self, number: int, message: Message) -> tuple[list[QueueEntry], list[tuple[Any, ...]], list[tuple[int, int]]]:
        """The entries, one a domain, and the rows of a new message's recipients; those that a rule holds are only rows, with its number."""
        entries: dict[str, QueueEntry] = {}
        rows: list[tuple[Any, ...]] = []
        held: list[tuple[int, int]] = []
        state, due = (State.QUEUED, 0.0) if message.hold_until is None else (State.SCHEDULED, message.hold_until)
        for recipient in message.recipients:
            address = recipient.address
            domain = domain_of(address)
            key = self._next_recipient
            self._next_recipient += 1
            if address in message.suppressed:
                rows.append((
                    key, number, address, message.route_id, domain, State.SUPPRESSED.value, message.created, 0, 0,
                    f"suppressed: {message.suppressed[address]}", encode_recipient(recipient), message.tag, message.options.priority,
                ))  # fmt: skip
                continue
            # What is held for a reason of its own does not go when a rule is lifted.
            rule = self._rule_for(message, domain) if self._rules and not message.held else None
            reason = message.held if rule is None else rule.reason
            rows.append((
                key, number, address, message.route_id, domain, State.HELD.value if reason else state.value, due or message.created,
                0, 0, reason, encode_recipient(recipient), message.tag, message.options.priority,
            ))  # fmt: skip
            if rule is not None:
                held.append((rule.id, key))
            if reason:
                continue
            entry = entries.get(domain)
            if entry is None:
                entry = entries[domain] = QueueEntry(
                    number,
                    message.id,
                    Lane(message.route_id, domain),
                    message.project,
                    message.route,
                    message.sender,
                    message.size,
                    message.created,
                    message.expires,
                    message.facts,
                    message.context,
                    [],
                    message.options,
                    due,
                    due or message.created,
                )
            entry.recipients.append(QueuedRecipient(key, address, notify=recipient.notify, orcpt=recipient.orcpt))
        return list(entries.values()), rows, held

    def _rule_for(self, message: Message, domain: str) -> HoldRule | None:
        return next((rule for rule in self._rules if rule.holds(message, domain)), None)

    def _new_event(self, event: Event) -> tuple[int, tuple[Any, ...]]:
        sequence = self._next_event
        self._next_event += 1
        return sequence, (sequence, event.id, event.name, event.message_id, event.created, event.payload)

    def _new_events(self, events: Sequence[Event]) -> tuple[list[tuple[int, Event]], list[tuple[Any, ...]]]:
        told, rows = [], []
        for event in events:
            sequence, row = self._new_event(event)
            told.append((sequence, event))
            rows.append(row)
        return told, rows

    def _reserve_events(self, count: int) -> int:
        """The first of so many numbers for events that the writer makes; it may leave some of them out."""
        first = self._next_event
        self._next_event += count
        return first

    def _committed(self, units: Sequence[Unit]) -> None:
        """In the reactor's thread, once per commit: answer first, then tell the listeners."""
        entries: list[QueueEntry] = []
        events: list[tuple[int, Event]] = []
        for unit in units:
            if unit.told is not None:
                entries += unit.told[0]
                events += unit.told[1]
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
        unit = Unit(rows=((_QUARANTINE, [(one.reason, one.number) for one in damaged]),))
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

    def load(self, entry: QueueEntry) -> Deferred[IStoredContent]:
        """See ISpool."""
        fresh = self._fresh.get(entry.number)
        if fresh is not None:
            return succeed(fresh)
        return self._reader.ask(self._stored_content, entry).addCallback(_checked)

    def _stored_content(self, connection: sqlite3.Connection, entry: QueueEntry) -> IStoredContent:
        """In the reader's thread; raises Damaged. A body file is not looked at here, as that takes long."""
        try:
            row = queries.content(connection, entry.number)
        except sqlite3.DatabaseError as error:
            if not (is_damage(error) or undecodable(error)):
                raise
            raise Damaged(f"the content of message {entry.id} can't be read from the database: {error}") from error
        if row is None:
            raise Damaged(f"message {entry.id} has no content in the spool")
        head, body, file, form, checksum = row
        if body is not None:
            check_body(head, body, form, checksum)
            return MemoryContent(head, body)
        if file is None:
            raise Damaged(f"message {entry.id} has no body in the spool")
        return FileContent(head, self._files.path(file), entry.size - len(head) - 2, self._threaded, form, checksum)

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
        told, rows = self._new_events(events)
        statements: list[tuple[int, Sequence[tuple[Any, ...]]]] = [(_UPDATE, updates), (_EVENT, rows)]
        if attempt is not None:
            statements.append((_ATTEMPT, list(rows_of(entry.id, outcomes, attempt))))
        entries: list[QueueEntry] = []
        for report in reports:
            new = self._new_report(report)
            statements += new.rows
            entries += new.told[0]
        work = None
        waits: Sequence[tuple[Any, ...]] = ()
        if any(outcome.state in FINAL for outcome in outcomes):
            waits = _waits(entry, outcomes)
            fresh = self._fresh.drop(entry.number)
            finished = ((entry.number,),)
            statements += [(_FINISH_MESSAGE, finished), (_FINISH_RECIPIENTS, finished)]
            if not fresh:
                work = _finish_content(entry.number)
            else:
                statements.append((_FINISH_CONTENT, finished))
        if suppressions:
            return self._record_and_suppress(statements, entries, told, work, suppressions, waits)
        unit = Unit(rows=statements, told=(entries, told), work=work, more=waits)
        done = self._writer.put(unit)
        return done.addCallback(self._remove_body) if work is not None else done

    def tell(self, events: Sequence[Event], suppressions: Sequence[Suppression] = ()) -> Deferred[None]:
        """See ISpool."""
        told, rows = self._new_events(events)
        if suppressions:
            return self._record_and_suppress([(_EVENT, rows)], (), told, None, suppressions)
        return self._writer.put(Unit(rows=((_EVENT, rows),), told=((), told)))

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
        events, waits = rows[_EVENT], rows[-1]
        if (events or waits) and self._daily.damage is None:
            self._daily.count(connection, events, waits)
            if (damage := self._daily.damage) is not None:
                self._reactor.callFromThread(self._note_damage, f"the figures by day are damaged and no longer kept: {damage}")

    def _remove_body(self, name: str | None) -> None:
        """The row is gone for good, so the file may go: whether that is durable does not matter, the next start looks for orphans."""
        if name is not None:
            self._threaded(self._files.remove, name).addErrback(
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

    # -- the queue tools

    def query(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(salvage.recipients, filters, after, limit)

    def message(self, identifier: str) -> Deferred[Mapping[str, Any] | None]:
        """See ISpool."""
        return self._tools_reader.ask(queries.message, identifier)

    def count(self, change: Change, filters: Mapping[str, Any]) -> Deferred[int]:
        """See ISpool."""
        return self._tools_reader.ask(changes.count, change, filters)

    def change(self, change: Change, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Changed]:
        """See ISpool. They are chosen by a reader, so that a filter which few rows pass does not hold up the writer."""
        chosen = self._tools_reader.ask(changes.choose, change, filters, after, limit)
        return chosen.addCallback(self._change_chosen, change, limit)

    def _change_chosen(self, numbers: Sequence[int], change: Change, limit: int) -> Changed | Deferred[Changed]:
        if not numbers:
            return Changed(0, None)
        sequence = self._reserve_events(len(numbers))
        told: list[tuple[int, Event]] = []

        def work(connection: sqlite3.Connection) -> changes.Applied:
            applied = changes.apply(connection, change, numbers, sequence)
            told[:] = applied.events
            return applied

        def applied(result: changes.Applied) -> Changed:
            for number in result.gone:
                self._fresh.drop(number)
            for name in result.files:
                self._remove_body(name)
            return Changed(result.count, numbers[-1] if len(numbers) >= limit else None, frozenset(result.lanes))

        return self._writer.put(Unit(rows=(), told=((), told), work=work)).addCallback(applied)

    def entries(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[tuple[Sequence[QueueEntry], int | None]]:
        """See ISpool."""
        return self._tools_reader.ask(queries.entries, filters, after, limit)

    def hold_rules(self) -> Sequence[HoldRule]:
        """See ISpool."""
        return tuple(self._rules)

    def add_hold_rule(self, conditions: Mapping[str, str], reason: str, moment: float) -> Deferred[HoldRule]:
        """See ISpool. Raises ValueError when the conditions are none. What is stored behind it is held in its commit."""
        rule = changes.new_hold_rule(self._next_rule, conditions, reason, moment)
        self._next_rule += 1
        self._rules.append(rule)

        def failed(failure: Failure) -> Failure:
            self._rules.remove(rule)
            return failure

        added = self._writer.put(Unit(rows=(), work=lambda connection: changes.add_hold_rule(connection, rule)))
        return added.addCallbacks(lambda _: rule, failed)

    def drop_hold_rule(self, identifier: int) -> Deferred[bool]:
        """See ISpool."""

        def dropped(there_was: bool) -> bool:
            self._rules = [rule for rule in self._rules if rule.id != identifier]
            return there_was

        work = Unit(rows=(), work=lambda connection: changes.drop_hold_rule(connection, identifier))
        return self._writer.put(work).addCallback(dropped)

    def trace(self, message_id: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(queries.trace, message_id)

    def figures(self, by: str, filters: Mapping[str, Any]) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(figures.figures, by, filters)

    def daily(self, by: str, since: float, project: str | None) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(daily.figures, by, since, project)

    def find_events(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._tools_reader.ask(event_queries.find_events, filters, after, limit)

    # -- the events outbox

    def events(self, after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._reader.ask(salvage.events, after, limit).addCallback(self._events_found)

    def _events_found(self, found: tuple[Sequence[tuple[int, Event]], Sequence[int]]) -> Sequence[tuple[int, Event]]:
        events, missed = found
        if missed:
            self._note_damage(f"{len(missed)} events can't be read and are told to nobody: numbers {missed[0]} to {missed[-1]}")
        return events

    def cursor(self, sink: str) -> Deferred[int]:
        """See ISpool."""
        return self._reader.ask(queries.cursor, sink)

    def advance(self, sink: str, sequence: int) -> Deferred[None]:
        """See ISpool."""
        return self._writer.put(Unit(rows=((_CURSOR, ((sink, sequence),)),)))

    def retire(self, sinks: Sequence[str]) -> Deferred[Sequence[str]]:
        """See ISpool."""

        def work(connection: sqlite3.Connection) -> Sequence[str]:
            known = [sink for (sink,) in connection.execute("SELECT sink FROM cursor")]
            gone = [sink for sink in known if sink not in sinks]
            connection.executemany("DELETE FROM cursor WHERE sink = ?", [(sink,) for sink in gone])
            return gone

        return self._writer.put(Unit(rows=(), work=work))

    def trim(self, before: float) -> Deferred[int]:
        """See ISpool: at most :data:`TRIM_ROWS` of them a call, so that no commit takes long. The last event of all is kept: its number
        tells the next start where to go on.
        """

        def work(connection: sqlite3.Connection) -> int:
            bound = connection.execute(
                "SELECT MIN((SELECT MAX(sequence) FROM event) - 1, COALESCE((SELECT MIN(sequence) FROM cursor), 9223372036854775807))"
            ).fetchone()[0]
            # In the order of the outbox up to the first that is to stay, so that what stays is not read each time.
            old = 0
            count = 0
            for sequence, moment in connection.execute(
                "SELECT sequence, created FROM event WHERE sequence <= ? ORDER BY sequence LIMIT ?", (bound, TRIM_ROWS)
            ):
                if moment >= before:
                    break
                old, count = sequence, count + 1
            connection.execute("DELETE FROM event WHERE sequence <= ?", (old,))
            daily.forget(connection, time.time())
            return count + changes.trim_attempts(connection, before, TRIM_ROWS)

        return self._writer.put(Unit(rows=(), work=work))


def _waits(entry: QueueEntry, outcomes: Sequence[Outcome]) -> Sequence[tuple[Any, ...]]:
    """For each recipient that is through and was put off before: when, of whose mail, and how long that took since the first time."""
    begun = [outcome.recipient.first_deferred for outcome in outcomes if outcome.state in FINAL and outcome.recipient.first_deferred]
    if not begun or entry.options.report:
        return ()
    now = time.time()
    return [(now, entry.project, entry.facts, max(now - moment, 0.0)) for moment in begun]


def _checked(content: IStoredContent) -> IStoredContent | Deferred[IStoredContent]:
    """What is in a file is read once more than it is sent: whether it is sound must be known before its first octet leaves."""
    return content.check().addCallback(lambda _: content) if isinstance(content, FileContent) else content


def _with_checksum(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """In the writer's thread: the row of a content, which came with the checksum of its body file if it has one."""
    number, head, body, file, file_checksum = row
    return number, head, body, file, FORMAT, content_checksum(head, file_checksum if body is None else zlib.crc32(body))


def _message_row(number: int, message: Message) -> tuple[Any, ...]:
    return (
        number,
        message.id,
        message.project_id,
        message.project,
        message.route_id,
        message.route,
        message.sender,
        message.tag,
        orjson.dumps(message.metadata).decode() if message.metadata else "{}",
        message.size,
        message.created,
        message.expires,
        message.facts,
        message.context,
        encode_options(message.options),
    )


def _key_rows(message: Message) -> list[tuple[int, Sequence[tuple[Any, ...]]]]:
    """What is written of a message's idempotency key, if it has one."""
    key = message.idempotency
    if key is None:
        return []
    return [
        (_FORGET_KEYS, ((message.created,),)),
        (_KEY, ((message.project_id, key.key, key.digest, message.id, key.expires),)),
    ]


def _finish_content(number: int) -> Any:
    """Remove a finished message's content; returns the name of its body file, if it had one and is gone."""

    def work(connection: sqlite3.Connection) -> str | None:
        row = connection.execute(
            "DELETE FROM content WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1) RETURNING file", (number,)
        ).fetchone()
        return None if row is None else row[0]

    return work
