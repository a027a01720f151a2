"""A domain's keys for DKIM: how they are made, and what the DNS is to say of them (RFC 6376 section 3.6.1, RFC 8463 section 3).

They come in pairs, RSA of 2048 bits for everyone (RFC 8301 section 3.2) and Ed25519 beside it, each under a selector of its own that no
other key has: several projects, or two installations, may sign for one domain and publish in its zone. Making a pair takes some tenths
of a second, nearly all of it the RSA key.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Sequence

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_der_private_key

from lettermta.accounts.model import DomainKey, KeyAlgorithm, KeyState
from lettermta.accounts.vault import Unsealable, Vault, dkim_owner
from lettermta.message import new_id

RSA_BITS = 2048
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
"""What a selector's random part is made of: nothing that is taken for something else when it is read out."""
_RANDOM = 6

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


def new_pair(domain_id: str, state: KeyState, vault: Vault) -> Sequence[DomainKey]:
    """A new RSA key and a new Ed25519 key."""
    now = time.time()
    stem = time.strftime("lm%Y%m-", time.gmtime(now)) + "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM))
    made = ((KeyAlgorithm.RSA, generate_private_key(65537, RSA_BITS)), (KeyAlgorithm.ED25519, Ed25519PrivateKey.generate()))
    return [_sealed(domain_id, f"{stem}-{algorithm}", algorithm, state, key, now, vault) for algorithm, key in made]


def _sealed(
    domain_id: str, selector: str, algorithm: KeyAlgorithm, state: KeyState, key: PrivateKey, now: float, vault: Vault
) -> DomainKey:
    identifier = new_id()
    private = base64.b64encode(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())).decode()
    return DomainKey(identifier, domain_id, selector, algorithm, state, _public(key), vault.seal(private, dkim_owner(identifier)), now)


def _public(key: PrivateKey) -> str:
    if isinstance(key, RSAPrivateKey):
        octets = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        octets = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(octets).decode()


def private_key(key: DomainKey, vault: Vault) -> PrivateKey:
    """The private part; raises Unsealable when it is gone or damaged.

    The vault vouches for it, so the checks that loading makes of RSA keys, 29 ms of them, are left out.
    """
    if key.sealed is None:
        raise Unsealable(f"the private part of {dkim_owner(key.id)} is gone")
    try:
        der = base64.b64decode(vault.unseal(key.sealed, dkim_owner(key.id)))
        loaded = load_der_private_key(der, None, unsafe_skip_rsa_key_validation=True)
    except ValueError as fault:
        raise Unsealable(f"what is kept of {dkim_owner(key.id)} is no private key") from fault
    assert isinstance(loaded, RSAPrivateKey | Ed25519PrivateKey)
    return loaded


def retired(key: DomainKey, now: float) -> DomainKey:
    """The key when it signs no more: its private part is forgotten."""
    return evolve(key, state=KeyState.RETIRED, sealed=None, retired=now)
