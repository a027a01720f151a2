"""What one webhook is still to be told, attempt by attempt: its own queue, so that no other has to wait for its endpoint.

Deliveries are taken from :class:`~lettermta.interfaces.IDeliveries` when they are due, :data:`KEEP` at most at a time; there they stay
until their outcome is on record, so whatever ends the process, none is lost. Of the events of one message the next one goes out when the
one before it has been attempted; one that failed is tried again later and holds the others up no longer. ::

            ┌──────── due ────────┐         as many failures in a row as there are connections,
            v                     │         or the endpoint asked to be left alone
        SENDING ── nothing due ─> WAITING        │
            │ ^                                  v
            │ └────────────── time is over ── PAUSED    then one attempt at a time, until one succeeds
            └── 410, or its owner said so ──> OFF ── its owner said so ──> SENDING
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lettermta.accounts.webhooks import Webhook
from lettermta.events.webhooks.schedule import Schedule
from lettermta.interfaces import IDeliveries
from lettermta.webhook import GONE, Answer, Attempted, Delivery, DeliveryStatus

KEEP = 50
"""Deliveries in memory, for each webhook, those under way among them; at least twice as many as may be under way."""
KEEP_FAILING = 2
"""The same for one whose endpoint fails, beside those whose outcome is not on record yet."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds that a failing endpoint is left alone, doubled with each failure."""
BACK_OFF = (429, 502, 504)
"""The answers by which an endpoint, or what stands before it, says that it is too much (COMPATIBILITY.md section 3)."""


class QueueState(enum.Enum):
    """What a queue is about."""

    WAITING = "waiting"
    SENDING = "sending"
    PAUSED = "paused"
    OFF = "off"


class EndpointQueue:
    """The queue of one webhook.

    ``post`` makes an attempt and never fails; ``record`` takes its outcome and fires when it is on record; ``gone`` is told of a 410.
    ``clock`` runs the pauses, ``now`` is the wall clock that deliveries are due by.
    """

    _log = Logger()

    def __init__(
        self,
        webhook: Webhook,
        deliveries: IDeliveries,
        post: Callable[[Webhook, Delivery], Deferred[Answer]],
        record: Callable[[Attempted], Deferred[None]],
        gone: Callable[[Webhook], object],
        schedule: Schedule,
        clock: IReactorTime,
        now: Callable[[], float],
        *,
        concurrency: int,
    ) -> None:
        self.webhook = webhook
        self._refused = False
        """Whether it answered 410 and its webhook is not switched off yet."""
        self.failures = 0
        """Attempts in a row that failed."""
        self.failing_since: float | None = None
        self.last = Answer(DeliveryStatus.PENDING)
        self._deliveries = deliveries
        self._post = post
        self._record = record
        self._gone = gone
        self._schedule = schedule
        self._clock = clock
        self._now = now
        self._concurrency = concurrency
        self._keep = max(KEEP, 2 * concurrency)
        self._ready: list[Delivery] = []
        self._in_hand: set[int] = set()
        """Numbers of those that were taken and whose outcome is not on record: they are still due there."""
        self._messages: set[str] = set()
        """Messages of which an event is under way."""
        self._under_way = 0
        self._looking = False
        self._look_again = False
        self._alarm: IDelayedCall | None = None
        """Wakes it when something is due, or when a pause is over; the earliest of what it is to be woken for."""
        self._paused_until = 0.0
        self._stopped = False

    @property
    def state(self) -> QueueState:
        """What it is about."""
        if self._stopped or self._refused or self.webhook.disabled is not None:
            return QueueState.OFF
        if self._clock.seconds() < self._paused_until:
            return QueueState.PAUSED
        return QueueState.SENDING if self._in_hand else QueueState.WAITING

    def change(self, webhook: Webhook) -> None:
        """Its owner, or we, have changed it. What its endpoint did counts no longer when it has another one, or was switched on again."""
        if webhook.disabled is not None:
            self._refused = False
        if webhook.url != self.webhook.url or (webhook.disabled is None and self.webhook.disabled is not None):
            self.failures, self.failing_since = 0, None
            self._paused_until = 0.0
        self.webhook = webhook
        self.wake()

    def wake(self) -> None:
        """There may be something due."""
        self._look_again = True
        self._go_on()

    def stop(self) -> None:
        """Begin nothing more; what is under way may end."""
        self._stopped = True
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()

    @property
    def under_way(self) -> int:
        """Attempts that have begun and not ended."""
        return self._under_way

    # -- taking what is due

    def _go_on(self) -> None:
        state = self.state
        if state is QueueState.OFF:
            self._drop_ready()
            return
        if state is QueueState.PAUSED:
            self._wake_after(self._paused_until - self._clock.seconds())
            return
        while self._under_way < self._allowed() and (delivery := self._next()) is not None:
            self._begin(delivery)
        if self._look_again and not self._looking and len(self._in_hand) <= self._room() // 2:
            self._looking = True
            self._look_again = False
            Deferred.fromCoroutine(self._look()).addErrback(self._not_looked)

    def _drop_ready(self) -> None:
        """Let go of what has not begun; it stays due."""
        self._in_hand.difference_update(delivery.number for delivery in self._ready)
        self._ready.clear()

    def _allowed(self) -> int:
        return 1 if self._is_failing() else self._concurrency

    def _room(self) -> int:
        return KEEP_FAILING if self._is_failing() else self._keep

    def _is_failing(self) -> bool:
        return self.failures >= self._concurrency

    def _next(self) -> Delivery | None:
        """The first one that is ready and whose message has no event under way."""
        for index, delivery in enumerate(self._ready):
            if delivery.message_id not in self._messages:
                return self._ready.pop(index)
        return None

    async def _look(self) -> None:
        # Those in hand are due there as well, and come along.
        limit = self._room() + len(self._in_hand)
        found, later = await self._deliveries.due(self.webhook.id, self._now(), limit)
        self._looking = False
        self._take(found)
        if len(found) >= limit:
            self._look_again = True
        elif later is not None:
            self._wake_after(later - self._now())
        self._go_on()

    def _take(self, found: Sequence[Delivery]) -> None:
        new = [delivery for delivery in found if delivery.number not in self._in_hand]
        self._ready += new
        self._in_hand.update(delivery.number for delivery in new)

    def _not_looked(self, failure: object) -> None:
        self._looking = False
        self._look_again = True
        self._log.failure(
            "webhook {id}: what is due can't be read; it is tried again in {pause:g} s", id=self.webhook.id, pause=LONGEST_PAUSE
        )
        self._pause(LONGEST_PAUSE)

    # -- an attempt

    def _begin(self, delivery: Delivery) -> None:
        self._under_way += 1
        if delivery.message_id:
            self._messages.add(delivery.message_id)
        self._post(self.webhook, delivery).addCallback(self._attempted, delivery, self.webhook.url)

    def _attempted(self, answer: Answer, delivery: Delivery, url: str) -> None:
        self._under_way -= 1
        self._messages.discard(delivery.message_id)
        if url == self.webhook.url:  # else it tells nothing of the endpoint that there is now
            self._judge(answer)
        at, due = self._now(), None
        if answer.status is not DeliveryStatus.SUCCESS and (delay := self._schedule.after(delivery.attempt)) is not None:
            due = at + max(delay, answer.retry_after or 0.0)
        recorded = self._record(Attempted(delivery.number, delivery.attempt, answer, at, due))
        recorded.addCallbacks(self._recorded, self._not_recorded, (delivery, due), {}, (delivery,), {})
        self._go_on()

    def _judge(self, answer: Answer) -> None:
        """What an answer says of the endpoint."""
        self.last = answer
        if answer.status is DeliveryStatus.SUCCESS:
            self.failures, self.failing_since = 0, None
            return
        self.failures += 1
        self.failing_since = self.failing_since or self._now()
        if answer.http_status == GONE and not self._refused:
            self._refused = True
            self._gone(self.webhook)
        pause = answer.retry_after or 0.0
        if self._is_failing() or answer.http_status in BACK_OFF:
            pause = max(pause, min(FIRST_PAUSE * 2.0 ** min(max(self.failures - self._concurrency, 0), 30), LONGEST_PAUSE))
        if self._is_failing():
            self._drop_ready()
            self._look_again = True
        if pause:
            self._pause(pause)

    def _recorded(self, _: None, delivery: Delivery, due: float | None) -> None:
        self._in_hand.discard(delivery.number)
        if due is not None:
            self._wake_after(due - self._now())
        self._go_on()

    def _not_recorded(self, failure: object, delivery: Delivery) -> None:
        """It is still due there, so it will be told once more."""
        self._in_hand.discard(delivery.number)
        self._look_again = True
        self._pause(LONGEST_PAUSE)

    # -- waiting

    def _pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock.seconds() + seconds)
        self._wake_after(self._paused_until - self._clock.seconds())

    def _wake_after(self, seconds: float) -> None:
        """Be woken after so many seconds, unless that is before then anyway."""
        at = self._clock.seconds() + max(seconds, 0.0)
        if self._stopped or (self._alarm is not None and self._alarm.active() and self._alarm.getTime() <= at):
            return
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = self._clock.callLater(max(seconds, 0.0), self.wake)
