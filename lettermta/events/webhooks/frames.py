"""What the daemon and the process that sends webhooks say to each other, over a pair of sockets: frames of a kind and a body.

Each frame is the length of the rest in four octets, one octet for its kind, and its body. Both ends are of the same installation.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure


class Kind(enum.Enum):
    """What a frame is. To the sender go settings (once, JSON), events and sync; back come taken (octets of events), synced, log,
    condition (JSON) and gone (a webhook's id).
    """

    SETTINGS = b"S"
    EVENTS = b"E"
    SYNC = b"Y"
    TAKEN = b"T"
    SYNCED = b"D"
    LOG = b"L"
    CONDITION = b"C"
    GONE = b"G"


class Frames(Int32StringReceiver):
    """One end. ``received`` is called with each frame, ``lost`` when the other end is gone."""

    MAX_LENGTH = 1 << 28
    transport: Any

    def __init__(self, received: Callable[[Kind, bytes], object], lost: Callable[[], object]) -> None:
        self._received = received
        self._lost = lost

    def send(self, kind: Kind, body: bytes = b"") -> None:
        """Send a frame."""
        self.transport.write(struct.pack("!I", len(body) + 1) + kind.value + body)

    def stringReceived(self, string: bytes) -> None:
        """Pass a frame on."""
        self._received(Kind(string[:1]), string[1:])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is gone."""
        self._lost()


def packed(payloads: Iterable[bytes]) -> bytes:
    """Events' octets as one body."""
    return b"".join([part for payload in payloads for part in (struct.pack("!I", len(payload)), payload)])


def unpacked(body: bytes) -> Sequence[bytes]:
    """The events' octets of a body."""
    payloads, position = [], 0
    while position < len(body):
        (length,) = struct.unpack_from("!I", body, position)
        payloads.append(body[position + 4 : position + 4 + length])
        position += 4 + length
    return payloads
