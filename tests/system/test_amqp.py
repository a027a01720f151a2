"""Events at a real RabbitMQ: every one, in order per message, also when the broker dies in between (docs/events.md).

LETTERMTA_AMQP_MESSAGES is how many messages go through the daemon; ``make amqp`` has 10,000 of them.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pika
import pytest
from attrs import evolve
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from lettermta.event import DELIVERED, SENT, message_event
from lettermta.events.amqp import AMQPSettings, AMQPSink
from lettermta.events.amqp_channel import Broker
from lettermta.events.dispatcher import Dispatcher
from lettermta.events.sink import Backoff
from lettermta.message import Outcome, State
from lettermta.smtp.tls import self_signed
from lettermta.testing.spool import MemorySpool
from tests.events.conftest import submit as store
from tests.rabbitmq import RabbitMQ, free_port
from tests.system.site import Daemon, Site, mail, submit

MESSAGES = int(os.environ.get("LETTERMTA_AMQP_MESSAGES") or 1000)
PATIENCE = 60 + MESSAGES / 50
PASSWORD = "a:secret/with@signs"


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    directory = tmp_path_factory.mktemp("rabbitmq")
    pair = self_signed(directory / "tls", "localhost")
    port = free_port()
    config = (
        f"listeners.ssl.default = 127.0.0.1:{port}\nssl_options.cacertfile = {pair.certificate}\n"
        f"ssl_options.certfile = {pair.certificate}\nssl_options.keyfile = {pair.private_key}\n"
    )
    rabbit = RabbitMQ(directory, config)
    OnBroker.rabbit, OnBroker.tls_port, OnBroker.ca = rabbit, port, pair.certificate
    try:
        rabbit.start()
        yield rabbit
    finally:
        rabbit.stop()


class Queue:
    """A durable queue of a test's own, bound to an exchange of its own; every call blocks."""

    def __init__(self, rabbit: RabbitMQ, name: str, binding: str = "#", **arguments: Any) -> None:
        self._parameters = pika.URLParameters(rabbit.url)
        self._name = name
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.exchange_declare(name, "topic", durable=True)
            channel.queue_declare(name, durable=True, arguments=arguments)
            channel.queue_bind(name, name, binding)

    def take(
        self, until: Callable[[list[tuple[str, Any, bytes]]], bool], patience: float = 20.0, ahead: int = 200
    ) -> list[tuple[str, Any, bytes]]:
        """What is there, with routing key and properties, until so many were taken or nothing more comes."""
        taken: list[tuple[str, Any, bytes]] = []
        with pika.BlockingConnection(self._parameters) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=ahead)
            for method, properties, body in channel.consume(self._name, inactivity_timeout=patience):
                if method is None:
                    break
                taken.append((method.routing_key, properties, body))
                channel.basic_ack(method.delivery_tag)
                if until(taken):
                    break
            channel.cancel()  # what was sent ahead goes back to its place
        return taken


def in_order(bodies: Sequence[bytes]) -> list[bytes]:
    """The bodies without repetitions; asserts that those of each message came in the order in which they were made."""
    first = list(dict.fromkeys(bodies))
    ids = [json.loads(body)["id"] for body in first]
    assert len(set(ids)) == len(ids), "one id has two forms"
    of: dict[str, list[str]] = defaultdict(list)
    for body in first:
        document = json.loads(body)
        of[document["data"]["message_id"]].append(document["event"])
    assert all(names == sorted(names, key=["message.created", "message.sent", "message.delivered"].index) for names in of.values())
    return first


# -- the whole daemon


@pytest.fixture
def daemon(site: Site, rabbit: RabbitMQ, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    name = request.node.name[:40]
    (site.directory / "password").write_text("guest\n")
    url = rabbit.url.replace("guest:guest", "guest")
    settings = {"amqp": {"url": url, "password_file": "../password", "exchange": name}}
    daemon = site.daemon(name, settings)
    daemon.admin("route", "update", "--project", "demo", "outgoing", "--transport", "discard")
    daemon.start()
    yield daemon
    if daemon.program is not None:
        daemon.stop()


def send(daemon: Daemon, count: int, reached: Callable[[int], None] = lambda _: None) -> None:
    content = mail("X-LM-Tag: amqp")
    with daemon.client() as client:
        for number in range(count):
            submit(client, content, f"u{number}@example.test")
            reached(number)


def logged(daemon: Daemon) -> list[bytes]:
    """Every event there is, as the log has it, once the daemon has stopped."""
    daemon.stop()
    daemon.program = None
    return (daemon.directory / "events.jsonl").read_bytes().splitlines()


def test_every_event_of_all_messages_is_received_once_and_in_order(daemon: Daemon, rabbit: RabbitMQ) -> None:
    queue = Queue(rabbit, daemon.directory.name)
    send(daemon, MESSAGES)
    taken = queue.take(lambda taken: len(taken) == 3 * MESSAGES, PATIENCE)
    assert queue.take(lambda _: False, 0.5) == [], "nothing came twice"
    bodies = [body for _, _, body in taken]
    assert len(bodies) == len(set(bodies)) == 3 * MESSAGES
    in_order(bodies)
    assert set(bodies) == set(logged(daemon))
    key, properties, body = taken[0]
    document = json.loads(body)
    assert key == "demo.outgoing.message.created"
    assert (properties.message_id, properties.type, properties.content_type) == (document["id"], "message.created", "application/json")
    assert (properties.app_id, properties.delivery_mode) == ("lettermta", 2)


def test_no_event_is_lost_when_the_broker_dies_in_between(daemon: Daemon, rabbit: RabbitMQ) -> None:
    queue = Queue(rabbit, daemon.directory.name)
    rabbit.sync()
    dying = threading.Event()

    def die() -> None:
        assert dying.wait(PATIENCE)
        rabbit.kill()
        rabbit.start()

    again = threading.Thread(target=die)
    again.start()
    send(daemon, MESSAGES, lambda number: dying.set() if number == MESSAGES // 3 else None)
    again.join(PATIENCE)
    daemon.running.line("amqp.* takes events again", patience=60)
    seen: set[bytes] = set()
    bodies: list[bytes] = []
    while len(seen) < 3 * MESSAGES:
        more = [body for _, _, body in queue.take(lambda taken: len(taken) >= 3 * MESSAGES - len(seen), PATIENCE)]
        assert more, f"{len(seen)} of {3 * MESSAGES} came"
        bodies += more
        seen.update(more)
    in_order(bodies)
    assert seen == set(logged(daemon))


# -- the sink alone, in this process


@pytest.mark.usefixtures("rabbit")
class OnBroker(TestCase):
    """One sink, a spool in memory, and the broker."""

    timeout = 90
    rabbit: RabbitMQ
    tls_port: int
    ca: Path

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.spool = MemorySpool()
        self.exchange = self.id().rpartition(".")[2][:60]
        self.broker = Broker("127.0.0.1", self.rabbit.port)

    async def started(self, **settings: Any) -> AMQPSink:
        sink = AMQPSink(AMQPSettings(**{"broker": self.broker, "exchange": self.exchange, **settings}), self.reactor)
        sink.retry = Backoff(0.05, 0.2)
        dispatcher = Dispatcher(self.spool, [sink], self.reactor)  # type: ignore[arg-type]
        await dispatcher.start()
        self.addCleanup(dispatcher.stop)
        self.feed = dispatcher.feeds[0]
        return sink

    async def until(self, condition: Callable[[], object]) -> None:
        until = self.reactor.seconds() + 60  # type: ignore[attr-defined]
        while not condition():
            assert self.reactor.seconds() < until  # type: ignore[attr-defined]
            await deferLater(self.reactor, 0.02)

    async def messages(self, count: int) -> None:
        """As many messages, with three events each."""
        for _ in range(count):
            created = store(self.spool)
            [(lane, _)] = await self.spool.lanes()
            [entry] = await self.spool.due(lane, 1.0, 10)
            facts, context = entry.facts, entry.context
            events = [
                message_event(name, 1.0, created.message_id, facts, context, recipient="jane@example.com") for name in (SENT, DELIVERED)
            ]
            await self.spool.record(entry, [Outcome(entry.recipients[0], State.DELIVERED, "250 OK")], events)

    async def queue(self, **arguments: Any) -> Queue:
        queue: Queue = await deferToThread(Queue, self.rabbit, self.exchange, **arguments)
        return queue

    async def test_a_queue_that_refuses_gets_all_in_order_all_the_same(self) -> None:
        """Refusals fall between the events of a message; a consumer must not see a later one before an earlier one."""
        queue = await self.queue(**{"x-max-length": 2, "x-overflow": "reject-publish"})
        await self.started()
        await self.messages(30)
        bodies: list[bytes] = []

        def complete(taken: list[tuple[str, Any, bytes]]) -> bool:
            bodies.append(taken[-1][2])
            return len(set(bodies)) == 90

        await deferToThread(queue.take, complete, ahead=1)
        assert len(set(bodies)) == 90
        assert len(bodies) > 90, "nothing was refused"
        in_order(bodies)

    async def test_events_wait_for_a_queue_and_the_log_says_so_once(self) -> None:
        with capturedLogs() as logs:
            await self.started()
            await self.messages(10)
            await self.until(lambda: self.feed.sink._trouble)  # type: ignore[attr-defined]
            queue = await self.queue()
            taken = await deferToThread(queue.take, lambda taken: len(taken) == 30)
        assert len(in_order([body for _, _, body in taken])) == 30
        told = [log for log in logs if log["log_level"].name == "error"]
        assert ["no queue is bound to exchange" in log["reason"] for log in told] == [True]
        assert "'demo.outgoing.message.created'" in told[0]["reason"]

    async def test_only_what_a_queue_is_bound_for_is_told_where_the_rest_may_be_dropped(self) -> None:
        queue = await self.queue(binding="demo.*.message.delivered")
        await self.started(mandatory=False)
        await self.messages(5)
        taken = await deferToThread(queue.take, lambda taken: len(taken) == 5)
        assert [key for key, _, _ in taken] == ["demo.outgoing.message.delivered"] * 5
        await self.until(lambda: self.feed.position == 15)

    async def test_the_exchange_is_made_or_missed_by_name(self) -> None:
        with capturedLogs() as logs:
            sink = await self.started(declare=False)
            await self.messages(1)
            await self.until(lambda: sink._trouble)
        [told] = [log for log in logs if log["log_level"].name == "error"]
        assert "NOT_FOUND" in told["reason"]
        assert self.exchange in told["reason"]

    async def test_over_tls_with_an_authority_of_ones_own(self) -> None:
        queue = await self.queue()
        self.broker = evolve(self.broker, host="localhost", port=self.tls_port, tls=True, ca=self.ca)
        await self.started()
        await self.messages(3)
        assert len(await deferToThread(queue.take, lambda taken: len(taken) == 9)) == 9

    async def test_a_broker_whose_certificate_is_not_trusted_is_told_nothing(self) -> None:
        queue = await self.queue()
        self.broker = evolve(self.broker, host="localhost", port=self.tls_port, tls=True)
        with capturedLogs() as logs:
            sink = await self.started()
            await self.messages(1)
            await self.until(lambda: sink._trouble)
        assert "certificate verify failed" in str([log["reason"] for log in logs if "reason" in log])
        assert await deferToThread(queue.take, lambda _: False, 0.2) == []

    async def test_a_wrong_password_is_told_without_it(self) -> None:
        self.broker = evolve(self.broker, password=PASSWORD)
        with capturedLogs() as logs:
            sink = await self.started()
            await self.messages(1)
            await self.until(lambda: sink._trouble)
        assert PASSWORD not in str(logs)
        assert PASSWORD not in repr(sink._settings)
        assert "is user, password or virtual host another one there?" in sink._trouble

    async def test_a_broker_that_is_away_keeps_nobody_from_stopping(self) -> None:
        self.broker = evolve(self.broker, port=free_port())
        sink = await self.started()
        await self.messages(1)
        await self.until(lambda: sink._trouble)
        assert self.feed.position == 0
