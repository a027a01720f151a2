"""Complaints: abuse reports in the form of RFC 5965 (ARF), which providers send when a recipient marks a message as spam."""

from __future__ import annotations

from lettermta.delivery.returns.finding import Finding, Kind
from lettermta.delivery.returns.mime import Parsed, read_fields

_NO_COMPLAINT = frozenset({"not-spam", "auth-failure"})
"""Types of RFC 6430 and RFC 6591 that say nothing against the message."""


def feedback_finding(parsed: Parsed) -> Finding | None:
    """What a feedback report says; None when it is no such report."""
    part = parsed.first("message/feedback-report")
    if part is None:
        return None
    fields = read_fields(part.body)
    kind = fields.get("feedback-type", "abuse").lower()[:40]
    reporter = fields.get("reporting-mta", "").partition(";")[2].strip() or fields.get("user-agent", "")
    return Finding(Kind.FEEDBACK if kind in _NO_COMPLAINT else Kind.COMPLAINT, "rfc5965", reporter=reporter, detail=kind)
