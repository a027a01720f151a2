"""What each command of a session comes to (RFC 5321 section 4.1): who may give it and when, and what is done.

The session reads lines, keeps replies in their order and waits; what a line asks for is carried out here, and the :data:`Step` that comes
of it says how the session goes on. What can't be done raises Refused and has changed nothing. Logging in is
:mod:`lettermta.smtp.authentication`'s, mail is :mod:`lettermta.smtp.transaction`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred

from lettermta.interfaces import ISMTPServer, ISubmitter
from lettermta.message import Peer, Refused, Reply
from lettermta.smtp import grammar
from lettermta.smtp.authentication import Authentication
from lettermta.smtp.extensions import announced
from lettermta.smtp.transaction import OutOfStep, Reader, Transaction

OK = Reply(250, "2.0.0", "Ok")
BYE = Reply(221, "2.0.0", "Bye")
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
HELLO_FIRST = Reply(503, "5.5.1", "EHLO first")
IN_TRANSACTION = Reply(503, "5.5.1", "Not while a transaction is open; RSET first")
AUTHENTICATION_REQUIRED = Reply(530, "5.7.0", "Authentication required")
BAD_LINE_END = Reply(500, "5.5.2", "Lines must end in CRLF")
UNKNOWN = Reply(500, "5.5.1", "Command not recognized")
NO_CHUNK = Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]")
OUT_OF_STEP = Reply(421, "4.7.0", "What follows that BDAT can't be told from commands, closing the connection")
TOO_MANY_MESSAGES = Reply(421, "4.7.0", "Too many messages in one session, open another")
NOT_SMTP = Reply(421, "4.7.0", "This is an SMTP server")


@frozen
class Ending:
    """The session is over: ``replies`` are its last, ``cause`` is why, as the counters call it."""

    cause: str
    replies: tuple[Reply, ...]


Step = Reply | Deferred[Reply] | Reader | Ending
"""How a session goes on: by a reply, by one that is awaited, by reading a chunk of content, or not at all."""


class Commands:
    """Carries out the commands of one session. ``messages``: the most transactions that it may have; ``now``: the wall clock."""

    __slots__ = ("_authentication", "_left", "_most", "_now", "_peer", "_server", "_starttls", "_transaction")

    def __init__(
        self,
        server: ISMTPServer,
        peer: Peer,
        authentication: Authentication,
        transaction: Transaction,
        now: Callable[[], float],
        *,
        starttls: bool,
        messages: int,
    ) -> None:
        self._server = server
        self._peer = peer
        self._authentication = authentication
        self._transaction = transaction
        self._now = now
        self._starttls = starttls
        self._most = self._left = messages

    def carry_out(self, line: bytes) -> Step:
        """Carry out a whole line, its line end included; raises Refused."""
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            # A lone LF or CR is no line end (RFC 5321 section 2.3.8): whoever takes it for one can be smuggled past.
            raise Refused(BAD_LINE_END)
        verb, _, argument = line[:-2].partition(b" ")
        command = _COMMANDS.get(verb.upper())
        if command is None:
            raise Refused(UNKNOWN)
        try:
            return command(self, argument)
        except grammar.SyntaxFault as fault:
            raise Refused(Reply(501, "5.5.4", f"Syntax: {fault}")) from None

    def _submitter(self) -> ISubmitter | None:
        return self._authentication.submitter or self._server.trusted(self._peer)

    # -- the session

    def _helo(self, argument: bytes) -> Step:
        """HELO (RFC 5321 section 4.1.1.1)."""
        self._peer.helo, self._peer.esmtp = grammar.helo_name(argument), False
        self._transaction.reset()
        return Reply(250, None, self._server.hostname)

    def _ehlo(self, argument: bytes) -> Step:
        """EHLO (RFC 5321 section 4.1.1.1); the answer's first word is the host name, or clients break."""
        self._peer.helo, self._peer.esmtp = grammar.helo_name(argument), True
        self._transaction.reset()
        secure = self._peer.tls is not None
        limits = self._submitter() or self._server
        keywords = announced(
            limits.max_size, limits.max_recipients, self._most, self._now(), secure=secure, starttls=self._starttls and not secure
        )
        if mechanisms := self._authentication.offered():
            keywords.append("AUTH " + " ".join(mechanisms))
        return Reply(250, None, "\n".join([self._server.hostname, *keywords]))

    def _begin_tls(self, argument: bytes) -> Step:
        """STARTTLS (RFC 3207)."""
        if argument.strip():
            raise Refused(Reply(501, "5.5.4", "Syntax: STARTTLS has no parameters"))
        if not self._starttls or self._peer.tls is not None:
            raise Refused(Reply(503, "5.5.1", "TLS is not available or in use already"))
        if self._transaction.open:
            raise Refused(IN_TRANSACTION)
        return START_TLS

    def _auth(self, argument: bytes) -> Step:
        """AUTH (RFC 4954)."""
        if not self._peer.esmtp:
            raise Refused(HELLO_FIRST)
        if self._transaction.open:
            raise Refused(IN_TRANSACTION)
        return self._authentication.begin(argument)

    def _noop(self, argument: bytes) -> Step:
        """NOOP (RFC 5321 section 4.1.1.9)."""
        return OK

    def _quit(self, argument: bytes) -> Step:
        """QUIT (RFC 5321 section 4.1.1.10)."""
        return Ending("quit", (BYE,))

    def _vrfy(self, argument: bytes) -> Step:
        """VRFY tells nothing about anyone (RFC 5321 section 7.3)."""
        return Reply(252, "2.0.0", "Send mail and see")

    def _help(self, argument: bytes) -> Step:
        """HELP (RFC 5321 section 4.1.1.8)."""
        return Reply(214, "2.0.0", "RFC 5321 and the extensions that EHLO lists")

    def _not_smtp(self, argument: bytes) -> Step:
        """Another protocol's client, a browser made to speak to this port, a proxy that nobody has named (HARD-CASES row 30)."""
        return Ending("errors", (NOT_SMTP,))

    def _not_implemented(self, argument: bytes) -> Step:
        raise Refused(Reply(502, "5.5.1", "Command not implemented"))

    # -- mail

    def _mail(self, argument: bytes) -> Step:
        """MAIL (RFC 5321 section 4.1.1.2)."""
        if not self._peer.helo:
            raise Refused(HELLO_FIRST)
        submitter = self._submitter()
        if submitter is None:
            raise Refused(AUTHENTICATION_REQUIRED)
        if not self._left:
            return Ending("errors", (TOO_MANY_MESSAGES,))
        reply = self._transaction.mail(argument, submitter)
        self._left -= 1
        return reply

    def _rcpt(self, argument: bytes) -> Step:
        """RCPT (RFC 5321 section 4.1.1.3)."""
        return self._transaction.rcpt(argument)

    def _data(self, argument: bytes) -> Step:
        """DATA (RFC 5321 section 4.1.1.4)."""
        return self._transaction.data(argument)

    def _bdat(self, argument: bytes) -> Step:
        """BDAT (RFC 3030 section 2). How many octets follow a malformed one is not known, and they must not be taken for commands."""
        try:
            return self._transaction.bdat(argument)
        except OutOfStep:
            return Ending("errors", (NO_CHUNK, OUT_OF_STEP))

    def _rset(self, argument: bytes) -> Step:
        """RSET (RFC 5321 section 4.1.1.5)."""
        self._transaction.reset()
        return OK


_COMMANDS: Mapping[bytes, Callable[[Commands, bytes], Step]] = {
    b"HELO": Commands._helo,
    b"EHLO": Commands._ehlo,
    b"STARTTLS": Commands._begin_tls,
    b"AUTH": Commands._auth,
    b"MAIL": Commands._mail,
    b"RCPT": Commands._rcpt,
    b"DATA": Commands._data,
    b"BDAT": Commands._bdat,
    b"RSET": Commands._rset,
    b"NOOP": Commands._noop,
    b"QUIT": Commands._quit,
    b"VRFY": Commands._vrfy,
    b"HELP": Commands._help,
    b"EXPN": Commands._not_implemented,
    b"TURN": Commands._not_implemented,
    **dict.fromkeys((b"GET", b"POST", b"HEAD", b"PUT", b"CONNECT", b"OPTIONS", b"DELETE"), Commands._not_smtp),
    # The PROXY protocol's header: version 1, and the line in the signature of version 2 that no split of the octets can hide.
    **dict.fromkeys((b"PROXY", b"\0"), Commands._not_smtp),
}
