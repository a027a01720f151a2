"""TLS towards a peer: the handshake verifies nothing by itself, and what is to be verified is judged once it is done.

So one kind of handshake serves every policy, each with a judge of its own (the trust roots and the name here; DANE's records are another),
and a certificate that doesn't verify is a fault with words instead of an alert. SNI is always sent (RFC 6066 section 3), TLS 1.2 is the
least that is spoken. A judge fails closed: what can't be judged is a fault.

Sessions are resumed where the same is judged at the same address (:class:`SessionCache`). Only a session without a fault is kept, for an
hour at most, so that a certificate's expiry is seen; its names are compared anew each time.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import service_identity
from attrs import Factory, define, field, frozen
from cryptography.x509 import Certificate
from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import Attribute, Interface, implementer

NOT_JUDGED = "it is taken as it comes, since the host's name is not authenticated"

SESSION_SECONDS = 3600.0
"""How long a session can be resumed."""
_MOST_SESSIONS = 1000


@frozen
class Fault:
    """Why a peer is not authenticated: ``kind`` is the result type that reports on TLS have for it (RFC 8460 section 4.3)."""

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


EXPIRED = "certificate-expired"
NOT_TRUSTED = "certificate-not-trusted"
HOST_MISMATCH = "certificate-host-mismatch"
VALIDATION_FAILURE = "validation-failure"

# X509_V_ERR_*: those that operators meet.
CHAIN_FAULTS = {
    9: Fault(EXPIRED, "it is not valid yet"),
    10: Fault(EXPIRED, "it has expired"),
    18: Fault(NOT_TRUSTED, "it is self-signed"),
    19: Fault(NOT_TRUSTED, "its chain ends in a root that is not trusted"),
    20: Fault(NOT_TRUSTED, "its issuer is not known"),
    21: Fault(NOT_TRUSTED, "its issuer is not known"),
    23: Fault(NOT_TRUSTED, "it is revoked"),
    24: Fault(NOT_TRUSTED, "its issuer is no authority"),
    26: Fault(NOT_TRUSTED, "it is not for servers"),
}


class IJudge(Interface):
    """Says whether the other side of a finished handshake is who it should be. Equal judges judge alike."""

    roots: bool = Attribute("Whether the chain is to be checked against the trust roots.")

    def fault(chain: list[Certificate], unrooted: Fault | None) -> Fault | None:
        """Why the peer isn't authenticated, None when it is. ``chain``: its certificates, its own one first; ``unrooted``: what is wrong
        with them by the trust roots, where that was asked for.
        """


@implementer(IJudge)
@frozen
class WebPKI:
    """By the trust roots and one of the names (RFC 9525)."""

    names: tuple[str, ...]
    roots: bool = field(default=True, init=False)

    def fault(self, chain: list[Certificate], unrooted: Fault | None) -> Fault | None:
        """See IJudge."""
        return unrooted or name_fault(chain[0], self.names)


def name_fault(certificate: Certificate, names: tuple[str, ...]) -> Fault | None:
    """Why the certificate is for none of the names; None when it is for one."""
    faults = [_name_fault(certificate, name.rstrip(".")) for name in names]
    if None in faults:
        return None
    if all(fault is not None and fault.kind == HOST_MISMATCH for fault in faults):
        return Fault(HOST_MISMATCH, f"it is not for {' or '.join(names)}")
    return next(fault for fault in faults if fault is not None and fault.kind != HOST_MISMATCH)


def _name_fault(certificate: Certificate, name: str) -> Fault | None:
    try:
        if _is_address(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except (service_identity.VerificationError, service_identity.CertificateError):
        return Fault(HOST_MISMATCH, f"it is not for {name}")
    except ValueError as error:
        return Fault(VALIDATION_FAILURE, f"the name {name} can't be compared with it: {error}")
    return None


@frozen
class ClientTLS:
    """How to do TLS with one host. ``trust``: a PEM file of authorities, or None for the system's.

    ``strict``: weak keys and ciphers are no TLS; else any is better than the clear text that would be sent instead (RFC 7435 section 3).
    """

    host: str
    judge: IJudge | None = None
    strict: bool = False
    trust: Path | None = None

    def handshake(self, sessions: SessionCache | None = None, address: str = "") -> Handshake:
        """A handshake for one connection, which resumes a session from ``sessions`` with the same ``address`` if it can."""
        roots = self.judge is not None and self.judge.roots
        return Handshake(self, address, sessions, _context(roots, self.strict, self.trust))


@define
class SessionCache:
    """TLS sessions that were left in good order, each to be resumed once (RFC 8446 appendix C.4); bounded, the oldest go first."""

    _now: Callable[[], float] = time.monotonic
    _sessions: OrderedDict[tuple[ClientTLS, str], tuple[float, SSL.Session]] = Factory(OrderedDict)

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, tls: ClientTLS, address: str) -> SSL.Session | None:
        """A session to resume, which is then no longer here."""
        kept = self._sessions.pop((tls, address), None)
        return None if kept is None or kept[0] <= self._now() else kept[1]

    def keep(self, tls: ClientTLS, address: str, session: SSL.Session) -> None:
        """Have a session resumed later."""
        self._sessions[tls, address] = (self._now() + SESSION_SECONDS, session)
        self._sessions.move_to_end((tls, address))
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class Handshake:
    """One connection's TLS, before, during and after the handshake."""

    _tls: ClientTLS
    _address: str
    _sessions: SessionCache | None
    _context: SSL.Context
    _connection: SSL.Connection | None = field(default=None, init=False)
    _offered: bool = field(default=False, init=False)
    _chain_seen: bool = field(default=False, init=False)
    _chain_fault: Fault | None = field(default=None, init=False)
    fault: Fault | None = field(default=Fault(VALIDATION_FAILURE, "the handshake is not done"), init=False)
    """Why the peer isn't authenticated; None when it is."""

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Called by Twisted when TLS begins."""
        connection = SSL.Connection(self._context, None)
        # Per connection: the app data, by which a context's callback would find us, is Twisted's own.
        connection.set_verify(SSL.VERIFY_PEER, self._note_chain)
        name = self._tls.host.rstrip(".")
        if not _is_address(name):
            # By hand, since a host name with an underscore is refused elsewhere, and exists.
            connection.set_tlsext_host_name(name.encode("idna") if not name.isascii() else name.encode())
        session = None if self._sessions is None else self._sessions.take(self._tls, self._address)
        if session is not None:
            connection.set_session(session)
            self._offered = True
        self._connection = connection
        return connection

    def _note_chain(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
        """OpenSSL's verify callback, called for each certificate of the chain: notes the first fault, and goes on."""
        self._chain_seen = True
        if not good and self._chain_fault is None:
            unknown = Fault(NOT_TRUSTED, f"its chain does not verify (OpenSSL's error {error})")
            self._chain_fault = CHAIN_FAULTS.get(error, unknown)
        return True

    @property
    def description(self) -> str:
        """Protocol version and cipher, like ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
        connection = self._connection
        return "" if connection is None else f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"

    @property
    def resumed(self) -> bool:
        """Whether an earlier session was taken up: then the chain was not shown again."""
        return self._offered and not self._chain_seen

    def done(self) -> None:
        """The handshake is done: judge the peer."""
        self.fault = self._judged()

    def _judged(self) -> Fault | None:
        judge, connection = self._tls.judge, self._connection
        if judge is None:
            return Fault(VALIDATION_FAILURE, NOT_JUDGED)
        chain = None if connection is None else connection.get_peer_cert_chain(as_cryptography=True)
        if not chain:
            return Fault(VALIDATION_FAILURE, "there is none")
        if not self._chain_seen and not self.resumed:
            return Fault(VALIDATION_FAILURE, "its chain was not looked at")
        return judge.fault(chain, self._chain_fault)

    def over(self) -> None:
        """The connection is gone: keep its session, unless there was a fault. (OpenSSL itself forbids to resume one that was cut off.)"""
        connection, self._connection = self._connection, None
        if self._sessions is None or connection is None or (self._tls.judge is not None and self.fault is not None):
            return
        session = connection.get_session()
        if session is not None:
            self._sessions.keep(self._tls, self._address, session)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=16)
def _context(roots: bool, strict: bool, trust: Path | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if roots:
        if trust is None:
            context.set_default_verify_paths()
        else:
            context.load_verify_locations(str(trust))
    if not strict:
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    return context
