"""``lettermta-queue`` as an operator meets it, with the daemon running and down."""

from __future__ import annotations

import os
import pty
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from lettermta.event import timestamp
from lettermta.message import Lane
from lettermta.ops import queue
from lettermta.ops.operations import Operations
from lettermta.ops.queue_source import source
from lettermta.ops.queue_text import TABLE_WIDTH, Listing, cut, span, visible

from ..spool.hand import NOW, Desk
from .tool import ROOT, Run

KEYS = ["id", "state", "sender", "recipient", "project", "route", "tag", "metadata", "size", "created", "due", "attempts", "last_reply"]


@pytest.mark.usefixtures("both")
def test_the_rows_of_a_list_have_exactly_the_promised_keys(run: Run, ids: list[str]) -> None:
    ran = run("list", "--json")
    assert (ran.code, ran.err) == (os.EX_OK, "")
    assert [list(row) for row in ran.rows] == [KEYS] * 4
    assert ran.rows[0] == {
        "id": ids[0],
        "state": "deferred",
        "sender": "shop@example.net",
        "recipient": "a@example.com",
        "project": "demo",
        "route": "outgoing",
        "tag": "red",
        "metadata": {"k": "1", "Käse": "Brot"},
        "size": 51,
        "created": timestamp(NOW - 3 * 86_400),
        "due": timestamp(NOW + 600),
        "attempts": 1,
        "last_reply": "451 4.7.1 Try again later",
    }
    assert (ran.rows[2]["tag"], ran.rows[2]["metadata"], ran.rows[2]["last_reply"], ran.rows[2]["sender"]) == (None, {}, None, "")
    assert ran.rows[3]["due"] is None, "what is held is not due"


@pytest.mark.usefixtures("ids")
def test_the_options_of_all_commands_stand_on_either_side_of_the_command(run: Run, config: Path) -> None:
    wanted = run("list", "--json")
    assert wanted.rows
    for command in (("--json", "list"), ("--config", str(config), "--json", "list"), ("list", "--config", str(config), "--json")):
        assert run(*command) == wanted


@pytest.mark.usefixtures("both")
def test_each_filter_finds_what_it_says(run: Run, ids: list[str]) -> None:
    for options, found in (
        ("", "abce"),
        (f"--id {ids[0]}", "ab"),
        ("--project other", "c"),
        ("--route bulk", "c"),
        ("--tag red", "ab"),
        ("--metadata k=1", "ab"),
        ("--metadata k=1 --metadata Käse=Brot", "ab"),
        ("--metadata k=1 --metadata Käse=Wurst", ""),
        ("--metadata k=", ""),
        ("--sender SHOP@example.net", "abe"),
        ("--sender=", "c"),
        ("--recipient B@example.org", "b"),
        ("--domain EXAMPLE.org", "b"),
        ("--state deferred", "a"),
        ("--state held", "e"),
        ("--state delivered", "d"),
        ("--age 1h", "abc"),
        ("--age 2d", "ab"),
        ("--domain example.com --state queued", "c"),
        ("--tag ';DROP", ""),
    ):
        assert run("list", "--json", *options.split()).recipients == found, options


@pytest.mark.usefixtures("both")
def test_finished_recipients_are_listed_only_when_they_are_asked_for(run: Run) -> None:
    assert "d@example.com" not in run("list").out
    assert "d@example.com" in run("list", "--state", "delivered").out


@pytest.mark.usefixtures("both")
def test_a_message_is_shown_with_all_there_is(run: Run, ids: list[str]) -> None:
    [shown] = run("show", "--json", ids[0]).rows
    assert (shown["id"], shown["tag"], shown["metadata"]) == (ids[0], "red", {"k": "1", "Käse": "Brot"})
    assert [(one["recipient"], one["state"], one["attempts"]) for one in shown["recipients"]] == [
        ("a@example.com", "deferred", 1),
        ("b@Example.ORG", "queued", 0),
    ]
    assert shown["headers"] == ["Subject: Hello", "From: shop@example.net"]
    assert [told["event"] for told in shown["events"]] == ["message.created", "message.delivered"]
    text = run("show", ids[0]).out
    for words in (
        ids[0],
        "a@example.com",
        "deferred, 1 attempt,",
        "451 4.7.1 Try again later",
        "Käse = Brot",
        "Subject: Hello",
        "message.created",
    ):
        assert words in text


@pytest.mark.usefixtures("both")
def test_a_message_that_is_unknown_is_68(run: Run) -> None:
    ran = run("show", "01a1fd6c-0000-7000-8000-000000000000")
    assert (ran.code, ran.out) == (os.EX_NOHOST, "")
    assert "there is no message" in ran.err


def test_the_list_is_the_same_with_the_daemon_up_and_down(run: Run, ids: list[str], daemon: Callable[[], None]) -> None:
    down = run("list", "--json").out, run("show", "--json", ids[1]).out
    daemon()
    assert (run("list", "--json").out, run("show", "--json", ids[1]).out) == down


def test_a_socket_that_a_killed_daemon_left_is_passed_over(run: Run, ids: list[str], config: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(config.parent / "state" / "control.sock"))
    assert run("list", "--json").recipients == "abce"


@pytest.fixture
def many(config: Path) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    for number in range(20):
        desk.store(*[f"user{number:02d}{one:03d}@example.com" for one in range(1000)])
    desk.close()


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_long_list_streams(config: Path, daemon: Callable[[], None], up: bool) -> None:
    if up:
        daemon()
    asked = source(config.parent / "state")
    tracemalloc.start()
    count = sum(1 for _ in asked.recipients({}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 4_000_000, "no more than a page at a time"


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_reader_that_has_seen_enough_ends_it_well(config: Path, daemon: Callable[[], None], up: bool) -> None:
    if up:
        daemon()
    command = f"{sys.executable} -m lettermta.ops.queue -c {config} list --json; echo $? >&2"
    process = subprocess.Popen(["/bin/sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"{")
    process.stdout.close()
    assert process.stderr.read() == b"0\n"
    process.stderr.close()
    process.wait(timeout=60)


# -- exit codes


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("drop",),
        ("list", "--colour", "red"),
        ("list", "--state", "lost"),
        ("list", "--age", "soon"),
        ("list", "--metadata", "k"),
        ("show", "x", "y"),
    ],
)
@pytest.mark.usefixtures("ids")
def test_a_wrong_command_line_is_64(run: Run, argv: tuple[str, ...]) -> None:
    ran = run(*argv)
    assert (ran.code, ran.out) == (os.EX_USAGE, "")
    assert "usage: lettermta-queue" in ran.err


@pytest.mark.usefixtures("ids")
def test_an_argument_that_is_not_utf_8_is_64_and_no_traceback(run: Run) -> None:
    for argv in (("list", "--tag", "\udcff"), ("list", "--metadata", "k=\udcff"), ("show", "\udcff")):
        ran = run(*argv)
        assert ran.code == os.EX_USAGE
        assert "not UTF-8" in ran.err


def test_no_spool_yet_is_66(run: Run) -> None:
    ran = run("list")
    assert (ran.code, ran.out) == (os.EX_NOINPUT, "")
    assert "makes it at its first start" in ran.err


def test_a_wrong_configuration_is_78(run: Run, config: Path) -> None:
    config.write_text("[mta]\ncolour = red\n")
    ran = run("list")
    assert ran.code == os.EX_CONFIG
    assert "colour" in ran.err


@pytest.mark.usefixtures("ids")
def test_a_spool_of_another_version_is_69_in_words(run: Run, config: Path) -> None:
    path = config.parent / "state" / "spool" / "0" / "spool.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    ran = run("list")
    assert ran.code == os.EX_UNAVAILABLE
    assert "version 99" in ran.err


@pytest.mark.usefixtures("ids")
def test_a_damaged_spool_is_69_in_words(run: Run, config: Path) -> None:
    database = config.parent / "state" / "spool" / "0" / "spool.db"
    database.write_bytes(b"not a database at all, and long enough" * 500)
    for beside in ("spool.db-wal", "spool.db-shm"):
        database.with_name(beside).unlink(missing_ok=True)  # what is still in there would be read in place of what was overwritten
    ran = run("list")
    assert ran.code == os.EX_UNAVAILABLE
    assert "not a database" in ran.err


# -- what people see


@pytest.mark.usefixtures("ids")
def test_a_list_for_people_counts_and_says_when_there_is_nothing(run: Run) -> None:
    ran = run("list")
    assert ran.err == "4 recipients in the queue\n"
    assert ran.out.splitlines()[0].split() == ["ID", "STATE", "AGE", "NEXT", "TRIES", "RECIPIENT", "SENDER", "TAG", "LAST", "REPLY"]
    assert len(ran.out.splitlines()) == 5
    assert run("list", "--project", "other").err == "1 recipient in the queue\n"
    assert run("list", "--project", "none").err == "nothing in the queue is like that\n"


ROW = {
    "id": "01a1fd6c-4e42-7010-8e99-0e9d218443e5",
    "state": "quarantined",
    "created": NOW - 500_000,
    "due": NOW,
    "attempts": 12,
    "recipient": "a.very.long.local.part.of.an.address@and-a-very-long-domain-name.department.example.com",
    "sender": "bounces+01a1fd6c4e4270108e990e9d218443e5=jane=example.com@returns.shop.example.net",
    "tag": "a tag that is as long as " + "x" * 200,
    "last_reply": "451 4.7.1 " + "Please try again later, and then again. " * 10,
}


@pytest.mark.parametrize("width", [60, 80, 100, TABLE_WIDTH - 1, TABLE_WIDTH, 200, 300])
def test_on_a_terminal_every_line_fits(width: int) -> None:
    listing = Listing(width)
    lines = [listing.heading(), *listing.lines(ROW, NOW)]
    assert max(map(len, lines)) <= max(width, 68)
    assert any("…" in line for line in lines)


def test_a_terminal_that_is_wide_enough_gets_a_table_and_another_one_gets_blocks() -> None:
    assert len(list(Listing(TABLE_WIDTH).lines(ROW, NOW))) == 1
    first, second, third = Listing(TABLE_WIDTH - 1).lines(ROW, NOW)
    assert first.startswith(ROW["id"])
    assert ROW["recipient"] in second
    assert third.strip().startswith("451")


def test_elsewhere_nothing_is_cut() -> None:
    [line] = Listing(None).lines(ROW, NOW)
    for name in ("id", "recipient", "sender", "tag"):
        assert ROW[name] in line
    assert line.endswith(ROW["last_reply"].rstrip())


def test_columns_stand_below_their_titles() -> None:
    row = {**ROW, "recipient": "jane@example.com", "sender": "", "tag": None, "last_reply": "", "state": "queued", "due": NOW + 90}
    for width in (None, TABLE_WIDTH, 200):
        heading = Listing(width).heading()
        [line] = Listing(width).lines(row, NOW)
        for title, cell in (("STATE", "queued"), ("RECIPIENT", "jane@"), ("SENDER", "<>"), ("TAG", "- ")):
            assert line[heading.index(title) :].startswith(cell)
        assert line[: heading.index("NEXT") + 4].endswith(" 90s")


def test_a_hostile_reply_does_not_steer_the_terminal() -> None:
    row = {**ROW, "last_reply": "550 \x1b]0;owned\x07\x9b2J\r\n", "recipient": "a\u202eb@example.com"}
    for width in (None, 80, 200):
        text = "\n".join(Listing(width).lines(row, NOW))
        assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert visible("550 \x1b[2J") == "550 \\x1b[2J"
    assert visible("Käse 雪") == "Käse 雪"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "now"), (0, "now"), (1, "1s"), (119, "119s"), (120, "2m"), (7199, "120m"), (7200, "2h"), (3 * 86_400, "3d")]
)
def test_spans_are_short(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


def test_what_fits_is_not_cut() -> None:
    assert (cut("abc", 3), cut("abcd", 3), cut("abcd", 1)) == ("abc", "ab…", "…")


@pytest.mark.usefixtures("ids")
def test_a_real_terminals_width_is_used(config: Path) -> None:
    master, slave = pty.openpty()
    subprocess.run(["stty", "cols", "80"], stdin=slave, check=True)
    command = [sys.executable, "-m", "lettermta.ops.queue", "-c", str(config), "list"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=slave, stderr=subprocess.DEVNULL)
    os.close(slave)
    process.wait(timeout=60)
    output = os.read(master, 65_536).decode()
    os.close(master)
    lines = output.splitlines()
    assert lines[0].split() == ["ID", "STATE", "AGE", "NEXT", "TRIES"]
    assert max(map(len, lines)) <= 80
    assert "    a@example.com  from shop@example.net  tag red" in lines


def test_who_waits_behind_a_dead_destination_is_told_what_it_said() -> None:
    class Delivery:
        def refusal(self, lane: Lane) -> str | None:
            return "451 4.4.1 refuses connections" if lane.domain == "dead.test" else None

    operations = Operations(None, Delivery(), None, lambda: NOW)  # type: ignore[arg-type]
    row = {**ROW, "state": "queued", "attempts": 0, "due": NOW - 1, "last_reply": "", "route_id": "r1", "domain": "dead.test"}
    others = [{**row, "domain": "well.test"}, {**row, "attempts": 1}, {**row, "due": NOW + 60}, {**row, "state": "held"}]
    told, *rest = operations.told([row, *others])
    assert rest == others
    assert "not tried yet: 451 4.4.1 refuses connections" in "\n".join(Listing(None).lines(told, NOW))
    assert queue._object(told)["last_reply"] is None, "nothing was said to it"
