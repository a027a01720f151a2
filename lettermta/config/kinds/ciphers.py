"""The ciphers of TLS 1.2."""

from __future__ import annotations

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import listed, one

MODERN_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption, with ECDSA and RSA certificates (RFC 9325 section 4.2)."""


def _ciphers(text: str) -> str:
    ciphers = ":".join(listed(text))
    if ciphers == MODERN_CIPHERS:
        return ciphers  # most files leave the ciphers alone, and OpenSSL is slow to load
    from OpenSSL import SSL

    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_cipher_list(ciphers.encode())
    except SSL.Error:
        raise Wrong(text, "gives OpenSSL no cipher that it knows") from None
    return ciphers


CIPHERS = one(_ciphers, "OpenSSL names of ciphers for TLS 1.2, separated by colons (see openssl ciphers)")
