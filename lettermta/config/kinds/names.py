"""Names, slugs, patterns, and what mail is told by: addresses and reply codes."""

from __future__ import annotations

import re
from pathlib import Path

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import Kind, one, optional, several
from lettermta.config.kinds.network import is_domain

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")  # the accounts' rule, which a test holds it to; they are above the configuration
_PATTERN = re.compile(r"[A-Za-z0-9*?_-]+(?:\.[A-Za-z0-9*?_-]+)*")


def _dotted(text: str) -> str:
    parts = text.split(".")
    if len(parts) < 2 or not all(map(str.isidentifier, parts)):
        raise Wrong(text, "is not a dotted name")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise Wrong(text, "is not a name")
    return text


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text) or len(text) > 253:
        raise Wrong(text, "is neither a domain name nor a pattern of one")
    return text.lower()


def _code(text: str) -> str:
    if not re.fullmatch(r"[45][0-9?]{2}", text, re.ASCII):
        raise Wrong(text, "is no reply code of a failure")
    return text


def _enhanced(text: str) -> str:
    if not re.fullmatch(r"[45]\.(\d{1,3}|\*)\.(\d{1,3}|\*)", text, re.ASCII):
        raise Wrong(text, "is no enhanced code of a failure")
    return text


def _expression(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise Wrong(text, f"is no regular expression: {error}") from None


def _project(text: str, folder: Path) -> str:
    if text and not _SLUG.fullmatch(text):
        raise Wrong(text, "is not a slug (1 to 63 of a-z, 0-9, _ and -, the first one a letter or digit)")
    return text


def _mail_address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,64}", local) or not is_domain(domain):
        raise Wrong(text, "is not an address like fbl@bounces.example.com")
    return text.lower()


USERNAMES = several(str, "user names", least=1)
DOTTED = one(_dotted, "a dotted name like package.module.Class")
HOOKS = several(_dotted, "dotted names like package.module.Class")
NAME = one(_name, "at most 64 letters, digits, dots, dashes and underscores, a letter or digit first")
NAMES = several(_name, "names", least=1)
PATTERN = one(_pattern, "a domain or the name of an MX host, where * stands for any characters and ? for one: example.com, *.example.com")
PATTERNS = several(_pattern, "domains or names of MX hosts, with * and ? for patterns")
CODES = several(_code, "reply codes of 4yz or 5yz, ? for any digit: 421, 45?")
ENHANCED_CODES = several(_enhanced, "enhanced codes of 4.y.z or 5.y.z, * for any number: 4.7.*, 4.2.1")
EXPRESSION = one(_expression, "a regular expression in the syntax of Python, capitals or not")
PROJECT = Kind(_project, "the slug of a project, or nothing")
MAIL_ADDRESS = optional(one(_mail_address, "an address of mail like reports@example.com"))
MAIL_ADDRESSES = several(_mail_address, "addresses of mail like fbl@bounces.example.com")
