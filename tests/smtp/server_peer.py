"""A server's session on a wire of paper: what the client says is put in, what it is answered is read off, answers come when they are let.

``Office`` stands where submission stands: it knows one user, keeps what is submitted, and answers at once or, where it is ``late``, when
``answer`` is called.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.interfaces import ISMTPServer, ISubmitter
from lettermta.message import Envelope, Peer, Refused, Reply
from lettermta.smtp.admission import LoginGuard
from lettermta.smtp.channel_binding import no_binding
from lettermta.smtp.patience import Turn
from lettermta.smtp.sasl import MECHANISMS, Mechanism
from lettermta.smtp.session import ServerSession, SessionRules
from lettermta.smtp.wire import IWire
from lettermta.testing.spool import MemoryContent

USER = b"lettermint"
TOKEN = b"lm_s3cret-token-of-a-project"
PLAIN = b64encode(b"\0" + USER + b"\0" + TOKEN).decode()
TLS = "TLSv1.3 TLS_AES_256_GCM_SHA384"
NOW = 1.7e9
"""The wall clock of every session: 2023-11-14 22:13:20."""
RULES = SessionRules()
ACCEPTED = "250 2.0.0 Ok: queued as 1"


class Content(MemoryContent):
    """Content whose writes are taken at once, or (``slow``) when the test says so."""

    def __init__(self, office: Office) -> None:
        super().__init__()
        self._office = office
        self.writing = False
        self.discarded = False

    def write(self, data: bytes) -> Deferred[None] | None:  # type: ignore[override]
        assert not self.writing, "written to before the last write was through"
        assert not self.discarded, "written to after it was given up"
        super().write(data)
        if not self._office.slow:
            return None
        self.writing = True
        return self._office.later(None).addBoth(self._through)

    def _through(self, result: Failure | None) -> Failure | None:
        self.writing = False
        return result

    def discard(self) -> None:
        super().discard()
        self.discarded = True


@implementer(ISubmitter)
class Submitter:
    """Takes everything, unless ``refusal`` is set."""

    max_size = 100_000
    max_recipients = 100

    def __init__(self, office: Office) -> None:
        self._office = office

    def mail(self, envelope: Envelope) -> None:
        self._office.maybe_refuse("MAIL")

    def recipient(self, envelope: Envelope, address: str) -> None:
        self._office.maybe_refuse(f"RCPT {address}")

    def content(self) -> Content:
        self._office.maybe_refuse("DATA")
        self._office.contents.append(Content(self._office))
        return self._office.contents[-1]

    def submit(self, envelope: Envelope, content: Content) -> Deferred[Reply]:
        assert not content.writing, "submitted before it was all written"
        assert not content.discarded
        recipients = tuple(getattr(one, "address", one) for one in envelope.recipients)
        self._office.submitted.append((envelope.sender, recipients, content.head() + b"|" + content.body()))
        self._office.envelopes.append(envelope)
        return self._office.answers("DOT", Reply(250, "2.0.0", f"Ok: queued as {len(self._office.submitted)}"))


@implementer(IRealm)
class Realm:
    def __init__(self, office: Office) -> None:
        self._office = office

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: object) -> tuple[object, Submitter, Callable[[], None]]:
        self._office.logins += 1
        return ISubmitter, Submitter(self._office), self._office.log_out


class LateChecker(InMemoryUsernamePasswordDatabaseDontUse):
    """Knows one user."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, office: Office) -> None:
        super().__init__()
        self._office = office
        self.addUser(USER, TOKEN)

    def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
        if self._office.broken_login:
            return fail(RuntimeError("the database of accounts is away"))
        verdict = super().requestAvatarId(credentials)
        return self._office.later(None).addCallback(lambda _: verdict) if self._office.late else verdict


@implementer(ISMTPServer)
class Office:
    """The ISMTPServer. ``submitted`` has sender, recipients and ``head|body`` of each message that got as far."""

    hostname = "mta.test"
    max_size = 50_000
    max_recipients = 40

    def __init__(self) -> None:
        self.portal = Portal(Realm(self), [LateChecker(self)])
        self.in_clear: Sequence[str] = ()
        self.encrypted: Sequence[str] = ("PLAIN", "LOGIN", "CRAM-MD5")
        self.trusts = False
        self.late = False
        self.slow = False
        self.broken_login = False
        self.refusals: dict[str, Reply | Exception] = {}
        self.submitted: list[tuple[str, tuple[str, ...], bytes]] = []
        self.envelopes: list[Envelope] = []
        self.contents: list[Content] = []
        self.waiting: list[tuple[Deferred[None], None]] = []
        self.logins = 0
        self.logouts = 0

    def mechanisms(self, secure: bool, plus: bool) -> Sequence[str]:
        return self.encrypted if secure else self.in_clear

    def exchange(self, mechanism: str, binding: object) -> Mechanism:
        return MECHANISMS[mechanism](self.hostname)

    def trusted(self, peer: Peer) -> Submitter | None:
        return Submitter(self) if self.trusts else None

    def log_out(self) -> None:
        self.logouts += 1

    def maybe_refuse(self, step: str) -> None:
        refusal = self.refusals.get(step)
        if isinstance(refusal, Reply):
            raise Refused(refusal)

    def answers(self, step: str, reply: Reply) -> Deferred[Reply]:
        refusal = self.refusals.get(step)
        answer: Deferred[Reply]
        if refusal is None:
            answer = succeed(reply)
        else:
            answer = fail(Refused(refusal) if isinstance(refusal, Reply) else refusal)
        return self.later(None).addCallback(lambda _: answer) if self.late else answer

    def later(self, result: None) -> Deferred[None]:
        """What ``answer`` fires."""
        deferred: Deferred[None] = Deferred()
        self.waiting.append((deferred, result))
        return deferred

    def answer(self, error: Exception | None = None) -> None:
        """Let the oldest answer or write be through, or fail."""
        deferred, result = self.waiting.pop(0)
        if error is None:
            deferred.callback(result)
        else:
            deferred.errback(error)


@implementer(IWire)
class Wire:
    """Keeps what is written and asked for."""

    def __init__(self) -> None:
        self.written = b""
        self.calls: list[str] = []
        self.paused = False
        self.known = False

    @property
    def closed(self) -> bool:
        return "close" in self.calls

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def start_tls(self) -> None:
        self.calls.append("start_tls")

    def close(self) -> None:
        assert not self.closed
        self.calls.append("close")

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def turn(self, whose: Turn) -> None:
        self.whose = whose

    def logged_in(self) -> None:
        self.known = True


class Client:
    """A session from the client's side."""

    def __init__(
        self,
        office: Any = None,
        *,
        starttls: bool = True,
        address: str = "192.0.2.9",
        rules: SessionRules = RULES,
        clock: Clock | None = None,
        guard: LoginGuard | None = None,
        now: Callable[[], float] = lambda: NOW,
    ) -> None:
        self.office = office or Office()
        self.peer = Peer(address, 4711, "submission")
        self.wire = Wire()
        self.clock = clock or Clock()
        self.guard = LoginGuard(1000, 600.0, (), self.clock) if guard is None else guard
        self.session = ServerSession(self.office, self.peer, self.wire, self.guard, self.clock, starttls=starttls, rules=rules, now=now)
        self.session.greet()
        self.banner = self.take()

    def take(self) -> list[str]:
        """The lines of what has been answered since."""
        written, self.wire.written = self.wire.written, b""
        assert written.endswith(b"\r\n") or not written
        return written.decode().split("\r\n")[:-1]

    def says(self, *lines: str | bytes) -> list[str]:
        """Send lines, each with CRLF added, in one read."""
        return self.sends(b"".join([(line.encode() if isinstance(line, str) else line) + b"\r\n" for line in lines]))

    def sends(self, octets: bytes) -> list[str]:
        """Send octets as they stand, in one read; what is answered late is waited for."""
        self.session.receive(octets)
        self.pass_time()
        return self.take()

    def pass_time(self) -> None:
        """Until everything is answered that waits for the clock."""
        while self.clock.getDelayedCalls():
            self.clock.advance(1)

    def secure(self) -> Client:
        """STARTTLS with all that belongs to it."""
        assert self.says("STARTTLS")[0].startswith("220 ")
        self.session.secured(TLS, no_binding)
        return self

    def ehlo(self) -> Client:
        assert self.says("EHLO client.test")[-1].startswith("250 ")
        return self

    def log_in(self) -> Client:
        """Over TLS, by PLAIN."""
        self.secure().ehlo()
        assert self.says(f"AUTH PLAIN {PLAIN}") == ["235 2.7.0 Authentication succeeded"]
        return self

    def mail(self, *recipients: str) -> Client:
        """A transaction, ready for DATA."""
        assert self.says("MAIL FROM:<a@out.test>") == ["250 2.1.0 Ok"]
        for recipient in recipients or ("b@in.test",):
            assert self.says(f"RCPT TO:<{recipient}>") == ["250 2.1.5 Ok"]
        return self

    def data(self) -> Client:
        """A transaction, ready for content."""
        self.mail()
        assert self.says("DATA")[0].startswith("354 ")
        return self


def codes(replies: Sequence[str]) -> list[str]:
    """The code and enhanced code of each reply's last line."""
    found = []
    for line in replies:
        if line[3:4] != "-":
            words = line.split(" ")
            enhanced = [words[1]] if len(words) > 1 and words[1].count(".") == 2 and words[1].replace(".", "").isdigit() else []
            found.append(" ".join([words[0], *enhanced]))
    return found
