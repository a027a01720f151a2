"""Commands out, replies in, each reply to what waits for it: the layer of the client that knows no SMTP command.

Promises that replies are matched in order, that every wait has a deadline, and that the dialogue ends exactly once: by a 421 (RFC 5321
section 3.8), by octets that are no reply or a reply nobody waits for, by a deadline, or because the connection is lost. Nothing is
read after the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import Interface

from lettermta.message import Reply
from lettermta.smtp.client_replies import ReplyReader, reply_of
from lettermta.smtp.client_transcript import CONTENT_END as CONTENT_END
from lettermta.smtp.client_transcript import Transcript

Handler = Callable[[int, list[bytes]], None]
Awaited = tuple[Handler, float, str]
"""Who takes a reply, how many seconds it may take, and the name of what it answers (never the command itself: it may hold a secret)."""


class IClientWire(Interface):
    """What the state machine asks of the connection."""

    def write(data: bytes) -> None:
        """Send octets."""

    def stream(pieces: AsyncIterator[bytes]) -> Deferred[None]:
        """Send pieces as fast as the peer takes them; fires when the last one is written, fails as the iterator does."""

    def start_tls() -> None:
        """Begin the TLS handshake; the session is told of its end by ``secured`` or ``lost``."""

    def close() -> None:
        """Close once all is sent."""

    def abort() -> None:
        """Close at once."""


class Deadline:
    """One moment that moves with each command, watched by one timer that is armed late: a timer a command would cost more than it."""

    __slots__ = ("_at", "_clock", "_fires", "_passed", "_timer")

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._passed = passed
        self._at: float | None = None
        self._timer: IDelayedCall | None = None
        self._fires = 0.0

    def set(self, seconds: float) -> None:
        """Pass in ``seconds`` from now, unless moved or cleared before."""
        now = self._clock.seconds()
        self._at = at = now + seconds
        if self._timer is None:
            self._arm(at, seconds)
        elif at < self._fires:
            self._fires = at
            self._timer.reset(seconds)

    def clear(self) -> None:
        """Nothing is waited for; the timer may stand until it would have fired."""
        self._at = None

    def stop(self) -> None:
        """Clear, and leave no timer behind."""
        self._at = None
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _arm(self, at: float, seconds: float) -> None:
        self._fires = at
        self._timer = self._clock.callLater(seconds, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._clock.seconds()
        if left > 0:
            self._arm(self._at, left)
        else:
            self._at = None
            self._passed()


class Dialogue:
    """Writes commands, and hands each reply to the handler that was given with its command.

    ``ended(reply, remote)`` is called once, at the end; ``reply`` is the peer's 421 (``remote``) or our own words for what happened.
    """

    def __init__(self, wire: IClientWire, clock: IReactorTime, ended: Callable[[Reply, bool], None]) -> None:
        self.wire = wire
        self.deadline = Deadline(clock, self._timed_out)
        self.over = False
        self.behind = False
        """Within a handler: octets have come behind the reply in hand."""
        self.transcript = Transcript()
        """Takes down what is said from now on, and its answers whenever they come."""
        self._ended = ended
        self._reader = ReplyReader()
        self._awaited: deque[Awaited] = deque()
        self._transcripts: deque[Transcript] = deque()
        """For each reply that is awaited."""

    def expect(self, handler: Handler, timeout: float, stage: str) -> None:
        """Have the next reply that nobody waits for yet taken by ``handler``."""
        if not self._awaited:
            self.deadline.set(timeout)
        self._awaited.append((handler, timeout, stage))
        self._transcripts.append(self.transcript)
        self.transcript.expected(stage)

    def say(self, data: bytes, awaited: Sequence[Awaited]) -> None:
        """Send octets that will be answered by as many replies as are awaited."""
        if self.over:
            return
        if not self._awaited:
            self._awaited.extend(awaited)
            self.deadline.set(self._awaited[0][1])
        else:
            self._awaited.extend(awaited)
        self._transcripts.extend([self.transcript] * len(awaited))
        self.transcript.said(data, [stage for _, _, stage in awaited])
        self.wire.write(data)

    def received(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self.over:
            return
        replies = self._reader.feed(data)
        last = len(replies)
        if last:
            # Handlers may set it anew: what they wait for then is no reply (a TLS handshake).
            self.deadline.clear()
        for number, (code, lines) in enumerate(replies, 1):
            self.behind = number < last or self._reader.partial or self._reader.fault is not None
            self._answer(code, lines)
            if self.over:
                return
        if self._reader.fault is not None:
            self.end(Reply(451, "4.5.0", f"The other side sent {self._reader.fault}"))
        elif last and self._awaited:
            self.deadline.set(self._awaited[0][1])

    def confused(self, stage: str, code: int) -> None:
        """The peer answered what it must not: end."""
        self.end(Reply(451, "4.5.0", f"The other side answered {stage} by {code}, out of place"))

    def lost(self, words: str) -> None:
        """The connection is gone."""
        stage = f" before the answer to {self._awaited[0][2]}" if self._awaited else ""
        self.end(Reply(451, "4.4.2", f"Connection lost{stage}{words and ': '}{words}"))
        self.deadline.stop()

    def end(self, reply: Reply, *, remote: bool = False) -> None:
        """Nothing more is said or heard; safe to call again."""
        if self.over:
            return
        self.over = True
        self._awaited.clear()
        self.deadline.clear()
        self._ended(reply, remote)

    def _answer(self, code: int, lines: list[bytes]) -> None:
        transcript = self._transcripts.popleft() if self._transcripts else self.transcript
        transcript.heard(code, lines)
        if code == 421:
            self.end(reply_of(code, lines), remote=True)
            return
        if not self._awaited:
            self.end(Reply(451, "4.5.0", f"The other side sent {code} without being asked"))
            return
        handler, _, stage = self._awaited.popleft()
        if self._reader.tainted:
            # The answer to the whole message counts even so: without it the message would be sent again and again.
            if stage is CONTENT_END:
                handler(code, lines)
            self.end(Reply(451, "4.5.0", "The other side sent a reply with a NUL in it"))
            return
        handler(code, lines)

    def _timed_out(self) -> None:
        stage = f"No answer to {self._awaited[0][2]}" if self._awaited else "No end of the TLS handshake"
        self.end(Reply(451, "4.4.2", f"{stage} in time"))
