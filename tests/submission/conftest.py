"""A site: a project with a token in real accounts, a spool in memory, and sessions that submit to them."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.logger import LogEvent, capturedLogs

from lettermta.accounts.directory import Directory
from lettermta.accounts.scram_keys import ScramKeys
from lettermta.accounts.store import AccountStore
from lettermta.config import Listener
from lettermta.event import Event
from lettermta.submission import compose, idempotency
from lettermta.submission.server import Submission, SubmissionRules, SubmissionServer
from lettermta.testing.spool import MemorySpool, StoredMessage
from tests.smtp.server_peer import Client

USERS = ("lettermint", "lettr")
HEAD = "From: a@out.test\nSubject: x\n"
"""As much of a header as a message has to have, and a subject."""
HELLO = HEAD + "\nhello\n"


class Site:
    """``submit`` sends by a session that is kept; ``client`` makes another."""

    def __init__(self, state_dir: Path, spool: Any = None) -> None:
        self.directory = Directory(state_dir)
        self.accounts = AccountStore(state_dir)
        self.spool = spool or MemorySpool()
        self.now = time.time
        self.project = self.accounts.create_project("demo")
        self.token, self.secret = self.accounts.create_token("demo")
        self.rules: dict[str, Any] = {
            "hostname": "mta.test", "usernames": USERS, "message_size": 300_000, "recipients": 50, "lifetime": 432_000.0
        }  # fmt: skip
        self.kept: Client | None = None
        self._submission: Submission | None = None

    def close(self) -> None:
        self.accounts.close()
        self.directory.close()

    def server(self, **listener: Any) -> SubmissionServer:
        return SubmissionServer(self.submission, Listener(name="submission", ports=(587,), **listener))

    @property
    def submission(self) -> Submission:
        """What all listeners have in common, by the rules as they are when it is first asked for."""
        if self._submission is None:
            keys = ScramKeys(self.directory, self.rules["usernames"], maybeDeferred)
            self._submission = Submission(SubmissionRules(**self.rules), self.directory, self.spool, keys)
        return self._submission

    def client(self, *, address: str = "192.0.2.9", **listener: Any) -> Client:
        return Client(self.server(**listener), address=address, now=lambda: self.now())

    def plain(self, secret: str | None = None, user: str = "lettermint") -> str:
        """The command that logs in."""
        return "AUTH PLAIN " + b64encode(f"\0{user}\0{self.secret if secret is None else secret}".encode()).decode()

    def logged_in(self) -> Client:
        client = self.client().secure().ehlo()
        assert client.says(self.plain()) == ["235 2.7.0 Authentication succeeded"]
        return client

    def submit(self, content: str | bytes, *recipients: str, client: Client | None = None) -> str:
        """Send a message; returns the reply at the end of data. Line ends may be written as LF alone."""
        octets = content.encode().replace(b"\n", b"\r\n") if isinstance(content, str) else content
        if client is None:
            client = self.kept = self.kept or self.logged_in()
        client.mail(*recipients)
        client.says("DATA")
        [reply] = client.sends(octets + b".\r\n")
        return reply

    def accepted(self, content: str | bytes, *recipients: str) -> StoredMessage:
        """Send a message that has to be taken; returns what the spool has of it."""
        reply = self.submit(content, *recipients)
        assert reply.startswith("250 2.0.0 Ok: queued as "), reply
        return self.stored[-1]

    @property
    def stored(self) -> Sequence[StoredMessage]:
        return list(self.spool.stored.values())

    @property
    def events(self) -> Sequence[Event]:
        return [event for _, event in self.spool.outbox]

    @property
    def data(self) -> Mapping[str, Any]:
        """The data of the last event."""
        return self.events[-1].data


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


class Wall:
    """A wall clock that goes when it is told to."""

    def __init__(self, moment: float) -> None:
        self.moment = moment

    def time(self) -> float:
        return self.moment


@pytest.fixture
def wall(site: Site, monkeypatch: pytest.MonkeyPatch) -> Wall:
    """The wall clock of submission and of the sessions that are begun from now on."""
    wall = Wall(1_800_000_000.0)
    monkeypatch.setattr(compose, "time", wall)
    monkeypatch.setattr(idempotency, "time", wall)
    site.now = wall.time
    return wall


def leaving(stored: StoredMessage) -> bytes:
    """What is to leave, without the Received field that was put in front, and Date and Message-ID where they were added."""
    received, _, rest = stored.content.partition(b"\r\n\tid ")
    assert received.startswith(b"Received: from ")
    rest = rest.partition(b"\r\n")[2]
    body = stored.content[len(stored.message.head) :]
    added = rb"(?:Date: [^\r\n]+\r\n)?(?:Message-ID: <" + stored.message.id.encode() + rb"@[^\r\n]+>\r\n)?\Z"
    return re.sub(added, b"", rest.removesuffix(body), count=1) + body
