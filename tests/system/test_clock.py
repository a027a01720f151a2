"""The wall clock of a running daemon is set forward and back (HARD-CASES row 27): by libfaketime, which Debian has, in the daemon alone.

Timers go by the monotonic clock, which nobody sets; the wall clock says what is on events and when a message is too old.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.system.site import MX, Daemon, Receiver, Site, mail, submit
from tests.tools import need

SCRIPT = [{"stage": "RCPT", "recipient": f"later{number}@example.test", "reply": "451 4.2.1 Not now", "times": 1} for number in range(3)]


class Clock:
    """The wall clock that the daemon sees."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0)

    def set(self, seconds: int) -> None:
        """So far from the real one, from now on."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.replace(self._path)

    def environment(self) -> dict[str, str]:
        wrapper = Path(need("faketime", "faketime"))
        [library] = list(wrapper.parent.parent.glob("lib/*/faketime/libfaketimeMT.so.1"))
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


@pytest.fixture(scope="module")
def clock(site: Site) -> Clock:
    return Clock(site.directory / "clock.set")


@pytest.fixture(scope="module")
def daemon(site: Site, clock: Clock) -> Iterator[Daemon]:
    daemon = site.daemon("clock", {"delivery": {"schedule": "3s", "lifetime": "2d"}}, env=clock.environment())
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture(scope="module")
def receiver(site: Site, daemon: Daemon) -> Receiver:
    return site.receiver(MX, script=SCRIPT)


def moment_of(document: dict[str, str]) -> datetime:
    return datetime.fromisoformat(document["timestamp"])


def put_off(daemon: Daemon, recipient: str) -> str:
    identifier = daemon.send(mail(), recipient)
    assert any(one["event"] == "message.soft_bounced" for one in daemon.events_until(identifier, "message.soft_bounced"))
    return identifier


@pytest.mark.usefixtures("receiver")
def test_a_clock_that_is_set_back_holds_up_no_mail(daemon: Daemon, clock: Clock) -> None:
    """HARD-CASES row 27."""
    identifier = put_off(daemon, "later0@example.test")
    began = time.monotonic()
    clock.set(-7200)
    with daemon.client() as client:
        new = submit(client, mail(), "new@example.test")
    told = daemon.events_until(identifier, "message.delivered")
    assert time.monotonic() - began < 20
    assert daemon.events_until(new, "message.delivered")
    assert abs(moment_of(told[-1]) - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=1), "events have the wall clock's time"
    clock.set(0)


@pytest.mark.usefixtures("receiver")
def test_a_clock_that_is_set_forward_ends_no_session_and_expires_nothing_within_its_lifetime(daemon: Daemon, clock: Clock) -> None:
    """HARD-CASES row 27."""
    identifier = put_off(daemon, "later1@example.test")
    client = daemon.client()
    assert client.mail("app@sender.test")[0] == 250
    clock.set(86_400)
    assert client.rcpt("you@example.test")[0] == 250, "a deadline went by the wall clock"
    code, said = client.data(mail())
    assert code == 250
    client.quit()
    assert [one["event"] for one in daemon.events_until(identifier, "message.delivered")].count("message.failed") == 0
    assert daemon.events_until(said.decode().rpartition(" ")[2], "message.delivered")
    clock.set(0)
    # And back again, as when somebody's mistake is mended.
    new = daemon.send(mail(), "you@example.test")
    assert daemon.events_until(new, "message.delivered")
    later = put_off(daemon, "later2@example.test")
    assert daemon.events_until(later, "message.delivered")


def test_what_is_too_old_by_the_wall_clock_is_given_up(site: Site, daemon: Daemon, clock: Clock) -> None:
    """HARD-CASES row 27: the wall clock decides on expiry."""
    identifier = daemon.send(mail(), "nobody@two.test")
    daemon.queue_until(lambda rows: any(row["id"] == identifier for row in rows))
    clock.set(3 * 86_400)
    told = daemon.events_until(identifier, "message.failed")
    assert "expired" in json.dumps(told[-1]["data"])
    clock.set(0)
