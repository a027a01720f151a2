"""The SMTP client as a state machine apart from the socket (RFC 5321 section 4): octets in, octets out, a verdict for each recipient.

    OPENING -> READY <-> TRANSACTION -> SOILED      any -> QUITTING -> CLOSED

Promises that nothing is sent in clear where the settings ask for TLS, and that ``opened`` and the Deferred of each ``send`` fire whatever
the peer does: each wait has its deadline. :meth:`ClientSession.send` never fails; :attr:`ClientSession.opened` fails with Unreachable, of
the sorts that :mod:`~lettermta.smtp.client_opening` tells apart.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.interfaces import IChannel, IStoredContent
from lettermta.message import QueueEntry, Reply, Unreachable, Verdict, trace_of
from lettermta.smtp.client_capabilities import NOTHING_OFFERED
from lettermta.smtp.client_chunks import ChunkTransaction
from lettermta.smtp.client_data import DataTransaction
from lettermta.smtp.client_dialogue import Dialogue, IClientWire
from lettermta.smtp.client_envelope import Unsendable
from lettermta.smtp.client_opening import Opening
from lettermta.smtp.client_settings import ClientSettings
from lettermta.smtp.client_transaction import Patience, Transaction
from lettermta.smtp.client_transcript import Transcript

_log = Logger()

_NOT_READY = Reply(451, "4.3.0", "The content could not be made ready to leave")
_ADDRESS = re.compile(r"\[(.+)\]:(\d+)$")
_NOT_USABLE = Reply(451, "4.4.2", "The connection was no longer usable")
_ABANDONED = Reply(451, "4.4.2", "The attempt was given up")


class Phase(enum.Enum):
    """Where a session stands."""

    OPENING = "has not come to its first message"
    READY = "may send"
    SOILED = "may send, behind a RSET"
    TRANSACTION = "sends"
    LEAVING = "sends, and quits behind it"
    QUITTING = "says QUIT"
    CLOSED = "is closed"


_SENDING = frozenset({Phase.READY, Phase.SOILED, Phase.TRANSACTION, Phase.LEAVING})


@define(eq=False)
class _UnderWay:
    """A transaction between its first command and the moment at which its verdicts are told."""

    transcript: Transcript
    room: Callable[[], None] | None
    """Whom to tell, once, that another one may be sent behind it."""
    result: Deferred[Sequence[Verdict]]
    transaction: Transaction = field(init=False)
    begun: bool = False
    out: bool = False
    """All of its content is sent."""
    verdicts: Sequence[Verdict] = ()


@implementer(IChannel)
class ClientSession:
    """One connection's dialogue, from the banner to QUIT. ``peer`` is the other side's name and address, for logs and traces."""

    def __init__(self, wire: IClientWire, clock: IReactorTime, settings: ClientSettings, peer: str) -> None:
        self.peer = peer
        self.description = peer
        """The peer, and TLS's version and cipher."""
        self.phase = Phase.OPENING
        self.capabilities = NOTHING_OFFERED
        self.before: Sequence[Unreachable] = ()
        """What failed before it at other addresses, for traces."""
        self.sent = 0
        """Transactions begun."""
        self.opened: Deferred[ClientSession] = Deferred(self._opening_canceled)
        """Fires with this session once it is ready for its first message."""
        self._wire = wire
        self._settings = settings
        self._most = settings.messages
        self._patience = Patience(settings.command_timeout, settings.data_start_timeout, settings.data_block_timeout, settings.data_timeout)
        self._clock = clock
        self._dialogue = Dialogue(wire, clock, self._ended)
        self._opening = Opening(self._dialogue, settings, peer)
        self._under_way: deque[_UnderWay] = deque()
        """The transactions that have no verdicts yet: the second one's commands went out behind the first one's content."""
        self._over: list[_UnderWay] = []
        """Those that have them, until they are told."""
        self._digesting = False
        """What was read is being looked at: nobody is told of anything until that is done."""
        self._first = self._told = self._dialogue.transcript
        """Of the attempt whose verdicts were told last."""

    # What the connection tells.

    def connected(self) -> None:
        """The connection stands."""
        if self._dialogue.over:
            self._wire.abort()
            return
        Deferred.fromCoroutine(self._opening.run()).addCallbacks(self._opened, self._not_opened)

    def received(self, data: bytes) -> None:
        """The peer sent octets."""
        self._digesting = True
        try:
            self._dialogue.received(data)
        finally:
            self._digesting = False
        self._deliver()

    def secured(self, description: str, fault: str | None) -> None:
        """TLS is up. ``description``: its version and cipher; ``fault``: why the certificate isn't verified, or None when it is."""
        self._opening.secured(description, fault)

    def lost(self, words: str) -> None:
        """The connection is gone; ``words`` say why, if anything is to be said."""
        self._dialogue.lost(words)
        self.phase = Phase.CLOSED

    # IChannel.

    @property
    def usable(self) -> bool:
        """Whether another entry may be sent now, be it behind the content of one that has no answer yet (RFC 2920 section 3.1)."""
        if self.sent >= self._most:
            return False
        if self.phase is Phase.TRANSACTION:
            return len(self._under_way) == 1 and self._under_way[0].out and self.capabilities.pipelining
        return self.phase is Phase.READY or self.phase is Phase.SOILED

    @property
    def ended(self) -> bool:
        """Whether no other entry can be sent, now or later."""
        return self.phase not in _SENDING or (self.sent >= self._most and not self._under_way)

    @property
    def host(self) -> str | None:
        """The name of the host at the other end, or its address in brackets."""
        return self.peer.partition(" ")[0] if " " in self.peer else self.peer.rpartition(":")[0]

    @property
    def dsn(self) -> bool:
        """Whether the peer offers DSN (RFC 3461)."""
        return self.capabilities.dsn

    @property
    def tls(self) -> str | None:
        """Protocol version and cipher, once TLS is up."""
        return self._opening.tls

    @property
    def assurance(self) -> str:
        """How far TLS can be relied on: ``verified``, ``unverified`` or ``clear``."""
        if self.tls is None:
            return "clear"
        return "verified" if self._opening.fault is None else "unverified"

    @property
    def details(self) -> Mapping[str, object]:
        """See IChannel: where it leads, its TLS, and what was said; in the opening too, for the first attempt."""
        where: dict[str, object] = {"host": self.host}
        if (found := _ADDRESS.search(self.peer)) is not None:
            where["address"], where["port"] = found[1], int(found[2])
        if self._settings.source:
            where["source"] = self._settings.source
        told = {"policy": self._settings.policy, "result": self.assurance}
        if self.tls is not None:
            told["version"], _, told["cipher"] = self.tls.partition(" ")
            if self._opening.fault is not None:
                told["fault"] = self._opening.fault
        if self.before and self._told is self._first:
            where["before"] = trace_of(self.before)
        return {**where, "tls": told, "dialogue": self._told.exchanges}

    def no_require_tls(self) -> Reply | None:
        """Why a message with REQUIRETLS must not go this way (RFC 8689 section 4.2.1), or None when it may."""
        if self.tls is None:
            fault = f"{self.peer} is reached in clear"
        elif self._opening.fault is not None:
            fault = f"the certificate of {self.peer} is not verified: {self._opening.fault}"
        elif not self.capabilities.require_tls:
            fault = f"{self.peer} doesn't offer it"
        else:
            return None
        return Reply(550, "5.7.30", f"REQUIRETLS support required: {fault}")

    def send(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        """See IChannel. Cancelling gives the attempt and the connection up, and so every attempt on it."""
        if entry.options.require_tls and (reply := self.no_require_tls()) is not None:
            return self._unsent([Verdict(recipient, reply, remote=False) for recipient in entry.recipients])
        finisher, offered = self._settings.finisher, self.capabilities
        if finisher is None:
            return self._send(entry, content, room)
        finished = maybeDeferred(finisher.finish, entry, content, eight_bit=offered.eight_bit, binary=offered.binary)
        return finished.addCallbacks(lambda ready: self._send(ready[0], ready[1], room), self._not_finished, errbackArgs=(entry,))

    def _unsent(self, verdicts: Sequence[Verdict]) -> Deferred[Sequence[Verdict]]:
        """Nothing was said for this one."""
        if self.sent:
            self._told = Transcript()
        return succeed(verdicts)

    def _not_finished(self, failure: Failure, entry: QueueEntry) -> Deferred[Sequence[Verdict]]:
        """A message that can't be brought into the form that the peer takes."""
        if isinstance(failure.value, Unsendable):
            reply = failure.value.reply
        else:
            _log.failure("{id} could not be made ready to leave", failure, id=entry.id)
            reply = _NOT_READY
        return self._unsent([Verdict(recipient, reply, remote=False) for recipient in entry.recipients])

    def _send(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None) -> Deferred[Sequence[Verdict]]:
        if self.sent:
            # The first attempt's has the opening, too. What is under way has said all that it had to say.
            self._dialogue.transcript = Transcript()
        at_once = self.capabilities.rcpt_max
        if at_once is None or len(entry.recipients) <= at_once:
            return self._transact(entry, content, room)
        if self.sent and self.usable and self.sent + -(-len(entry.recipients) // at_once) > self._most:
            # A new connection carries it better than the rest of this one.
            self.close()
        return Deferred.fromCoroutine(self._in_turn(entry, content, at_once))

    def close(self) -> None:
        """Part in good order: QUIT, behind the transaction that is under way, if any."""
        if self.phase is Phase.TRANSACTION:
            self.phase = Phase.LEAVING
        elif self.phase is Phase.READY or self.phase is Phase.SOILED:
            self._quit()

    # Opening.

    def _opened(self, _: None) -> None:
        self.phase = Phase.READY
        self.capabilities = self._opening.capabilities
        if self._settings.no_chunks.has(self.peer, self._clock.seconds()):
            self.capabilities = evolve(self.capabilities, chunking=False, binary=False)
        if self.capabilities.mail_max is not None:
            # RFC 9422 section 4.1.
            self._most = min(self._most, self.capabilities.mail_max)
        self.description = f"{self.peer} {self.tls}" if self.tls else f"{self.peer} in clear"
        self.opened.callback(self)

    def _not_opened(self, failure: Failure) -> None:
        if self.phase is not Phase.CLOSED:
            self._quit()
        if not self.opened.called:
            if isinstance(failure.value, Unreachable):
                failure.value.details = self.details
            self.opened.errback(failure)

    def _opening_canceled(self, opened: Deferred[ClientSession]) -> None:
        # First of all, so that whoever waits sees a cancellation, and not one more host to be skipped.
        opened.errback(CancelledError())
        self._dialogue.end(_ABANDONED)

    # Sending.

    async def _in_turn(self, entry: QueueEntry, content: IStoredContent, at_once: int) -> Sequence[Verdict]:
        """As many transactions as the peer's RCPTMAX makes of the entry (RFC 9422 section 4.2)."""
        verdicts: list[Verdict] = []
        for start in range(0, len(entry.recipients), at_once):
            verdicts += await self._transact(evolve(entry, recipients=entry.recipients[start : start + at_once]), content)
        return verdicts

    def _transact(self, entry: QueueEntry, content: IStoredContent, room: Callable[[], None] | None = None) -> Deferred[Sequence[Verdict]]:
        if not self.usable:
            return self._unsent([Verdict(recipient, _NOT_USABLE, remote=False) for recipient in entry.recipients])
        phase, self.phase = self.phase, Phase.TRANSACTION
        chunks = self.capabilities.chunking
        way = ChunkTransaction if chunks else DataTransaction
        here = _UnderWay(self._dialogue.transcript, room, Deferred(self._sending_canceled))
        here.transaction = way(
            self._dialogue,
            self.capabilities,
            self._patience,
            entry,
            content,
            partial(self._transaction_over, here),
            partial(self._out, here),
        )
        self._under_way.append(here)
        # A chunk in front of us may turn out to be refused, and leave something behind (RFC 3030 section 2).
        reset = phase is Phase.SOILED or (chunks and phase is Phase.TRANSACTION)
        if not here.transaction.begin(reset=reset, wall_clock=self._settings.wall_clock):
            self._under_way.remove(here)
            self.phase = phase
            return self._unsent([verdict for verdict in here.transaction.verdicts if verdict is not None])
        self.sent += 1
        here.begun = True
        self._tell_room()
        return here.result

    def _out(self, here: _UnderWay) -> None:
        here.out = True
        if here.begun and not self._digesting:
            self._tell_room()

    def _tell_room(self) -> None:
        """Say that there is room behind a transaction, once, as soon as it is the only one and its content is out."""
        if self._under_way:
            here = self._under_way[0]
            if here.room is not None and self.usable:
                room, here.room = here.room, None
                room()

    def _transaction_over(self, here: _UnderWay, verdicts: Sequence[Verdict], clean: bool) -> None:
        self._under_way.remove(here)
        here.verdicts = verdicts
        self._over.append(here)
        if isinstance(here.transaction, ChunkTransaction) and here.transaction.unknown:
            self._settings.no_chunks.add(self.peer, self._clock.seconds())
        if self.phase is Phase.CLOSED or self._under_way:
            return
        leaving = self.phase is Phase.LEAVING
        self.phase = Phase.READY if clean else Phase.SOILED
        if leaving:
            self._quit()

    def _deliver(self) -> None:
        """Tell the verdicts, once all that was read is digested: a 421 right behind a 250 must not meet the next message."""
        while self._over:
            here = self._over.pop(0)
            self._told = here.transcript
            here.result.callback(here.verdicts)
        if self.phase is Phase.TRANSACTION:
            self._tell_room()

    def _sending_canceled(self, _: Deferred[Any]) -> None:
        self._dialogue.end(_ABANDONED)

    # Ending.

    def _quit(self) -> None:
        self.phase = Phase.QUITTING
        self._dialogue.say(b"QUIT\r\n", ((self._quit_answered, self._settings.quit_timeout, "QUIT"),))

    def _quit_answered(self, code: int, lines: list[bytes]) -> None:
        self.phase = Phase.CLOSED
        self._wire.close()

    def _ended(self, reply: Reply, remote: bool) -> None:
        """The dialogue is over before its time."""
        self.phase = Phase.CLOSED
        first = True
        for here in list(self._under_way):
            # What stood behind another one has not been looked at.
            here.transaction.abandon(
                reply if first else Reply(451, "4.4.2", f"Before it was this message's turn: {reply}"), remote and first
            )
            first = False
        if remote:
            self._wire.close()
        else:
            self._wire.abort()
        self._deliver()
        self._opening.ended(reply, remote)
