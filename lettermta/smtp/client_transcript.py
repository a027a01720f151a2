"""What was said on a connection and what was answered, for who traces an attempt later.

Promises that no secret and no content is in it, that its texts print, and that it is bounded. Kept as octets until somebody asks: most of
what is said is of no interest to anyone.
"""

from __future__ import annotations

from collections.abc import Sequence

CONTENT_END = "the end of the content"
"""The name of what the last reply answers."""
BANNER = "our connection"
"""The name of what the first reply answers."""
MOST = 2500
"""Commands of one attempt that are kept: those of the connection's opening, and one for each recipient."""
LONGEST = 1000
"""Octets of a command or of a reply that are kept."""

_CONTENT, _CHUNK = b"(content)", b"(a chunk of content)"

Exchange = dict[str, str | None]
"""``said``, None for what comes unasked, and ``answer``, None for what never came."""


class Transcript:
    """The commands and replies of one attempt; each reply belongs to the first command that has none yet."""

    __slots__ = ("_heard", "_said")

    def __init__(self) -> None:
        self._said: list[bytes | None] = []
        self._heard: list[tuple[int, list[bytes]]] = []

    def said(self, data: bytes, stages: Sequence[str]) -> None:
        """Octets go out that are answered by a reply to each of these stages."""
        if len(self._said) + len(stages) > MOST:
            return
        start = 0
        for stage in stages:
            end = data.find(b"\r\n", start)
            self._said.append(_told(data[start : min(end, start + LONGEST)], stage))
            start = end + 2

    def expected(self, stage: str) -> None:
        """A reply is waited for that no command asked for."""
        if len(self._said) < MOST:
            self._said.append(None if stage == BANNER else _CONTENT if stage == CONTENT_END else _CHUNK)

    def heard(self, code: int, lines: list[bytes]) -> None:
        """A reply has come."""
        if len(self._heard) < MOST:
            self._heard.append((code, lines))

    @property
    def exchanges(self) -> list[Exchange]:
        """All of it, in order, but for a QUIT that nobody waits for."""
        heard = [_text(b"%d %b" % (code, b"\n".join(lines))) for code, lines in self._heard]
        said = [None if command is None else _text(command) for command in self._said]
        if said and said[-1] == "QUIT" and len(said) > len(heard):
            said.pop()
        answers = [*heard, *[None] * (len(said) - len(heard))]
        asked = [*said, *[None] * (len(heard) - len(said))]
        return [{"said": command, "answer": answer} for command, answer in zip(asked, answers, strict=True)]


def _told(line: bytes, stage: str) -> bytes:
    if stage == "AUTH":
        words = line.split(b" ", 2)
        return b"AUTH %b ..." % words[1] if words[0] == b"AUTH" and len(words) > 1 else b"..."
    if stage == CONTENT_END and not line.startswith(b"BDAT "):
        return _CONTENT
    return line


def _text(octets: bytes) -> str:
    text = octets[:LONGEST].decode("utf-8", "replace")
    return text if text.isprintable() else "".join([char if char.isprintable() or char == "\n" else "?" for char in text])
