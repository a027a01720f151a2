"""The key file, and what is kept under it.

Tokens are found by a keyed digest, so that the database alone tells nobody whether a guess is right. What has to be had again (tokens, as
CRAM-MD5 computes with the password itself, RFC 2195 section 2; passwords for smarthosts) is sealed by ChaCha20-Poly1305 (RFC 8439) and
bound to its owner, so that a sealed value moved to another row doesn't open.

The key file holds 32 random octets and nothing else. It is made once, complete and synced before it has its name, so that a crash leaves
either no key or a whole one. One that group or others can read is not used. A lost key can't be replaced: tokens and passwords sealed
under it are lost with it, so it belongs in the backup, apart from the database.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from lettermta.accounts.errors import StorageDenied, StorageUnusable

KEY_SIZE = 32
_NONCE_SIZE = 12
_FORMAT = b"\x01"
"""Leads each sealed value, so that another cipher can follow."""


class Unsealable(Exception):
    """A sealed value doesn't open: it was altered, belongs to another owner, or the key is not the one it was sealed under."""


class Vault:
    """Digests and seals secrets under one key. Different uses have different subkeys, so none weakens another."""

    def __init__(self, key: bytes) -> None:
        self._lookup = self._subkey(key, b"look-up")
        self._cipher = ChaCha20Poly1305(self._subkey(key, b"sealing"))
        self.return_path_key = self._subkey(key, b"return path")
        """What return paths are signed with."""
        self.unsubscribe_key = self._subkey(key, b"links to unsubscribe")
        """What these are signed with."""
        self.fingerprint = self._subkey(key, b"fingerprint")
        """Tells this key from others, and gives nothing of it away."""

    @staticmethod
    def _subkey(key: bytes, use: bytes) -> bytes:
        return hmac.digest(key, b"lettermta accounts: " + use, "sha256")

    def digest(self, secret: bytes) -> bytes:
        """The HMAC-SHA256 that ``secret`` is found by."""
        return hmac.digest(self._lookup, secret, "sha256")

    def seal(self, secret: str, owner: str) -> bytes:
        """Encrypt ``secret`` for ``owner``."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        return _FORMAT + nonce + self._cipher.encrypt(nonce, secret.encode(), owner.encode())

    def unseal(self, sealed: bytes, owner: str) -> str:
        """What was sealed for ``owner``; raises :class:`Unsealable`."""
        if sealed[:1] != _FORMAT:
            raise Unsealable(f"what is kept of {owner} is in an unknown format")
        start = len(_FORMAT) + _NONCE_SIZE
        try:
            return self._cipher.decrypt(sealed[len(_FORMAT) : start], sealed[start:], owner.encode()).decode()
        except (InvalidTag, ValueError) as fault:
            raise Unsealable(f"what is kept of {owner} doesn't open under the key file") from fault


def token_owner(token_id: str) -> str:
    """The owner that a token's value is sealed for."""
    return f"token {token_id}"


def smarthost_owner(route_id: str) -> str:
    """The owner that a smarthost's password is sealed for."""
    return f"smarthost of route {route_id}"


def dkim_owner(key_id: str) -> str:
    """The owner that a domain's private key is sealed for."""
    return f"dkim key {key_id}"


def load_key(path: Path) -> bytes:
    """The key in the file ``path``; raises FileNotFoundError when there is none, StorageUnusable when it is not fit for use."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageUnusable(f"the key file {path} is not a regular file")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise StorageDenied(
                f"the key file {path} has mode {mode:04o}, so others than its owner may get at it: "
                f"run `chmod 600 {path}`, and if others did read it, make new tokens"
            )
        key = file.read(KEY_SIZE + 1)
    if len(key) != KEY_SIZE:
        raise StorageUnusable(f"the key file {path} does not hold {KEY_SIZE} octets: it is damaged, restore it from a backup")
    return key


def make_key(path: Path) -> bytes:
    """Make the key file unless there is one already, and load it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(descriptor)
        try:
            # A link, not a rename: of two that make the key at the same moment, the second has to take the first one's.
            os.link(draft, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)
    sync_directory(path.parent)
    return load_key(path)


def sync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
