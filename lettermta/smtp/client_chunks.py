"""A transaction whose content goes by BDAT (RFC 3030), without dots to stuff and without a question before it.

Content in memory is one chunk, right behind the last RCPT: the whole message in one round trip. Larger content waits until a recipient is
accepted and goes in chunks of a piece each, so memory stays bounded. Promises that each chunk that was announced is sent whole or the
connection ended, that no chunk follows one that was refused (section 2), and that the last one is announced only when all was read.

There are peers that offer CHUNKING and don't know BDAT (mostly something between us and them changes what either says). They take the chunk
for commands, so the connection ends, the message is put off, and they get DATA from then on (:class:`NoChunks`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from twisted.internet.defer import Deferred

from lettermta.interfaces import IStoredContent
from lettermta.message import BodyType, QueueEntry, Reply
from lettermta.smtp.client_capabilities import Capabilities
from lettermta.smtp.client_content import AsItIs, LineEnds, passed, with_crlf
from lettermta.smtp.client_data import EARLY_ANSWER
from lettermta.smtp.client_dialogue import CONTENT_END, Dialogue
from lettermta.smtp.client_replies import reply_of
from lettermta.smtp.client_transaction import Command, Out, Over, Patience, Transaction

_CHUNK = "a chunk"
_DAY = 86_400.0
_MOST_KNOWN = 1_000


class NoChunks:
    """Peers that offer CHUNKING and don't know BDAT, each for a day. Bounded; times are the reactor's seconds."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def add(self, peer: str, now: float) -> None:
        """It has just turned out."""
        self._until[peer] = now + _DAY
        self._until.move_to_end(peer)
        if len(self._until) > _MOST_KNOWN:
            self._until.popitem(last=False)

    def has(self, peer: str, now: float) -> bool:
        """Whether the peer is to get DATA."""
        return self._until.get(peer, now) > now


class ChunkTransaction(Transaction):
    """MAIL, RCPT and the chunks."""

    __slots__ = ("_answer", "_refused", "_unanswered", "_whole", "unknown")

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
        super().__init__(dialogue, capabilities, patience, entry, content, over, out)
        self._whole = content.whole()
        self._unanswered = 0
        self._refused = False
        self._answer: Deferred[None] | None = None
        self.unknown = False
        """The peer turned out not to know BDAT."""

    def begin(self, *, reset: bool, wall_clock: Callable[[], float]) -> bool:
        """See Transaction. With PIPELINING, content in memory is out at once."""
        begun = super().begin(reset=reset, wall_clock=wall_clock)
        if begun and self._whole is not None and self._capabilities.pipelining:
            self._out()
        return begun

    def abandon(self, reply: Reply, remote: bool) -> None:
        """See Transaction. A peer that has accepted a recipient may have taken the chunk that went along, too."""
        if self._whole is not None and self._accepted and not self._commands and not self.unknown:
            self._handed_over = True
        super().abandon(reply, remote)

    def _behind_envelope(self) -> Command | None:
        whole = self._whole
        if whole is None:
            return None
        if self._entry.options.body is not BodyType.BINARY:
            whole = with_crlf(whole)
        return b"BDAT %d LAST\r\n%b" % (len(whole), whole), (self._end_answered, self._patience.end, CONTENT_END)

    def _envelope_answered(self) -> None:
        if self._whole is not None:
            return  # the peer swallows the chunk in any case, and answers it (RFC 3030 section 2)
        if self._accepted:
            self._begin_stream(self._chunks())
        else:
            self._finish(clean=self._mail_refused)

    async def _chunks(self) -> AsyncIterator[bytes]:
        binary = self._entry.options.body is BodyType.BINARY
        async with aclosing(passed(self._content, AsItIs() if binary else LineEnds())) as pieces:
            async for piece, last in pieces:
                self._progressed()
                self._unanswered += 1
                if last:
                    self._dialogue.expect(self._end_answered, self._patience.end, CONTENT_END)
                    yield b"BDAT %d LAST\r\n%b" % (len(piece), piece)
                else:
                    self._dialogue.expect(self._chunk_answered, self._patience.block, _CHUNK)
                    yield b"BDAT %d\r\n%b" % (len(piece), piece)
                    if not self._capabilities.pipelining:
                        self._answer = Deferred()
                        await self._answer
                    if self._refused:
                        return
        # Whoever asks for more has written the last chunk.
        self._handed_over = True

    def _chunk_answered(self, code: int, lines: list[bytes]) -> None:
        self._unanswered -= 1
        if code < 200 or 300 <= code < 400:
            self._dialogue.confused(_CHUNK, code)
            return
        if self._not_known(code, lines):
            return
        if code >= 400 and not self._refused:
            self._refused = True
            self._decide(reply_of(code, lines))
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(None)
        self._settle()

    def _not_known(self, code: int, lines: list[bytes]) -> bool:
        """Whether it was the command that the peer refused and not the content, although it has recipients (RFC 5321 section 4.2.4)."""
        # Behind a refused chunk it is the sequence that is bad, and right (RFC 3030 section 2).
        if not 500 <= code <= 504 or not self._accepted or self._refused:
            return False
        reply = reply_of(code, lines)
        if not (reply.enhanced or "5.5.").startswith("5.5."):
            return False
        self.unknown = True
        self._handed_over = False
        self._dialogue.end(Reply(451, "4.5.0", f"The other side offers CHUNKING and doesn't know BDAT: {reply}"))
        return True

    def _streamed(self, result: None) -> None:
        super()._streamed(result)
        if self._refused:
            self._settle()
        elif not self._done:
            self._out()

    def _settle(self) -> None:
        """After a refusal: be over once all chunks that were under way are answered."""
        if self._refused and self._stream is None and not self._unanswered:
            self._finish(clean=False)

    def _end_answered(self, code: int, lines: list[bytes]) -> None:
        early = self._stream is not None
        if code < 200 or 300 <= code < 400 or (early and code < 400):
            self._dialogue.confused(CONTENT_END, code)
            return
        if self._not_known(code, lines):
            return
        if self._whole is not None and self._accepted:
            self._handed_over = True
        self._decide(reply_of(code, lines))
        if early:
            self._dialogue.end(EARLY_ANSWER)
        else:
            # RFC 3030 section 2: what the peer holds after a refused chunk is not known; RSET clears it.
            self._finish(clean=code < 300 and not self._refused)
