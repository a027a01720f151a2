"""What the spool's writer runs, and the rows that it runs it with."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from lettermta.message import FINAL, WAITING, Message, Outcome, QueueEntry
from lettermta.spool.checksum import FORMAT, content_checksum
from lettermta.spool.options import encode_options

Rows = Sequence[tuple[Any, ...]]
Statements = Sequence[tuple[int, Rows]]
"""Rows by the number of their statement."""

_FINAL = ",".join(f"'{state}'" for state in sorted(FINAL))
_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))

(
    MESSAGE, CONTENT, RECIPIENT, HELD, UPDATE, ATTEMPT, FINISH_MESSAGE, FINISH_CONTENT, FINISH_RECIPIENTS, EVENT, CURSOR,
    FORGET_KEYS, KEY, QUARANTINE,
) = range(14)  # fmt: skip

STATEMENTS = (
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
"""In the order in which a transaction runs them."""


def waits_of(entry: QueueEntry, outcomes: Sequence[Outcome]) -> Sequence[tuple[Any, ...]]:
    """For each recipient that is through and was put off before: when, of whose mail, and how long that took since the first time."""
    begun = [outcome.recipient.first_deferred for outcome in outcomes if outcome.state in FINAL and outcome.recipient.first_deferred]
    if not begun or entry.options.report:
        return ()
    now = time.time()
    return [(now, entry.project, entry.facts, max(now - moment, 0.0)) for moment in begun]


def with_checksum(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """In the writer's thread: the row of a content, which came with the checksum of its body file if it has one."""
    number, head, body, file, file_checksum = row
    return number, head, body, file, FORMAT, content_checksum(head, file_checksum if body is None else zlib.crc32(body))


def message_row(number: int, message: Message) -> tuple[Any, ...]:
    """A new message's row."""
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


def key_rows(message: Message) -> list[tuple[int, Sequence[tuple[Any, ...]]]]:
    """What is written of a message's idempotency key, if it has one."""
    key = message.idempotency
    if key is None:
        return []
    return [
        (FORGET_KEYS, ((message.created,),)),
        (KEY, ((message.project_id, key.key, key.digest, message.id, key.expires),)),
    ]


def finish_content(number: int) -> Callable[[sqlite3.Connection], str | None]:
    """Remove a finished message's content; returns the name of its body file, if it had one and is gone."""

    def work(connection: sqlite3.Connection) -> str | None:
        row = connection.execute(
            "DELETE FROM content WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM message WHERE number = ?1) RETURNING file", (number,)
        ).fetchone()
        return None if row is None else row[0]

    return work
