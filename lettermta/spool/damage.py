"""What is wrong with a stored record, and how a fault of the database is told from a fault of its data (HARD-CASES rows 14 and 26)."""

from __future__ import annotations

import enum
import sqlite3

from attrs import frozen

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_DISK = (
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_INTERRUPT,
)  # fmt: skip


class Damaged(LookupError):
    """A record is not what was stored; the text says what is wrong, and holds nothing of what the record says."""


class SpoolDamaged(Exception):
    """Nothing can be read from the spool's database; nothing was changed. The text tells the operator what can be done."""


class Fault(enum.Enum):
    """What a failed transaction says about the spool."""

    UNIT = "one unit can't be written"
    DAMAGE = "a page of the database is damaged: what touches it fails, everything else does not"
    SPACE = "the file system has no room"
    DISK = "the disk, or its sync, failed: what the connection believes to be written may not be there"


@frozen
class DamagedRecipient:
    """A recipient that can't be attempted, by its number in the spool."""

    number: int
    reason: str


def fault_of(error: BaseException) -> Fault:
    """The fault that made a transaction fail."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return Fault.SPACE
    if code in _DAMAGED:
        return Fault.DAMAGE
    return Fault.DISK if code in _DISK else Fault.UNIT


def is_damage(error: BaseException) -> bool:
    """Whether the database's own structure is damaged where the statement looked."""
    return primary_code(error) in _DAMAGED


def primary_code(error: BaseException) -> int | None:
    """SQLite's result code without its detail, or None where it was not SQLite that failed."""
    code = getattr(error, "sqlite_errorcode", None) if isinstance(error, sqlite3.Error) else None
    return None if code is None else code & 0xFF


def undecodable(error: BaseException) -> bool:
    """Whether a record could be read, and what it says makes no sense."""
    if isinstance(error, sqlite3.OperationalError):
        return "decode to UTF-8" in str(error)  # Python's own error: a text that is none
    return isinstance(error, ValueError | TypeError | KeyError | AttributeError)
