"""What a newcomer does: clones, types ``make run``, and follows the README to the letter."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tools
from tests.system.program import PATIENCE, ROOT, Program
from tests.system.site import unverified

PORTS = (2525, 2587, 2465)
README = (ROOT / "README.md").read_text()
INSTALLING = 300.0
"""Seconds that making the virtual environment may take, with a package index that is slow."""


def lines_of_readme() -> list[str]:
    """The one-line shell blocks, in their order."""
    return [block for block in re.findall(r"^```sh\n(.*?)\n```$", README, re.M | re.S) if "\n" not in block]


def environment() -> dict[str, str]:
    """Ours, without what make and virtual environments leave in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHON"))}


def clone(directory: Path) -> None:
    """A fresh clone, and what of the checkout is not committed yet laid over it."""
    git = tools.need("git", "git")
    config = directory.parent / "gitconfig"
    # The checkout may belong to someone else than who runs the tests.
    config.write_text("[safe]\n\tdirectory = *\n")
    env = {**environment(), "GIT_CONFIG_GLOBAL": str(config)}
    subprocess.run([git, "clone", "--quiet", str(ROOT), str(directory)], check=True, env=env)
    listed = subprocess.run(
        [git, "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        env=env,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, directory / name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("newcomer") / "lettermta"
    clone(directory)
    return directory


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Program]:
    """``make run``, once it says that it answers."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                pytest.fail(f"this test needs port {port} of etc/dev.ini, and it can't be had: {error.strerror}", pytrace=False)
    program = Program([tools.need("make", "make"), "run"], env=environment(), cwd=home, terminal=True)
    try:
        program.line("answers on ports", patience=INSTALLING)
        yield program
        program.end(signal.SIGINT)
        assert "lettermta has stopped" in program.output
    finally:
        program.dispose()


def token_of(program: Program) -> str:
    """The line behind the one that announces it."""
    program.line("The token of project demo")
    lines = program.lines
    announced = next(number for number, line in enumerate(lines) if "The token of project demo" in line)
    return lines[announced + 1].strip()


def shell(line: str, home: Path, token: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], cwd=home, env={**environment(), "TOKEN": token}, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_readme_to_the_letter(home: Path, running: Program) -> None:
    run, export, send, show, tell, test = lines_of_readme()[:6]
    assert (run, test) == ("make run", "make test")
    assert export == "export TOKEN=..."
    token = token_of(running)
    assert re.fullmatch(r"\S{32,}", token)

    sent = shell(send, home, token)
    assert sent.returncode == 0, sent.stderr
    running.line("delivered to=<jane@example.com>")

    shown = shell(show, home, token)
    assert shown.returncode == 0, shown.stderr
    assert "Subject: Hello" in shown.stdout
    assert "It works." in shown.stdout
    assert "X-LM-" not in shown.stdout

    limit = time.monotonic() + PATIENCE
    while "message.delivered" not in (told := shell(tell, home, token).stdout):
        assert time.monotonic() < limit, told
    assert '"metadata":{"order":"42"},"tag":"first"' in told


def test_the_token_is_not_in_the_log(running: Program) -> None:
    token = token_of(running)
    assert running.output.count(token) == 1, "printed once, and never again"


def test_ports_are_as_promised(running: Program) -> None:
    for port in PORTS:
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.starttls(context=unverified())
            client.login("lettermint", token_of(running))
    with smtplib.SMTP_SSL("127.0.0.1", 2465, timeout=30, context=unverified()) as client:
        client.login("lettermint", token_of(running))


def test_another_token_as_the_readme_says(home: Path, running: Program) -> None:
    command = re.search(r"^`(\.venv/bin/lettermta-admin .*?)`", README, re.M)
    assert command is not None
    made = shell(command[1], home, "")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() != token_of(running)


def test_the_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)(.*?)\)", README):
        assert (ROOT / target).is_file(), target
