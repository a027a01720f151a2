"""A place for webhooks without network and waiting: a clock, hosts that answer as they are told, a real database of deliveries."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from attrs import define, evolve, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.accounts.webhooks import Webhook, new_secret
from lettermta.event import Event, message_event
from lettermta.events.webhooks.connecting import NoAddress
from lettermta.events.webhooks.schedule import Schedule
from lettermta.events.webhooks.sender import Sender, SenderSettings
from lettermta.interfaces import IDeliveries
from lettermta.spool import deliveries

NOW = 1_790_000_000.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
HOST = "203.0.113.0"
"""Of the addresses for documentation; :class:`Place` allows them."""


@define
class Request:
    """What a host got. ``at`` is the place's time since the start."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    connection: int
    names: Sequence[str]
    """Of the header fields, as they were spelt."""

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Mapping[str, Any]:
        event: Mapping[str, Any] = orjson.loads(self.body)
        return event


Answering = Callable[["Request", "Wire"], None]
"""What a host does with a request: it may ``write`` to the wire, now or later, or leave it."""


def answer(octets: bytes) -> Answering:
    return lambda request, wire: wire.write(octets)


def status(code: int, *fields: str) -> Answering:
    head = "".join(f"{field}\r\n" for field in fields)
    return answer(f"HTTP/1.1 {code} Whatever\r\nContent-Length: 4\r\n{head}\r\nbody".encode())


FINE = answer(OK)


class Wire(StringTransport):
    """The client's end of a connection to a host; what the host writes reaches the client in the clock's next turn."""

    def __init__(self, place: Place, host: Host, protocol: Any) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host.address, 80))
        self.place, self.host, self.client = place, host, protocol
        self.number = place.opened
        self.closed = self.answered = False
        self._got = b""
        self.to_client = 0

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See ITCPTransport."""

    # What the client writes comes here.
    def _incoming(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            lines = self._got[:end].decode().split("\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            size = int(fields["content-length"])
            if len(self._got) < end + 4 + size:
                return
            body, self._got = self._got[end + 4 : end + 4 + size], self._got[end + 4 + size :]
            names = [line.partition(":")[0] for line in lines[1:]]
            request = Request(lines[0].split(" ")[1], fields, body, self.place.seconds(), self.number, names)
            self.host.requests.append(request)
            self.host.answering(request, self)

    def write(self, data: bytes) -> None:  # type: ignore[override]
        """From either side: the client's protocol writes requests, a host answers."""
        if data.startswith(b"HTTP/"):
            self.say(data)
        else:
            self._incoming(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:  # type: ignore[override]
        self._incoming(b"".join(data))

    def say(self, data: bytes) -> None:
        """Have the client get these octets."""
        self.place.callLater(0, self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self.closed:
            self.to_client += len(data)
            self.client.dataReceived(data)

    def loseConnection(self) -> None:
        self._end(ConnectionDone())

    def abortConnection(self) -> None:
        self._end(ConnectionAborted())

    def hang_up(self) -> None:
        """The host closes."""
        self.place.callLater(0, self._end, ConnectionDone())

    def _end(self, reason: Exception) -> None:
        if not self.closed:
            self.closed = True
            self.place.callLater(0, self.client.connectionLost, Failure(reason))


@define
class Host:
    """An address with a server at it; refuses connections while ``up`` is false."""

    address: str
    answering: Answering
    up: bool = True
    requests: list[Request] = field(factory=list)
    wires: list[Wire] = field(factory=list)

    def ids(self) -> list[str]:
        return [request.id for request in self.requests]

    def times(self) -> list[float]:
        return [request.at for request in self.requests]


@implementer(IDeliveries)
class DirectDeliveries:
    """The database of deliveries, without a thread."""

    def __init__(self, directory: Path) -> None:
        self.connection: sqlite3.Connection = deliveries.connect(directory)
        self._seen: list[int] = []

    def add(self, new, now):
        return maybeDeferred(deliveries.add, self.connection, new, now)

    def sync(self):
        return maybeDeferred(deliveries._sync, self.connection)

    def record(self, attempted):
        return maybeDeferred(deliveries.record, self.connection, attempted)

    def due(self, webhook_id, now, limit):
        return maybeDeferred(deliveries.due, self.connection, webhook_id, now, limit)

    def waiting(self):
        return maybeDeferred(deliveries.waiting, self.connection)

    def changed_by_others(self):
        return maybeDeferred(deliveries._changed_by_others, self.connection, self._seen)

    def expire(self, webhook_id, before, problem):
        return maybeDeferred(deliveries._expire, self.connection, webhook_id, before, problem)

    def forget(self, before, webhook_ids):
        return maybeDeferred(deliveries._forget, self.connection, before, webhook_ids)

    def close(self):
        self.connection.close()
        return succeed(None)


class Place(Clock):
    """The clock, the network and the sender on it. Times are exact: nothing here varies at random."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__()
        self.directory = directory
        self.hosts: dict[str, Host] = {}
        self.names: dict[str, Sequence[str] | Deferred[Sequence[str]]] = {}
        self.look_ups: list[str] = []
        self.opened = 0
        self.webhooks: dict[str, Webhook] = {}
        self.gone: list[Webhook] = []
        self._settings = settings
        self.deliveries = DirectDeliveries(directory)
        self.sender = self._sender()

    def _sender(self) -> Sender:
        from ipaddress import ip_network

        given = {"schedule": Schedule(jitter=lambda: 0.0), "allowed": (ip_network("203.0.113.0/24"),), **self._settings}
        settings = SenderSettings(**given)
        return Sender(settings, lambda: self.webhooks, self.deliveries, self.resolve, self.switch_off, self, self.now)

    def restart(self) -> None:
        """As after a crash: a new sender on the same database; of the old one nothing is heard any more."""
        for call in self.getDelayedCalls():
            call.cancel()
        self.deliveries.connection.close()
        self.deliveries = DirectDeliveries(self.directory)
        self.sender = self._sender()
        self.sender.start()

    def now(self) -> float:
        """The wall clock."""
        return NOW + self.seconds()

    # -- the network

    def host(self, address: str = HOST, answering: Answering = FINE) -> Host:
        self.hosts[address] = host = Host(address, answering)
        return host

    def resolve(self, name: str) -> Deferred[Sequence[str]]:
        self.look_ups.append(name)
        found = self.names.get(name)
        if found is None:
            return fail(NoAddress(f"{name} can't be resolved"))
        return found if isinstance(found, Deferred) else succeed(found)

    def connectTCP(self, address: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        host = self.hosts.get(address)
        connector = Connector()
        factory.doStart()
        if host is None or not host.up:
            self.callLater(0, factory.clientConnectionFailed, connector, Failure(ConnectionRefusedError()))
            return connector
        self.opened += 1
        protocol = factory.buildProtocol(IPv4Address("TCP", address, port))
        wire = Wire(self, host, protocol)
        host.wires.append(wire)
        protocol.makeConnection(wire)
        return connector

    # -- webhooks and events

    def webhook(self, url: str = f"http://{HOST}/hook", identifier: str = "w1", **more: Any) -> Webhook:
        """A new webhook of project ``p``."""
        made = Webhook(identifier, "p", url, NOW - 1, new_secret(), **more)
        self.webhooks = {**self.webhooks, identifier: made}
        return made

    def change(self, identifier: str, **changes: Any) -> None:
        self.webhooks = {**self.webhooks, identifier: evolve(self.webhooks[identifier], **changes)}

    def switch_off(self, webhook: Webhook) -> None:
        self.gone.append(webhook)
        self.change(webhook.id, disabled=self.now(), disabled_reason="410")

    def happen(self, *events: Event) -> Sequence[Event]:
        """Have the sender told of events, and what comes of it up to now."""
        result: list[Any] = []
        self.sender.take([event.payload for event in events]).addBoth(result.append)
        assert result == [None]
        self.settle()
        return events

    def settle(self) -> None:
        """Let everything happen that happens at once."""
        for _ in range(200):
            self.advance(0)

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, in steps that nothing can happen between unseen."""
        end = self.seconds() + seconds
        while self.seconds() < end:
            self.advance(min(step, end - self.seconds()))
            for _ in range(20):
                self.advance(0)

    def records(self, webhook_id: str = "w1") -> Sequence[Mapping[str, Any]]:
        """The records, oldest first."""
        return deliveries.records(self.deliveries.connection, webhook_id, 10_000)[::-1]


class Connector:
    """What connectTCP returns."""

    def stopConnecting(self) -> None:
        """See IConnector."""

    def disconnect(self) -> None:
        """See IConnector."""


CONTEXT = b'{"scope":"project","team_id":null,"project_id":"p","route_id":"r","project":"demo","route":"outgoing"}'


def event(name: str = "message.sent", message: str = "m1", context: bytes = CONTEXT, at: float = NOW, **data: object) -> Event:
    """An event of project ``p``."""
    facts = orjson.dumps({"message_id": message, "subject": "Müsli", "metadata": {}, "tag": None, "tags": [], "headers": []})
    return message_event(name, at, message, facts, context, **{"recipient": "jane@example.com", **data})
