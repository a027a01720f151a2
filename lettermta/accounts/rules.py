"""What projects, routes and tokens may be.

Each check raises InvalidAccount with a text that names the value and the rule; none quotes a secret.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import string

from lettermta.accounts.errors import InvalidAccount
from lettermta.accounts.model import Project, Route, Smarthost, TransportKind

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_TOKEN = re.compile(r"[!-~]{1,255}")
_LETTERS = string.ascii_letters + string.digits
_TOKEN_LETTERS = 43
_LONG_ENOUGH_TO_HINT = 32
_HINT = 5
_LONGEST_TEXT = 255


def check_slug(slug: str) -> None:
    """A slug begins with a lower-case letter or a digit, and goes on with up to 62 of those, ``_`` and ``-``."""
    if _SLUG.fullmatch(slug) is None:
        raise InvalidAccount(f"{slug!r} is not a slug: 1 to 63 of a-z, 0-9, _ and -, the first one a letter or digit")


def check_project(project: Project) -> None:
    """The slug's rule, and limits of at least one."""
    check_slug(project.slug)
    for what, limit in (("message size", project.message_size), ("number of recipients", project.recipients)):
        if limit is not None and not 1 <= limit < 2**63:
            raise InvalidAccount(f"the largest {what} can't be {limit}: at least 1, or none to have the daemon's own limit")


def check_route(route: Route) -> None:
    """The slug's rule, and a smarthost exactly where the transport is one."""
    check_slug(route.slug)
    if route.transport is TransportKind.SMARTHOST:
        if route.smarthost is None:
            raise InvalidAccount(f"route {route.slug} has the transport smarthost, and needs a smarthost HOST:PORT")
        _check_smarthost(route.smarthost)
    elif route.smarthost is not None:
        raise InvalidAccount(f"route {route.slug} has the transport {route.transport}, which takes no smarthost")


def _check_smarthost(smarthost: Smarthost) -> None:
    if not _is_address(smarthost.host) and (_HOST.fullmatch(smarthost.host) is None or len(smarthost.host) > 254):
        raise InvalidAccount(f"{smarthost.host!r} is neither a host name in ASCII nor an IP address")
    if not 1 <= smarthost.port <= 65535:
        raise InvalidAccount(f"{smarthost.port} is not a port: 1 to 65535")
    if (smarthost.username is None) != (smarthost.password is None):
        missing = "password" if smarthost.password is None else "user name"
        raise InvalidAccount(f"to log in to {smarthost.host} there is no {missing}: a user name and a password go together")
    for what, text in (("user name", smarthost.username), ("password", smarthost.password)):
        # Neither can hold a NUL, which parts them in AUTH PLAIN (RFC 4616 section 2); no server takes other controls either.
        if text is not None and (not text or not text.isprintable() or len(text) > _LONGEST_TEXT):
            raise InvalidAccount(f"the {what} for {smarthost.host} is empty, too long or has control characters")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_name(name: str) -> None:
    """A token's name is free text of one line."""
    if len(name) > _LONGEST_TEXT or (name and not name.isprintable()):
        raise InvalidAccount(f"a token's name is at most {_LONGEST_TEXT} characters, none of them a control character")


def check_token(value: str) -> None:
    """A token's value is 1 to 255 printable ASCII characters without blanks: what each mechanism and each client carries unharmed."""
    if _TOKEN.fullmatch(value) is None:
        raise InvalidAccount("a token is 1 to 255 printable ASCII characters without blanks; the one given is not")


def new_token() -> str:
    """A new token's value: ``lm_`` and 43 letters and digits, which hold 256 random bits and are selected by a double click."""
    return "lm_" + "".join(secrets.choice(_LETTERS) for _ in range(_TOKEN_LETTERS))


def hint_of(value: str) -> str | None:
    """What lists may show of a token's value: its first five characters when 27 more keep it secret, else nothing."""
    return f"{value[:_HINT]}…" if len(value) >= _LONG_ENOUGH_TO_HINT else None
