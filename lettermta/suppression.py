"""Suppressions as data: whom no more mail is sent to, and how an address is compared with them.

A *value* is what a suppression is of, in the one form in which it is stored and looked up:

    jane@example.com    one address, in lower case, plus-addresses as they stand
    example.com         a domain, without its sub-domains
    .example            an extension: every domain that ends in it

Nothing here does any I/O. Domains are compared without case (RFC 1035 section 2.3.3) and by their A-labels (RFC 5890 section 2.3.2.1).
Local parts are compared without case too, as the field does it, though RFC 5321 section 2.4 would let two mailboxes differ in it: no large
receiver has such, and whoever asked not to be written to meant both.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import unicodedata

import idna
from attrs import frozen

from lettermta.message import new_id

LONGEST = 320
"""Characters of a value: 64 of a local part, the @, and 255 of a domain (RFC 5321 section 4.5.3.1)."""


_QUOTED_PAIR = re.compile(r"\\(.)")
_SPECIAL = frozenset(' "(),:;<>@[\\]')


class SuppressionType(enum.StrEnum):
    """What a value is."""

    EMAIL = "email"
    DOMAIN = "domain"
    EXTENSION = "extension"


class SuppressionReason(enum.StrEnum):
    """Why nothing is sent there. In the order in which one of several is told."""

    SPAM_COMPLAINT = "spam_complaint"
    HARD_BOUNCE = "hard_bounce"
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"

    @property
    def applies_to(self) -> AppliesTo:
        """What it keeps back unless something else is said: who unsubscribes from newsletters still wants a new password."""
        return AppliesTo.BROADCAST if self is SuppressionReason.UNSUBSCRIBE else AppliesTo.ALL


class AppliesTo(enum.StrEnum):
    """Which mail a suppression keeps back: all of it, or that of broadcast routes."""

    ALL = "all"
    BROADCAST = "broadcast"


@frozen
class Scope:
    """Whose mail a suppression is for: a route's, a project's with all its routes, or (without a project) everybody's."""

    project_id: str | None = None
    project: str | None = None
    """The slug, as are routes' below."""
    route_id: str | None = None
    route: str | None = None

    @property
    def key(self) -> str:
        """What tells it from all others: the id of the route, else of the project, else nothing."""
        return self.route_id or self.project_id or ""

    @property
    def name(self) -> str:
        """``route``, ``project`` or ``global``."""
        return "route" if self.route_id else "project" if self.project_id else "global"


EVERYBODY = Scope()


@frozen
class Mailing:
    """What is about to be sent: mail of a route, which is one for broadcasts or not."""

    project_id: str
    route_id: str
    broadcast: bool


@frozen
class Suppression:
    """That nothing is sent to ``value`` within ``scope``. Times are wall-clock seconds since the epoch."""

    id: str
    value: str
    scope: Scope
    reason: SuppressionReason
    applies_to: AppliesTo
    created: float
    message_id: str = ""
    """The message that it came of, where there is one."""

    @property
    def type(self) -> SuppressionType:
        """What the value is."""
        return type_of(self.value)


def suppress(
    value: str, scope: Scope, reason: SuppressionReason, moment: float, applies_to: AppliesTo | None = None, message_id: str = ""
) -> Suppression:
    """A new suppression of a value as :func:`value_of` gives it."""
    return Suppression(new_id(), value, scope, reason, applies_to or reason.applies_to, moment, message_id)


def type_of(value: str) -> SuppressionType:
    """What a value is."""
    if "@" in value:
        return SuppressionType.EMAIL
    return SuppressionType.EXTENSION if value.startswith(".") else SuppressionType.DOMAIN


def value_of(text: str) -> str:
    """The value that somebody wrote: an address, a domain (``@`` before it or not), or an extension with its dot.

    Raises ValueError, which says what was expected.
    """
    text = text.strip()
    local, _, domain = text.rpartition("@")
    quoted = len(local) > 1 and local[0] == local[-1] == '"'
    if local == "*":
        raise ValueError(f"{text!r} is no address: all addresses of a domain are written as the domain alone, {domain}")
    if len(text) > LONGEST or not text.isprintable() or not (quoted or _SPECIAL.isdisjoint(local)):
        raise ValueError(f"{text[:LONGEST]!r} is no address, domain or extension: expected jane@example.com, example.com or .example")
    dot = "." if not local and domain.startswith(".") else ""
    try:
        literal = local and domain.startswith("[")
        ascii_domain = _literal(domain) if literal else _checked(domain.removeprefix(dot))
    except ValueError as fault:
        raise ValueError(f"{text!r} is no address, domain or extension: {fault}") from None
    return f"{_local(local)}@{ascii_domain}" if local else dot + ascii_domain


def address_value(address: str) -> str:
    """The value of the address of a recipient, whatever form it has; never fails."""
    lowered = address.lower()
    if lowered.isascii() and not lowered.startswith('"'):
        return lowered
    local, _, domain = address.rpartition("@")
    return f"{_local(local)}@{_domain(domain)}"


def values_of(address: str) -> list[str]:
    """The values that keep mail from an address: its own first, then its domain's, then each extension of that, the longest first."""
    own = address_value(address)
    domain = own.rpartition("@")[2]
    values = [own, domain]
    dot = domain.find(".")
    while dot >= 0:
        values.append(domain[dot:])
        dot = domain.find(".", dot + 1)
    return values


def _local(local: str) -> str:
    """A local part as it is compared: quotes that it can do without mean nothing (RFC 5321 section 4.1.2)."""
    if len(local) > 1 and local[0] == local[-1] == '"':
        unquoted = _QUOTED_PAIR.sub(r"\1", local[1:-1])
        local = unquoted if _needs_no_quotes(unquoted) else local
    return unicodedata.normalize("NFC", local).lower()


def _needs_no_quotes(local: str) -> bool:
    return local.isprintable() and all(local.split(".")) and not _SPECIAL & set(local)


def _domain(domain: str) -> str:
    """A domain in lower case and, where that can be had, in A-labels."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return domain.lower()


def _literal(domain: str) -> str:
    """An address literal (RFC 5321 section 4.1.3) that somebody wrote; raises ValueError."""
    lowered = domain.lower()
    ipaddress.ip_address(lowered.removeprefix("[").removesuffix("]").removeprefix("ipv6:"))
    return lowered


def _checked(domain: str) -> str:
    """A domain (or what is behind the dot of an extension) that somebody wrote; raises ValueError."""
    ascii_domain = _domain(domain.removesuffix("."))
    labels = ascii_domain.split(".")
    if len(ascii_domain) > 253 or not all(0 < len(label) <= 63 and _is_label(label) for label in labels):
        raise ValueError(f"{domain!r} is no domain")
    if not ascii_domain.isascii():
        raise ValueError(f"{domain!r} has no form in ASCII")
    return ascii_domain


def _is_label(label: str) -> bool:
    """Whether it is made of letters, digits, hyphens, and underscores, which RFC 5321 section 4.1.2 doesn't have and the field has."""
    return label.replace("-", "").replace("_", "").isalnum()
