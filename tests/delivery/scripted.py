"""A world to deliver in: places that do what a test says, a clock, and a spool whose answers a test can hold back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from lettermta.delivery.reporter import Reporter, ReportRules
from lettermta.delivery.schedule import Schedule
from lettermta.delivery.scheduler import Scheduler, whole
from lettermta.delivery.shaping import Limits
from lettermta.delivery.throttling import ThrottleRules
from lettermta.delivery.way import Way
from lettermta.event import CREATED, message_event
from lettermta.interfaces import IChannel, ISpool, ISpoolListener, ITransport
from lettermta.message import Lane, Message, QueuedRecipient, QueueEntry, Recipient, Reply, Unreachable, Verdict, new_id
from lettermta.testing.spool import MemorySpool

EPOCH = 1_800_000_000.0
OK = Reply(250, "2.0.0", "OK")
LATER = Reply(451, "4.7.1", "Try again later")
NEVER = Reply(550, "5.1.1", "No such user")
NO_ANSWER = Reply(451, "4.4.1", "No answer from any host")
LOST = Reply(451, "4.4.2", "Connection lost")

NO_LIMITS = Limits()

Answer = Callable[[QueueEntry, QueuedRecipient], Verdict]


def accept(entry: QueueEntry, recipient: QueuedRecipient) -> Verdict:
    return Verdict(recipient, OK, handed_over=True)


def answer(reply: Reply, *, remote: bool = True, handed_over: bool = False) -> Answer:
    return lambda entry, recipient: Verdict(recipient, reply, remote, handed_over)


def make_message(spool: ISpool, recipients: Sequence[str], now: float, *, lifetime: float = 432_000.0, route: str = "r1") -> Message:
    identifier = new_id()
    content = spool.content()
    content.write(b"Subject: Hello\r\n\r\nA body.\r\n")
    return Message(
        id=identifier,
        project_id="p1",
        project="demo",
        route_id=route,
        route="outgoing",
        sender="shop@example.net",
        recipients=tuple(map(Recipient, recipients)),
        tag="orders",
        metadata={"order_id": "1"},
        head=content.head(),
        content=content,
        size=content.size,
        created=now,
        expires=now + lifetime,
        facts=b'{"message_id":"%b","metadata":{"order_id":"1"},"tag":"orders"}' % identifier.encode(),
        context=b'{"project":"demo","route":"outgoing"}',
    )


@implementer(IChannel)
class Channel:
    """One way to a place. ``held`` has what is under way while the place holds its answers back, and where the place takes one more ahead
    of time, ``behind`` has that.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.usable = True
        self.closed = False
        self.description = f"{place.name} #{place.opened}"
        self.host = f"mx.{place.name}"
        self.details = {"host": self.host}
        self.dsn = place.dsn
        self.held: tuple[QueueEntry, Deferred[Sequence[Verdict]]] | None = None
        self.behind: tuple[QueueEntry, Deferred[Sequence[Verdict]]] | None = None
        self._room: Callable[[], None] | None = None

    @property
    def ended(self) -> bool:
        return not self.usable

    def send(self, entry, content, room=None):
        assert self.usable, "used a channel that said it is not usable"
        assert not self.closed
        assert self.behind is None, "more at once on one channel than there is room for"
        assert self.held is None or self._place.ahead, "two attempts at once on one channel"
        self._place.begin(entry)
        if not self._place.holding:
            assert self.held is None
            return succeed(self._place.judge(entry))
        result: Deferred[Sequence[Verdict]] = Deferred()
        if self.held is not None:
            self.behind, self._room = (entry, result), room
            return result
        self.held = (entry, result)
        if self._place.ahead and room is not None:
            room()
        return result

    def finish(self, verdicts: Sequence[Verdict] | None = None) -> None:
        """Answer the first one; when the channel has gone, the one behind it was never looked at."""
        assert self.held is not None
        (entry, result), self.held, self.behind = self.held, self.behind, None
        result.callback(self._place.judge(entry, verdicts))
        if self.held is not None and not self.usable:
            (entry, result), self.held = self.held, None
            result.callback(self._place.judge(entry, [Verdict(one, LOST, remote=False) for one in entry.recipients]))
        elif self.held is not None and self._room is not None:
            room, self._room = self._room, None
            room()

    def close(self):
        assert not self.closed, "closed twice"
        assert self.held is None, "closed with something under way"
        self.closed = True
        self.usable = False


@implementer(ITransport)
class Place:
    """The other side of one destination; counts every attempt and watches that nobody gets anything twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault: Exception | None = None
        self.dsn = False
        self.answer: Answer = accept
        self.holding = False
        self.ahead = False
        """Whether a channel takes one more entry behind the one that is held."""
        self.holding_opens = False
        self.opened = 0
        self.asked_open = 0
        self.opening: list[Deferred[IChannel]] = []
        self.channels: list[Channel] = []
        self.attempts: list[tuple[str, ...]] = []
        self.under_way: set[int] = set()
        self.accepted: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()

    @property
    def open_channels(self) -> list[Channel]:
        return [channel for channel in self.channels if not channel.closed]

    @property
    def recipients(self) -> list[str]:
        return [address for attempt in self.attempts for address in attempt]

    def open(self):
        self.asked_open += 1
        if self.holding_opens:
            self.opening.append(Deferred())
            return self.opening[-1]
        return fail(self.fault) if self.fault is not None else succeed(self.channel())

    def channel(self) -> Channel:
        self.opened += 1
        self.channels.append(Channel(self))
        return self.channels[-1]

    def begin(self, entry: QueueEntry) -> None:
        for recipient in entry.recipients:
            assert recipient.number not in self.under_way, "attempted twice at once"
            assert not self.accepted[recipient.number], "sent again to a recipient who has it"
            assert not self.refused[recipient.number], "sent again to a recipient who never wants it"
            self.under_way.add(recipient.number)
        assert entry.recipients
        self.attempts.append(tuple(recipient.address for recipient in entry.recipients))

    def judge(self, entry: QueueEntry, verdicts: Sequence[Verdict] | None = None) -> Sequence[Verdict]:
        if verdicts is None:
            verdicts = [self.answer(entry, recipient) for recipient in entry.recipients]
        for verdict in verdicts:
            self.under_way.remove(verdict.recipient.number)
            self.accepted[verdict.recipient.number] += verdict.reply.positive
            self.refused[verdict.recipient.number] += verdict.reply.permanent
        return verdicts


class World:
    """A scheduler between a spool and places; the wall clock goes with ``clock``."""

    def __init__(
        self, spool: MemorySpool | None = None, delays: Sequence[float] = (60.0, 300.0), reporter: ReportRules | None = None
    ) -> None:
        self.clock = Clock()
        self.spool = spool if spool is not None else MemorySpool()
        self.delays = delays
        self.places: dict[str, Place] = {}
        self.ways: dict[str, str] = {}
        """The place that a lane's mail goes to, by route or domain; else the one named as the domain."""
        self.limits: dict[str, Limits] = {}
        """By place."""
        self.flows: dict[str, str] = {}
        """What a place shares its limits with, where it does."""
        self.throttles: ThrottleRules | None = None
        self.schedules: dict[str, Sequence[float]] = {}
        """The delays of a route that has its own."""
        self.reporter = reporter and Reporter(reporter, self.spool.content, self.spool.load, lambda _: 432_000.0, self.now)
        self.parted = whole
        self.scheduler = self.new_scheduler()

    def new_scheduler(self) -> Scheduler:
        parts = {"parted": self.parted, "throttles": self.throttles}
        return Scheduler(self.spool, self.way, self.schedule_of, self.clock, self.now, self.reporter, **parts)

    def schedule_of(self, lane: Lane) -> Schedule:
        return Schedule(self.schedules.get(lane.route_id, self.delays), jitter=0.0)

    def now(self) -> float:
        return EPOCH + self.clock.seconds()

    def place(self, name: str) -> Place:
        if name not in self.places:
            self.places[name] = Place(name)
        return self.places[name]

    def way(self, lane: Lane):
        name = self.ways.get(lane.route_id) or self.ways.get(lane.domain) or lane.domain
        return Way(name, lambda: self.place(name), self.flows.get(name, name), self.limits.get(name, NO_LIMITS))

    def start(self) -> World:
        self.scheduler.start()
        self.clock.advance(0)
        return self

    def submit(self, *recipients: str, lifetime: float = 432_000.0, route: str = "r1") -> Message:
        message = make_message(self.spool, recipients, self.now(), lifetime=lifetime, route=route)
        stored = self.spool.store(message, [message_event(CREATED, self.now(), message.id, message.facts, message.context)])
        stored.addErrback(lambda failure: failure.trap(OSError))
        return message

    def told(self, message: Message | None = None) -> list[str]:
        """The names of the events behind ``created``, without the prefix; of one message or of all."""
        return [
            event.name.removeprefix("message.")
            for _, event in self.spool.outbox
            if event.name != CREATED and (message is None or event.message_id == message.id)
        ]

    def events(self, name: str):
        return [event for _, event in self.spool.outbox if event.name == f"message.{name}"]

    def recipients(self):
        return [one for stored in self.spool.stored.values() for one in stored.recipients.values()]

    def assert_at_rest(self) -> None:
        """Nothing is in hand, nothing is awaited, every channel is given back; and after a stop there is no timer."""
        scheduler = self.scheduler
        self.clock.pump([1.0] * 25)
        assert scheduler._hand == 0
        assert not scheduler._lanes
        assert not scheduler._hungry
        assert scheduler._asked == 0
        assert not scheduler._recorder._unrecorded
        assert not [channel for place in self.places.values() for channel in place.open_channels]
        assert scheduler._budget._free == scheduler._budget._limit
        assert not scheduler._budget._refused
        assert not scheduler._budget._held
        fired = []
        scheduler.stop().addCallback(fired.append)
        assert fired
        assert not self.clock.getDelayedCalls()


class _Relay:
    def __init__(self, listener: ISpoolListener, spool: StagedSpool) -> None:
        self._listener = listener
        self._spool = spool

    def entries_stored(self, entries):
        self._spool.told.append(lambda: self._listener.entries_stored(entries))

    def events_stored(self, events):
        self._spool.told.append(lambda: self._listener.events_stored(events))


class StagedSpool(MemorySpool):
    """A spool with a writing and a reading thread and the reactor's queue between them: a test decides who comes next.

    What is written shows to reads at once, as after a commit; its Deferred fires, and listeners are told, when the reactor comes to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: deque[tuple[Callable[[], Deferred], Deferred]] = deque()
        self.reads: deque[tuple[Callable[[], Deferred], Deferred]] = deque()
        self.calls: deque[Callable[[], None]] = deque()
        self.told: list[Callable[[], None]] = []

    def subscribe(self, listener):
        super().subscribe(_Relay(listener, self))

    def write_one(self) -> None:
        work, done = self.writes.popleft()
        self.told = []
        work().addBoth(lambda result: self.calls.append(lambda: done.callback(result)))
        self.calls.extend(self.told)

    def read_one(self) -> None:
        work, done = self.reads.popleft()
        work().addBoth(lambda result: self.calls.append(lambda: done.callback(result)))

    def call_one(self) -> None:
        self.calls.popleft()()

    def settle(self) -> None:
        """Do all that waits, as long as there is some."""
        while self.writes or self.reads or self.calls:
            if self.writes:
                self.write_one()
            elif self.reads:
                self.read_one()
            else:
                self.call_one()

    def _write(self, work):
        self.writes.append((work, Deferred()))
        return self.writes[-1][1]

    def _read(self, work):
        self.reads.append((work, Deferred()))
        return self.reads[-1][1]

    def store(self, message, events):
        return self._write(lambda: MemorySpool.store(self, message, events))

    def record(self, entry, outcomes, events, attempt=None, reports=(), suppressions=()):
        return self._write(lambda: MemorySpool.record(self, entry, outcomes, events, attempt, reports, suppressions))

    def load(self, entry):
        return self._read(lambda: MemorySpool.load(self, entry))

    def lanes(self):
        return self._read(lambda: MemorySpool.lanes(self))

    def due(self, lane, now, limit):
        return self._read(lambda: MemorySpool.due(self, lane, now, limit))

    def next_due(self, lane, after):
        return self._read(lambda: MemorySpool.next_due(self, lane, after))


def unreachable(reply: Reply = NO_ANSWER) -> Unreachable:
    return Unreachable(reply)
