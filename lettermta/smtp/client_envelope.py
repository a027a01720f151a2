"""An entry's MAIL and RCPT commands for one peer: its addresses, and the options that the peer offers to obey.

Promises that nothing in an address or an option ends the command's line (HARD-CASES row 13), and that what the message can't do without
is never left out in silence: a peer that lacks it gets nothing, and the recipients a verdict of ours. What is only a wish (DSN,
MT-PRIORITY, BY) is left out where it isn't offered.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import idna

from lettermta.message import BodyType, DeliverBy, Notify, Options, QueuedRecipient, QueueEntry, Reply
from lettermta.smtp.client_capabilities import Capabilities

# What may stand between < and >: nothing that ends the path or the line, whatever an earlier step let pass.
_PATH = re.compile(r'(?:[^\x00-\x20\x7f<>"\\]+|"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"@[^\x00-\x20\x7f<>"\\]+)\Z')
_NO_XCHAR = re.compile(r"[^!-*,-<>-~]")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]+\Z")
_MOST_SECONDS = 999_999_999
"""BY takes nine digits (RFC 2852 section 4)."""
_NOTIFY = tuple(Notify)
"""The order in which they are written."""

_BAD_SENDER = Reply(553, "5.1.7", "The sender's address can't be written in SMTP")
_BAD_RECIPIENT = Reply(553, "5.1.3", "The recipient's address can't be written in SMTP")
_NO_SMTPUTF8 = Reply(553, "5.6.7", "The address needs SMTPUTF8, which the other side doesn't offer")
_NO_SMTPUTF8_HEADER = Reply(550, "5.6.7", "The message needs SMTPUTF8, which the other side doesn't offer")
_NO_BINARYMIME = Reply(554, "5.6.3", "The message is binary, and the other side doesn't offer BINARYMIME")
_TOO_LATE = Reply(554, "5.4.7", "The time by which the message was to be delivered has passed")


class Unsendable(Exception):
    """The peer can't be asked; ``reply`` is the verdict."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class EnvelopeWriter:
    """Writes the commands of one entry. ``wall_clock``: seconds since the epoch. ``international``: MAIL must say SMTPUTF8."""

    __slots__ = ("_entry", "_offered", "_size", "_wall_clock", "international")

    def __init__(self, entry: QueueEntry, size: int, offered: Capabilities, wall_clock: Callable[[], float]) -> None:
        self._entry = entry
        self._size = size
        self._offered = offered
        self._wall_clock = wall_clock
        self.international = entry.options.smtputf8

    def mail(self) -> bytes:
        """MAIL, once all :meth:`rcpt` are written, since their addresses count; raises Unsendable for all recipients."""
        entry, offered, options = self._entry, self._offered, self._entry.options
        if offered.size and self._size > offered.size:
            # RFC 1870 section 6.1.
            raise Unsendable(Reply(552, "5.3.4", f"The message is larger than the {offered.size} octets that the other side takes"))
        path = entry.return_path or entry.sender
        sender = self._path(path, _BAD_SENDER) if path else b""
        size = b"" if offered.size is None else b" SIZE=%d" % self._size
        body = b"" if options.body is BodyType.SEVEN_BIT else self._body(options.body)
        utf8 = b""
        if self.international:
            # RFC 6531 section 3.1, item 8: without the extension the message must not be sent.
            if not offered.smtputf8:
                raise Unsendable(_NO_SMTPUTF8_HEADER)
            utf8 = b" SMTPUTF8"
        return b"MAIL FROM:<%b>%b%b%b%b\r\n" % (sender, size, body, utf8, self._wishes(options))

    def rcpt(self, recipient: QueuedRecipient) -> bytes:
        """RCPT; raises Unsendable for this recipient."""
        path = self._path(recipient.address, _BAD_RECIPIENT)
        if self._offered.dsn and (recipient.notify is not None or recipient.orcpt is not None):
            return b"RCPT TO:<%b>%b\r\n" % (path, _report(recipient))
        return b"RCPT TO:<%b>\r\n" % path

    def _path(self, address: str, fault: Reply) -> bytes:
        """An address as octets for the wire."""
        if _PATH.match(address) is None:
            raise Unsendable(fault)
        if address.isascii():
            return address.encode()
        if self._offered.smtputf8:
            self.international = True
            return address.encode()
        local, _, domain = address.rpartition("@")
        if not local.isascii():
            raise Unsendable(_NO_SMTPUTF8)
        try:
            # An internationalised domain needs no SMTPUTF8 when it is written as A-labels (RFC 5891).
            return b"%b@%b" % (local.encode(), idna.encode(domain, uts46=True))
        except idna.IDNAError:
            raise Unsendable(fault) from None

    def _body(self, body: BodyType) -> bytes:
        """RFC 6152, RFC 3030 section 3. What a peer without 8BITMIME doesn't take has been converted before (:class:`IFinisher`)."""
        if body is BodyType.BINARY:
            if not self._offered.binary:
                raise Unsendable(_NO_BINARYMIME)
            return b" BODY=BINARYMIME"
        return b" BODY=8BITMIME" if self._offered.eight_bit else b""

    def _wishes(self, options: Options) -> bytes:
        """What else MAIL says. REQUIRETLS is no wish, but whoever gets here has it (the session looks first)."""
        offered = self._offered
        words = b" REQUIRETLS" if options.require_tls else b""
        if offered.dsn and (options.ret or options.envid):
            # RFC 3461 section 5.2.1: as they came.
            words += b" RET=%b" % options.ret.encode() if options.ret in ("FULL", "HDRS") else b""
            words += b" ENVID=%b" % xtext(options.envid) if options.envid and options.envid.isascii() else b""
        if offered.priority and options.priority:
            # RFC 6710 section 4: what the message came with; 0 is what goes without saying.
            words += b" MT-PRIORITY=%d" % options.priority
        if options.deliver_by is not None:
            words += self._by(options.deliver_by)
        return words

    def _by(self, wish: DeliverBy) -> bytes:
        """RFC 2852 section 4.1.4: the seconds that are left, less than none only where nothing ends with them."""
        left = int(wish.until - self._wall_clock())
        if wish.bounce and left <= 0:
            raise Unsendable(_TOO_LATE)
        least = self._offered.least_by
        if least is None:
            return b""
        if wish.bounce and left < least:
            raise Unsendable(Reply(554, "5.4.7", f"{left} seconds are left, and the other side promises nothing within {least}"))
        left = max(-_MOST_SECONDS, min(left, _MOST_SECONDS))
        return b" BY=%d;%b%b" % (left, b"R" if wish.bounce else b"N", b"T" if wish.trace else b"")


def _report(recipient: QueuedRecipient) -> bytes:
    """NOTIFY and ORCPT (RFC 3461 section 5.2.1): as they came, and none where none came."""
    words = b""
    if recipient.notify:
        words = b" NOTIFY=%b" % ",".join([word for word in _NOTIFY if word in recipient.notify]).encode()
    kind, _, address = (recipient.orcpt or "").partition(";")
    if address and address.isascii() and _ADDRESS_TYPE.match(kind):
        words += b" ORCPT=%b;%b" % (kind.encode(), xtext(address))
    return words


def xtext(text: str) -> bytes:
    """ASCII text as xtext (RFC 3461 section 4)."""
    return _NO_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text).encode()
