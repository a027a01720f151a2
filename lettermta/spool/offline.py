"""A spool whose daemon is down: what there is to read, and what can be changed without one, in the same steps, each in a commit of its own.

Whoever changes something holds the spool's lock meanwhile: a daemon that is started then says that the spool is in use.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lettermta import event
from lettermta.database import transaction
from lettermta.event import Event
from lettermta.message import Change, HoldRule
from lettermta.spool import changes, daily, event_queries, figures, queries, salvage, suppression_rows
from lettermta.spool.checksum import check_body, check_file
from lettermta.spool.content import BodyFiles, make_directory
from lettermta.spool.damage import Damaged
from lettermta.spool.opening import open_database
from lettermta.spool.schema import STEPS, SpoolVersionError, connect
from lettermta.suppression import Scope, Suppression, SuppressionReason

PIECE = 65_536
"""Octets of a body file that are read at once."""


class SpoolTaken(Exception):
    """A daemon holds the spool's lock."""


class Offline:
    """The spool in ``directory``; raises SpoolVersionError when it is not of this program's version."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._reading = self._connect(writable=False)

    def _connect(self, *, writable: bool) -> sqlite3.Connection:
        path = self._directory / "spool.db"
        connection = connect(path, writable=writable)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != len(STEPS):
            raise SpoolVersionError(
                f"{path} has version {version}, this program reads version {len(STEPS)}: a start of its daemon brings it there"
            )
        return connection

    # -- reading

    def query(self, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[Mapping[str, Any]]:
        """See ISpool.query."""
        return salvage.recipients(self._reading, filters, after, limit)

    def message(self, identifier: str) -> Mapping[str, Any] | None:
        """See ISpool.message."""
        return salvage.message(self._reading, identifier)

    def content(self, identifier: str) -> Iterator[bytes]:
        """The content of a message in pieces, nothing where there is no such message. Raises LookupError when it is not what was stored."""
        row = self._reading.execute("SELECT number, size FROM message WHERE id = ?", (identifier,)).fetchone()
        if row is None:
            return
        number, size = row
        found = queries.content(self._reading, number)
        if found is None:
            raise Damaged(f"message {identifier} has no content in the spool")
        head, body, file, form, checksum = found
        if body is not None:
            check_body(head, body, form, checksum)
            yield from (head, b"\r\n", body)
            return
        if file is None:
            raise Damaged(f"message {identifier} has no body in the spool")
        path = BodyFiles(self._directory / "body").path(file)
        check_file(head, path, size - len(head) - 2, form, checksum)
        yield from (head, b"\r\n")
        with path.open("rb") as opened:
            while piece := opened.read(PIECE):
                yield piece

    def trace(self, identifier: str) -> Sequence[Mapping[str, Any]]:
        """See ISpool.trace."""
        return queries.trace(self._reading, identifier)

    def figures(self, by: str, filters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """See ISpool.figures."""
        return figures.figures(self._reading, by, filters)

    def daily(self, by: str, since: float, project: str | None) -> Sequence[Mapping[str, Any]]:
        """See ISpool.daily."""
        return daily.figures(self._reading, by, since, project)

    def find_events(self, filters: Mapping[str, Any], after: int, limit: int) -> Sequence[tuple[int, Event]]:
        """See ISpool.find_events."""
        return event_queries.find_events(self._reading, filters, after, limit)

    def count(self, change: Change, filters: Mapping[str, Any]) -> int:
        """See ISpool.count."""
        return changes.count(self._reading, change, filters)

    def hold_rules(self) -> Sequence[HoldRule]:
        """See ISpool.hold_rules."""
        return changes.hold_rules(self._reading)

    # -- changing

    def steps(self, change: Change, filters: Mapping[str, Any], limit: int) -> Iterator[int]:
        """Change what passes the filters, ``limit`` recipients a commit; after each one how many they were. Raises SpoolTaken."""
        files = BodyFiles(self._directory / "body")
        after = 0
        with self._writable() as connection:
            while numbers := changes.choose(connection, change, filters, after, limit):
                with transaction(connection):
                    applied = changes.apply(connection, change, numbers, _next_event(connection))
                for name in applied.files:
                    files.remove(name)
                yield applied.count
                after = numbers[-1]

    def add_hold_rule(self, conditions: Mapping[str, str], reason: str, moment: float) -> HoldRule:
        """Add a standing rule. Raises SpoolTaken, and ValueError when its conditions are none."""
        with self._writable() as connection, transaction(connection):
            rule = changes.new_hold_rule(changes.next_rule(connection), conditions, reason, moment)
            changes.add_hold_rule(connection, rule)
            return rule

    def drop_hold_rule(self, identifier: int) -> bool:
        """End a standing rule; False when there is none of that number. Raises SpoolTaken."""
        with self._writable() as connection, transaction(connection):
            return changes.drop_hold_rule(connection, identifier)

    # -- suppressions

    def suppressions(self, filters: Mapping[str, str], after: int, limit: int) -> Sequence[tuple[int, Suppression]]:
        """See ISuppressions.page."""
        return suppression_rows.page(self._reading, filters, after, limit)

    def suppress(self, suppressions: Sequence[Suppression], *, told: bool) -> Sequence[Suppression]:
        """See ISuppressions.add. Raises SpoolTaken."""
        with self._writable() as connection, transaction(connection):
            added = suppression_rows.add(connection, suppressions)
            if told and added:
                new = suppression_rows.events_of(event.SUPPRESSION_ADDED, added, added[0].created)
                suppression_rows.write_events(connection, new, _next_event(connection))
            return added

    def unsuppress(self, value: str, scope: Scope, reason: SuppressionReason | None, moment: float) -> Sequence[Suppression]:
        """See ISuppressions.remove. Raises SpoolTaken."""
        with self._writable() as connection, transaction(connection):
            removed = suppression_rows.remove(connection, value, scope, reason)
            new = suppression_rows.events_of(event.SUPPRESSION_REMOVED, removed, moment)
            suppression_rows.write_events(connection, new, _next_event(connection))
            return removed

    @contextmanager
    def _writable(self) -> Iterator[sqlite3.Connection]:
        with _locked(self._directory):
            connection = self._connect(writable=True)
            try:
                yield connection
            finally:
                connection.close()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    lock = os.open(directory / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolTaken("a daemon is starting or stopping, or another tool is at work: try again") from None
        yield
    finally:
        os.close(lock)


def make_spool(directory: Path) -> None:
    """Make an empty spool where there is none, for what is to be there before the first start of a daemon. Raises OSError, SpoolTaken."""
    make_directory(directory)
    with _locked(directory):
        files = BodyFiles(directory / "body")
        files.prepare()
        open_database(directory / "spool.db", files)


def _next_event(connection: sqlite3.Connection) -> int:
    number: int = connection.execute(
        "SELECT MAX(COALESCE((SELECT MAX(sequence) FROM event), 0), COALESCE((SELECT MAX(sequence) FROM cursor), 0)) + 1"
    ).fetchone()[0]
    return number
