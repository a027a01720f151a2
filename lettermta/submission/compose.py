"""From an envelope and its content to the message that the spool stores: header hygiene, trace, and the facts that events repeat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

import orjson
from attrs import frozen

from lettermta import event
from lettermta.accounts.model import Project, Route
from lettermta.event import Event
from lettermta.interfaces import IContent
from lettermta.message import Envelope, Message, Refused, Reply, domain_of, new_id
from lettermta.submission.control import MetadataBounds, is_control, read_control
from lettermta.submission.header import Field, mailboxes, split_fields

MAX_RECEIVED = 100
"""More Received fields than this mean a loop (RFC 5321 section 6.3)."""

_TOLD_ELSEWHERE = frozenset(
    {
        "from", "to", "cc", "bcc", "reply-to", "subject", "sender", "date", "message-id", "mime-version", "content-type",
        "content-transfer-encoding", "content-disposition", "content-id", "received", "dkim-signature", "return-path",
    }
)  # fmt: skip
"""Fields that ``headers`` of an event leaves out: those that have a place of their own in events, and those that mail needs to be mail."""


@frozen
class Parsed:
    """A message's header fields, read: where it is to go and what is left of them."""

    fields: Sequence[Field]
    kept: Sequence[Field]
    route: str | None
    tag: str | None
    metadata: dict[str, str]


def parse(head: bytes, bounds: MetadataBounds) -> Parsed:
    """Read a header block; raises Refused when it breaks a rule."""
    fields = split_fields(head)
    if sum(field.key == "received" for field in fields) > MAX_RECEIVED:
        raise Refused(Reply(554, "5.4.6", f"More than {MAX_RECEIVED} Received fields: the message loops"), "mail loop")
    control = read_control(fields, bounds)
    kept = [field for field in fields if not is_control(field)]
    return Parsed(fields, kept, control.route, control.tag, dict(control.metadata))


def compose(
    envelope: Envelope, content: IContent, parsed: Parsed, project: Project, route: Route, *, hostname: str, lifetime: float
) -> tuple[Message, Event]:
    """The message to store, and its ``message.created``."""
    identifier = new_id()
    moment = time.time()
    head = received(envelope, identifier, hostname, moment) + b"".join([field.raw for field in parsed.kept])
    facts = orjson.dumps(_facts(identifier, parsed))
    context = orjson.dumps(
        {
            "scope": "project",
            "team_id": None,
            "project_id": project.id,
            "route_id": route.id,
            "project": project.slug,
            "route": route.slug,
        }
    )
    recipients = _distinct(envelope.recipients)
    message = Message(
        id=identifier,
        project_id=project.id,
        project=project.slug,
        route_id=route.id,
        route=route.slug,
        sender=envelope.sender,
        recipients=recipients,
        tag=parsed.tag,
        metadata=parsed.metadata,
        head=head,
        content=content,
        size=len(head) + 2 + content.body_size(),
        eight_bit=envelope.eight_bit,
        created=moment,
        expires=moment + lifetime,
        facts=facts,
        context=context,
    )
    created = event.message_event(event.CREATED, moment, identifier, facts, context, **_addresses(parsed.fields, recipients))
    return message, created


def _distinct(addresses: Sequence[str]) -> tuple[str, ...]:
    """Each mailbox once, as it was first written: domains are compared without case, local parts as they stand (RFC 5321 section 2.4)."""
    first: dict[tuple[str, str], str] = {}
    for address in addresses:
        first.setdefault((address.rpartition("@")[0], domain_of(address)), address)
    return tuple(first.values())


def received(envelope: Envelope, identifier: str, hostname: str, moment: float) -> bytes:
    """The Received field (RFC 5321 section 4.4; the keyword behind ``with`` by RFC 3848)."""
    peer = envelope.peer
    address = f"IPv6:{peer.address}" if ":" in peer.address else peer.address
    # There are no keywords for TLS or a login behind HELO.
    protocol = "ESMTP" + ("S" if peer.tls else "") + ("A" if peer.login else "") if peer.esmtp else "SMTP"
    tls = f" ({peer.tls})" if peer.tls else ""
    return (
        f"Received: from {peer.helo} ([{address}])\r\n\tby {hostname} with {protocol}{tls}\r\n\tid {identifier}; {_date(int(moment))}\r\n"
    ).encode()


@lru_cache(maxsize=16)
def _date(second: int) -> str:
    """RFC 5322 section 3.3."""
    return format_datetime(datetime.fromtimestamp(second, UTC))


def _facts(identifier: str, parsed: Parsed) -> dict[str, object]:
    subject = next((field.text for field in parsed.kept if field.key == "subject"), None)
    return {
        "message_id": identifier,
        "subject": subject,
        "metadata": parsed.metadata,
        "tag": parsed.tag,
        "tags": [],
        "headers": [{"name": field.name, "value": field.text} for field in parsed.kept if field.key not in _TOLD_ELSEWHERE],
    }


def _addresses(fields: Sequence[Field], recipients: Sequence[str]) -> dict[str, object]:
    """Who a message is from and to, for ``message.created``; recipients that no field names are ``bcc``."""
    texts: dict[str, list[str]] = {"from": [], "to": [], "cc": [], "reply-to": []}
    for field in fields:
        if field.key in texts:
            texts[field.key].append(field.unfolded)
    sender = next(iter(mailboxes(texts["from"])), ("", ""))
    to = [address for _, address in mailboxes(texts["to"])]
    cc = [address for _, address in mailboxes(texts["cc"])]
    named = {address.lower() for address in to + cc}
    return {
        "from": {"email": sender[1], "name": sender[0]},
        "to": to,
        "cc": cc,
        "bcc": [address for address in recipients if address.lower() not in named],
        "reply_to": [address for _, address in mailboxes(texts["reply-to"])],
    }
