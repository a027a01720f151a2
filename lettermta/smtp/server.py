"""The server's side on Twisted: a listener's connections, and what all listeners of a process share.

:class:`ESMTPFactory` builds one :class:`~lettermta.smtp.connection.ESMTPProtocol` a connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

from attrs import define
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory

from lettermta import metrics
from lettermta.config import Network
from lettermta.interfaces import ISMTPServer
from lettermta.message import Peer
from lettermta.smtp.admission import Admission, Caps, LoginGuard
from lettermta.smtp.connection import ESMTPProtocol, Opening
from lettermta.smtp.patience import Pace
from lettermta.smtp.session import SessionRules

COMMAND_SECONDS = 300.0
"""How long a client may take over a command by default (RFC 5321 section 4.5.3.2.7)."""


@define
class Edge:
    """What all listeners of a process share: who may connect, how failed logins are answered, how slow clients may be."""

    admission: Admission
    guard: LoginGuard
    pace: Pace
    rules: SessionRules = SessionRules()  # noqa: RUF009 - frozen

    @classmethod
    def generous(cls, clock: IReactorTime) -> Edge:
        """One that caps nothing which a test or a private network would notice."""
        return cls(
            Admission(Caps(100_000, 100_000, 100_000), (), clock),
            LoginGuard(1000, 1.0, (), clock),
            Pace(COMMAND_SECONDS, COMMAND_SECONDS, 1.0),
        )


class ESMTPFactory(Factory):
    """Builds the server's protocols for one listener from an ISMTPServer."""

    noisy = False

    def __init__(
        self,
        server: ISMTPServer,
        clock: IReactorTime,
        *,
        edge: Edge | None = None,
        listener: str = "smtp",
        opening: Opening = Opening.CLEAR,
        tls: IOpenSSLServerConnectionCreator | None = None,
        detection_time: float = 0.5,
        proxies: Sequence[Network] = (),
    ) -> None:
        self.server = server
        self.clock = clock
        self.edge = edge or Edge.generous(clock)
        self.listener = listener
        self.opening = opening
        self.tls = tls
        self.detection_time = detection_time
        self.proxies = tuple(proxies)
        """Networks whose connections begin with a PROXY header; nobody else's do."""
        self.protocols: set[ESMTPProtocol] = set()
        self.accepted = metrics.CONNECTIONS_ACCEPTED[listener]
        self.open = metrics.SESSIONS_OPEN[listener]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """An ESMTPProtocol for a connection from ``addr``."""
        protocol = ESMTPProtocol(self, _peer(addr, self.listener))
        protocol.factory = self
        return protocol

    def drain(self) -> int:
        """End every session that has no message in hand (421); returns how many go on."""
        for protocol in list(self.protocols):
            protocol.drain()
        return len(self.protocols)

    def abort(self) -> None:
        """Cut every connection that is left."""
        for protocol in list(self.protocols):
            protocol.abort()


def _peer(addr: IAddress | None, listener: str) -> Peer:
    """The peer of a connection; an IPv4 client of an IPv6 socket is known by its IPv4 address."""
    address = ipaddress.ip_address(str(getattr(addr, "host", "0.0.0.0")).partition("%")[0])  # noqa: S104
    mapped = getattr(address, "ipv4_mapped", None)
    return Peer(str(mapped or address), int(getattr(addr, "port", 0)), listener)
