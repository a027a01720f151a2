"""A spool in memory: what :class:`~lettermta.interfaces.ISpool` promises, less the disk.

Every Deferred has fired when it is returned, so tests stay synchronous. Each ``store``, ``record``, ``advance`` and ``trim`` is one
commit; listeners are told of it once, before its Deferred is returned. ``broken`` makes every later write fail with the error given;
while ``full`` no new message is taken.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from lettermta.event import Event
from lettermta.interfaces import IContent, ISpool, ISpoolListener, IStoredContent, NotStored
from lettermta.message import (  # fmt: skip
    FINAL,
    OPEN,
    WAITING,
    Attempt,
    Change,
    Changed,
    HoldRule,
    IdempotencyKey,
    Lane,
    Message,
    Operation,
    Outcome,
    QueuedRecipient,
    QueueEntry,
    Recipient,
    State,
    domain_of,
    mark_of,
)
from lettermta.spool.changes import STATES
from lettermta.suppression import Suppression
from lettermta.testing.suppressions import MemorySuppressions

_PIECE = 65_536


@implementer(IContent)
class MemoryContent:
    """Content that arrives, all of it in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self._data = bytearray(data)

    @property
    def size(self) -> int:
        """Octets written so far."""
        return len(self._data)

    def write(self, data: bytes) -> None:
        """Take the next octets."""
        self._data += data

    def head(self) -> bytes:
        """The header block, without the empty line."""
        return bytes(self._data[: self._border()[0]])

    def body_size(self) -> int:
        """Octets behind the empty line."""
        return len(self._data) - self._border()[1]

    def body(self) -> bytes:
        """What is behind the empty line."""
        return bytes(self._data[self._border()[1] :])

    def digest(self) -> Deferred[bytes]:
        """SHA-256 of the body."""
        return succeed(hashlib.sha256(self.body()).digest())

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """What is behind the empty line, in pieces."""
        body = self.body()
        for start in range(0, len(body), _PIECE):
            yield body[start : start + _PIECE]

    def discard(self) -> None:
        """Forget the content."""
        self._data.clear()

    def _border(self) -> tuple[int, int]:
        """Where the header block ends, and where the body begins."""
        if self._data.startswith(b"\r\n"):
            return 0, 2
        end = self._data.find(b"\r\n\r\n")
        return (end + 2, end + 4) if end >= 0 else (len(self._data), len(self._data))


@implementer(IStoredContent)
@frozen
class MemoryStoredContent:
    """The content of a stored message."""

    data: bytes

    @property
    def size(self) -> int:
        """Octets of all of it."""
        return len(self.data)

    def whole(self) -> bytes | None:
        """All of it."""
        return self.data

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, in pieces."""
        for start in range(0, len(self.data), _PIECE):
            yield self.data[start : start + _PIECE]


@define
class StoredRecipient:
    """One recipient as the spool keeps it."""

    number: int
    address: str
    lane: Lane
    due: float
    asked: Recipient
    state: State = State.QUEUED
    attempts: int = 0
    handed_over: bool = False
    last_reply: str = ""
    first_deferred: float = 0.0
    warned: bool = False


@define
class StoredMessage:
    """One message as the spool keeps it."""

    number: int
    message: Message
    content: bytes
    recipients: dict[int, StoredRecipient] = field(factory=dict)


@implementer(ISpool)
class MemorySpool:
    """The spool. ``stored`` has the messages by number, ``outbox`` the events, ``cursors`` how far each sink is, all for tests to read."""

    def __init__(self) -> None:
        self.stored: dict[int, StoredMessage] = {}
        self.outbox: list[tuple[int, Event]] = []
        self.cursors: dict[str, int] = {}
        self.keys: dict[tuple[str, str], tuple[IdempotencyKey, str]] = {}
        self.suppressions = MemorySuppressions(self._commit)
        self.attempts: list[tuple[str, str, Attempt]] = []
        self.rules: list[HoldRule] = []
        self.broken: Exception | None = None
        self.full = False
        self._listeners: list[ISpoolListener] = []
        self._messages = 0
        self._recipients = 0
        self._events = 0

    def content(self) -> MemoryContent:
        """A buffer for a new message's content."""
        return MemoryContent()

    def room(self, size: int) -> bool:
        """There is room, unless a test says ``full``."""
        return not self.full

    def store(self, message: Message, events: Sequence[Event]) -> Deferred[None]:
        """Store a message with one entry for each lane that its recipients fall in."""
        if self.broken is not None:
            return fail(self.broken)
        if self.full:
            return fail(NotStored("the spool is full"))
        if message.idempotency is not None:
            self.keys[message.project_id, message.idempotency.key] = (message.idempotency, message.id)
        over = len(message.suppressed) == len(message.recipients)
        self._commit([] if over else self._keep(message), events)
        return succeed(None)

    def _keep(self, message: Message) -> list[QueueEntry]:
        self._messages += 1
        body = cast(MemoryContent, message.content).body()
        stored = StoredMessage(self._messages, message, message.head + b"\r\n" + body)
        for recipient in message.recipients:
            self._recipients += 1
            lane = Lane(message.route_id, domain_of(recipient.address))
            one = StoredRecipient(self._recipients, recipient.address, lane, message.hold_until or message.created, recipient)
            one.state = State.QUEUED if message.hold_until is None else State.SCHEDULED
            if recipient.address in message.suppressed:
                one.state, one.last_reply = State.SUPPRESSED, f"suppressed: {message.suppressed[recipient.address]}"
            elif message.held or any(rule.holds(message, lane.domain) for rule in self.rules):
                one.state, one.last_reply = State.HELD, message.held
            stored.recipients[self._recipients] = one
        self.stored[stored.number] = stored
        return list(_entries(stored, [one for one in stored.recipients.values() if one.state in WAITING]))

    def recall(self, project_id: str, key: str, now: float) -> Deferred[tuple[bytes, str] | None]:
        """What an idempotency key stands for."""
        known, message_id = self.keys.get((project_id, key), (None, ""))
        return succeed(None if known is None or known.expires <= now else (known.digest, message_id))

    def record(
        self,
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None = None,
        reports: Sequence[Message] = (),
        suppressions: Sequence[Suppression] = (),
    ) -> Deferred[None]:
        """Store what an attempt came to, and the reports on it; the message goes when its last recipient is finished."""
        if self.broken is not None:
            return fail(self.broken)
        stored = self.stored.get(entry.number)
        if stored is not None:
            for outcome in outcomes:
                recipient = stored.recipients[outcome.recipient.number]
                recipient.due, recipient.last_reply = outcome.due, outcome.reply
                if outcome.state in FINAL or recipient.state in WAITING:
                    recipient.state = outcome.state
                if attempt is not None:
                    self.attempts.append((entry.id, recipient.address, attempt))
                recipient.attempts += outcome.state is not State.SUPPRESSED
                recipient.handed_over |= outcome.handed_over
                recipient.first_deferred, recipient.warned = outcome.first_deferred, outcome.warned
            if all(recipient.state in FINAL for recipient in stored.recipients.values()):
                del self.stored[entry.number]
        added = self.suppressions.keep(suppressions)
        self._commit([new for report in reports for new in self._keep(report)], [*events, *added])
        return succeed(None)

    def tell(self, events: Sequence[Event], suppressions: Sequence[Suppression] = ()) -> Deferred[None]:
        """Store events that no attempt made."""
        if self.broken is not None:
            return fail(self.broken)
        self._commit([], [*events, *self.suppressions.keep(suppressions)])
        return succeed(None)

    def load(self, entry: QueueEntry) -> Deferred[IStoredContent]:
        """The content of an entry's message."""
        stored = self.stored.get(entry.number)
        if stored is None:
            return fail(LookupError(entry.id))
        return succeed(MemoryStoredContent(stored.content))

    def content_of(self, identifier: str) -> Deferred[IStoredContent | None]:
        """The content of the message of that id."""
        found = [stored.content for stored in self.stored.values() if stored.message.id == identifier]
        return succeed(MemoryStoredContent(found[0]) if found else None)

    def lanes(self) -> Deferred[Sequence[tuple[Lane, float]]]:
        """Every lane with waiting recipients, and when its first one is due."""
        first: dict[Lane, float] = {}
        for _, recipient in self._waiting():
            first[recipient.lane] = min(recipient.due, first.get(recipient.lane, recipient.due))
        return succeed(list(first.items()))

    def due(self, lane: Lane, now: float, limit: int) -> Deferred[Sequence[QueueEntry]]:
        """The lane's due recipients, also those that are being attempted: the scheduler knows them."""
        due = [(stored, one) for stored, one in self._waiting() if one.lane == lane and one.due <= now]
        due.sort(key=lambda pair: (-pair[0].message.options.priority, pair[1].due, pair[1].number))
        grouped: dict[int, list[StoredRecipient]] = {}
        for stored, recipient in due[:limit]:
            grouped.setdefault(stored.number, []).append(recipient)
        return succeed([entry for number, recipients in grouped.items() for entry in _entries(self.stored[number], recipients)])

    def next_due(self, lane: Lane, after: float) -> Deferred[float | None]:
        """When the lane's first waiting recipient that is due later than ``after`` is due, or None."""
        return succeed(min((one.due for _, one in self._waiting() if one.lane == lane and one.due > after), default=None))

    def hasten(self, seconds: float, now: float) -> Deferred[int]:
        """Have what was put off be due earlier."""
        if self.broken is not None:
            return fail(self.broken)
        late = [one for _, one in self._waiting() if one.state is State.DEFERRED and one.due > now]
        for one in late:
            one.due = max(one.due - seconds, now)
        return succeed(len(late))

    def query(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """A page of recipients; a filter is equality with the row's value, of ``metadata`` with each of the pairs asked for."""
        rows = (_row(stored, one) for stored in self.stored.values() for one in stored.recipients.values() if one.number > after)
        passed = [row for row in rows if _passes(row, filters)]
        return succeed(sorted(passed, key=lambda row: cast(int, row["number"]))[:limit])

    def count(self, change: Change, filters: Mapping[str, Any]) -> Deferred[int]:
        """How many recipients a change is for."""
        return succeed(len(self._chosen(change, filters, 0)))

    def change(self, change: Change, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Changed]:
        """Change states and lanes as the real one does; it tells no events of that."""
        if self.broken is not None:
            return fail(self.broken)
        chosen = self._chosen(change, filters, after)[:limit]
        lanes = set()
        for stored, one in chosen:
            lanes.add(one.lane)
            _CHANGES[change.operation](one, change)
            lanes.add(one.lane)
            if all(each.state in FINAL for each in stored.recipients.values()):
                del self.stored[stored.number]
        return succeed(Changed(len(chosen), chosen[-1][1].number if len(chosen) >= limit else None, frozenset(lanes)))

    def entries(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[tuple[Sequence[QueueEntry], int | None]]:
        """Unfinished recipients as entries."""
        chosen = self._passing(filters, after, OPEN)[:limit]
        found = [entry for stored, one in chosen for entry in _entries(stored, [one])]
        return succeed((found, chosen[-1][1].number if len(chosen) >= limit else None))

    def hold_rules(self) -> Sequence[HoldRule]:
        """The standing rules."""
        return tuple(self.rules)

    def add_hold_rule(self, conditions: Mapping[str, str], reason: str, moment: float) -> Deferred[HoldRule]:
        """Add a standing rule."""
        rule = HoldRule(len(self.rules) + 1, conditions, reason, moment)
        self.rules.append(rule)
        return succeed(rule)

    def drop_hold_rule(self, identifier: int) -> Deferred[bool]:
        """Drop a standing rule."""
        known = len(self.rules)
        self.rules = [rule for rule in self.rules if rule.id != identifier]
        return succeed(len(self.rules) < known)

    def trace(self, message_id: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """The attempts that were recorded of a message."""
        kept = [
            {"recipient": address, "at": one.moment, "seconds": one.seconds, "via": one.via}
            for identifier, address, one in self.attempts
            if identifier == message_id
        ]
        return succeed(kept)

    def figures(self, by: str, filters: Mapping[str, Any]) -> Deferred[Sequence[Mapping[str, Any]]]:
        """How many recipients each group has."""
        counts = Counter(str(_row(stored, one)[by]) for stored, one in self._passing(filters, 0, OPEN))
        return succeed([{by: name, "count": count} for name, count in counts.most_common()])

    def daily(self, by: str, since: float, project: str | None) -> Deferred[Sequence[Mapping[str, Any]]]:
        """Nothing is counted by day."""
        return succeed([])

    def find_events(self, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """The events of a message, or by name."""
        wanted = {"id": "message_id", "event": "name"}
        return succeed(
            [
                (sequence, one)
                for sequence, one in self.outbox
                if sequence > after and all(getattr(one, wanted[name]) == value for name, value in filters.items())
            ][:limit]
        )

    def _chosen(self, change: Change, filters: Mapping[str, Any], after: int) -> list[tuple[StoredMessage, StoredRecipient]]:
        return self._passing(filters, after, STATES[change.operation])

    def _passing(self, filters: Mapping[str, Any], after: int, states: frozenset[State]) -> list[tuple[StoredMessage, StoredRecipient]]:
        found = [(stored, one) for stored in self.stored.values() for one in stored.recipients.values()]
        passing = [(s, one) for s, one in found if one.number > after and one.state in states and _passes(_row(s, one), filters)]
        return sorted(passing, key=lambda pair: pair[1].number)

    def message(self, identifier: str) -> Deferred[Mapping[str, Any] | None]:
        """One message with its recipients and events, or its events alone, or None."""
        told = [
            {"event": event.name, "timestamp": event.created, "document": event.document}
            for _, event in self.outbox
            if event.message_id == identifier
        ]
        for stored in self.stored.values():
            message = stored.message
            if message.id == identifier:
                recipients = [_row(stored, one) for one in stored.recipients.values()]
                return succeed({**_message_row(message), "head": message.head, "recipients": recipients, "events": told})
        return succeed({"id": identifier, "recipients": [], "events": told} if told else None)

    def events(self, after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """The next events behind ``after``."""
        # The outbox is numbered without gaps; trimming takes from its beginning.
        first = self.outbox[0][0] if self.outbox else 0
        start = max(after + 1 - first, 0)
        return succeed(self.outbox[start : start + limit])

    def cursor(self, sink: str) -> Deferred[int]:
        """The number of the last event that ``sink`` has confirmed."""
        return succeed(self.cursors.get(sink, 0))

    def advance(self, sink: str, sequence: int) -> Deferred[None]:
        """Note what ``sink`` has confirmed."""
        if self.broken is not None:
            return fail(self.broken)
        self.cursors[sink] = sequence
        return succeed(None)

    def retire(self, sinks: Sequence[str]) -> Deferred[Sequence[str]]:
        """Forget the cursors of all others."""
        gone = [sink for sink in self.cursors if sink not in sinks]
        for sink in gone:
            del self.cursors[sink]
        return succeed(gone)

    def trim(self, before: float) -> Deferred[int]:
        """Forget what is old and confirmed by every sink that ever advanced a cursor."""
        confirmed = min(self.cursors.values(), default=self._events)
        count = 0
        for sequence, event in self.outbox:
            if event.created >= before or sequence > confirmed:
                break
            count += 1
        del self.outbox[:count]
        return succeed(count)

    def subscribe(self, listener: ISpoolListener) -> None:
        """Have ``listener`` told of each commit."""
        self._listeners.append(listener)

    def close(self) -> Deferred[None]:
        """Nothing to let go of; what was stored is still there."""
        return succeed(None)

    def _commit(self, entries: Sequence[QueueEntry], events: Sequence[Event]) -> None:
        numbered = list(enumerate(events, self._events + 1))
        self._events += len(numbered)
        self.outbox += numbered
        for listener in self._listeners:
            if entries:
                listener.entries_stored(entries)
            if numbered:
                listener.events_stored(numbered)

    def _waiting(self) -> Iterator[tuple[StoredMessage, StoredRecipient]]:
        for stored in self.stored.values():
            for recipient in stored.recipients.values():
                if recipient.state in WAITING:
                    yield stored, recipient


def _hold(one: StoredRecipient, change: Change) -> None:
    one.state, one.last_reply = State.HELD, change.reason


def _release(one: StoredRecipient, change: Change) -> None:
    one.state, one.due = State.QUEUED, change.moment


def _retry(one: StoredRecipient, change: Change) -> None:
    one.due = min(one.due, change.moment)
    if one.state is not State.DEFERRED:
        one.state = State.QUEUED


def _reroute(one: StoredRecipient, change: Change) -> None:
    one.lane = Lane(change.route_id + mark_of(one.lane.route_id), one.lane.domain)


def _remove(one: StoredRecipient, change: Change) -> None:
    one.state = State.CANCELED


_CHANGES: Mapping[Operation, Callable[[StoredRecipient, Change], None]] = {
    Operation.HOLD: _hold,
    Operation.RELEASE: _release,
    Operation.RETRY: _retry,
    Operation.REROUTE: _reroute,
    Operation.REMOVE: _remove,
}


def _entries(stored: StoredMessage, recipients: Sequence[StoredRecipient]) -> Iterator[QueueEntry]:
    lanes: dict[Lane, list[StoredRecipient]] = {}
    for recipient in recipients:
        lanes.setdefault(recipient.lane, []).append(recipient)
    message = stored.message
    for lane, members in lanes.items():
        yield QueueEntry(
            number=stored.number,
            id=message.id,
            lane=lane,
            project=message.project,
            route=message.route,
            sender=message.sender,
            size=len(stored.content),
            created=message.created,
            expires=message.expires,
            facts=message.facts,
            context=message.context,
            recipients=[_queued(one) for one in members],
            options=message.options,
            due=(message.hold_until or 0.0) if members[0].state is State.SCHEDULED else 0.0,
            since=min(one.due for one in members),
        )


def _queued(one: StoredRecipient) -> QueuedRecipient:
    return QueuedRecipient(
        one.number, one.address, one.attempts, one.handed_over, one.asked.notify, one.asked.orcpt, one.first_deferred, one.warned
    )


def _message_row(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "sender": message.sender,
        "project": message.project,
        "route": message.route,
        "tag": message.tag,
        "metadata": dict(message.metadata),
        "size": message.size,
        "created": message.created,
        "expires": message.expires,
    }


def _row(stored: StoredMessage, recipient: StoredRecipient) -> dict[str, Any]:
    return {
        **_message_row(stored.message),
        "number": recipient.number,
        "state": str(recipient.state),
        "recipient": recipient.address,
        "domain": recipient.lane.domain,
        "due": recipient.due,
        "attempts": recipient.attempts,
        "last_reply": recipient.last_reply,
    }


def _passes(row: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    for name, wanted in filters.items():
        value = row[name]
        if name == "metadata":
            if any(value.get(key) != one for key, one in wanted.items()):
                return False
        elif value != wanted:
            return False
    return True
