"""The accounts' database: where it lies, its schema, and how an older one is brought up to date.

Opening it takes those of :data:`STEPS` that are missing (:mod:`lettermta.database`). A step that was released is never changed again.
Concurrent openings are safe: the first does the work, the others wait for it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lettermta import database
from lettermta.accounts.errors import StorageUnusable, storage_faults
from lettermta.accounts.vault import Vault, load_key, make_key, sync_directory

DATABASE = "accounts.db"
KEY_FILE = "accounts.key"

_FIRST = (
    # The fingerprint of the key that everything in here is sealed under: another key file is told at once, not at the first login.
    "CREATE TABLE seal (fingerprint BLOB NOT NULL)",
    """CREATE TABLE project (
        id TEXT NOT NULL PRIMARY KEY, slug TEXT NOT NULL UNIQUE, smtp INTEGER NOT NULL,
        message_size INTEGER, recipients INTEGER, created REAL NOT NULL)""",
    """CREATE TABLE route (
        id TEXT NOT NULL PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project ON DELETE CASCADE, slug TEXT NOT NULL,
        kind TEXT NOT NULL, transport TEXT NOT NULL,
        smarthost_host TEXT, smarthost_port INTEGER, smarthost_tls TEXT, smarthost_username TEXT, smarthost_password BLOB,
        is_default INTEGER NOT NULL, created REAL NOT NULL, UNIQUE (project_id, slug))""",
    "CREATE UNIQUE INDEX route_default ON route (project_id) WHERE is_default",
    """CREATE TABLE token (
        id TEXT NOT NULL PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project ON DELETE CASCADE, name TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE, secret BLOB, hint TEXT, created REAL NOT NULL, revoked REAL)""",
    "CREATE INDEX token_project ON token (project_id)",
)

_SECOND = (
    "ALTER TABLE project ADD COLUMN check_sender INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE route ADD COLUMN received TEXT NOT NULL DEFAULT 'full'",
    "ALTER TABLE route ADD COLUMN mint_message_id INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE domain (
        id TEXT NOT NULL PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project ON DELETE CASCADE, name TEXT NOT NULL,
        created REAL NOT NULL, UNIQUE (project_id, name))""",
)

_THIRD = (
    # A schedule is its delays in seconds, with blanks between them.
    "ALTER TABLE route ADD COLUMN schedule TEXT",
    "ALTER TABLE route ADD COLUMN lifetime REAL",
)

_FOURTH = (
    "ALTER TABLE project ADD COLUMN alignment TEXT NOT NULL DEFAULT 'relaxed'",
    "ALTER TABLE domain ADD COLUMN return_path_verified REAL",
    "ALTER TABLE domain ADD COLUMN dmarc_verified REAL",
    "ALTER TABLE domain ADD COLUMN spf_verified REAL",
    # A domain from before has no keys until a tool shows it: making them takes a part of a second each.
    """CREATE TABLE dkim_key (
        id TEXT NOT NULL PRIMARY KEY, domain_id TEXT NOT NULL REFERENCES domain ON DELETE CASCADE, selector TEXT NOT NULL,
        algorithm TEXT NOT NULL, state TEXT NOT NULL, public TEXT NOT NULL, private BLOB,
        created REAL NOT NULL, verified REAL, retired REAL, UNIQUE (domain_id, selector))""",
)

_FIFTH = (
    # Names of events with blanks between them. The secrets are sealed.
    """CREATE TABLE webhook (
        id TEXT NOT NULL PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project ON DELETE CASCADE,
        route_id TEXT REFERENCES route ON DELETE CASCADE, url TEXT NOT NULL, events TEXT, username TEXT, password BLOB,
        first_soft_bounce_only INTEGER NOT NULL, secret BLOB NOT NULL, former_secret BLOB, former_until REAL NOT NULL,
        disabled REAL, disabled_reason TEXT NOT NULL, created REAL NOT NULL)""",
    "CREATE INDEX webhook_project ON webhook (project_id)",
    "CREATE INDEX webhook_route ON webhook (route_id)",
)

_SIXTH = ("ALTER TABLE domain ADD COLUMN return_path TEXT NOT NULL DEFAULT 'auto'",)

_SEVENTH = ("ALTER TABLE route ADD COLUMN tls TEXT",)

_EIGHTH = ("ALTER TABLE route ADD COLUMN pool TEXT",)

STEPS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH, _SIXTH, _SEVENTH, _EIGHTH)
"""The statements that lead from each version to the next one."""

VERSION = len(STEPS)


def open_database(state_dir: Path) -> tuple[sqlite3.Connection, Vault]:
    """Open the accounts' database in ``state_dir``, making it and its key file where there is none.

    The connection commits durably (synchronous=FULL), waits up to ten seconds for another writer, and begins no transaction by itself.
    Raises StorageUnusable.
    """
    path = state_dir / DATABASE
    with storage_faults(path):
        _make_file(path)
        connection = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            # A database that was restored from a dump is up to date, but not in WAL.
            if version_of(connection) != VERSION or connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                _bring_up(connection, state_dir)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            return connection, _vault(connection, state_dir)
        except BaseException:
            connection.close()
            raise


def version_of(connection: sqlite3.Connection) -> int:
    """How many steps the database has had; raises StorageUnusable when they are more than we know."""
    with _none_newer():
        return database.version_of(connection, VERSION)


@contextmanager
def _none_newer() -> Iterator[None]:
    try:
        yield
    except database.NewerDatabase as fault:
        raise StorageUnusable(
            f"{DATABASE} has version {fault.version} and was written by a later lettermta; this one knows versions up to {VERSION}: "
            "install the later one, or restore a backup from before the upgrade"
        ) from None


def _make_file(path: Path) -> None:
    """Make an empty database file that only its owner can read; SQLite gives its -wal and -shm the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    sync_directory(path.parent)


def _bring_up(connection: sqlite3.Connection, state_dir: Path) -> None:
    def seal() -> None:
        """Before the first commit: a database that was ever written has its key."""
        fingerprint = Vault(make_key(state_dir / KEY_FILE)).fingerprint
        connection.execute("INSERT INTO seal (fingerprint) VALUES (?)", (fingerprint,))

    with database.alone(state_dir), _none_newer():
        connection.execute("PRAGMA journal_mode = WAL")
        database.migrate(connection, STEPS, seal)


def _vault(connection: sqlite3.Connection, state_dir: Path) -> Vault:
    path = state_dir / KEY_FILE
    try:
        vault = Vault(load_key(path))
    except FileNotFoundError as fault:
        raise StorageUnusable(
            f"the key file {path} is missing, and {DATABASE} is of no use without it: restore it from a backup"
        ) from fault
    if connection.execute("SELECT fingerprint FROM seal").fetchone() != (vault.fingerprint,):
        raise StorageUnusable(f"the key file {path} is not the one that {DATABASE} was made with: restore the two from the same backup")
    return vault
