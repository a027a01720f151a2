"""The desk for what comes back: which addresses take it, and what becomes of it.

Promises: only signed return paths that are still in force, and the addresses for complaints that the operator named, take anything, so
nothing is ever relayed or answered (no backscatter: everything else is refused at RCPT). A message is answered by 250 when what it tells is
durable: its events, with what they suppress, in one commit, or a file where it is nothing known. A report is told once, however often it
comes: whoever got a message has its return path, and could flood everyone with events. How many come in a minute is bounded, by the
client's address and in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.judge import Classify
from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.kept import Kept
from lettermta.delivery.returns.mime import Parsed, parse
from lettermta.delivery.returns.path import NoReturnPath, Returned, ReturnPaths
from lettermta.delivery.returns.recognise import recognise
from lettermta.delivery.returns.telling import Known, known_of, telling
from lettermta.interfaces import IReturns, ISpool
from lettermta.message import Refused, Reply

PER_ADDRESS = 600
PER_MINUTE = 6_000
"""Messages that come back in a minute: from one client's address, and in all."""
WAIT_SECONDS = 5.0
"""How long a report waits for the attempt that it reports on to be on record."""
LOOK_AGAIN_SECONDS = 0.25

_NOBODY = Reply(550, "5.1.1", "No such address here")
_NO_LONGER = Reply(550, "5.1.1", "This return path is no longer in force")
_TOO_MUCH = Reply(450, "4.7.1", "Too much comes back at once, try again later")
_NOT_NOW = Reply(451, "4.3.0", "What came back could not be stored, try again later")

Threaded = Callable[..., Deferred[Any]]


@frozen
class DeskRules:
    """Where complaints may come besides return paths (in lower case), and how many messages a minute may."""

    complaint_addresses: frozenset[str] = frozenset()
    suppress_bounced: bool = True
    """Whether a failure that means a dead address suppresses it. A complaint always does."""
    per_address: int = PER_ADDRESS
    per_minute: int = PER_MINUTE


@implementer(IReturns)
@define(eq=False)
class ReturnsDesk:
    """Takes what comes back. ``threaded`` runs a function in a thread, ``now`` is the wall clock."""

    log = Logger()

    rules: DeskRules
    paths: ReturnPaths
    spool: ISpool
    classify: Classify
    kept: Kept
    clock: IReactorTime
    threaded: Threaded
    now: Callable[[], float]
    _minute: int = field(init=False, default=-1)
    _came: Counter[str] = field(init=False, factory=Counter)
    _came_in_all: int = field(init=False, default=0)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    """One message is looked up and told of at a time, so that two of the same are not both the first."""

    # -- RCPT

    def check(self, client: str, address: str) -> None:
        """See IReturns."""
        if not self._takes_complaints(address):
            try:
                self.paths.read(address)
            except NoReturnPath as error:
                metrics.RETURNS_REFUSED[error.cause].inc()
                raise Refused(_NO_LONGER if error.cause == "expired" else _NOBODY, f"return path: {error.cause}") from None
        self._count(client)

    def _takes_complaints(self, address: str) -> bool:
        return address.lower() in self.rules.complaint_addresses

    def _count(self, client: str) -> None:
        minute = int(self.clock.seconds() // 60)
        if minute != self._minute:
            self._minute = minute
            self._came.clear()
            self._came_in_all = 0
        if self._came[client] >= self.rules.per_address or self._came_in_all >= self.rules.per_minute:
            metrics.RETURNS_REFUSED["rate"].inc()
            raise Refused(_TOO_MUCH, "too much comes back")
        self._came[client] += 1
        self._came_in_all += 1

    # -- the end of data

    def take(self, sender: str, addresses: Sequence[str], octets: bytes) -> Deferred[None]:
        """See IReturns."""
        return Deferred.fromCoroutine(self._take_all(sender, addresses, octets))

    async def _take_all(self, sender: str, addresses: Sequence[str], octets: bytes) -> None:
        try:
            for address in addresses:
                await self._take(sender, address, octets)
        except Exception:
            self.log.failure("what came back to {addresses} could not be stored", addresses=", ".join(addresses))
            raise Refused(_NOT_NOW, "returns") from None

    async def _take(self, sender: str, address: str, octets: bytes) -> None:
        parsed = await self._parsed(octets)
        if self._takes_complaints(address):
            finding = await self._recognised(parsed, None, False)
            if finding.kind is not Kind.COMPLAINT:
                await self._keep(octets, address, finding, "came to an address for complaints, and is none")
                return
            returned = await self.threaded(self._path_in, octets, parsed)
            if returned is None:
                await self._keep(octets, address, finding, "a complaint without a return path of ours in it")
                return
        else:
            returned = self.paths.read(address)
        known = await self._once_sent(returned)
        if known is None:
            await self._keep(octets, address, Finding(Kind.UNRECOGNISED), f"nothing is known of message {returned.message_id} any more")
            return
        finding = await self._recognised(parsed, known.recipient, not sender)
        if finding.kind in (Kind.UNRECOGNISED, Kind.FEEDBACK):
            await self._keep(octets, address, finding, f"for message {known.message_id}")
            return
        await self._turn.run(lambda: Deferred.fromCoroutine(self._tell(returned, known, finding)))

    def _path_in(self, octets: bytes, parsed: Parsed) -> Returned | None:
        """A return path anywhere in a message, also in a part that is encoded."""
        encoded = (part.lines for part in parsed.parts if part.lines is not part.body)
        return next((found for each in (octets, *encoded) if (found := self.paths.found_in(each.decode("utf-8", "replace")))), None)

    async def _parsed(self, octets: bytes) -> Parsed:
        """The message, taken apart. A fault of ours in this must not have the other side try for days."""
        try:
            parsed: Parsed = await self.threaded(parse, octets)
        except Exception:
            self.log.failure("what came back could not be taken apart")
            return Parsed({}, "", {}, ())
        return parsed

    async def _recognised(self, parsed: Parsed, recipient: str | None, null_sender: bool) -> Finding:
        """What the message is; likewise."""
        try:
            finding: Finding = await self.threaded(recognise, parsed, recipient, null_sender)
        except Exception:
            self.log.failure("what came back could not be recognised")
            return Finding(Kind.UNRECOGNISED)
        return finding

    async def _tell(self, returned: Returned, known: Known, finding: Finding) -> None:
        known = await self._known(returned) or known
        told = telling(known, finding, self.classify, self.now(), suppress_bounced=self.rules.suppress_bounced)
        if told is not None:
            await self.spool.tell(told.events, told.suppressions)
        metrics.RETURNS[finding.kind if told is not None or finding.kind is Kind.ARRIVED else "repeated"].inc()
        self.log.info(
            "{id}: came back: {kind} to=<{recipient}> form={form} from={reporter} class={reply_class} reply={reply}{repeated}",
            id=known.message_id,
            kind=finding.kind.value,
            recipient=known.recipient,
            form=finding.form,
            reporter=finding.reporter or "-",
            reply_class=(told and told.reply_class) or "-",
            reply=finding.reply or finding.detail or "-",
            repeated="" if told is not None or finding.kind is Kind.ARRIVED else " (told before)",
        )

    async def _once_sent(self, returned: Returned) -> Known | None:
        """What is known once the attempt that sent the message is on record: a report may be faster than that."""
        deadline = self.clock.seconds() + WAIT_SECONDS
        while True:
            known = await self._known(returned)
            if known is None or known.sent or self.clock.seconds() >= deadline:
                return known
            await deferLater(self.clock, LOOK_AGAIN_SECONDS)

    async def _known(self, returned: Returned) -> Known | None:
        return known_of(await self.spool.message(returned.message_id), returned)

    async def _keep(self, octets: bytes, address: str, finding: Finding, why: str) -> None:
        name = await self.threaded(self.kept.keep, octets, why)
        metrics.RETURNS["feedback" if finding.kind is Kind.FEEDBACK else "unrecognised"].inc()
        self.log.warn("what came back to <{address}> is kept as {name}: {why}", address=address, name=name, why=why)
