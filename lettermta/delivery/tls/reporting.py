"""Reports on TLS go out: each day's, once the day is over, to whoever the domain's TXT record names (RFC 8460 sections 3 to 5).

Promises that a report is spread over some hours behind midnight (UTC), tried again for two days when it can't be delivered for now, and
given up then; what became of it is noted beside what it tells of. A crash may have one sent twice, under the same id.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast
from urllib.parse import unquote

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
from lettermta.delivery.tls.https import HTTPSClient, HTTPSFailed
from lettermta.delivery.tls.ledger import Ledger, day_of, end_of
from lettermta.delivery.tls.report_text import MEDIA_TYPE, Report, Submitter

LOOK_SECONDS = 60.0
"""How often what was counted is written, and what is due is looked for."""
SPREAD_SECONDS = 4 * 3600
"""Behind midnight, reports are spread over so long (section 4.1)."""
PAUSE_SECONDS = 3600.0
"""When a report that could not be delivered is tried again."""
GIVEN_UP_DAYS = 2

_URI = re.compile(r"mailto:[!-~]+|https://[!-~]+", re.IGNORECASE)
_ADDRESS = re.compile(r"[!#-'*+\-./0-9=?A-Z^-~]+@[A-Za-z0-9.-]+")
_MOST_TARGETS = 10


class NotNow(Exception):
    """A report can't be delivered for now; why."""


class IMailer(Protocol):
    """Sends a report by mail."""

    async def mail(self, report: Report, recipients: Sequence[str]) -> None:
        """Take responsibility for it; raises NotNow."""


@frozen
class Targets:
    """Whom a domain wants reports to be sent to."""

    addresses: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


def targets(texts: Sequence[str]) -> Targets:
    """Read the TXT records of ``_smtp._tls`` (section 3); anything but exactly one that counts names nobody."""
    records = [text for text in texts if re.match(r"v=TLSRPTv1[ \t]*;", text)]
    fields = [part.strip().partition("=") for part in records[0].split(";")[1:]] if len(records) == 1 else []
    uris = [uri.strip() for name, _, value in fields if name.strip() == "rua" for uri in value.split(",")]
    addresses, urls = [], []
    for uri in uris[:_MOST_TARGETS]:
        if not _URI.fullmatch(uri):
            continue
        scheme, _, rest = uri.partition(":")
        if scheme.lower() == "https":
            urls.append(uri)
        elif _ADDRESS.fullmatch(address := unquote(rest.partition("?")[0])):
            addresses.append(address)
    return Targets(tuple(addresses), tuple(urls))


class TLSReports:
    """Keeps the ledger on disk and, where there is a submitter, has its reports sent. ``now`` is the wall clock."""

    log = Logger()

    def __init__(
        self,
        ledger: Ledger,
        resolver: Lookups,
        https: HTTPSClient,
        mailer: IMailer,
        submitter: Submitter | None,
        clock: Any,
        now: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._resolver = resolver
        self._https = https
        self._mailer = mailer
        self._submitter = submitter
        self._clock = clock
        self._now = now
        self._later: dict[tuple[str, str], float] = {}
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock
        self._round: Deferred[None] = succeed(None)
        self._stopping = False

    async def start(self) -> None:
        """Take up what was counted before, and begin."""
        await self._ledger.load()
        self._looking.start(LOOK_SECONDS).addErrback(self._failed)

    async def stop(self) -> None:
        """Leave the report in hand for later, and write what was counted."""
        self._stopping = True
        if self._looking.running:
            self._looking.stop()
        self._round.cancel()
        await self._round
        await self._ledger.flush()

    def _failed(self, failure: Failure) -> None:
        self.log.failure("reports on TLS are not sent any more", failure=failure)

    def _look(self) -> Deferred[None]:
        self._round = Deferred.fromCoroutine(self._work()).addErrback(self._not_done)
        return self._round

    def _not_done(self, failure: Failure) -> None:
        if not self._stopping:
            self.log.failure("reports on TLS: trying again in a minute", failure=failure)

    async def _work(self) -> None:
        await self._ledger.flush()
        ends = self._clock.seconds() + LOOK_SECONDS
        for day, domain in self._ledger.waiting():
            if self._stopping or self._clock.seconds() > ends:
                break  # what is counted has to be written between
            if self._submitter is None:
                self._ledger.settle(day, domain, "not sent: [delivery] tls_report_from is empty")
            elif self._due(day, domain.domain) <= self._now():
                await self._report(Report(self._submitter, day, domain))
        if not self._stopping:
            await self._ledger.flush()

    def _due(self, day: str, domain: str) -> float:
        later = self._later.get((day, domain))
        if later is not None:
            return later
        return end_of(day) + zlib.crc32(domain.encode()) % SPREAD_SECONDS

    async def _report(self, report: Report) -> None:
        domain = report.domain.domain
        key = (report.day, domain)
        try:
            fate = await self._deliver(report)
        except NotNow as error:
            if day_of(self._now() - GIVEN_UP_DAYS * 86_400) <= report.day:
                self._later[key] = self._now() + PAUSE_SECONDS
                self._ledger.settle(report.day, report.domain, "")
                return
            sent = f"{_sent_to(report)}; " if report.domain.taken else ""
            fate = f"{sent}given up: {error}"
            metrics.TLS_REPORTS["given_up"].inc()
            self.log.warn("{domain}: the report on TLS of {day} is given up: {why}", domain=domain, day=report.day, why=str(error))
        self._later.pop(key, None)
        self._ledger.settle(report.day, report.domain, fate)

    async def _deliver(self, report: Report) -> str:
        """Send it to all who want it and have not got it yet. Returns what became of it; raises NotNow when some could not get it."""
        domain, taken = report.domain.domain, report.domain.taken
        wanted = await self._targets(domain)
        faults: list[str] = []
        for url in wanted.urls:
            if url in taken:
                continue
            if (fault := await self._posted(url, report)) is None:
                taken.append(url)
            else:
                faults.append(fault)
        if addresses := tuple(address for address in wanted.addresses if address not in taken):
            try:
                await self._mailer.mail(report, addresses)
                taken += addresses
            except NotNow as error:
                faults.append(str(error))
        if faults:
            raise NotNow("; ".join(faults))
        if not taken:
            metrics.TLS_REPORTS["unwanted"].inc()
            return "nobody asks for it"
        metrics.TLS_REPORTS["sent"].inc()
        self.log.info("{domain}: report on TLS of {day} {sent}", domain=domain, day=report.day, sent=_sent_to(report))
        return _sent_to(report)

    async def _posted(self, url: str, report: Report) -> str | None:
        """Why a web server did not take it; None: it did."""
        try:
            status = await self._https.post(url, MEDIA_TYPE, report.packed())
        except HTTPSFailed as error:
            return str(error)
        return None if 200 <= status < 300 else f"{url} answers {status}"

    async def _targets(self, domain: str) -> Targets:
        try:
            answer = await self._resolver.lookup(f"_smtp._tls.{domain}", RdataType.TXT)
        except NoSuchDomain:
            return Targets()
        except DNSFailure as error:
            raise NotNow(str(error)) from None
        records = cast(tuple[TXT, ...], answer.records)
        return targets([b"".join(record.strings).decode("ascii", "replace") for record in records])


def _sent_to(report: Report) -> str:
    return f"sent to {', '.join(report.domain.taken)}"
