"""What a peer offers, read from its answer to EHLO (RFC 5321 section 4.1.1.1).

Promises that nothing in that answer is an error: what can't be read counts as not offered, or as offered without a limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

_MOST_DIGITS = 20
"""Digits of SIZE's limit (RFC 1870 section 3), the longest number there is."""


@frozen
class Capabilities:
    """Extension names are compared without case."""

    keywords: Mapping[str, str]
    """Extension names in upper case, and their parameters as they came."""
    pipelining: bool = False
    size: int | None = None
    """SIZE's limit (RFC 1870), 0 for none stated; None when SIZE isn't offered."""
    eight_bit: bool = False
    smtputf8: bool = False
    chunking: bool = False
    """BDAT (RFC 3030)."""
    binary: bool = False
    """BINARYMIME, which is worth nothing without CHUNKING (RFC 3030 section 3)."""
    dsn: bool = False
    require_tls: bool = False
    """REQUIRETLS (RFC 8689): only what was offered inside TLS counts."""
    priority: bool = False
    """MT-PRIORITY (RFC 6710)."""
    least_by: int | None = None
    """The least BY in seconds (RFC 2852 section 2), 0 for none stated; None when DELIVERBY isn't offered."""
    rcpt_max: int | None = None
    """Recipients of one transaction (RFC 9422); None: not stated."""
    mail_max: int | None = None
    """Transactions of one connection (RFC 9422); None: not stated."""
    mechanisms: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Capabilities:
        """Read EHLO's lines; the first one is a greeting."""
        keywords: dict[str, str] = {}
        mechanisms: set[str] = set()
        for line in lines[1:]:
            name, _, parameters = line.strip().partition(" ")
            name = name.upper()
            if name.startswith("AUTH="):
                # The form before RFC 2554, which some servers still send beside the right one.
                name, parameters = "AUTH", f"{name[5:]} {parameters}"
            if name == "AUTH":
                mechanisms.update(parameters.upper().split())
            if name:
                keywords[name] = parameters
        limits = _limits(keywords.get("LIMITS", ""))
        return cls(
            keywords,
            pipelining="PIPELINING" in keywords,
            size=_number(keywords.get("SIZE")),
            eight_bit="8BITMIME" in keywords,
            smtputf8="SMTPUTF8" in keywords,
            chunking="CHUNKING" in keywords,
            binary="BINARYMIME" in keywords and "CHUNKING" in keywords,
            dsn="DSN" in keywords,
            require_tls="REQUIRETLS" in keywords,
            priority="MT-PRIORITY" in keywords,
            least_by=_number(keywords.get("DELIVERBY")),
            rcpt_max=limits.get("RCPTMAX"),
            mail_max=limits.get("MAILMAX"),
            mechanisms=frozenset(mechanisms),
        )


NOTHING_OFFERED = Capabilities({})
"""After HELO."""


def _number(parameters: str | None) -> int | None:
    """An extension's numeric parameter; 0 when it states none, None when the extension isn't offered."""
    if parameters is None:
        return None
    number = parameters.partition(",")[0].strip()
    return int(number) if number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS else 0


def _limits(parameters: str) -> dict[str, int]:
    """``NAME=VALUE`` pairs (RFC 9422 section 3); a limit of 0 would forbid all mail and is taken for a mistake."""
    limits: dict[str, int] = {}
    for pair in parameters.upper().split():
        name, _, value = pair.partition("=")
        limit = _number(value)
        if limit:
            limits[name] = limit
    return limits
