"""What a message that came back tells, as data."""

from __future__ import annotations

import enum

from attrs import field, frozen

from lettermta.message import Reply

LONGEST = 200
"""Characters of what somebody calls itself."""


def shown(text: str) -> str:
    """A text for logs and events: on one line, cut, and nothing in it that can't be printed."""
    return "".join([character if character.isprintable() else "?" for character in " ".join(text.split())[:LONGEST]])


class Kind(enum.StrEnum):
    """What sort of message it is."""

    FAILED = "failed"
    """The recipient is given up."""
    DELAYED = "delayed"
    """The recipient is late, and still being tried."""
    ARRIVED = "arrived"
    """A success, which was asked for."""
    COMPLAINT = "complaint"
    """The recipient took it for spam (RFC 5965)."""
    FEEDBACK = "feedback"
    """A report of that form on something else: on authentication, or that it is no spam."""
    AUTO_REPLY = "auto_reply"
    """The recipient's absence, for example (RFC 3834)."""
    UNRECOGNISED = "unrecognised"


@frozen
class Finding:
    """``form`` names what was recognised, for log and counters; ``reporter`` the host or program that wrote it, as it calls itself."""

    kind: Kind
    form: str = field(default="", converter=shown)
    reply: Reply | None = None
    """Why, of what failed or is late."""
    reporter: str = field(default="", converter=shown)
    detail: str = field(default="", converter=shown)
    """The type of a complaint, the subject of an automatic answer."""
