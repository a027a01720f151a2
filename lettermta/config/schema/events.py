"""Who is told what became of the mail."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from pathlib import Path

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.kinds import AMQPAddress, Network
from lettermta.config.schema.declaring import Section, key, rest


class Unroutable(enum.StrEnum):
    """What becomes of an event that no queue of the broker is bound for."""

    WAIT = "wait"
    DROP = "drop"


class Events(Section):
    """Who is told what became of the mail."""

    json_log: Path | None = key(
        kinds.FILE, "A file that gets one line of JSON for each event.", default="", example="/var/log/lettermta/events.jsonl"
    )
    json_log_size: int | None = key(
        kinds.optional(kinds.SIZE),
        "When the event log would get larger than that, a new one is begun and the old one is called .1, the one before it .2 and so on. "
        "Empty: lettermta does not rotate it; whoever else renames it gets a new one too.",
        default="",
        example="100MB",
    )
    json_log_keep: int = key(kinds.NUMBER, "How many event logs are kept besides the one at hand, with json_log_size.", default="10")
    retention: float = key(
        kinds.DURATION, "How long events are kept to be read again; what a reader has yet to take is kept longer.", default="7d"
    )
    webhook_concurrency: int = key(kinds.NUMBER, "Requests that may be under way at the same time for each webhook.", default="10")
    webhook_schedule: tuple[float, ...] = key(
        kinds.DURATIONS,
        "Delays before the second and each further attempt to tell a webhook of an event; behind the last one it is given up.",
        default="5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h",
    )
    webhook_allow_networks: tuple[Network, ...] = key(
        kinds.NETWORKS,
        "Loopback and private addresses in these networks may be endpoints of webhooks; all others of that sort are refused.",
        default="",
        example="10.0.0.0/8",
    )
    webhook_retention: float = key(kinds.DURATION, "How long records of deliveries to webhooks are kept.", default="7d")
    hooks: tuple[str, ...] = key(
        kinds.HOOKS, "Python classes (IEventHook) that get every event.", default="", example="shop_hooks.BounceList"
    )


class Hook(Section):
    """What the hook of that name in [events] is made with; needed only where its class takes arguments."""

    name: str = key(kinds.DOTTED, "The hook as it is named in [events] hooks.", example="shop_hooks.BounceList", titles=True)
    settings: Mapping[str, str] = rest(
        "Each key is handed, as text, to the argument of that name when the class is called.", example="path = /var/lib/shop/bounced.txt"
    )


class Amqp(Section):
    """Events to an AMQP 0-9-1 broker such as RabbitMQ, each confirmed by it. It needs an extra package: pip install lettermta[amqp]."""

    url: AMQPAddress | None = key(
        kinds.AMQP,
        "The broker; amqps is TLS with its certificate verified. Without it, no events are published.",
        default="",
        example="amqps://lettermta@broker.example.com/mail",
    )
    password_file: Path | None = key(
        kinds.FILE,
        "A file whose first line is the password, in place of the one in the URL; read at each connection.",
        default="",
        example="/etc/lettermta/amqp.password",
    )
    exchange: str = key(kinds.EXCHANGE, "Where events are published.", default="lettermta")
    declare: bool = key(kinds.BOOLEAN, "Have the exchange made if it isn't there: durable, of type topic.", default="yes")
    routing_key: str = key(
        kinds.ROUTING_KEY,
        "The routing key, made of the slugs of project and route and the event's name.",
        default="{project}.{route}.{event}",
    )
    unroutable: Unroutable = key(
        kinds.choice(Unroutable),
        "An event that no queue is bound for: wait tries again until there is one, and all later events wait too; drop passes over it.",
        default="wait",
    )
    ca: Path | None = key(
        kinds.FILE, "PEM file of the authorities that the broker's certificate may come from.", default="", shown="the system's"
    )
    certificate: Path | None = key(
        kinds.FILE,
        "PEM file of our certificate and its key, for a broker that asks for one.",
        default="",
        example="/etc/lettermta/amqp.pem",
    )

    def objections(self) -> Iterable[Objection]:
        """What is about a broker needs one, and what is about TLS needs amqps."""
        for name in ("password_file", "ca", "certificate"):
            if getattr(self, name) is not None and self.url is None:
                yield Objection(name, "there is no url that it would be for", "url with it")
        for name in ("ca", "certificate"):
            if getattr(self, name) is not None and self.url is not None and not self.url.tls:
                yield Objection(name, "the url is not one of amqps", "amqps://… with it")
