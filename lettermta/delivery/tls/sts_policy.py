"""MTA-STS policies and the TXT records that announce them, read (RFC 8461 section 3).

Promises that what breaks the grammar is no policy (:class:`NotAPolicy`) rather than a weaker one, and that unknown fields are passed over.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from attrs import frozen

LONGEST_AGE = 31_557_600
"""Seconds that a policy may be kept at most (section 3.2)."""
_MOST_HOSTS = 200
_RECORD_FIELD = re.compile(r"[ \t]*([a-zA-Z0-9][a-zA-Z0-9_.-]{0,31})[ \t]*=[ \t]*([!-:<>-~]+)[ \t]*")
_ID = re.compile(r"[a-zA-Z0-9]{1,32}")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


class NotAPolicy(ValueError):
    """The text is no policy; why."""


class Mode(enum.StrEnum):
    """What a host that does not do as the policy says is to get (section 5)."""

    ENFORCE = "enforce"
    """Nothing."""
    TESTING = "testing"
    """Mail, and a report."""
    NONE = "none"
    """Mail: there is no policy any more."""


@frozen
class STSPolicy:
    """What a domain says of its MX hosts."""

    mode: Mode
    mx: tuple[str, ...]
    """Names, or ``*.`` and a name for any one label below it; in lower case."""
    max_age: int
    """Seconds from the fetch on."""

    @property
    def lines(self) -> tuple[str, ...]:
        """As it stands in a policy file."""
        return ("version: STSv1", f"mode: {self.mode}", *(f"mx: {host}" for host in self.mx), f"max_age: {self.max_age}")

    def names(self, host: str) -> bool:
        """Whether an MX host is one of the policy's (section 4.1)."""
        host = host.rstrip(".").lower()
        label, _, above = host.partition(".")
        return any(pattern == host or (bool(label) and pattern.startswith("*.") and above == pattern[2:]) for pattern in self.mx)


def announced(texts: Sequence[str]) -> str | None:
    """The id of the policy that a domain's TXT records announce, or None: none, or more than one does (section 3.1)."""
    records = [text for text in texts if re.match(r"v=STSv1[ \t]*(;|$)", text)]
    if len(records) != 1:
        return None
    fields = [part for part in records[0].split(";")[1:] if part.strip(" \t")]
    matches = [_RECORD_FIELD.fullmatch(part) for part in fields]
    found = [match[2] for match in matches if match is not None and match[1] == "id"]
    if not all(matches) or not found or not _ID.fullmatch(found[0]):
        return None
    return found[0]


def parse(octets: bytes) -> STSPolicy:
    """Read a policy file (section 3.2); of a field that may stand once the first one counts. Raises NotAPolicy."""
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise NotAPolicy("it is not UTF-8") from None
    fields: dict[str, str] = {}
    hosts: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(" \t"):
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(" \t"), value.strip(" \t")
        if not colon or not name:
            raise NotAPolicy(f"{line[:60]!r} is no field")
        if name == "mx":
            hosts.append(_host(value))
        else:
            fields.setdefault(name, value)
    if fields.get("version") != "STSv1":
        raise NotAPolicy("its version is not STSv1")
    mode = _mode(fields.get("mode"))
    age = fields.get("max_age", "")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise NotAPolicy(f"its max_age is no number of seconds: {age[:60]!r}")
    if mode is not Mode.NONE and not hosts:
        raise NotAPolicy("it names no mx")
    if len(hosts) > _MOST_HOSTS:
        raise NotAPolicy(f"it has more than {_MOST_HOSTS} mx")
    return STSPolicy(mode, tuple(dict.fromkeys(hosts)), min(int(age), LONGEST_AGE))


def _mode(text: str | None) -> Mode:
    try:
        return Mode(text or "")
    except ValueError:
        raise NotAPolicy(f"its mode is none of {', '.join(Mode)}: {(text or '')[:60]!r}") from None


def _host(text: str) -> str:
    host = text.lower().rstrip(".")
    if len(host) > 255 or not _HOST.fullmatch(host):
        raise NotAPolicy(f"its mx is no name: {text[:60]!r}")
    return host
