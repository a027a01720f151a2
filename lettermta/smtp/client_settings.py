"""How the client behaves towards one peer: what it asks of TLS, its name and credentials, and how long it waits."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

from attrs import field, frozen

from lettermta.interfaces import IFinisher
from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_chunks import NoChunks


class TLSMode(enum.StrEnum):
    """How TLS is used towards a peer."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"
    """STARTTLS where it is offered (RFC 3207, RFC 7435)."""
    REQUIRE = "require"
    """STARTTLS, or nothing is sent."""
    IMPLICIT = "implicit"
    """TLS from the first octet (RFC 8314)."""


@frozen
class ClientSettings:
    """How a session behaves. Time-outs in seconds, for each wait."""

    hostname: str
    """Our name in EHLO."""
    tls: TLSMode = TLSMode.OPPORTUNISTIC
    verify: bool = False
    """Whether TLS counts only when the peer's certificate is verified."""
    policy: str = ""
    """What the policy is called that asks for this, in traces."""
    credentials: Credentials | None = None
    banner_timeout: float = 300.0
    command_timeout: float = 300.0
    data_start_timeout: float = 120.0
    data_block_timeout: float = 180.0
    data_timeout: float = 600.0
    """For the answer to the end of the content."""
    quit_timeout: float = 5.0
    messages: int = 1000
    """How many transactions one connection carries."""
    source: str = ""
    """What the address that we come from is called, for traces."""
    wall_clock: Callable[[], float] = time.time
    """Seconds since the epoch, for deadlines that the message names."""
    finisher: IFinisher | None = None
    """What is done to each message before it is sent; None: nothing."""
    no_chunks: NoChunks = field(factory=NoChunks, eq=False, repr=False)
    """Who is not to be trusted with chunks."""
