"""Writing to a connection at once where that is possible.

Twisted gathers what is written and sends it in the reactor's next turn, by way of two epoll calls. Replies and commands of SMTP are short,
come one at a time, and the other side waits for each: sending them at once saves a good part of their cost and a turn of latency.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def send(transport: Any, data: bytes) -> None:
    """Send ``data`` behind all that was written before: now if nothing waits on a connection in clear, else as Twisted does it."""
    sent = transport.writeSomeData(data) if _can_send_now(transport) else 0
    if not isinstance(sent, int):
        # The connection is lost. The reactor will find that out by itself, and tell the protocol when no call of its is under way.
        sent = 0
    if sent < len(data):
        transport.write(data[sent:])


def _can_send_now(transport: Any) -> bool:
    return (
        isinstance(transport, Connection)
        and not (transport.TLS or transport.dataBuffer or transport._tempDataBuffer)
        and bool(transport.connected)
        and not (transport.disconnecting or transport._writeDisconnected)
    )
