"""The words of the mission as data: replies, envelopes, messages, queue entries and outcomes.

Nothing here does any I/O. Times are wall-clock seconds since the epoch, sizes are octets, addresses are ``local@domain`` without
angle brackets (the null sender is the empty string).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache

import idna
from attrs import Factory, define, frozen
from uuid_utils import uuid7

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?: |$)")


def new_id() -> str:
    """A new UUIDv7 in text form (RFC 9562 section 5.7): message ids, event ids and account ids are made here and nowhere else."""
    return str(uuid7())


class State(enum.StrEnum):
    """The state of one recipient."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    HELD = "held"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    CANCELED = "canceled"
    QUARANTINED = "quarantined"


WAITING = frozenset({State.QUEUED, State.SCHEDULED, State.DEFERRED})
"""States in which the scheduler will try the recipient by itself when its time has come."""

FINAL = frozenset({State.DELIVERED, State.BOUNCED, State.EXPIRED, State.SUPPRESSED, State.CANCELED})
"""States that a recipient never leaves: a message all of whose recipients are in one of them leaves the spool."""

OPEN = frozenset(State) - FINAL
"""States of what is in the queue."""

LOWEST, HIGHEST = -9, 9
"""Priorities (RFC 6710 section 4)."""


class ReplyClass(enum.StrEnum):
    """What a reply or a report that refuses a recipient is about, whatever its code: told in events, counted, and asked by shaping."""

    INVALID_RECIPIENT = "invalid_recipient"
    """There is no such mailbox."""
    INVALID_DOMAIN = "invalid_domain"
    """The domain does not exist, or takes no mail (RFC 7505)."""
    INACTIVE_RECIPIENT = "inactive_recipient"
    """The mailbox is disabled or given up."""
    MAILBOX_FULL = "mailbox_full"
    MESSAGE_TOO_LARGE = "message_too_large"
    CONTENT = "content"
    """Something in the message itself: form, attachment, virus."""
    SPAM_BLOCK = "spam_block"
    """This message was taken for spam."""
    REPUTATION = "reputation"
    """Our address or domain is on a list, or in bad standing."""
    AUTHENTICATION = "authentication"
    """SPF, DKIM or DMARC."""
    POLICY = "policy"
    RATE = "rate"
    """Too many messages or connections for now; greylisting."""
    RELAY_DENIED = "relay_denied"
    DNS = "dns"
    NETWORK = "network"
    TLS = "tls"
    PROTOCOL = "protocol"
    SYSTEM = "system"
    """Trouble of the other side's own."""
    EXPIRED = "expired"
    """Somebody gave up trying."""
    UNDETERMINED = "undetermined"

    @property
    def dead_address(self) -> bool:
        """Whether a permanent refusal of this class means that nothing sent there will ever arrive."""
        return self in (ReplyClass.INVALID_RECIPIENT, ReplyClass.INVALID_DOMAIN, ReplyClass.INACTIVE_RECIPIENT)


@frozen
class Reply:
    """An SMTP reply, ours or a peer's (RFC 5321 section 4.2, RFC 2034).

    ``text`` holds the lines without code and enhanced code, joined by a line feed.
    """

    code: int
    enhanced: str | None
    text: str

    @classmethod
    def parse(cls, code: int, lines: Sequence[str]) -> Reply:
        """Build a peer's reply from its code and its lines' texts; an enhanced code that leads each line is taken off."""
        match = _ENHANCED.match(lines[0]) if lines else None
        if match is None:
            return cls(code, None, "\n".join(lines))
        enhanced = match[1]
        return cls(code, enhanced, "\n".join(line.removeprefix(enhanced).removeprefix(" ") for line in lines))

    @property
    def positive(self) -> bool:
        """Whether the command succeeded (2yz)."""
        return 200 <= self.code < 300

    @property
    def permanent(self) -> bool:
        """Whether trying again is useless (5yz); every other failure is temporary, unknown codes too (HARD-CASES row 22)."""
        return 500 <= self.code < 600

    def encode(self) -> bytes:
        """The reply as octets for the wire, each line ended by CRLF."""
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines = self.text.split("\n")
        out = [f"{self.code}-{prefix}{line}\r\n" for line in lines[:-1]]
        out.append(f"{self.code} {prefix}{lines[-1]}\r\n")
        return "".join(out).encode("utf-8", "replace")

    def __str__(self) -> str:
        enhanced = f" {self.enhanced}" if self.enhanced else ""
        return f"{self.code}{enhanced} {self.text}".replace("\n", " / ")


class Refused(Exception):
    """Raised (or failed with) to answer a command by ``reply``.

    Neither of these reaches the client: ``cause`` is for the log alone, ``word`` is the cause of a refused message as the counters call it.
    """

    def __init__(self, reply: Reply, cause: str = "", word: str = "") -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.cause = cause
        self.word = word


@define
class Peer:
    """What is known of the client at the other end of an incoming session."""

    address: str
    port: int
    listener: str
    helo: str = ""
    esmtp: bool = False
    tls: str | None = None
    """Protocol version and cipher, like ``TLSv1.3 TLS_AES_256_GCM_SHA384``; None while the channel is in clear."""
    login: str | None = None
    """The mechanism that logged the session in, or None."""


class BodyType(enum.StrEnum):
    """What the content's octets may be (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"
    BINARY = "BINARYMIME"


class Notify(enum.StrEnum):
    """When the sender wants to hear of a recipient (RFC 3461 section 4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@frozen
class DeliverBy:
    """Until when a message is of use (RFC 2852): ``until`` in wall-clock seconds; ``bounce``: end it then, else only tell the sender."""

    until: float
    bounce: bool
    trace: bool = False


@frozen
class Options:
    """What MAIL's parameters ask for, kept with the message to its end."""

    body: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False
    """The header or the addresses are in UTF-8 (RFC 6531)."""
    ret: str | None = None
    """FULL or HDRS: what of the message a report returns (RFC 3461 section 4.3)."""
    envid: str | None = None
    """The sender's name for the envelope, xtext decoded (RFC 3461 section 4.4)."""
    require_tls: bool = False
    """Never without verified TLS (RFC 8689)."""
    deliver_by: DeliverBy | None = None
    priority: int = 0
    """-9 to 9, higher is sooner (RFC 6710)."""
    report: bool = False
    """A report of ours on other mail: no events tell of it, and what becomes of it is reported to nobody."""
    unsubscribe: bool = False
    """Each recipient is to get a link to unsubscribe (RFC 8058)."""


@frozen
class Recipient:
    """An address with what RCPT's parameters ask for (RFC 3461 sections 4.1 and 4.2)."""

    address: str
    notify: frozenset[Notify] | None = None
    """None: as the server sees fit, which is FAILURE and DELAY."""
    orcpt: str | None = None
    """The original recipient as ``type;address``, xtext decoded."""


@define
class Envelope:
    """One transaction as the client declared it: filled by MAIL and RCPT, read by submission (RFC 5321 section 2.3.1)."""

    peer: Peer
    sender: str
    size: int | None = None
    """SIZE= of MAIL (RFC 1870), or None."""
    recipients: list[Recipient] = Factory(list)
    options: Options = Options()
    hold_until: float | None = None
    """When the message is to be sent at the earliest, in wall-clock seconds (RFC 4865), or None."""


@frozen
class IdempotencyKey:
    """What marks a submission as one that may come again (COMPATIBILITY.md section 1): the same key with the same digest is the same."""

    key: str
    digest: bytes
    expires: float


@frozen
class Message:
    """A message that submission has accepted and the spool is to store, with everything later steps need of it."""

    id: str
    project_id: str
    project: str
    route_id: str
    route: str
    sender: str
    recipients: tuple[Recipient, ...]
    tag: str | None
    metadata: Mapping[str, str]
    head: bytes
    """The header block as it leaves: each line ended by CRLF, without the empty line that ends the block."""
    content: object
    """The :class:`~lettermta.interfaces.IContent` whose body this is."""
    size: int
    created: float
    expires: float
    facts: bytes
    """JSON object, shared by all events of the message: message_id, subject, metadata, tag, tags, headers."""
    context: bytes
    """JSON object: the ``context`` of all events of the message."""
    options: Options = Options()
    hold_until: float | None = None
    """When it is to be sent at the earliest; None: now."""
    held: str = ""
    """Why it is to be held from the start, until somebody releases it; empty: it is not."""
    idempotency: IdempotencyKey | None = None
    suppressed: Mapping[str, str] = Factory(dict)
    """The addresses among the recipients that nothing is sent to, and the reason of each."""


@frozen
class Lane:
    """What the scheduler serves in turn: one domain's mail of one route."""

    route_id: str
    domain: str


def mark_of(route_id: str) -> str:
    """The mark behind a route's id that tells mail with a way of its own (:class:`~lettermta.accounts.model.Care`); mostly there is none.

    An id ends with a letter or a digit, a mark is neither. Mail that gets another route keeps its mark.
    """
    last = route_id[-1:]
    return "" if last.isalnum() else last


@define
class QueuedRecipient:
    """One recipient that waits for an attempt. ``number`` is its key in the spool."""

    number: int
    address: str
    attempts: int = 0
    handed_over: bool = False
    """An earlier attempt handed the content over, so ``message.sent`` has been told."""
    notify: frozenset[Notify] | None = None
    orcpt: str | None = None
    first_deferred: float = 0.0
    """When it was put off for the first time, or 0."""
    warned: bool = False
    """The sender has been told of the delay, or it was time to."""


@define
class QueueEntry:
    """One message with those of its recipients that share a lane and are due: the unit of an attempt."""

    number: int
    id: str
    lane: Lane
    project: str
    route: str
    sender: str
    size: int
    created: float
    expires: float
    facts: bytes
    context: bytes
    recipients: list[QueuedRecipient]
    options: Options = Options()
    due: float = 0.0
    """When it is due, where that is still to come; else 0."""
    since: float = 0.0
    """When the first of its recipients became due, or will: what is by age goes by this."""
    began: float | None = None
    """When its attempt began, by the monotonic clock; None before that."""
    return_path: str | None = None
    """What MAIL says in the sender's place, so that what comes back comes to us; then there is one recipient."""


@frozen
class Verdict:
    """What one attempt came to for one recipient, as the channel saw it.

    ``reply`` decides: 2yz delivered, 5yz permanent, anything else temporary. ``remote`` tells if the other side said it, or if
    we put our own reply in its place (connection lost, no such host). ``handed_over``: the whole content was sent before the reply.
    ``general``: it was said to others too (to our greeting, to MAIL, to the content for several recipients), and tells nothing of this one.
    """

    recipient: QueuedRecipient
    reply: Reply
    remote: bool = True
    handed_over: bool = False
    general: bool = False


class Unreachable(Exception):
    """No channel could be opened; ``reply`` decides what becomes of its mail, ``remote`` as in :class:`Verdict`.

    ``host`` is the name of the host that was tried last, where there was one, and ``said`` is what it said, where that is another reply.
    """

    def __init__(self, reply: Reply, *, remote: bool = False, host: str | None = None, said: Reply | None = None) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.remote = remote
        self.host = host
        self.said = said
        self.details: Mapping[str, object] = {}
        """Where it was tried and what was said, for the attempt's trace (see IChannel)."""
        self.before: tuple[Unreachable, ...] = ()
        """What failed before it in the same opening, at other addresses."""

    def behind(self, earlier: Unreachable | None) -> None:
        """``earlier`` failed before it in the same opening."""
        if earlier is not None and earlier is not self:
            self.before = (*earlier.before, earlier, *self.before)

    @property
    def trace(self) -> Mapping[str, object]:
        """The details, with those of what failed before it."""
        return {**self.details, "before": trace_of(self.before)} if self.before else self.details


def trace_of(failures: Sequence[Unreachable]) -> list[Mapping[str, object]]:
    """The details and the reply of each."""
    return [{**one.details, "reply": str(one.said or one.reply)} for one in failures]


@frozen
class Outcome:
    """What an attempt came to for one recipient, once the schedule has been asked."""

    recipient: QueuedRecipient
    state: State
    reply: str
    """The deciding reply, or our own words for it, as the queue tools show it."""
    due: float = 0.0
    """When to try again; only for states in :data:`WAITING`."""
    handed_over: bool = False
    first_deferred: float = 0.0
    """See :class:`QueuedRecipient`, as are these from now on."""
    warned: bool = False
    reply_class: ReplyClass | None = None
    """What the refusal is about; None where there is none."""


@frozen
class Attempt:
    """How an attempt went, for who traces it: when it ended (wall clock), the seconds it took, and the channel's own description."""

    moment: float
    seconds: float
    via: str
    details: Mapping[str, object] = Factory(dict)
    """What more the channel knows, as JSON can tell it: host, address, TLS, the dialogue."""


class Operation(enum.StrEnum):
    """What an operator can do to recipients in the spool alone."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    REROUTE = "reroute"
    REMOVE = "remove"


@frozen
class Change:
    """An operation with what it needs to know. ``moment``: the wall clock's time, which is what becomes due at once is due at."""

    operation: Operation
    moment: float
    reason: str = ""
    """Why it is held, as the last reply will say it."""
    rule: int | None = None
    """The standing rule that holds it."""
    project_id: str = ""
    route_id: str = ""
    route: str = ""
    """Where it is rerouted to: a route of the project, which is the only one whose mail can go there."""


@frozen
class Changed:
    """What one step of a change came to: the ``count`` of recipients and the lanes that they are in, or were.

    ``last`` is where the next step goes on, None when there is none.
    """

    count: int
    last: int | None
    lanes: frozenset[Lane] = frozenset()


@frozen
class HoldRule:
    """A standing rule: new mail that meets every one of its ``conditions`` (project, tag, route, domain) is held."""

    id: int
    conditions: Mapping[str, str]
    reason: str
    created: float

    def holds(self, message: Message, domain: str) -> bool:
        """Whether the message's recipients in ``domain`` are to be held."""
        return self.meets(message.project, message.tag, message.route, domain)

    def meets(self, project: str, tag: str | None, route: str, domain: str) -> bool:
        """Whether what is of these meets every condition."""
        known = {"project": project, "tag": tag, "route": route}
        return all(domain in spellings(wanted) if name == "domain" else known[name] == wanted for name, wanted in self.conditions.items())


def domain_of(address: str) -> str:
    """The domain of an address in lower case: what it is routed by. An address literal is kept with its brackets."""
    return address.rpartition("@")[2].lower()


@lru_cache(maxsize=512)
def spellings(domain: str) -> frozenset[str]:
    """Every way to write a domain that :func:`domain_of` may give: in lower case, in A-labels and in U-labels (RFC 5890 section 2.3)."""
    forms = {domain.lower()}
    with suppress(idna.IDNAError, UnicodeError):
        forms.add(idna.encode(domain, uts46=True).decode("ascii").lower())
    with suppress(idna.IDNAError, UnicodeError):
        forms.add(idna.decode(domain, uts46=True))
    return frozenset(forms)
