"""Versions: what each release wrote opens for ever, what a later one wrote is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lettermta.message import BodyType, Lane, State
from lettermta.spool.schema import STEPS, SpoolVersionError, connect, migrate
from lettermta.spool.store import Spool
from lettermta.spool.verify import findings

from .hand import NOW, SMALL, Desk, HandReactor
from .keep_version import ANN, FIRST, OPTIONS, SECOND

HERE = Path(__file__).parent
BODY = "01a1fd6c-4e43-73f1-ba71-c3f9be1a2566"


def written(directory: Path, version: int) -> None:
    """A spool as that version of the schema left it."""
    (directory / "body" / BODY[-2:]).mkdir(parents=True)
    (directory / "body" / BODY[-2:] / BODY).write_bytes(b"caf\xe9\r\n")
    connection = sqlite3.connect(directory / "spool.db")
    connection.executescript((HERE / f"version{version}.sql").read_text())
    connection.close()


def columns(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
    return {
        name: connection.execute(f"SELECT cid, name, type, \"notnull\", pk FROM pragma_table_info('{name}')").fetchall() for name in tables
    }


def test_a_new_spool_is_of_the_newest_version(tmp_path: Path) -> None:
    connection = connect(tmp_path / "spool.db", writable=True)
    migrate(connection)
    migrate(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
    assert connection.execute("PRAGMA page_size").fetchone() == (8192,)
    incremental = 2
    assert connection.execute("PRAGMA auto_vacuum").fetchone() == (incremental,)
    connection.close()


def test_what_version_1_wrote_goes_out(tmp_path: Path) -> None:
    written(tmp_path, 1)
    desk = Desk(tmp_path)
    try:
        lanes = dict(desk.reactor.wait(desk.spool.lanes()))
        assert lanes == {Lane("r1", "example.com"): 1800000060.0, Lane("r1", "example.org"): 1800000005.0}
        [joe] = desk.due("example.com", 1.8e9 + 60)
        [ann] = desk.due("example.org", 1.8e9 + 60)
        assert [(one.number, one.address, one.attempts, one.handed_over) for one in joe.recipients] == [(8, "joe@example.com", 2, True)]
        assert joe.options.body is BodyType.SEVEN_BIT
        assert (ann.sender, ann.size, ann.options.body) == ("", 24, BodyType.EIGHT_BIT)
        assert desk.content(joe) == b"Subject: Hello\r\nFrom: shop@example.net\r\n\r\nA body, small\r\n"
        assert desk.content(ann) == b"Subject: 8 bit\r\n\r\ncaf\xe9\r\n"
        assert [sequence for sequence, _ in desk.events()] == [11, 12, 13, 14]
        assert desk.reactor.wait(desk.spool.cursor("json_log")) == 13
        desk.store("new@example.com")
        assert desk.told[0][0] == 15
        desk.record(joe, State.DELIVERED)
        desk.record(ann, State.DELIVERED)
        assert [row["recipient"] for row in desk.rows()] == ["new@example.com"]
    finally:
        desk.close()


@pytest.mark.parametrize("version", range(2, len(STEPS)))
def test_what_a_later_version_wrote_goes_out(tmp_path: Path, version: int) -> None:
    kept(tmp_path, version)
    desk = Desk(tmp_path)
    try:
        lanes = dict(desk.reactor.wait(desk.spool.lanes()))
        assert lanes == {Lane("r1", "example.com"): NOW + 60, Lane("r1", "example.org"): NOW + 5, Lane("r1", "example.net"): NOW + 3600}
        [joe] = desk.due("example.com", NOW + 60)
        [ann] = desk.due("example.org", NOW + 60)
        [later] = desk.due("example.net", NOW + 3600)
        assert [(one.number, one.address, one.attempts, one.handed_over) for one in joe.recipients] == [(2, "joe@example.com", 1, True)]
        assert (ann.sender, ann.options) == ("", OPTIONS)
        assert [(one.address, one.notify, one.orcpt) for one in ann.recipients] == [(ANN.address, ANN.notify, ANN.orcpt)]
        assert [desk.content(entry) for entry in (joe, ann, later)] == [FIRST, SECOND, SMALL]
        assert [row["recipient"] for row in desk.rows({"state": "quarantined"})] == ["lost@example.net"]
        assert desk.reactor.wait(desk.spool.recall("p1", "order-1", NOW)) == (b"\x01\x02digest", joe.id)
        assert [sequence for sequence, _ in desk.events()] == [1, 2, 3, 4, 5, 6]
        assert desk.reactor.wait(desk.spool.cursor("json_log")) == 3
        for entry in (joe, ann, later):
            desk.record(entry, State.DELIVERED)
        assert [row["recipient"] for row in desk.rows()] == ["lost@example.net"]
        assert list(findings(tmp_path)) == []
    finally:
        desk.close()


def kept(directory: Path, version: int) -> None:
    """A spool as tests.spool.keep_version made it with the code of that version."""
    script = (HERE / f"version{version}.sql").read_text()
    connection = sqlite3.connect(directory / "spool.db")
    connection.executescript(script)
    [(name,)] = connection.execute("SELECT file FROM content WHERE file IS NOT NULL")
    connection.close()
    (directory / "body" / name[-2:]).mkdir(parents=True)
    (directory / "body" / name[-2:] / name).write_bytes(SECOND.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("version", range(1, len(STEPS)))
def test_an_old_spool_comes_to_the_same_tables_as_a_new_one(tmp_path: Path, version: int) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    old.mkdir()
    if version == 1:
        written(old, 1)
    else:
        kept(old, version)
    shapes = []
    for directory in (old, new):
        connection = connect(directory / "spool.db", writable=True)
        migrate(connection)
        shapes.append(columns(connection))
        connection.close()
    assert shapes[0] == shapes[1]


def test_a_later_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    Desk(tmp_path / "0").close()
    path = tmp_path / "0" / "spool.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    with pytest.raises(SpoolVersionError, match=f"version {len(STEPS) + 1}.*up to {len(STEPS)}"):
        Spool(tmp_path / "0", HandReactor()).open()  # type: ignore[arg-type]
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")
    connection.close()
    Desk(tmp_path / "0").close()


def test_a_step_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = connect(tmp_path / "spool.db", writable=True)
    migrate(connection)
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (*STEPS, "CREATE TABLE more (x INTEGER); CREATE TABLE message (x INTEGER);"))
    connection.close()
    connection = connect(tmp_path / "spool.db", writable=True)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
    assert "more" not in columns(connection)
    migrate(connection)
    connection.close()
