"""A program under test: started, watched line by line, and ended; nothing here waits but for an event, and nothing without a deadline."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds that anything may take; a machine that is this slow is broken."""

T = TypeVar("T")


class Program:
    """A running program and the lines of its output, standard output and error together.

    ``env`` is all of its environment, ours if None. With ``terminal`` signals go to it and to all that it started, as Control-C does.
    """

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT, terminal: bool = False) -> None:
        self.command = command
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._terminal = terminal
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**(os.environ if env is None else env), "PYTHONUNBUFFERED": "1"},
            start_new_session=terminal,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.pid = self._process.pid
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def until(self, found: Callable[[Sequence[str]], T | None], what: str, patience: float = PATIENCE) -> T:
        """What ``found`` makes of the lines, as soon as that isn't None; fails the test when the program ends or time runs out before."""
        with self._changed:
            result: list[T] = []

            def there() -> bool:
                answer = found(self.lines)
                if answer is not None:
                    result.append(answer)
                return answer is not None or self._ended

            self._changed.wait_for(there, patience)
            if not result:
                fate = "ended" if self._ended else f"was given {patience:g} s"
                told = "\n".join(line[:300] for line in self.lines[-60:])
                pytest.fail(f"{' '.join(self.command)} {fate} without {what}; it said:\n{told}", pytrace=False)
            return result[0]

    def line(self, pattern: str, *, count: int = 1, patience: float = PATIENCE) -> re.Match[str]:
        """The match in the ``count``-th line that has ``pattern`` in it, once it is there."""

        def found(lines: Sequence[str]) -> re.Match[str] | None:
            matches = [match for line in lines if (match := re.search(pattern, line))]
            return matches[count - 1] if len(matches) >= count else None

        return self.until(found, f"{count} line(s) like {pattern!r}", patience)

    @property
    def output(self) -> str:
        """All that was said so far."""
        with self._changed:
            return "\n".join(self.lines)

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        if self._terminal:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Send a signal and wait for the end; returns the exit status, negative for a signal."""
        if self._process.poll() is None:
            self.send_signal(number)
        return self.ended(patience)

    def ended(self, patience: float = PATIENCE) -> int:
        """The exit status, once the program has ended by itself and all that it said is read."""
        try:
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.dispose()
            pytest.fail(f"{' '.join(self.command)} did not end in {patience:g} s; it said:\n{self.output[-6000:]}", pytrace=False)
        with self._changed:
            self._changed.wait_for(lambda: self._ended, patience)
        return status

    def dispose(self) -> None:
        """Leave nothing running."""
        if self._terminal:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        elif self._process.poll() is None:
            self._process.kill()
        self._process.wait()
