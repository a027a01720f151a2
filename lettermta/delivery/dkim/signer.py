"""Who signs what: a message gets the signatures of its author's domain, by all keys of that domain that sign now.

Promises that not one octet of what is signed changes: the signatures stand on top of it. A domain without keys is no fault, its mail leaves
unsigned and is counted; a key that can't be used is one, and the mail waits for it rather than to leave unsigned. A message is signed as it
leaves: keys that were rotated while it was queued are the new ones. What has been signed is known for a while, so a message that goes to
many domains, or is tried again soon, is signed once. Where each recipient gets a copy with another header, every copy is signed, and the
body is hashed once.

Signing takes some 0.25 ms, most of it the RSA signature, and is done in a thread. A body that is in a file is hashed in another one, piece
by piece and one message at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from lettermta import metrics
from lettermta.accounts.directory import Directory
from lettermta.accounts.errors import InvalidAccount
from lettermta.accounts.model import DomainKey
from lettermta.accounts.rules import domain_name
from lettermta.accounts.vault import Unsealable
from lettermta.delivery.dkim.canonical import BodyHash, body_hash, split_fields
from lettermta.delivery.dkim.signature import Signing, signatures, signing
from lettermta.delivery.leaving import ToppedContent, WholeContent, split
from lettermta.header import mailboxes
from lettermta.interfaces import IStoredContent
from lettermta.message import BodyType, QueueEntry, Reply, domain_of
from lettermta.smtp.client_content import AsItIs, LineEnds, Passage, with_crlf
from lettermta.smtp.client_envelope import Unsendable

_REMEMBERED = 1000
"""Messages whose signatures are known, some 2 KB each."""
_BODIES = 1000
"""Hashes of bodies that are known, some 250 octets each."""
_MOST_KEYS = 4096
"""Keys that are ready for use, some 5 KB each."""

_SIGNED = metrics.DKIM_MESSAGES["signed"]
_KNOWN = metrics.DKIM_MESSAGES["known"]
_NO_KEY = metrics.DKIM_MESSAGES["no_key"]
_UNUSABLE = metrics.DKIM_MESSAGES["unusable_key"]

_KEY_UNUSABLE = Reply(451, "4.3.5", "The key that the message is to be signed with can't be used")

Threaded = Callable[..., Deferred[Any]]
"""Runs a function off the reactor's thread."""
Fields = Sequence[tuple[bytes, bytes]]
_Mark = tuple[str, str, tuple[str, ...]]


class Signer:
    """Signs for the domains in the directory. ``signing`` runs what makes signatures, ``threaded`` what reads and hashes a file; ``now`` is
    the wall clock, for ``t=``.
    """

    log = Logger()

    def __init__(self, directory: Directory, signing: Threaded, threaded: Threaded, now: Callable[[], float]) -> None:
        self._directory = directory
        self._signing = signing
        self._threaded = threaded
        self._now = now
        self._under_way: dict[_Mark, list[Deferred[bytes]]] = {}
        """Who waits for signatures that are being made."""
        self._keys: dict[str, Signing] = {}
        self._known: OrderedDict[_Mark, bytes] = OrderedDict()
        self._bodies: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        """By message and form; only of those that leave in copies."""
        self._turn = DeferredLock()

    def sign(
        self, entry: QueueEntry, content: IStoredContent, form: str, *, copy: bool = False
    ) -> IStoredContent | Deferred[IStoredContent]:
        """The content with its signatures on top, or as it is where nobody signs it; a Deferred for what is not signed yet.

        ``form`` tells apart the forms in which one message may leave, ``copy`` tells that the header is one recipient's. Raises (or fails
        with) Unsendable, for now, when a key can't be used; fails as reading the content fails.
        """
        route = self._directory.route_by_id(entry.lane.route_id)
        if route is None or not self._directory.domains(route.project_id):
            _NO_KEY.inc()
            return content
        whole = content.whole()
        if whole is None:
            return Deferred.fromCoroutine(self._sign_large(entry, content, form, route.project_id, copy))
        if entry.options.body is not BodyType.BINARY:
            # What leaves is what is signed, so it has to be brought to its lines' ends first.
            whole = with_crlf(whole)
        head, body = split(whole)
        fields = split_fields(head)
        found = self._signers(fields, route.project_id)
        if found is None:
            return content
        if copy:
            hashed = self._bodies.get((entry.id, form)) or self._remember_body(entry, form, body_hash(body))
            _SIGNED.inc()
            copied = self._signing(signatures, fields, hashed, found[0], self._now())
            return copied.addCallback(lambda top: WholeContent(top + whole))
        mark = (entry.id, form, found[1])
        top = self._recall(mark)
        if top is not None:
            return WholeContent(top + whole)
        return self._made(mark, fields, body, found[0]).addCallback(lambda top: WholeContent(top + whole))

    def _made(self, mark: _Mark, fields: Fields, body: bytes, keys: Sequence[Signing]) -> Deferred[bytes]:
        """The signatures of a message, once they are made: once also for those who ask meanwhile."""
        told: Deferred[bytes] = Deferred()
        waiting = self._under_way.setdefault(mark, [])
        waiting.append(told)
        if len(waiting) == 1:
            made = self._signing(_signatures, fields, body, keys, self._now())
            made.addCallback(lambda top: self._remember(mark, top)).addBoth(self._tell, mark)
        return told

    def _tell(self, result: Any, mark: _Mark) -> None:
        for told in self._under_way.pop(mark):
            told.callback(result)

    async def _sign_large(self, entry: QueueEntry, content: IStoredContent, form: str, project_id: str, copy: bool) -> IStoredContent:
        """The same for a content that is read in pieces: once for its hash, and once more when it is sent."""
        passage: Passage = AsItIs() if entry.options.body is BodyType.BINARY else LineEnds()
        async with aclosing(cast("AsyncGenerator[bytes, None]", content.pieces())) as pieces:
            front = b""
            while b"\r\n\r\n" not in front and not front.startswith(b"\r\n"):
                piece = await anext(pieces, b"")
                if not piece:
                    break
                front += passage.feed(piece)
            head, body = split(front)
            fields = split_fields(head)
            found = self._signers(fields, project_id)
            if found is None:
                return content
            mark = (entry.id, form, found[1])
            await self._turn.acquire()
            try:
                top = None if copy else self._recall(mark)
                if top is None:
                    digest = self._bodies.get((entry.id, form)) if copy else None
                    digest = digest or await self._hashed(body, pieces, passage)
                    top = cast("bytes", await self._signing(signatures, fields, digest, found[0], self._now()))
                    if copy:
                        self._remember_body(entry, form, digest)
                        _SIGNED.inc()
                    else:
                        self._remember(mark, top)
            finally:
                self._turn.release()
        return ToppedContent(top, content)

    async def _hashed(self, begun: bytes, pieces: AsyncGenerator[bytes, None], passage: Passage) -> bytes:
        """The hash of a body of which ``begun`` was read already."""
        hashed = BodyHash()
        hashed.update(begun)
        async for piece in pieces:
            await self._threaded(_add, hashed, passage, piece)
        hashed.update(passage.finish())
        return hashed.digest()

    def _signers(self, fields: Fields, project_id: str) -> tuple[Sequence[Signing], tuple[str, ...]] | None:
        """The keys that sign for the author's domain, and their ids; None where there are none."""
        author = _author_domain(fields)
        found = None if author is None else self._directory.signing_keys(project_id, author)
        if found is None:
            _NO_KEY.inc()
            return None
        domain, keys = found
        return [self._keys.get(key.id) or self._load(domain, key) for key in keys], tuple([key.id for key in keys])

    def _load(self, domain: str, key: DomainKey) -> Signing:
        try:
            loaded = signing(domain, key.selector, self._directory.private_key(key))
        except Unsealable as fault:
            _UNUSABLE.inc()
            self.log.error(
                "mail of {domain} waits: its key {selector} can't be used: {fault}", domain=domain, selector=key.selector, fault=fault
            )
            raise Unsendable(_KEY_UNUSABLE) from fault
        if len(self._keys) >= _MOST_KEYS:
            self._keys.clear()
        self._keys[key.id] = loaded
        return loaded

    def _recall(self, mark: _Mark) -> bytes | None:
        top = self._known.get(mark)
        if top is not None:
            _KNOWN.inc()
        return top

    def _remember_body(self, entry: QueueEntry, form: str, digest: bytes) -> bytes:
        while len(self._bodies) >= _BODIES:
            self._bodies.popitem(last=False)
        self._bodies[entry.id, form] = digest
        return digest

    def _remember(self, mark: _Mark, top: bytes) -> bytes:
        _SIGNED.inc()
        while len(self._known) >= _REMEMBERED:
            self._known.popitem(last=False)
        self._known[mark] = top
        return top


def _signatures(fields: Fields, body: bytes, keys: Sequence[Signing], now: float) -> bytes:
    return signatures(fields, body_hash(body), keys, now)


def _add(hashed: BodyHash, passage: Passage, piece: bytes) -> None:
    hashed.update(passage.feed(piece))


def _author_domain(fields: Fields) -> str | None:
    """The domain of the first mailbox in From, as the accounts write it."""
    for name, value in fields:
        if name == b"from":
            for _, address in mailboxes([value.decode("utf-8", "replace")]):
                try:
                    return domain_name(domain_of(address))
                except InvalidAccount:
                    return None
    return None
