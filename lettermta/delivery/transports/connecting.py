"""From an address to a session that is ready to send, and over several addresses until one is.

Promises that opportunistic TLS which fails is tried again in clear on a new connection, and that any other TLS never is. What fails
here says nothing of the message itself, so in the end it is temporary, whatever the last host said (HARD-CASES row 22).
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from attrs import Factory, evolve, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectBindError, ConnectError, ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory as ProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from lettermta import metrics
from lettermta.delivery.sources import Source
from lettermta.delivery.tls.policy import UNCOUNTED, HostPolicy, ITLSResults
from lettermta.delivery.tls.told import Told, told_by, told_of
from lettermta.delivery.transports.families import Families
from lettermta.message import Reply, Unreachable
from lettermta.smtp.client import ClientSession
from lettermta.smtp.client_opening import NotVerified, TLSFailed, TLSNotOffered
from lettermta.smtp.client_protocol import ClientProtocol
from lettermta.smtp.client_settings import ClientSettings, TLSMode
from lettermta.smtp.client_tls import SessionCache

FALL_OVER_SECONDS = 5.0
"""How long a connection may take while an address of the other family (IPv6, IPv4) is still to be tried."""
MOST_ADDRESSES = 10
"""How many addresses one opening tries in all: a domain with 50 MX hosts must not hold an attempt for hours."""

_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

_log = Logger()


@frozen
class Target:
    """One address of a host."""

    host: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.host} [{self.address}]:{self.port}" if self.host != self.address else f"[{self.address}]:{self.port}"


@frozen
class Connector:
    """Opens sessions, all in the same manner but for what each host's policy asks of its TLS."""

    reactor: Any
    client: ClientSettings
    connect_timeout: float
    sessions: SessionCache | None = None
    results: ITLSResults = UNCOUNTED
    families: Families = Factory(Families)
    source: Source | None = None
    """Where connections come from; None: as the system chooses."""

    async def open(self, target: Target, policy: HostPolicy) -> ClientSession:
        """A session with one address; raises Unreachable with what happened."""
        try:
            return await self._session(target, policy, policy.tls)
        except TLSFailed as error:
            if policy.tls is not TLSMode.OPPORTUNISTIC:
                raise
            _log.info("{target}: {reason}; trying again in clear", target=target, reason=error.reply.text)
            session = await self._session(target, policy, TLSMode.OFF, error)
            session.before = (error,)
            return session

    async def _session(self, target: Target, policy: HostPolicy, tls: TLSMode, failed: TLSFailed | None = None) -> ClientSession:
        """``failed``: what became of TLS on a connection before this one, which is to be in clear for that."""
        client = evolve(self.client, tls=tls, verify=policy.verify, policy=policy.kind.value)
        handshake = policy.client.handshake(self.sessions, str(target))
        protocol = ClientProtocol(self.reactor, client, handshake, str(target))
        await self._connect(target, protocol)
        source = _own_address(protocol)
        try:
            session = await protocol.session.opened
        except Unreachable as error:
            metrics.CONNECTIONS_OUT[_not_ready(error)].inc()
            if tls is not TLSMode.OPPORTUNISTIC or not isinstance(error, TLSFailed):
                self._count(policy, target, told_by(error, handshake), source)
            raise
        metrics.CONNECTIONS_OUT["ready"].inc()
        metrics.TLS_OUT[session.tls.partition(" ")[0] if session.tls else "none"].inc()
        metrics.TLS_POLICIES_OUT[policy.kind.value, session.assurance].inc()
        if session.tls and handshake.resumed:
            metrics.TLS_RESUMED_OUT.inc()
        self._count(policy, target, told_by(failed, handshake) if failed else told_of(session, policy, handshake), source)
        return session

    def _count(self, policy: HostPolicy, target: Target, told: Told, source: str) -> None:
        if policy.reported is not None and told.counts:
            self.results.count(policy.reported, told.fault, target.host, target.address, source)

    async def _connect(self, target: Target, protocol: ClientProtocol) -> None:
        ours = None if self.source is None else self.source.address_for(target.address)
        endpoint = (TCP6ClientEndpoint if ":" in target.address else TCP4ClientEndpoint)(
            self.reactor, target.address, target.port, timeout=self.connect_timeout, bindAddress=None if ours is None else (ours, 0)
        )
        try:
            await endpoint.connect(_OneConnection(protocol))
        except TimeoutError:
            metrics.CONNECTIONS_OUT["timed_out"].inc()
            self.families.silent(self.reactor, target.address)
            raise NotConnected(Reply(451, "4.4.1", f"Connecting to {target} timed out")) from None
        except ConnectionRefusedError:
            metrics.CONNECTIONS_OUT["refused"].inc()
            raise NotConnected(Reply(451, "4.4.1", f"{target} refuses connections")) from None
        except ConnectBindError as error:
            metrics.CONNECTIONS_OUT["unreachable"].inc()
            raise NotConnected(Reply(451, "4.3.5", f"Our own address {ours} can't be used: {error}")) from None
        except ConnectError as error:
            metrics.CONNECTIONS_OUT["unreachable"].inc()
            if error.osError in _NO_ROUTE:
                self.families.no_route(self.reactor, target.address)
            raise NotConnected(Reply(451, "4.4.1", f"{target} can't be reached: {error}")) from None
        self.families.works(target.address)

    async def first(self, targets: Sequence[Target], policy: HostPolicy, before: Unreachable | None = None) -> ClientSession:
        """A session with the first target that has one, ``before`` which others failed; raises the last one's Unreachable."""
        last = before
        pending = list(targets)
        while pending:
            target = pending.pop(0)
            six = ":" in target.address
            others = [each for each in pending if (":" in each.address) is not six]
            quick = evolve(self, connect_timeout=min(FALL_OVER_SECONDS, self.connect_timeout)) if others else self
            try:
                session = await quick.open(target, policy)
                if last is not None:
                    session.before = (*last.before, last, *session.before)
                return session
            except Unreachable as error:
                _log.info("{target}: {reason}", target=target, reason=str(error.reply))
                error.host = target.host
                error.details = {"host": target.host, "address": target.address, "port": target.port, **error.details}
                error.behind(last)
                last = error
                if isinstance(error, NotConnected):
                    # The other family first: this one may not work at all.
                    pending = [*others, *(each for each in pending if each not in others)]
        raise last or Unreachable(Reply(451, "4.4.4", "There is no address to connect to"))


def reachable_from(source: Source | None, host: str, targets: Sequence[Target]) -> list[Target]:
    """The host's targets of a family that the source has; raises Unreachable where there is none."""
    if source is None:
        return list(targets)
    found = [target for target in targets if source.address_for(target.address) is not None]
    if not found:
        raise Unreachable(Reply(451, "4.4.4", f"{host} has no address of a family that {source.name} has"))
    return found


class NotConnected(Unreachable):
    """No connection came about, so nothing was said."""


class _OneConnection(ProtocolFactory):
    """Gives one protocol to one connection, without a word in the log."""

    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._protocol


def _own_address(protocol: ClientProtocol) -> str:
    transport = protocol.transport
    return "" if transport is None else str(getattr(transport.getHost(), "host", ""))


def _not_ready(error: Unreachable) -> str:
    """What to count a session as that did not become ready."""
    if isinstance(error, TLSFailed):
        return "tls_failed"
    if isinstance(error, TLSNotOffered | NotVerified):
        return "policy"
    return "turned_away" if error.remote else "not_ready"


def temporary(error: Unreachable) -> Unreachable:
    """The same failure as one to be tried again: a host that greets by 554 refuses us now, not the recipient for ever."""
    if not error.reply.permanent:
        return error
    reply = Reply(451, "4.3.2", f"The other side takes no mail now: {error.reply}")
    found = Unreachable(reply, host=error.host, said=error.reply)
    found.details, found.before = error.details, error.before
    return found
