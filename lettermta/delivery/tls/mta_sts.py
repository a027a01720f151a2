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

from lettermta import metrics
from lettermta.delivery.resolver import DNSFailure, NoSuchDomain
from lettermta.delivery.tls.dane import Lookups
from lettermta.delivery.tls.https import Answer, HTTPSClient, HTTPSFailed
from lettermta.delivery.tls.sts_files import Kept, PolicyFiles
from lettermta.delivery.tls.sts_policy import NotAPolicy, STSPolicy, announced, parse
from lettermta.smtp.client_tls import Fault

REFRESH_SECONDS = 86_400.0
"""How old a policy may be before it is fetched again."""
LOOK_SECONDS = 3_600.0
"""How often it is looked for policies to refresh."""
PAUSE_SECONDS = 300.0
"""How long a domain whose policy could not be fetched is left alone (section 3.3)."""
MOST_POLICIES = 10_000

FETCH_ERROR, INVALID, WEBPKI_INVALID = "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"

T = TypeVar("T")
InThread = Callable[..., Deferred[Any]]


@frozen
class Discovered:
    """What holds for a domain now."""

    policy: STSPolicy | None = None
    problem: Fault | None = None
    """Why a policy that is announced could not be had; there may be an older one in force."""


NOTHING = Discovered()


class MTASTS:
    """Knows the policies of domains. ``now`` is the wall clock, ``in_thread`` runs what blocks."""

    log = Logger()

    def __init__(
        self, resolver: Lookups, https: HTTPSClient, files: PolicyFiles, clock: Any, now: Callable[[], float], in_thread: InThread
    ) -> None:
        self._resolver = resolver
        self._https = https
        self._files = files
        self._clock = clock
        self._now = now
        self._in_thread = in_thread
        self._known: OrderedDict[str, Kept] = OrderedDict()
        """Least recently asked for first."""
        self._failed: OrderedDict[str, tuple[float, str, Fault]] = OrderedDict()
        """Until when a domain is left alone, the id that was announced, and what came of it."""
        self._unanswered: OrderedDict[str, float] = OrderedDict()
        """Domains whose servers would not tell of an announcement, until when they are not asked again."""
        self._fetching: dict[str, list[Deferred[Discovered]]] = {}
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.clock = clock

    async def start(self) -> None:
        """Take up what is kept from before, and keep it fresh from now on."""
        for domain, kept in await self._in_thread(self._files.load):
            self._keep(domain, kept)
        self._refreshing.start(LOOK_SECONDS, now=False).addErrback(self._not_refreshed)

    def stop(self) -> None:
        """Refresh nothing more."""
        if self._refreshing.running:
            self._refreshing.stop()

    async def discover(self, domain: str) -> Discovered:
        """What holds for a domain; never fails."""
        identifier = await self._announced(domain)
        kept = self._current(domain)
        policy = None if kept is None else kept.policy
        if identifier is None:
            return Discovered(policy)
        if kept is not None and kept.id == identifier:
            if self._stale(kept) and not self._paused(domain, identifier):
                self._fetch(domain, identifier)  # nobody needs to wait for it
            return Discovered(policy)
        if (problem := self._paused(domain, identifier)) is not None:
            return Discovered(policy, problem)
        return await self._fetch(domain, identifier)

    # -- what is known

    def _current(self, domain: str) -> Kept | None:
        kept = self._known.get(domain)
        if kept is None:
            return None
        if kept.expires <= self._now():
            self._drop(domain)
            return None
        self._known.move_to_end(domain)
        return kept

    def _stale(self, kept: Kept) -> bool:
        return self._now() - kept.fetched >= min(REFRESH_SECONDS, kept.policy.max_age / 2)

    def _paused(self, domain: str, identifier: str) -> Fault | None:
        until, failed, problem = self._failed.get(domain, (0.0, "", None))
        return problem if failed == identifier and until > self._clock.seconds() else None

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
        # It holds all the same, until the next start.
        self.log.error("the MTA-STS policy of {domain} can't be kept: {why}", domain=domain, why=failure.getErrorMessage())

    # -- finding out

    async def _announced(self, domain: str) -> str | None:
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
            answer = await self._https.get(f"https://mta-sts.{domain}/.well-known/mta-sts.txt")
            policy = _policy(answer)
        except (HTTPSFailed, NotAPolicy) as error:
            return self._not_fetched(domain, identifier, _fault(error))
        metrics.STS_FETCHES["fetched"].inc()
        self._failed.pop(domain, None)
        kept = Kept(policy, identifier, self._now())
        self._keep(domain, kept)
        self.log.info("{domain}: MTA-STS policy {id}: {mode}", domain=domain, id=identifier, mode=policy.mode.value)
        await self._in_thread(self._files.save, domain, kept).addErrback(self._not_written, domain)
        return Discovered(policy)

    def _not_fetched(self, domain: str, identifier: str, problem: Fault) -> Discovered:
        metrics.STS_FETCHES[problem.kind].inc()
        self.log.warn("{domain}: the MTA-STS policy can't be had: {why}", domain=domain, why=problem.text)
        _remember(self._failed, domain, (self._clock.seconds() + PAUSE_SECONDS, identifier, problem))
        kept = self._current(domain)
        return Discovered(None if kept is None else kept.policy, problem)

    # -- keeping it fresh

    def _refresh(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._refresh_stale())

    async def _refresh_stale(self) -> None:
        for domain, kept in list(self._known.items()):
            if kept.expires <= self._now():
                self._drop(domain)
            elif self._stale(kept) and (identifier := await self._announced(domain)) is not None:
                await self._fetch(domain, identifier)

    def _not_refreshed(self, failure: Failure) -> Deferred[None]:
        self.log.failure("MTA-STS policies could not be refreshed", failure=failure)
        return succeed(None)


def _remember(known: OrderedDict[str, T], domain: str, value: T) -> None:
    known[domain] = value
    known.move_to_end(domain)
    while len(known) > MOST_POLICIES:
        known.popitem(last=False)


def _policy(answer: Answer) -> STSPolicy:
    """The policy in an answer. Redirects are none, nor is what a cache or a login page says (section 3.3)."""
    if answer.status != 200:
        raise HTTPSFailed(f"the answer's status is {answer.status}")
    if answer.media_type != "text/plain":
        raise NotAPolicy(f"its media type is not text/plain: {answer.media_type[:60]!r}")
    return parse(answer.body)


def _fault(error: HTTPSFailed | NotAPolicy) -> Fault:
    if isinstance(error, NotAPolicy):
        return Fault(INVALID, str(error))
    return Fault(WEBPKI_INVALID if error.tls else FETCH_ERROR, str(error))
