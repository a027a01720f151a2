"""Return paths: an address of its own for each message and recipient (VERP), signed, so that bounces can't be made up (as in BATV).

    b<53 letters and digits>@rp.example.com

The letters are base32 (RFC 4648, in lower case; read in any) of the message's id (16 octets), a digest of the recipient (5), the hour at
which the address stops being one (3), and an HMAC-SHA256 of these, cut to 9 octets. So nothing is kept for an address: whoever has none
can't guess one in fewer than 2^71 tries, and nobody learns the recipient from it. A local part has 54 octets (RFC 5321 section
4.5.3.1.1 allows 64). The domain is not signed: there are servers that write the name that a CNAME leads to in its place.

Whoever got a message can send to its return path: what is told because of that is bounded elsewhere (:mod:`..returns.desk`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import uuid
from collections.abc import Callable, Sequence

from attrs import Factory, define, evolve, frozen

from lettermta.accounts.directory import Directory
from lettermta.accounts.dns_records import return_path
from lettermta.accounts.errors import InvalidAccount
from lettermta.accounts.model import TransportKind
from lettermta.accounts.rules import domain_name
from lettermta.message import QueuedRecipient, QueueEntry

_PREFIX = "b"
_HOUR = 3600
_RECIPIENT_OCTETS = 5
_MAC_OCTETS = 9
_SIGNED_OCTETS = 16 + _RECIPIENT_OCTETS + 3
_LETTERS = -(-(_SIGNED_OCTETS + _MAC_OCTETS) * 8 // 5)
_PADDING = "=" * (-_LETTERS % 8)
_LOCAL = f"{_PREFIX}[a-z2-7]{{{_LETTERS}}}"
_ADDRESS = re.compile(rf"({_LOCAL})@[a-z0-9-]+(?:\.[a-z0-9-]+)*", re.IGNORECASE)
_ANYWHERE = re.compile(rf"(?<![a-z0-9])({_LOCAL})[@=][a-z0-9-]", re.IGNORECASE)

_MOST_KNOWN = 1_000
_TRANSPORTS = frozenset({TransportKind.MX, TransportKind.SMARTHOST})
"""Ways on which there is another server that may send something back."""


class NoReturnPath(Exception):
    """An address is none of ours: ``cause`` is ``malformed``, ``forged`` or ``expired``."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@frozen
class Returned:
    """What a return path stands for."""

    message_id: str
    recipient: bytes
    """A digest of the recipient; see :func:`recipient_digest`."""

    def meant(self, addresses: Sequence[str]) -> str | None:
        """Which of the addresses it is."""
        return next((address for address in addresses if recipient_digest(address) == self.recipient), None)


def recipient_digest(address: str) -> bytes:
    """Tells the recipients of one message apart."""
    return hashlib.sha256(address.lower().encode()).digest()[:_RECIPIENT_OCTETS]


@define(eq=False)
class ReturnPaths:
    """Makes return paths and reads them. ``lifetime``: seconds for which something may come back; ``now``: the wall clock;
    ``listening``: whether anything here takes what comes back.
    """

    directory: Directory
    lifetime: float
    now: Callable[[], float]
    listening: bool = True
    _state: object = None
    _domains: dict[tuple[str, str], str | None] = Factory(dict)
    """By route and sender's domain, as accounts are in ``_state``."""

    def parted(self, entry: QueueEntry) -> Sequence[QueueEntry]:
        """The entry as it is, or one entry for each recipient with its return path, where the mail is to have them (as its domain says).

        None has mail from the null sender, and mail that another server never sees.
        """
        domain = self._domain(entry)
        if domain is None:
            return (entry,)
        recipients = entry.recipients
        if len(recipients) == 1:
            entry.return_path = self.address(entry.id, recipients[0].address, domain)
            return (entry,)
        return [self._part(entry, recipient, domain) for recipient in recipients]

    def _part(self, entry: QueueEntry, recipient: QueuedRecipient, domain: str) -> QueueEntry:
        address = self.address(entry.id, recipient.address, domain)
        return evolve(entry, recipients=[recipient], return_path=address)

    def _domain(self, entry: QueueEntry) -> str | None:
        """The domain of the entry's return paths: that of the sender's domain, or of the nearest one above it that has one."""
        if "@" not in entry.sender or entry.options.report:
            return None
        state = self.directory.state
        if state is not self._state or len(self._domains) >= _MOST_KNOWN:
            self._state = state
            self._domains.clear()
        key = (entry.lane.route_id, entry.sender.rpartition("@")[2])
        if key not in self._domains:
            self._domains[key] = self._domain_of(*key)
        return self._domains[key]

    def _domain_of(self, route_id: str, sender_domain: str) -> str | None:
        route = self.directory.route_by_id(route_id)
        if route is None or route.transport not in _TRANSPORTS:
            return None
        name = sender_domain.lower()
        if not name.isascii():
            try:
                name = domain_name(name)
            except InvalidAccount:
                return None
        while "." in name:
            domain = self.directory.domain(route.project_id, name)
            if domain is not None:
                return return_path(name) if domain.uses_return_path(self.listening) else None
            name = name.partition(".")[2]
        return None

    def address(self, message_id: str, recipient: str, domain: str) -> str:
        """The return path of a message to a recipient, below ``domain``."""
        expires = int((self.now() + self.lifetime) // _HOUR) + 1
        signed = uuid.UUID(message_id).bytes + recipient_digest(recipient) + expires.to_bytes(3, "big")
        letters = base64.b32encode(signed + self._mac(signed)).decode().rstrip("=").lower()
        return f"{_PREFIX}{letters}@{domain}"

    def read(self, address: str) -> Returned:
        """What an address stands for; raises NoReturnPath."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise NoReturnPath("malformed")
        return self._read(match[1])

    def found_in(self, text: str) -> Returned | None:
        """The first return path in a text, or None: wherever another program wrote it."""
        for match in _ANYWHERE.finditer(text):
            try:
                return self._read(match[1])
            except NoReturnPath:
                continue
        return None

    def _read(self, local: str) -> Returned:
        try:
            octets = base64.b32decode(local[len(_PREFIX) :].upper() + _PADDING)
        except binascii.Error:
            raise NoReturnPath("malformed") from None
        signed, mac = octets[:_SIGNED_OCTETS], octets[_SIGNED_OCTETS:]
        if not hmac.compare_digest(mac, self._mac(signed)):
            raise NoReturnPath("forged")
        if int.from_bytes(signed[-3:], "big") * _HOUR < self.now():
            raise NoReturnPath("expired")
        return Returned(str(uuid.UUID(bytes=signed[:16])), signed[16:-3])

    def _mac(self, signed: bytes) -> bytes:
        return hmac.digest(self.directory.return_path_key, signed, "sha256")[:_MAC_OCTETS]
