"""TLS towards a peer: the handshake verifies nothing by itself, and what is to be verified is judged once it is done.

So one kind of handshake serves every policy (opportunistic now; DANE and MTA-STS are other judgements of the same), and a certificate that
doesn't verify is a fault with words instead of an alert. SNI is always sent (RFC 6066 section 3), TLS 1.2 is the least that is spoken.

A verifying handshake has the chain checked against the trust roots, and the name by service-identity (RFC 6125); it fails closed: what
can't be judged is a fault.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

import service_identity
from attrs import define, field, frozen
from OpenSSL import SSL, crypto
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

NOT_JUDGED = "it is taken as it comes, since the host's name is not authenticated"

# X509_V_ERR_*: those that operators meet, in words.
_CHAIN_FAULTS = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its chain ends in a root that is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
    23: "it is revoked",
    24: "its issuer is no authority",
    26: "it is not for servers",
}


@frozen
class ClientTLS:
    """How to do TLS with one host. ``trust``: a PEM file of authorities, or None for the system's."""

    host: str
    verify: bool = False
    trust: Path | None = None

    def handshake(self) -> Handshake:
        """A handshake for one connection."""
        return Handshake(self.host, self.verify, _context(self.verify, self.trust))


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class Handshake:
    """One connection's TLS, before, during and after the handshake."""

    _host: str
    _verify: bool
    _context: SSL.Context
    _connection: SSL.Connection | None = field(default=None, init=False)
    _chain_seen: bool = field(default=False, init=False)
    _chain_fault: str | None = field(default=None, init=False)

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Called by Twisted when TLS begins."""
        connection = SSL.Connection(self._context, None)
        if self._verify:
            # Per connection: the app data, by which a context's callback would find us, is Twisted's own.
            connection.set_verify(SSL.VERIFY_PEER, self._note_chain)
        name = self._host.rstrip(".")
        if not _is_address(name):
            # By hand, since a host name with an underscore is refused elsewhere, and exists.
            connection.set_tlsext_host_name(name.encode("idna") if not name.isascii() else name.encode())
        self._connection = connection
        return connection

    def _note_chain(self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
        """OpenSSL's verify callback, called for each certificate of the chain: notes the first fault, and goes on."""
        self._chain_seen = True
        if not good and self._chain_fault is None:
            self._chain_fault = _CHAIN_FAULTS.get(error, f"its chain does not verify (OpenSSL's error {error})")
        return True

    @property
    def description(self) -> str:
        """Protocol version and cipher, like ``TLSv1.3 TLS_AES_256_GCM_SHA384``."""
        connection = self._connection
        return "" if connection is None else f"{connection.get_protocol_version_name()} {connection.get_cipher_name()}"

    def fault(self) -> str | None:
        """Why the peer's certificate isn't verified; None when it is."""
        if not self._verify:
            return NOT_JUDGED
        if self._chain_fault is not None or not self._chain_seen:
            return self._chain_fault or "its chain was not looked at"
        connection = self._connection
        certificate = None if connection is None else connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return "there is none"
        name = self._host.rstrip(".")
        try:
            if _is_address(name):
                verify_certificate_ip_address(certificate, name)
            else:
                verify_certificate_hostname(certificate, name)
        except (service_identity.VerificationError, service_identity.CertificateError):
            return f"it is not for {name}"
        except ValueError as error:
            return f"the name {name} can't be compared with it: {error}"
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=16)
def _context(verify: bool, trust: Path | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    if verify:
        if trust is None:
            context.set_default_verify_paths()
        else:
            context.load_verify_locations(str(trust))
    else:
        # Any TLS is better than the clear text that would be sent instead (RFC 7435 section 3), small keys too.
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    return context
