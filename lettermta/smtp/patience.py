"""How long a client may take (HARD-CASES row 10): whole-command deadlines, and the least rate at which content has to come.

:class:`Patience` counts and asks an injected clock (whose time must not jump: a reactor's does not); :class:`Deadline` rings when it is
over. What a client says in time is never held against it, and what we take for an answer never is.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Turn(enum.Enum):
    """Whose time it is."""

    OURS = "an answer is being made, or reading is paused: the client can't be late"
    COMMAND = "a whole command, response or handshake is awaited"
    CONTENT = "content is awaited"


@frozen
class Pace:
    """How slow a client may be: seconds for a whole command, seconds of credit for content, and the octets that earn a second."""

    command_seconds: float
    content_seconds: float
    minimum_rate: float
    """Octets a second."""


class Patience:
    """One connection's time.

    A command has to be whole when its time is over, however its octets come. Content has a credit of seconds that runs off while it is
    awaited and is earned back by octets at the least rate, but never above what it was at first: so silence ends by the credit's length, a
    trickle a little later, and a good start is no licence to trickle. Pauses that we make cost nothing.
    """

    __slots__ = ("_clock", "_left", "_pace", "_since", "turn")

    def __init__(self, pace: Pace, clock: IReactorTime) -> None:
        self._pace = pace
        self._clock = clock
        self.turn = Turn.COMMAND
        self._since = clock.seconds()
        self._left = pace.command_seconds

    def command(self) -> None:
        """It is the client's turn to give a command: at the banner, after each reply, and when TLS begins."""
        self._begin(Turn.COMMAND, self._pace.command_seconds)

    def content(self) -> None:
        """It is the client's turn to send content: after 354, and for each BDAT."""
        self._begin(Turn.CONTENT, self._pace.content_seconds)

    def pause(self) -> None:
        """It is our turn: nothing runs off."""
        if self.turn is not Turn.OURS:
            self._left = self.left()
            self.turn = Turn.OURS

    def resume_content(self) -> None:
        """Content is awaited again after :meth:`pause`, with the credit that was left then."""
        self._begin(Turn.CONTENT, min(self._left, self._pace.content_seconds))

    def received(self, octets: int) -> None:
        """Octets of content have come; those of commands earn nothing."""
        if self.turn is Turn.CONTENT:
            now = self._clock.seconds()
            earned = self._left - (now - self._since) + octets / self._pace.minimum_rate
            self._left = min(earned, self._pace.content_seconds)
            self._since = now

    def left(self) -> float:
        """Seconds until the client's time is over, if no more octets of content come; 0 or less: it is; infinite when it is our turn."""
        if self.turn is Turn.OURS:
            return math.inf
        return self._left - (self._clock.seconds() - self._since)

    def _begin(self, turn: Turn, seconds: float) -> None:
        self.turn = turn
        self._since = self._clock.seconds()
        self._left = seconds


class Deadline:
    """Calls ``late`` once, when the client's time is over, unless it is canceled before.

    One timer a connection, armed again when it rings: resetting one at every command would cost more than the command.
    """

    __slots__ = ("_clock", "_late", "_patience", "_shortest", "_timer")

    def __init__(self, patience: Patience, pace: Pace, clock: IReactorTime, late: Callable[[], None]) -> None:
        self._patience = patience
        self._shortest = min(pace.command_seconds, pace.content_seconds)
        self._clock = clock
        self._late = late
        self._timer: IDelayedCall | None = None
        self._arm()

    def cancel(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._timer = self._clock.callLater(max(min(self._patience.left(), self._shortest), 0.05), self._rung)

    def _rung(self) -> None:
        self._timer = None
        if self._patience.left() > 0:
            self._arm()
        else:
            self._late()
