"""Projects, routes, tokens, domains and their keys as data: what submission and delivery ask the accounts for.

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


class RouteTLS(enum.StrEnum):
    """What a route's mail wants of TLS on the way to an MX: what is offered, TLS or nothing, or never."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    OFF = "off"


class ReceivedField(enum.StrEnum):
    """What the Received field that submission adds to a route's mail tells (RFC 5321 section 4.4).

    What the configuration says for all routes; all there is to tell; all but the client's address and the name it gave in EHLO; or
    there is none.
    """

    DEFAULT = "default"
    FULL = "full"
    ANONYMOUS = "anonymous"
    NONE = "none"


class Alignment(enum.StrEnum):
    """Which of a project's domains signs its mail (the alignment of RFC 7489 section 3.1.1, seen from the sender's side).

    Strict: the domain of From, and no other one. Relaxed: that one, or else the nearest domain above it.
    """

    RELAXED = "relaxed"
    STRICT = "strict"


class ReturnPathUse(enum.StrEnum):
    """Whether a domain's mail leaves with a return path of ours: always, never, or once its record has been seen to be right and a listener
    takes what comes back.
    """

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class KeyAlgorithm(enum.StrEnum):
    """What a domain's key signs by (RFC 6376 section 3.3.1, RFC 8463)."""

    RSA = "rsa"
    ED25519 = "ed25519"


class KeyState(enum.StrEnum):
    """Signing now; waiting to sign until its record has been seen; retired, with a record that verifiers may still ask for."""

    SIGNING = "signing"
    WAITING = "waiting"
    RETIRED = "retired"


class Care(enum.StrEnum):
    """What sort of mail asks for another way to the same receivers than the rest of its route.

    The value is what marks an id: neither a letter nor a digit, so that others see where the id ends (:func:`~lettermta.message.mark_of`).
    """

    REQUIRE_TLS = "!"
    """Only by hosts that offer REQUIRETLS, from host to host until one does (RFC 8689 section 4.2.1)."""
    TLS_NOT_REQUIRED = "^"
    """Whatever the receiver's own policies ask of TLS (RFC 8689 section 4.2.2); what the operator asks for still holds."""
    WHATEVER_TLS = "~"
    """Whatever is wrong with a receiver's TLS, and whatever anybody asks of it: reports on just that (RFC 8460 section 3)."""


def with_care(route_id: str, care: Care) -> str:
    """The id of the same route for mail of that sort.

    Lanes with such ids are lanes apart; every question about the route is answered as for the route itself.
    """
    return f"{route_id}{care}"


def care_of(route_id: str) -> Care | None:
    """The mark of an id, if it has one."""
    return Care(route_id[-1]) if route_id[-1:] in set(Care) else None


def without_care(route_id: str) -> str:
    """The id of the route itself."""
    return route_id[:-1] if route_id[-1:] in set(Care) else route_id


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
    alignment: Alignment = Alignment.RELAXED


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
    tls: RouteTLS | None = None
    """What its mail wants of TLS on the way to an MX; None: the daemon's own. Policies of receivers' (DANE, MTA-STS) hold besides."""
    pool: str | None = None
    """The pool of the configuration whose addresses its mail leaves from; None: the daemon's own."""


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
    return_path_verified: float | None = None
    """When its return path's record was last seen to be right; None: never, or it was wrong at the last look. Likewise these."""
    dmarc_verified: float | None = None
    spf_verified: float | None = None
    return_path_use: ReturnPathUse = ReturnPathUse.AUTO

    def uses_return_path(self, listening: bool) -> bool:
        """Whether its mail leaves with a return path of ours. ``listening``: whether a listener takes what comes back."""
        if self.return_path_use is ReturnPathUse.AUTO:
            return listening and self.return_path_verified is not None
        return self.return_path_use is ReturnPathUse.ON


@frozen
class DomainKey:
    """A key that a domain's mail is signed with (DKIM, RFC 6376)."""

    id: str
    domain_id: str
    selector: str
    algorithm: KeyAlgorithm
    state: KeyState
    public: str
    """What the record's ``p=`` says (RFC 6376 section 3.6.1), in base64."""
    sealed: bytes | None = field(repr=False)
    """The private key as the vault keeps it; None once it is retired, and where it was not read."""
    created: float
    verified: float | None = None
    """When its record was last seen to be right; None: never, or it was wrong at the last look."""
    retired: float | None = None
