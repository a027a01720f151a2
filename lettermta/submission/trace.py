"""The Received field that submission adds (RFC 5321 section 4.4; the keywords behind ``with`` by RFC 3848 and RFC 6531 section 4.3)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from lettermta.accounts.model import ReceivedField
from lettermta.message import Envelope, Peer


def received(envelope: Envelope, identifier: str, hostname: str, moment: float, form: ReceivedField) -> bytes:
    """The field, folded and ended by CRLF; empty where none is wanted."""
    if form is ReceivedField.NONE:
        return b""
    peer = envelope.peer
    address = f"IPv6:{peer.address}" if ":" in peer.address else peer.address
    client = f"from {peer.helo} ([{address}])\r\n\t" if form is ReceivedField.FULL else ""
    tls = f" ({peer.tls})" if peer.tls else ""
    with_ = _with(peer, envelope.options.smtputf8)
    return f"Received: {client}by {hostname} with {with_}{tls}\r\n\tid {identifier}; {date(int(moment))}\r\n".encode()


def _with(peer: Peer, utf8: bool) -> str:
    if not peer.esmtp:
        return "SMTP"  # there are no keywords for TLS or a login behind HELO
    security = ("S" if peer.tls else "") + ("A" if peer.login else "")
    return ("UTF8SMTP" if utf8 else "ESMTP") + security


@lru_cache(maxsize=16)
def date(second: int) -> str:
    """A date-time of RFC 5322 section 3.3, in UTC."""
    return format_datetime(datetime.fromtimestamp(second, UTC))
