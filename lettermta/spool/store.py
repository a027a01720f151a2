"""The spool: SQLite in WAL mode under group commit, large bodies in files beside it (DESIGN.md section 5.1).

Promise: a Deferred that stands for a write fires after the sync that makes it durable, and what has not been answered may be lost whole,
never in part. One process owns a spool; a second one is refused by a lock. Everything here is called in the reactor's thread.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.event import Event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, IStoredContent
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
from lettermta.spool import changes, figures, queries
from lettermta.spool.content import BodyFiles, FileContent, MemoryContent, SpoolContent, sync_directory
from lettermta.spool.options import encode_options, encode_recipient
from lettermta.spool.reader import Reader
from lettermta.spool.schema import connect, migrate
from lettermta.spool.writer import Unit, Writer

_FINAL = ",".join(f"'{state}'" for state in sorted(FINAL))
_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))

(
    _MESSAGE, _CONTENT, _RECIPIENT, _HELD, _UPDATE, _ATTEMPT, _FINISH_MESSAGE, _FINISH_CONTENT, _FINISH_RECIPIENTS, _EVENT, _CURSOR,
    _FORGET_KEYS, _KEY,
) = range(13)  # fmt: skip

_STATEMENTS = (
    "INSERT INTO message VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    "INSERT INTO content VALUES (?,?,?,?)",
    "INSERT INTO recipient (number, message, address, route_id, domain, state, due, attempts, handed_over, reply, options, tag)"
    " VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
    "UPDATE recipient SET rule = ? WHERE number = ?",
    # An operator may have held or removed it while it was under way: only what ends it changes that.
    f"UPDATE recipient SET state = CASE WHEN ?1 IN ({_FINAL}) OR state IN ({_WAITING}) THEN ?1 ELSE state END,"  # noqa: S608 - as below
    " due = ?2, attempts = attempts + 1, handed_over = handed_over OR ?3, reply = ?4 WHERE number = ?5",
    "INSERT OR REPLACE INTO attempt VALUES (?,?,?,?,?,?,?,?,?)",
    f"DELETE FROM message WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND state NOT IN ({_FINAL}))",  # noqa: S608 - the states are our own words
    "DELETE FROM content WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1)",
    "DELETE FROM recipient WHERE message = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1)",
    "INSERT INTO event VALUES (?,?,?,?,?,?)",
    "INSERT INTO cursor VALUES (?,?) ON CONFLICT (sink) DO UPDATE SET sequence = excluded.sequence",
    # Each new key takes a few old ones with it, so that they never pile up.
    "DELETE FROM idempotency WHERE (project_id, key) IN (SELECT project_id, key FROM idempotency WHERE expires <= ? LIMIT 4)",
    "INSERT OR REPLACE INTO idempotency VALUES (?,?,?,?,?)",
)

FRESH_OCTETS = 67_108_864
"""Content of new messages that is kept in memory until its first attempt, so that it need not be read back."""
TRIM_ROWS = 5_000
"""Events that one commit forgets at the most."""


class SpoolInUse(Exception):
    """Another process owns the spool."""


@implementer(ISpool)
class Spool:
    """The spool of one process, in ``directory``."""

    log = Logger()

    def __init__(self, directory: Path, reactor: IReactorThreads) -> None:
        self._directory = directory
        self._reactor = reactor
        self._files = BodyFiles(directory / "body")
        self._listeners: list[ISpoolListener] = []
        self._fresh: OrderedDict[int, MemoryContent] = OrderedDict()
        self._fresh_octets = 0
        self._lock: int | None = None
        path = directory / "spool.db"
        self._path = path
        self._writer = Writer(path, _STATEMENTS, reactor.callFromThread, self._committed)
        self._reader = Reader(path, reactor.callFromThread)
        # A filter that few rows pass reads many: nobody's mail waits for that.
        self._tools_reader = Reader(path, reactor.callFromThread)
        self._next_message = self._next_recipient = self._next_event = self._next_rule = 1
        self._rules: list[HoldRule] = []
        self._newest = 0
        """The number of the last message that the listeners were told of."""

    # -- opening and closing

    def open(self) -> None:
        """Take the lock, bring the schema up to date, remove orphans, and start. Blocks: called before the reactor runs.

        Raises SpoolInUse, SpoolVersionError, OSError, or sqlite3.Error when the database is damaged.
        """
        self._make_directory()
        self._take_lock()
        try:
            self._prepare()
        except BaseException:
            self._closed(None)
            raise
        self._writer.start()
        self._reader.start()
        self._tools_reader.start()

    def _make_directory(self) -> None:
        """Make the directory and those above it durably: what is synced in a directory that a power cut takes away is lost too."""
        missing = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            sync_directory(path.parent)

    def _prepare(self) -> None:
        self._files.prepare()
        connection = connect(self._path, writable=True)
        try:
            migrate(connection)
            self._newest = _highest(connection, "message", "number")
            self._next_message = self._newest + 1
            self._next_recipient = _highest(connection, "recipient", "number") + 1
            # A sequence number is never used twice, or a sink's cursor would be past a new event.
            self._next_event = max(_highest(connection, "event", "sequence"), _highest(connection, "cursor", "sequence")) + 1
            self._rules = changes.hold_rules(connection)
            self._next_rule = changes.next_rule(connection)
            self._remove_orphans(connection)
        finally:
            connection.close()
        self._path.chmod(0o600)

    def _take_lock(self) -> None:
        lock = os.open(self._directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise SpoolInUse(f"{self._directory} is in use by another lettermta") from None
        self._lock = lock

    def _remove_orphans(self, connection: sqlite3.Connection) -> None:
        """A crash between the sync of a body file and the commit of its row leaves a file that no message has."""
        known = {name for (name,) in connection.execute("SELECT file FROM content WHERE file IS NOT NULL")}
        for name in self._files.names():
            if name not in known:
                self.log.info("orphaned body file {name} removed", name=name)
                self._files.remove(name)

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

    def store(self, message: Message, events: Sequence[Event]) -> Deferred[None]:
        """See ISpool."""
        content = message.content
        assert isinstance(content, SpoolContent)
        if content.file is None:
            return self._writer.put(self._new_message(message, content, events))
        synced = content.sync()
        return synced.addCallback(lambda _: self._writer.put(self._new_message(message, content, events)))

    def _new_message(self, message: Message, content: SpoolContent, events: Sequence[Event]) -> Unit:
        number = self._next_message
        self._next_message += 1
        body = content.body()
        if body is not None:
            self._keep_fresh(number, MemoryContent(message.head, body))
        entries, recipients, held = self._new_recipients(number, message)
        told, event_rows = self._new_events(events)
        rows: list[tuple[int, Sequence[tuple[Any, ...]]]] = [
            (_MESSAGE, (_message_row(number, message),)),
            (_CONTENT, ((number, message.head, body, content.file),)),
            (_RECIPIENT, recipients),
            (_EVENT, event_rows),
        ]
        if held:
            rows.append((_HELD, held))
        if (key := message.idempotency) is not None:
            rows += [
                (_FORGET_KEYS, ((message.created,),)),
                (_KEY, ((message.project_id, key.key, key.digest, message.id, key.expires),)),
            ]
        unit = Unit(rows=rows, told=(entries, told))
        if not entries:
            unit.done.addCallback(self._all_held, number)
        return unit

    def _all_held(self, _: None, number: int) -> None:
        """There is nothing to tell of a message that is held whole; it may be found due once it is released."""
        self._newest = max(self._newest, number)

    def _new_recipients(self, number: int, message: Message) -> tuple[list[QueueEntry], list[tuple[Any, ...]], list[tuple[int, int]]]:
        """The entries, one a domain, and the rows of a new message's recipients; those that a rule holds are only rows, with its number."""
        entries: dict[str, QueueEntry] = {}
        rows: list[tuple[Any, ...]] = []
        held: list[tuple[int, int]] = []
        state, due = (State.QUEUED, 0.0) if message.hold_until is None else (State.SCHEDULED, message.hold_until)
        for recipient in message.recipients:
            address = recipient.address
            domain = domain_of(address)
            if self._rules and (rule := self._rule_for(message, domain)) is not None:
                key = self._next_recipient
                self._next_recipient += 1
                held.append((rule.id, key))
                rows.append((
                    key, number, address, message.route_id, domain, State.HELD.value, due or message.created, 0, 0, rule.reason,
                    encode_recipient(recipient), message.tag,
                ))  # fmt: skip
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
                )
            key = self._next_recipient
            self._next_recipient += 1
            entry.recipients.append(QueuedRecipient(key, address, notify=recipient.notify, orcpt=recipient.orcpt))
            options = encode_recipient(recipient)
            rows.append(
                (key, number, address, message.route_id, domain, state.value, due or message.created, 0, 0, "", options, message.tag)
            )
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

    def _keep_fresh(self, number: int, content: MemoryContent) -> None:
        self._fresh[number] = content
        self._fresh_octets += content.size
        while self._fresh_octets > FRESH_OCTETS:
            _, dropped = self._fresh.popitem(last=False)
            self._fresh_octets -= dropped.size

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

    # -- attempts

    def load(self, entry: QueueEntry) -> Deferred[IStoredContent]:
        """See ISpool."""
        fresh = self._fresh.get(entry.number)
        if fresh is not None:
            return succeed(fresh)
        return self._reader.ask(self._stored_content, entry)

    def _stored_content(self, connection: sqlite3.Connection, entry: QueueEntry) -> IStoredContent:
        """In the reader's thread. A body file that is not what was stored is as good as none."""
        row = queries.content(connection, entry.number)
        if row is None:
            raise LookupError(f"message {entry.id} has no content in the spool")
        head, body, file = row
        if body is not None:
            return MemoryContent(head, body)
        assert file is not None
        path, size = self._files.path(file), entry.size - len(head) - 2
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            raise LookupError(f"the body file {file} of message {entry.id} is missing") from None
        if found != size:
            raise LookupError(f"the body file {file} of message {entry.id} has {found} octets, not {size}")
        return FileContent(head, path, size, self._threaded)

    def record(
        self, entry: QueueEntry, outcomes: Sequence[Outcome], events: Sequence[Event], attempt: Attempt | None = None
    ) -> Deferred[None]:
        """See ISpool."""
        updates = [(o.state.value, o.due, int(o.handed_over), o.reply, o.recipient.number) for o in outcomes]
        told, rows = self._new_events(events)
        statements: list[tuple[int, Sequence[tuple[Any, ...]]]] = [(_UPDATE, updates), (_EVENT, rows)]
        if attempt is not None:
            statements.append((_ATTEMPT, [_attempt_row(entry.id, outcome, attempt) for outcome in outcomes]))
        work = None
        if any(outcome.state in FINAL for outcome in outcomes):
            fresh = self._fresh.get(entry.number)
            self._forget_fresh(entry.number)
            finished = ((entry.number,),)
            statements += [(_FINISH_MESSAGE, finished), (_FINISH_RECIPIENTS, finished)]
            if fresh is None:
                work = _finish_content(entry.number)
            else:
                statements.append((_FINISH_CONTENT, finished))
        unit = Unit(rows=statements, told=((), told), work=work)
        done = self._writer.put(unit)
        return done.addCallback(self._remove_body) if work is not None else done

    def _remove_body(self, name: str | None) -> None:
        """The row is gone for good, so the file may go: whether that is durable does not matter, the next start looks for orphans."""
        if name is not None:
            self._threaded(self._files.remove, name).addErrback(
                lambda failure: self.log.failure("body file {name} was not removed", failure=failure, name=name)
            )

    def lanes(self) -> Deferred[Sequence[tuple[Lane, float]]]:
        """See ISpool."""
        return self._reader.ask(queries.lanes)

    def due(self, lane: Lane, now: float, limit: int) -> Deferred[Sequence[QueueEntry]]:
        """See ISpool."""
        return self._reader.ask(queries.due, lane, now, limit).addCallback(self._told_already)

    def _told_already(self, entries: Sequence[QueueEntry]) -> Sequence[QueueEntry]:
        """Leave out what a commit has stored and its listeners have not heard of yet: the reader may see it before they do, and whoever
        got it here and then as news would send it twice.
        """
        return [entry for entry in entries if entry.number <= self._newest]

    def recall(self, project_id: str, key: str, now: float) -> Deferred[tuple[bytes, str] | None]:
        """See ISpool."""
        return self._reader.ask(queries.recall, project_id, key, now)

    def next_due(self, lane: Lane) -> Deferred[float | None]:
        """See ISpool."""
        return self._reader.ask(queries.next_due, lane)

    # -- the queue tools

    def query(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(queries.recipients, filters, after, limit)

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
        sequence = self._next_event
        self._next_event += len(numbers)
        told: list[tuple[int, Event]] = []

        def work(connection: sqlite3.Connection) -> changes.Applied:
            applied = changes.apply(connection, change, numbers, sequence)
            told[:] = applied.events
            return applied

        def applied(result: changes.Applied) -> Changed:
            for number in result.gone:
                self._forget_fresh(number)
            for name in result.files:
                self._remove_body(name)
            return Changed(result.count, numbers[-1] if len(numbers) >= limit else None, frozenset(result.lanes))

        return self._writer.put(Unit(rows=(), told=((), told), work=work)).addCallback(applied)

    def _forget_fresh(self, number: int) -> None:
        fresh = self._fresh.pop(number, None)
        if fresh is not None:
            self._fresh_octets -= fresh.size

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

    def figures(self, by: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """See ISpool."""
        return self._tools_reader.ask(figures.figures, by)

    def find_events(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._tools_reader.ask(queries.find_events, filters, after, limit)

    # -- the events outbox

    def events(self, after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """See ISpool."""
        return self._reader.ask(queries.events, after, limit)

    def cursor(self, sink: str) -> Deferred[int]:
        """See ISpool."""
        return self._reader.ask(queries.cursor, sink)

    def advance(self, sink: str, sequence: int) -> Deferred[None]:
        """See ISpool."""
        return self._writer.put(Unit(rows=((_CURSOR, ((sink, sequence),)),)))

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
            return count + changes.trim_attempts(connection, before, TRIM_ROWS)

        return self._writer.put(Unit(rows=(), work=work))


def _highest(connection: sqlite3.Connection, table: str, column: str) -> int:
    return connection.execute(f"SELECT MAX({column}) FROM {table}").fetchone()[0] or 0  # noqa: S608 - our own names


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


def _attempt_row(identifier: str, outcome: Outcome, attempt: Attempt) -> tuple[Any, ...]:
    one = outcome.recipient
    return (
        identifier, one.number, one.attempts + 1, one.address, attempt.moment, attempt.seconds, attempt.via, outcome.state.value,
        outcome.reply,
    )  # fmt: skip


def _finish_content(number: int) -> Any:
    """Remove a finished message's content; returns the name of its body file, if it had one and is gone."""

    def work(connection: sqlite3.Connection) -> str | None:
        row = connection.execute(
            "DELETE FROM content WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1) RETURNING file", (number,)
        ).fetchone()
        return None if row is None else row[0]

    return work
