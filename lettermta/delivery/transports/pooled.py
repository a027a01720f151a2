"""A channel from one of a pool's sources: whose turn it is, under its own name, and metered where it is being warmed up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import evolve

from lettermta.delivery.sources import SourcePool
from lettermta.delivery.transports.connecting import Connector
from lettermta.delivery.transports.metered import MeteredChannel
from lettermta.interfaces import IChannel


async def from_pool(pool: SourcePool, receiver: str, connector: Connector, open_by: Callable[[Connector], Awaitable[IChannel]]) -> IChannel:
    """What ``open_by`` opens to ``receiver`` from a source of the pool; what that one's plan granted and isn't needed is given back."""
    chosen = await pool.choose(receiver)
    source, left = chosen.source, chosen.left
    client = evolve(connector.client, hostname=source.hostname, source=source.name)
    try:
        channel = await open_by(evolve(connector, source=source, client=client))
    except BaseException:
        pool.give_back(receiver, chosen, left or 0)
        raise
    if left is None:
        return channel
    return MeteredChannel(channel, left, partial(pool.granted, chosen), partial(pool.give_back, receiver, chosen))
