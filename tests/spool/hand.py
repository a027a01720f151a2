"""A reactor that is turned by hand: the spool's threads are real, and what they send to the reactor runs when a test waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from lettermta.event import CREATED, DELIVERED, Event, message_event
from lettermta.message import Lane, Message, Outcome, QueueEntry, Recipient, State, new_id
from lettermta.spool.store import Spool

PATIENCE = 20.0
"""Seconds after which a Deferred that has not fired fails its test."""
NOW = 1_800_000_000.0
SMALL = b"Subject: Hello\r\nFrom: shop@example.net\r\n\r\nA body.\r\n"


class HandReactor:
    """As much of IReactorThreads as the spool uses."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def getThreadPool(self) -> HandReactor:
        return self

    def callInThreadWithCallback(self, told: Callable[[bool, object], None], function: Callable[..., Any], *arguments: Any) -> None:
        def run() -> None:
            try:
                result = function(*arguments)
            except BaseException:
                told(False, Failure())
            else:
                told(True, result)

        threading.Thread(target=run, daemon=True).start()

    def wait(self, deferred: Deferred[Any]) -> Any:
        """Turn until it has fired; its result, or raises its failure."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.turn_once()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def turn_once(self) -> None:
        """Wait for the next call and run it."""
        try:
            function, arguments = self._calls.get(timeout=PATIENCE)
        except Empty:
            raise AssertionError("has not fired") from None
        function(*arguments)

    def turn(self) -> None:
        """Run what has been sent so far."""
        while not self._calls.empty():
            function, arguments = self._calls.get()
            function(*arguments)


class Desk:
    """An open spool with what a test does to it, each waited for. Listens for what becomes durable."""

    def __init__(self, directory: Path, free_space: int = 0) -> None:
        self.directory = directory
        self.reactor = HandReactor()
        self.spool = Spool(directory, self.reactor, free_space)  # type: ignore[arg-type]
        self.spool.open()
        self.spool.subscribe(self)  # type: ignore[arg-type]
        self.entries: list[QueueEntry] = []
        self.told: list[tuple[int, Event]] = []

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        self.entries += entries

    def events_stored(self, events: Sequence[tuple[int, Event]]) -> None:
        self.told += events

    def until_working(self) -> None:
        """Turn until the spool takes new mail again."""
        while self.spool.complaint() is not None:
            self.reactor.turn_once()

    def close(self) -> None:
        self.reactor.wait(self.spool.close())

    def reopened(self) -> Desk:
        self.close()
        return Desk(self.directory)

    def message(self, *recipients: str, data: bytes = SMALL, created: float = NOW, **fields: Any) -> Message:
        identifier = fields.pop("id", None) or new_id()
        content = self.spool.content()
        for start in range(0, len(data), 65_536):
            wait = content.write(data[start : start + 65_536])
            if wait is not None:
                self.reactor.wait(wait)
        known: dict[str, Any] = {
            "id": identifier,
            "project_id": "p1",
            "project": "demo",
            "route_id": "r1",
            "route": "outgoing",
            "sender": "shop@example.net",
            "recipients": tuple(map(Recipient, recipients or ("jane@example.com",))),
            "tag": "orders",
            "metadata": {"order_id": "1234"},
            "head": content.head(),
            "content": content,
            "size": content.size,
            "created": created,
            "expires": created + 432_000.0,
            "facts": b'{"message_id":"%b"}' % identifier.encode(),
            "context": b'{"project":"demo"}',
        }
        return Message(**{**known, **fields})

    def storing(self, message: Message) -> Deferred[None]:
        return self.spool.store(message, [message_event(CREATED, message.created, message.id, message.facts, message.context)])

    def store(self, *recipients: str, **fields: Any) -> Message:
        message = self.message(*recipients, **fields)
        self.reactor.wait(self.storing(message))
        return message

    def content(self, entry: QueueEntry) -> bytes:
        """All of an entry's content, as a channel would read it."""
        stored = self.reactor.wait(self.spool.load(entry))
        whole: bytes | None = stored.whole()
        if whole is None:

            async def read() -> bytes:
                return b"".join([piece async for piece in stored.pieces()])

            whole = self.reactor.wait(Deferred.fromCoroutine(read()))
        assert len(whole) == stored.size
        return whole

    def due(self, domain: str = "example.com", now: float = NOW, limit: int = 1000, route: str = "r1") -> Sequence[QueueEntry]:
        found: Sequence[QueueEntry] = self.reactor.wait(self.spool.due(Lane(route, domain), now, limit))
        return found

    def record(self, entry: QueueEntry, *states: State, due: float = 0.0, reply: str = "250 OK", handed_over: bool = True) -> None:
        """What an attempt came to, a state for each recipient, with one event."""
        members = list(zip(entry.recipients, states, strict=True))
        outcomes = [Outcome(one, state, reply, due if state is State.DEFERRED else 0.0, handed_over) for one, state in members]
        event = message_event(DELIVERED, NOW, entry.id, entry.facts, entry.context, recipient=entry.recipients[0].address)
        self.reactor.wait(self.spool.record(entry, outcomes, [event]))

    def rows(self, filters: Mapping[str, Any] | None = None, after: int = 0, limit: int = 1000) -> Sequence[Mapping[str, Any]]:
        rows: Sequence[Mapping[str, Any]] = self.reactor.wait(self.spool.query(filters or {}, after, limit))
        return rows

    def events(self, after: int = 0, limit: int = 1000) -> Sequence[tuple[int, Event]]:
        events: Sequence[tuple[int, Event]] = self.reactor.wait(self.spool.events(after, limit))
        return events

    def bodies(self) -> list[str]:
        """The body files that are there, once what was under way is done."""
        return sorted(path.name for path in (self.directory / "body").rglob("*") if path.is_file())


def large(octets: int = 300_000) -> bytes:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return b"Subject: Large\r\n\r\n" + line * (octets // len(line))
