"""The configuration file: its form (lettermta.config.ini) and its values (lettermta.config.kinds)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fuzz.promises import clean, pumped, require, swift
from lettermta.config import Config, kinds
from lettermta.config.faults import Wrong
from lettermta.config.ini import Reader
from lettermta.config.kinds import Kind

TOKENS = (
    *(b"[mta]|[listener a]|[shaping *]|[|]|=|#|;|hostname = |ports = 25, 587|${HOME}|${|}|yes|25MB|5m|30s|100/m|::1|[::1]:25".split(b"|")),
    *(b"192.0.2.0/24|2001:db8::/32|::ffff:0:0/96|mta.example.com|xn--|a.b|65535|\n |\n|\t|\r|\0|\xc3\xbc|999999999d".split(b"|")),
)

_FILE = Path("fuzzed.ini")
_OUTSIDE = (kinds.FILES, kinds.REPLY_RULES, kinds.CIPHERS)
"""Kinds that look at more than the text: the disk, and OpenSSL's list."""
_KINDS: list[Kind[Any]] = [key.kind for _, section in Config.sections().values() for key in section.declared() if key.kind not in _OUTSIDE]


def one(data: bytes) -> None:
    """Read ``data`` as a file, as it is and pumped, and as a value of each kind."""
    for octets in pumped(data):
        text = octets.decode("utf-8", "replace")
        with swift("a file"):
            _file(text)
    # The form lets no control character through to a value.
    value = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", data[:200].decode("utf-8", "replace")).strip()
    with swift("a value"):
        for kind in {id(kind): kind for kind in _KINDS}.values():
            _value(kind, value)


def _file(text: str) -> None:
    reader = Reader(_FILE)
    reader.read(text)
    for fault in reader.faults:
        clean(str(fault).replace("\t", " "), "a fault")
    for name, block in reader.blocks.items():
        clean(name, "the name of a section")
        require(name == name.strip() and name, "a section has a name")
        for key, entry in block.entries.items():
            clean(key.replace("\t", " "), "a key")
            for number, line in entry.lines:
                clean(line.replace("\t", ""), "a line of a value")
                require(0 < number <= text.count("\n") + 1, "each line has its number")


def _value(kind: Kind[Any], text: str) -> None:
    try:
        kind.parse(text, Path("/nowhere"))
    except Wrong as wrong:
        clean(wrong.complaint, "a complaint")
