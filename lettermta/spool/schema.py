"""The spool's tables and their versions.

Opening takes the steps that are missing (:mod:`lettermta.database`). A spool of a version that this program does not know is refused: it
was written by a later release.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lettermta import database
from lettermta.message import WAITING
from lettermta.spool.shrinking import limit_log

_WAITING = ",".join(f"'{state}'" for state in sorted(WAITING))

_VERSION_1 = f"""
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL, project TEXT NOT NULL,
    route_id TEXT NOT NULL, route TEXT NOT NULL,
    sender TEXT NOT NULL,
    tag TEXT,
    metadata TEXT NOT NULL,
    size INTEGER NOT NULL,
    eight_bit INTEGER NOT NULL,
    created REAL NOT NULL,
    expires REAL NOT NULL,
    facts BLOB NOT NULL,
    context BLOB NOT NULL
) STRICT;
CREATE TABLE content (
    number INTEGER PRIMARY KEY,
    head BLOB NOT NULL,
    body BLOB,
    file TEXT
) STRICT;
CREATE TABLE recipient (
    number INTEGER PRIMARY KEY,
    message INTEGER NOT NULL,
    address TEXT NOT NULL,
    route_id TEXT NOT NULL,
    domain TEXT NOT NULL,
    state TEXT NOT NULL,
    due REAL NOT NULL,
    attempts INTEGER NOT NULL,
    handed_over INTEGER NOT NULL,
    reply TEXT NOT NULL
) STRICT;
CREATE INDEX recipient_message ON recipient (message);
CREATE INDEX recipient_lane ON recipient (route_id, domain, due) WHERE state IN ({_WAITING});
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    message_id TEXT NOT NULL,
    created REAL NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX event_message ON event (message_id);
CREATE TABLE cursor (sink TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT;
"""

_VERSION_2 = """
ALTER TABLE message ADD COLUMN options TEXT NOT NULL DEFAULT '';
UPDATE message SET options = '{"body":"8BITMIME"}' WHERE eight_bit;
ALTER TABLE message DROP COLUMN eight_bit;
ALTER TABLE recipient ADD COLUMN options TEXT NOT NULL DEFAULT '';
CREATE TABLE idempotency (
    project_id TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    message_id TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (project_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires);
"""

# Of what is there already nobody knows whether it is still what was stored: it is taken as it is (format 0). A start looks at the names
# of all body files: without an index it would have to step over the content of every message.
_VERSION_3 = """
ALTER TABLE content ADD COLUMN format INTEGER NOT NULL DEFAULT 0;
ALTER TABLE content ADD COLUMN checksum INTEGER;
CREATE INDEX content_file ON content (file) WHERE file IS NOT NULL;
"""

_VERSION_4 = """
ALTER TABLE recipient ADD COLUMN first_deferred REAL NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
"""
"""When a recipient was put off first, and whether its sender was told of the delay: once, also over a restart."""

# Both indexes of recipients cover what statistics ask for: a million rows are counted in a fraction of a second. A rule's number is on
# what it holds; attempts lie in the order of their messages' ids, which is that of time, so that new ones are written side by side.
_VERSION_5 = """
ALTER TABLE recipient ADD COLUMN tag TEXT;
ALTER TABLE recipient ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE recipient ADD COLUMN rule INTEGER;
UPDATE recipient SET tag = m.tag, priority = CASE WHEN json_valid(m.options) THEN
    CAST(COALESCE(json_extract(m.options, '$.priority'), 0) AS INTEGER) ELSE 0 END FROM message m WHERE m.number = recipient.message;
DROP INDEX recipient_lane;
CREATE INDEX recipient_lane ON recipient (route_id, domain, priority, due, state, tag) WHERE state IN ('deferred','queued','scheduled');
CREATE INDEX recipient_kept ON recipient (route_id, domain, priority, due, state, tag) WHERE state IN ('held','quarantined');
CREATE INDEX recipient_rule ON recipient (rule) WHERE rule IS NOT NULL;
CREATE TABLE hold_rule (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conditions TEXT NOT NULL,
    reason TEXT NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE TABLE attempt (
    message_id TEXT NOT NULL,
    recipient INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    address TEXT NOT NULL,
    at REAL NOT NULL,
    seconds REAL NOT NULL,
    via TEXT NOT NULL,
    state TEXT NOT NULL,
    reply TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (message_id, recipient, attempt)
) STRICT, WITHOUT ROWID;
"""

# Whom nothing is sent to, beside the outbox, so that a change and its event are in one commit. One row for each reason; the scope is a
# number, as the index of a million rows is some 40 MB with it and twice that with the ids in their place.
_VERSION_6 = """
CREATE TABLE suppression_scope (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    project_id TEXT, project TEXT,
    route_id TEXT, route TEXT
) STRICT;
CREATE TABLE suppression (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    value TEXT NOT NULL,
    scope INTEGER NOT NULL,
    reason TEXT NOT NULL,
    applies_to TEXT NOT NULL,
    created REAL NOT NULL,
    message_id TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX suppression_value ON suppression (value, scope, reason);
"""

# Figures of the mail by tag, as rows of day (since the epoch) and measure: a new measure needs no new column.
_VERSION_7 = """
CREATE TABLE daily (
    day INTEGER NOT NULL,
    project TEXT NOT NULL,
    tag TEXT NOT NULL,
    measure TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (day, project, tag, measure)
) STRICT, WITHOUT ROWID;
"""

STEPS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7)
"""Step ``n`` leads from version ``n`` to ``n + 1``. A step that has been released is never changed."""


DatabaseFault = sqlite3.Error
"""What reading or writing the spool's database may raise, for those who know no SQL."""


class SpoolVersionError(Exception):
    """The spool is of a version that this program can't use."""


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """Open the database; the caller uses the connection in one thread. Commits are synced (DESIGN.md section 5.1)."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    if writable:
        # Page size and auto_vacuum hold only when they are set before the first table is made.
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        limit_log(connection)
    else:
        connection.execute("PRAGMA query_only = ON")
    connection.create_function("casefold", 1, _casefold, deterministic=True)
    return connection


def _casefold(text: object) -> str | None:
    return None if text is None else str(text).casefold()


def migrate(connection: sqlite3.Connection, steps: tuple[str, ...] = STEPS) -> None:
    """Bring the database to the newest version; raises SpoolVersionError when it is beyond it already."""
    try:
        if database.version_of(connection, len(steps)) < len(steps):
            database.migrate(connection, list(map(database.statements, steps)))
    except database.NewerDatabase as fault:
        raise SpoolVersionError(
            f"the spool has version {fault.version}, this program knows versions up to {len(steps)}: use the later release"
        ) from None
