"""What can go wrong with accounts. Each text is one sentence for the operator, and never holds a secret."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AccountError(Exception):
    """Something about the accounts that the operator has to know; the text says what, and what to do where that isn't plain."""


class NoSuchAccount(AccountError):
    """There is no project, route, token or domain of that name."""


class AccountExists(AccountError):
    """There is one of that name (or a token of that value) already."""


class InvalidAccount(AccountError):
    """A value breaks a rule, or a change would."""


class StorageUnusable(AccountError):
    """The database or its key file can't be used."""


class StorageDenied(StorageUnusable):
    """The operating system forbids it, or the permissions of a file are too wide."""


class StorageBusy(StorageUnusable):
    """Someone else held the database for too long; trying again helps."""


_DENIED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@contextmanager
def storage_faults(path: Path) -> Iterator[None]:
    """Turn the faults of SQLite and of the file system into :class:`StorageUnusable`, naming the database ``path``."""
    try:
        yield
    except sqlite3.Error as fault:
        # The low octet is the primary code, what is above it only refines it.
        code = getattr(fault, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            raise StorageBusy(f"{path} is in use by another process, try again: {fault}") from fault
        if code in _DENIED:
            raise StorageDenied(f"{path} can't be opened or written: {fault}") from fault
        raise StorageUnusable(f"{path} can't be used: {fault}") from fault
    except PermissionError as fault:
        raise StorageDenied(f"{fault.filename or path}: {fault.strerror}") from fault
    except OSError as fault:
        raise StorageUnusable(f"{fault.filename or path}: {fault.strerror}") from fault
