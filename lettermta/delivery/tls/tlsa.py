"""TLSA records, and what they say of a certificate chain (RFC 6698, 7671, 7672 section 3).

For mail only DANE-TA(2) and DANE-EE(3) are of use (RFC 7672 section 3.1.3); selectors are Cert(0) and SPKI(1), matching types Full(0),
SHA2-256(1) and SHA2-512(2). Everything else is unusable, and is passed over.

A trust anchor has to be in the chain that the server sends, or its whole certificate in the record; of a bare key (2 1 0) that is in no
certificate of the chain nothing is made (RFC 7672 section 3.1.2 asks servers to send it).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from attrs import field, frozen
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509 import Certificate, DNSName, ExtensionNotFound, SubjectAlternativeName, load_der_x509_certificate
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, DNSPattern, verify_service_identity
from zope.interface import implementer

from lettermta.smtp.client_tls import CHAIN_FAULTS, HOST_MISMATCH, NOT_TRUSTED, VALIDATION_FAILURE, Fault, IJudge, name_fault

DANE_TA, DANE_EE = 2, 3
_CERTIFICATE, _KEY = 0, 1
_FULL, _SHA256, _SHA512 = 0, 1, 2
_DIGEST_SIZES = {_SHA256: 32, _SHA512: 64}


@frozen
class TLSA:
    """One record (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"

    @property
    def usable(self) -> bool:
        """Whether it can tell a certificate at all."""
        if self.usage not in (DANE_TA, DANE_EE) or self.selector not in (_CERTIFICATE, _KEY):
            return False
        if self.matching != _FULL:
            return len(self.data) == _DIGEST_SIZES.get(self.matching)
        try:
            load_der_x509_certificate(self.data) if self.selector == _CERTIFICATE else load_der_public_key(self.data)
        except Exception:  # whatever the parser trips over, a stranger wrote it
            return False
        return True

    def matches(self, certificate: Certificate) -> bool:
        """Whether it is this certificate, or this key, that the record tells."""
        if self.selector == _CERTIFICATE:
            told = certificate.public_bytes(Encoding.DER)
        else:
            told = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if self.matching == _FULL:
            return told == self.data
        return hashlib.new("sha256" if self.matching == _SHA256 else "sha512", told).digest() == self.data

    def anchors(self, chain: Sequence[Certificate]) -> list[Certificate]:
        """The certificates that the record makes trust anchors."""
        found = [certificate for certificate in chain if self.matches(certificate)]
        if not found and self.matching == _FULL and self.selector == _CERTIFICATE:
            found = [load_der_x509_certificate(self.data)]
        return found


def usable(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """Those that count: of digests of the same thing the strongest alone, so that a weak one can't be leaned on (RFC 7671 section 9)."""
    good = [record for record in records if record.usable]
    strongest: dict[tuple[int, int], int] = {}
    for record in good:
        thing = (record.usage, record.selector)
        strongest[thing] = max(strongest.get(thing, _FULL), record.matching)
    kept = {record for record in good if record.matching in (_FULL, strongest[record.usage, record.selector])}
    return tuple(sorted(kept, key=lambda record: (record.usage, record.selector, record.matching, record.data)))


@implementer(IJudge)
@frozen
class DANE:
    """By TLSA records, which are all usable. ``names``: what a certificate under a trust anchor may be for, one of them."""

    records: tuple[TLSA, ...]
    names: tuple[str, ...]
    roots: bool = field(default=False, init=False)

    def fault(self, chain: list[Certificate], unrooted: Fault | None) -> Fault | None:
        """See IJudge. With DANE-EE neither names nor dates count (RFC 7672 section 3.1.1); with DANE-TA both do (section 3.1.2)."""
        told = Fault(VALIDATION_FAILURE, "none of the TLSA records matches it")
        for record in self.records:
            if record.usage == DANE_EE and record.matches(chain[0]):
                return None
        for record in self.records:
            if record.usage != DANE_TA:
                continue
            for anchor in record.anchors(chain):
                fault = _chain_fault(chain, anchor) or _fault_of_names(chain[0], self.names)
                if fault is None:
                    return None
                told = fault
        return told


def _fault_of_names(certificate: Certificate, names: tuple[str, ...]) -> Fault | None:
    """Why the certificate is for none of the names; None when it is for one. In one that has no DNS name among its alternative names the
    common name counts as such (RFC 7672 section 3.2.3), which it does nowhere else.
    """
    fault = name_fault(certificate, names)
    if fault is None or fault.kind != HOST_MISMATCH or _dns_names(certificate):
        return fault
    told = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return None if any(_is_for(common, name.rstrip(".")) for common in told for name in names) else fault


def _dns_names(certificate: Certificate) -> list[str]:
    try:
        return certificate.extensions.get_extension_for_class(SubjectAlternativeName).value.get_values_for_type(DNSName)
    except ExtensionNotFound:
        return []


def _is_for(common_name: str, name: str) -> bool:
    try:
        verify_service_identity([DNSPattern.from_bytes(common_name.encode())], [DNS_ID(name)], [])
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


def _chain_fault(chain: Sequence[Certificate], anchor: Certificate) -> Fault | None:
    """Why the chain does not lead to the anchor; None when it does. The anchor need not be self-signed."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.add_cert(crypto.X509.from_cryptography(anchor))
    others = [crypto.X509.from_cryptography(certificate) for certificate in chain[1:]]
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(chain[0]), others).verify_certificate()
    except crypto.X509StoreContextError as error:
        code = error.errors[0] if error.errors else 0
        return CHAIN_FAULTS.get(code, Fault(NOT_TRUSTED, f"it does not lead to its trust anchor (OpenSSL's error {code})"))
    return None
