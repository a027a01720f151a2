"""What webhooks are still to be told, and what came of telling them: a database of its own, beside the spool.

Promise: what :meth:`Deliveries.sync` has confirmed is on the disk. What came behind the last sync outlives the process, but maybe not the
machine: the events' reader tells it again then, and a delivery that is on record twice is kept once. An outcome that a crash of the machine
takes away means that the event is told to its webhook once more. One process sends from a database, which a lock makes sure of; tools read
it and add to it at the same time.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from lettermta.database import NewerDatabase, alone, migrate, statements, transaction, version_of
from lettermta.interfaces import IDeliveries
from lettermta.spool.content import sync_directory
from lettermta.spool.reader import Reader
from lettermta.webhook import Attempted, Delivery, DeliveryStatus, NewDelivery

DATABASE = "deliveries.db"
TRIM_ROWS = 5_000
"""Records that are looked at in one step of forgetting."""

_FIRST = """
CREATE TABLE delivery (
    number INTEGER PRIMARY KEY,
    webhook TEXT NOT NULL,
    event_id TEXT NOT NULL,
    round INTEGER NOT NULL,
    event TEXT NOT NULL,
    message_id TEXT NOT NULL,
    queued REAL NOT NULL,
    payload BLOB,
    status TEXT NOT NULL DEFAULT 'pending',
    attempt INTEGER NOT NULL DEFAULT 0,
    due REAL,
    attempted REAL,
    http_status INTEGER,
    seconds REAL,
    response TEXT NOT NULL DEFAULT '',
    problem TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX delivery_once ON delivery (event_id, webhook, round);
CREATE INDEX delivery_due ON delivery (webhook, due, number) WHERE due IS NOT NULL;
CREATE INDEX delivery_webhook ON delivery (webhook, number);
CREATE TABLE soft_bounce (
    message_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    event_id TEXT NOT NULL,
    noted REAL NOT NULL,
    PRIMARY KEY (message_id, recipient)
) STRICT, WITHOUT ROWID;
CREATE TABLE synced (at REAL NOT NULL) STRICT;
INSERT INTO synced VALUES (0);
"""

STEPS: tuple[str, ...] = (_FIRST,)
"""Step ``n`` leads from version ``n`` to ``n + 1``. A step that has been released is never changed."""

_ADD = (
    "INSERT INTO delivery (webhook, event_id, round, event, message_id, queued, payload, due) VALUES (?,?,?,?,?,?,?,?)"
    " ON CONFLICT (event_id, webhook, round) DO NOTHING"
)
_RECORD = (
    "UPDATE delivery SET status = ?, attempt = ?, due = ?, attempted = ?, http_status = ?, seconds = ?, response = ?, problem = ?,"
    " payload = CASE WHEN ? IS NULL THEN NULL ELSE payload END WHERE number = ?"
)

RECORD_FIELDS = (
    "number", "webhook_id", "event_id", "event", "message_id", "replay", "queued", "status", "attempt", "due", "attempted", "http_status",
    "seconds", "response", "problem",
)  # fmt: skip
_RECORDS = (
    "SELECT number, webhook, event_id, event, message_id, round, queued, status, attempt, due, attempted, http_status, seconds, response,"
    " problem FROM delivery"
)


class DeliveriesInUse(Exception):
    """Another process sends from this database."""


class DeliveriesVersionError(Exception):
    """The database is of a version that this program can't use."""


def directory_of(state_dir: Path, shard: int = 0) -> Path:
    """Where a worker's database is."""
    return state_dir / "webhooks" / str(shard)


def connect(directory: Path) -> sqlite3.Connection:
    """Open the database in ``directory``, making both where they aren't there. The caller uses the connection in one thread at a time."""
    if not directory.exists():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)
    path = directory / DATABASE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    try:
        if version_of(connection, len(STEPS)) < len(STEPS):
            with alone(directory):
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
                migrate(connection, list(map(statements, STEPS)))
        connection.execute("PRAGMA synchronous = NORMAL")
    except NewerDatabase as fault:
        connection.close()
        raise DeliveriesVersionError(f"{path} has version {fault.version}, this program knows versions up to {len(STEPS)}") from None
    except BaseException:
        connection.close()
        raise
    return connection


# -- what is asked of a connection


def _transaction(connection: sqlite3.Connection, work: Callable[..., Any], *arguments: Any) -> Any:
    with transaction(connection):
        return work(connection, *arguments)


def add(connection: sqlite3.Connection, new: Sequence[NewDelivery], now: float) -> None:
    """Have events told to their webhooks; those that are on record already stay as they are."""

    def work(connection: sqlite3.Connection) -> None:
        wanted = [one for one in new if one.first_of is None or _is_first(connection, one, now)]
        rows = [(one.webhook_id, one.event_id, 0, one.event, one.message_id, now, one.payload, now) for one in wanted]
        connection.executemany(_ADD, rows)

    _transaction(connection, work)


def add_again(connection: sqlite3.Connection, new: Sequence[NewDelivery], now: float) -> None:
    """Have events told once more, each as a delivery of its own."""

    def work(connection: sqlite3.Connection) -> None:
        for one in new:
            query = "SELECT COALESCE(MAX(round) + 1, 0) FROM delivery WHERE event_id = ? AND webhook = ?"
            number = connection.execute(query, (one.event_id, one.webhook_id)).fetchone()[0]
            connection.execute(_ADD, (one.webhook_id, one.event_id, number, one.event, one.message_id, now, one.payload, now))

    _transaction(connection, work)


def _is_first(connection: sqlite3.Connection, one: NewDelivery, now: float) -> bool:
    """Whether no other soft bounce of this recipient was noted before; the answer stays the same when it is asked again."""
    key = (one.message_id, one.first_of)
    connection.execute("INSERT INTO soft_bounce VALUES (?,?,?,?) ON CONFLICT DO NOTHING", (*key, one.event_id, now))
    found = connection.execute("SELECT event_id FROM soft_bounce WHERE message_id = ? AND recipient = ?", key).fetchone()
    return bool(found[0] == one.event_id)


def record(connection: sqlite3.Connection, attempted: Sequence[Attempted]) -> None:
    """Note what came of attempts; a delivery that is over needs its payload no more."""
    rows = [
        (
            one.answer.status.value,
            one.attempt,
            one.due,
            one.at,
            one.answer.http_status,
            one.answer.seconds,
            one.answer.response,
            one.answer.problem,
            one.due,
            one.number,
        )
        for one in attempted
    ]
    _transaction(connection, lambda connection: connection.executemany(_RECORD, rows))


def due(connection: sqlite3.Connection, webhook_id: str, now: float, limit: int) -> tuple[Sequence[Delivery], float | None]:
    """The webhook's deliveries that are due, at most ``limit``, earliest first; and when the first of the others is due."""
    rows = connection.execute(
        "SELECT number, webhook, event_id, event, message_id, payload, attempt, due FROM delivery"
        " WHERE webhook = ? AND due IS NOT NULL ORDER BY due, number LIMIT ?",
        (webhook_id, limit + 1),
    ).fetchall()
    ready = [row for row in rows if row[7] <= now][:limit]
    later = rows[len(ready)][7] if len(rows) > len(ready) else None
    return [_delivery(row) for row in ready], later


def _delivery(row: tuple[Any, ...]) -> Delivery:
    number, webhook_id, event_id, event, message_id, payload, attempts, _ = row
    return Delivery(number, webhook_id, event_id, event, message_id, payload, attempts + 1)


def waiting(connection: sqlite3.Connection) -> Mapping[str, tuple[int, float]]:
    """Of each webhook with deliveries that are not over: how many there are, and since when the first one waits."""
    # The inner one reads the index alone, some 50 ms for a million.
    rows = connection.execute(
        "SELECT webhook, waiting, (SELECT queued FROM delivery WHERE number = first) FROM"
        " (SELECT webhook, COUNT(*) AS waiting, MIN(number) AS first FROM delivery WHERE due IS NOT NULL GROUP BY webhook)"
    )
    return {webhook_id: (count, oldest) for webhook_id, count, oldest in rows}


def records(
    connection: sqlite3.Connection, webhook_id: str, limit: int, *, status: str | None = None, event_id: str | None = None, after: int = 0
) -> Sequence[Mapping[str, Any]]:
    """A webhook's records as :data:`RECORD_FIELDS`, the newest first; those behind number ``after`` only."""
    query, values = f"{_RECORDS} WHERE webhook = ? AND number > ?", [webhook_id, after]
    for column, value in (("status", status), ("event_id", event_id)):
        if value is not None:
            query += f" AND {column} = ?"
            values.append(value)
    rows = connection.execute(f"{query} ORDER BY number DESC LIMIT ?", (*values, limit))
    return [dict(zip(RECORD_FIELDS, row, strict=True)) for row in rows]


def _sync(connection: sqlite3.Connection) -> None:
    # A commit at FULL syncs the whole write-ahead log, and with it all commits before it.
    connection.execute("PRAGMA synchronous = FULL")
    try:
        _transaction(connection, lambda connection: connection.execute("UPDATE synced SET at = ?", (time.time(),)))
    finally:
        connection.execute("PRAGMA synchronous = NORMAL")


def _expire(connection: sqlite3.Connection, webhook_id: str, before: float, problem: str) -> int:
    """One step of giving up, from what is due earliest on: it has waited longest, or waits for an attempt that never comes."""

    def work(connection: sqlite3.Connection) -> int:
        statement = (
            "UPDATE delivery SET status = CASE status WHEN ? THEN ? ELSE status END, due = NULL, payload = NULL, problem = ?,"
            " attempted = COALESCE(attempted, queued) WHERE number IN (SELECT number FROM (SELECT number, queued FROM delivery"
            " WHERE webhook = ? AND due IS NOT NULL ORDER BY due, number LIMIT ?) WHERE queued < ?)"
        )
        values = (DeliveryStatus.PENDING.value, DeliveryStatus.FAILED.value, problem, webhook_id, TRIM_ROWS, before)
        return connection.execute(statement, values).rowcount

    count: int = _transaction(connection, work)
    return count


_WEBHOOKS = (
    "WITH RECURSIVE known (id) AS (SELECT MIN(webhook) FROM delivery"
    " UNION ALL SELECT (SELECT MIN(webhook) FROM delivery WHERE webhook > known.id) FROM known WHERE known.id IS NOT NULL)"
    " SELECT id FROM known WHERE id IS NOT NULL"
)
"""The webhooks that have records: a step in the index for each of them, however many records there are."""


def _forget(connection: sqlite3.Connection, before: float, webhook_ids: Sequence[str]) -> int:
    """One step of forgetting: of what is over and old, from the oldest record on, and of what belongs to no webhook any more."""

    def work(connection: sqlite3.Connection) -> int:
        connection.execute("DELETE FROM soft_bounce WHERE noted < ?", (before,))
        old = (
            "DELETE FROM delivery WHERE number IN (SELECT number FROM (SELECT number, due, attempted FROM delivery ORDER BY number LIMIT ?)"
            " WHERE due IS NULL AND attempted < ?)"
        )
        count = connection.execute(old, (TRIM_ROWS, before)).rowcount
        gone = {webhook_id for (webhook_id,) in connection.execute(_WEBHOOKS)} - set(webhook_ids)
        for webhook_id in gone:
            statement = "DELETE FROM delivery WHERE number IN (SELECT number FROM delivery WHERE webhook = ? LIMIT ?)"
            count += connection.execute(statement, (webhook_id, max(TRIM_ROWS - count, 0))).rowcount
        return count

    count: int = _transaction(connection, work)
    connection.execute("PRAGMA incremental_vacuum(1000)").fetchall()
    return count


def _changed_by_others(connection: sqlite3.Connection, seen: list[int]) -> bool:
    version = connection.execute("PRAGMA data_version").fetchone()[0]
    changed = seen != [version]  # and so at the first time, as nobody knows what came before
    seen[:] = [version]
    return changed


@implementer(IDeliveries)
class Deliveries:
    """The database of the process that sends, in a thread of its own."""

    def __init__(self, directory: Path, to_reactor: Callable[..., object]) -> None:
        self._directory = directory
        self._thread = Reader(directory / DATABASE, to_reactor, lambda _: connect(directory))
        self._seen: list[int] = []
        self._lock = -1

    def open(self) -> None:
        """Take the lock and start; blocks. Raises DeliveriesInUse, DeliveriesVersionError, OSError or sqlite3.Error."""
        connect(self._directory).close()
        self._lock = take_lock(self._directory)
        self._thread.start()

    def add(self, new: Sequence[NewDelivery], now: float) -> Deferred[None]:
        """See IDeliveries."""
        return self._thread.ask(add, new, now)

    def sync(self) -> Deferred[None]:
        """See IDeliveries."""
        return self._thread.ask(_sync)

    def record(self, attempted: Sequence[Attempted]) -> Deferred[None]:
        """See IDeliveries."""
        return self._thread.ask(record, attempted)

    def due(self, webhook_id: str, now: float, limit: int) -> Deferred[tuple[Sequence[Delivery], float | None]]:
        """See IDeliveries."""
        return self._thread.ask(due, webhook_id, now, limit)

    def waiting(self) -> Deferred[Mapping[str, tuple[int, float]]]:
        """See IDeliveries."""
        return self._thread.ask(waiting)

    def changed_by_others(self) -> Deferred[bool]:
        """See IDeliveries."""
        return self._thread.ask(_changed_by_others, self._seen)

    def expire(self, webhook_id: str, before: float, problem: str) -> Deferred[int]:
        """See IDeliveries."""
        return self._thread.ask(_expire, webhook_id, before, problem)

    def forget(self, before: float, webhook_ids: Sequence[str]) -> Deferred[int]:
        """See IDeliveries."""
        return self._thread.ask(_forget, before, webhook_ids)

    def close(self) -> Deferred[None]:
        """See IDeliveries."""
        return self._thread.close().addCallback(lambda _: os.close(self._lock))


def take_lock(directory: Path) -> int:
    """Take the lock of who sends from the database; the descriptor keeps it. Raises DeliveriesInUse."""
    lock = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DeliveriesInUse(f"{directory} is in use by another process") from None
    return lock
