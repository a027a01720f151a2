"""The queue tools on a spool of which some records make no sense: whoever looks sees what there is, and one such record stops nobody's
work on the others (HARD-CASES row 14: torn or flipped records are detected, quarantined, counted, and never stop the start).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lettermta.spool import salvage

from .tool import Run


@pytest.fixture
def damage(ids: list[str], config: Path) -> Callable[[str, str], None]:
    """Overwrites something, by SQL, of the first message."""

    def damage(table: str, what: str) -> None:
        connection = sqlite3.connect(config.parent / "state" / "spool" / "0" / "spool.db")
        where = "id = ?" if table == "message" else "message = (SELECT number FROM message WHERE id = ?)"
        connection.execute(f"UPDATE {table} SET {what} WHERE {where}", (ids[0],))
        connection.commit()
        connection.close()

    return damage


Damage = Callable[[str, str], None]
UP = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
GARBAGE = pytest.mark.parametrize(
    ("table", "what"),
    [
        ("message", "metadata = '{broken'"),
        ("message", "options = 'garbage', facts = x'67', context = x'67'"),
        ("message", "sender = CAST(x'ff41' AS TEXT)"),
        ("recipient", "address = CAST(x'ff41' AS TEXT)"),
    ],
    ids=["metadata", "facts", "sender", "address"],
)


@UP
@GARBAGE
def test_a_damaged_message_is_found_and_shown_as_far_as_it_can_be_read(
    run: Run, ids: list[str], damage: Damage, daemon: Callable[..., Any], up: bool, table: str, what: str
) -> None:
    damage(table, what)
    if up:
        daemon()
    found = run("list", "--id", ids[0], "--json")
    assert (found.code, [row["id"] for row in found.rows]) == (os.EX_OK, [ids[0]] * 2)
    assert run("list", "--project", "demo", "--json").rows[0]["project"] == "demo"
    assert {row["tag"] for row in run("list", "--metadata", "k=2", "--json").rows} == {"blue"}
    shown = run("show", ids[0])
    assert shown.code == os.EX_OK, shown.err
    assert f"id         {ids[0]}" in shown.out
    assert "message.created" in shown.out
    assert run("show", ids[0], "--content").code == os.EX_OK


@UP
@GARBAGE
def test_a_damaged_message_does_not_stop_what_is_done_to_all(
    run: Run, ids: list[str], damage: Damage, daemon: Callable[..., Any], up: bool, table: str, what: str
) -> None:
    damage(table, what)
    if up:
        daemon()
    assert run("hold", "--all", "--yes").code == os.EX_OK
    assert {row["state"] for row in run("list", "--json").rows} == {"held"}
    released = run("release", "--all", "--yes")
    assert (released.code, released.err) == (os.EX_OK, "4 recipients released\n")
    assert run("remove", ids[0], "--yes").err == "2 recipients removed\n"
    told = run("events", "--id", ids[0], "--event", "canceled", "--json")
    assert (told.code, [row["data"]["message_id"] for row in told.rows]) == (os.EX_OK, [ids[0]] * 2)


@GARBAGE
def test_a_damaged_message_does_not_stop_the_others_from_being_bounced(
    run: Run, ids: list[str], damage: Damage, daemon: Callable[..., Any], table: str, what: str
) -> None:
    damage(table, what)
    daemon()
    ran = run("bounce", "--all", "--yes")
    assert ran.code == os.EX_OK, ran.err
    left = run("list", "--json").rows
    assert {row["id"] for row in left} <= {ids[0]}
    if left:
        assert "which are no longer like that, or whose records are damaged" in ran.err


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_row_whose_columns_are_of_other_kinds_is_named_and_the_others_are_listed(
    run: Run, monkeypatch: pytest.MonkeyPatch, ids: list[str], options: tuple[str, ...]
) -> None:
    """A flipped bit in the header of SQLite's record makes a number a text."""
    listed = salvage.recipients

    def flipped(*arguments: Any) -> list[dict[str, Any]]:
        return [{**row, "created": "\x00"} if row["number"] == 1 else dict(row) for row in listed(*arguments)]

    everything = len(run("list", "--json").rows)
    monkeypatch.setattr(salvage, "recipients", flipped)
    ran = run("list", *options)
    assert (ran.code, "recipient number 1 makes no sense" in ran.err) == (os.EX_DATAERR, True)
    assert len(ran.out.splitlines()) == everything - 1 + (not options)


@UP
def test_an_event_that_makes_no_sense_is_named_and_the_others_are_told(
    run: Run, ids: list[str], config: Path, daemon: Callable[..., Any], up: bool
) -> None:
    everything = len(run("events", "--json").rows)
    connection = sqlite3.connect(config.parent / "state" / "spool" / "0" / "spool.db")
    connection.execute("UPDATE event SET payload = CASE sequence WHEN 1 THEN x'7b' ELSE x'7b7d' END WHERE sequence <= 2")
    connection.commit()
    connection.close()
    if up:
        daemon()
    ran = run("events", "--json")
    assert (ran.code, len(ran.rows)) == (os.EX_DATAERR, everything - 2)
    assert f"a message.created of message {ids[0]}, makes no sense" in ran.err
    assert run("events", "--recipient", "d@example.com", "--json").code == os.EX_OK, "and what looks into each of them is answered"
    assert run("show", ids[0]).code == os.EX_OK
