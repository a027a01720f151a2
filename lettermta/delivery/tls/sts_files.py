"""MTA-STS policies on disk, so that a restart does not forget them: one small file of JSON for each domain.

A file is named by a digest of its domain, and is written beside its place and renamed, so that it is whole or not there. What can't be
read is passed over and said in the log: it is as if the policy had never been fetched. All of it blocks, and is for a thread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from lettermta.delivery.tls.sts_policy import Mode, STSPolicy


@frozen
class Kept:
    """A policy as it was fetched. Times are wall-clock seconds since the epoch."""

    policy: STSPolicy
    id: str
    fetched: float

    @property
    def expires(self) -> float:
        """From then on it is nothing."""
        return self.fetched + self.policy.max_age


class PolicyFiles:
    """The files in one folder, which is made with the first of them."""

    log = Logger()

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> list[tuple[str, Kept]]:
        """All of them, by domain, the one fetched longest ago first."""
        return sorted(self._read(), key=lambda found: found[1].fetched)

    def save(self, domain: str, kept: Kept) -> None:
        """Write one. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        policy = kept.policy
        told = {"domain": domain, "id": kept.id, "fetched": kept.fetched, "mode": policy.mode, "mx": policy.mx, "max_age": policy.max_age}
        path = self._path(domain)
        beside = path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(told, file)
            file.flush()
            os.fsync(descriptor)
        beside.rename(path)

    def forget(self, domain: str) -> None:
        """Take one away. Raises OSError."""
        self._path(domain).unlink(missing_ok=True)

    def _path(self, domain: str) -> Path:
        return self._folder / f"{hashlib.sha256(domain.encode()).hexdigest()[:40]}.json"

    def _read(self) -> Iterator[tuple[str, Kept]]:
        for path in self._folder.glob("*.json"):
            try:
                yield _kept(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                self.log.warn("{path} is no kept MTA-STS policy: {error}", path=str(path), error=error)


def _kept(told: Mapping[str, Any]) -> tuple[str, Kept]:
    policy = STSPolicy(Mode(told["mode"]), tuple(map(str, told["mx"])), int(told["max_age"]))
    return str(told["domain"]), Kept(policy, str(told["id"]), float(told["fetched"]))
