"""A listener without a socket, and the connections to it, from wherever a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock

from lettermta.config import Network
from lettermta.smtp.admission import Admission, Caps, LoginGuard
from lettermta.smtp.connection import Opening
from lettermta.smtp.patience import Pace
from lettermta.smtp.server import Edge, ESMTPFactory
from lettermta.smtp.tls import ServerTLS, self_signed
from tests.smtp.memory_transport import MemoryTransport
from tests.smtp.server_peer import PLAIN, RULES, Office

BANNER = b"220 mta.test ESMTP\r\n"
EHLO = b"EHLO client.test\r\n"
HERE = "192.0.2.9"
MESSAGE = b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\nSubject: hi\r\n\r\nhello\r\n.\r\n"
LOG_IN = f"AUTH PLAIN {PLAIN}\r\n".encode()
PACE = Pace(300.0, 180.0, 500.0)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    return ServerTLS([self_signed(tmp_path_factory.mktemp("tls"), "mta.test")])


def make_edge(clock: Clock, caps: Caps | None = None, *, failures: int = 1000, exempt: Sequence[Network] = ()) -> Edge:
    """An edge with the deadlines that are the default, and what else a test wants of it."""
    admission = Admission(caps or Caps(1000, 1000, 1000), exempt, clock)
    return Edge(admission, LoginGuard(failures, 600.0, exempt, clock), PACE, RULES)


class Place:
    """A listener, and the connections to it."""

    def __init__(self, opening: Opening, tls: ServerTLS | None, *, server: Any = None, **edge: Any) -> None:
        self.office = server or Office()
        self.clock = Clock()
        proxies = edge.pop("proxies", ())
        self.factory = ESMTPFactory(
            self.office,
            self.clock,
            edge=make_edge(self.clock, **edge) if edge else None,
            listener="here",
            opening=opening,
            tls=tls,
            proxies=proxies,
        )

    def connect(self, address: str = HERE) -> MemoryTransport:
        kind = IPv6Address if ":" in address else IPv4Address
        return MemoryTransport(self.factory.buildProtocol(kind("TCP", address, 4711)))

    def greeted(self, address: str = HERE) -> MemoryTransport:
        """A connection behind EHLO, in clear."""
        transport = self.connect(address)
        transport.receive(EHLO)
        assert take(transport).startswith(BANNER + b"250-")
        return transport

    def trusting(self) -> MemoryTransport:
        """The same, which needs no login."""
        self.office.trusts = True
        return self.greeted()


def take(transport: MemoryTransport) -> bytes:
    sent, transport.sent = transport.sent, b""
    return sent
