"""What every way out has to know, apart from where it leads."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from lettermta.address_policy import Network, networks
from lettermta.delivery.ourselves import NOBODY, Ourselves
from lettermta.delivery.shaping import Limits
from lettermta.delivery.transports.families import Families
from lettermta.delivery.way import NO_RULE
from lettermta.interfaces import IFinisher
from lettermta.smtp.client_auth import Credentials
from lettermta.smtp.client_chunks import NoChunks
from lettermta.smtp.client_settings import ClientSettings, TLSMode
from lettermta.smtp.client_tls import SessionCache


@frozen
class DeliverySettings:
    """How mail is sent. Time-outs in seconds."""

    hostname: str
    """Our name in EHLO; an MX of this name is ourselves."""
    port: int = 25
    tls: TLSMode = field(default=TLSMode.OPPORTUNISTIC, converter=TLSMode)
    allow_networks: tuple[Network, ...] = field(default=(), converter=networks)
    """Networks that mail may go to although they are not public."""
    connect_timeout: float = 30.0
    banner_timeout: float = 300.0
    command_timeout: float = 300.0
    data_start_timeout: float = 120.0
    data_block_timeout: float = 180.0
    data_timeout: float = 600.0
    ourselves: Ourselves = NOBODY
    """Where we listen: mail must not come back to us."""
    finisher: IFinisher | None = None
    """What is done to each message before it is sent; None: nothing."""
    families: Families = field(factory=Families, eq=False)
    """What was seen of IPv6 and IPv4, by everyone."""

    no_chunks: NoChunks = field(factory=NoChunks, eq=False, repr=False)
    """Who turned out not to take chunks although it offers to."""
    trust: Path | None = None
    """A PEM file of the authorities that verify hosts which are to be verified, or None for the system's."""
    sessions: SessionCache = field(factory=SessionCache, eq=False, repr=False)
    """TLS sessions that can be resumed."""

    def client(self, limits: Limits = NO_RULE, *, credentials: Credentials | None = None) -> ClientSettings:
        """The same for one session, whose TLS its host's policy decides."""
        return ClientSettings(
            hostname=self.hostname,
            credentials=credentials,
            banner_timeout=self.banner_timeout,
            command_timeout=self.command_timeout,
            data_start_timeout=self.data_start_timeout,
            data_block_timeout=self.data_block_timeout,
            data_timeout=self.data_timeout,
            messages=limits.messages_per_connection,
            finisher=self.finisher,
            no_chunks=self.no_chunks,
        )
