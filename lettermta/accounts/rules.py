"""What projects, routes, tokens and domains may be.

Each check raises InvalidAccount with a text that names the value and the rule; none quotes a secret.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import string

import idna

from lettermta.accounts.errors import InvalidAccount
from lettermta.accounts.model import Project, Route, Smarthost, TransportKind

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_LONGEST_DOMAIN = 253
_LONGEST_SENDING_DOMAIN = 196
"""Of the 256 octets of a path, two brackets, a local part of 54, the @, and ``rp.`` are gone."""
_TOKEN = re.compile(r"[!-~]{1,255}")
_LETTERS = string.ascii_letters + string.digits
_TOKEN_LETTERS = 43
_LONG_ENOUGH_TO_HINT = 32
_HINT = 5
_LONGEST_TEXT = 255
_MOST_DELAYS = 100
_LONGEST_SPAN = 366 * 86400


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
    """The slug's rule, a smarthost exactly where the transport is one, and times that are longer than nothing."""
    check_slug(route.slug)
    if route.schedule is not None and not (0 < len(route.schedule) <= _MOST_DELAYS and all(map(_is_span, route.schedule))):
        raise InvalidAccount(f"a schedule has 1 to {_MOST_DELAYS} delays of at most {_LONGEST_SPAN // 86400} days")
    if route.lifetime is not None and not _is_span(route.lifetime):
        raise InvalidAccount(f"a lifetime is at most {_LONGEST_SPAN // 86400} days, and more than nothing")
    if route.transport is TransportKind.SMARTHOST:
        if route.smarthost is None:
            raise InvalidAccount(f"route {route.slug} has the transport smarthost, and needs a smarthost HOST:PORT")
        _check_smarthost(route.smarthost)
    elif route.smarthost is not None:
        raise InvalidAccount(f"route {route.slug} has the transport {route.transport}, which takes no smarthost")


def _is_span(seconds: float) -> bool:
    return 0 < seconds <= _LONGEST_SPAN


def _check_smarthost(smarthost: Smarthost) -> None:
    if not is_host(smarthost.host):
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


def is_host(host: str) -> bool:
    """Whether it is a host name in ASCII or an IP address, IPv6 without brackets."""
    return is_address(host) or (_HOST.fullmatch(host) is not None and len(host) <= 254)


def is_address(host: str) -> bool:
    """Whether it is an IP address, IPv6 without brackets."""
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


def domain_name(text: str) -> str:
    """A domain as it is stored and compared: in lower case, each label in ASCII (as an A-label where it has to be), no dot at the end.

    It has to be a Domain of RFC 5321 section 4.1.2, so neither an underscore nor an address will do. What isn't ASCII is mapped by UTS 46
    and encoded by IDNA 2008 (RFC 5891 section 5). Labels in ASCII stay what they are, also ``xn--`` ones that IDNA 2008 wouldn't make:
    there is mail from such domains.
    """
    if len(text) > _LONGEST_DOMAIN + 1:
        raise InvalidAccount(f"a domain has at most {_LONGEST_DOMAIN} characters (RFC 1035 section 2.3.4); the one given has {len(text)}")
    try:
        mapped = text.lower() if text.isascii() else idna.uts46_remap(text, std3_rules=False)
        labels = mapped.removesuffix(".").split(".")
        labels = [label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels]
    except idna.IDNAError as fault:
        raise InvalidAccount(f"{text!r} is not a domain by IDNA 2008 (if it is in use, give its A-labels, xn--…): {fault}") from None
    name = ".".join(labels)
    if len(name) > _LONGEST_DOMAIN or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        raise InvalidAccount(f"{text!r} is not a domain: labels of letters, digits and hyphens, with dots between them, like example.com")
    return name


def check_room_below(name: str) -> None:
    """A domain that mail is sent from leaves room for return paths below it (RFC 5321 section 4.5.3.1.3), and with that for its keys."""
    if len(name) > _LONGEST_SENDING_DOMAIN:
        raise InvalidAccount(
            f"a domain to send from has at most {_LONGEST_SENDING_DOMAIN} characters, as its return paths and records are longer; "
            f"the one given has {len(name)}"
        )


def new_token() -> str:
    """A new token's value: ``lm_`` and 43 letters and digits, which hold 256 random bits and are selected by a double click."""
    return "lm_" + "".join(secrets.choice(_LETTERS) for _ in range(_TOKEN_LETTERS))


def hint_of(value: str) -> str | None:
    """What lists may show of a token's value: its first five characters when 27 more keep it secret, else nothing."""
    return f"{value[:_HINT]}…" if len(value) >= _LONG_ENOUGH_TO_HINT else None
