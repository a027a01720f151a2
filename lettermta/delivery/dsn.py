"""Delivery status notifications: reports to a sender on what became of a message (RFC 3461, 3464, 6522; in UTF-8 RFC 6533).

Pure functions from data to octets: no I/O, no clock, no dice. Whatever stands in addresses, replies, host names and the original, a
report has exactly three parts and only the fields that are made here: values are cut to a length, and what can't be printed in them is
written as ``\\x{HEX}`` (the notation of RFC 6533 section 3). Lines are at most 998 octets and a report at most 1 MB, whatever
goes in; as a rule it is some 3 KB.

A report goes out with the null sender, to the original's sender with NOTIFY=NEVER and without RET (RFC 3461 section 6.1). It is
8BITMIME when its body is not ASCII, and SMTPUTF8 when its header block is not.
"""

from __future__ import annotations

import enum
import hashlib
import quopri
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from attrs import frozen

from lettermta.delivery import dsn_text
from lettermta.delivery.dsn_text import visible
from lettermta.message import Notify, Options, Reply

MOST_RECIPIENTS = 100
"""Recipients of one report. Each has to have its own fields (RFC 3464 section 2.3), so that more of them take more reports."""
MOST_RETURNED = 65_536
"""Octets of an original that is returned whole; of a larger one only the header block is (RFC 3461 section 6.2 allows it)."""
MOST_HEADER = 32_768
"""Octets of a header block that is returned: fields that would go beyond are left out."""
MOST_LINE = 998
"""Octets of a line without its CRLF (RFC 5322 section 2.1.1)."""

DEFAULT_NOTIFY = frozenset({Notify.FAILURE, Notify.DELAY})
"""What the absence of NOTIFY means here (RFC 3461 section 4.1 leaves the choice whether DELAY belongs to it)."""

_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_MESSAGE_ID = re.compile(rb"^message-id:[ \t\r\n]*(<[!-;=?-~]{1,250}>)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)


class Action(enum.StrEnum):
    """What became of a recipient (RFC 3464 section 2.3.3). ``expanded`` is missing: nothing is expanded here."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"

    @property
    def kind(self) -> Notify:
        """The word of NOTIFY that asks for a report on it."""
        return _KINDS[self]


_KINDS: Mapping[Action, Notify] = {
    Action.FAILED: Notify.FAILURE,
    Action.DELAYED: Notify.DELAY,
    Action.DELIVERED: Notify.SUCCESS,
    Action.RELAYED: Notify.SUCCESS,
}
_CLASSES: Mapping[Action, str] = {Action.FAILED: "5", Action.DELAYED: "4", Action.DELIVERED: "2", Action.RELAYED: "2"}


@frozen
class Original:
    """The message that is reported on, as it was accepted. Times are wall-clock seconds, ``size`` is in octets."""

    id: str
    sender: str
    options: Options
    head: bytes
    """The header block: each line ended by CRLF, without the empty line."""
    body: bytes | None
    """What is behind the empty line, or None where that is not at hand: then it is not returned."""
    size: int
    arrived: float
    subject: str = ""
    """The Subject, decoded; for people only."""


@frozen
class Reported:
    """What became of one recipient. Either the other side's ``reply`` decided, or we did, and say it in ``reason``."""

    address: str
    action: Action
    status: str | None = None
    """The enhanced status code; None or a malformed one: the reply's, or else the plainest of the action's class."""
    notify: frozenset[Notify] | None = None
    orcpt: str | None = None
    reply: Reply | None = None
    remote_mta: str | None = None
    reason: str = ""
    last_attempt: float | None = None
    retry_until: float | None = None


def wanted(kind: Notify, notify: frozenset[Notify] | None) -> bool:
    """Whether NOTIFY asks for a report of that kind: FAILURE, DELAY or SUCCESS (RFC 3461 sections 4.1 and 5.2)."""
    asked = DEFAULT_NOTIFY if notify is None else notify
    return kind in asked and Notify.NEVER not in asked


def groups(original: Original, recipients: Sequence[Reported]) -> Iterator[Sequence[Reported]]:
    """The recipients that are to be told of, parted into what goes into one report each: one kind, at most :data:`MOST_RECIPIENTS`.

    None for a null sender (RFC 3461 section 5.2, RFC 5321 section 6.1; HARD-CASES row 25).
    """
    if not original.sender:
        return
    for kind in (Notify.FAILURE, Notify.DELAY, Notify.SUCCESS):
        told = [recipient for recipient in recipients if recipient.action.kind is kind and wanted(kind, recipient.notify)]
        for start in range(0, len(told), MOST_RECIPIENTS):
            yield told[start : start + MOST_RECIPIENTS]


def report(original: Original, recipients: Sequence[Reported], hostname: str, message_id: str, now: float) -> tuple[bytes, bytes]:
    """Header block (each line ended by CRLF, no empty line) and body of one report on a group of :func:`groups`.

    ``message_id`` is that of the report, without angle brackets, and ``now`` its Date. Raises ValueError for what must not be reported:
    to a null sender, to one who does not want it, on no recipients or too many, on several kinds at once.
    """
    kind = _checked(original, recipients)
    hostname = visible(hostname, ascii_only=True)
    utf8 = _needs_utf8(original, recipients)
    parts = (
        _people_part(kind, original, recipients, hostname),
        _program_part(original, recipients, hostname, utf8),
        _returned_part(original, kind is Notify.FAILURE, utf8),
    )
    boundary = _boundary(message_id, parts)
    body = b"".join([b"--%b\r\n%b\r\n" % (boundary, part) for part in parts]) + b"--%b--\r\n" % boundary
    fields = [
        ("Date", _date(now)),
        ("From", f"Mail Delivery System <MAILER-DAEMON@{hostname}>"),
        ("To", visible(original.sender)),
        ("Subject", dsn_text.SUBJECTS[kind]),
        ("Message-ID", f"<{visible(message_id, ascii_only=True)}>"),
        *_thread(original.head),
        ("Auto-Submitted", "auto-replied"),  # RFC 3834 section 5
        ("MIME-Version", "1.0"),
    ]
    head = b"".join([_field(name, value) for name, value in fields])
    typed = b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%b"\r\n' % boundary
    return head + typed + _encoding(body), body


def _checked(original: Original, recipients: Sequence[Reported]) -> Notify:
    if not original.sender:
        raise ValueError("a null sender gets no report (RFC 3461 section 5.2)")
    if not 0 < len(recipients) <= MOST_RECIPIENTS:
        raise ValueError(f"1 to {MOST_RECIPIENTS} recipients are expected, not {len(recipients)}")
    kind = recipients[0].action.kind
    if any(recipient.action.kind is not kind for recipient in recipients):
        raise ValueError("recipients of one kind are expected")
    if not all(wanted(kind, recipient.notify) for recipient in recipients):
        raise ValueError(f"no report of {kind.value} is wanted for one of the recipients")
    return kind


def _needs_utf8(original: Original, recipients: Sequence[Reported]) -> bool:
    """Whether the types of RFC 6533 have to be used: for mail that came by SMTPUTF8, and for addresses that are not ASCII."""
    if original.options.smtputf8 or not original.sender.isascii():
        return True
    return not all(recipient.address.isascii() and (recipient.orcpt or "").isascii() for recipient in recipients)


def _boundary(message_id: str, parts: Sequence[bytes]) -> bytes:
    """A boundary that is in none of the parts (RFC 2046 section 5.1.1).

    It is a digest of all that is reported: nobody can write it into what it is a digest of, and the same report is made twice alike.
    """
    digest = hashlib.blake2b(message_id.encode("utf-8", "replace"), digest_size=18)
    for part in parts:
        digest.update(part)
    while True:
        boundary = digest.hexdigest().encode() + b"_report"
        if not any(boundary in part for part in parts):
            return boundary
        digest.update(b"again")


# -- the first part


def _people_part(kind: Notify, original: Original, recipients: Sequence[Reported], hostname: str) -> bytes:
    facts = [("Subject", visible(original.subject, most=300))] if original.subject else []
    facts += [("Received", _date(original.arrived)), ("Id", visible(original.id))]
    paragraphs = [_paragraphs(recipient) for recipient in recipients]
    text = dsn_text.text(kind, hostname, facts, paragraphs, len(recipients))
    if text.isascii():
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text.replace("\n", "\r\n").encode()
    # Quoted-printable, so that a name in some other script does not make the whole report one that needs 8BITMIME.
    encoded = quopri.encodestring(text.encode()).replace(b"\n", b"\r\n")
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + encoded


def _paragraphs(recipient: Reported) -> list[str]:
    address = _named(recipient)
    said = _said(recipient)
    match recipient.action:
        case Action.FAILED:
            return dsn_text.failed(address, _status(recipient), said)
        case Action.DELAYED:
            until = None if recipient.retry_until is None else _date(recipient.retry_until)
            return dsn_text.delayed(address, said, until)
        case Action.DELIVERED:
            return dsn_text.delivered(address, said)
        case Action.RELAYED:
            return dsn_text.relayed(address, said)


def _named(recipient: Reported) -> str:
    """The recipient's address, with the one that the sender wrote where that is another."""
    address = visible(recipient.address, most=450)
    original = (recipient.orcpt or "").partition(";")[2]
    if not original or original.lower() == recipient.address.lower():
        return address
    return f"{address} (you wrote to {visible(_decoded(original), most=450)})"


def _said(recipient: Reported) -> str:
    if recipient.reply is not None:
        server = visible(recipient.remote_mta, most=255) if recipient.remote_mta else "the other side"
        return f"What {server} said: {visible(_one_line(recipient.reply))}"
    return f"What happened: {visible(recipient.reason)}" if recipient.reason else ""


# -- the second part


def _program_part(original: Original, recipients: Sequence[Reported], hostname: str, utf8: bool) -> bytes:
    """The machine-readable part (RFC 3464 section 2, RFC 3461 section 6.3)."""

    def clean(value: str) -> str:
        return visible(value, ascii_only=not utf8)

    lines = [_field("Reporting-MTA", f"dns; {hostname}")]
    if original.options.envid:
        # The edge has undone the xtext (RFC 3461 section 6.3).
        lines.append(_field("Original-Envelope-Id", clean(original.options.envid)))
    lines.append(_field("Arrival-Date", _date(original.arrived)))
    lines.append(_field("X-Lettermta-Message-ID", clean(original.id)))
    for recipient in recipients:
        lines.append(b"\r\n")
        lines += [_field(name, value) for name, value in _recipient_fields(recipient, clean, utf8)]
    content = b"".join(lines)
    media = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
    return b"Content-Type: %b\r\n%b\r\n%b" % (media, _encoding(content), content)


def _recipient_fields(recipient: Reported, clean: Callable[[str], str], utf8: bool) -> Iterator[tuple[str, str]]:
    if recipient.orcpt:
        yield "Original-Recipient", clean(_orcpt(recipient.orcpt, utf8))
    yield "Final-Recipient", f"{'rfc822' if recipient.address.isascii() else 'utf-8'};{clean(recipient.address)}"
    yield "Action", recipient.action.value
    yield "Status", _status(recipient)
    if recipient.remote_mta:
        yield "Remote-MTA", f"dns; {clean(recipient.remote_mta)}"
    if recipient.reply is not None:
        yield "Diagnostic-Code", f"smtp; {clean(_one_line(recipient.reply))}"
    elif recipient.reason:
        # What never was a reply of SMTP is not called one (RFC 3464 section 2.3.6).
        yield "Diagnostic-Code", f"X-Lettermta; {clean(recipient.reason)}"
    if recipient.last_attempt is not None:
        yield "Last-Attempt-Date", _date(recipient.last_attempt)
    if recipient.retry_until is not None and recipient.action is Action.DELAYED:
        yield "Will-Retry-Until", _date(recipient.retry_until)  # in no other report (RFC 3464 section 2.3.9)


def _status(recipient: Reported) -> str:
    """The enhanced status code (RFC 3464 section 2.3.4), which is required."""
    for status in (recipient.status, recipient.reply and recipient.reply.enhanced):
        if status and status.isascii() and _STATUS.fullmatch(status):
            return status
    return f"{_CLASSES[recipient.action]}.0.0"


def _orcpt(orcpt: str, utf8: bool) -> str:
    """ORCPT as the field has it: an address of type utf-8 in its plain form where that can stand (RFC 6533 section 3)."""
    kind, separator, address = orcpt.partition(";")
    return f"{kind}{separator}{_decoded(address)}" if utf8 and kind.lower() == "utf-8" else orcpt


def _decoded(address: str) -> str:
    """An address without the ``\\x{HEX}`` of RFC 6533 section 3; controls that come out of it are made visible again later."""

    def character(match: re.Match[str]) -> str:
        point = int(match[1], 16)
        return match[0] if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF else chr(point)

    return _EMBEDDED.sub(character, address)


# -- the third part


def _returned_part(original: Original, failed: bool, utf8: bool) -> bytes:
    """The original whole, or its header block (RFC 3461 section 6.2, RFC 6522 section 3, RFC 6533 section 4)."""
    head = _clean_head(original.head)
    utf8 = utf8 and _is_utf8(head)
    if failed and original.body is not None and _may_be_whole(original, head):
        media, content = (b"message/global" if utf8 else b"message/rfc822"), b"%b\r\n%b" % (head, original.body)
    else:
        media, content = (b"message/global-headers" if utf8 else b"text/rfc822-headers"), head
    return b"Content-Type: %b\r\n%b\r\n%b" % (media, _encoding(content), content)


def _may_be_whole(original: Original, head: bytes) -> bool:
    options, body = original.options, original.body
    if options.ret != "FULL" or body is None or original.size > MOST_RETURNED or len(head) + len(body) > MOST_RETURNED:
        return False
    # RFC 8689 section 5: what was to travel encrypted only does not come back by a way that is not.
    return not options.require_tls and head == original.head and _has_plain_lines(body)


def _has_plain_lines(body: bytes) -> bool:
    """Whether a body can stand in a part that is not binary (RFC 2045 section 2.8)."""
    if b"\0" in body:
        return False
    lines = body.split(b"\r\n")
    return all(len(line) <= MOST_LINE and b"\r" not in line and b"\n" not in line for line in lines)


def _clean_head(head: bytes) -> bytes:
    """A header block of whole fields in at most :data:`MOST_HEADER` octets, without empty lines, NUL, bare CR or LF; long lines are cut."""
    fields: list[bytes] = []
    for line in head.split(b"\r\n"):
        line = line.replace(b"\0", b"?").replace(b"\r", b"?").replace(b"\n", b"?")[:MOST_LINE]
        if not line.strip(b" \t"):
            continue
        if line[0] in b" \t" and fields:
            fields[-1] += line + b"\r\n"
        else:
            fields.append(line + b"\r\n")
    room = MOST_HEADER
    kept = []
    for field in fields:
        if len(field) <= room:
            room -= len(field)
            kept.append(field)
    return b"".join(kept)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _thread(head: bytes) -> list[tuple[str, str]]:
    """The fields that let a mail program show the report beside the original (RFC 3834 section 3.1.5)."""
    match = _MESSAGE_ID.search(head[:MOST_HEADER])
    if match is None:
        return []
    identifier = match[1].decode("ascii")
    return [("In-Reply-To", identifier), ("References", identifier)]


# -- values and lines


def _one_line(reply: Reply) -> str:
    """A reply as the field Diagnostic-Code has it (RFC 3461 section 9.2)."""
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    return f"{reply.code} {enhanced}{' '.join(reply.text.split())}"


def _field(name: str, value: str) -> bytes:
    """A field, folded in front of single blanks where it gets longer than 78 octets; unfolded, the value is what it was."""
    words = f"{name}: {value}".split(" ")
    lines = [f"{words[0]} {words[1]}"]
    for word in words[2:]:
        # A line is never begun with a blank word: it would be an empty line to some readers, and end the header block.
        if word and len(lines[-1].encode()) + 1 + len(word.encode()) > 78 and not lines[-1].endswith(" "):
            lines.append(" " + word)
        else:
            lines[-1] += " " + word
    return "\r\n".join(lines).encode() + b"\r\n"


def _encoding(content: bytes) -> bytes:
    return b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"


def _date(moment: float) -> str:
    """A date-time of RFC 5322 section 3.3, in UTC with a numeric zone, as RFC 3464 section 2.2.5 wants it."""
    return format_datetime(datetime.fromtimestamp(int(moment), UTC))
