"""What EHLO announces (RFC 5321 section 2.2.1): each extension only where it works."""

from __future__ import annotations

import datetime

from lettermta.smtp.parameters import MAX_HOLD


def announced(max_size: int, max_recipients: int, max_messages: int, now: float, *, secure: bool, starttls: bool) -> list[str]:
    """The keywords with their parameters, all but AUTH. ``secure``: the channel is encrypted; ``starttls``: it can be."""
    furthest = datetime.datetime.fromtimestamp(now + MAX_HOLD, datetime.UTC)
    keywords = [
        "PIPELINING",  # RFC 2920
        f"SIZE {max_size}",  # RFC 1870
        "8BITMIME",  # RFC 6152
        "SMTPUTF8",  # RFC 6531
        "CHUNKING",  # RFC 3030
        "BINARYMIME",  # RFC 3030
        "DSN",  # RFC 3461
        "ENHANCEDSTATUSCODES",  # RFC 2034
        f"LIMITS MAILMAX={max_messages} RCPTMAX={max_recipients}",  # RFC 9422
        f"FUTURERELEASE {MAX_HOLD} {furthest:%Y-%m-%dT%H:%M:%SZ}",  # RFC 4865
        "DELIVERBY",  # RFC 2852
        "MT-PRIORITY",  # RFC 6710
    ]
    if secure:
        keywords.append("REQUIRETLS")  # RFC 8689 section 2: never on a channel in clear
    if starttls:
        keywords.append("STARTTLS")  # RFC 3207
    return keywords
