"""TLS for the listening side: certificates, SNI, and the self-signed pair of a first start.

A context is made once per certificate pair; which one answers is decided by the name that the client asks for (RFC 6066 section 3),
else the first. Sessions and tickets are off: with ECDSA keys they save little, and tickets must never cross listeners (HARD-CASES row 5).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from lettermta.smtp.grammar import address_literal

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MINIMUM = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


class TLSFault(Exception):
    """A certificate or key can't be used; the text names the file and the reason."""


@frozen
class CertificatePair:
    """A PEM file with the certificate and its chain, and one with its private key."""

    certificate: Path
    private_key: Path


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's side of TLS connections from one or more certificate pairs."""

    def __init__(self, pairs: Sequence[CertificatePair], minimum: str = "TLSv1.2", ciphers: str | None = None) -> None:
        self._contexts: dict[str, SSL.Context] = {}
        first: SSL.Context | None = None
        ends: list[float] = []
        for pair in pairs:
            chain = _chain(pair.certificate)
            ends.append(chain[0].not_valid_after_utc.timestamp())
            context = _context(pair, chain, MINIMUM[minimum], ciphers)
            first = first or context
            for name in _names(chain[0]):
                self._contexts.setdefault(name, context)
        if first is None:
            raise TLSFault("no certificate is given")
        self._default = first
        self.expires = min(ends)
        """When the first of the certificates expires, in wall-clock seconds."""
        first.set_tlsext_servername_callback(self._choose)

    def _choose(self, connection: SSL.Connection) -> None:
        asked = connection.get_servername()
        if asked is None:
            return
        name = asked.decode("ascii", "replace").lower()
        context = self._contexts.get(name) or self._contexts.get("*." + name.partition(".")[2])
        if context is not None:
            connection.set_context(context)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """See IOpenSSLServerConnectionCreator."""
        return SSL.Connection(self._default, None)


def _chain(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, the server's own first."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise TLSFault(f"{path}: {error.strerror}") from None
    except ValueError:
        raise TLSFault(f"{path}: no PEM certificate could be read") from None


def _context(pair: CertificatePair, chain: Sequence[x509.Certificate], minimum: int, ciphers: str | None) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(minimum)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_SINGLE_ECDH_USE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
    except SSL.Error as error:
        raise TLSFault(f"{pair.certificate}: OpenSSL refuses the certificate: {_reason(error)}") from None
    try:
        context.use_privatekey(_private_key(pair.private_key))
        context.check_privatekey()
    except SSL.Error as error:
        raise TLSFault(f"{pair.private_key}: not the private key of {pair.certificate}: {_reason(error)}") from None
    return context


def _private_key(path: Path) -> _PrivateKey:
    """The key in a PEM file. OpenSSL's own loading would ask for the passphrase of an encrypted one on the terminal, and wait there."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise TLSFault(f"{path}: {error.strerror}") from None
    except TypeError:
        raise TLSFault(f"{path}: the private key is encrypted; lettermta needs one without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TLSFault(f"{path}: no PEM private key could be read") from None
    if not isinstance(key, _PrivateKey):
        raise TLSFault(f"{path}: this sort of private key is not for TLS; RSA, ECDSA or Ed25519 is")
    return key


def _reason(error: SSL.Error) -> str:
    return "; ".join(entry[2] for entry in error.args[0]) if error.args and error.args[0] else "unreadable"


def _names(leaf: x509.Certificate) -> list[str]:
    """The DNS names of a certificate, in lower case."""
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def self_signed(directory: Path, hostname: str) -> CertificatePair:
    """The self-signed pair under ``directory``, made at the first call: for a first start only, since clients that verify refuse it."""
    pair = CertificatePair(directory / "self-signed.crt", directory / "self-signed.key")
    if pair.certificate.exists() and pair.private_key.exists():
        return pair
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    # The common name is bounded to 64 characters (RFC 5280, ub-common-name); verifiers look at the alternative name.
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([_alternative_name(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_private(pair.private_key, private)
    _write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return pair


def _alternative_name(hostname: str) -> x509.GeneralName:
    """A host name, or the address of a literal like ``[192.0.2.1]`` (RFC 5321 section 4.1.3), as certificates have it."""
    address = address_literal(hostname)
    return x509.DNSName(hostname) if address is None else x509.IPAddress(ipaddress.ip_address(address))


def _write_private(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 that is whole or not there at all."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
