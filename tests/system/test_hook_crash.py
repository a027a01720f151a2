"""Hooks over deaths of the daemon: between the commit of an event, the hook's turn and its answer (HARD-CASES rows 19 and 26)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import smtplib
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.system.program import PATIENCE
from tests.system.site import Daemon, Site, mail, submit

SEED = int(os.environ.get("LETTERMTA_CRASH_SEED") or secrets.randbelow(10**6))
KILLS = 5
ORDER = ["message.created", "message.sent", "message.delivered"]

# It answers late, so that deaths fall between its turn and its answer; its line is written whole or not at all.
HOOK = """
import os

from twisted.internet import reactor
from twisted.internet.task import deferLater
from zope.interface import implementer

from lettermta.interfaces import IEventHook


@implementer(IEventHook)
class Note:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.count = 0

    def event_happened(self, event):
        self.count += 1
        if self.count == 50:
            raise RuntimeError("not now")
        os.write(self.file, event.payload + b"\\n")
        return deferLater(reactor, 0.002) if self.count % 5 == 0 else None
"""


def daemon_with_hook(site: Site) -> Daemon:
    (site.directory / "hook_of_the_crash_test.py").write_text(HOOK)
    name = "hook_of_the_crash_test.Note"
    path = os.pathsep.join(filter(None, [str(site.directory), os.environ.get("PYTHONPATH")]))
    settings = {"events": {"hooks": name}, f"hook {name}": {"path": str(site.directory / "noted")}}
    daemon = site.daemon("daemon", settings, env={"PYTHONPATH": path})
    daemon.admin("route", "update", "--project", "demo", "outgoing", "--transport", "discard")
    return daemon


def send_until_it_dies(daemon: Daemon, accepted: list[str]) -> None:
    with contextlib.suppress(OSError, smtplib.SMTPException), daemon.client() as client:
        while True:
            accepted.append(submit(client, mail("X-LM-Metadata-order: 7"), "u@example.test"))


def outbox(daemon: Daemon) -> list[dict[str, Any]]:
    """Every event that was committed, as the spool has it."""
    return [json.loads(line) for line in daemon.tool("lettermta-queue", "events", "--json").stdout.splitlines()]


def test_every_event_reaches_the_hook_with_one_id_and_the_same_octets_over_deaths(site: Site) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    daemon, accepted = daemon_with_hook(site), []
    noted = site.directory / "noted"
    pause = threading.Event()
    for _ in range(KILLS):
        daemon.start()
        sender = threading.Thread(target=send_until_it_dies, args=(daemon, accepted))
        sender.start()
        limit, enough = time.monotonic() + PATIENCE, lines(noted) + chance.randrange(30, 300)
        while lines(noted) < enough:
            assert time.monotonic() < limit, SEED
            pause.wait(0.01)
        os.kill(daemon.running.pid, signal.SIGKILL)
        daemon.running.ended()
        sender.join(PATIENCE)
    daemon.start()
    last = daemon.send(mail("Subject: last"), "u@example.test")
    limit = time.monotonic() + PATIENCE
    while not any(last in line and "message.delivered" in line for line in noted.read_text().splitlines()[-3:]):
        assert time.monotonic() < limit, SEED
        pause.wait(0.05)
    daemon.stop()

    told = [(json.loads(line), line) for line in noted.read_bytes().splitlines()]
    forms: dict[str, set[bytes]] = defaultdict(set)
    for document, line in told:
        forms[document["id"]].add(line)
    assert all(len(one) == 1 for one in forms.values()), (SEED, "an event came in two forms")
    committed = outbox(daemon)
    assert {document["id"] for document in committed} <= set(forms), (SEED, "an event did not come")
    assert all(json.loads(next(iter(forms[document["id"]]))) == document for document in committed)
    assert {*accepted, last} <= {document["data"]["message_id"] for document in committed}
    assert len(told) > len(forms), "no death fell between the hook's turn and the note of its answer: the test shows nothing"
    first = [document for document, _ in {document["id"]: (document, line) for document, line in reversed(told)}.values()][::-1]
    orders: dict[str, list[str]] = defaultdict(list)
    for document in first:
        orders[document["data"]["message_id"]].append(document["event"])
    assert {tuple(names) for names in orders.values()} == {tuple(ORDER)}, SEED


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
