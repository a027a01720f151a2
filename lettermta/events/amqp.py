"""Events to an AMQP broker such as RabbitMQ, each confirmed before it counts as told.

The events of a message are published one behind the other: the next one goes out when the last one is confirmed, while those of other
messages are on the way. So a consumer sees them in their order whatever the broker refuses or loses; after a lost connection some come
again, with the same id and the same octets. A broker that is away, that refuses, or that has no queue for an event is tried again for
ever; the reason is logged once, and so is its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from zope.interface import implementer

from lettermta.event import Event
from lettermta.events.amqp_channel import Broker, Channel, NotTaken, open_channel
from lettermta.events.sink import Backoff, IEventSink
from lettermta.plugged import within

CONFIRM_SECONDS = 60.0
"""How long the broker may take to confirm what was published together."""


@frozen
class AMQPSettings:
    """``routing_key`` is a form with the fields project, route and event; ``mandatory``: an event without a queue for it waits."""

    broker: Broker
    exchange: str = "lettermta"
    declare: bool = True
    routing_key: str = "{project}.{route}.{event}"
    mandatory: bool = True


@implementer(IEventSink)
class AMQPSink:
    """Publishes events to one exchange."""

    name = "amqp"
    batch = 100
    _log = Logger()

    def __init__(self, settings: AMQPSettings, reactor: Any) -> None:
        self.retry = Backoff(first=1.0, most=60.0)
        self._settings = settings
        self._reactor = reactor
        self._channel: Channel | None = None
        self._trouble = ""

    def open(self) -> Deferred[None]:
        """Nothing yet: a broker that is away keeps no daemon from starting."""
        return succeed(None)

    def deliver(self, events: Sequence[tuple[int, Event]]) -> Deferred[int]:
        """Publish the events and wait until all are confirmed; or as many, from the first on, as were before something went wrong."""
        return Deferred.fromCoroutine(self._tell([event for _, event in events]))

    def sync(self) -> Deferred[None]:
        """Nothing to do: what is confirmed is the broker's."""
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Part from the broker."""
        channel, self._channel = self._channel, None
        return succeed(None) if channel is None else channel.close(self._reactor)

    async def _tell(self, events: Sequence[Event]) -> int:
        taken: set[str] = set()
        try:
            channel = await self._ready()
            for wave in _waves(events):
                await self._publish(channel, wave, taken)
        except Exception as error:
            self._complain(error)
        else:
            if self._trouble:
                self._log.info("event sink amqp: {broker} takes events again", broker=self._settings.broker)
                self._trouble = ""
        return next((number for number, event in enumerate(events) if event.id not in taken), len(events))

    async def _ready(self) -> Channel:
        if self._channel is None or not self._channel.usable:
            self._drop()
            settings = self._settings
            self._channel = await open_channel(settings.broker, settings.exchange, self._reactor, declare=settings.declare)
        return self._channel

    async def _publish(self, channel: Channel, wave: Sequence[Event], taken: set[str]) -> None:
        """Publish events of different messages together and note which were confirmed; fails with the first that was not."""
        settings = self._settings

        def published(event: Event) -> Deferred[None]:
            key = _routing_key(settings.routing_key, event)
            sent = channel.publish(event, settings.exchange, key, mandatory=settings.mandatory)
            return sent.addCallback(lambda _: taken.add(event.id))

        results = DeferredList([published(event) for event in wave], consumeErrors=True)
        for fine, outcome in await within(results, CONFIRM_SECONDS, self._reactor):
            if not fine:
                raise outcome.value

    def _complain(self, error: Exception) -> None:
        if not (isinstance(error, NotTaken) and self._channel is not None and self._channel.usable):
            self._drop()
        trouble = str(error) or repr(error)
        if trouble != self._trouble:
            self._log.error(
                "event sink amqp: {broker} did not take events: {reason}; they are kept in the spool and told once it does",
                broker=self._settings.broker,
                reason=trouble,
            )
        self._trouble = trouble

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.abort()


def _waves(events: Sequence[Event]) -> Iterable[Sequence[Event]]:
    """The first event of each message, then the second of each that has one, and so on."""
    waves: list[list[Event]] = []
    seen: dict[str, int] = {}
    for event in events:
        # What tells of no message has no order to keep.
        of = event.message_id or event.id
        number = seen.get(of, 0)
        seen[of] = number + 1
        if number == len(waves):
            waves.append([])
        waves[number].append(event)
    return waves


def _routing_key(form: str, event: Event) -> str:
    context = event.context
    return form.format(project=context.get("project") or "-", route=context.get("route") or "-", event=event.name)
