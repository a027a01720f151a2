"""One mail transaction as the server sees it, from MAIL to the end of the content (RFC 5321 section 3.3, RFC 3030).

    NONE -> MAIL -> (DATA | CHUNKS) -> NONE

Whatever comes of the content, the transaction is over with it, and the next one starts from nothing (HARD-CASES row 6). Commands out of
their order are refused and change nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import frozen

from lettermta.interfaces import IContent, ISubmitter
from lettermta.message import BodyType, Envelope, Peer, Recipient, Refused, Reply
from lettermta.smtp import grammar
from lettermta.smtp.chunks import ChunkReader, Swallow
from lettermta.smtp.content import ContentReader
from lettermta.smtp.parameters import mail_parameters, rcpt_parameters

SENDER_OK = Reply(250, "2.1.0", "Ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Ok")
GO_AHEAD = Reply(354, None, "End data with <CR><LF>.<CR><LF>")
NO_TRANSACTION = Reply(503, "5.5.1", "MAIL first")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
OPEN_ALREADY = Reply(503, "5.5.1", "A transaction is open already")
AFTER_CHUNKS = Reply(503, "5.5.1", "Not behind BDAT; RSET first")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
TOO_LARGE = Reply(552, "5.3.4", "Message larger than the limit")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "An address in UTF-8 needs the parameter SMTPUTF8 (RFC 6531)")
NEEDS_CHUNKS = Reply(503, "5.6.1", "BODY=BINARYMIME needs BDAT (RFC 3030 section 3)")

Reader = ContentReader | ChunkReader | Swallow


class Stage(enum.Enum):
    """How far a transaction is."""

    NONE = "no transaction"
    MAIL = "a sender, and maybe recipients"
    CONTENT = "content is being read"


@frozen
class ContentRules:
    """How content is read. ``repair``: bare CR and LF are brought to CRLF instead of refused."""

    repair: bool = False


class OutOfStep(Exception):
    """A BDAT that does not say how much follows: what comes next can't be told from commands."""


class Transaction:
    """The transaction of one session. ``hostname`` is ours, ``now`` the wall clock."""

    def __init__(self, peer: Peer, hostname: str, rules: ContentRules, now: Callable[[], float]) -> None:
        self._peer = peer
        self._hostname = hostname
        self._rules = rules
        self._now = now
        self.stage = Stage.NONE
        self._submitter: ISubmitter | None = None
        self._envelope: Envelope | None = None
        self._content: IContent | None = None
        self.reader: Reader | None = None

    @property
    def open(self) -> bool:
        """Whether MAIL has been accepted and the content is not there yet."""
        return self.stage is not Stage.NONE

    def mail(self, argument: bytes, submitter: ISubmitter) -> Reply:
        """MAIL (RFC 5321 section 4.1.1.2)."""
        if self.open:
            raise Refused(OPEN_ALREADY)
        sender, given = grammar.reverse_path(argument)
        envelope = Envelope(self._peer, sender)
        if given:
            read = mail_parameters(given, self._now(), secure=self._peer.tls is not None)
            if read.size is not None and read.size > submitter.max_size:
                raise Refused(TOO_LARGE)
            envelope.options, envelope.size, envelope.hold_until = read.options, read.size, read.hold_until
        if not sender.isascii() and not envelope.options.smtputf8:
            raise Refused(NEEDS_SMTPUTF8)
        submitter.mail(envelope)
        self._submitter, self._envelope = submitter, envelope
        self.stage = Stage.MAIL
        return SENDER_OK

    def rcpt(self, argument: bytes) -> Reply:
        """RCPT (RFC 5321 section 4.1.1.3). One too many is a reply, not a refusal: the client is to send to those that were taken."""
        envelope, submitter = self._envelope, self._submitter
        if envelope is None or submitter is None:
            raise Refused(NO_TRANSACTION)
        if self.stage is not Stage.MAIL:
            raise Refused(AFTER_CHUNKS)
        address, given = grammar.forward_path(argument, self._hostname)
        recipient = Recipient(address, *rcpt_parameters(given)) if given else Recipient(address)
        if not envelope.options.smtputf8 and not (address.isascii() and (recipient.orcpt is None or recipient.orcpt.isascii())):
            raise Refused(NEEDS_SMTPUTF8)
        if len(envelope.recipients) >= submitter.max_recipients:
            return TOO_MANY_RECIPIENTS
        submitter.recipient(envelope, address)
        envelope.recipients.append(recipient)
        return RECIPIENT_OK

    def data(self, argument: bytes) -> Reply:
        """DATA (RFC 5321 section 4.1.1.4)."""
        if argument.strip():
            raise Refused(Reply(501, "5.5.4", "Syntax: DATA has no parameters"))
        submitter = self._ready()
        if self.stage is not Stage.MAIL:
            raise Refused(AFTER_CHUNKS)
        if self._envelope is not None and self._envelope.options.body is BodyType.BINARY:
            raise Refused(NEEDS_CHUNKS)
        self._content = submitter.content()
        self.reader = ContentReader(self._content, submitter.max_size, repair=self._rules.repair)
        self.stage = Stage.CONTENT
        return GO_AHEAD

    def bdat(self, argument: bytes) -> Reader:
        """BDAT (RFC 3030 section 2): a chunk follows, whatever the answer to it will be; what reads it. Raises OutOfStep when its length
        can't be told.

        A chunk that is refused ends the transaction, or those behind it could become a message without its beginning.
        """
        size, last = _chunk(argument)
        try:
            if self.stage is not Stage.CONTENT:
                self._chunks = self._first_chunk(self._ready())
        except Refused as refused:
            self.reset()
            self.reader = Swallow(size, refused.reply)
            return self.reader
        self._chunks.begin(size, last)
        self.reader = self._chunks
        return self.reader

    def _first_chunk(self, submitter: ISubmitter) -> ChunkReader:
        assert self._envelope is not None
        self._content = submitter.content()
        self.stage = Stage.CONTENT
        binary = self._envelope.options.body is BodyType.BINARY
        return ChunkReader(self._content, submitter.max_size, binary=binary, repair=self._rules.repair)

    def _ready(self) -> ISubmitter:
        if self._envelope is None or self._submitter is None:
            raise Refused(NO_TRANSACTION)
        if not self._envelope.recipients:
            raise Refused(NO_RECIPIENTS)
        return self._submitter

    def finish(self) -> tuple[ISubmitter, Envelope, IContent]:
        """The content is whole: hand everything over, and be no transaction any more."""
        submitter, envelope, content = self._submitter, self._envelope, self._content
        assert submitter is not None
        assert envelope is not None
        assert content is not None
        self._content = None
        self.reset()
        return submitter, envelope, content

    def reset(self) -> None:
        """Forget the transaction."""
        if self._content is not None:
            self._content.discard()
            self._content = None
        self.reader = None
        self._envelope = None
        self._submitter = None
        self.stage = Stage.NONE


def _chunk(argument: bytes) -> tuple[int, bool]:
    words = argument.split()
    last = len(words) == 2 and words[1].upper() == b"LAST"
    if not words or len(words) > 1 + last or not words[0].isdigit() or len(words[0]) > 18:
        raise OutOfStep
    return int(words[0]), last
