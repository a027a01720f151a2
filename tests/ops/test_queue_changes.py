"""What operators change, with the daemon up, and down where that can be."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import sqlite3
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lettermta.accounts.store import AccountStore
from lettermta.event import message_event, timestamp
from lettermta.message import Attempt, Outcome, State
from lettermta.spool.offline import Offline

from ..spool.hand import NOW, Desk, large
from .tool import ROOT, Run

HOSTILE = ["' OR 1=1 --", "'; DROP TABLE recipient; --", "%", "*", "{0}", "a' UNION SELECT 1"]


def states(run: Run, *options: str) -> dict[str, str]:
    return {row["recipient"][0]: row["state"] for row in run("list", "--json", *options).rows}


def until(there: Callable[[], bool]) -> None:
    """Ask until it is so; each question goes to the daemon and back."""
    assert any(there() for _ in range(500))


def events(run: Run, identifier: str) -> list[str]:
    return [row["event"] for row in run("events", "--json", "--id", identifier).rows]


@pytest.mark.usefixtures("both")
def test_what_is_held_is_not_due_and_says_why(run: Run, ids: list[str]) -> None:
    ran = run("hold", "--tag", "red", "--reason", "asked by legal", "--yes")
    assert (ran.code, ran.out, ran.err) == (os.EX_OK, "", "2 recipients held\n")
    rows = run("list", "--json", "--tag", "red").rows
    assert [(row["state"], row["due"], row["last_reply"]) for row in rows] == [("held", None, "asked by legal")] * 2
    assert states(run, "--domain", "example.com") == {"a": "held", "c": "queued", "e": "held"}
    assert [row["recipient"][0] for row in run("list", "--json", "--reason", "LEGAL").rows] == ["a", "b"]


@pytest.mark.usefixtures("ids")
def test_that_a_webhook_was_switched_off_is_found_by_its_name(run: Run, config: Path) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    desk.reactor.wait(desk.spool.tell([message_event("webhook.disabled", NOW, "", b'{"webhook_id":"w1"}', b'{"project":"demo"}')]))
    desk.close()
    [one] = run("events", "--json", "--event", "webhook.disabled").rows
    assert one["data"] == {"webhook_id": "w1"}
    assert run("events", "--event", "webhook.gone").code == os.EX_USAGE


@pytest.mark.usefixtures("both")
def test_what_is_released_is_due_and_told(run: Run, ids: list[str]) -> None:
    run("hold", "--id", ids[0])
    ran = run("release", "--id", ids[0], "--json")
    assert ran.rows == [{"operation": "release", "recipients": 2}]
    assert states(run, "--id", ids[0]) == {"a": "queued", "b": "queued"}
    assert events(run, ids[0])[-2:] == ["message.released"] * 2
    [one] = run("events", "--json", "--id", ids[0], "--event", "message.released", "--recipient", "A@example.com").rows
    assert one["data"]["released_at"].endswith("Z")
    assert one["data"]["message_id"] == ids[0]


@pytest.mark.usefixtures("ids")
def test_what_was_to_go_later_still_does_when_it_is_released(run: Run, config: Path) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    desk.store("later@example.com", hold_until=NOW + 3600)
    desk.close()
    for verb, state in (("hold", "held"), ("release", "scheduled")):
        run(verb, "--recipient", "later@example.com")
        assert states(run)["l"] == state
    assert run("list", "--json", "--state", "scheduled").rows[0]["due"] == timestamp(NOW + 3600)


@pytest.mark.usefixtures("both")
def test_a_removed_recipient_is_canceled_and_a_whole_message_gone(run: Run, ids: list[str], config: Path) -> None:
    assert run("remove", "--recipient", "a@example.com").err == "1 recipient removed\n"
    assert states(run) == {"b": "queued", "c": "queued", "e": "held"}
    assert run("list", "--json", "--state", "canceled").recipients == "a"
    assert run("remove", "--id", ids[0]).code == os.EX_OK
    assert run("list", "--json", "--id", ids[0], "--state", "canceled").rows == []
    assert events(run, ids[0])[-2:] == ["message.canceled"] * 2
    assert [told["event"] for told in run("show", "--json", ids[0]).rows[0]["events"]][-1] == "message.canceled"
    connection = sqlite3.connect(config.parent / "state" / "spool" / "0" / "spool.db")
    assert connection.execute("SELECT COUNT(*) FROM content").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_removed_message_takes_its_body_file_along(run: Run, config: Path, daemon: Callable[..., None], up: bool) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    message = desk.store(data=large())
    assert len(desk.bodies()) == 1
    desk.close()
    if up:
        daemon()
    run("remove", "--id", message.id)
    assert run("verify").out == ""
    if not up:
        assert not [path for path in (config.parent / "state" / "spool" / "0" / "body").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("both")
def test_without_a_terminal_many_are_changed_only_by_yes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    for verb in ("hold", "remove"):
        ran = run(verb, "--all")
        assert ran.code == os.EX_USAGE
        assert "--yes" in ran.err
        assert "recipients" in ran.err
    assert set(states(run).values()) == {"deferred", "queued", "held"}
    assert run("hold", "--all", "--yes").err == "3 recipients held\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("both")
def test_on_a_terminal_it_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, code, held in (("n\n", 1, False), ("\n", 1, False), ("yes\n", 0, True)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        ran = run("hold", "--tag", "red")
        assert (ran.code, "hold 2 recipients? [y/N]" in ran.err) == (code, True)
        assert (states(run)["a"] == "held") is held


@pytest.mark.parametrize(
    "argv",
    [
        ("hold",),
        ("remove",),
        ("hold", "--all", "--tag", "red"),
        ("hold", "--where", "colour=red"),
        ("hold", "--where", "tag"),
        ("hold", "--where", "tag=red", "--project", "demo"),
        ("hold", "--all", "--reason", "two\nlines"),
        ("release", "--rule", "x"),
        ("release", "--rule", "1", "--tag", "red"),
        ("reroute", "--to", "bulk", "--tag", "red"),
        ("reroute", "--project", "demo"),
        ("top",),
    ],
)
def test_what_does_not_go_together_is_64(run: Run, ids: list[str], argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run(*argv).code == os.EX_USAGE
    assert set(states(run).values()) == {"deferred", "queued", "held"}


@pytest.mark.usefixtures("both")
def test_hostile_filters_change_nothing(run: Run) -> None:
    for value in HOSTILE:
        for name in ("id", "project", "route", "tag", "sender", "recipient", "domain", "reply"):
            ran = run("remove", f"--{name}", value, "--yes")
            assert (ran.code, ran.err) == (os.EX_OK, "nothing in the queue is like that\n"), (name, value)
        run("remove", "--metadata", f"{value}=1", "--yes")
        assert run("events", "--json", "--tag", value).rows == []
    assert len(states(run)) == 4


@pytest.mark.usefixtures("ids")
def test_what_is_the_work_of_delivery_needs_a_daemon(run: Run) -> None:
    for argv in (("retry", "--all"), ("bounce", "--all"), ("reroute", "--project", "demo", "--to", "bulk")):
        ran = run(*argv, "--yes")
        assert ran.code == os.EX_UNAVAILABLE
        assert "no daemon runs" in ran.err
    assert run("events", "--follow").code == os.EX_UNAVAILABLE


def test_a_spool_that_is_being_taken_by_a_daemon_is_not_changed(run: Run, ids: list[str], config: Path) -> None:
    with (config.parent / "state" / "spool" / "0" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = run("hold", "--all", "--yes")
    assert ran.code == os.EX_UNAVAILABLE
    assert "try again" in ran.err


def test_what_is_bounced_is_ended_as_a_failure_of_ours(run: Run, ids: list[str], daemon: Callable[..., None]) -> None:
    daemon()
    ran = run("bounce", "--project", "demo", "--reason", "wrong list", "--yes")
    assert (ran.code, ran.err) == (os.EX_OK, "3 recipients bounced\n")
    assert states(run) == {"c": "queued"}
    assert events(run, ids[0])[-2:] == ["message.failed"] * 2
    reasons = {row["data"]["reason"] for row in run("events", "--json", "--event", "message.failed").rows}
    assert reasons == {"wrong list (by the operator)"}
    assert {row["reply"] for row in run("trace", "--json", ids[0]).rows} == {"550 5.7.1 wrong list (by the operator)"}


def test_what_is_retried_is_due_now(run: Run, ids: list[str], daemon: Callable[..., None]) -> None:
    daemon("r1")
    until(lambda: states(run) == {"a": "deferred", "c": "queued", "e": "held"})
    assert run("retry", "--recipient", "a@example.com").err == "1 recipient due now\n"
    until(lambda: states(run) == {"c": "queued", "e": "held"})
    rows = run("trace", "--json", ids[0]).rows
    assert [(row["recipient"], row["attempt"], row["state"], row["via"]) for row in rows] == [
        ("a@example.com", 2, "delivered", "discarded"),
        ("b@Example.ORG", 1, "delivered", "discarded"),
    ]
    assert re.search(r"delivered, \d+\.\d{3} s\n    by discarded\n", run("trace", ids[0]).out)


def test_what_is_released_goes_out_and_what_is_held_does_not(run: Run, ids: list[str], daemon: Callable[..., None]) -> None:
    assert run("hold", "--all", "--yes").err == "3 recipients held\n"
    daemon("r1", "r2")
    run("release", "--recipient", "c@example.com")
    until(lambda: states(run) == {"a": "held", "b": "held", "e": "held"})
    run("release", "--all", "--yes")
    until(lambda: states(run) == {})


@pytest.fixture
def routes(config: Path) -> list[str]:
    """A project with the routes outgoing and bulk, and a message on the first; the ids of the routes."""
    (config.parent / "state").mkdir()
    accounts = AccountStore(config.parent / "state")
    project = accounts.create_project("demo")
    bulk = accounts.create_route("demo", "bulk")
    outgoing = next(route for route in accounts.routes("demo") if route.slug == "outgoing")
    accounts.close()
    desk = Desk(config.parent / "state" / "spool" / "0")
    desk.store("a@example.com", project_id=project.id, route_id=outgoing.id)
    desk.store("b@example.com", project_id="another", project="demo2", route_id="r9")
    desk.close()
    return [outgoing.id, bulk.id]


def test_what_is_rerouted_leaves_by_the_new_route(run: Run, routes: list[str], daemon: Callable[..., None]) -> None:
    daemon()
    assert run("reroute", "--project", "demo", "--to", "bulk").err == "1 recipient rerouted\n"
    assert [row["route"] for row in run("list", "--json").rows] == ["bulk", "outgoing"]
    assert run("reroute", "--project", "demo", "--to", "bulk").err == "nothing in the queue is like that\n"
    assert run("reroute", "--project", "demo2", "--to", "bulk").code == os.EX_NOHOST
    ran = run("reroute", "--project", "demo", "--to", "nowhere")
    assert (ran.code, "no project demo with a route nowhere" in ran.err) == (os.EX_NOHOST, True)


@pytest.mark.usefixtures("routes")
def test_mail_is_rerouted_by_a_transport_on_a_route_that_is_made_for_it(run: Run, config: Path, daemon: Callable[..., None]) -> None:
    daemon()
    by = ("reroute", "--project", "demo", "--smarthost", "relay.example:2525")
    assert run(*by).err == "route via-relay-example-2525 of project demo is there\n1 recipient rerouted\n"
    assert run("list", "--json", "--project", "demo").rows[0]["route"] == "via-relay-example-2525"
    assert run(*by).err == "nothing in the queue is like that\n", "the route is taken again"
    with AccountStore(config.parent / "state") as accounts:
        made = accounts.route("demo", "via-relay-example-2525")
    assert made.smarthost is not None
    assert (made.smarthost.host, made.smarthost.port) == ("relay.example", 2525)
    assert run("reroute", "--project", "demo", "--transport", "capture", "--json").rows[0]["recipients"] == 1
    assert run("list", "--json", "--project", "demo").rows[0]["route"] == "via-capture"
    assert run("reroute", "--project", "demo", "--transport", "mx").err == "1 recipient rerouted\n"
    assert run("list", "--json", "--project", "demo").rows[0]["route"] == "outgoing"


@pytest.mark.usefixtures("routes")
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--to", "bulk", "--transport", "mx"),
        ("--transport", "smarthost"),
        ("--to", "bulk", "--smarthost", "h:25"),
        ("--smarthost", ":"),
    ],
)
def test_where_mail_is_rerouted_to_is_said_once(run: Run, options: tuple[str, ...]) -> None:
    assert run("reroute", "--project", "demo", *options).code == os.EX_USAGE


# -- standing rules


@pytest.mark.usefixtures("both")
def test_a_rule_holds_what_is_there_and_is_lifted_again(run: Run) -> None:
    ran = run("hold", "--where", "project=demo", "domain=EXAMPLE.com", "--reason", "under review", "--yes", "--json")
    assert ran.rows == [{"operation": "hold", "recipients": 1, "rule": 1}]
    assert states(run) == {"a": "held", "b": "queued", "c": "queued", "e": "held"}
    [rule] = run("hold", "--rules", "--json").rows
    assert (rule["id"], rule["where"], rule["reason"]) == (1, {"project": "demo", "domain": "example.com"}, "under review")
    assert "project=demo domain=example.com  under review" in run("hold", "--rules").out
    assert run("release", "--rule", "1", "--yes").err == "rule 1 is ended; 1 recipient released\n"
    assert states(run) == {"a": "queued", "b": "queued", "c": "queued", "e": "held"}
    assert run("hold", "--rules", "--json").rows == []
    assert run("release", "--rule", "1", "--yes").code == os.EX_NOHOST
    run("hold", "--where", "tag=red", "--yes")
    assert run("hold", "--rules", "--json").rows[0]["id"] == 2, "no number is given twice"
    assert run("release", "--where", "tag=blue", "--yes").code == os.EX_NOHOST
    assert run("release", "--where", "tag=red", "--yes", "--json").rows == [{"operation": "release", "recipients": 2, "rule": 2}]
    assert run("hold", "--rules", "--json").rows == []


# -- looking


@pytest.mark.usefixtures("both")
def test_stats_count_by_what_is_asked(run: Run) -> None:
    rows = run("stats", "--json").rows
    assert [(row["destination"], row["count"], row["queued"], row["deferred"], row["held"]) for row in rows] == [
        ("example.com", 3, 1, 1, 1),
        ("example.org", 1, 1, 0, 0),
    ]
    assert rows[0]["oldest"] < rows[1]["oldest"] or rows[0]["oldest"] == rows[1]["oldest"]
    assert [(row["domain"], row["count"]) for row in run("stats", "--json", "--by", "domain").rows] == [
        ("example.com", 3),
        ("example.org", 1),
    ]
    assert {row["project"]: row["count"] for row in run("stats", "--json", "--by", "project").rows} == {"demo": 3, "other": 1}
    assert {row["tag"]: row["count"] for row in run("stats", "--json", "--by", "tag").rows} == {"red": 2, "blue": 1, None: 1}
    assert {row["state"]: row["count"] for row in run("stats", "--json", "--by", "state").rows} == {"queued": 2, "deferred": 1, "held": 1}
    [deferred] = [row for row in run("stats", "--json", "--by", "state").rows if row["state"] == "deferred"]
    assert deferred["last_reply"] == "451 4.7.1 Try again later"
    text = run("stats")
    assert text.out.splitlines()[0].split()[:3] == ["COUNT", "QUEUED", "DEFERRED"]
    assert "4 recipients in the queue" in text.err


@pytest.mark.usefixtures("both")
def test_events_are_the_documents_that_were_told(run: Run, ids: list[str]) -> None:
    rows = run("events", "--json").rows
    assert [row["event"] for row in rows].count("message.created") == 3
    assert {"id", "event", "timestamp", "data", "context"} <= set(rows[0])
    assert run("events", "--json", "--project", "none").rows == []
    assert "message.created" in run("events", "--id", ids[1]).out


FILTERED = [
    (("--id", "0"), "ab"),
    (("--project", "other"), "c"),
    (("--route", "bulk"), "c"),
    (("--tag", "blue"), "e"),
    (("--metadata", "k=1"), "ab"),
    (("--metadata", "k=1", "--metadata", "Käse=Brot"), "ab"),
    (("--sender", "SHOP@example.net"), "abe"),
    (("--recipient", "B@example.org"), "b"),
    (("--domain", "Example.org"), "b"),
    (("--state", "held"), "e"),
    (("--age", "1h"), "abc"),
    (("--reply", "try again"), "a"),
    (("--project", "demo", "--state", "deferred"), "a"),
    (("--tag", "none"), ""),
]
"""Every filter, and whom it finds of the recipients that are in the queue; a number stands for an id."""


@pytest.mark.usefixtures("both")
def test_every_filter_finds_the_same_whatever_is_asked(run: Run, ids: list[str]) -> None:
    for options, found in FILTERED:
        given = tuple(ids[int(one)] if one.isdigit() else one for one in options)
        rows = run("list", "--json", *given).rows
        assert "".join(row["recipient"][0] for row in rows) == found, options
        for by in ("destination", "project", "tag", "state"):
            assert sum(row["count"] for row in run("stats", "--json", "--by", by, *given).rows) == len(found), options
        messages = list(dict.fromkeys(row["id"] for row in rows))
        assert [row["id"] for row in run("show", "--json", *given).rows] == messages, options
        assert run("trace", *given).code == os.EX_OK


def test_attempts_of_what_is_in_the_queue_are_found_by_filters(run: Run, ids: list[str], config: Path) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    for domain in ("example.com", "example.org"):
        for entry in [one for one in desk.due(domain, NOW * 2) if one.id == ids[0]]:
            outcomes = [Outcome(one, State.DEFERRED, "451 later", NOW + 60) for one in entry.recipients]
            details = {"host": f"mx.{domain}", "dialogue": [{"said": "DATA", "answer": "451 later"}, {"said": "QUIT", "answer": None}]}
            desk.reactor.wait(desk.spool.record(entry, outcomes, [], Attempt(NOW, 0.5, f"mx.{domain} in clear", details)))
    desk.close()
    rows = run("trace", "--json", "--tag", "red").rows
    assert [(row["id"], row["recipient"], row["host"]) for row in rows] == [
        (ids[0], "a@example.com", "mx.example.com"),
        (ids[0], "b@Example.ORG", "mx.example.org"),
    ]
    assert run("trace", "--json", "--tag", "blue").rows == []
    lines = run("trace", "--tag", "red").out.splitlines()
    assert lines[0] == ids[0]
    assert lines[2:7] == ["    by mx.example.com in clear", "    > DATA", "    < 451 later", "    > QUIT", "    < (no answer)"]


@pytest.mark.usefixtures("both")
def test_the_message_itself_is_shown_as_it_is_stored(run: Run, ids: list[str]) -> None:
    ran = run("show", ids[0], "--content", "--json")
    assert ran.rows == [{"id": ids[0], "content": "Subject: Hello\r\nFrom: shop@example.net\r\n\r\nA body.\r\n"}]
    assert run("show", "--content", ids[0]).out == ran.rows[0]["content"]
    assert run("show", "nobody", "--content").code == os.EX_NOHOST
    assert run("show", "--tag", "red", "--content").code == os.EX_USAGE
    assert run("show").code == os.EX_USAGE


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_large_message_is_shown_whole_and_a_damaged_one_not_at_all(run: Run, config: Path, daemon: Callable[..., None], up: bool) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    message = desk.store(data=large())
    desk.close()
    if up:
        daemon()
    assert run("show", "--content", message.id).out.encode() == large()
    [body] = [path for path in (config.parent / "state" / "spool" / "0" / "body").rglob("*") if path.is_file()]
    body.write_bytes(body.read_bytes().replace(b"0123456789abcdef", b"0123456789abcdeX", 1))
    ran = run("show", "--content", message.id)
    assert (ran.code, ran.out) == (os.EX_DATAERR, "")
    assert "checksum" in ran.err


@pytest.mark.usefixtures("both")
def test_events_take_the_filters_of_the_list(run: Run, ids: list[str]) -> None:
    """What a message carries is in each of its events, and what is asked for is never part of a statement."""
    assert run("release", "--id", ids[2]).code == os.EX_OK
    told = run("events", "--json", "--domain", "EXAMPLE.com", "--id", ids[2]).rows
    assert [row["event"] for row in told if row["event"] != "message.delivered"] == ["message.released"]
    assert run("events", "--json", "--domain", "ample.com").rows == []
    first = run("events", "--json", "--age", "1d").rows
    assert {row["data"]["message_id"] for row in first} == {ids[0]}
    assert len(run("events", "--json").rows) == len(first) + len(run("events", "--json", "--since", "1d").rows)
    for value in HOSTILE:
        for option in ("--domain", "--tag", "--recipient", "--id"):
            assert run("events", "--json", option, value).rows == []
        assert run("events", "--json", "--metadata", f"k={value}", "--metadata", f"{value}=1").rows == []


@pytest.mark.usefixtures("both")
def test_a_sound_spool_has_no_faults(run: Run) -> None:
    ran = run("verify")
    assert (ran.code, ran.out, ran.err) == (os.EX_OK, "", "3 messages checked, no faults\n")


@pytest.mark.usefixtures("both")
def test_faults_of_the_spool_are_told_each(run: Run, ids: list[str], config: Path) -> None:
    spool = config.parent / "state" / "spool" / "0"
    connection = sqlite3.connect(spool / "spool.db")
    connection.execute("DELETE FROM content WHERE number = 1")
    connection.execute("UPDATE content SET body = x'00' WHERE number = 2")
    connection.execute("UPDATE content SET body = NULL, file = 'missing-00' WHERE number = 3")
    connection.execute(
        "INSERT INTO recipient (number, message, address, route_id, domain, state, due, attempts, handed_over, reply)"
        " VALUES (99, 98, 'x@example.com', 'r', 'example.com', 'lost', 0, 0, 0, '')"
    )
    connection.commit()
    connection.close()
    orphan = spool / "body" / "ab" / "01a1fd6c-4e43-73f1-ba71-c3f9be1a25ab"
    orphan.write_bytes(b"x")
    os.utime(orphan, (NOW - 7200, NOW - 7200))
    (spool / "body" / "cd" / "core").write_bytes(b"x")
    ran = run("verify", "--json")
    assert ran.code == os.EX_DATAERR
    assert {(row["kind"], row["where"], row["id"]) for row in ran.rows} == {
        ("content", "message 1", ids[0]),
        ("content", "content 2", ids[1]),
        ("content", "content 3", ids[2]),
        ("recipient", "recipient 99", None),
        ("orphan", f"body file {orphan.name}", None),
        ("orphan", "file body/cd/core", None),
    }


# -- what goes on


def on_terminal(config: Path, *argv: str) -> tuple[subprocess.Popen[bytes], int]:
    """The tool on a terminal of 120 columns and 20 lines, and the terminal's other end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 120, 0, 0))
    command = [sys.executable, "-m", "lettermta.ops.queue", "-c", str(config), *argv]
    process = subprocess.Popen(command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    return process, master


def read_until(master: int, words: bytes) -> bytes:
    said = b""
    while words not in said:
        assert select.select([master], [], [], 30)[0], said
        said += os.read(master, 65_536)
    return said


@pytest.mark.usefixtures("both")
def test_top_shows_the_queue_live_and_puts_the_terminal_back(config: Path) -> None:
    process, master = on_terminal(config, "top")
    screen = read_until(master, b"\x1b[J")
    assert screen.startswith(b"\x1b[?1049h")
    lines = [re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line).decode() for line in screen.split(b"\r\n")]
    assert "4 recipients in the queue, by destination" in lines[0]
    assert [line.split()[0] for line in lines if "example." in line] == ["3", "1"]
    assert max(map(len, lines)) <= 120
    assert b"t tag" in read_until(master, b"q quit")
    os.write(master, b"t")
    assert b" red" in read_until(master, b"by tag") + read_until(master, b"\x1b[J")
    os.write(master, b"q")
    assert read_until(master, b"\x1b[?1049l").endswith(b"\x1b[?25h\x1b[?1049l")
    assert process.wait(timeout=30) == os.EX_OK
    assert termios.tcgetattr(master)[3] & termios.ECHO
    os.close(master)


@pytest.mark.usefixtures("ids")
def test_top_outlives_the_daemon_it_looks_at(config: Path, daemon: Callable[..., subprocess.Popen[str]]) -> None:
    up = daemon()
    process, master = on_terminal(config, "top", "--tag", "red")
    read_until(master, b"2 recipients in the queue")
    up.terminate()
    up.wait(timeout=30)
    read_until(master, b"the daemon does not answer")
    daemon()
    read_until(master, b"2 recipients in the queue")
    os.write(master, b"q")
    assert process.wait(timeout=30) == os.EX_OK
    os.close(master)


def test_events_are_followed_as_they_come(run: Run, ids: list[str], config: Path, daemon: Callable[..., None]) -> None:
    daemon()
    process, master = on_terminal(config, "events", "--follow", "--event", "message.canceled")
    run("remove", "--recipient", "a@example.com")
    assert ids[0].encode() in read_until(master, b"a@example.com")
    run("remove", "--recipient", "c@example.com")
    assert b"message.canceled" in read_until(master, b"c@example.com")
    process.terminate()
    process.wait(timeout=30)
    os.close(master)


def test_long_work_tells_how_far_it_is(config: Path) -> None:
    desk = Desk(config.parent / "state" / "spool" / "0")
    desk.store(*[f"user{number}@example.com" for number in range(1200)])
    desk.close()
    process, master = on_terminal(config, "hold", "--all")
    read_until(master, b"hold 1200 recipients? [y/N] ")
    os.write(master, b"y\n")
    said = read_until(master, b"1200 recipients held")
    assert b"\r\x1b[K500 of 1200" in said
    assert b"\r\x1b[K1000 of 1200" in said
    assert process.wait(timeout=30) == os.EX_OK
    os.close(master)


def test_work_that_is_broken_off_says_how_far_it_came(run: Run, ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(*_: object) -> Iterator[int]:
        yield 2
        raise KeyboardInterrupt

    monkeypatch.setattr(Offline, "steps", steps)
    ran = run("hold", "--all", "--yes")
    assert (ran.code, ran.err) == (130, "broken off: 2 of 3 recipients held, maybe a few more\n")
