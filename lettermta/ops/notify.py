"""Telling systemd how the service is: one datagram to the socket that the service manager named (sd_notify(3), Type=notify).

Never raises and never blocks: without a manager, or with one that does not listen, nothing happens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"


def reloading() -> str:
    """The state to announce when a reload begins; READY ends it. The manager wants the monotonic time of it in microseconds."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def status(text: str) -> str:
    """The state that shows ``text`` as the service's status line."""
    return "STATUS=" + " ".join(text.splitlines())


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send ``state`` (lines of ``NAME=value``) to the service manager; tells if it was sent."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
            manager.sendto(state.encode(), address)
    except (OSError, ValueError):
        return False
    return True
