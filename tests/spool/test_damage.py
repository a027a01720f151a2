"""Torn and flipped records: found before they are sent, put into quarantine, never forgotten, in nobody's way (HARD-CASES row 14)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twisted.logger import capturedLogs

from lettermta import metrics
from lettermta.message import Lane, State
from lettermta.spool.damage import Damaged, SpoolDamaged
from lettermta.spool.verify import ORPHAN_AGE, Finding, Kind, findings

from .hand import NOW, SMALL, Desk, large

PAGE = 8192


@contextmanager
def opened(directory: Path) -> Iterator[sqlite3.Connection]:
    """The database of a spool that is closed, to do harm to."""
    connection = sqlite3.connect(directory / "spool.db")
    yield connection
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def harmed(desk: Desk, *statements: str) -> Desk:
    """The spool, opened again behind statements that no release would run."""
    desk.close()
    with opened(desk.directory) as connection:
        for statement in statements:
            connection.execute(statement)
    return Desk(desk.directory)


def quarantined() -> float:
    return metrics.SPOOL_QUARANTINED._value.get()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x04
    path.write_bytes(data)


# -- content


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE content SET body = CAST('A bodx.' || x'0d0a' AS BLOB)",
        "UPDATE content SET head = CAST('Subject: Hallo' || x'0d0a' AS BLOB)",
        "UPDATE content SET checksum = checksum + 1",
        "UPDATE content SET checksum = NULL",
        "UPDATE content SET format = 7",
        "UPDATE content SET body = NULL",
        "DELETE FROM content",
    ],
)
def test_content_that_is_not_what_was_stored_is_never_sent(desk: Desk, statement: str) -> None:
    desk.store("a@example.com")
    again = harmed(desk, statement)
    try:
        [entry] = again.due()
        with pytest.raises(Damaged):
            again.content(entry)
        again.record(entry, State.QUARANTINED, reply="damaged", handed_over=False)
        [row] = again.rows({"state": "quarantined"})
        assert (row["recipient"], row["last_reply"]) == ("a@example.com", "damaged")
    finally:
        again.close()


@pytest.mark.parametrize(
    "harm", [lambda path: flip(path, 5), lambda path: flip(path, 299_000), lambda path: os.truncate(path, 9), os.remove]
)
def test_a_body_file_that_is_not_what_was_stored_is_never_sent(desk: Desk, harm: Callable[[Path], None]) -> None:
    desk.store("a@example.com", data=large())
    [name] = desk.bodies()
    harm(desk.directory / "body" / name[-2:] / name)
    [entry] = desk.due()
    with pytest.raises(Damaged):
        desk.content(entry)


def test_content_from_before_checksums_is_taken_as_it_is(desk: Desk) -> None:
    desk.store("a@example.com")
    desk.store("b@example.com", data=large())
    again = harmed(desk, "UPDATE content SET format = 0, checksum = NULL")
    try:
        assert [again.content(entry) for entry in again.due()] == [SMALL, large()]
    finally:
        again.close()


# -- rows


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE message SET options = '{\"body\":' WHERE number = 2",
        'UPDATE message SET options = \'{"body":"9BIT"}\' WHERE number = 2',
        "UPDATE message SET facts = x'7b22' WHERE number = 2",
        "UPDATE message SET sender = CAST(x'ff41' AS TEXT) WHERE number = 2",
        "UPDATE recipient SET options = '[' WHERE number = 2",
        "UPDATE recipient SET address = CAST(x'e9' AS TEXT) WHERE number = 2",
        "UPDATE recipient SET state = 'quexed' WHERE number = 2",
    ],
)
def test_a_row_that_makes_no_sense_is_put_into_quarantine_and_the_others_go_out(desk: Desk, statement: str) -> None:
    for number in range(3):
        desk.store(f"u{number}@example.com", created=NOW + number)
    before = quarantined()
    with capturedLogs() as logged:
        again = harmed(desk, statement)
        try:
            sound = again.due(now=NOW + 60, limit=2)
            assert [entry.recipients[0].address for entry in sound] == ["u0@example.com", "u2@example.com"]
            while not quarantined() - before:
                again.reactor.turn_once()
            assert quarantined() == before + 1
            assert again.due(now=NOW + 60) == sound, "it is out of the way"
        finally:
            again.close()
    assert [event["number"] for event in logged if "into quarantine" in event["log_format"]] == [2]
    with opened(desk.directory) as connection:
        connection.text_factory = bytes
        [(state, reply)] = connection.execute("SELECT state, reply FROM recipient WHERE number = 2")
    assert state == b"quarantined"
    assert reply.startswith((b"its record makes no sense", b"its record can't be read", b"its state is unknown"))


def test_a_recipient_without_its_message_is_put_into_quarantine(desk: Desk) -> None:
    desk.store("a@example.com")
    desk.store("b@example.com")
    again = harmed(desk, "DELETE FROM message WHERE number = 1", "UPDATE message SET options = '{' WHERE number = 2")
    try:
        assert again.due() == []
    finally:
        again.close()
    with opened(desk.directory) as connection:
        states = connection.execute("SELECT state FROM recipient").fetchall()
    assert ("quarantined",) in states


# -- pages


def with_harmed_page(desk: Desk, name: str, which: int) -> None:
    """Overwrite one page of a table or index in the closed spool's database; pages are told by what they hold."""
    desk.close()
    path = desk.directory / "spool.db"
    with opened(desk.directory):
        pass
    data = bytearray(path.read_bytes())
    marks = {"message": b'{"message_id":', "recipient": b"@example.com", "event": b"message.created", "lane": b"example.com"}
    found = [
        start
        for start in range(PAGE, len(data), PAGE)
        if data[start] == (0x0A if name == "lane" else 0x0D) and data[start : start + PAGE].count(marks[name]) > 3
        and (name != "recipient" or b'{"' not in data[start : start + PAGE])
    ]  # fmt: skip
    start = found[which]
    data[start : start + PAGE] = bytes(PAGE)
    path.write_bytes(data)


def filled(desk: Desk, count: int = 400) -> None:
    waiting = [desk.storing(desk.message(f"u{number}@example.com", created=NOW + number)) for number in range(count)]
    for stored in waiting:
        desk.reactor.wait(stored)


@pytest.mark.parametrize("table", ["message", "recipient", "lane", "event"])
def test_a_damaged_page_stops_neither_the_start_nor_what_can_be_read(desk: Desk, table: str) -> None:
    filled(desk)
    with_harmed_page(desk, table, 1)
    again = Desk(desk.directory)
    try:
        assert Lane("r1", "example.com") in dict(again.reactor.wait(again.spool.lanes()))
        entries = again.due(now=NOW + 1000, limit=1000)
        assert len(entries) > 200
        assert again.content(entries[0]) == SMALL
        told = again.events(limit=1000)
        assert len(told) == 400 if table != "event" else 200 < len(told) < 400
        assert told[-1][0] == 400, "what is behind the damage too"
        again.store("new@example.com", created=NOW)
        if table != "message":
            assert len(entries) == 400 or again.spool.damage(), "what is left out is told"
        else:
            lost = again.rows({"state": "quarantined"})
            assert len(entries) + len(lost) == 400
            assert {row["last_reply"][:23] for row in lost} == {"its record can't be rea"}
    finally:
        again.close()
    assert any(finding.kind is Kind.STRUCTURE for finding in findings(desk.directory))


def test_a_database_of_which_nothing_can_be_read_is_refused_and_left_alone(desk: Desk) -> None:
    """A new one would have the body files removed as orphans: the mail that could still be saved."""
    desk.store("a@example.com", data=large())
    desk.close()
    with opened(desk.directory):
        pass  # nothing is left in the WAL, from which the first pages could be had
    path = desk.directory / "spool.db"
    path.write_bytes(b"this is no database, and long enough to be looked at" * 200)
    before = path.read_bytes()
    with pytest.raises(SpoolDamaged, match="Restore it from a copy, or move the whole directory"):
        Desk(desk.directory)
    assert path.read_bytes() == before
    assert len(desk.bodies()) == 1


# -- the look at all of it


def found(directory: Path) -> list[Finding]:
    return list(findings(directory))


def test_a_sound_spool_has_no_findings_while_it_is_in_use(desk: Desk) -> None:
    desk.store("a@example.com", "b@other.example")
    desk.store("c@example.com", data=large())
    desk.record(desk.entries[0], State.DELIVERED)
    assert found(desk.directory) == []


def test_every_kind_of_damage_is_found(desk: Desk) -> None:
    messages = [desk.store(f"u{number}@example.com", data=large() if number == 6 else SMALL) for number in range(8)]
    [name] = desk.bodies()
    flip(desk.directory / "body" / name[-2:] / name, 17)
    orphan = desk.directory / "body" / "ab" / "0190-ab"
    desk.close()
    with opened(desk.directory) as connection:
        for statement in (
            "UPDATE content SET body = x'00' WHERE number = 1",
            "DELETE FROM content WHERE number = 2",
            "UPDATE message SET metadata = '{' WHERE number = 3",
            "UPDATE recipient SET state = 'odd' WHERE number = 4",
            "UPDATE event SET payload = x'7b' WHERE sequence = 5",
            "UPDATE recipient SET options = '{' WHERE number = 6",
            "DELETE FROM message WHERE number = 8",
        ):
            connection.execute(statement)
    for path in (orphan, orphan.with_name("young-ab")):
        path.write_bytes(b"x")
    os.utime(orphan, (0, time.time() - ORPHAN_AGE - 1))
    ids = [message.id for message in messages]
    assert {(one.kind, one.where, one.id) for one in found(desk.directory)} == {
        (Kind.CONTENT, "content 1", ids[0]),
        (Kind.CONTENT, "message 2", ids[1]),
        (Kind.MESSAGE, "message 3", ids[2]),
        (Kind.RECIPIENT, "recipient 4", ids[3]),
        (Kind.EVENT, "event 5", ids[4]),
        (Kind.RECIPIENT, "recipient 6", ids[5]),
        (Kind.CONTENT, "content 7", ids[6]),
        (Kind.ORPHAN, "content 8", None),
        (Kind.RECIPIENT, "recipient 8", None),
        (Kind.ORPHAN, "body file 0190-ab", None),
    }
