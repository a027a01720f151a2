"""Complaints, which providers send when a recipient marks a message as spam: in the form of RFC 5965 (ARF), or as no more than the
message itself, attached to one from a well-known address (Microsoft's JMRP).
"""

from __future__ import annotations

from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.mime import Parsed, read_fields
from lettermta.header import mailboxes

_ATTACHING = frozenset({"staff@hotmail.com"})
"""Who complains by a message with the other one attached (JMRP's "RFC822 attachment")."""
_NO_COMPLAINT = frozenset({"not-spam", "auth-failure"})
"""Types of RFC 6430 and RFC 6591 that say nothing against the message."""


def feedback_finding(parsed: Parsed) -> Finding | None:
    """What a feedback report or a complaint says; None when it is neither."""
    part = parsed.first("message/feedback-report")
    if part is None:
        return _attached(parsed)
    fields = read_fields(part.lines)
    kind = fields.get("feedback-type", "abuse").lower()[:40]
    reporter = fields.get("reporting-mta", "").partition(";")[2].strip() or fields.get("user-agent", "")
    return Finding(Kind.FEEDBACK if kind in _NO_COMPLAINT else Kind.COMPLAINT, "rfc5965", reporter=reporter, detail=kind)


def _attached(parsed: Parsed) -> Finding | None:
    authors = {address.lower() for _, address in mailboxes([parsed.fields.get("from", "")])}
    if not authors & _ATTACHING or parsed.first("message/rfc822") is None:
        return None
    return Finding(Kind.COMPLAINT, "jmrp", reporter=", ".join(authors), detail="abuse")
