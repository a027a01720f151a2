"""What a session with a host comes to in reports on TLS (RFC 8460 section 4.3)."""

from __future__ import annotations

from attrs import frozen

from lettermta.delivery.tls.policy import HostPolicy, Kind
from lettermta.message import Unreachable
from lettermta.smtp.client import ClientSession
from lettermta.smtp.client_opening import NotVerified, TLSFailed, TLSNotOffered
from lettermta.smtp.client_tls import VALIDATION_FAILURE, Fault, Handshake

STARTTLS_NOT_SUPPORTED = "starttls-not-supported"

_JUDGED = frozenset({Kind.MTA_STS, Kind.MTA_STS_TESTING, Kind.DANE})
"""Policies that ask for what the judge looks at; elsewhere its fault is of no interest to anyone."""


@frozen
class Told:
    """``counts``: whether it says anything of TLS at all."""

    counts: bool
    fault: Fault | None = None


def told_of(session: ClientSession, policy: HostPolicy, handshake: Handshake) -> Told:
    """Of a session that is ready to send."""
    if session.tls is None:
        return Told(True, Fault(STARTTLS_NOT_SUPPORTED, f"{session.peer} does not offer STARTTLS, or refuses it"))
    return Told(True, policy.fault or (handshake.fault if policy.kind in _JUDGED else None))


def told_by(error: Unreachable, handshake: Handshake) -> Told:
    """Of one that failed."""
    if isinstance(error, TLSNotOffered):
        return Told(True, Fault(STARTTLS_NOT_SUPPORTED, error.reply.text))
    if isinstance(error, NotVerified):
        return Told(True, handshake.fault)
    if isinstance(error, TLSFailed):
        return Told(True, Fault(VALIDATION_FAILURE, error.reply.text))
    return Told(False)
