"""A spool with something in it, and a daemon that can be started on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lettermta.message import State
from lettermta.ops import queue

from ..spool.hand import NOW, Desk
from .tool import CONFIG, ROOT, Ran, Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mta.ini"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def ids(config: Path) -> list[str]:
    """A spool with three messages and five recipients, its daemon down."""
    desk = Desk(config.parent / "state" / "spool" / "0")
    messages = [
        desk.store("a@example.com", "b@Example.ORG", tag="red", metadata={"k": "1", "Käse": "Brot"}, created=NOW - 3 * 86_400),
        desk.store("c@example.com", sender="", tag=None, metadata={}, project="other", route_id="r2", route="bulk", created=NOW - 7200),
        desk.store("d@example.com", "e@example.com", tag="blue", metadata={"k": "2"}),
    ]
    desk.record(desk.entries[0], State.DEFERRED, due=NOW + 600, reply="451 4.7.1 Try again later", handed_over=False)
    desk.record(desk.entries[-1], State.DELIVERED, State.HELD)
    desk.close()
    return [message.id for message in messages]


@pytest.fixture
def daemon(config: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a daemon on the spool; it is stopped behind the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*delivered: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.ops.daemon", str(config.parent / "state"), *delivered]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(params=["up", "down"])
def both(request: pytest.FixtureRequest, ids: list[str], daemon: Callable[..., None]) -> None:
    """The test runs with the daemon up, and with it down."""
    if request.param == "up":
        daemon()


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(queue.time, "time", lambda: NOW)

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = queue.main(["-c", str(config), *argv])
        except SystemExit as exit:
            code = exit.code  # type: ignore[assignment]
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run
