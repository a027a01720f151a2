"""Certificates for tests: a root, an intermediate, servers under them, with the faults that a test wants."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from lettermta.delivery.tls.tlsa import TLSA

_DAY = datetime.timedelta(days=1)


@frozen
class Signed:
    """A certificate with its key and those that it was issued by, the nearest first."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> list[x509.Certificate]:
        """As a server sends it."""
        return [self.certificate, *self.above]

    def pem(self, *, key_first: bool = False) -> bytes:
        """The chain and the key in PEM."""
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in self.chain)
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + chain if key_first else chain + key

    def write(self, path: Path, *, key_first: bool = False) -> Path:
        """The same as a file that only its owner reads."""
        path.touch(mode=0o600)
        path.write_bytes(self.pem(key_first=key_first))
        return path

    def tlsa(self, usage: int, selector: int, matching: int) -> TLSA:
        """The record that tells this certificate."""
        told = self.certificate.public_bytes(Encoding.DER)
        if selector == 1:
            told = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if matching:
            digest = hashes.Hash(hashes.SHA256() if matching == 1 else hashes.SHA512())
            digest.update(told)
            told = digest.finalize()
        return TLSA(usage, selector, matching, told)

    def issue(self, *names: str, days: int = 30, authority: bool = False, common: str = "a server") -> Signed:
        """One that this one signs; ``days`` from now on until it expires. Without names it is for its ``common`` name alone."""
        above = self.chain if self.above or self.certificate.issuer != self.certificate.subject else [self.certificate]
        return _made(names, days, authority, self, tuple(above), common)


def root(name: str = "a root") -> Signed:
    """A self-signed authority."""
    return _made((name,), 30, True, None, ())


def alone(*names: str, days: int = 30) -> Signed:
    """A self-signed certificate of a server."""
    return _made(names, days, False, None, ())


def _made(
    names: tuple[str, ...], days: int, authority: bool, issuer: Signed | None, above: tuple[x509.Certificate, ...], common: str = "a server"
) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0] if authority else common)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * _DAY)
        .not_valid_after(now + days * _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    if names and not authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
    return Signed(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key, above)


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)
