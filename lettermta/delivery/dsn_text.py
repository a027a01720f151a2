"""What a report says to people: which recipient, why, and what to do about it.

Plain sentences for someone who sends mail and knows nothing of protocols; the same facts stand in the report's second part for programs.
Every string taken here, but for that of :func:`visible`, is one printable line already, and so is every line that comes out.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from lettermta.message import Notify

MOST_VALUE = 900
"""Octets of any one value, so that every line stays below 998 octets."""

SUBJECTS: Mapping[Notify, str] = {
    Notify.FAILURE: "Your message could not be delivered",
    Notify.DELAY: "Your message is delayed",
    Notify.SUCCESS: "Your message was delivered or passed on",
}
"""The report's Subject, by its kind."""

_OPENINGS: Mapping[Notify, str] = {
    Notify.FAILURE: "Your message could not be delivered to {whom}. It will not be tried again.",
    Notify.DELAY: "Your message has not reached {whom} yet. There is nothing you need to do: it is tried again until it gets there or its "
    "time is up.",
    Notify.SUCCESS: "You asked to be told when your message is delivered. This is about {whom}.",
}

_WIDTH = 76
_JOINERS = "\u200c\u200d"
"""Characters without a shape that names in some scripts need (RFC 5892 appendix A)."""

_BY_DETAIL: Mapping[str, tuple[str, str]] = {
    "1.1": ("There is no such mailbox.", "Check the address for a slip of the pen, or ask the recipient for the right one by other means."),
    "1.2": ("The domain behind the @ does not exist.", "Check the address, above all what is behind the @."),
    "1.3": ("The address is not written as an address has to be.", "Check the address, and send the message again."),
    "1.6": ("The recipient has moved, and the new address is not known.", "Ask the recipient for the new address by other means."),
    "1.10": ("The domain behind the @ takes no mail at all.", "Check the address, above all what is behind the @."),
    "2.1": ("The mailbox is switched off.", "Reach the recipient by other means, or ask for another address."),
    "2.2": ("The mailbox is full.", "Send the message again in a few days, or tell the recipient by other means that the mailbox is full."),
    "2.3": ("The message is larger than the recipient may get.", "Send less at once, or a link instead of an attachment."),
    "3.4": ("The message is larger than the recipient's server takes.", "Send less at once, or a link instead of an attachment."),
    "4.4": ("No server could be found that takes mail for the recipient.", "Check the address, above all what is behind the @."),
    "4.6": ("The message went round in a circle.", "Tell the recipient's provider by other means: its mail is sent back and forth."),
    "4.7": ("It could not be delivered in the time there was for it.", "Send the message again later, or reach the recipient otherwise."),
    "6.7": ("The recipient's server can't take addresses with letters like these.", "Ask the recipient for an address in plain letters."),
    "7.10": (
        "The recipient's server can't encrypt as this message asks for.",
        "Send it without asking for that, if it may go in the clear.",
    ),
    "7.30": (
        "The recipient's server can't encrypt as this message asks for.",
        "Send it without asking for that, if it may go in the clear.",
    ),
}
"""Reason and remedy by subject and detail of the enhanced status (RFC 3463 sections 3.2 to 3.8, RFC 7505, RFC 8689)."""

_BY_SUBJECT: Mapping[str, tuple[str, str]] = {
    "1": ("Something is wrong with the address.", "Check the address, and send the message again."),
    "2": ("The mailbox can't take mail.", "Send the message again later, or reach the recipient by other means."),
    "3": ("The recipient's server can't take this message.", "Send the message again later, or reach the recipient by other means."),
    "4": ("The recipient's server could not be reached.", "Check what is behind the @; if that is right, send the message again later."),
    "5": ("The recipient's server did not go on with the delivery.", "Show this report to whoever runs your mail."),
    "6": ("The recipient's server can't handle a message of this form.", "Send it in another form, for instance as plain text."),
    "7": ("The recipient's server refused the message by its rules.", "Read below what it said; if that does not help, ask its operator."),
}

_UNKNOWN = ("The delivery failed.", "Read below what is known of it; if that does not help, ask whoever runs your mail.")


def explanation(status: str) -> tuple[str, str]:
    """Why a recipient failed and what its sender can do, by the enhanced status code ``class.subject.detail`` (RFC 3463)."""
    _, _, meaning = status.partition(".")
    subject = meaning.partition(".")[0]
    return _BY_DETAIL.get(meaning) or _BY_SUBJECT.get(subject) or _UNKNOWN


def text(kind: Notify, hostname: str, facts: Sequence[tuple[str, str]], recipients: Iterable[Sequence[str]], count: int) -> str:
    """The whole of the first part, lines ended by a line feed.

    ``facts`` name the message (label and value); ``recipients`` are the paragraphs of each, made by the functions below; ``count`` tells
    how many there are.
    """
    whom = "this recipient" if count == 1 else f"these {count} recipients"
    lines = [f"This is the mail system at {hostname}.", "", *_wrapped(_OPENINGS[kind].format(whom=whom)), ""]
    for label, value in facts:
        lines += _wrapped(value, f"    {label + ':':9} ", " " * 14)
    for paragraphs in recipients:
        lines += ["", *paragraphs]
    lines += ["", *_wrapped("Below is the same for mail programs, and what identifies your message.")]
    return "\n".join(lines) + "\n"


def failed(address: str, status: str, said: str) -> list[str]:
    """The paragraphs of a recipient that was given up."""
    why, remedy = explanation(status)
    return [address, *_indented(why), *_indented(f"What you can do: {remedy}"), *_indented(said)]


def delayed(address: str, said: str, until: str | None) -> list[str]:
    """The paragraphs of a recipient that is still tried; ``until`` is when that ends, if it is known."""
    lines = [address]
    if until is not None:
        lines += _indented(f"It is tried until {until}.")
    return lines + _indented(said)


def delivered(address: str, said: str) -> list[str]:
    """The paragraphs of a recipient whose server took the message and tells what becomes of it, or is the last one."""
    return [address, *_indented("The message was delivered."), *_indented(said)]


def relayed(address: str, said: str) -> list[str]:
    """The paragraphs of a recipient whose next server can't confirm a delivery (RFC 3461 section 5.2.2)."""
    passed = (
        "The message was passed on to a server that can't confirm deliveries, so you will hear of it again only if something goes wrong."
    )
    return [address, *_indented(passed), *_indented(said)]


def _indented(sentence: str) -> list[str]:
    return _wrapped(sentence, "    ", "    ") if sentence else []


def _wrapped(sentence: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        sentence, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]


def visible(text: str, *, ascii_only: bool = False, most: int = MOST_VALUE) -> str:
    """``text`` as one printable line of at most ``most`` octets: what can't be printed is ``\\x{HEX}``, what is cut off is ``...``."""
    if len(text) <= most and text.isascii() and text.isprintable():
        return text
    out: list[str] = []
    room = most
    for character in text[: most + 1]:
        if not _is_plain(character, ascii_only):
            character = f"\\x{{{ord(character):02X}}}"
        out.append(character)
        room -= len(character.encode())
        if room < 0:
            return _cut(out, most)
    return "".join(out)


def _is_plain(character: str, ascii_only: bool) -> bool:
    if character.isascii():
        return character.isprintable()
    return not ascii_only and (character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs")


def _cut(pieces: list[str], most: int) -> str:
    size = sum(len(piece.encode()) for piece in pieces)
    while size > most - 3:
        size -= len(pieces.pop().encode())
    return "".join(pieces) + "..."
