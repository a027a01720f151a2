"""This machine: its name, its folder, its certificates."""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterable
from pathlib import Path

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.schema.declaring import Section, key


def _machine_name() -> str:
    return socket.gethostname()  # and not getfqdn(), which asks DNS and may block


class TLSVersion(enum.StrEnum):
    """The TLS versions that may be the lowest."""

    V1_2 = "TLSv1.2"
    V1_3 = "TLSv1.3"


class Mta(Section):
    """This machine and this process."""

    hostname: str = key(
        kinds.HOSTNAME,
        "The name in the banner, in EHLO and in Received. Receivers want it to be public and to agree with reverse DNS.",
        default=_machine_name,
        shown="this machine's name",
        example="mta.example.com",
        postfix="myhostname",
    )
    state_dir: Path = key(
        kinds.PATH,
        "The folder for spool, accounts, keys and the control socket, on a local disk. lettermta must be able to write it.",
        default="/var/lib/lettermta",
        postfix="queue_directory, data_directory",
    )
    workers: int = key(kinds.WORKERS, "Number of processes. Only 1 works as of now.", default="1")


class Tls(Section):
    """Encryption on the way in.

    Without a certificate, a self-signed one is made under state_dir at the first start: good enough to try things, refused by clients
    that verify.
    """

    certificate: tuple[Path, ...] = key(
        kinds.FILES,
        "PEM files, each with a certificate and its chain. Several are chosen from by the name that the client asks for (SNI).",
        default="",
        example="/etc/lettermta/fullchain.pem",
        postfix="smtpd_tls_chain_files, smtpd_tls_cert_file",
    )
    private_key: tuple[Path, ...] = key(
        kinds.FILES,
        "PEM files with the certificates' private keys, in the same order, of mode 0600 or 0640. RSA and ECDSA pairs for the same names "
        "are both served.",
        default="",
        example="/etc/lettermta/privkey.pem",
        postfix="smtpd_tls_key_file",
    )
    minimum: TLSVersion = key(
        kinds.choice(TLSVersion), "The lowest TLS version that clients may use.", default="TLSv1.2", postfix="smtpd_tls_protocols"
    )
    ciphers: str = key(
        kinds.CIPHERS,
        "The ciphers for TLS 1.2; those of TLS 1.3 are all good.",
        default=kinds.MODERN_CIPHERS,
        postfix="tls_high_cipherlist",
    )

    def objections(self) -> Iterable[Objection]:
        """Certificates and keys come in pairs."""
        certificates, keys = len(self.certificate), len(self.private_key)
        if certificates != keys:
            yield Objection(
                "private_key" if keys else "certificate",
                f"the number of certificates is {certificates}, that of private keys {keys}",
                "one private_key for each certificate, in the same order",
            )
