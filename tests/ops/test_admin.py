"""``lettermta-admin`` as its user meets it: what it prints where, and the codes it exits with."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import SmarthostTLS
from lettermta.ops import admin
from lettermta.ops.privileges import become_owner
from lettermta.smtp.tls import self_signed

CONFIG = """\
[mta]
state_dir = state
hostname = mta.example
[listener a]
ports = 2525
"""


@frozen
class Ran:
    code: int
    out: str
    err: str

    @property
    def object(self) -> dict[str, Any]:
        (line,) = self.out.splitlines()
        shown: dict[str, Any] = json.loads(line)
        return shown


Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mta.ini"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*argv: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        try:
            code = admin.main([*argv, "-c", str(config)])
        except SystemExit as done:
            assert isinstance(done.code, int)
            code = done.code
        return Ran(code, *capsys.readouterr())

    return run


def test_the_fixed_forms_of_the_design_work(run: Run, tmp_path: Path) -> None:
    assert run("project", "create", "demo", "--no-smtp").code == 0
    route = run("route", "create", "--project", "demo", "news", "--kind", "broadcast", "--transport", "capture", "--default")
    assert (route.code, route.out) == (0, "")
    token = run("token", "create", "--project", "demo", "--name", "the shop")
    assert token.code == 0
    assert re.fullmatch(r"lm_[A-Za-z0-9]{43}\n", token.out)
    imported = run("token", "create", "--project", "demo", "--import", "secret")
    assert (imported.code, imported.out) == (0, "secret\n")

    directory = Directory(tmp_path / "state")
    project = directory.project_by_slug("demo")
    live = directory.token_by_secret(b"secret")
    assert project is not None
    assert live is not None
    assert not project.smtp
    assert (default := directory.default_route(project.id)) is not None
    assert default.slug == "news"
    assert live.revoked is None
    assert run("token", "revoke", live.id).code == 0
    assert (revoked := directory.token_by_secret(b"secret")) is not None
    assert revoked.revoked is not None
    directory.close()


def test_the_config_option_stands_before_or_behind_the_command(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(["-c", str(config), "--json", "project", "create", "demo"]) == 0
    assert json.loads(capsys.readouterr().out)["slug"] == "demo"
    assert admin.main(["project", "-c", str(config), "show", "demo"]) == 0
    assert admin.main(["project", "show", "demo", "--config", str(config)]) == 0


def test_the_config_comes_from_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTERMTA_CONFIG", str(config))
    assert admin.main(["project", "create", "demo"]) == 0


def test_json_is_one_object_a_line(run: Run) -> None:
    created = run("project", "create", "demo", "--message-size", "25MB", "--recipients", "50", "--json").object
    assert created == run("project", "show", "demo", "--json").object
    assert (created["smtp"], created["message_size"], created["recipients"]) == (True, 26214400, 50)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", created["created"])
    run("project", "create", "other")
    assert [json.loads(line)["slug"] for line in run("project", "list", "--json").out.splitlines()] == ["demo", "other"]
    token = run("token", "create", "--project", "demo", "--json").object
    shown = run("token", "show", token["id"], "--json").object
    assert shown == {name: value for name, value in token.items() if name != "token"}
    assert run("token", "list", "--project", "demo", "--json").object == shown
    assert shown["hint"] == token["token"][:5] + "…"
    assert run("token", "revoke", token["id"], "--json").object["revoked"] is not None
    assert run("token", "update", token["id"], "--name", "new", "--json").object["name"] == "new"
    assert run("token", "delete", token["id"], "--yes", "--json").object["id"] == token["id"]
    assert run("token", "list", "--project", "demo", "--json").out == ""
    assert run("check-config", "--json").object["ok"] is True


def test_lists_are_aligned_under_a_heading(run: Run) -> None:
    run("project", "create", "a")
    run("project", "create", "a-long-slug", "--no-smtp", "--message-size", "1KB")
    heading, *rows = run("project", "list").out.splitlines()
    assert heading.split() == ["SLUG", "SMTP", "MESSAGE", "SIZE", "RECIPIENTS", "CHECK", "SENDER", "CREATED", "ID"]
    column = heading.index("SMTP")
    assert [row[column:].split()[0] for row in rows] == ["yes", "no"]
    assert [row[: column - 2].strip() for row in rows] == ["a", "a-long-slug"]


def test_a_project_is_updated(run: Run) -> None:
    run("project", "create", "demo", "--no-smtp", "--message-size", "1KB")
    assert run("project", "update", "demo", "--recipients", "9", "--json").object["smtp"] is False
    updated = run("project", "update", "demo", "--smtp", "--message-size", "default", "--json").object
    assert (updated["smtp"], updated["message_size"], updated["recipients"]) == (True, None, 9)
    assert run("project", "update", "demo").code == os.EX_USAGE


def test_checking_senders_is_a_projects_choice(run: Run) -> None:
    assert run("project", "create", "demo", "--json").object["check_sender"] is False
    run("project", "create", "strict", "--check-sender")
    assert run("project", "show", "strict", "--json").object["check_sender"] is True
    assert run("project", "update", "strict", "--recipients", "9", "--json").object["check_sender"] is True
    assert run("project", "update", "strict", "--no-check-sender", "--json").object["check_sender"] is False


def test_a_project_that_checks_senders_without_a_domain_is_told_of(run: Run) -> None:
    assert "all its mail is refused" in run("project", "create", "demo", "--check-sender").err
    run("domain", "create", "--project", "demo", "example.com")
    assert "refused" not in run("project", "update", "demo", "--recipients", "9").err


def test_a_domain_is_added_listed_and_removed(run: Run, tmp_path: Path) -> None:
    run("project", "create", "demo")
    name = ("--project", "demo", "MÜNCHEN.example")
    created = run("domain", "create", *name, "--json").object
    assert (created["project"], created["domain"]) == ("demo", "xn--mnchen-3ya.example")
    assert run("domain", "show", "--project", "demo", "xn--mnchen-3ya.example", "--json").object == created
    said = run("domain", "create", "--project", "demo", "a.example")
    assert said.code == 0
    assert "publish these records" in said.err
    assert "--check-sender" in said.err
    heading, first, second = run("domain", "list", "--project", "demo").out.splitlines()
    assert heading.split() == ["DOMAIN", "RETURN", "PATH", "VERIFIED", "CREATED", "ID"]
    assert (first.split()[0], second.split()[0]) == ("a.example", "xn--mnchen-3ya.example")
    assert run("domain", "delete", *name, "--yes", "--json").object["id"] == created["id"]

    directory = Directory(tmp_path / "state")
    project = directory.project_by_slug("demo")
    assert project is not None
    assert directory.domains(project.id) == {"a.example"}
    directory.close()


def test_a_route_has_a_schedule_and_a_lifetime_of_its_own(run: Run) -> None:
    run("project", "create", "demo")
    news = ("--project", "demo", "news", "--json")
    created = run("route", "create", *news, "--schedule", "5m, 1h 4h", "--lifetime", "2d").object
    assert (created["schedule"], created["lifetime"]) == ([300.0, 3600.0, 14400.0], 172800.0)
    updated = run("route", "update", *news, "--lifetime", "12h").object
    assert (updated["schedule"], updated["lifetime"]) == ([300.0, 3600.0, 14400.0], 43200.0)
    assert "300, 3600, 14400" in run("route", "list", "--project", "demo").out
    given_back = run("route", "update", *news, "--schedule", "default", "--lifetime", "default").object
    assert (given_back["schedule"], given_back["lifetime"]) == (None, None)


def test_a_route_says_what_its_mail_wants_of_tls(run: Run) -> None:
    run("project", "create", "demo")
    news = ("--project", "demo", "news", "--json")
    assert run("route", "create", *news).object["tls"] is None
    assert run("route", "update", *news, "--tls", "require").object["tls"] == "require"
    assert "require" in run("route", "list", "--project", "demo").out
    assert run("route", "update", *news, "--tls", "default").object["tls"] is None
    refused = run("route", "update", *news, "--tls", "always")
    assert refused.code == os.EX_USAGE and "'always' is none of opportunistic, require, off, default" in refused.err


def test_a_route_says_what_its_mail_tells_of_the_client(run: Run) -> None:
    run("project", "create", "demo")
    news = ("--project", "demo", "news", "--json")
    created = run("route", "create", *news, "--received", "anonymous", "--mint-message-id").object
    assert (created["received"], created["mint_message_id"]) == ("anonymous", True)
    updated = run("route", "update", *news, "--received", "none").object
    assert (updated["received"], updated["mint_message_id"]) == ("none", True)
    assert run("route", "update", *news, "--keep-message-id").object["mint_message_id"] is False
    outgoing = run("route", "show", "--project", "demo", "outgoing", "--json").object
    assert (outgoing["received"], outgoing["mint_message_id"]) == ("default", False)


def test_a_smarthost_is_given_changed_and_taken_away(run: Run, tmp_path: Path) -> None:
    run("project", "create", "demo")
    relay = ("--project", "demo", "relay", "--json")
    (tmp_path / "password").write_text("hunter2\n")
    login = ("--smarthost-user", "bob", "--smarthost-password-file", str(tmp_path / "password"))
    created = run("route", "create", *relay, "--transport", "smarthost", "--smarthost", "[::1]:2526", *login)
    assert created.object["smarthost"] == {"host": "::1", "port": 2526, "tls": "require", "username": "bob"}
    assert "hunter2" not in created.out + created.err + run("route", "show", *relay).out + run("route", "show", *relay[:-1]).out
    run("route", "update", *relay, "--smarthost", "relay.example:465", "--smarthost-tls", "implicit")

    directory = Directory(tmp_path / "state")
    route = directory.route_by_id(created.object["id"])
    assert route is not None
    assert route.smarthost is not None
    assert (route.smarthost.host, route.smarthost.tls, route.smarthost.password) == ("relay.example", SmarthostTLS.IMPLICIT, "hunter2")
    run("route", "update", *relay, "--smarthost-password-file", "-", stdin="changed\n")
    assert (route := directory.route_by_id(route.id)) is not None
    assert route.smarthost is not None
    assert (route.smarthost.username, route.smarthost.password) == ("bob", "changed")
    directory.close()

    assert run("route", "update", *relay, "--smarthost-user", "").object["smarthost"]["username"] is None
    assert run("route", "update", *relay, "--transport", "discard").object["smarthost"] is None


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        ((), os.EX_USAGE),
        (("project",), os.EX_USAGE),
        (("project", "explode", "demo"), os.EX_USAGE),
        (("project", "create", "demo2", "--recipients", "none"), os.EX_USAGE),
        (("project", "create", "demo2", "--message-size", "big"), os.EX_USAGE),
        (("project", "update", "demo", "--recip", "5"), os.EX_USAGE),
        (("route", "create", "--project", "demo", "x", "--transport", "pigeon"), os.EX_USAGE),
        (("route", "create", "--project", "demo", "x", "--transport", "smarthost"), os.EX_USAGE),
        (("route", "create", "--project", "demo", "x", "--transport", "mx", "--smarthost", "relay:25"), os.EX_USAGE),
        (("route", "create", "--project", "demo", "x", "--smarthost", "relay:port"), os.EX_USAGE),
        (("route", "create", "--project", "demo", "x", "--smarthost", "relay:25", "--smarthost-user", "bob"), os.EX_DATAERR),
        (("route", "create", "--project", "demo", "x", "--smarthost", "r:25", "--smarthost-password-file", "/nowhere"), os.EX_NOINPUT),
        (("route", "update", "--project", "demo", "outgoing"), os.EX_USAGE),
        (("route", "delete", "--project", "demo", "outgoing", "--yes"), os.EX_DATAERR),
        (("route", "update", "--project", "demo", "outgoing", "--received", "half"), os.EX_USAGE),
        (("route", "update", "--project", "demo", "outgoing", "--mint-message-id", "--keep-message-id"), os.EX_USAGE),
        (("route", "update", "--project", "demo", "outgoing", "--schedule", "soon"), os.EX_USAGE),
        (("route", "update", "--project", "demo", "outgoing", "--lifetime", "5"), os.EX_USAGE),
        (("domain", "create", "example.com"), os.EX_USAGE),
        (("domain", "create", "--project", "demo", "no_domain"), os.EX_DATAERR),
        (("domain", "create", "--project", "demo", "known.example"), os.EX_CANTCREAT),
        (("domain", "create", "--project", "nobody", "example.com"), os.EX_NOUSER),
        (("domain", "show", "--project", "demo", "sub.known.example"), os.EX_NOUSER),
        (("project", "create", "No Slug"), os.EX_DATAERR),
        (("token", "create", "--project", "demo", "--import", "two words"), os.EX_DATAERR),
        (("project", "create", "demo"), os.EX_CANTCREAT),
        (("token", "create", "--project", "demo", "--import", "known"), os.EX_CANTCREAT),
        (("project", "show", "nobody"), os.EX_NOUSER),
        (("route", "show", "--project", "demo", "nowhere"), os.EX_NOUSER),
        (("token", "create", "--project", "nobody"), os.EX_NOUSER),
        (("token", "revoke", "nothing"), os.EX_NOUSER),
    ],
)
def test_a_failure_has_its_exit_code_and_says_why(run: Run, argv: tuple[str, ...], code: int) -> None:
    run("project", "create", "demo")
    run("token", "create", "--project", "demo", "--import", "known")
    run("domain", "create", "--project", "demo", "known.example")
    ran = run(*argv)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.strip()


def test_a_token_is_read_from_standard_input(run: Run) -> None:
    """A command line is open to everyone on the machine."""
    run("project", "create", "demo")
    assert run("token", "create", "--project", "demo", "--import", "-", stdin="lttr_from_elsewhere\n").out == "lttr_from_elsewhere\n"


@pytest.mark.parametrize("noun", ["project", "route", "token", "domain"])
def test_deleting_needs_yes_where_nobody_can_be_asked(run: Run, noun: str) -> None:
    run("project", "create", "demo")
    token = run("token", "create", "--project", "demo", "--json").object["id"]
    argv = {
        "project": ("demo",),
        "route": ("--project", "demo", "news"),
        "token": (token,),
        "domain": ("--project", "demo", "example.com"),
    }[noun]
    if noun in {"route", "domain"}:
        run(noun, "create", *argv)
    refused = run(noun, "delete", *argv, stdin="y\n")
    assert refused.code == os.EX_USAGE
    assert "--yes" in refused.err
    assert run(noun, "show", *argv).code == 0
    assert run(noun, "delete", *argv, "--yes").code == 0
    assert run(noun, "show", *argv).code == os.EX_NOUSER


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", os.EX_NOPERM, 1), ("\n", os.EX_NOPERM, 1)])
def test_deleting_asks_on_a_terminal(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, code: int, left: int
) -> None:
    run("project", "create", "demo")
    mine, theirs = os.openpty()
    os.write(mine, answer.encode())
    with open(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert admin.main(["-c", str(config), "project", "delete", "demo"]) == code
    os.close(mine)
    asked = capsys.readouterr()
    assert "delete project demo with 1 route(s), 0 token(s) and 0 domain(s)? [y/N]" in asked.err
    assert len(run("project", "list", "--json").out.splitlines()) == left


def test_check_config_names_every_fault(run: Run, config: Path) -> None:
    good = run("check-config")
    assert (good.code, good.out) == (0, f"{config} is in order\n")
    config.write_text(CONFIG + "colour = blue\n[paint]\n")
    bad = run("check-config")
    assert (bad.code, bad.out) == (os.EX_CONFIG, "")
    assert "colour" in bad.err
    assert "paint" in bad.err
    assert len(bad.err.splitlines()) == 2
    assert run("project", "list").code == os.EX_CONFIG
    assert run("check-config", "--json").object["ok"] is False
    config.unlink()
    assert run("check-config").code == os.EX_CONFIG


def test_check_config_looks_at_certificates_and_at_what_is_plugged_in(run: Run, config: Path) -> None:
    (config.parent / "junk.pem").write_text("junk")
    mine, other = self_signed(config.parent / "mine", "a.test"), self_signed(config.parent / "other", "b.test")
    with config.open("a") as file:
        file.write(f"[tls]\ncertificate = junk.pem, {mine.certificate}\nprivate_key = {mine.private_key}\n  {other.private_key}\n")
        file.write("[events]\nhooks = no.such.Hook\n[submission]\npolicies = email.message.Message\n")
    checked = run("check-config")
    assert checked.code == os.EX_CONFIG
    junk, mismatch, hook, policy = checked.err.splitlines()
    line = config.read_text().splitlines().index("[tls]") + 2
    assert junk.startswith(f"{config}:{line}: [tls] certificate: {config.parent / 'junk.pem'}: no PEM certificate")
    assert mismatch.startswith(f"{config}:{line + 2}: [tls] private_key: {other.private_key}: not the private key of")
    assert hook.startswith(f"{config}:{line + 4}: [events] hooks: 'no.such.Hook': module 'no.such' cannot be imported")
    assert policy.startswith(f"{config}:{line + 6}: [submission] policies: 'email.message.Message': does not provide")


def test_a_key_that_others_can_read_is_a_matter_of_permission(run: Run, tmp_path: Path) -> None:
    run("project", "create", "demo")
    (tmp_path / "state" / "accounts.key").chmod(0o644)
    ran = run("project", "list")
    assert ran.code == os.EX_NOPERM
    assert "chmod 600" in ran.err


def test_a_reader_that_goes_away_is_no_error(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listing() -> int:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        monkeypatch.setattr(sys, "stdout", os.fdopen(1, "w"))
        return admin.main(["-c", str(config), "project", "list"])

    assert in_child(listing) == 0


def test_the_state_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    become_owner(tmp_path / "lib" / "lettermta")
    assert stat.S_IMODE((tmp_path / "lib" / "lettermta").stat().st_mode) == 0o700


@pytest.fixture
def daemons_place() -> Iterator[Path]:
    """A directory that belongs to a user without a name, where root's tests can give it away, and else to ourselves."""
    place = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(place, 54321, 54322)
    yield place
    shutil.rmtree(place)


def test_root_becomes_the_owner_for_good(daemons_place: Path) -> None:
    owner = daemons_place.stat()

    def become() -> int:
        become_owner(daemons_place / "state")
        wholly = set(os.getresuid()) == {owner.st_uid} and set(os.getresgid()) == {owner.st_gid}
        return 0 if wholly and (os.geteuid() != 54321 or os.getgroups() == []) else 1

    assert in_child(become) == 0
    assert (daemons_place / "state").stat().st_uid == owner.st_uid


def test_root_is_told_of_what_the_daemon_can_not_read(daemons_place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A key that certbot wrote for root alone, say. Who isn't root is the daemon's user here, and reads its own file."""
    pair = self_signed(daemons_place / "tls", "mta.sender.test")
    (daemons_place / "tls").chmod(0o755)
    config = daemons_place / "mta.ini"
    config.write_text(f"{CONFIG}[tls]\ncertificate = {pair.certificate}\nprivate_key = {pair.private_key}\n")
    (daemons_place / "state").mkdir()
    pair.certificate.chmod(0o644)
    if os.geteuid() == 0:
        os.chown(daemons_place / "state", 54321, 54322)
    ended = in_child(lambda: admin.main(["-c", str(config), "check-config"]))
    told = f"[tls] private_key: '{pair.private_key}' can't be read: Permission denied"
    assert (ended, told in capfd.readouterr().err) == ((os.EX_CONFIG, True) if os.geteuid() == 0 else (0, False))


def test_root_leaves_no_files_that_lock_the_daemon_out(daemons_place: Path) -> None:
    config = daemons_place / "mta.ini"
    config.write_text(CONFIG)
    config.chmod(0o600)
    assert in_child(lambda: admin.main(["-c", str(config), "project", "create", "demo"])) == 0
    owners = {path.stat().st_uid for path in (daemons_place / "state").iterdir()}
    assert owners == {daemons_place.stat().st_uid}


def in_child(deed: Callable[[], int]) -> int:
    """What ``deed`` returns in a process of its own, which it may spoil."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(deed())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_webhook_prints_its_secret_once_and_changes_as_told(run: Run) -> None:
    run("project", "create", "demo")
    made = run("webhook", "create", "--project", "demo", "--url", "https://shop.example/hooks", "--events", "message.sent,message.failed")
    assert made.code == 0
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{44}\n", made.out)
    listed = run("webhook", "list", "--project", "demo", "--json")
    identifier = listed.object["id"]
    assert (listed.object["events"], listed.object["disabled"]) == (["message.sent", "message.failed"], None)
    changed = run("webhook", "update", identifier, "--events", "all", "--basic-auth", "-", "--first-soft-bounce-only", stdin="shop:pa:ss\n")
    assert (changed.code, changed.out) == (0, "")
    shown = run("webhook", "show", identifier, "--json")
    assert (shown.object["events"], shown.object["basic_auth"], shown.object["first_soft_bounce_only"]) == (None, "shop", True)
    assert "pa:ss" not in shown.out + run("webhook", "list", "--project", "demo").out
    rotated = run("webhook", "rotate", identifier)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{44}\n", rotated.out)
    assert rotated.out != made.out
    assert run("webhook", "disable", identifier).code == 0
    assert "webhook replay" in run("webhook", "enable", identifier).err
    assert run("webhook", "delete", identifier).code == os.EX_USAGE, "nobody to ask"
    assert run("webhook", "delete", identifier, "--yes").code == 0
    assert run("webhook", "show", identifier).code == os.EX_NOUSER


def test_a_webhook_that_makes_no_sense_is_refused(run: Run) -> None:
    run("project", "create", "demo")
    ask = ("webhook", "create", "--project", "demo", "--url")
    assert run(*ask, "ftp://shop.example").code == os.EX_DATAERR
    assert run(*ask, "https://shop.example", "--events", "delivered").code == os.EX_DATAERR
    assert run(*ask, "https://shop.example", "--route", "nowhere").code == os.EX_NOUSER
    assert run(*ask, "https://shop.example", "--basic-auth", "nopassword").code == os.EX_USAGE
