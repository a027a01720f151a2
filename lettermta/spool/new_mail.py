"""New messages and new events as units of work: numbers given, rows made, and what is told once they are durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lettermta.event import Event
from lettermta.message import HoldRule, Lane, Message, QueuedRecipient, QueueEntry, State, domain_of
from lettermta.spool.content import MemoryContent, SpoolContent
from lettermta.spool.fresh import FreshContent
from lettermta.spool.opening import Opened
from lettermta.spool.options import encode_recipient
from lettermta.spool.statements import CONTENT, EVENT, HELD, MESSAGE, RECIPIENT, key_rows, message_row
from lettermta.spool.writer import Unit


class NewMail:
    """Gives every message, recipient and event its number, in the order in which they are written, and looks at the standing rules."""

    def __init__(self, fresh: FreshContent) -> None:
        self._fresh = fresh
        self.message_number = self.recipient_number = self.sequence = 1
        """The numbers that are given next."""
        self.rules: list[HoldRule] = []

    def begin_behind(self, opened: Opened) -> None:
        """Go on where the spool that was opened ends."""
        self.message_number, self.recipient_number, self.sequence = opened.message + 1, opened.recipient + 1, opened.sequence + 1
        self.rules = opened.rules

    def message(self, message: Message, content: SpoolContent, events: Sequence[Event]) -> Unit:
        """A new message with its first events; its content stays in memory where it is small."""
        number = self.message_number
        self.message_number += 1
        body = content.body()
        if body is not None:
            self._fresh.keep(number, MemoryContent(message.head, body))
        entries, recipients, held = self._recipients(number, message)
        told, event_rows = self.events(events)
        rows: list[tuple[int, Sequence[tuple[Any, ...]]]] = [
            (MESSAGE, (message_row(number, message),)),
            (CONTENT, ((number, message.head, body, content.file, content.file_checksum),)),
            (RECIPIENT, recipients),
            (EVENT, event_rows),
        ]
        if held:
            rows.append((HELD, held))
        rows += key_rows(message)
        return Unit(rows=rows, told=(entries, told), new=number)

    def events_alone(self, message: Message, events: Sequence[Event]) -> Unit:
        """A message whose recipients are all suppressed is over when it comes in: what is kept of it is its events, and its key."""
        told, rows = self.events(events)
        return Unit(rows=[(EVENT, rows), *key_rows(message)], told=([], told), new=0)

    def report(self, report: Message) -> Unit:
        """A new message of our own, which no event tells of."""
        content = report.content
        assert isinstance(content, SpoolContent)
        assert content.file is None, "a report is small enough to be in memory"
        return self.message(report, content, ())

    def _recipients(self, number: int, message: Message) -> tuple[list[QueueEntry], list[tuple[Any, ...]], list[tuple[int, int]]]:
        """The entries, one a domain, and the rows of a new message's recipients; those that a rule holds are only rows, with its number."""
        entries: dict[str, QueueEntry] = {}
        rows: list[tuple[Any, ...]] = []
        held: list[tuple[int, int]] = []
        state, due = (State.QUEUED, 0.0) if message.hold_until is None else (State.SCHEDULED, message.hold_until)
        for recipient in message.recipients:
            address = recipient.address
            domain = domain_of(address)
            key = self.recipient_number
            self.recipient_number += 1
            if address in message.suppressed:
                rows.append((
                    key, number, address, message.route_id, domain, State.SUPPRESSED.value, message.created, 0, 0,
                    f"suppressed: {message.suppressed[address]}", encode_recipient(recipient), message.tag, message.options.priority,
                ))  # fmt: skip
                continue
            # What is held for a reason of its own does not go when a rule is lifted.
            rule = self._rule_for(message, domain) if self.rules and not message.held else None
            reason = message.held if rule is None else rule.reason
            rows.append((
                key, number, address, message.route_id, domain, State.HELD.value if reason else state.value, due or message.created,
                0, 0, reason, encode_recipient(recipient), message.tag, message.options.priority,
            ))  # fmt: skip
            if rule is not None:
                held.append((rule.id, key))
            if reason:
                continue
            entry = entries.get(domain)
            if entry is None:
                entry = entries[domain] = QueueEntry(
                    number,
                    message.id,
                    Lane(message.route_id, domain),
                    message.project,
                    message.route,
                    message.sender,
                    message.size,
                    message.created,
                    message.expires,
                    message.facts,
                    message.context,
                    [],
                    message.options,
                    due,
                    due or message.created,
                )
            entry.recipients.append(QueuedRecipient(key, address, notify=recipient.notify, orcpt=recipient.orcpt))
        return list(entries.values()), rows, held

    def _rule_for(self, message: Message, domain: str) -> HoldRule | None:
        return next((rule for rule in self.rules if rule.holds(message, domain)), None)

    def _event(self, event: Event) -> tuple[int, tuple[Any, ...]]:
        sequence = self.sequence
        self.sequence += 1
        return sequence, (sequence, event.id, event.name, event.message_id, event.created, event.payload)

    def events(self, events: Sequence[Event]) -> tuple[list[tuple[int, Event]], list[tuple[Any, ...]]]:
        """New events with their numbers, and their rows."""
        told, rows = [], []
        for event in events:
            sequence, row = self._event(event)
            told.append((sequence, event))
            rows.append(row)
        return told, rows

    def reserve_events(self, count: int) -> int:
        """The first of so many numbers for events that the writer makes; it may leave some of them out."""
        first = self.sequence
        self.sequence += count
        return first
