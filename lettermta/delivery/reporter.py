"""Reports to senders, from what an attempt came to to the messages that the spool stores with it (RFC 3461 section 5.2).

Promises: nobody is written to who does not want it; a report is never reported on, and neither is mail from the null sender; one sender
gets at most :data:`PER_MINUTE` reports a minute, the rest are counted and logged (HARD-CASES row 25). A report that can't be made is
logged and left out: what an attempt came to goes on record in any case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import orjson
from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lettermta import metrics
from lettermta.delivery.dsn import MOST_RETURNED, Action, Original, Reported, groups, report
from lettermta.interfaces import IChannel, IContent, IStoredContent
from lettermta.message import BodyType, Lane, Message, Notify, Options, Outcome, QueueEntry, Recipient, State, Verdict, new_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PER_MINUTE = 100
"""Reports that one sender address gets in a minute at the most."""
LARGEST = 100_000
"""Octets of a report, so that it is small enough to stay in memory: one that gets larger returns less, or is parted."""

_NEVER = frozenset({Notify.NEVER})
_EXPIRED = "4.4.7"
"""Delivery time expired (RFC 3463 section 3.5)."""
_ENDED = frozenset({State.BOUNCED, State.EXPIRED})

Told = Sequence[Sequence[Reported]]
"""The recipients to tell of, parted into what goes into one report each."""


@frozen
class ReportRules:
    """What reports are made by. ``warn_after``: seconds behind a first deferral when a sender is told of the delay; None: never."""

    hostname: str
    enabled: bool = True
    warn_after: float | None = None
    per_minute: int = PER_MINUTE


class Reporter:
    """Makes reports. ``content`` is the spool's, ``load`` finds an original's content; ``lifetime_of`` is that of a lane's mail."""

    log = Logger()

    def __init__(
        self,
        rules: ReportRules,
        content: Callable[[], IContent],
        load: Callable[[QueueEntry], Deferred[IStoredContent]],
        lifetime_of: Callable[[Lane], float],
        now: Callable[[], float],
    ) -> None:
        self.rules = rules
        self._content = content
        self._load = load
        self._lifetime_of = lifetime_of
        self._now = now
        self._minute = 0
        self._written: Counter[str] = Counter()

    @property
    def warn_after(self) -> float | None:
        """Seconds behind a first deferral when a recipient is late; None: never."""
        return self.rules.warn_after if self.rules.enabled else None

    def told(self, entry: QueueEntry, outcomes: Sequence[Outcome], verdicts: Sequence[Verdict], channel: IChannel | None) -> Told:
        """Whom to tell of; mostly nothing. Each verdict is the one that the outcome in its place was made of. Never fails."""
        if entry.options.report:
            self._failures(entry, outcomes)
            return ()
        if not self.rules.enabled or not entry.sender:
            return ()
        reported = [
            one
            for outcome, verdict in zip(outcomes, verdicts, strict=False)
            if outcome.state is not State.DELIVERED or outcome.recipient.notify is not None
            if (one := self._reported(entry, outcome, verdict, channel)) is not None
        ]
        return self._within_rate(entry, list(groups(_original(entry, ""), reported))) if reported else ()

    async def write(self, entry: QueueEntry, told: Told) -> list[Message]:
        """The reports as messages to be stored; never fails."""
        try:
            head, body = await self._returned(entry)
            subject = orjson.loads(entry.facts).get("subject") or ""
            original = evolve(_original(entry, subject), head=head, body=body)
            return [message for group in told for message in self._messages(entry, original, group)]
        except Exception:
            self.log.failure("{id}: no report to <{sender}> could be made", id=entry.id, sender=entry.sender)
            return []

    # -- what is told

    def _reported(self, entry: QueueEntry, outcome: Outcome, verdict: Verdict, channel: IChannel | None) -> Reported | None:
        action = _action(outcome, channel)
        if action is None:
            return None
        recipient, reply = outcome.recipient, verdict.reply
        status, reason = reply.enhanced, reply.text
        if outcome.state is State.EXPIRED:
            status, reason = _EXPIRED, f"Not delivered in time; the last attempt: {reply}"
        host = channel.host if channel is not None and verdict.remote else None
        return Reported(
            recipient.address,
            action,
            status=status,
            notify=recipient.notify,
            orcpt=recipient.orcpt,
            reply=reply if verdict.remote and (channel is None or channel.host is not None) else None,
            remote_mta=host,
            reason=reason,
            last_attempt=self._now(),
            retry_until=entry.expires,
        )

    def _within_rate(self, entry: QueueEntry, told: list[Sequence[Reported]]) -> Told:
        minute = int(self._now() // 60)
        if minute != self._minute:
            self._minute = minute
            self._written.clear()
        sender = entry.sender.lower()
        kept = told[: max(self.rules.per_minute - self._written[sender], 0)]
        self._written[sender] += len(kept)
        for group in told[len(kept) :]:
            metrics.REPORTS[_kind(group), "over_rate"].inc()
            self.log.warn("{id}: <{sender}> has had its reports of this minute, no more is sent", id=entry.id, sender=entry.sender)
        return kept

    def _failures(self, entry: QueueEntry, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.state in _ENDED:
                metrics.REPORTS_FAILED.inc()
                self.log.warn("{id}: the report to <{recipient}> failed", id=entry.id, recipient=outcome.recipient.address)

    # -- the reports

    async def _returned(self, entry: QueueEntry) -> tuple[bytes, bytes | None]:
        """The original's header block, and its body where it may have to come back. None of both when the content is gone."""
        try:
            content = await self._load(entry)
            whole = content.whole()
            if whole is None:
                # Too large to be returned whole: the front will do, and that is in the first piece.
                async with aclosing(cast("AsyncGenerator[bytes, None]", content.pieces())) as pieces:
                    whole = await anext(pieces)
        except (LookupError, OSError, StopAsyncIteration) as error:
            self.log.error("{id}: a report goes without the original: {reason}", id=entry.id, reason=str(error))
            return b"", None
        head, body = _split(whole)
        return head, body if entry.options.ret == "FULL" and content.size <= MOST_RETURNED else None

    def _messages(self, entry: QueueEntry, original: Original, group: Sequence[Reported]) -> list[Message]:
        identifier = new_id()
        hostname = self.rules.hostname
        head, body = report(original, group, hostname, f"{identifier}@{hostname}", self._now())
        if len(head) + len(body) <= LARGEST:
            metrics.REPORTS[_kind(group), "stored"].inc()
            return [self._message(entry, identifier, head, body)]
        if original.body is not None:
            return self._messages(entry, evolve(original, body=None), group)
        middle = len(group) // 2
        return [*self._messages(entry, original, group[:middle]), *self._messages(entry, original, group[middle:])]

    def _message(self, entry: QueueEntry, identifier: str, head: bytes, body: bytes) -> Message:
        """A report on its way: from the null sender, and never to be reported on itself (RFC 3461 section 6.1)."""
        content = self._content()
        content.write(b"%b\r\n%b" % (head, body))
        now = self._now()
        self.log.info("{id}: report {report} to=<{sender}>", id=entry.id, report=identifier, sender=entry.sender)
        return Message(
            id=identifier,
            project_id=orjson.loads(entry.context).get("project_id", ""),
            project=entry.project,
            route_id=entry.lane.route_id,
            route=entry.route,
            sender="",
            recipients=(Recipient(entry.sender, _NEVER),),
            tag=None,
            metadata={},
            head=content.head(),
            content=content,
            size=content.size,
            created=now,
            expires=now + self._lifetime_of(entry.lane),
            facts=orjson.dumps({"message_id": identifier, "subject": None, "metadata": {}, "tag": None, "tags": [], "headers": []}),
            context=entry.context,
            options=Options(
                body=BodyType.SEVEN_BIT if body.isascii() else BodyType.EIGHT_BIT,
                smtputf8=not head.isascii() or not entry.sender.isascii(),
                require_tls=entry.options.require_tls,
                report=True,
            ),
        )


def _action(outcome: Outcome, channel: IChannel | None) -> Action | None:
    """What there is to report of an outcome, if anything."""
    if outcome.state in _ENDED:
        return Action.FAILED
    if outcome.state is State.DEFERRED:
        return Action.DELAYED if outcome.warned and not outcome.recipient.warned else None
    if outcome.state is not State.DELIVERED or channel is None:
        return None
    if channel.host is None:
        return Action.DELIVERED
    # RFC 3461 section 5.2.2: the other side reports by itself, or we say that it can't.
    return None if channel.dsn else Action.RELAYED


def _kind(group: Sequence[Reported]) -> str:
    return group[0].action.kind.value.lower()


def _original(entry: QueueEntry, subject: str) -> Original:
    """The original without its content."""
    return Original(entry.id, entry.sender, entry.options, b"", None, entry.size, entry.created, subject)


def _split(whole: bytes) -> tuple[bytes, bytes]:
    """Header block and body; what has no empty line is all header block."""
    if whole.startswith(b"\r\n"):
        return b"", whole[2:]
    end = whole.find(b"\r\n\r\n")
    return (whole, b"") if end < 0 else (whole[: end + 2], whole[end + 4 :])
