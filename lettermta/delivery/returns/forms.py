"""Reports and answers that follow no standard, by forms that are data (``forms.toml`` beside this file).

Phrases are searched for one part after the other, so a text costs no more than its length times the phrases.
"""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

from attrs import field, frozen

from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.mime import Parsed
from lettermta.delivery.returns.reason import reply_in

Phrase = tuple[str, ...]
"""Its parts, between which there may be anything."""

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_MOST_OF_A_REASON = 2_000


def _phrases(values: Sequence[str]) -> tuple[Phrase, ...]:
    return tuple(tuple(value.split("*")) for value in values)


@frozen
class Form:
    """One form; see ``forms.toml``."""

    name: str
    signs: tuple[Phrase, ...] = field(default=(), converter=_phrases)
    senders: tuple[Phrase, ...] = field(default=(), converter=_phrases)
    subjects: tuple[Phrase, ...] = field(default=(), converter=_phrases)
    fields: tuple[str, ...] = field(default=(), converter=tuple)
    begin: tuple[Phrase, ...] = field(default=(), converter=_phrases)
    end: tuple[Phrase, ...] = field(default=(), converter=_phrases)
    delays: tuple[Phrase, ...] = field(default=(), converter=_phrases)

    def finding(self, parsed: Parsed, text: str, lowered: str) -> Finding | None:
        """What the message tells if it has this form. ``lowered`` is ``text`` with the same length."""
        sign = _end_of_first(lowered, self.signs) if self.signs else 0
        if sign < 0 or not self._is_of_it(parsed.fields):
            return None
        begin = max(_end_of_first(lowered, self.begin, sign), _end_of_first(lowered, self.begin, 0), sign)
        end = _start_of_first(lowered, self.end, begin)
        delayed = bool(self.delays) and _end_of_first(lowered, self.delays) >= 0
        reason = text[begin : min(end, begin + _MOST_OF_A_REASON)].strip(" :-")
        kind = Kind.DELAYED if delayed else Kind.FAILED
        return Finding(kind, self.name, reply_in(reason, None, permanent=not delayed), _host(parsed))

    def _is_of_it(self, fields: Mapping[str, str]) -> bool:
        if self.senders and _end_of_first(_small(fields.get("from", "<>")), self.senders) < 0:
            return False
        if self.subjects and _end_of_first(_small(fields.get("subject", "")), self.subjects) < 0:
            return False
        return not self.fields or any(name in fields for name in self.fields)


@frozen
class Automatic:
    """The marks of automatic answers."""

    fields: tuple[str, ...]
    precedences: tuple[str, ...]
    subjects: tuple[Phrase, ...]


@frozen
class Forms:
    """All that the file has."""

    forms: tuple[Form, ...]
    automatic: Automatic
    systems: tuple[Phrase, ...]
    """What mail systems call themselves in From."""


@lru_cache(maxsize=1)
def shipped_forms() -> Forms:
    """The forms that come with the program."""
    document: dict[str, Any] = tomllib.loads(resources.files(__package__).joinpath("forms.toml").read_text("utf-8"))
    marks = document["automatic"]
    automatic = Automatic(tuple(marks["fields"]), tuple(marks["precedences"]), _phrases(marks["subjects"]))
    systems = document["systems"]
    forms = tuple(Form(**{"senders": systems, **table} if "subjects" in table else table) for table in document["form"])
    return Forms(forms, automatic, _phrases(systems))


def form_finding(parsed: Parsed) -> Finding | None:
    """What a report in a home-made form tells; None when it is none that is known."""
    text = parsed.reading
    lowered = _small(text)
    for form in shipped_forms().forms:
        found = form.finding(parsed, text, lowered)
        if found is not None:
            return found
    return None


def from_mail_system(parsed: Parsed) -> bool:
    """Whether who wrote it calls itself a mail system."""
    return _end_of_first(_small(parsed.fields.get("from", "<>")), shipped_forms().systems) >= 0


def automatic_finding(parsed: Parsed) -> Finding | None:
    """Whether it is an automatic answer (RFC 3834 section 5), or has another mark of one."""
    fields, marks = parsed.fields, shipped_forms().automatic
    submitted = fields.get("auto-submitted", "").partition(";")[0].strip().lower()
    subject = fields.get("subject", "")
    if (
        submitted.startswith("auto")
        or any(name in fields for name in marks.fields)
        or _small(fields.get("precedence", "")) in marks.precedences
        or _end_of_first(_small(subject), marks.subjects) >= 0
    ):
        return Finding(Kind.AUTO_REPLY, submitted or "marked", detail=subject)
    return None


def _host(parsed: Parsed) -> str:
    """The domain that the report comes from, as it says."""
    return parsed.fields.get("from", "").rpartition("@")[2].strip("<> ")


def _small(text: str) -> str:
    """ASCII in lower case: every character keeps its place."""
    return text.translate(_LOWER)


def _found(text: str, phrase: Phrase, place: int) -> tuple[int, int]:
    """Where the phrase begins and ends in the text from ``place`` on; -1 and -1 where it isn't."""
    start = -1
    for part in phrase:
        place = text.find(part, place)
        if place < 0:
            return -1, -1
        start = place if start < 0 else start
        place += len(part)
    return start, place


def _end_of_first(text: str, phrases: Sequence[Phrase], place: int = 0) -> int:
    """Behind the first of the phrases that is there, in their order; -1 without one."""
    return next((end for phrase in phrases if (end := _found(text, phrase, place)[1]) >= 0), -1)


def _start_of_first(text: str, phrases: Sequence[Phrase], place: int) -> int:
    """Where the foremost of the phrases begins; the text's length without one."""
    starts = [start for phrase in phrases if (start := _found(text, phrase, place)[0]) >= 0]
    return min(starts, default=len(text))
