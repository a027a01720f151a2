"""What a reload (SIGHUP) does not bring into force: the keys that were changed in the file, and hold from the next start only.

Promises that an operator who changes a key and reloads is told when that had no effect. Values are never told: some are secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from lettermta.config import Config
from lettermta.config.schema.declaring import Section

RELOADED = "certificates, limits, shaping and throttle rules reloaded, and the settings of webhooks"
"""What a reload says that it has done."""
_ALL = None
_FOLLOWED: Mapping[str, frozenset[str] | None] = {
    "tls": _ALL,
    "limits": _ALL,
    "shaping": _ALL,
    "delivery": frozenset({"throttle_rules"}),
    "events": frozenset({"webhook_concurrency", "webhook_schedule", "webhook_allow_networks", "webhook_retention"}),
}
"""By section, the keys that a reload brings into force."""


def from_the_next_start(old: Config, new: Config) -> list[str]:
    """What differs between ``old``, which is in force, and ``new``, and a reload leaves alone: keys, and sections that came or went."""
    told: list[str] = []
    for section, (attribute, kind) in Config.sections().items():
        followed = _FOLLOWED.get(section, frozenset())
        if followed is not _ALL:
            before, after = _by_name(old, attribute, kind), _by_name(new, attribute, kind)
            for name in dict.fromkeys([*before, *after]):
                title = f"[{section} {name}]" if name else f"[{section}]"
                told += [f"{title} {key}".rstrip() for key in _changed(before.get(name), after.get(name)) if key not in followed]
    if old.tls.certificate and not new.tls.certificate:
        told.append("[tls] certificate")
    return told


def _by_name(config: Config, attribute: str, kind: type[Section]) -> Mapping[str, Section]:
    """The sections of one kind by their names; one that has no name is under an empty one."""
    if not kind.named():
        return {"": getattr(config, attribute)}
    title = next(key.name for key in kind.declared() if key.titles)
    return {getattr(section, title): section for section in cast("Sequence[Section]", getattr(config, attribute))}


def _changed(before: Section | None, after: Section | None) -> Iterator[str]:
    """The keys whose values differ; an empty name for a section that came or went."""
    if before is None or after is None:
        yield ""
        return
    for key in before.declared():
        was, now = getattr(before, key.name), getattr(after, key.name)
        if was != now:
            yield from _differing(was, now) if key.rest else [key.name]


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name in dict.fromkeys([*was, *now]) if was.get(name) != now.get(name))
