"""The seams: what each step of the way promises to the next one.

``smtp`` knows only :class:`ISMTPServer`, :class:`ISubmitter` and :class:`IContent`; ``submission``, ``delivery`` and ``events`` meet in
:class:`ISpool`. A replacement for any part provides one of these interfaces and is named in ``service.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from lettermta.event import Event
from lettermta.message import (
    Attempt,
    Change,
    Changed,
    Envelope,
    HoldRule,
    Lane,
    Message,
    Outcome,
    Peer,
    QueueEntry,
    Reply,
    Verdict,
)
from lettermta.policy import PolicyMessage, PolicyVerdict
from lettermta.suppression import Mailing, Scope, Suppression, SuppressionReason
from lettermta.webhook import Attempted, Delivery, NewDelivery


class IContent(Interface):
    """A buffer that takes one message's content while it arrives: lines ended by CRLF, dot-stuffing undone (RFC 5321 section 4.5.2)."""

    size: int = Attribute("Octets written so far.")

    def write(data: bytes) -> Deferred[None] | None:
        """Take the next octets. When a Deferred is returned, the caller stops reading until it fires, so memory stays bounded."""

    def head() -> bytes:
        """The header block as it came: each line ended by CRLF, without the empty line. Called once all content is written."""

    def body_size() -> int:
        """Octets behind the empty line that ends the header block."""

    def digest() -> Deferred[bytes]:
        """SHA-256 of the body, computed off the reactor's thread when that takes long. Called once all content is written."""

    def body_pieces() -> AsyncIterator[bytes]:
        """What is behind that empty line, in pieces of bounded size, read off the reactor's thread when it is in a file. Called once all
        content is written; may be called again.
        """

    def discard() -> None:
        """Forget the content; safe to call at any time and more than once."""


class ISubmitter(Interface):
    """The avatar of a session that may submit mail: a project, by its token or by its trusted network.

    ``mail`` and ``recipient`` raise :class:`~lettermta.message.Refused` to refuse; what they raise is the reply.
    """

    max_size: int = Attribute("Largest message in octets, announced by SIZE (RFC 1870).")
    max_recipients: int = Attribute("Most recipients of one transaction (RFC 5321 section 4.5.3.1.8).")

    def mail(envelope: Envelope) -> None:
        """A transaction is to begin with this envelope (which has no recipients yet)."""

    def recipient(envelope: Envelope, address: str) -> None:
        """``address`` is to be added to the envelope's recipients."""

    def content() -> IContent:
        """A buffer for the content of the transaction whose DATA is about to be answered by 354; may raise Refused."""

    def submit(envelope: Envelope, content: IContent) -> Deferred[Reply]:
        """Take responsibility for the message (RFC 5321 section 6.1).

        Fires with the 250 once the message is durable; fails with Refused when it is refused. Either way the content is the callee's.
        """


class LoginFault(UnauthorizedLogin):
    """Why a login was refused: ``cause`` as the counters call it, the text for the log."""

    def __init__(self, cause: str, text: str) -> None:
        super().__init__(text)
        self.cause = cause


class ISMTPServer(Interface):
    """What the edge asks of whoever owns submission: one for each listener."""

    hostname: str = Attribute("The name in the banner, in EHLO's answer and in Received.")
    portal: Portal = Attribute("Where credentials become an ISubmitter.")
    max_size: int = Attribute("The SIZE that EHLO announces before the client is known.")
    max_recipients: int = Attribute("The RCPTMAX that EHLO announces before the client is known.")

    def mechanisms(secure: bool, plus: bool) -> Sequence[str]:
        """The SASL mechanisms to offer (RFC 4954) on an encrypted channel (``secure``) or one in clear; maybe none.

        ``plus``: the channel can bind a login (RFC 5056), so that mechanisms ending in -PLUS make sense.
        """

    def exchange(mechanism: str, binding: Callable[[str], bytes | None]) -> Any:
        """Begin an exchange of a mechanism that is offered: a :class:`~lettermta.smtp.sasl.Mechanism` on a channel of that binding."""

    def trusted(peer: Peer) -> ISubmitter | None:
        """The submitter that this client is without logging in, or None when it has to log in."""


class NotStored(Exception):
    """The spool can't write this now: no room, or a failed disk. Nothing of it is kept; the text says why, for the log."""


class ISpoolListener(Interface):
    """Told, in the reactor's thread and once per commit, of what has just become durable."""

    def entries_stored(entries: Sequence[QueueEntry]) -> None:
        """New entries in the order in which they were stored."""

    def events_stored(events: Sequence[tuple[int, Event]]) -> None:
        """New events with their sequence numbers, ascending."""


class IStoredContent(Interface):
    """The content of one spooled message, as it is to leave."""

    size: int = Attribute("Octets of head, empty line and body together.")

    def whole() -> bytes | None:
        """All of it (head, empty line, body) when it is in memory, else None: then it is read in pieces."""

    def pieces() -> AsyncIterator[bytes]:
        """All of it in pieces of bounded size, read off the reactor's thread."""


class ISuppressions(Interface):
    """Whom no more mail is sent to. Each change is durable, told by its events and in force when its Deferred fires."""

    def possible(addresses: Sequence[str]) -> Sequence[str]:
        """Those of the addresses that may be suppressed for some mail, told at once: mostly none, and all of whom ``find`` would find."""

    def find(mailing: Mailing, addresses: Sequence[str]) -> Deferred[Mapping[str, Suppression]]:
        """Which of the addresses are suppressed for this mailing, each with why."""

    def page(filters: Mapping[str, str], after: int, limit: int) -> Deferred[Sequence[tuple[int, Suppression]]]:
        """The next suppressions behind number ``after``, with their numbers, in the order in which they were added.

        ``filters``: ``scope`` (the key of a Scope), ``project_id``, ``value``, ``reason``.
        """

    def add(suppressions: Sequence[Suppression], *, told: bool = True) -> Deferred[Sequence[Suppression]]:
        """Add these in one commit, with or without events; fires with those that were not there, or applied to other mail."""

    def remove(value: str, scope: Scope, reason: SuppressionReason | None, moment: float) -> Deferred[Sequence[Suppression]]:
        """Remove a value from a scope, for one reason or (None) for all; fires with what was removed."""


class IFinisher(Interface):
    """Brings a message into the form in which it leaves, once the peer is known."""

    def finish(
        entry: QueueEntry, content: IStoredContent, *, eight_bit: bool, binary: bool
    ) -> tuple[QueueEntry, IStoredContent] | Deferred[tuple[QueueEntry, IStoredContent]]:
        """The entry and its content as a peer is to get them that takes 8BITMIME (RFC 6152) and BINARYMIME (RFC 3030), or does not.

        Raises, or fails with, :class:`~lettermta.smtp.client_envelope.Unsendable` when there is no such form.
        """


class ISpool(Interface):
    """Durable storage of messages, recipients and the events outbox. Every Deferred that stands for a write fires after its sync."""

    suppressions: ISuppressions = Attribute("Whom no more mail is sent to: beside the outbox, so that events are in the same commit.")

    def content() -> IContent:
        """A buffer for a new message's content."""

    def room(size: int) -> bool:
        """Whether a new message of so many octets would be stored, as far as is known; answered at once."""

    def store(message: Message, events: Sequence[Event]) -> Deferred[None]:
        """Store a message, its recipients, its first events and its idempotency key in one commit; fails with NotStored for want of room,
        or while the disk fails. Nothing is ever due of those that are suppressed; of a message that has no others only the rest is kept.
        """

    def recall(project_id: str, key: str, now: float) -> Deferred[tuple[bytes, str] | None]:
        """Digest and message id that an idempotency key of a project stands for, unless it has expired; or None."""

    def record(
        entry: QueueEntry,
        outcomes: Sequence[Outcome],
        events: Sequence[Event],
        attempt: Attempt | None = None,
        reports: Sequence[Message] = (),
        suppressions: Sequence[Suppression] = (),
    ) -> Deferred[None]:
        """Store what an attempt came to, with its events, in one commit; a message without unfinished recipients leaves the spool.

        What an operator held or removed meanwhile stays so, unless the outcome is final. ``attempt`` is kept for its trace. ``reports`` are
        new messages that tell the sender of it, stored in the same commit; their content is small enough to be in memory. ``suppressions``
        are what it showed of addresses; their events are made with them.
        """

    def tell(events: Sequence[Event], suppressions: Sequence[Suppression] = ()) -> Deferred[None]:
        """Store events that no attempt made, as something came back for a message, and what it showed of addresses, in one commit."""

    def load(entry: QueueEntry) -> Deferred[IStoredContent]:
        """The content of an entry's message; fails with LookupError when it isn't there, or isn't what was stored."""

    def content_of(identifier: str) -> Deferred[IStoredContent | None]:
        """The content of the message of that id, whatever else of its record makes sense; None when it is not in the queue. Fails with
        LookupError when it isn't what was stored.
        """

    def lanes() -> Deferred[Sequence[tuple[Lane, float]]]:
        """Every lane with waiting recipients, and when its first one is due."""

    def due(lane: Lane, now: float, limit: int) -> Deferred[Sequence[QueueEntry]]:
        """The lane's recipients that are due at ``now``, at most ``limit`` of them, grouped by message: by priority, and then by when they
        were due.

        Those whose record makes no sense are in quarantine when it fires, and not among them.
        """

    def next_due(lane: Lane, after: float) -> Deferred[float | None]:
        """When the first of the lane's waiting recipients is due that are due later than ``after``, or None."""

    def hasten(seconds: float, now: float) -> Deferred[int]:
        """Have what was put off be due so much earlier, but not before ``now``: the clock was set back; fires with how many recipients."""

    def query(filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """A page of recipients for the queue tools: those behind number ``after`` that pass ``filters``, in ascending order."""

    def message(identifier: str) -> Deferred[Mapping[str, Any] | None]:
        """All there is to show of one message, or None."""

    def change(change: Change, filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Changed]:
        """One step of an operation, in one commit with its events: at most ``limit`` of the recipients behind number ``after`` that pass
        ``filters`` and are in a state that the operation is for. A message whose last unfinished recipient is removed leaves the spool.
        """

    def count(change: Change, filters: Mapping[str, Any]) -> Deferred[int]:
        """How many recipients the operation would be for."""

    def entries(filters: Mapping[str, Any], after: int, limit: int) -> Deferred[tuple[Sequence[QueueEntry], int | None]]:
        """Unfinished recipients that pass ``filters``, as entries, and where to go on (None: nowhere)."""

    def hold_rules() -> Sequence[HoldRule]:
        """The standing rules in force."""

    def add_hold_rule(conditions: Mapping[str, str], reason: str, moment: float) -> Deferred[HoldRule]:
        """Have all mail that is stored from now on and meets every one of the conditions held."""

    def drop_hold_rule(identifier: int) -> Deferred[bool]:
        """End a standing rule; what it holds is held still. Fires with whether there was one."""

    def trace(message_id: str) -> Deferred[Sequence[Mapping[str, Any]]]:
        """Each attempt that is kept of a message, in the order of time."""

    def figures(by: str, filters: Mapping[str, Any]) -> Deferred[Sequence[Mapping[str, Any]]]:
        """What is in the queue and passes ``filters``, counted by ``lane``, ``domain``, ``project``, ``route``, ``tag`` or ``state``."""

    def daily(by: str, since: float, project: str | None) -> Deferred[Sequence[Mapping[str, Any]]]:
        """What became of the mail from the day (UTC) of ``since`` on, of one project or all: a row for each ``tag`` with its days, or for
        each ``day``.
        """

    def find_events(filters: Mapping[str, Any], after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """The next events behind sequence number ``after`` that pass ``filters``, ascending."""

    def events(after: int, limit: int) -> Deferred[Sequence[tuple[int, Event]]]:
        """The next events behind sequence number ``after``, ascending."""

    def cursor(sink: str) -> Deferred[int]:
        """The sequence number of the last event that ``sink`` has confirmed; 0 at first."""

    def advance(sink: str, sequence: int) -> Deferred[None]:
        """Note that ``sink`` has confirmed every event up to ``sequence``."""

    def retire(sinks: Sequence[str]) -> Deferred[Sequence[str]]:
        """Forget how far every sink is but ``sinks``, so that none that is gone keeps events for ever; fires with those forgotten."""

    def trim(before: float) -> Deferred[int]:
        """Forget events older than ``before`` that every sink has confirmed; fires with how many."""

    def subscribe(listener: ISpoolListener) -> None:
        """Have ``listener`` told of each commit from now on."""

    def close() -> Deferred[None]:
        """Finish what waits, sync, and let go of the files."""


class IReturns(Interface):
    """Takes what comes back for mail that has left: bounces, complaints, automatic answers."""

    def check(client: str, address: str) -> None:
        """Raises :class:`~lettermta.message.Refused` where nothing may come to the address, or too much came from that client lately."""

    def take(sender: str, addresses: Sequence[str], octets: bytes) -> Deferred[None]:
        """Take a message that came to addresses that were checked; ``octets`` are its front, if not all of it.

        Fires once what it tells is durable; fails with Refused when that can't be had now.
        """


class IChannel(Interface):
    """An open way to one destination, used for one entry after the other: an SMTP connection, a Maildir, the void."""

    usable: bool = Attribute("Whether another entry may be sent now.")
    ended: bool = Attribute("Whether no other entry can be sent, now or later.")
    description: str = Attribute("Where it leads, for the log: host, address, port, TLS version and cipher.")
    host: str | None = Attribute("The name of the host at its other end; None where it ends here, so that what it takes is delivered.")
    details: Mapping[str, object] = Attribute("Of the last attempt, for its trace, as JSON tells it: host, address, port, tls, dialogue.")
    dsn: bool = Attribute("Whether the other side reports to the sender as NOTIFY asks (RFC 3461), so that we need not.")

    def send(entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        """Attempt the entry; fires with one verdict a recipient, in the entry's order, and never fails.

        ``room`` is called, once at the most, when one more entry may be sent behind this one although it has no verdicts yet. They are told
        in the order of sending.
        """

    def close() -> None:
        """Part in good order (QUIT)."""


class ITransport(Interface):
    """Opens channels to one destination."""

    def open() -> Deferred[IChannel]:
        """A new channel; fails with :class:`~lettermta.message.Unreachable` when none can be had."""


class IResolver(Interface):
    """Name look-ups for delivery (RFC 5321 section 5)."""

    def mx(domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """The MX records as (preference, host), unsorted; empty when the name exists and has none. Fails as delivery.resolver says."""

    def addresses(host: str) -> Deferred[Sequence[str]]:
        """The IPv6 and IPv4 addresses of a host; empty when the name exists and has none."""


class IEventHook(Interface):
    """A user's Python class that gets every event; named by its dotted path in ``[events] hooks``."""

    def event_happened(event: Event) -> Deferred[None] | None:
        """Take one event. Raise, or return a Deferred that fails, to get it again later."""


class ISubmissionPolicy(Interface):
    """A user's Python class that looks at each message before it is stored; named by its dotted path in ``[submission] policies``."""

    def look_at(message: PolicyMessage) -> Deferred[PolicyVerdict | None] | PolicyVerdict | None:
        """Decide what becomes of a message; None takes it as it is. Raise, or have the Deferred fail, to come to no verdict."""


class IDeliveries(Interface):
    """What webhooks are to be told, and what came of it. What is written outlives the process; ``sync`` makes it outlive the machine."""

    def add(new: Sequence[NewDelivery], now: float) -> Deferred[None]:
        """Have events told to their webhooks, due at once; what is on record already is left as it is."""

    def sync() -> Deferred[None]:
        """Sync all that was written before."""

    def record(attempted: Sequence[Attempted]) -> Deferred[None]:
        """Note what came of attempts."""

    def due(webhook_id: str, now: float, limit: int) -> Deferred[tuple[Sequence[Delivery], float | None]]:
        """The webhook's deliveries that are due, at most ``limit``, earliest first; and when the first of the others is due."""

    def waiting() -> Deferred[Mapping[str, tuple[int, float]]]:
        """Of each webhook with deliveries that are not over: how many there are, and since when the first one waits."""

    def changed_by_others() -> Deferred[bool]:
        """Whether another process has written since it was asked last."""

    def expire(webhook_id: str, before: float, problem: str) -> Deferred[int]:
        """End some deliveries of a webhook that wait since before that time, for the reason ``problem``; fires with how many."""

    def forget(before: float, webhook_ids: Sequence[str]) -> Deferred[int]:
        """Forget some records of deliveries that were over before that time, and some of webhooks that are not among those; fires with how
        many.
        """

    def close() -> Deferred[None]:
        """Finish what waits, and let go of the files."""
