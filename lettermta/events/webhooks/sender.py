"""The sending end: takes events, puts them on record for the webhooks that want them, and runs a queue for each webhook.

Everything that lasts is in :class:`~lettermta.interfaces.IDeliveries`; what is in memory is bounded for each webhook, whatever its endpoint
does. Webhooks are asked for anew with each batch of events and each attempt, so what their owners change holds from there on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lettermta.accounts.webhooks import Webhook
from lettermta.address_policy import Network
from lettermta.event import SOFT_BOUNCED, timestamp
from lettermta.events.webhooks.posting import TIME_LIMIT, Poster
from lettermta.events.webhooks.queue import EndpointQueue, QueueState
from lettermta.events.webhooks.schedule import Schedule
from lettermta.interfaces import IDeliveries
from lettermta.webhook import Answer, Attempted, Delivery, NewDelivery

LOOK_SECONDS = 1.0
"""How often it is looked for what owners and tools have changed."""
FORGET_SECONDS = 60.0
"""How often records behind their retention are looked for."""
STOP_SECONDS = 3.0
"""How long attempts under way may take when the process stops; they are made again after the next start."""
TROUBLED_SECONDS = 300.0
"""How long an endpoint fails before it is told of as failing."""


@frozen
class SenderSettings:
    """How webhooks are told, as the configuration says."""

    concurrency: int = 10
    schedule: Schedule = Factory(Schedule)
    allowed: tuple[Network, ...] = ()
    time_limit: float = TIME_LIMIT
    retention: float = 7 * 86_400.0


@define
class _Endpoint:
    queue: EndpointQueue
    poster: Poster
    url: str


class Sender:
    """Tells webhooks. ``webhooks`` gives all there are; ``switch_off`` is called with one that answered 410."""

    _log = Logger()

    def __init__(
        self,
        settings: SenderSettings,
        webhooks: Callable[[], Mapping[str, Webhook]],
        deliveries: IDeliveries,
        resolve: Callable[[str], Deferred[Sequence[str]]],
        switch_off: Callable[[Webhook], object],
        reactor: Any,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.attempts: Counter[str] = Counter()
        """Attempts by their status, since the start."""
        self._settings = settings
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._resolve = resolve
        self._switch_off = switch_off
        self._reactor = reactor
        self._now = now
        self._endpoints: dict[str, _Endpoint] = {}
        self._known: Mapping[str, Webhook] = {}
        self._interests: dict[str, list[tuple[Webhook, str]]] = {}
        """By project: the webhooks that are on, and the time from which on they are told, as events have it."""
        self._outcomes: list[tuple[Attempted, Deferred[None]]] = []
        self._recording = False
        self._looking = LoopingCall(self._look)
        self._forgetting = LoopingCall(lambda: Deferred.fromCoroutine(self._forget()))
        for call in (self._looking, self._forgetting):
            call.clock = reactor

    def start(self) -> None:
        """Begin with what is due."""
        self._look_at_webhooks()
        self._looking.start(LOOK_SECONDS, now=False)
        self._forgetting.start(FORGET_SECONDS, now=True)

    # -- events

    def take(self, payloads: Sequence[bytes]) -> Deferred[None]:
        """Put events on record for whoever wants them; fires when that is done."""
        self._look_at_webhooks()
        new = [one for payload in payloads for one in self._wanted(payload)]
        if not new:
            return succeed(None)
        return self._deliveries.add(new, self._now()).addCallback(self._added, {one.webhook_id for one in new})

    def _wanted(self, payload: bytes) -> Sequence[NewDelivery]:
        if not self._interests:
            return ()
        try:
            return self._for_each(payload, orjson.loads(payload))
        except (ValueError, KeyError, TypeError):
            # Damage on the disk, maybe: it must not keep all later ones from being told.
            self._log.failure("an event can't be read, and no webhook is told of it: {start!r}", start=payload[:100])
            return ()

    def _for_each(self, payload: bytes, document: Mapping[str, Any]) -> Sequence[NewDelivery]:
        """The deliveries of an event to those that want it."""
        context = document["context"]
        name, data = document["event"], document["data"]
        new = []
        for webhook, since in self._interests.get(context["project_id"], ()):
            if webhook.wants(name, context["route_id"]) and document["timestamp"] >= since:
                first_of = data["recipient"] if webhook.first_soft_bounce_only and name == SOFT_BOUNCED else None
                new.append(NewDelivery(webhook.id, document["id"], name, data.get("message_id") or "", payload, first_of))
        return new

    def _added(self, _: None, webhook_ids: set[str]) -> None:
        for webhook_id in webhook_ids:
            if (endpoint := self._endpoints.get(webhook_id)) is not None:
                endpoint.queue.wake()

    def sync(self) -> Deferred[None]:
        """Fires when all events taken are safe from a crash of the machine."""
        return self._deliveries.sync()

    # -- webhooks

    def _look(self) -> Deferred[None]:
        self._look_at_webhooks()
        return self._deliveries.changed_by_others().addCallbacks(self._looked, self._not_looked)

    def _looked(self, changed: bool) -> None:
        if changed:
            for endpoint in self._endpoints.values():
                endpoint.queue.wake()

    def _not_looked(self, failure: Any) -> None:
        self._log.failure("what the tools have changed can't be read", failure=failure)

    def _look_at_webhooks(self) -> None:
        webhooks = self._webhooks()
        if webhooks is self._known:
            return
        self._known = webhooks
        self._interests = {}
        for webhook in webhooks.values():
            if webhook.disabled is None:
                self._interests.setdefault(webhook.project_id, []).append((webhook, timestamp(webhook.created)))
        for webhook_id in self._endpoints.keys() - webhooks.keys():
            self._let_go(webhook_id)
        for webhook in webhooks.values():
            self._adopt(webhook)

    def _adopt(self, webhook: Webhook) -> None:
        endpoint = self._endpoints.get(webhook.id)
        if endpoint is None:
            endpoint = self._endpoints[webhook.id] = self._new_endpoint(webhook)
        elif endpoint.url != webhook.url:
            # Connections to the old place are of no use for the new one.
            endpoint.poster.close()
            endpoint.poster, endpoint.url = self._new_poster(), webhook.url
        endpoint.queue.change(webhook)

    def _new_endpoint(self, webhook: Webhook) -> _Endpoint:
        def post(webhook: Webhook, delivery: Delivery) -> Deferred[Answer]:
            return endpoint.poster.post(webhook, delivery).addCallback(self._counted)

        settings = self._settings
        queue = EndpointQueue(
            webhook,
            self._deliveries,
            post,
            self._record,
            self._switch_off,
            settings.schedule,
            self._reactor,
            self._now,
            concurrency=settings.concurrency,
        )
        endpoint = _Endpoint(queue, self._new_poster(), webhook.url)
        return endpoint

    def _new_poster(self) -> Poster:
        settings = self._settings
        return Poster(
            self._reactor, settings.allowed, self._resolve, self._now, connections=settings.concurrency, time_limit=settings.time_limit
        )

    def _let_go(self, webhook_id: str) -> None:
        endpoint = self._endpoints.pop(webhook_id)
        endpoint.queue.stop()
        endpoint.poster.close()

    def _counted(self, answer: Answer) -> Answer:
        self.attempts[answer.status.value] += 1
        return answer

    # -- outcomes

    def _record(self, attempted: Attempted) -> Deferred[None]:
        """Note an outcome together with all that come while the last ones are being noted."""
        done: Deferred[None] = Deferred()
        self._outcomes.append((attempted, done))
        if not self._recording:
            self._recording = True
            self._reactor.callLater(0, self._write)
        return done

    def _write(self) -> None:
        batch, self._outcomes = self._outcomes, []
        if not batch:
            self._recording = False
            return
        self._deliveries.record([attempted for attempted, _ in batch]).addBoth(self._written, [done for _, done in batch])

    def _written(self, result: Any, waiting: Sequence[Deferred[None]]) -> None:
        if result is not None:
            self._log.failure("outcomes of deliveries can't be written; they are made again", failure=result)
        for done in waiting:
            done.callback(result)
        self._write()

    # -- forgetting, telling how it goes, stopping

    async def _forget(self) -> None:
        longest = self._settings.schedule.longest
        try:
            problem = f"given up: it could not be told within {longest / 86_400:.1f} days"
            count = 0
            for webhook_id in list(self._known):
                while self._forgetting.running and (more := await self._deliveries.expire(webhook_id, self._now() - longest, problem)):
                    count += more
            if count:
                self._log.warn(
                    "{count} deliveries to webhooks are given up: they waited for {days:.1f} days", count=count, days=longest / 86_400
                )
            while self._forgetting.running and await self._deliveries.forget(self._now() - self._settings.retention, list(self._known)):
                pass
        except Exception:
            self._log.failure(
                "old records of deliveries could not be forgotten; it is tried again in {seconds:g} s", seconds=FORGET_SECONDS
            )

    async def condition(self) -> Mapping[str, Any]:
        """How it goes, for metrics and health: attempts by status, what waits, and of each failing endpoint since when and why."""
        waiting = await self._deliveries.waiting()
        on = {webhook_id: found for webhook_id, found in waiting.items() if webhook_id in self._endpoints}
        now = self._now()
        failing = {
            webhook_id: f"fails since {timestamp(endpoint.queue.failing_since)}: {_said(endpoint.queue.last)}"
            for webhook_id, endpoint in self._endpoints.items()
            if endpoint.queue.failing_since is not None
            and endpoint.queue.state is not QueueState.OFF
            and now - endpoint.queue.failing_since >= TROUBLED_SECONDS
        }
        return {
            "attempts": dict(self.attempts),
            "pending": sum(count for count, _ in on.values()),
            "oldest": max((now - oldest for _, oldest in on.values()), default=0.0),
            "failing": failing,
        }

    async def stop(self) -> None:
        """Let attempts under way end within a bound, and note what came of them."""
        for call in (self._looking, self._forgetting):
            if call.running:
                call.stop()
        for endpoint in self._endpoints.values():
            endpoint.queue.stop()
        until = self._reactor.seconds() + STOP_SECONDS
        while self._reactor.seconds() < until and (self._recording or any(one.queue.under_way for one in self._endpoints.values())):
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(0.02, pause.callback, None)
            await pause
        await DeferredList([endpoint.poster.close() for endpoint in self._endpoints.values()]).addTimeout(STOP_SECONDS, self._reactor)
        await self._deliveries.close()


def _said(answer: Answer) -> str:
    return answer.problem or (f"status {answer.http_status}" if answer.http_status else answer.status.value)
