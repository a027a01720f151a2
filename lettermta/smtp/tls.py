"""TLS for the listening side: certificates, SNI, and the self-signed pair of a first start.

A context is made for each name that certificates are given for; which one answers is decided by the name that the client asks for
(RFC 6066 section 3), else the first. Where an RSA and an ECDSA certificate are given for the same names, one context serves both and
the client's ciphers decide. Each listener has contexts, and so ticket keys, of its own: a session of one is never resumed on another
(HARD-CASES row 5).
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import stat
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
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.smtp.grammar import address_literal

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

MINIMUM = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


class TLSFault(Exception):
    """A certificate or key can't be used; the text names the file and the reason."""


class KeyFault(TLSFault):
    """The same, and it is the private key."""


@frozen
class CertificatePair:
    """A PEM file with the certificate and its chain, and one with its private key."""

    certificate: Path
    private_key: Path


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes the server's side of TLS connections from one or more certificate pairs, for one listener."""

    def __init__(
        self, pairs: Sequence[CertificatePair], minimum: str = "TLSv1.2", ciphers: str | None = None, listener: str = "smtp"
    ) -> None:
        self._contexts: dict[str, SSL.Context] = {}
        served: list[tuple[frozenset[str], set[type], SSL.Context]] = []
        ends: list[float] = []
        for pair in pairs:
            leaf, key = _chain(pair.certificate)[0], _private_key(pair.private_key)
            ends.append(leaf.not_valid_after_utc.timestamp())
            names = frozenset(_names(leaf))
            context = next((context for its, kinds, context in served if its == names and type(key) not in kinds), None)
            if context is None:
                context = _context(MINIMUM[minimum], ciphers, listener)
                served.append((names, set(), context))
            _use(context, pair, key)
            next(kinds for _, kinds, its in served if its is context).add(type(key))
            for name in names:
                self._contexts.setdefault(name, context)
        if not served:
            raise TLSFault("no certificate is given")
        self._default = served[0][2]
        self.expires = min(ends)
        """When the first of the certificates expires, in wall-clock seconds."""
        self._default.set_tlsext_servername_callback(self._choose)

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


def _context(minimum: int, ciphers: str | None, listener: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(minimum)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_SINGLE_ECDH_USE)
    # Tickets alone: they are kept by the client, so resuming costs no memory here.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(hashlib.sha256(listener.encode()).digest()[:32])
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    return context


def _use(context: SSL.Context, pair: CertificatePair, key: _PrivateKey) -> None:
    """Serve a pair by a context, beside those of other kinds of keys that it serves already."""
    try:
        context.use_certificate_chain_file(str(pair.certificate))
    except SSL.Error as error:
        raise TLSFault(f"{pair.certificate}: OpenSSL refuses the certificate: {_reason(error)}") from None
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise KeyFault(f"{pair.private_key}: not the private key of {pair.certificate}: {_reason(error)}") from None


def _private_key(path: Path) -> _PrivateKey:
    """The key in a PEM file. OpenSSL's own loading would ask for the passphrase of an encrypted one on the terminal, and wait there."""
    try:
        mode = path.stat().st_mode
        # A group that may read it is how distributions let several services share one (ssl-cert).
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise KeyFault(f"{path}: its mode {stat.S_IMODE(mode):04o} lets others use the private key: chmod 0600 or 0640")
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise KeyFault(f"{path}: {error.strerror}") from None
    except TypeError:
        raise KeyFault(f"{path}: the private key is encrypted; lettermta needs one without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault(f"{path}: no PEM private key could be read") from None
    if not isinstance(key, _PrivateKey):
        raise KeyFault(f"{path}: this sort of private key is not for TLS; RSA, ECDSA or Ed25519 is")
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


_CAUSES = (
    ("clear_on_tls_port", ("http request", "wrong version number", "packet length too long", "record layer failure", "unknown protocol")),
    ("version", ("unsupported protocol", "version too low", "no protocols available", "inappropriate fallback")),
    ("cipher", ("no shared cipher", "no suitable", "no cipher")),
    (
        "certificate",
        ("alert unknown ca", "alert bad certificate", "alert certificate", "certificate unknown", "unknown ca", "bad certificate"),
    ),
)
"""OpenSSL's reasons, as they begin to differ by version, for each cause that the counters know."""


def failure_cause(reason: Failure) -> str:
    """Why a handshake came to nothing, as the counters call it; ``reason`` is that of the connection's end."""
    error = reason.value
    if not isinstance(error, SSL.Error):
        return "closed"
    said = " ".join(str(entry[-1]) for entry in (error.args[0] if error.args else ())).lower()
    return next((cause for cause, words in _CAUSES if any(word in said for word in words)), metrics.OTHER)
