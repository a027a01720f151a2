"""One mail transaction of the client: MAIL, RCPT, DATA, content (RFC 5321 section 3.3, pipelined by RFC 2920).

Promises one verdict a recipient, whatever the peer answers or fails to answer, and that content goes out only when a recipient was
accepted. It keeps its own account of what it asked and is told of its replies alone, so a next transaction may be under way behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import idna
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.interfaces import IStoredContent
from lettermta.message import BodyType, QueuedRecipient, QueueEntry, Reply, Verdict
from lettermta.smtp.client_content import stuffed, stuffed_pieces
from lettermta.smtp.client_dialogue import FINAL_DOT, Awaited, Dialogue
from lettermta.smtp.client_replies import reply_of

_log = Logger()

# What may stand between < and >: nothing that ends the path or the line (HARD-CASES row 13), whatever an earlier step let pass.
_PATH = re.compile(r'(?:[^\x00-\x20\x7f<>"\\]+|"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"@[^\x00-\x20\x7f<>"\\]+)\Z')

_BAD_SENDER = Reply(553, "5.1.7", "The sender's address can't be written in SMTP")
_BAD_RECIPIENT = Reply(553, "5.1.3", "The recipient's address can't be written in SMTP")
_NO_SMTPUTF8 = Reply(553, "5.6.7", "The address needs SMTPUTF8, which the other side doesn't offer")
_CONTENT_LOST = Reply(451, "4.3.0", "The content could not be read from the spool")
_EARLY_ANSWER = Reply(451, "4.5.0", "The other side answered before the content's end")


@frozen
class Capabilities:
    """What EHLO's answer offers (RFC 5321 section 4.1.1.1). Extension names are compared without case."""

    keywords: Mapping[str, str]
    """Extension names in upper case, and their parameters as they came."""
    pipelining: bool = False
    size: int | None = None
    """SIZE's limit (RFC 1870), 0 for none stated; None when SIZE isn't offered."""
    eight_bit: bool = False
    smtputf8: bool = False
    mechanisms: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Capabilities:
        """Read EHLO's lines; the first one is a greeting."""
        keywords: dict[str, str] = {}
        mechanisms: set[str] = set()
        for line in lines[1:]:
            name, _, parameters = line.strip().partition(" ")
            name = name.upper()
            if name.startswith("AUTH="):
                # The form before RFC 2554, which some servers still send beside the right one.
                name, parameters = "AUTH", f"{name[5:]} {parameters}"
            if name == "AUTH":
                mechanisms.update(parameters.upper().split())
            if name:
                keywords[name] = parameters
        limit = keywords.get("SIZE")
        return cls(
            keywords,
            pipelining="PIPELINING" in keywords,
            size=None if limit is None else int(limit) if limit.isascii() and limit.isdigit() else 0,
            eight_bit="8BITMIME" in keywords,
            smtputf8="SMTPUTF8" in keywords,
            mechanisms=frozenset(mechanisms),
        )


NOTHING_OFFERED = Capabilities({})
"""After HELO."""


class Transaction:
    """One entry's attempt. ``over(verdicts, clean)`` is called once; ``clean``: the peer holds nothing of it any more, no RSET is owed."""

    __slots__ = (
        "_accepted",
        "_asked",
        "_capabilities",
        "_commands",
        "_content",
        "_data_timeout",
        "_dialogue",
        "_done",
        "_entry",
        "_handed_over",
        "_mail_refused",
        "_over",
        "_rcpts",
        "_stream",
        "_timeout",
        "verdicts",
    )

    def __init__(
        self,
        dialogue: Dialogue,
        capabilities: Capabilities,
        timeouts: tuple[float, float],
        entry: QueueEntry,
        content: IStoredContent,
        over: Callable[[Sequence[Verdict], bool], None],
    ) -> None:
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._timeout, self._data_timeout = timeouts
        self._entry = entry
        self._content = content
        self._over = over
        self.verdicts: list[Verdict | None] = [None] * len(entry.recipients)
        self._asked: list[int] = []
        self._rcpts = 0
        self._accepted = 0
        self._commands: list[tuple[bytes, Awaited]] = []
        self._mail_refused = False
        self._handed_over = False
        self._done = False
        self._stream: Deferred[None] | None = None

    def begin(self, *, reset: bool) -> bool:
        """Send what can be sent at once. False: the entry was refused without a word to the peer, and ``verdicts`` says why."""
        mail, rcpts = self._addressed()
        if not rcpts:
            return False
        timeout = self._timeout
        if reset:
            self._commands.append((b"RSET\r\n", (self._reset_answered, timeout, "RSET")))
        self._commands.append((mail, (self._mail_answered, timeout, "MAIL")))
        awaited_rcpt = (self._rcpt_answered, timeout, "RCPT")
        self._commands.extend((rcpt, awaited_rcpt) for rcpt in rcpts)
        self._commands.append((b"DATA\r\n", (self._data_answered, timeout, "DATA")))
        if self._capabilities.pipelining:
            commands, self._commands = self._commands, []
            self._dialogue.say(b"".join([data for data, _ in commands]), [awaited for _, awaited in commands])
        else:
            self._commands.reverse()
            self._next()
        return True

    def abandon(self, reply: Reply, remote: bool) -> None:
        """The dialogue is over: ``reply`` is the verdict on every recipient that has none yet."""
        self._decide(reply, remote=remote)
        self._finish(clean=False)

    def _addressed(self) -> tuple[bytes, list[bytes]]:
        """The MAIL and RCPT commands; recipients that can't be asked for get their verdict here."""
        entry, offered = self._entry, self._capabilities
        if offered.size and self._content.size > offered.size:
            # RFC 1870 section 6.1.
            self._decide(
                Reply(552, "5.3.4", f"The message is larger than the {offered.size} octets that the other side takes"), remote=False
            )
            return b"", []
        sender = self._path(entry.sender, _BAD_SENDER) if entry.sender else b""
        if isinstance(sender, Reply):
            self._decide(sender, remote=False)
            return b"", []
        international = not sender.isascii()
        rcpts = []
        for index, recipient in enumerate(entry.recipients):
            path = self._path(recipient.address, _BAD_RECIPIENT)
            if isinstance(path, Reply):
                self.verdicts[index] = Verdict(recipient, path, remote=False)
                continue
            international = international or not path.isascii()
            self._asked.append(index)
            rcpts.append(b"RCPT TO:<%b>\r\n" % path)
        size = b"" if offered.size is None else b" SIZE=%d" % self._content.size
        body = b" BODY=8BITMIME" if entry.options.body is not BodyType.SEVEN_BIT and offered.eight_bit else b""
        utf8 = b" SMTPUTF8" if international else b""
        return b"MAIL FROM:<%b>%b%b%b\r\n" % (sender, size, body, utf8), rcpts

    def _path(self, address: str, fault: Reply) -> bytes | Reply:
        """An address as octets for the wire, or why it can't be sent."""
        if _PATH.match(address) is None:
            return fault
        if address.isascii() or self._capabilities.smtputf8:
            return address.encode()
        local, _, domain = address.rpartition("@")
        if not local.isascii():
            return _NO_SMTPUTF8
        try:
            # An internationalised domain needs no SMTPUTF8 when it is written as A-labels (RFC 5891).
            return b"%b@%b" % (local.encode(), idna.encode(domain, uts46=True))
        except idna.IDNAError:
            return fault

    def _next(self) -> None:
        """In lock-step: send the next command."""
        command, awaited = self._commands.pop()
        self._dialogue.say(command, (awaited,))

    def _reset_answered(self, code: int, lines: list[bytes]) -> None:
        if not 200 <= code < 300:
            # Whatever the peer still holds would be mixed with what comes: RFC 5321 section 4.1.1.5 knows no refusal of RSET.
            self._dialogue.confused("RSET", code)
        elif self._commands:
            self._next()

    def _mail_answered(self, code: int, lines: list[bytes]) -> None:
        if 200 <= code < 300:
            if self._commands:
                self._next()
        elif code >= 400:
            self._mail_refused = True
            self._decide(reply_of(code, lines))
            if self._commands:
                self._finish(clean=True)
        else:
            self._dialogue.confused("MAIL", code)

    def _rcpt_answered(self, code: int, lines: list[bytes]) -> None:
        index = self._asked[self._rcpts]
        self._rcpts += 1
        if 200 <= code < 300:
            self._accepted += not self._mail_refused
        elif code < 400:
            self._dialogue.confused("RCPT", code)
            return
        elif self.verdicts[index] is None:
            self.verdicts[index] = Verdict(self._entry.recipients[index], reply_of(code, lines))
        if not self._commands:
            return
        if len(self._commands) == 1 and not self._accepted:
            self._finish(clean=False)
        else:
            self._next()

    def _data_answered(self, code: int, lines: list[bytes]) -> None:
        if code >= 400:
            self._decide(reply_of(code, lines))
            self._finish(clean=self._mail_refused)
        elif code < 300:
            self._dialogue.confused("DATA", code)
        elif self._accepted:
            self._send_content()
        else:
            # RFC 2920 section 3.1: every recipient was refused, and the peer takes content all the same. It gets none.
            self._dialogue.say(b".\r\n", ((self._void_answered, self._data_timeout, FINAL_DOT),))

    def _send_content(self) -> None:
        awaited: Awaited = (self._final_answered, self._data_timeout, FINAL_DOT)
        whole = self._content.whole()
        if whole is not None:
            self._handed_over = True
            self._dialogue.say(stuffed(whole), (awaited,))
            return
        self._dialogue.expect(*awaited)
        pieces = stuffed_pieces(self._content.pieces(), self._progressed, self._dot_is_next)
        self._stream = stream = self._dialogue.wire.stream(pieces)
        stream.addErrback(self._stream_failed)

    def _progressed(self) -> None:
        if not self._done:
            self._dialogue.deadline.set(self._data_timeout)

    def _dot_is_next(self) -> None:
        self._handed_over = True

    def _stream_failed(self, failure: Failure) -> None:
        if self._done or isinstance(failure.value, CancelledError):
            return
        _log.failure("content of {id} could not be read", failure, id=self._entry.id)
        self._dialogue.end(_CONTENT_LOST)

    def _final_answered(self, code: int, lines: list[bytes]) -> None:
        early = not self._handed_over
        if code < 200 or 300 <= code < 400 or (early and code < 400):
            self._dialogue.confused(FINAL_DOT, code)
            return
        self._decide(reply_of(code, lines))
        if early:
            # The rest of the content would be taken for commands.
            self._dialogue.end(_EARLY_ANSWER)
        else:
            self._finish(clean=True)

    def _void_answered(self, code: int, lines: list[bytes]) -> None:
        self._finish(clean=True)

    def _decide(self, reply: Reply, *, remote: bool = True) -> None:
        """``reply`` is the verdict on every recipient that has none yet."""
        recipients: list[QueuedRecipient] = self._entry.recipients
        handed_over = self._handed_over
        verdicts = self.verdicts
        for index, verdict in enumerate(verdicts):
            if verdict is None:
                verdicts[index] = Verdict(recipients[index], reply, remote, handed_over)

    def _finish(self, *, clean: bool) -> None:
        if self._done:
            return
        self._done = True
        stream, self._stream = self._stream, None
        self._over([verdict for verdict in self.verdicts if verdict is not None], clean)
        if stream is not None:
            stream.cancel()
