"""The reply of a server in words about it, as reports quote it."""

from __future__ import annotations

import re

from lettermta.message import Reply

LONGEST = 500
"""Characters of a reason that are told."""

_MOST = 4_000
"""Characters that are looked at."""

_CODE = re.compile(r"(?<![\w.#:/-])([45]\d\d)[ :-]{1,2}(?:#?([45]\.\d{1,3}\.\d{1,3})\b[ :]*)?(?!hours|minutes|seconds|days)(?=\S)")
_LINE = re.compile(r" ?\b[45]\d\d-(?:[45]\.\d{1,3}\.\d{1,3} )?")
_ENHANCED = re.compile(r"(?<![\w.])([45])\.\d{1,3}\.\d{1,3}(?![\w]|\.\d)")


def reply_in(text: str, status: str | None, *, permanent: bool) -> Reply:
    """The reply that a reason quotes. ``status`` is the enhanced code that is known besides it.

    Without a reply code in it, 550 or 450 stands for what the status or ``permanent`` says.
    """
    text = "".join([character if character.isprintable() else " " for character in text[:_MOST]])
    text = " ".join(text.split())
    match = _CODE.search(text[:LONGEST])
    if match is None:
        found = _ENHANCED.search(text[:LONGEST])
        enhanced = status or (found[0] if found else None)
        return Reply(_code(enhanced, permanent), enhanced, text[:LONGEST])
    code, enhanced = int(match[1]), match[2] or status
    said = text[match.end() :]
    if text[match.end(1)] == "-":
        # The lines of one reply: each has its code again.
        said = _LINE.sub(" ", said).replace(f" {match[1]} {match[2]} ", " ").replace(f" {match[1]} ", " ")
    return Reply(code, enhanced, said.strip()[:LONGEST])


def _code(enhanced: str | None, permanent: bool) -> int:
    if enhanced is not None:
        return 450 if enhanced.startswith("4") else 550
    return 550 if permanent else 450
