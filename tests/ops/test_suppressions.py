"""``lettermta-admin suppression``, with the daemon up and with it down."""

from __future__ import annotations

import csv
import fcntl
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lettermta.accounts.store import AccountStore
from lettermta.ops import admin

from .tool import Ran, Run

Admin = Callable[..., Ran]


@pytest.fixture
def tool(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Admin:
    """``lettermta-admin suppression``."""

    def tool(*argv: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        try:
            code = admin.main(["-c", str(config), "suppression", *argv])
        except SystemExit as done:
            code = done.code  # type: ignore[assignment]
        return Ran(code, *capsys.readouterr())

    return tool


@pytest.fixture
def accounts(config: Path) -> AccountStore:
    (config.parent / "state").mkdir(exist_ok=True)
    store = AccountStore(config.parent / "state")
    store.create_project("demo")
    store.create_project("other")
    store.create_route("demo", "news")
    return store


@pytest.fixture(params=["up", "down"])
def site(request: pytest.FixtureRequest, accounts: AccountStore, daemon: Callable[..., None]) -> AccountStore:
    if request.param == "up":
        daemon()
    return accounts


def values(tool: Admin, *options: str) -> list[str]:
    ran = tool("list", "--json", *options)
    assert ran.code == 0
    return [row["value"] for row in ran.rows]


def told(run: Run) -> list[tuple[str, str]]:
    return [(row["event"], row["data"]["value"]) for row in run("events", "--json").rows]


def test_the_fixed_forms_of_the_design_work(site: AccountStore, tool: Admin, run: Run) -> None:
    added = tool("add", "--project", "demo", "Jane@Example.com")
    assert (added.code, added.out) == (0, "")
    assert added.err == "nothing is sent to jane@example.com in project demo (manual)\n"
    [row] = tool("list", "--project", "demo", "--json").rows
    project = site.project("demo")
    assert {name: row[name] for name in row if name not in ("id", "created")} == {
        "type": "email", "value": "jane@example.com", "reason": "manual", "applies_to": "all", "scope": "project",
        "project_id": project.id, "project": "demo", "route_id": None, "route": None, "message_id": None,
    }  # fmt: skip
    assert values(tool, "--project", "demo", "JANE@example.com") == ["jane@example.com"]
    removed = tool("remove", "--project", "demo", "jane@EXAMPLE.com", "--json")
    assert (removed.code, removed.rows) == (0, [row])
    assert values(tool) == []
    assert told(run) == [("suppression.added", "jane@example.com"), ("suppression.removed", "jane@example.com")]


def test_adding_twice_changes_nothing_and_is_no_fault(accounts: AccountStore, tool: Admin, run: Run) -> None:
    first = tool("add", "--project", "demo", "jane@example.com", "--json").rows
    again = tool("add", "--project", "demo", "jane@example.com", "--json")
    assert (again.code, again.rows) == (0, first)
    assert again.err == "already nothing is sent to jane@example.com in project demo (manual)\n"
    assert len(told(run)) == 1


@pytest.mark.usefixtures("site")
def test_the_scopes_are_apart(tool: Admin) -> None:
    tool("add", "--project", "demo", "p@x.test")
    tool("add", "--project", "demo", "--route", "news", "r@x.test", "--reason", "unsubscribe")
    tool("add", "--project", "other", "o@x.test")
    tool("add", "--global", ".invalid", "--reason", "hard_bounce")
    assert values(tool) == ["p@x.test", "r@x.test", "o@x.test", ".invalid"]
    assert values(tool, "--project", "demo") == ["p@x.test", "r@x.test"]
    assert values(tool, "--project", "demo", "--route", "news") == ["r@x.test"]
    assert values(tool, "--global") == [".invalid"]
    assert values(tool, "--reason", "unsubscribe") == ["r@x.test"]
    assert tool("remove", "--project", "demo", "r@x.test").code == os.EX_NOUSER
    assert tool("remove", "--global", ".INVALID").code == 0
    table = tool("list").out.splitlines()
    assert [line.split()[:4] for line in table] == [
        ["VALUE", "REASON", "APPLIES", "TO"],
        ["p@x.test", "manual", "all", "demo"],
        ["r@x.test", "unsubscribe", "broadcast", "demo/news"],
        ["o@x.test", "manual", "all", "other"],
    ]


@pytest.mark.usefixtures("site")
def test_one_of_several_reasons_can_be_removed(tool: Admin) -> None:
    for reason in ("manual", "hard_bounce"):
        tool("add", "--project", "demo", "jane@example.com", "--reason", reason)
    assert tool("remove", "--project", "demo", "jane@example.com", "--reason", "manual").code == 0
    assert [row["reason"] for row in tool("list", "--json").rows] == ["hard_bounce"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("add", "jane@example.com"), os.EX_USAGE, "for whose mail?"),
        (("add", "--project", "demo", "--global", "jane@example.com"), os.EX_USAGE, "either --project or --global"),
        (("list", "--project", "demo", "--global"), os.EX_USAGE, "either --project or --global"),
        (("add", "--project", "none", "jane@example.com"), os.EX_NOUSER, "there is no project none"),
        (("add", "--project", "demo", "--route", "none", "jane@example.com"), os.EX_NOUSER, "project demo has no route none"),
        (("add", "--project", "demo", "jane doe@example.com"), os.EX_DATAERR, "'jane doe@example.com' is no address"),
        (("add", "--project", "demo", "jane\udce9@example.com"), os.EX_DATAERR, "is no address"),
        (("add", "--project", "demo", "jane@example.com", "--reason", "whim"), os.EX_USAGE, "invalid SuppressionReason value: 'whim'"),
        (("remove", "--project", "demo", "jane@example.com"), os.EX_NOUSER, "jane@example.com is not suppressed in project demo"),
        (("import", "--project", "demo", "/nowhere/list.csv"), os.EX_NOINPUT, "/nowhere/list.csv"),
    ],
)
@pytest.mark.usefixtures("accounts")
def test_what_can_not_be_done_is_said_and_changes_nothing(tool: Admin, argv: tuple[str, ...], code: int, words: str) -> None:
    ran = tool(*argv)
    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert values(tool) == []


IMPORTED = "\ufeffEmail,Reason\n# a word\n\nA@x.test,hard_bounce\nb+c@x.test,\n  example.org , unsubscribe\n"


@pytest.mark.usefixtures("site")
def test_a_list_is_imported_line_by_line(tool: Admin, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(IMPORTED)
    ran = tool("import", "--project", "demo", str(path), "--json")
    assert (ran.code, ran.rows) == (0, [{"read": 3, "added": 3, "known": 0, "faults": 0}])
    assert [(row["value"], row["reason"], row["applies_to"]) for row in tool("list", "--json").rows] == [
        ("a@x.test", "hard_bounce", "all"), ("b+c@x.test", "manual", "all"), ("example.org", "unsubscribe", "broadcast")
    ]  # fmt: skip
    again = tool("import", "--project", "demo", stdin=b"a@x.test\nnew@x.test\n")
    assert (again.code, again.err) == (0, "2 read: 2 added, 0 were there already\n")
    last = tool("import", "--project", "demo", stdin=b"a@x.test\nnew@x.test\n")
    assert last.err == "2 read: 0 added, 2 were there already\n"


def test_lines_that_make_no_sense_are_named_and_the_rest_is_in(accounts: AccountStore, tool: Admin) -> None:
    lines = (
        b'good@x.test\nnot an address\n"x@x.test",whim\n{"value": "json@x.test", "reason": "spam_complaint"}\n[1]\n{bad\n'
        b'b\xe9d@x.test\n{"reason":"manual"}\nlast@x.test'
    )
    ran = tool("import", "--project", "demo", "-", stdin=lines)
    assert ran.code == os.EX_DATAERR
    said = ran.err.splitlines()
    assert [line.split(":")[1] for line in said[:6]] == ["2", "3", "5", "6", "7", "8"]
    assert said[1] == "standard input:3: 'whim': expected one of spam_complaint, hard_bounce, unsubscribe, manual"
    assert said[6:] == [
        "3 read: 3 added, 0 were there already",
        "6 lines of standard input were left out, as said above; all others are in",
    ]
    assert values(tool) == ["good@x.test", "json@x.test", "last@x.test"]


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.usefixtures("site")
def test_what_is_exported_can_be_imported(tool: Admin, form: tuple[str, ...]) -> None:
    tool("import", "--project", "demo", stdin='a@x.test,unsubscribe\n"j,o"@x.test\njürgen@münchen.de,,broadcast\n.test,manual\n'.encode())
    exported = tool("export", "--project", "demo", *form).out
    before = [(row["value"], row["reason"], row["applies_to"]) for row in tool("list", "--json").rows]
    assert tool("import", "--project", "other", stdin=exported.encode()).code == 0
    after = [(row["value"], row["reason"], row["applies_to"]) for row in tool("list", "--json", "--project", "other").rows]
    assert after == before
    if not form:
        assert next(csv.reader(exported.splitlines())) == ["value", "reason", "applies_to", "scope", "project", "route", "created"]


@pytest.mark.usefixtures("accounts")
def test_what_was_for_one_route_goes_back_to_that_route(tool: Admin) -> None:
    for options in (("--route", "news", "a@x.test"), ("b@x.test",), ("--route", "news", "c@x.test")):
        tool("add", "--project", "demo", *options)
    exported = tool("export", "--project", "demo").out
    for address in ("a@x.test", "c@x.test"):
        tool("remove", "--project", "demo", "--route", "news", address)
    assert tool("import", "--project", "demo", stdin=exported.encode()).err == "3 read: 2 added, 1 were there already\n"
    rows = tool("list", "--project", "demo", "--json").rows
    assert {(row["value"], row["route"]) for row in rows} == {("a@x.test", "news"), ("b@x.test", None), ("c@x.test", "news")}
    ran = tool("import", "--project", "other", stdin=exported.encode())
    assert ran.code == os.EX_DATAERR
    assert "standard input:2: project other has no route news" in ran.err, "it isn't made wider than it was"
    assert values(tool, "--project", "other") == ["b@x.test"]


@pytest.mark.parametrize(
    ("separator", "heading"), [(";", "Name{}E-Mail{}Reason"), ("\t", "name{}email address{}reason"), (",", "x{}Email{}reason")]
)
@pytest.mark.usefixtures("accounts")
def test_tables_come_with_semicolons_and_tabs_too(tool: Admin, separator: str, heading: str) -> None:
    lines = [heading.replace("{}", separator), separator.join(('"Doe, Jane; Ms"', "Jane@x.test", "unsubscribe"))]
    ran = tool("import", "--project", "demo", stdin=("\ufeff" + "\r\n".join(lines) + "\r\n").encode())
    assert (ran.code, ran.err) == (0, "1 read: 1 added, 0 were there already\n")
    [row] = tool("list", "--json").rows
    assert (row["value"], row["reason"]) == ("jane@x.test", "unsubscribe")


def test_a_large_import_goes_in_in_steps_and_can_be_silent(site: AccountStore, tool: Admin, run: Run) -> None:
    many = "".join(f"{'x' * (number % 60)}{number}@example{number % 7}.com\n" for number in range(3000))
    ran = tool("import", "--global", "--reason", "hard_bounce", "--no-events", stdin=many.encode())
    assert ran.err == "3000 read: 3000 added, 0 were there already\n"
    assert len(values(tool)) == 3000
    assert told(run) == []
    ran = tool("import", "--global", "--reason", "manual", stdin=many.encode())
    assert len(told(run)) == 3000


def test_before_the_first_start_of_a_daemon(accounts: AccountStore, tool: Admin, config: Path, daemon: Callable[..., None]) -> None:
    """An operator who moves over brings the list along first."""
    directory = config.parent / "state" / "spool" / "0"
    assert (values(tool), directory.exists()) == ([], False)
    assert tool("add", "--project", "demo", "jane@example.com").code == 0
    assert (directory / "spool.db").stat().st_mode & 0o777 == 0o600
    daemon()
    assert values(tool) == ["jane@example.com"]


def test_while_a_daemon_starts_or_stops_it_is_to_be_tried_again(accounts: AccountStore, tool: Admin, config: Path) -> None:
    tool("add", "--project", "demo", "jane@example.com")
    with (config.parent / "state" / "spool" / "0" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = tool("add", "--project", "demo", "joe@example.com")
    assert ran.code == os.EX_TEMPFAIL
    assert "try again" in ran.err
    assert values(tool) == ["jane@example.com"]


def test_what_was_added_with_the_daemon_down_is_told_by_the_next_one(
    accounts: AccountStore, tool: Admin, run: Run, daemon: Callable[..., None], config: Path
) -> None:
    tool("add", "--project", "demo", "jane@example.com")
    daemon()
    tool("add", "--project", "demo", "joe@example.com")
    assert told(run) == [("suppression.added", "jane@example.com"), ("suppression.added", "joe@example.com")]
