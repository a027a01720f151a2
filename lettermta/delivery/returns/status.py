"""Delivery status notifications: what the reports of other servers say of a recipient (RFC 3464; in UTF-8 RFC 6533)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.mime import Parsed, Part, read_fields
from lettermta.delivery.returns.reason import reply_in
from lettermta.message import Reply

TYPES = ("message/delivery-status", "message/global-delivery-status")

_MOST_BLOCKS = 200
_STATUS = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_KINDS = {
    "failed": Kind.FAILED,
    "delayed": Kind.DELAYED,
    "delivered": Kind.ARRIVED,
    "relayed": Kind.ARRIVED,
    "expanded": Kind.ARRIVED,
}
_WORST = (Kind.FAILED, Kind.DELAYED, Kind.ARRIVED)

Block = Mapping[str, str]


def status_finding(parsed: Parsed, recipient: str | None) -> Finding | None:
    """What a report says of ``recipient``; None when it is no report of that form.

    One on others alone is on those that ``recipient`` stands for: as long as one of them has the mail, or may get it, it hasn't failed.
    """
    part = parsed.first(*TYPES)
    if part is None:
        return None
    message, recipients = _blocks(part)
    told = [(kind, block) for block in recipients if (kind := _kind(block)) is not None]
    if not told:
        return None
    ours = [each for each in told if _is(each[1], recipient)]
    kind, block = min(ours, key=_badness) if ours else max(told, key=_badness)
    reporter = _value(message.get("reporting-mta", ""))
    if kind is Kind.ARRIVED:
        return Finding(kind, "rfc3464", reporter=reporter)
    return Finding(kind, "rfc3464", _reply(block, parsed, kind), reporter)


def _badness(told: tuple[Kind, Block]) -> int:
    return _WORST.index(told[0])


def _blocks(part: Part) -> tuple[Block, Sequence[Block]]:
    """The fields of the message, and those of each recipient. Some servers leave out the empty line between them, or have several."""
    blocks = [read_fields(block) for block in part.lines.split(b"\r\n\r\n")[:_MOST_BLOCKS]]
    recipients = [block for block in blocks if "final-recipient" in block or "original-recipient" in block or "action" in block]
    return _merged(blocks), recipients


def _merged(blocks: Iterable[Block]) -> Block:
    merged: dict[str, str] = {}
    for block in blocks:
        for name, value in block.items():
            merged.setdefault(name, value)
    return merged


def _kind(block: Block) -> Kind | None:
    action = block.get("action", "").partition(" ")[0].partition("(")[0].strip().lower()
    if action in _KINDS:
        return _KINDS[action]
    match = _STATUS.search(block.get("status", ""))
    return None if match is None else {"2": Kind.ARRIVED, "4": Kind.DELAYED, "5": Kind.FAILED}[match[1]]


def _is(block: Block, recipient: str | None) -> bool:
    addresses = [_value(block.get(name, "")).strip("<>").lower() for name in ("final-recipient", "original-recipient")]
    return recipient is not None and recipient.lower() in addresses


def _reply(block: Block, parsed: Parsed, kind: Kind) -> Reply:
    match = _STATUS.search(block.get("status", ""))
    status = match[0] if match is not None else None
    diagnostic = _value(block.get("diagnostic-code", ""))
    return reply_in(diagnostic or parsed.reading, status, permanent=kind is Kind.FAILED)


def _value(field: str) -> str:
    """A value without its type (RFC 3464 section 2.1.2), and with what RFC 6533 section 3 writes as hexadecimal numbers."""
    kind, semicolon, value = field.partition(";")
    text = value.strip() if semicolon and " " not in kind.strip() else field.strip()
    return _ESCAPED.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if 0xA0 <= number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else match[0]
