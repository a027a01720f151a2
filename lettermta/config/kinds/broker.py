"""What is said of an AMQP broker."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from attrs import field, frozen

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import one, optional
from lettermta.config.kinds.network import checked_host


@frozen
class AMQPAddress:
    """Where a broker is and how to log in there, out of a URL."""

    host: str
    port: int
    tls: bool
    user: str
    password: str = field(repr=False)
    vhost: str


def _amqp(text: str) -> AMQPAddress:
    """As RabbitMQ's URI specification has it. What is wrong is never quoted: it may hold a password."""
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        raise Wrong("", "has no port from 1 to 65535 in its URL") from None
    if url.scheme not in ("amqp", "amqps"):
        raise Wrong("", "does not begin with amqp:// or amqps://")
    if not url.hostname:
        raise Wrong("", "has no host in its URL")
    if url.query or url.fragment or url.path.count("/") > 1:
        raise Wrong("", "has something behind the virtual host in its URL")
    tls = url.scheme == "amqps"
    try:
        host = checked_host(url.hostname)
    except Wrong:
        raise Wrong("", "has neither a host name nor an IP address in its URL") from None
    return AMQPAddress(
        host=host,
        port=port or (5671 if tls else 5672),
        tls=tls,
        user=unquote(url.username or "guest"),
        password=unquote("guest" if url.password is None else url.password),
        vhost=unquote(url.path[1:]) or "/",
    )


def _routing_key(text: str) -> str:
    try:
        longest = text.format(project="p" * 63, route="r" * 63, event="e" * 30)
    except (LookupError, ValueError, AttributeError):
        raise Wrong(text, "has braces around something else than project, route or event") from None
    if len(longest.encode()) > 255:
        raise Wrong(text, "may come to more than 255 octets")
    return text


def _exchange(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,255}", text) or text.startswith("amq."):
        raise Wrong(text, "is not the name of an exchange of one's own")
    return text


AMQP = optional(one(_amqp, "a URL like amqps://user:password@host:5671/vhost"))
EXCHANGE = one(_exchange, "1 to 255 letters, digits, dots, dashes, underscores and colons, not amq. first")
ROUTING_KEY = one(_routing_key, "a text in which {project}, {route} and {event} are put in")
