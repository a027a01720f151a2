"""Projects, routes and tokens as data: what submission and delivery ask the accounts for.

Nothing here does any I/O, and what is here has passed :mod:`lettermta.accounts.rules`. Times are wall-clock seconds since the epoch,
sizes are octets. No secret shows in a ``repr``.
"""

from __future__ import annotations

import enum

from attrs import field, frozen

OUTGOING = "outgoing"
"""The slug of the route that every project has from the start: its original, transactional default."""


class RouteKind(enum.StrEnum):
    """What kind of mail a route carries."""

    TRANSACTIONAL = "transactional"
    BROADCAST = "broadcast"


class TransportKind(enum.StrEnum):
    """How a route's mail leaves."""

    MX = "mx"
    SMARTHOST = "smarthost"
    CAPTURE = "capture"
    DISCARD = "discard"


class SmarthostTLS(enum.StrEnum):
    """How the channel to a smarthost is encrypted: STARTTLS if offered, STARTTLS or nothing, never, or TLS from the first octet."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    OFF = "off"
    IMPLICIT = "implicit"


@frozen
class Project:
    """Owns tokens and routes. ``message_size`` and ``recipients`` are None where the daemon's own limits hold."""

    id: str
    slug: str
    smtp: bool
    """Whether its tokens may log in over SMTP at all."""
    message_size: int | None
    recipients: int | None
    created: float


@frozen
class Smarthost:
    """Another server that takes all of a route's mail. ``username`` and ``password`` are both given or both None."""

    host: str
    """A host name or an address; IPv6 without brackets."""
    port: int
    tls: SmarthostTLS = SmarthostTLS.OPPORTUNISTIC
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@frozen
class Route:
    """A way out for a project's mail. ``smarthost`` is given exactly when ``transport`` is smarthost."""

    id: str
    project_id: str
    slug: str
    kind: RouteKind
    transport: TransportKind
    smarthost: Smarthost | None
    default: bool
    created: float


@frozen
class Token:
    """A key by which an application submits for a project. Its value is not part of it."""

    id: str
    project_id: str
    name: str
    created: float
    revoked: float | None
    """When it was revoked, or None while it is live."""
    hint: str | None
    """The value's first characters, like ``lm_ab…``; None where the value is so short that they would give it away."""
