"""What a policy is shown of a message before it is stored, and what it may decide (``docs/policies.md``).

A policy provides :class:`~lettermta.interfaces.ISubmissionPolicy`. What it decides is checked where it is made: a verdict that could not
be carried out, or that would write more than one header line, raises ValueError in the policy itself.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from email.header import Header

from attrs import field, frozen

from lettermta.message import Peer, Recipient, Reply

_NAME = re.compile(r"[!-9;-~]{1,76}")
"""The name of a header field (RFC 5322 section 2.2)."""
_ENHANCED = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")
_OURS = ("x-lm-", "x-metadata-", "x-lettr-")
_OURS_WHOLE = frozenset({"x-lettermint-route", "x-tag", "idempotency-key", "bcc", "return-path", "received"})
_STRUCTURED = frozenset(
    {"from", "sender", "reply-to", "to", "cc", "date", "message-id", "in-reply-to", "references", "mime-version", "content-type"}
    | {"content-transfer-encoding", "content-disposition", "content-id", "list-unsubscribe", "list-unsubscribe-post", "list-id"}
)
TEXT_LENGTH = 400
"""Characters of a refusal's or a hold's text at the most; a reply line has 512 octets in all (RFC 5321 section 4.5.3.1.5)."""


@frozen
class PolicyMessage:
    """A message as it would be stored now: what its client sent, what earlier policies changed, control headers read and taken out."""

    id: str
    """What its 250 will say and the queue tools will know it by, if it is taken."""
    project: str
    """The slug of the project that it is sent for."""
    route: str
    """The slug of the route that it would leave by."""
    peer: Peer
    """Who the client is: address, port, listener, HELO name, TLS, login."""
    sender: str
    """The envelope's sender; empty for the null sender."""
    recipients: tuple[Recipient, ...]
    """The envelope's recipients, as they were given."""
    tag: str | None
    metadata: Mapping[str, str]
    headers: Sequence[tuple[str, str]]
    """Names as written, and values: unfolded, encoded words decoded. They can be anything that a client thinks of."""
    body_size: int
    """Octets behind the empty line that ends the header block."""
    _pieces: Callable[[], AsyncIterator[bytes]] = field(repr=False)

    def header(self, name: str) -> str | None:
        """The value of the first field of that name, whatever its case; None where there is none."""
        key = name.lower()
        return next((value for written, value in self.headers if written.lower() == key), None)

    def body(self) -> AsyncIterator[bytes]:
        """What is behind the header block, in pieces of bounded size, read off the reactor's thread where it is on the disk. It can be
        asked for again; the client waits while it is read.
        """
        return self._pieces()


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(_changeable(name) for name in ((names,) if isinstance(names, str) else names))


def _changeable(name: str) -> str:
    """The name of a field that a policy may add or take out."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a header field; expected 1 to 76 printable ASCII characters without a colon")
    key = name.lower()
    if key in _OURS_WHOLE or key.startswith(_OURS):
        raise ValueError(f"{name} is not for a policy to change; expected tag, metadata or route as arguments, or another field")
    return name


def _fields(pairs: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[bytes, ...]:
    return tuple(_field(name, value) for name, value in (pairs.items() if isinstance(pairs, Mapping) else pairs))


def _field(name: str, value: str) -> bytes:
    """One header field, encoded (RFC 2047) and folded, with its CRLF: never more than one, whatever the value."""
    _changeable(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name}: expected a text as its value, that is not blank")
    if any(character != "\t" and (character < " " or character == "\x7f") for character in value):
        raise ValueError(f"{name}: a control character in its value; expected text on one line")
    if name.lower() in _STRUCTURED and not value.isascii():
        raise ValueError(f"{name}: not ASCII, and a field with a grammar of its own; expected it encoded already (RFC 2047)")
    charset = "us-ascii" if value.isascii() else "utf-8"
    text = Header(value.strip(), charset, header_name=name).encode(linesep="\r\n")
    # What can't be folded stays on one line; one that is too long is found with the rest of the block.
    return f"{name}: {text}\r\n".encode("ascii")


def _said(text: str) -> str:
    if not isinstance(text, str) or not 1 <= len(text) <= TEXT_LENGTH or not text.isprintable():
        raise ValueError(f"expected a text of 1 to {TEXT_LENGTH} printable characters, on one line")
    return text


def _replied(text: str) -> str:
    """A reply's text: in ASCII (RFC 5321 section 4.2), as no client need take another one that did not say SMTPUTF8."""
    if not _said(text).isascii():
        raise ValueError(f"{text!r} is not ASCII; expected a reply that every client can take (RFC 5321 section 4.2)")
    return text


@frozen(kw_only=True)
class Accept:
    """Take the message, with these changes. Without any, a policy may as well return None."""

    remove: tuple[str, ...] = field(default=(), converter=_names)
    """Names of header fields to take out: all fields of that name."""
    add: tuple[bytes, ...] = field(default=(), converter=_fields)
    """Header fields to add behind the others, once those to be removed are gone: pairs of name and value, or a mapping."""
    tag: str | None = None
    """A tag in place of the client's; the empty text takes it off."""
    metadata: Mapping[str, str] = field(factory=dict, converter=dict)
    """Pairs that are added to the client's, or go before them."""
    route: str | None = None
    """The slug of another route of the project to leave by."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed."""
        return bool(self.remove or self.add or self.metadata) or self.tag is not None or self.route is not None


@frozen(kw_only=True)
class Hold(Accept):
    """Take the message, with these changes, and keep it until ``lettermta-queue release`` is said: its client gets the 250."""

    reason: str = field(converter=_said)
    """Why, as the queue tools show it."""

    @property
    def changes(self) -> bool:
        """Whether anything is changed: that it is held is."""
        return True


@frozen
class Refuse:
    """Refuse the message by a reply; nothing of it is kept. A ``code`` of 4yz has the client try again later."""

    text: str = field(converter=_replied)
    code: int = 550
    enhanced: str | None = None
    """The enhanced status code (RFC 3463); None: 5.7.1 or 4.7.1, as the code is."""

    def __attrs_post_init__(self) -> None:
        if type(self.code) is not int or self.code not in (450, 451, 452, 550, 551, 552, 553, 554):
            raise ValueError(f"{self.code!r} does not refuse a message; expected 450 to 452, or 550 to 554 (RFC 5321 section 4.3.2)")
        if self.enhanced is not None and (_ENHANCED.fullmatch(self.enhanced) is None or self.enhanced[0] != str(self.code)[0]):
            raise ValueError(f"{self.enhanced!r} does not go with {self.code}; expected a code like {str(self.code)[0]}.7.1")

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        return Reply(self.code, self.enhanced or f"{str(self.code)[0]}.7.1", self.text)


PolicyVerdict = Accept | Refuse
"""What a policy may return, besides None, which takes the message as it is."""
