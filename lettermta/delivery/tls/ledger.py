"""The book of how TLS went, day by day (UTC): counted in memory, written to a file for each day under ``state_dir/tls-reports``.

Promises that counting never fails or waits, and that what was counted outlives a restart: all of it when the daemon stops in good order,
and but for the last minute when it does not. Bounded: so many domains a day, and files of a week.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.tls.policy import ITLSResults, Reported
from lettermta.delivery.tls.tally import DomainDay, Failed, short
from lettermta.smtp.client_tls import Fault

MOST_DOMAINS = 20_000
"""Domains of one day; sessions with others are not counted for reports."""
KEPT_DAYS = 7
"""How long a day's file is kept."""
FOLDER = "tls-reports"

InThread = Callable[..., Deferred[Any]]


class DayFiles:
    """The files. All of it blocks, and is for a thread."""

    log = Logger()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def days(self) -> list[str]:
        """Those that there are, as ``2026-11-25``, the oldest first."""
        return sorted(path.stem for path in self._folder.glob("????-??-??.jsonl"))

    def load(self, day: str) -> Iterator[DomainDay]:
        """A day's domains; a file or a line that can't be read is passed over, and said in the log."""
        try:
            lines = (self._folder / f"{day}.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        except OSError as error:
            self.log.error("the TLS results of {day} can't be read: {error}", day=day, error=error)
            return
        for line in lines:
            try:
                yield DomainDay.read(orjson.loads(line))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                self.log.warn("a line of the TLS results of {day} can't be read: {error}", day=day, error=error)

    def save(self, day: str, lines: Iterable[bytes]) -> None:
        """Write a day, whole or not at all. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{day}.jsonl"
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(line + b"\n" for line in lines)
            file.flush()
            os.fsync(descriptor)
        beside.rename(path)

    def forget(self, day: str) -> None:
        """Take a day away."""
        (self._folder / f"{day}.jsonl").unlink(missing_ok=True)


@implementer(ITLSResults)
class Ledger:
    """Counts. ``now`` is the wall clock, ``in_thread`` runs what blocks."""

    log = Logger()

    def __init__(self, files: DayFiles, now: Callable[[], float], in_thread: InThread) -> None:
        self._files = files
        self._now = now
        self._in_thread = in_thread
        self._days: dict[str, dict[str, DomainDay]] = {}
        self._lines: dict[str, dict[str, bytes]] = {}
        """Each day's lines as they are in its file, by domain."""
        self._changed: dict[str, set[str]] = {}

    async def load(self) -> None:
        """Take up what was written before, and forget what is too old."""
        oldest = day_of(self._now() - KEPT_DAYS * 86_400)
        for day in await self._in_thread(self._files.days):
            if day < oldest:
                await self._in_thread(self._files.forget, day)
                continue
            found = await self._in_thread(lambda day=day: list(self._files.load(day)))
            if day < day_of(self._now()) and all(each.fate for each in found):
                continue  # nothing is to be made of it any more
            self._days[day] = {each.domain: each for each in found}
            self._changed[day] = set(self._days[day])

    def count(self, reported: Reported, fault: Fault | None, host: str, address: str, source: str) -> None:
        """See ITLSResults."""
        metrics.TLS_RESULTS[reported.type, "success" if fault is None else fault.kind].inc()
        day = day_of(self._now())
        domains = self._days.setdefault(day, {})
        known = domains.get(reported.domain)
        if known is None:
            if len(domains) >= MOST_DOMAINS:
                return
            known = domains[reported.domain] = DomainDay(reported.domain)
        known.count(reported, None if fault is None else Failed(fault.kind, host, address, source, short(fault.text)))
        self._changed.setdefault(day, set()).add(reported.domain)

    def waiting(self) -> list[tuple[str, DomainDay]]:
        """What no report has been made of yet, of the days that are over."""
        today = day_of(self._now())
        return [(day, each) for day, domains in self._days.items() if day < today for each in domains.values() if not each.fate]

    def settle(self, day: str, domain: DomainDay, fate: str) -> None:
        """Note what became of a report; an empty ``fate``: who has it by now."""
        domain.fate = fate
        self._changed.setdefault(day, set()).add(domain.domain)

    async def flush(self) -> None:
        """Write what has changed, and let go of days that nothing is to be made of any more."""
        today = day_of(self._now())
        for day in list(self._days):
            changed = self._changed.pop(day, set())
            domains, lines = self._days[day], self._lines.setdefault(day, {})
            for name in changed:
                lines[name] = orjson.dumps(domains[name].told())
            if changed:
                try:
                    await self._in_thread(self._files.save, day, list(lines.values()))
                except OSError as error:
                    self.log.error("the TLS results of {day} can't be written: {error}", day=day, error=error)
                    self._changed.setdefault(day, set()).update(changed)
                    continue
            if day < today and day not in self._changed and all(each.fate for each in domains.values()):
                del self._days[day], self._lines[day]
        oldest = day_of(self._now() - KEPT_DAYS * 86_400)
        for day in await self._in_thread(self._files.days):
            if day < oldest:
                self._days.pop(day, None)
                await self._in_thread(self._files.forget, day)


@lru_cache(maxsize=16)
def end_of(day: str) -> float:
    """When a day is over, in seconds since the epoch."""
    begin = datetime.datetime.combine(datetime.date.fromisoformat(day), datetime.time(), datetime.UTC)
    return begin.timestamp() + 86_400


def day_of(moment: float) -> str:
    """The day in UTC, as ``2026-11-25``."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()
