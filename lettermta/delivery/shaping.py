"""How much a destination may be sent, by rules on domains and MX hosts: the operator's, and those that come along (``receivers.ini``).

Where several rules match, each key is taken from the most specific one that sets it: a whole name before a pattern, what matches the
domain before what matches its hosts, a longer pattern before a shorter one, the operator's before ours of the same pattern. A rule matches
hosts when it matches all of those that the domain prefers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from pathlib import Path
from typing import Any

from attrs import define, fields, frozen

from lettermta.config import DeliveryTLS, Rate, Shaping, load_sections

RECEIVERS = Path(__file__).with_name("receivers.ini")
"""What comes along for the large receivers."""


@frozen
class Limits:
    """What holds for one destination. Times in seconds."""

    connections: int = 20
    messages_per_connection: int = 1000
    rate: Rate | None = None
    recipients_per_message: int = 100
    schedule: tuple[float, ...] | None = None
    """Delays between attempts, before those of the route; None: those of the route."""
    idle_time: float = 10.0
    tls: DeliveryTLS | None = None
    """None: what the route asks for."""
    rule: str = "*"
    """The pattern of the most specific rule, for the counters."""
    together: str | None = None
    """What the destinations that share these limits have in common, whatever their hosts are; None: their hosts."""
    named: str | None = None
    """The pattern that matches the domain itself, so that it is a destination apart from others with the same hosts; or None."""


_KEYS = [field.name for field in fields(Limits) if field.name not in ("rule", "together", "named")]
_MOST_KNOWN = 10_000


@define(order=False)
class _Rule:
    section: Shaping
    matches: re.Pattern[str]
    rank: tuple[bool, int, bool]
    """The greater the more specific, among rules that match the same: a whole name, the length of what is no wildcard, the operator's."""


class ShapingRules:
    """All rules, ready to be asked."""

    def __init__(self, own: Iterable[Shaping] = (), shipped: Iterable[Shaping] | None = None) -> None:
        """``own`` are the operator's; ``shipped`` None: those that come along."""
        if shipped is None:
            shipped = load_sections(RECEIVERS, Shaping)
        rules = [_rule(section, own=True) for section in own] + [_rule(section, own=False) for section in shipped]
        self._rules = sorted(rules, key=lambda rule: rule.rank, reverse=True)
        self._known: dict[tuple[int, ...], Limits] = {}
        """By the rules that matched and how, so that what is the same is one object."""

    def limits(self, domain: str | None, hosts: Sequence[str]) -> Limits:
        """What holds for mail to ``domain`` (in lower case; None: any) whose most preferred hosts are ``hosts``."""
        found: list[tuple[bool, bool, int]] = []
        for number, rule in enumerate(self._rules):
            everything = rule.section.pattern == "*"
            if domain is not None and not everything and rule.matches.match(domain):
                found.append((rule.rank[0], True, number))
            elif everything or (hosts and all(map(rule.matches.match, hosts))):
                found.append((rule.rank[0], False, number))
        found.sort(key=lambda one: (not one[0], not one[1], one[2]))
        key = tuple(-number - 1 if by_domain else number for _, by_domain, number in found)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            sections = [self._rules[number].section for _, _, number in found]
            named = next((self._rules[number].section.pattern for _, by_domain, number in found if by_domain), None)
            known = self._known[key] = _merged(sections, named)
        return known


def _merged(sections: Sequence[Shaping], named: str | None) -> Limits:
    """Each key from the first section that sets it."""
    values: dict[str, Any] = {}
    for name in _KEYS:
        value = next((value for section in sections if (value := getattr(section, name)) is not None), None)
        if value is not None:
            values[name] = value
    rule = sections[0].pattern if sections else "*"
    joining = next((section for section in sections if section.together is not None), None)
    together = None
    if joining is not None and joining.together:
        together = rule if joining.pattern == rule else f"{rule} in {joining.pattern}"
    return Limits(**values, rule=rule, together=together, named=named)


def matcher(pattern: str) -> re.Pattern[str]:
    """What matches names in lower case: ``*`` is any characters, ``?`` is one."""
    return re.compile(translate(pattern))


def _rule(section: Shaping, *, own: bool) -> _Rule:
    pattern = section.pattern
    literal = len(pattern.replace("*", "").replace("?", ""))
    return _Rule(section, matcher(pattern), (literal == len(pattern), literal, own))
