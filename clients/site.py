"""A daemon that clients submit to, a receiver behind it, and what became of one message on its way through both."""

from __future__ import annotations

import datetime
import email
import email.policy
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from clients import running
from clients.document import Section
from clients.running import Ran
from tests.system.program import Program
from tests.system.site import Daemon, Receiver, free_port, write_ini

HOST = "localhost"
INVOICE = b"%PDF-1.4\n" + bytes(range(256)) * 40 + b"\r\n.\r\n"
"""Octets that come through only when they were encoded and decoded."""


@frozen
class Delivery:
    """One message at the end of its way."""

    envelope: Mapping[str, Any]
    message: EmailMessage
    login: str
    """The mechanism that the client logged in with."""
    events: Sequence[Mapping[str, Any]]


class ClientSite:
    """All of it. Clients are to be run one at a time: the log tells by its order which login a message came by."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = directory / "authority.pem"
        self.starttls, self.implicit, self.either = free_port(), free_port(), free_port()
        self._running: list[Program | Daemon] = []
        self._numbers = itertools.count(1)

    def start(self) -> None:
        """Start everything; what did start is gone after ``dispose``, also when something else did not."""
        certificate, key = _certify(self.directory, self.authority)
        relay, log = free_port(), self.directory / "events.jsonl"
        log.touch()
        config = write_ini(
            self.directory / "mta.ini",
            {
                "mta": {"hostname": HOST, "state_dir": "state"},
                "tls": {"certificate": str(certificate), "private_key": str(key)},
                "listener submission": {"ports": str(self.starttls), "addresses": "127.0.0.1", "security": "starttls"},
                "listener submissions": {"ports": str(self.implicit), "addresses": "127.0.0.1", "security": "tls"},
                "listener either": {"ports": str(self.either), "addresses": "127.0.0.1", "security": "auto"},
                "delivery": {"relayhost": f"127.0.0.1:{relay}", "allow_networks": "127.0.0.0/8"},
                "events": {"json_log": str(log)},
            },
        )
        self.receiver = Receiver("127.0.0.1", relay)
        self._running.append(self.receiver)
        self.told = Program(["tail", "-n", "+1", "-s", "0.1", "-F", str(log)])
        self._running.append(self.told)
        self.daemon = Daemon(self.directory, config, self.starttls, {})
        self._running.append(self.daemon)
        self.daemon.admin("project", "create", "shop")
        self.daemon.token = self.daemon.admin("token", "create", "--project", "shop")
        self.daemon.start()

    def dispose(self) -> None:
        """Leave nothing running."""
        for each in reversed(self._running):
            each.dispose()

    def send(
        self, section: Section, purposes: Sequence[str], port: int, *, token: str = "", authority: Path | None = None, **changes: str
    ) -> tuple[str, Ran]:
        """Run a section's code, changed as its table says for ``purposes``; returns the recipient that it sent to, and how it ended."""
        number = next(self._numbers)
        recipient = f"joerg-{number}@example.net"
        folder = self.directory / f"run-{number}"
        folder.mkdir()
        (folder / "invoice.pdf").write_bytes(INVOICE)
        told = {
            r"mta\.example\.com": HOST,
            r"\b(587|465)\b": str(port),
            "YOUR-TOKEN": token or self.daemon.token,
            r"joerg@example\.net": recipient,
            "/etc/ssl/certs/ca-certificates.crt": str(authority or "/etc/ssl/certs/ca-certificates.crt"),
            **changes,
        }
        files = section.changed(*purposes)
        for pattern, new in told.items():
            files = {name: re.sub(pattern, new, text) for name, text in files.items()}
        return recipient, running.run(section.title, folder, files, authority)

    def delivered(self, recipient: str) -> Delivery:
        """What became of the one message for ``recipient``."""
        [envelope] = self.receiver.messages(where=lambda message: message["recipients"] == [recipient])
        message = email.message_from_bytes(envelope["content"], policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        identifier = re.search(r"\bid (\S+);", message["Received"])
        assert identifier is not None, message["Received"]
        return Delivery(envelope, message, self._login(identifier[1]), self._events(identifier[1]))

    def _login(self, identifier: str) -> str:
        """The mechanism of the last login before a message was queued."""

        def found(lines: Sequence[str]) -> str | None:
            at = next((number for number, line in enumerate(lines) if f"{identifier}: queued" in line), None)
            if at is None:
                return None
            return str(re.findall(r"logged in by (\S+)", "\n".join(lines[:at]))[-1])

        return self.daemon.running.until(found, f"a line that {identifier} is queued")

    def _events(self, identifier: str) -> list[dict[str, Any]]:
        """The events of a message, once the last one is told."""

        def found(lines: Sequence[str]) -> list[dict[str, Any]] | None:
            documents = [json.loads(line) for line in lines if identifier in line]
            return documents if any(document["event"] == "message.delivered" for document in documents) else None

        return self.told.until(found, f"message.delivered of {identifier}")


def _certify(directory: Path, authority: Path) -> tuple[Path, Path]:
    """An authority of the test's own, and the chain and key that it gives to ``localhost``."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lettermta's tests")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    begun = (
        x509.CertificateBuilder()
        .issuer_name(root_name)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
    usage = x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **dict.fromkeys(unused, False))
    root = (
        begun.subject_name(root_name)
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        begun.subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    certificate, private = directory / "localhost.pem", directory / "localhost.key"
    certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return certificate, private
