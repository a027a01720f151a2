"""A webhook's deliveries as data: what the sender, the spool and the tools have in common.

A delivery is one event on its way to one webhook. It is *due* at a time until it is over, and keeps a record of its last attempt.
"""

from __future__ import annotations

import enum

from attrs import field, frozen


class DeliveryStatus(enum.StrEnum):
    """What came of a delivery's last attempt."""

    PENDING = "pending"
    """There was none yet."""
    SUCCESS = "success"
    """2xx."""
    FAILED = "failed"
    """No answer that counts: no connection, no TLS, an address that isn't allowed, a redirect, what is no HTTP."""
    CLIENT_ERROR = "client_error"
    """4xx."""
    SERVER_ERROR = "server_error"
    """5xx."""
    TIMEOUT = "timeout"
    """No whole answer in time."""


@frozen
class NewDelivery:
    """An event that a webhook is to be told of."""

    webhook_id: str
    event_id: str
    event: str
    message_id: str
    """Empty where the event is not about a message."""
    payload: bytes = field(repr=False)
    first_of: str | None = None
    """The recipient, where it is wanted only if it is the first soft bounce of this one."""


@frozen
class Delivery:
    """A delivery that is due. ``attempt`` is the number of the attempt to make, from 1 on."""

    number: int
    webhook_id: str
    event_id: str
    event: str
    message_id: str
    payload: bytes = field(repr=False)
    attempt: int


@frozen
class Answer:
    """What came of one attempt. ``seconds`` is how long it took."""

    status: DeliveryStatus
    http_status: int | None = None
    seconds: float = 0.0
    response: str = ""
    """The beginning of the body."""
    problem: str = ""
    """What went wrong, in words; empty where ``http_status`` says it all."""
    retry_after: float | None = None
    """Seconds for which the other side wants to be left alone."""


@frozen
class Attempted:
    """A delivery behind an attempt: what came of it, when that was, and when the next one is due (None: it is over)."""

    number: int
    attempt: int
    answer: Answer
    at: float
    due: float | None


GONE = 410
"""The status by which an endpoint says that it wants nothing any more (RFC 9110 section 15.5.11)."""
