"""Which replies are about us and not about one message: rules on code, enhanced code, text and host, in files (``throttles.ini``).

Promises nothing of what the rules say; what they come to for a destination is told in :mod:`lettermta.delivery.flow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from lettermta.config import Throttle, load_sections
from lettermta.delivery.shaping import matcher
from lettermta.message import Reply

THROTTLES = Path(__file__).with_name("throttles.ini")
"""What comes along."""

_MOST_TEXT = 1000
"""Characters of a reply that are looked at, whatever an expression costs."""


@frozen
class _Rule:
    name: str
    pause: float | None
    hosts: tuple[re.Pattern[str], ...]
    codes: re.Pattern[str] | None
    enhanced: re.Pattern[str] | None
    text: re.Pattern[str] | None

    def matches(self, code: str, reply: Reply, text: str, host: str) -> bool:
        return (
            (self.codes is None or self.codes.fullmatch(code) is not None)
            and (self.enhanced is None or self.enhanced.fullmatch(reply.enhanced or "") is not None)
            and (not self.hosts or any(pattern.match(host) for pattern in self.hosts))
            and (self.text is None or self.text.search(text) is not None)
        )


@frozen
class Found:
    """The rule that matches a reply. ``pause``: seconds; None: the reply says nothing about the destination."""

    name: str
    pause: float | None


class ThrottleRules:
    """All rules, ready to be asked."""

    def __init__(self, own: Iterable[Throttle] = (), shipped: Iterable[Throttle] | None = None) -> None:
        """``own`` are the operator's, which come first; ``shipped`` None: those that come along."""
        self._shipped = [_rule(section) for section in (load_sections(THROTTLES, Throttle) if shipped is None else shipped)]
        self.follow(own)

    def follow(self, own: Iterable[Throttle]) -> None:
        """Follow other rules of the operator's from now on."""
        self._rules = [*map(_rule, own), *self._shipped]

    def find(self, reply: Reply, host: str | None) -> Found | None:
        """The first rule that matches a failure's ``reply``, said by ``host``."""
        code, text, name = str(reply.code), reply.text[:_MOST_TEXT], (host or "").lower()
        for rule in self._rules:
            if rule.matches(code, reply, text, name):
                return Found(rule.name, rule.pause)
        return None


def _rule(section: Throttle) -> _Rule:
    return _Rule(
        section.name,
        section.pause,
        tuple(map(matcher, section.mx)),
        _any(code.replace("?", "[0-9]") for code in section.codes),
        _any(enhanced.replace(".", r"\.").replace("*", r"\d+") for enhanced in section.enhanced),
        section.text,
    )


def _any(patterns: Iterable[str]) -> re.Pattern[str] | None:
    joined = "|".join(patterns)
    return re.compile(joined) if joined else None
