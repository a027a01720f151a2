"""What a refusal is about: a class for each reply and report, by rules that are data (``rules.toml`` beside this file).

Promises that every reply gets a class, in time that its length bounds (150 microseconds at first sight; a text counts up to :data:`LONGEST`
characters), and that what is temporary by the other side's security or policy (4.7.x) is never taken for a dead address, whatever its
text or a rule says. An unknown refusal is ``undetermined``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources

from attrs import define, field

from lettermta.config.reply_rules import ReplyRule, reply_rules
from lettermta.message import Reply, ReplyClass

LONGEST = 1000
"""Characters of a text that are looked at: what a server says about a refusal stands at its front."""
REMEMBERED = 512
"""Replies whose class is kept in memory."""

_EMBEDDED = re.compile(r"(?:^|[ (\[#:;,])([245])\.(\d{1,3})\.(\d{1,3})(?=$|[ )\]:;,-]|\.(?!\d))")
_DOMAIN = re.compile(r"[a-z0-9-]*(?:\.[a-z0-9-]+)*")


@lru_cache(maxsize=1)
def shipped_rules() -> tuple[ReplyRule, ...]:
    """The rules that come with the program."""
    return reply_rules(resources.files(__name__).joinpath("rules.toml").read_text("utf-8"))


@define(eq=False)
class Classifier:
    """Tells the class of replies. ``own`` rules go before those that are shipped; the first that fits decides."""

    own: Sequence[ReplyRule] = ()
    _rules: tuple[ReplyRule, ...] = field(init=False)
    _known: Callable[[int, str, str], ReplyClass] = field(init=False)
    """Remembers: what fails by the thousand mostly fails by the same words."""

    def __attrs_post_init__(self) -> None:
        self._rules = (*self.own, *shipped_rules())
        self._known = lru_cache(maxsize=REMEMBERED)(self._classify)

    def classify(self, reply: Reply) -> ReplyClass:
        """The class of a reply that refuses something, the other side's or our own."""
        return self._known(reply.code, reply.enhanced or "", reply.text[:LONGEST])

    def _classify(self, code_number: int, enhanced: str, said: str) -> ReplyClass:
        text = plain(said)
        status = _status(enhanced) or _status(text)
        code = str(code_number)
        passing = status is not None and status[1] == 7 and "4" in (code[0], status[0])
        for rule in self._rules:
            if rule.fits(code, status, text) and not (passing and rule.reply_class.dead_address):
                return rule.reply_class
        return ReplyClass.UNDETERMINED


def shows_dead_address(reply: Reply, reply_class: ReplyClass) -> bool:
    """Whether a refusal of that class means that nothing sent there will ever arrive. Some servers say 550 4.x.y, and mean for now."""
    return reply_class.dead_address and reply.permanent and not (reply.enhanced or "").startswith("4")


def plain(text: str) -> str:
    """A text in lower case, with single blanks and ``@`` for each address: nobody's name is to look like a reason."""
    words = text.lower().split()
    return " ".join([_without_address(word) if "@" in word else word for word in words])


def _without_address(word: str) -> str:
    behind = word.rpartition("@")[2]
    match = _DOMAIN.match(behind)
    return "@" + behind[match.end() if match else 0 :]


def _status(text: str) -> tuple[str, int, int] | None:
    match = _EMBEDDED.search(text)
    return None if match is None else (match[1], int(match[2]), int(match[3]))
