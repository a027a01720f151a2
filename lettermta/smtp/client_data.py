"""A transaction whose content goes by DATA (RFC 5321 section 4.1.1.4).

Promises that content goes out only when a recipient was accepted and the peer asked for it, and that its final dot goes out only when all
of it was read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from lettermta.message import Reply
from lettermta.smtp.client_content import DotStuffer, passed, stuffed
from lettermta.smtp.client_dialogue import CONTENT_END, Awaited
from lettermta.smtp.client_replies import reply_of
from lettermta.smtp.client_transaction import Command, Transaction

EARLY_ANSWER = Reply(451, "4.5.0", "The other side answered before the content's end")


class DataTransaction(Transaction):
    """MAIL, RCPT and DATA, and then the content with its dots stuffed."""

    __slots__ = ()

    def _behind_envelope(self) -> Command:
        return b"DATA\r\n", (self._data_answered, self._patience.data_start, "DATA")

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
            self._dialogue.say(b".\r\n", ((self._void_answered, self._patience.end, CONTENT_END),))

    def _send_content(self) -> None:
        awaited: Awaited = (self._end_answered, self._patience.end, CONTENT_END)
        whole = self._content.whole()
        if whole is not None:
            self._handed_over = True
            self._dialogue.say(stuffed(whole), (awaited,))
            self._out()
            return
        self._dialogue.expect(*awaited)
        self._begin_stream(self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        async with aclosing(passed(self._content, DotStuffer())) as pieces:
            async for piece, _ in pieces:
                self._progressed()
                yield piece
        # Whoever asks for more has written the last piece, and the dot with it.
        self._handed_over = True

    def _streamed(self, result: None) -> None:
        super()._streamed(result)
        if not self._done:
            self._out()

    def _end_answered(self, code: int, lines: list[bytes]) -> None:
        early = self._stream is not None
        if code < 200 or 300 <= code < 400 or (early and code < 400):
            self._dialogue.confused(CONTENT_END, code)
            return
        self._decide(reply_of(code, lines))
        if early:
            # The rest of the content would be taken for commands.
            self._dialogue.end(EARLY_ANSWER)
        else:
            self._finish(clean=True)

    def _void_answered(self, code: int, lines: list[bytes]) -> None:
        self._finish(clean=True)
