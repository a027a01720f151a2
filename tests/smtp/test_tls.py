"""TLS on the listening side: which certificate answers, what is refused, and the pair of a first start."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from OpenSSL import SSL
from twisted.internet.protocol import Protocol

from lettermta.config import ConfigError, load
from lettermta.smtp.tls import CertificatePair, ServerTLS, TLSFault, self_signed
from tests.smtp.memory_transport import MemoryTransport, TLSClient

Make = Callable[..., CertificatePair]


def write_key(path: Path, key: object, encryption: serialization.KeySerializationEncryption | None = None) -> Path:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption or serialization.NoEncryption()))  # type: ignore[attr-defined]
    path.chmod(0o600)
    return path


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a pair for names, ECDSA or with the key given."""

    def make_pair(*names: str, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None) -> CertificatePair:
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0] if names else "nobody")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), critical=False)
        stem = names[0].replace("*", "any") if names else "nobody"
        certificate = tmp_path / f"{stem}.crt"
        certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return CertificatePair(certificate, write_key(tmp_path / f"{stem}.key", key))

    return make_pair


def connect(tls: ServerTLS, name: str | None = None, context: SSL.Context | None = None) -> TLSClient:
    transport = MemoryTransport(Protocol())
    transport.startTLS(tls)
    return TLSClient(transport, name, context=context).handshake()


def answering(tls: ServerTLS, name: str | None) -> str:
    """The common name of the certificate that a client gets who asks for ``name``."""
    certificate = connect(tls, name).connection.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def test_the_name_that_is_asked_for_chooses_the_certificate(make: Make) -> None:
    """RFC 6066 section 3."""
    tls = ServerTLS([make("one.test"), make("Two.test", "also-two.test"), make("*.wild.test"), make()])
    for asked, answer in (
        (None, "one.test"),
        ("one.test", "one.test"),
        ("TWO.test", "Two.test"),
        ("also-two.test", "Two.test"),
        ("mail.wild.test", "*.wild.test"),
        ("a.mail.wild.test", "one.test"),
        ("unknown.test", "one.test"),
        ("nobody", "one.test"),
    ):
        assert answering(tls, asked) == answer, asked


def test_of_two_pairs_for_one_name_the_first_counts(make: Make, tmp_path: Path) -> None:
    first = make("one.test")
    second = make("two.test", "one.test")
    assert answering(ServerTLS([second, first]), "one.test") == "two.test"


def test_rsa_and_ecdsa_are_served_side_by_side_where_both_are_given(make: Make, tmp_path: Path) -> None:
    first = make("mta.test", key=rsa.generate_private_key(65537, 2048))
    rsa_pair = CertificatePair(first.certificate.rename(tmp_path / "rsa.crt"), first.private_key.rename(tmp_path / "rsa.key"))
    tls = ServerTLS([rsa_pair, make("mta.test")])
    for ciphers, kind in (
        (b"ECDHE-RSA-AES128-GCM-SHA256", rsa.RSAPublicKey),
        (b"ECDHE-ECDSA-AES128-GCM-SHA256", ec.EllipticCurvePublicKey),
    ):
        for name in ("mta.test", None):
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            context.set_cipher_list(ciphers)
            certificate = connect(tls, name, context).connection.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            assert isinstance(certificate.public_key(), kind)


def client(lowest: int, highest: int) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    # Else the client's own OpenSSL refuses what is old, and nothing would be tried.
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(lowest)
    context.set_max_proto_version(highest)
    return context


def test_old_versions_are_refused(make: Make) -> None:
    tls = ServerTLS([make("one.test")])
    for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
        with pytest.raises(SSL.Error, match="protocol version"):
            connect(tls, context=client(version, version))
    for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
        assert connect(tls, context=client(version, version)).connection.get_protocol_version_name() == name


def test_the_lowest_version_can_be_raised(make: Make) -> None:
    pairs = [make("one.test"), make("two.test")]
    tls = ServerTLS(pairs, minimum="TLSv1.3")
    for name in ("one.test", "two.test"):
        with pytest.raises(SSL.Error, match="protocol version"):
            connect(tls, name, client(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION))


def test_ciphers_of_tls_1_2_can_be_chosen(make: Make) -> None:
    tls = ServerTLS([make("one.test")], ciphers="ECDHE-ECDSA-CHACHA20-POLY1305")
    context = client(SSL.TLS1_2_VERSION, SSL.TLS1_2_VERSION)
    assert connect(tls, context=context).connection.get_cipher_name() == "ECDHE-ECDSA-CHACHA20-POLY1305"


def test_a_session_is_resumed_on_its_own_listener_alone(make: Make) -> None:
    """HARD-CASES row 5: each listener has ticket keys of its own."""
    pair = make("one.test")
    here, there = ServerTLS([pair], listener="submission"), ServerTLS([pair], listener="smtp")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    first = _with_python(here, context, None)
    assert first.session is not None
    assert first.session.has_ticket
    assert _with_python(here, context, first.session).session_reused
    assert not _with_python(there, context, first.session).session_reused


def test_what_the_key_file_gives_away_is_refused_by_its_mode(make: Make) -> None:
    pair = make("one.test")
    for mode in (0o604, 0o644, 0o620):
        pair.private_key.chmod(mode)
        with pytest.raises(TLSFault, match=f"one.test.key: its mode 0{mode:o} lets others use the private key: chmod 0600 or 0640"):
            ServerTLS([pair])
    for mode in (0o600, 0o400, 0o640):
        pair.private_key.chmod(mode)
        assert answering(ServerTLS([pair]), None) == "one.test"


def _with_python(tls: ServerTLS, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLObject:
    """A handshake by Python's own client, which can tell about sessions."""
    transport = MemoryTransport(Protocol())
    transport.startTLS(tls)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, session=session)
    for _ in range(10):
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            transport.receive(outgoing.read())
            incoming.write(transport.sent)
            transport.sent = b""
    return connection


def test_the_whole_chain_is_sent(make: Make) -> None:
    pair, issuer = make("one.test"), make("issuer.test")
    pair.certificate.write_bytes(pair.certificate.read_bytes() + issuer.certificate.read_bytes())
    chain = connect(ServerTLS([pair])).connection.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    assert [certificate.subject.rfc4514_string() for certificate in chain] == ["CN=one.test", "CN=issuer.test"]


def fault(pair: CertificatePair) -> str:
    with pytest.raises(TLSFault) as caught:
        ServerTLS([pair])
    return str(caught.value)


def test_what_can_not_be_used_is_named_with_the_reason(make: Make, tmp_path: Path) -> None:
    good, other = make("one.test"), make("two.test")
    missing, rubbish = tmp_path / "missing.pem", tmp_path / "rubbish.pem"
    rubbish.write_text("-----BEGIN RUBBISH-----\n")
    rubbish.chmod(0o600)
    protected = write_key(tmp_path / "protected.key", ec.generate_private_key(ec.SECP256R1()), serialization.BestAvailableEncryption(b"x"))
    wrong_sort = write_key(tmp_path / "dsa.key", dsa.generate_private_key(1024))
    assert fault(CertificatePair(good.certificate, other.private_key)).startswith(
        f"{other.private_key}: not the private key of {good.certificate}"
    )
    assert fault(CertificatePair(good.certificate, missing)) == f"{missing}: No such file or directory"
    assert fault(CertificatePair(good.certificate, tmp_path)) == f"{tmp_path}: Is a directory"
    assert fault(CertificatePair(good.certificate, rubbish)) == f"{rubbish}: no PEM private key could be read"
    assert fault(CertificatePair(good.certificate, protected)).startswith(f"{protected}: the private key is encrypted")
    assert fault(CertificatePair(good.certificate, wrong_sort)).startswith(f"{wrong_sort}: this sort of private key is not for TLS")
    assert fault(CertificatePair(missing, good.private_key)) == f"{missing}: No such file or directory"
    assert fault(CertificatePair(rubbish, good.private_key)) == f"{rubbish}: no PEM certificate could be read"
    assert fault(CertificatePair(good.private_key, good.private_key)) == f"{good.private_key}: no PEM certificate could be read"
    with pytest.raises(TLSFault):
        ServerTLS([])


def leaf(pair: CertificatePair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def test_the_self_signed_pair_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "tls"
    pair = self_signed(directory, "mta.test")
    made = [file.read_bytes() for file in (pair.certificate, pair.private_key)]
    assert self_signed(directory, "other.test") == pair
    assert [file.read_bytes() for file in (pair.certificate, pair.private_key)] == made
    assert sorted(file.name for file in directory.iterdir()) == ["self-signed.crt", "self-signed.key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_the_self_signed_pair_works(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "mta.test")
    assert answering(ServerTLS([pair]), "mta.test") == "mta.test"
    now = datetime.datetime.now(datetime.UTC)
    certificate = leaf(pair)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(hours=1)
    assert certificate.not_valid_after_utc > now + datetime.timedelta(days=365)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert not constraints.value.ca


@pytest.mark.parametrize(
    ("hostname", "name"),
    [
        ("mta.example.com", x509.DNSName("mta.example.com")),
        ("localhost", x509.DNSName("localhost")),
        ("x" * 63 + ".example.com", x509.DNSName("x" * 63 + ".example.com")),
        ("[192.0.2.1]", x509.IPAddress(ipaddress.ip_address("192.0.2.1"))),
        ("[IPv6:2001:db8::1]", x509.IPAddress(ipaddress.ip_address("2001:db8::1"))),
    ],
)
def test_every_host_name_that_the_configuration_takes_gets_its_certificate(tmp_path: Path, hostname: str, name: x509.GeneralName) -> None:
    file = tmp_path / "mta.ini"
    file.write_text(f"[mta]\nhostname = {hostname}\n[listener here]\nports = 2525\n")
    pair = self_signed(tmp_path, load(file).mta.hostname)
    names = leaf(pair).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [name]
    connect(ServerTLS([pair]))


def test_a_bare_address_is_no_host_name(tmp_path: Path) -> None:
    file = tmp_path / "mta.ini"
    file.write_text("[mta]\nhostname = 127.0.0.1\n[listener here]\nports = 2525\n")
    with pytest.raises(ConfigError):
        load(file)


def test_a_pair_of_which_half_is_there_is_made_anew(tmp_path: Path) -> None:
    pair = self_signed(tmp_path, "mta.test")
    for half in (pair.certificate, pair.private_key):
        half.unlink()
        assert self_signed(tmp_path, "mta.test") == pair
        connect(ServerTLS([pair]))
