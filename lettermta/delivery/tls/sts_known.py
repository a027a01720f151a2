"""The MTA-STS policies that are known, each until its ``max_age`` is over: in memory, and on disk behind it (RFC 8461 section 5.1).

Bounded: the domain that was asked for longest ago goes first. A policy that can't be written holds all the same, until the next start.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta import metrics
from lettermta.delivery.tls.sts_files import Kept, PolicyFiles

MOST_POLICIES = 10_000

InThread = Callable[..., Deferred[Any]]


class KnownPolicies:
    """By domain. ``now`` is the wall clock, ``in_thread`` runs what blocks."""

    log = Logger()

    def __init__(self, files: PolicyFiles, now: Callable[[], float], in_thread: InThread) -> None:
        self._files = files
        self._now = now
        self._in_thread = in_thread
        self._known: OrderedDict[str, Kept] = OrderedDict()
        """Least recently asked for first."""

    async def load(self) -> None:
        """Take up what is kept from before."""
        for domain, kept in await self._in_thread(self._files.load):
            self._keep(domain, kept)

    def get(self, domain: str) -> Kept | None:
        """What is known of a domain, if it holds still."""
        kept = self._known.get(domain)
        if kept is None:
            return None
        if kept.expires <= self._now():
            self._drop(domain)
            return None
        self._known.move_to_end(domain)
        return kept

    async def put(self, domain: str, kept: Kept) -> None:
        """From now on that is known; done once it is on disk, or can't be."""
        self._keep(domain, kept)
        await self._in_thread(self._files.save, domain, kept).addErrback(self._not_written, domain)

    def items(self) -> list[tuple[str, Kept]]:
        """All that hold, which does not count as asking for them; those that have expired are let go."""
        for domain in [domain for domain, kept in self._known.items() if kept.expires <= self._now()]:
            self._drop(domain)
        return list(self._known.items())

    def _keep(self, domain: str, kept: Kept) -> None:
        self._known[domain] = kept
        self._known.move_to_end(domain)
        metrics.STS_POLICIES.set(len(self._known))
        while len(self._known) > MOST_POLICIES:
            self._drop(next(iter(self._known)))

    def _drop(self, domain: str) -> None:
        del self._known[domain]
        metrics.STS_POLICIES.set(len(self._known))
        self._in_thread(self._files.forget, domain).addErrback(self._not_written, domain)

    def _not_written(self, failure: Failure, domain: str) -> None:
        self.log.error("the MTA-STS policy of {domain} can't be kept: {why}", domain=domain, why=failure.getErrorMessage())
