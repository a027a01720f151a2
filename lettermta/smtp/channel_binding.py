"""What ties a login to the TLS channel that it is made on (RFC 5056), for the SCRAM mechanisms whose names end in -PLUS.

Both ends compute these octets by themselves and never send them in clear; whoever sits between two TLS connections has different ones
on each. Nothing here fails: a kind of binding that a channel does not have is None.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL

Binding = Callable[[str], bytes | None]
"""Gives the octets of a channel binding by its registered name, or None."""

NAMES = ("tls-exporter", "tls-server-end-point", "tls-unique")

_EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
_WEAK = (hashes.MD5, hashes.SHA1)


def no_binding(name: str) -> bytes | None:
    """The :data:`Binding` of a channel in clear: there is none."""
    return None


def offers_plus(binding: Binding) -> bool:
    """Whether a channel can bind a login at all, so that the -PLUS mechanisms are to be offered on it."""
    return any(binding(name) is not None for name in NAMES)


def channel_binding(connection: SSL.Connection) -> Binding:
    """The :data:`Binding` of a TLS connection, seen from the server, whose handshake is complete."""

    def binding(name: str) -> bytes | None:
        kind = _KINDS.get(name)
        return None if kind is None else kind(connection)

    return binding


def _exporter(connection: SSL.Connection) -> bytes | None:
    """tls-exporter (RFC 9266 section 2). On TLS 1.2 it needs the extended master secret, of which we aren't told: so on 1.3 alone."""
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None
    return connection.export_keying_material(_EXPORTER_LABEL, 32, b"")


def _unique(connection: SSL.Connection) -> bytes | None:
    """tls-unique (RFC 5929 section 3): the first Finished message, which is the client's in a full handshake. Not defined on TLS 1.3.

    A resumed session would begin with the server's instead; a login on one fails, and the client has to reconnect or to use another kind.
    """
    if connection.get_protocol_version_name() != "TLSv1.2":
        return None
    return connection.get_peer_finished()


def _end_point(connection: SSL.Connection) -> bytes | None:
    """tls-server-end-point (RFC 5929 section 4): our certificate under its signature's own hash, or SHA-256 in the place of a weak one."""
    certificate = connection.get_certificate(as_cryptography=True)
    if certificate is None:
        return None
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:
        return None  # a signature without a hash of its own, like Ed25519's, for which the section defines nothing
    if isinstance(algorithm, _WEAK):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate.public_bytes(serialization.Encoding.DER))
    return digest.finalize()


_KINDS: dict[str, Callable[[SSL.Connection], bytes | None]] = {
    "tls-exporter": _exporter,
    "tls-server-end-point": _end_point,
    "tls-unique": _unique,
}
