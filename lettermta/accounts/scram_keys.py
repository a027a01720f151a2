"""The keys that SCRAM verifies with (RFC 5802 section 3), for every live token under every configured user name.

All tokens share the user names, so the server can't know whose proof comes: each live token's keys are tried. They cost a millisecond of
PBKDF2 a token, so they are made off the reactor's thread, once for a token and a name, and kept as long as the token lives; a token that
is new has to wait for its own keys alone. Salts come from the key file, differ by name, are the same at every start, and a name that
nobody configured has one too, so that neither they nor the time of an answer tell which names exist.

How it can fail: what the thread raises, the Deferred fails with. No key and no secret is logged or shown.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock, succeed

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Token

ITERATIONS = 4096
"""What RFC 7677 section 4 asks for at least. More would protect passwords that can be guessed; tokens can't."""
MOST_TOKENS = 5000
"""Live tokens above which each login would cost too much."""
_BATCH = 64
"""Tokens whose keys are made in one go, so that a thread of the pool is held for a tenth of a second at a time."""

Keys = tuple[bytes, bytes]
"""StoredKey and ServerKey."""
Verify = Callable[[bytes, bytes], bool]
Threaded = Callable[..., "Deferred[Any]"]
"""Runs a function off the reactor's thread."""


def derive(secret: bytes, salt: bytes, iterations: int = ITERATIONS, digest: str = "sha256") -> Keys:
    """StoredKey and ServerKey of a password in printable ASCII; takes a millisecond for 4096 iterations, without the interpreter's lock."""
    salted = hashlib.pbkdf2_hmac(digest, secret, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", digest)
    return hashlib.new(digest, client_key).digest(), hmac.digest(salted, b"Server Key", digest)


class ScramKeys:
    """Salts for everyone, and the token that a proof was made with. ``usernames`` are those that may log in, at least one."""

    def __init__(self, directory: Directory, usernames: Sequence[str], threaded: Threaded) -> None:
        self._directory = directory
        self._threaded = threaded
        self._tables = {name.encode(): _Table(directory.scram_salt(name.encode())) for name in usernames}
        self._decoy = next(iter(self._tables.values()))

    def challenge(self, username: bytes) -> tuple[bytes, int]:
        """Salt and iteration count of any user name, configured or not."""
        return self._directory.scram_salt(username), ITERATIONS

    def possible(self) -> bool:
        """Whether SCRAM can succeed for each live token, and in reasonable time: if not, it is not to be offered."""
        return self._directory.cram_possible() and len(self._directory.live_secrets()) <= MOST_TOKENS

    def warm(self) -> Deferred[None]:
        """Make the keys of all live tokens now, so that the first login need not wait for them."""
        return Deferred.fromCoroutine(self._warm())

    async def _warm(self) -> None:
        for table in self._tables.values():
            await table.fill(self._directory, self._threaded)

    def token(self, username: bytes, verify: Verify) -> Deferred[Token | None]:
        """The token whose keys ``verify`` accepts, as it is now (it may have been revoked meanwhile), or None.

        Each one is tried, also behind a match; under a name that is not configured, those of a configured one, which verify nothing.
        ``verify`` is called in another thread.
        """
        return Deferred.fromCoroutine(self._token(self._tables.get(username, self._decoy), verify))

    async def _token(self, table: _Table, verify: Verify) -> Token | None:
        # All of them, or the first login after a change would tell by its time whether it is made under a name of ours.
        await self._warm()
        found: str | None = await self._threaded(_try, list(table.keys.items()), verify)
        return None if found is None else self._directory.token(found)


class _Table:
    """The keys under one salt, by token id. Those that fill it at the same time wait for each other, and make nothing twice."""

    def __init__(self, salt: bytes) -> None:
        self.keys: dict[str, Keys] = {}
        self._salt = salt
        self._turn = DeferredLock()
        self._filled: Sequence[tuple[Token, bytes]] | None = None
        """The live tokens, as the directory had them, that ``keys`` holds exactly."""

    def fill(self, directory: Directory, threaded: Threaded) -> Deferred[None]:
        """Have the keys of exactly the tokens that live now."""
        if directory.live_secrets() is self._filled:
            return succeed(None)
        return self._turn.run(lambda: Deferred.fromCoroutine(self._fill(directory.live_secrets(), threaded)))

    async def _fill(self, live: Sequence[tuple[Token, bytes]], threaded: Threaded) -> None:
        for token_id in self.keys.keys() - {token.id for token, _ in live}:
            del self.keys[token_id]
        missing = [(token.id, secret) for token, secret in live if token.id not in self.keys]
        for start in range(0, len(missing), _BATCH):
            self.keys.update(await threaded(_derive_all, missing[start : start + _BATCH], self._salt))
        self._filled = live


def _derive_all(secrets: Sequence[tuple[str, bytes]], salt: bytes) -> dict[str, Keys]:
    return {token_id: derive(secret, salt) for token_id, secret in secrets}


def _try(keys: Sequence[tuple[str, Keys]], verify: Verify) -> str | None:
    found = None
    for token_id, (stored_key, server_key) in keys:
        if verify(stored_key, server_key):
            found = token_id
    return found
