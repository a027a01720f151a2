"""From an envelope and its content to the message that the spool stores: header hygiene, trace, and the facts that events repeat."""

from __future__ import annotations

import time
from collections.abc import Sequence

import orjson
from attrs import Factory, evolve, frozen

from lettermta import event
from lettermta.accounts.model import Care, Project, ReceivedField, Route, RouteKind, with_care
from lettermta.event import Event
from lettermta.header import Field, mailboxes, split_fields
from lettermta.interfaces import IContent
from lettermta.message import Envelope, IdempotencyKey, Message, Options, Recipient, Refused, Reply, domain_of, new_id
from lettermta.submission.control import Control, MetadataBounds, is_control, read_control
from lettermta.submission.hygiene import HeaderRules, missing_fields
from lettermta.submission.trace import received

MAX_RECEIVED = 100
"""More Received fields than this mean a loop (RFC 5321 section 6.3)."""

_TOLD_ELSEWHERE = frozenset(
    {
        "from", "to", "cc", "bcc", "reply-to", "subject", "sender", "date", "message-id", "mime-version", "content-type",
        "content-transfer-encoding", "content-disposition", "content-id", "received", "dkim-signature", "return-path",
    }
)  # fmt: skip
"""Fields that ``headers`` of an event leaves out: those that have a place of their own in events, and those that mail needs to be mail."""


_OWN_LINK = frozenset({"list-unsubscribe", "list-unsubscribe-post"})


@frozen
class Parsed:
    """A message's header fields, read: where it is to go and what is left of them."""

    fields: Sequence[Field]
    kept: Sequence[Field]
    control: Control


def parse(head: bytes, bounds: MetadataBounds) -> Parsed:
    """Read a header block; raises Refused when it breaks a rule."""
    fields = split_fields(head)
    if sum(field.key == "received" for field in fields) > MAX_RECEIVED:
        raise Refused(Reply(554, "5.4.6", f"More than {MAX_RECEIVED} Received fields: the message loops"), "mail loop", "loop")
    control = read_control(fields, bounds)
    kept = [field for field in fields if not is_control(field)]
    return Parsed(fields, kept, control)


@frozen
class Terms:
    """What a message is composed under, made anew for each one."""

    project: Project
    route: Route
    hostname: str
    lifetime: float
    header: HeaderRules
    id: str = Factory(new_id)
    """The message's own."""
    held: str = ""
    """Why a policy holds it, if one does."""
    unsubscribe: bool = False
    """Whether there are links to unsubscribe, for mail that is to have them."""


def compose(
    envelope: Envelope, content: IContent, parsed: Parsed, terms: Terms, idempotency: IdempotencyKey | None
) -> tuple[Message, list[Event]]:
    """The message to store, and its first events."""
    identifier, moment = terms.id, time.time()
    head = _head(envelope, parsed, terms, identifier, moment)
    facts = orjson.dumps(_facts(identifier, parsed))
    context = event.context(terms.project.id, terms.project.slug, terms.route.id, terms.route.slug)
    recipients = _distinct(envelope.recipients)
    held = envelope.hold_until if envelope.hold_until is not None and envelope.hold_until > moment else None
    message = Message(
        id=identifier,
        project_id=terms.project.id,
        project=terms.project.slug,
        route_id=_route_id(terms.route, envelope.options, parsed.fields),
        route=terms.route.slug,
        sender=envelope.sender,
        recipients=recipients,
        tag=parsed.control.tag,
        metadata=parsed.control.metadata,
        head=head,
        content=content,
        size=len(head) + 2 + content.body_size(),
        created=moment,
        expires=_expires(envelope, held or moment, terms.lifetime),
        facts=facts,
        context=context,
        options=_options(envelope, head, recipients, unsubscribe=terms.unsubscribe and _wants_link(parsed, terms.route)),
        hold_until=held,
        held=terms.held,
        idempotency=idempotency,
    )
    addresses = _addresses(parsed.fields, [recipient.address for recipient in recipients])
    events = [event.message_event(event.CREATED, moment, identifier, facts, context, **addresses)]
    if held is not None:
        events.append(event.message_event(event.SCHEDULED, moment, identifier, facts, context, scheduled_at=event.timestamp(held)))
    return message, events


def _head(envelope: Envelope, parsed: Parsed, terms: Terms, identifier: str, moment: float) -> bytes:
    """The header block as it leaves: trace first, what was missing last."""
    kept = parsed.kept
    if terms.route.mint_message_id and not parsed.control.preserve_message_id:
        kept = [field for field in kept if field.key != "message-id"]
    own = terms.route.received
    trace = received(envelope, identifier, terms.hostname, moment, terms.header.received if own is ReceivedField.DEFAULT else own)
    return trace + b"".join([field.raw for field in kept]) + missing_fields(kept, identifier, moment, terms.header)


def _route_id(route: Route, options: Options, fields: Sequence[Field]) -> str:
    """The route's id, marked where the sender asks for more of TLS than usual, or for less: REQUIRETLS makes the field that waives it
    void, as does a second such field (RFC 8689 sections 3 and 4.1). The field itself stays in the message.
    """
    if options.require_tls:
        return with_care(route.id, Care.REQUIRE_TLS)
    waived = [field.unfolded.lower() for field in fields if field.key == "tls-required"] == ["no"]
    return with_care(route.id, Care.TLS_NOT_REQUIRED) if waived else route.id


def _expires(envelope: Envelope, begins: float, lifetime: float) -> float:
    """When to give up: at the end of the lifetime, or at the sender's own deadline where that ends the message (RFC 2852 section 4)."""
    deadline = envelope.options.deliver_by
    expires = begins + lifetime
    return min(expires, deadline.until) if deadline is not None and deadline.bounce else expires


def _wants_link(parsed: Parsed, route: Route) -> bool:
    """Whether it is bulk mail whose sender has left it to us to offer a way out (RFC 8058)."""
    return route.kind is RouteKind.BROADCAST and _OWN_LINK.isdisjoint([field.key for field in parsed.kept])


def _options(envelope: Envelope, head: bytes, recipients: Sequence[Recipient], *, unsubscribe: bool) -> Options:
    """The envelope's options; SMTPUTF8 is kept only where it is needed, so that ASCII mail can go to servers without it (RFC 6531)."""
    options = evolve(envelope.options, unsubscribe=True) if unsubscribe else envelope.options
    if not options.smtputf8:
        return options
    ascii_only = head.isascii() and envelope.sender.isascii() and all(recipient.address.isascii() for recipient in recipients)
    return evolve(options, smtputf8=not ascii_only)


def _distinct(recipients: Sequence[Recipient]) -> tuple[Recipient, ...]:
    """Each mailbox once, as it was first written: domains are compared without case, local parts as they stand (RFC 5321 section 2.4)."""
    first: dict[tuple[str, str], Recipient] = {}
    for recipient in recipients:
        address = recipient.address
        first.setdefault((address.rpartition("@")[0], domain_of(address)), recipient)
    return tuple(first.values())


def _facts(identifier: str, parsed: Parsed) -> dict[str, object]:
    subject = next((field.text for field in parsed.kept if field.key == "subject"), None)
    return {
        "message_id": identifier,
        "subject": subject,
        "metadata": parsed.control.metadata,
        "tag": parsed.control.tag,
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
