"""Submissions that may come again: Idempotency-Key (COMPATIBILITY.md section 1).

The same key with the same message gets the first answer again, with the same id, and is queued once; the same key with another message is
refused for good; while the first one is still being stored, for now. Keys are a project's own and are kept for 24 hours, in the
spool, in the commit that stores their message.
"""

from __future__ import annotations

import hashlib
import time

from lettermta.interfaces import IContent, ISpool
from lettermta.message import Envelope, IdempotencyKey, Refused, Reply

LIFETIME = 86_400.0
"""Seconds that a key is kept."""

IN_PROGRESS = Reply(451, "4.3.0", "Idempotency-Key: a message with this key is being stored, try again later")
OTHER_MESSAGE = Reply(550, "5.6.0", "Idempotency-Key: the key was used for another message")


class Idempotency:
    """Knows the keys that are being stored now; all others are in the spool."""

    def __init__(self, spool: ISpool) -> None:
        self._spool = spool
        self._under_way: set[tuple[str, str]] = set()

    async def begin(self, project_id: str, key: str, envelope: Envelope, content: IContent) -> IdempotencyKey | str:
        """The key to store with a new message (then :meth:`end` has to be called), or the id of the message that it stands for already."""
        if (project_id, key) in self._under_way:
            raise Refused(IN_PROGRESS, "idempotency key in progress", "idempotency")
        self._under_way.add((project_id, key))
        try:
            digest = _digest(envelope, await content.digest())
            now = time.time()
            known = await self._spool.recall(project_id, key, now)
            if known is None:
                return IdempotencyKey(key, digest, now + LIFETIME)
            if known[0] != digest:
                raise Refused(OTHER_MESSAGE, "idempotency key used for another message", "idempotency")
        except BaseException:
            self.end(project_id, key)
            raise
        self.end(project_id, key)
        return known[1]

    def end(self, project_id: str, key: str) -> None:
        """The message with the key is durable, or has failed."""
        self._under_way.discard((project_id, key))


def _digest(envelope: Envelope, body: bytes) -> bytes:
    """What makes two submissions the same: sender, recipients and body. The header is left out: its dates and ids change on the way."""
    told = hashlib.sha256(body)
    told.update(envelope.sender.encode())
    for address in sorted(recipient.address for recipient in envelope.recipients):
        told.update(b"\0" + address.encode())
    return told.digest()
