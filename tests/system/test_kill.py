"""A 250 is a promise: whatever the moment of a SIGKILL, what was acknowledged arrives (HARD-CASES rows 15 and 16)."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.system.program import PATIENCE
from tests.system.site import Daemon, Receiver, Site, mail, submit

CLIENTS, EACH = 20, 10
CHANNELS = 20
"""Attempts that can be under way at one destination: at most so many duplicates does a kill make."""


class Ledger:
    """What was acknowledged; kills the daemon in the very moment in which it has promised as much as was agreed."""

    def __init__(self, daemon: Daemon, kills: tuple[int, ...]) -> None:
        self.ids: list[str] = []
        self.up = threading.Event()
        self.up.set()
        self.killed = threading.Semaphore(0)
        self._daemon = daemon
        self._kills = set(kills)
        self._lock = threading.Lock()

    def note(self, identifier: str) -> None:
        with self._lock:
            self.ids.append(identifier)
            if len(self.ids) in self._kills:
                self.up.clear()
                self._daemon.running.send_signal(signal.SIGKILL)
                self.killed.release()


def client(ledger: Ledger, daemon: Daemon, number: int) -> None:
    """Send until each message has its 250, as an application does: what got none is sent again over a new session."""
    left = EACH
    while left:
        assert ledger.up.wait(PATIENCE), "the daemon is not back"
        # Whatever a killed server looks like from outside; a refusal would be an AssertionError.
        with suppress(OSError, EOFError), daemon.client() as session:
            while left:
                ledger.note(submit(session, mail(f"X-Metadata-client: {number}", body="x" * 2000 + "\r\n"), f"{number}@example.test"))
                left -= 1


def arrived(receiver: Receiver, ids: list[str]) -> Counter[str]:
    """How often each message came, once all of ``ids`` did."""
    seen: Counter[str] = Counter()
    looked = 0

    def all_there(lines: object) -> bool | None:
        nonlocal looked
        assert isinstance(lines, list)
        for line in lines[looked:]:
            if match := re.search(r"id ([0-9a-f-]{36});", line):
                seen[match[1]] += 1
        looked = len(lines)
        return True if seen.keys() >= set(ids) else None

    receiver.until(all_there, f"all of {len(ids)} messages")
    return seen


@pytest.mark.parametrize(("name", "kills"), [("idle", (200,)), ("busy", (60, 130, 200))])
def test_nothing_acknowledged_is_lost(site: Site, name: str, kills: tuple[int, ...]) -> None:
    """``idle``: no receiver until all is acknowledged, so each message has to come from the spool. ``busy``: killed amid deliveries."""
    daemon = site.daemon(name)
    daemon.start()
    receiver = site.receiver() if name == "busy" else None
    ledger = Ledger(daemon, kills)
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, ledger, daemon, number) for number in range(CLIENTS)]
        for _ in kills:
            assert ledger.killed.acquire(timeout=PATIENCE)
            assert daemon.running.ended() == -signal.SIGKILL
            daemon.start()
            ledger.up.set()
        for each in clients:
            each.result(PATIENCE)
    assert len(set(ledger.ids)) == CLIENTS * EACH
    receiver = receiver or site.receiver()
    seen = arrived(receiver, ledger.ids)
    daemon.queue_until(lambda rows: not rows)
    daemon.stop()
    receiver.end()
    assert sum(count - 1 for count in seen.values()) <= len(kills) * CHANNELS, "duplicates only of what was under way"

    told = Counter((event["event"], event["data"]["message_id"]) for event in all_events(daemon))
    for identifier in ledger.ids:
        assert told["message.created", identifier] == 1
        assert told["message.delivered", identifier] == 1


def all_events(daemon: Daemon) -> list[dict[str, dict[str, str]]]:
    documents = [json.loads(line) for line in (daemon.directory / "events.jsonl").read_text().splitlines()]
    # A log that was being written when the daemon was killed may have a line twice: an event's id tells.
    return list({document["id"]: document for document in documents}.values())
