"""The whole daemon on a disk that is full, has no inodes left, or fails its syncs (HARD-CASES row 26).

A full disk is a real file system, small and in a mount namespace of its own; a failing one is the crash suite's layer between the daemon
and its files.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from crash.power import Layer, build
from tests.system.program import PATIENCE
from tests.system.site import BIN, MX, Daemon, Site, free_port, mail

MOUNT = 'cp -a "$0" "$0.kept" && mount -t tmpfs -o size=40m,nr_inodes=1500 none "$0" && cp -a "$0.kept/." "$0" && exec "$@"'


def health(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    raise AssertionError(f"there is no {name}")


def said_to(daemon: Daemon, *, size: int = 0) -> str:
    """What a client is told in the end, by the first refusal or by the 250."""
    with daemon.client() as client:
        for code, said in (client.mail("app@sender.test"), client.rcpt("you@example.test")):
            if code != 250:
                return f"{code} {said.decode()}"
        code, said = client.data(mail(body="x" * 70 + "\r\n" if not size else ("x" * 70 + "\r\n") * (size // 72)))
        return f"{code} {said.decode()}"


def until(true: Callable[[], bool], what: str) -> None:
    """Ask until it is so; each question is a connection or a run of a tool."""
    limit = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < limit, what


def identifier_of(said: str) -> str:
    assert said.startswith("250 2.0.0 Ok: queued as "), said
    return said.rpartition(" ")[2]


def counted(receiver: object, identifiers: list[str]) -> list[int]:
    output: str = receiver.output  # type: ignore[attr-defined]
    return [output.count(f"id {identifier};") for identifier in identifiers]


# -- a disk that is full


class Mounted:
    """A daemon whose state is on a file system of 40 MB; others fill it, and the tools see it, as the kernel shows it for the process."""

    def __init__(self, site: Site) -> None:
        unshare = shutil.which("unshare")
        assert unshare, "unshare is missing (Debian: util-linux)"
        self.http = free_port()
        settings = {
            "limits": {"free_space": "8MB"},
            "http": {"listen": f"127.0.0.1:{self.http}"},
            "events": {"json_log": "state/events.jsonl"},
        }
        self.daemon = daemon = site.daemon("full", settings)
        state = daemon.directory / "state"
        daemon.wrapper = [unshare, "--mount", "--map-root-user", "sh", "-c", MOUNT, str(state)]
        daemon.start()
        self.state = Path(f"/proc/{daemon.running.pid}/root{state}")
        assert self.state.stat().st_dev != state.stat().st_dev, "no file system may be mounted here (root, or a user namespace)"
        inside = daemon.config.read_text().replace("state_dir = state", f"state_dir = {self.state}")
        daemon.config = daemon.directory / "tools.ini"
        daemon.config.write_text(inside)

    def verified(self) -> str:
        """What the check of the whole spool has found; it opens the files themselves, so it has to be where they are."""
        inside = ["nsenter", f"--target={self.daemon.running.pid}", "--mount", "--user", "--preserve-credentials"]
        command = [*inside, str(BIN / "lettermta-queue"), "-c", str(self.daemon.directory / "mta.ini"), "verify", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def fill(self) -> None:
        with (self.state / "somebody").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 65_536)

    def make_room(self) -> None:
        (self.state / "somebody").unlink()

    def take_all_inodes(self) -> None:
        (self.state / "many").mkdir()
        with pytest.raises(OSError, match="No space left"):
            for number in range(100_000):
                (self.state / "many" / str(number)).touch()

    def give_inodes(self) -> None:
        shutil.rmtree(self.state / "many")

    def is_working(self) -> bool:
        return metric(self.http, 'lettermta_spool_condition{condition="working"}') == 1


def test_on_a_full_disk_new_mail_has_to_come_again_and_all_else_goes_on(site: Site) -> None:
    """HARD-CASES row 26: disk full, no inodes: 452 4.3.1 before accepting, and it recovers by itself."""
    full = Mounted(site)
    daemon = full.daemon
    receiver = site.receiver(MX)
    daemon.tool("lettermta-queue", "hold", "--where", "domain=example.test", "--yes")
    waiting = [daemon.send(mail(), f"w{number}@example.test") for number in range(5)]
    waiting.append(identifier_of(said_to(daemon, size=300_000)))
    assert [row["state"] for row in daemon.queue()] == ["held"] * 6

    full.fill()
    until(lambda: said_to(daemon).startswith("452 4.3.1 "), "new mail is still taken on a full disk")
    assert said_to(daemon, size=300_000).startswith("452 4.3.1 ")
    code, text = health(full.http)
    assert code == 503
    assert "the spool takes no new mail" in text
    assert not full.is_working()
    daemon.running.line("the spool takes no new mail, it is (low|full)")

    # What was acknowledged is released, sent and recorded all the same.
    daemon.tool("lettermta-queue", "release", "--rule", "1", "--yes")
    for identifier in waiting:
        receiver.received(identifier)
    daemon.queue_until(lambda rows: not rows)
    assert said_to(daemon).startswith("452 4.3.1 ")

    full.make_room()
    until(full.is_working, "it does not recover when there is room")
    assert health(full.http)[0] == 200
    daemon.running.line("the spool is working again")
    after = [identifier_of(said_to(daemon)), identifier_of(said_to(daemon, size=300_000))]

    full.take_all_inodes()
    until(lambda: said_to(daemon, size=300_000).startswith("452 4.3.1 "), "new mail is still taken without inodes")
    full.give_inodes()
    until(full.is_working, "it does not recover when there are inodes")
    after.append(identifier_of(said_to(daemon, size=300_000)))

    all_sent = [*waiting, *after]
    for identifier in all_sent:
        receiver.received(identifier)
    assert counted(receiver, all_sent) == [1] * len(all_sent)
    daemon.queue_until(lambda rows: not rows)
    assert full.verified() == ""
    until(lambda: _delivered(full.state / "events.jsonl") >= set(all_sent), "the event log is not complete")
    daemon.stop()
    receiver.end()


def _delivered(log: Path) -> set[str]:
    documents = [json.loads(line) for line in log.read_text().splitlines()]
    return {document["data"]["message_id"] for document in documents if document["event"] == "message.delivered"}


# -- a disk that fails


def test_a_failed_sync_is_no_success_the_second_time_and_nothing_acknowledged_is_lost(site: Site, tmp_path: Path) -> None:
    """HARD-CASES row 26: EIO from fsync, retry of a failed fsync: the write counts as lost, the client is told 452 4.3.1, and it goes on
    by itself once the disk does."""
    http = free_port()
    fault = tmp_path / "fault"
    directory = site.directory / "failing"
    layer = Layer(directory.resolve(), site.directory / "failing.journal")
    environment = {**layer.environment(build(tmp_path)), "CRASH_FAULT": str(fault)}
    daemon = site.daemon("failing", {"http": {"listen": f"127.0.0.1:{http}"}}, env=environment)
    receiver = site.receiver(MX, script=[{"stage": "DOT", "delay": 2, "times": 1}])
    daemon.start()
    before = [daemon.send(mail(), "slow@example.test"), identifier_of(said_to(daemon))]

    fault.touch()
    assert said_to(daemon).startswith("452 4.3.1 "), "acknowledged without a sync"
    assert said_to(daemon, size=300_000).startswith("452 4.3.1 ")
    code, text = health(http)
    assert (code, "broken" in text) == (503, True)
    assert metric(http, 'lettermta_spool_condition{condition="broken"}') == 1
    assert metric(http, "lettermta_spool_commit_failures_total") >= 1
    daemon.running.line("the spool takes no new mail, it is broken")
    # The slow one's 250 comes now, and can't be put on record: it is kept in hand, and not sent again.
    daemon.running.line("what came of an attempt could not be stored")

    fault.unlink()
    daemon.running.line("the spool is working again")
    until(lambda: health(http)[0] == 200, "it does not say that it is well again")
    after = [identifier_of(said_to(daemon)), identifier_of(said_to(daemon, size=300_000))]
    for identifier in after:
        receiver.received(identifier)
    daemon.queue_until(lambda rows: not rows)
    assert counted(receiver, [*before, *after]) == [1] * 4
    daemon.stop()
    for identifier in [*before, *after]:
        # A line whose sync failed counts as not written, and is written again: the same event, told by its id.
        told = {one["id"]: one["event"] for one in daemon.events(identifier)}
        assert list(told.values()) == ["message.created", "message.sent", "message.delivered"]
