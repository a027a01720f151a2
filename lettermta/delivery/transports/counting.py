"""How openings of channels are counted, the same for each way out."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from lettermta import metrics
from lettermta.delivery.way import Elsewhere
from lettermta.interfaces import IChannel
from lettermta.message import Unreachable


def counted(transport: str, opening: Deferred[IChannel]) -> Deferred[IChannel]:
    """``opening`` itself, once it has been counted what came of it."""
    return opening.addCallbacks(_opened, _not_opened, (transport,), {}, (transport,))


def _opened(channel: IChannel, transport: str) -> IChannel:
    metrics.CHANNELS_OPENED[transport, "opened"].inc()
    return channel


def _not_opened(failure: Failure, transport: str) -> Failure:
    if isinstance(failure.value, Elsewhere):
        return failure  # it is opened there
    if isinstance(failure.value, Unreachable):
        result = "permanent" if failure.value.reply.permanent else "temporary"
    else:
        result = "canceled" if isinstance(failure.value, CancelledError) else metrics.OTHER
    metrics.CHANNELS_OPENED[transport, result].inc()
    return failure
