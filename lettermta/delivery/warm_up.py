"""Plans for new addresses: how many messages each receiver gets from one on its first day, on its second and so on.

Promises that no receiver gets more in a day (UTC) than the plan says, also when the daemon dies: what is granted is on the disk before it
is sent, so a death may cost some of a day's part and never adds to it. A day's part is granted hour by hour, not at once. A file that
can't be read is told of, and every address in a plan begins anew: slower than it might, never faster.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

BLOCK = 20
"""Messages that one channel is granted at once at the most: what a death may cost a plan, for each channel."""
MOST_RECEIVERS = 10_000
"""Receivers of one source that are counted apart; the others share a count."""
_DAY = 86_400
_AHEAD = 3_600
"""Seconds of the day that are granted before they have come."""
_OTHERS = "others"

Threaded = Callable[..., Deferred[Any]]
"""Calls a function in a thread."""


@frozen
class Plan:
    """Messages a day to each receiver, day by day. ``begins``: the first day; None: the day of the first message."""

    days: tuple[int, ...]
    begins: date | None = None


class WarmUp:
    """Counts what was sent from sources with a plan. ``now`` is the wall clock; ``threaded`` is where the file is written."""

    log = Logger()

    def __init__(self, file: Path, threaded: Threaded, now: Callable[[], float]) -> None:
        self._file = file
        self._threaded = threaded
        self._now = now
        self._began: dict[str, str] = {}
        self._day = ""
        self._sent: dict[str, dict[str, int]] = {}
        """By source and receiver, of this day."""
        self._writing: Deferred[None] | None = None
        self._changed = False
        self._waiting: list[Deferred[None]] = []

    def load(self) -> None:
        """Read what was counted before; blocks, so it is called at the start."""
        try:
            told = orjson.loads(self._file.read_bytes())
            began, day, sent = told["began"], told["day"], told["sent"]
            self._began = {str(name): date.fromisoformat(first).isoformat() for name, first in began.items()}
            self._day = date.fromisoformat(day).isoformat() if day else ""
            self._sent = {str(name): {str(key): int(number) for key, number in counts.items()} for name, counts in sent.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._began, self._day, self._sent = {}, "", {}
            self.log.error(
                "what was sent from new addresses can't be read, their plans begin anew: {file}: {error}", file=self._file, error=error
            )

    def over(self, source: str, plan: Plan) -> bool:
        """Whether the source is through its plan."""
        return self._number(source, plan) >= len(plan.days)

    def look(self, source: str, plan: Plan, receiver: str) -> Mapping[str, int]:
        """How a plan stands for a receiver, without granting anything: the day of it (0: not begun), of how many, what it allows and what
        of that was granted.
        """
        number = self._number(source, plan)
        a_day = plan.days[number] if 0 <= number < len(plan.days) else 0
        counts = self._sent.get(source, {})
        return {"day": max(number + 1, 0), "days": len(plan.days), "a_day": a_day, "granted": counts.get(self._key(counts, receiver), 0)}

    async def reserve(self, source: str, plan: Plan, receiver: str) -> int:
        """How many messages may go to ``receiver`` now; on record when it fires."""
        today = self._today()
        number = self._number(source, plan)
        if not 0 <= number < len(plan.days):
            return 0
        counts = self._sent.setdefault(source, {})
        key = self._key(counts, receiver)
        seconds = self._now() % _DAY
        allowed = math.ceil(plan.days[number] * min(seconds + _AHEAD, _DAY) / _DAY)
        granted = min(allowed - counts.get(key, 0), BLOCK)
        if granted <= 0:
            return 0
        counts[key] = counts.get(key, 0) + granted
        self._began.setdefault(source, (plan.begins or date.fromisoformat(today)).isoformat())
        await self._written()
        return granted

    @property
    def today(self) -> str:
        """The day that is counted now; what is granted on it is for it alone."""
        return self._today()

    def give_back(self, source: str, receiver: str, unused: int, day: str) -> None:
        """So many that were granted on that day were not sent; on record with the next grant. A day that is over gets nothing back."""
        if day != self._today():
            return
        counts = self._sent.get(source, {})
        key = self._key(counts, receiver)
        if key in counts:
            counts[key] = max(counts[key] - unused, 0)

    def _key(self, counts: dict[str, int], receiver: str) -> str:
        return receiver if receiver in counts or len(counts) < MOST_RECEIVERS else _OTHERS

    def _today(self) -> str:
        """The day; with a new one all counts begin at nothing."""
        today = datetime.fromtimestamp(self._now(), UTC).date().isoformat()
        if today > self._day:  # a clock that was set back grants nothing twice
            self._day, self._sent = today, {}
        return self._day

    def _number(self, source: str, plan: Plan) -> int:
        """The day of the plan, from 0; before its first day it is negative."""
        today = date.fromisoformat(self._today())
        first = plan.begins or date.fromisoformat(self._began.get(source, today.isoformat()))
        return (today - first).days

    # -- the file

    def _written(self) -> Deferred[None]:
        """Fires once what is counted now is on the disk; what comes while it is being written goes with the next time."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._changed = True
        if self._writing is None:
            self._write()
        return done

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._changed = False
        octets = orjson.dumps({"began": self._began, "day": self._day, "sent": self._sent})
        self._writing = self._threaded(_replace, self._file, octets)
        self._writing.addErrback(self._not_written).addCallback(self._wrote, waiting)

    def _not_written(self, failure: Failure) -> None:
        # Mail must not wait for a disk that is full; the count in memory holds as long as we live.
        self.log.failure("what was sent from new addresses could not be written", failure)

    def _wrote(self, _: object, waiting: list[Deferred[None]]) -> None:
        self._writing = None
        if self._changed:
            self._write()
        for done in waiting:
            done.callback(None)


def _replace(file: Path, octets: bytes) -> None:
    """Have the file hold ``octets``, whole or not at all."""
    part = file.with_suffix(".part")
    with suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, octets)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(file)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
