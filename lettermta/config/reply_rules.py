"""Rules that tell what a refusal is about, read from a file: data that ships with the program, and what an operator adds to it.

A file is TOML, a list of tables ``[[rule]]`` with these keys, of which ``class`` and one of the others have to be there:

``class``
    A word of :class:`~lettermta.message.ReplyClass`.
``codes``
    Reply codes or enhanced codes: ``550``, ``4xx``, ``5.1.1``, ``5.7.*``, or a range like ``5.7.606-649``; with a class digit of ``x``
    either of 4 and 5: ``x.2.2``. One of them has to be the reply's. Left out: any.
``texts``
    Phrases, without regard to case and line ends. ``*`` stands for anything. One of them has to be somewhere in the reply. Left out: any.

Phrases are searched for one part after the other, so that no text, however made, costs more than its length times the rules. A file that
is wrong is refused whole, with each fault.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from lettermta.message import ReplyClass

_CODE = re.compile(r"[45](?:\d\d|xx)")
_STATUS = re.compile(r"([45x])\.(\d{1,3})\.(?:(\*)|(\d{1,3})(?:-(\d{1,3}))?)")
LEAST_LETTERS = 3
"""Of a phrase: what is shorter stands in too many replies."""

_KEYS = {"class", "codes", "texts"}


class BadRules(ValueError):
    """What is wrong with a file of rules; the text has a line for each fault."""


@frozen
class Codes:
    """A set of codes: of replies if ``reply`` is there (two digits may be missing), else of enhanced ones."""

    reply: str = ""
    kind: str = ""
    subject: int = 0
    first: int = 0
    last: int = 0

    def covers(self, code: str, status: tuple[str, int, int] | None) -> bool:
        """Whether the reply's code or its enhanced code is one of them."""
        if self.reply:
            return code.startswith(self.reply)
        if status is None or status[1] != self.subject:
            return False
        return self.kind in ("x", status[0]) and self.first <= status[2] <= self.last


@frozen
class ReplyRule:
    """One rule; see the module. ``texts`` are the phrases' parts, in lower case."""

    reply_class: ReplyClass
    codes: tuple[Codes, ...] = ()
    texts: tuple[tuple[str, ...], ...] = ()

    def fits(self, code: str, status: tuple[str, int, int] | None, text: str) -> bool:
        """Whether this is about the reply; ``text`` in lower case, with single blanks."""
        if self.codes and not any(codes.covers(code, status) for codes in self.codes):
            return False
        return not self.texts or any(_contains(text, parts) for parts in self.texts)


def _contains(text: str, parts: tuple[str, ...]) -> bool:
    place = 0
    for part in parts:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def reply_rules(source: str) -> tuple[ReplyRule, ...]:
    """The rules in a file's text, in their order; raises BadRules."""
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise BadRules(f"this is not TOML: {error}") from None
    tables = document.pop("rule", [])
    faults = [f"unknown key {name!r}: expected [[rule]] alone" for name in document]
    rules = []
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadRules("rule is no list of tables: expected [[rule]]")
    for number, table in enumerate(tables, 1):
        wrong = [f"rule {number}: {fault}" for fault in _faults(table)]
        faults += wrong
        if not wrong:
            rules.append(_rule(table))
    if faults:
        raise BadRules("\n".join(faults))
    return tuple(rules)


def _faults(table: Mapping[str, Any]) -> Iterator[str]:
    for key in table.keys() - _KEYS:
        yield f"unknown key {key!r}: expected class, codes or texts"
    if table.get("class") not in list(ReplyClass):
        yield f"class is {table.get('class')!r}: expected one of {', '.join(ReplyClass)}"
    if not table.get("codes") and not table.get("texts"):
        yield "it has neither codes nor texts, so it would be about every reply"
    for key, fine, expected in (
        ("codes", _is_code, "like 550, 4xx, 5.1.1, x.7.* or 5.7.606-649"),
        ("texts", _is_phrase, f"a phrase of {LEAST_LETTERS} letters or more, with something on both sides of each *"),
    ):
        items = table.get(key, [])
        if not isinstance(items, list):
            yield f"{key} is no list"
        else:
            yield from (f"{key} has {item!r}: expected {expected}" for item in items if not fine(item))


def _is_code(item: object) -> bool:
    return isinstance(item, str) and (_CODE.fullmatch(item) or _STATUS.fullmatch(item)) is not None


def _is_phrase(item: object) -> bool:
    return isinstance(item, str) and all(parts := _parts(item)) and len("".join(parts)) >= LEAST_LETTERS


def _parts(phrase: str) -> tuple[str, ...]:
    return tuple(" ".join(part.lower().split()) for part in phrase.split("*"))


def _rule(table: Mapping[str, Any]) -> ReplyRule:
    return ReplyRule(ReplyClass(table["class"]), tuple(map(_codes, table.get("codes", ()))), tuple(map(_parts, table.get("texts", ()))))


def _codes(item: str) -> Codes:
    match = _STATUS.fullmatch(item)
    if match is None:
        return Codes(reply=item.rstrip("x"))
    kind, subject, every, first, last = match.groups()
    if every:
        return Codes(kind=kind, subject=int(subject), last=999)
    return Codes(kind=kind, subject=int(subject), first=int(first), last=int(last or first))
