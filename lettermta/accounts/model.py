"""Projects, routes, tokens and domains as data: what submission and delivery ask the accounts for.

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


class ReceivedField(enum.StrEnum):
    """What the Received field that submission adds to a route's mail tells (RFC 5321 section 4.4).

    All there is to tell; all but the client's address and the name it gave in EHLO; or there is none.
    """

    FULL = "full"
    ANONYMOUS = "anonymous"
    NONE = "none"


@frozen
class Project:
    """Owns tokens, routes and domains. ``message_size`` and ``recipients`` are None where the daemon's own limits hold."""

    id: str
    slug: str
    smtp: bool
    """Whether its tokens may log in over SMTP at all."""
    message_size: int | None
    recipients: int | None
    created: float
    check_sender: bool = False
    """Whether its mail has to come from one of its domains: both the address of MAIL FROM and those of the header's From."""


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
    received: ReceivedField = ReceivedField.FULL
    mint_message_id: bool = False
    """Whether its mail gets a Message-ID of ours in the place of the caller's one."""
    schedule: tuple[float, ...] | None = None
    """Seconds between attempts, the last one repeated; None: the daemon's own."""
    lifetime: float | None = None
    """Seconds until a message that was not delivered fails as expired; None: the daemon's own."""


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


@frozen
class Domain:
    """A domain that a project sends from. It doesn't cover its sub-domains: each one that mail comes from is listed by itself."""

    id: str
    project_id: str
    name: str
    """In lower case, each label as an A-label where it isn't ASCII (RFC 5890 section 2.3.2.1), without a dot at the end."""
    created: float
