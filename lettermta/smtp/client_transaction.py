"""One mail transaction of the client: MAIL, RCPT, and then the content (RFC 5321 section 3.3, pipelined by RFC 2920).

Promises one verdict a recipient, whatever the peer answers or fails to answer. It keeps its own account of what it asked and is told of its
replies alone, so a next transaction may be under way behind it. How the content goes is told by what inherits from here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from lettermta.interfaces import IStoredContent
from lettermta.message import QueuedRecipient, QueueEntry, Reply, Verdict
from lettermta.smtp.client_capabilities import Capabilities
from lettermta.smtp.client_dialogue import Awaited, Dialogue
from lettermta.smtp.client_envelope import EnvelopeWriter, Unsendable
from lettermta.smtp.client_replies import of_recipient, reply_of

_log = Logger()

_CONTENT_LOST = Reply(451, "4.3.0", "The content could not be read from the spool")

Command = tuple[bytes, Awaited]
Over = Callable[[Sequence[Verdict], bool], None]
"""Told the verdicts, and whether the peer holds nothing of the transaction any more, so that no RSET is owed."""


@frozen
class Patience:
    """How long a peer may take over each step of a transaction, in seconds (RFC 5321 section 4.5.3.2)."""

    command: float
    data_start: float
    """To answer DATA (4.5.3.2.4)."""
    block: float
    """To take a piece of the content (4.5.3.2.5)."""
    end: float
    """To answer the end of the content (4.5.3.2.6)."""


Out = Callable[[], None]
"""Told that all of the content is sent, so that another transaction may be begun behind it where the peer offers PIPELINING."""


class Transaction:
    """One entry's attempt; ``over`` is called once, ``out`` once at the most and before it."""

    __slots__ = (
        "_accepted",
        "_asked",
        "_capabilities",
        "_commands",
        "_content",
        "_dialogue",
        "_done",
        "_entry",
        "_handed_over",
        "_mail_refused",
        "_out",
        "_over",
        "_patience",
        "_rcpts",
        "_stream",
        "_timeout",
        "verdicts",
    )

    def __init__(
        self,
        dialogue: Dialogue,
        capabilities: Capabilities,
        patience: Patience,
        entry: QueueEntry,
        content: IStoredContent,
        over: Over,
        out: Out,
    ) -> None:
        self._dialogue = dialogue
        self._capabilities = capabilities
        self._patience = patience
        self._timeout = patience.command
        self._entry = entry
        self._content = content
        self._over = over
        self._out = out
        self.verdicts: list[Verdict | None] = [None] * len(entry.recipients)
        self._asked: list[int] = []
        self._rcpts = 0
        self._accepted = 0
        self._commands: list[Command] = []
        self._mail_refused = False
        self._handed_over = False
        self._done = False
        self._stream: Deferred[None] | None = None

    def begin(self, *, reset: bool, wall_clock: Callable[[], float]) -> bool:
        """Send what can be sent at once. False: the entry was refused without a word to the peer, and ``verdicts`` says why."""
        writer = EnvelopeWriter(self._entry, self._content.size, self._capabilities, wall_clock)
        rcpts = self._written(writer)
        if not rcpts:
            return False
        try:
            mail = writer.mail()
        except Unsendable as error:
            self._decide(error.reply, remote=False)
            return False
        timeout = self._timeout
        commands: list[Command] = [(b"RSET\r\n", (self._reset_answered, timeout, "RSET"))] if reset else []
        commands.append((mail, (self._mail_answered, timeout, "MAIL")))
        awaited_rcpt = (self._rcpt_answered, timeout, "RCPT")
        commands += [(rcpt, awaited_rcpt) for rcpt in rcpts]
        behind = self._behind_envelope()
        if behind is not None:
            commands.append(behind)
        if self._capabilities.pipelining:
            self._dialogue.say(b"".join([data for data, _ in commands]), [awaited for _, awaited in commands])
        else:
            commands.reverse()
            self._commands = commands
            self._next()
        return True

    def abandon(self, reply: Reply, remote: bool) -> None:
        """The dialogue is over: ``reply`` is the verdict on every recipient that has none yet."""
        self._decide(reply, remote=remote)
        self._finish(clean=False)

    # What the ways of sending content tell.

    def _behind_envelope(self) -> Command | None:
        """What goes right behind the last RCPT, if anything does."""
        raise NotImplementedError

    def _envelope_answered(self) -> None:
        """MAIL and all RCPT are answered, in lock-step only with a recipient accepted."""

    # The envelope.

    def _written(self, writer: EnvelopeWriter) -> list[bytes]:
        """The RCPT commands; recipients that can't be asked for get their verdict here."""
        rcpts = []
        for index, recipient in enumerate(self._entry.recipients):
            try:
                rcpts.append(writer.rcpt(recipient))
            except Unsendable as error:
                self.verdicts[index] = Verdict(recipient, error.reply, remote=False)
            else:
                self._asked.append(index)
        return rcpts

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
            self.verdicts[index] = Verdict(self._entry.recipients[index], of_recipient(code, lines))
        if self._rcpts < len(self._asked):
            if self._commands:
                self._next()
        elif not self._commands:
            self._envelope_answered()
        elif self._accepted:
            self._next()
        else:
            self._finish(clean=False)

    # The content.

    def _begin_stream(self, pieces: AsyncIterator[bytes]) -> None:
        stream = self._dialogue.wire.stream(pieces)
        if not stream.called:
            self._stream = stream
        stream.addCallbacks(self._streamed, self._stream_failed)

    def _streamed(self, _: None) -> None:
        self._stream = None

    def _stream_failed(self, failure: Failure) -> None:
        if self._done or isinstance(failure.value, CancelledError):
            return
        _log.failure("content of {id} could not be read", failure, id=self._entry.id)
        self._dialogue.end(_CONTENT_LOST)

    def _progressed(self) -> None:
        if not self._done:
            self._dialogue.deadline.set(self._patience.block)

    # The end.

    def _decide(self, reply: Reply, *, remote: bool = True) -> None:
        """``reply`` is the verdict on every recipient that has none yet; on the content for one alone it may be about that one."""
        recipients: list[QueuedRecipient] = self._entry.recipients
        handed_over = self._handed_over
        general = self._accepted != 1
        verdicts = self.verdicts
        for index, verdict in enumerate(verdicts):
            if verdict is None:
                verdicts[index] = Verdict(recipients[index], reply, remote, handed_over, general)

    def _finish(self, *, clean: bool) -> None:
        if self._done:
            return
        self._done = True
        stream, self._stream = self._stream, None
        self._over([verdict for verdict in self.verdicts if verdict is not None], clean)
        if stream is not None:
            stream.cancel()
