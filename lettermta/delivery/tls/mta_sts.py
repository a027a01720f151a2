"""MTA-STS: which policy a domain has (RFC 8461 sections 3 to 5).

Promises that a policy once fetched holds until it expires, whatever becomes of the domain's TXT record or its web server: only a policy
that takes its place, fetched and valid, ends it before. What can't be found out counts as no policy, as the RFC has it; a fetch that
failed is told, so that it can be reported. Policies are refreshed once a day (or at half their age, where that is less), also while
nothing is sent to them, so that whoever is on the path has to keep us from the web server for as long as the policy lasts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar, cast

from attrs import frozen
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.delivery.resolver import DNSFailure, NoSuchDomain
from lettermta.delivery.tls.dane import Lookups
from lettermta.delivery.tls.https import HTTPSClient
from lettermta.delivery.tls.sts_fetching import NoPolicy, fetch
from lettermta.delivery.tls.sts_files import Kept, PolicyFiles
from lettermta.delivery.tls.sts_known import MOST_POLICIES, InThread, KnownPolicies
from lettermta.delivery.tls.sts_policy import STSPolicy, announced
from lettermta.smtp.client_tls import Fault

REFRESH_SECONDS = 86_400.0
"""How old a policy may be before it is fetched again."""
LOOK_SECONDS = 3_600.0
"""How often it is looked for policies to refresh."""
PAUSE_SECONDS = 300.0
"""How long a domain whose policy could not be fetched is left alone (section 3.3)."""

T = TypeVar("T")


@frozen
class Discovered:
    """What holds for a domain now."""

    policy: STSPolicy | None = None
    problem: Fault | None = None
    """Why a policy that is announced could not be had; there may be an older one in force."""


NOTHING = Discovered()


@frozen
class _Pause:
    """A fetch that failed: until when (in the clock's seconds) the same announcement is not followed again."""

    until: float
    id: str
    problem: Fault


class MTASTS:
    """Finds out. ``now`` is the wall clock, ``in_thread`` runs what blocks."""

    log = Logger()

    def __init__(
        self, resolver: Lookups, https: HTTPSClient, files: PolicyFiles, clock: Any, now: Callable[[], float], in_thread: InThread
    ) -> None:
        self._resolver = resolver
        self._https = https
        self._clock = clock
        self._now = now
        self._known = KnownPolicies(files, now, in_thread)
        self._paused: OrderedDict[str, _Pause] = OrderedDict()
        self._unanswered: OrderedDict[str, float] = OrderedDict()
        """Domains whose servers would not tell of an announcement, until when they are not asked again."""
        self._fetching: dict[str, list[Deferred[Discovered]]] = {}
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.clock = clock

    async def start(self) -> None:
        """Take up what is kept from before, and keep it fresh from now on."""
        await self._known.load()
        self._refreshing.start(LOOK_SECONDS, now=False).addErrback(self._not_refreshed)

    def stop(self) -> None:
        """Refresh nothing more."""
        if self._refreshing.running:
            self._refreshing.stop()

    async def discover(self, domain: str) -> Discovered:
        """What holds for a domain; never fails."""
        identifier = await self._announced(domain)
        kept = self._known.get(domain)
        policy = None if kept is None else kept.policy
        if identifier is None:
            return Discovered(policy)
        problem = self._problem(domain, identifier)
        if kept is not None and kept.id == identifier:
            if self._stale(kept) and problem is None:
                self._fetch(domain, identifier)  # nobody needs to wait for it
            return Discovered(policy)
        if problem is not None:
            return Discovered(policy, problem)
        return await self._fetch(domain, identifier)

    async def _announced(self, domain: str) -> str | None:
        """The id of the policy that the domain announces (section 3.1)."""
        if self._unanswered.get(domain, 0.0) > self._clock.seconds():
            return None
        try:
            answer = await self._resolver.lookup(f"_mta-sts.{domain}", RdataType.TXT)
        except NoSuchDomain:
            return None
        except DNSFailure:
            # Each such look-up may take seconds, in which the mail waits: not at every connection.
            _remember(self._unanswered, domain, self._clock.seconds() + PAUSE_SECONDS)
            return None
        records = cast(tuple[TXT, ...], answer.records)
        return announced([b"".join(record.strings).decode("ascii", "replace") for record in records])

    def _problem(self, domain: str, identifier: str) -> Fault | None:
        """Why that announcement is not followed for now."""
        pause = self._paused.get(domain)
        return pause.problem if pause is not None and pause.id == identifier and pause.until > self._clock.seconds() else None

    def _stale(self, kept: Kept) -> bool:
        return self._now() - kept.fetched >= min(REFRESH_SECONDS, kept.policy.max_age / 2)

    # -- fetching

    def _fetch(self, domain: str, identifier: str) -> Deferred[Discovered]:
        """Fetch the policy, once for all who wait for it."""
        waiter: Deferred[Discovered] = Deferred()
        waiting = self._fetching.get(domain)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        self._fetching[domain] = [waiter]
        Deferred.fromCoroutine(self._fetched(domain, identifier)).addBoth(self._tell, domain)
        return waiter

    def _tell(self, result: Discovered | Failure, domain: str) -> None:
        for waiter in self._fetching.pop(domain):
            waiter.callback(result)

    async def _fetched(self, domain: str, identifier: str) -> Discovered:
        try:
            policy = await fetch(self._https, domain)
        except NoPolicy as error:
            self.log.warn("{domain}: the MTA-STS policy can't be had: {why}", domain=domain, why=error.fault.text)
            _remember(self._paused, domain, _Pause(self._clock.seconds() + PAUSE_SECONDS, identifier, error.fault))
            kept = self._known.get(domain)
            return Discovered(None if kept is None else kept.policy, error.fault)
        self._paused.pop(domain, None)
        self.log.info("{domain}: MTA-STS policy {id}: {mode}", domain=domain, id=identifier, mode=policy.mode.value)
        await self._known.put(domain, Kept(policy, identifier, self._now()))
        return Discovered(policy)

    # -- keeping it fresh

    def _refresh(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._refresh_stale())

    async def _refresh_stale(self) -> None:
        for domain, kept in self._known.items():
            if self._stale(kept) and (identifier := await self._announced(domain)) is not None:
                await self._fetch(domain, identifier)

    def _not_refreshed(self, failure: Failure) -> Deferred[None]:
        self.log.failure("MTA-STS policies could not be refreshed", failure=failure)
        return succeed(None)


def _remember(known: OrderedDict[str, T], domain: str, value: T) -> None:
    """Bounded as the policies are: what was remembered first goes first."""
    known[domain] = value
    known.move_to_end(domain)
    while len(known) > MOST_POLICIES:
        known.popitem(last=False)
