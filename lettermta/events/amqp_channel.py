"""A channel to an AMQP 0-9-1 broker in confirm mode, by pika's Twisted adapter.

Promises that a publication's Deferred fires once the broker has taken responsibility for it (for a durable queue: once it is on the
disk there), and fails otherwise. pika is an optional dependency and imports the reactor when it is loaded, so that happens only when
the first channel is opened.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.threads import deferToThreadPool

from lettermta.event import Event
from lettermta.plugged import within

CONNECT_SECONDS = 30.0
"""From the look-up of the broker's name until the channel is ready."""
HEARTBEAT_SECONDS = 30
"""A broker that is silent for some two of them is taken for dead."""
CLOSE_SECONDS = 2.0
PERSISTENT = 2
"""The delivery mode of what a durable queue keeps over a restart."""


class NotTaken(Exception):
    """The broker did not take an event; the text says why."""


@frozen
class Broker:
    """Where a broker is, and how to log in there. Paths are of PEM files; without ``ca``, the system's authorities are trusted."""

    host: str
    port: int
    tls: bool = False
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    password_file: Path | None = None
    """Holds the password on its first line, and is read at each connection."""
    ca: Path | None = None
    certificate: Path | None = None
    """A certificate of ours, with its key, for a broker that asks for one."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Channel:
    """One channel on a connection of its own; made by :func:`open_channel`."""

    def __init__(self, protocol: Any, channel: Any) -> None:
        self._protocol = protocol
        self._channel = channel
        self._returned: set[str] = set()
        channel.add_on_return_callback(lambda returned: self._returned.add(returned.properties.message_id))

    @property
    def usable(self) -> bool:
        """Whether it is open, as far as is known."""
        return bool(self._channel.is_open)

    def publish(self, event: Event, exchange: str, routing_key: str, *, mandatory: bool) -> Deferred[None]:
        """Publish an event as it stands; fails with NotTaken when the broker refuses it, or, if ``mandatory``, has no queue for it."""
        from pika import BasicProperties
        from pika.exceptions import UnroutableError

        properties = BasicProperties(
            content_type="application/json",
            delivery_mode=PERSISTENT,
            message_id=event.id,
            type=event.name,
            timestamp=int(event.created),
            app_id="lettermta",
        )

        def failed(failure: Any) -> None:
            # pika hangs a return on the first of several publications that are confirmed together; our own notes know which it was.
            if not failure.check(UnroutableError):
                raise NotTaken(_said(failure.value))

        def confirmed(_: object) -> None:
            if event.id in self._returned:
                self._returned.discard(event.id)
                raise NotTaken(f"no queue is bound to exchange {exchange!r} for the routing key {routing_key!r}")

        sent: Deferred[None] = maybeDeferred(self._channel.basic_publish, exchange, routing_key, event.payload, properties, mandatory)
        return sent.addErrback(failed).addCallback(confirmed)

    def close(self, clock: Any) -> Deferred[None]:
        """Part in good order, within a bound."""
        closed = maybeDeferred(self._protocol.close)
        return within(closed, CLOSE_SECONDS, clock).addBoth(lambda _: self.abort())

    def abort(self) -> None:
        """Let go of the connection at once."""
        _abort(self._protocol)


def _abort(protocol: Any) -> None:
    if protocol.transport is not None:
        protocol.transport.abortConnection()


def _said(error: BaseException) -> str:
    """What pika's error says; many of them say it by their name alone."""
    text = str(error)
    return text if text else type(error).__name__


async def open_channel(broker: Broker, exchange: str, reactor: Any, *, declare: bool) -> Channel:
    """Connect, log in, open a channel in confirm mode, and make the exchange if it is to be declared; fails with whatever is in the way."""
    from pika import ConnectionParameters, PlainCredentials
    from pika.adapters.twisted_connection import TwistedProtocolConnection
    from pika.exceptions import AMQPConnectionError

    # It would say on standard error what the log is told by us.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    password, tls = await deferToThreadPool(reactor, reactor.getThreadPool(), _secrets, broker)
    parameters = ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=broker.vhost,
        credentials=PlainCredentials(broker.user, password),
        heartbeat=HEARTBEAT_SECONDS,
        client_properties={"connection_name": "lettermta events"},
    )

    class Connection(TwistedProtocolConnection):  # type: ignore[misc]
        """Keeps why it ended, of which pika hands on only how often it tried."""

        reason: BaseException | None = None

        def connectionLost(self, reason: Any) -> None:
            self.reason = reason.value
            super().connectionLost(reason)

    protocol = Connection(parameters, custom_reactor=reactor)
    try:
        channel = await within(Deferred.fromCoroutine(_opened(protocol, broker, tls, exchange, reactor, declare)), CONNECT_SECONDS, reactor)
    except AMQPConnectionError as error:
        _abort(protocol)
        # pika forgets what the broker said when it closed; a login or a virtual host that it doesn't know ends here.
        cleanly = isinstance(protocol.reason, ConnectionDone)
        hint = "; is user, password or virtual host another one there?" if cleanly else ""
        raise NotTaken(f"the connection ended before it was open: {_said(protocol.reason or error)}{hint}") from error
    except BaseException:
        _abort(protocol)
        raise
    return Channel(protocol, channel)


async def _opened(protocol: Any, broker: Broker, tls: Any, exchange: str, reactor: Any, declare: bool) -> Any:
    endpoint: Any = HostnameEndpoint(reactor, broker.host.encode("idna"), broker.port, timeout=CONNECT_SECONDS)
    if tls is not None:
        endpoint = wrapClientTLS(tls, endpoint)
    ready = protocol.ready
    await connectProtocol(endpoint, protocol)  # type: ignore[no-untyped-call]
    await ready
    channel = await protocol.channel()
    await channel.confirm_delivery()
    if declare:
        await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    return channel


def _secrets(broker: Broker) -> tuple[str, Any]:
    """In a thread: the password, and what TLS is to be done with, or None."""
    password = broker.password
    if broker.password_file is not None:
        password = broker.password_file.read_text().split("\n", 1)[0].strip()
    if not broker.tls:
        return password, None
    trust: Any = None if broker.ca is None else trustRootFromCertificates(_certificates(broker.ca))  # type: ignore[no-untyped-call]
    own: Any = None if broker.certificate is None else PrivateCertificate.loadPEM(broker.certificate.read_bytes())  # type: ignore[no-untyped-call]
    return password, optionsForClientTLS(broker.host, trustRoot=trust, clientCertificate=own)


def _certificates(path: Path) -> list[Any]:
    end = b"-----END CERTIFICATE-----"
    return [Certificate.loadPEM(part + end) for part in path.read_bytes().split(end)[:-1]]
