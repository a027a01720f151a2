"""The senders: applications that submit without pause, and note which message got its 250.

Each message is sent once, whatever becomes of it: so a token that has no 250 stands for a message that was accepted with its answer lost,
or for none.
"""

from __future__ import annotations

import hashlib
import re
import smtplib
import threading
from random import Random

from attrs import define, field, frozen

DOMAINS = ("example.test", "other.test")
PATIENCE = 30.0
"""Seconds that anything may take."""
KINDS = ("fine", "fine", "fine", "fine", "fine", "fine", "later", "gone")
KEPT = "kept"
"""The route whose mail goes into a Maildir."""
_QUEUED = re.compile(r"2\.0\.0 Ok: queued as ([0-9a-f-]{36})")


@frozen
class Mail:
    """One message."""

    token: str
    recipients: tuple[str, ...]
    kept: bool
    """Whether it goes into the Maildir instead of to the next server."""
    content: bytes
    digest: str

    @property
    def arriving(self) -> tuple[str, ...]:
        """The recipients that it has to come to."""
        return self.recipients if self.kept else tuple(address for address in self.recipients if not address.startswith("gone"))


def compose(token: str, random: Random) -> Mail:
    """A message: most are small, some have a body file; one to five recipients in two domains; lines that begin with dots."""
    size = random.choices((1_500, 12_000, 160_000, 420_000), (60, 25, 12, 3))[0]
    kept = random.random() < 0.15
    count = random.choice((1, 1, 2, 3, 5))
    recipients = tuple(f"{random.choice(KINDS)}-{token}-{number}@{random.choice(DOMAINS)}" for number in range(count))
    line = f".{token} {random.getrandbits(64):016x}\r\n..\r\n."
    body = (line * (size // len(line) + 1) + "\r\n").encode()
    fields = (
        "From: app@sender.test",
        "To: you@example.test",
        f"Message-ID: <{token}@sender.test>",
        "Date: Fri, 20 Nov 2026 10:00:00 +0000",
        f"X-Crash: {token}",
        f"X-LM-Metadata-token: {token}",
        *([f"X-Lettermint-Route: {KEPT}"] if kept else []),
    )
    head = "".join(f"{each}\r\n" for each in fields).encode()
    return Mail(token, recipients, kept, head + b"\r\n" + body, hashlib.sha256(body).hexdigest())


@define(eq=False)
class Gate:
    """When the senders may send: open while a daemon is up. Each opening has a number; all waits are for a change of this."""

    changed: threading.Condition = field(factory=threading.Condition)
    opening: int = 0
    is_open: bool = False
    ended: bool = False
    active: int = 0
    """Senders that have taken the opening up; one that was too slow for it is not among them."""
    acknowledged: dict[str, tuple[str, int]] = field(factory=dict)
    """By token: the id that the 250 told, and the round."""
    sent: dict[str, Mail] = field(factory=dict)
    faults: list[str] = field(factory=list)
    """What no client should ever have seen."""

    def open(self, number: int) -> None:
        """Let the senders send, in this round."""
        with self.changed:
            self.opening, self.is_open = number, True
            self.changed.notify_all()

    def close(self) -> None:
        """Wait until all that are sending have lost their connection and noted what they know."""
        with self.changed:
            self.is_open = False
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.active == 0, PATIENCE), "a sender hangs"

    def end(self) -> None:
        """Send the senders home."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def enter(self, last: int) -> int | None:
        """Wait for an opening after number ``last``; None when there won't be one."""
        with self.changed:
            self.changed.wait_for(lambda: self.ended or (self.is_open and self.opening > last))
            if self.ended:
                return None
            self.active += 1
            return self.opening

    def park(self) -> None:
        """Note that a sender is through with this opening."""
        with self.changed:
            self.active -= 1
            self.changed.notify_all()

    def note(self, mail: Mail, identifier: str) -> None:
        """A message has its 250."""
        with self.changed:
            self.acknowledged[mail.token] = (identifier, self.opening)
            self.changed.notify_all()


class Sender(threading.Thread):
    """One application; its messages follow from the seed."""

    def __init__(self, name: str, gate: Gate, port: int, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self._gate = gate
        self._port = port
        self._random = Random(seed)  # noqa: S311 - a repeatable choice, no secret
        self._count = 0

    def run(self) -> None:
        """Send in each opening until the connection breaks."""
        number: int | None = 0
        while (number := self._gate.enter(number or 0)) is not None:
            try:
                with smtplib.SMTP("127.0.0.1", self._port, "client.test", timeout=PATIENCE) as client:
                    client.ehlo()
                    while self._gate.is_open:
                        self._send(client)
            except (OSError, EOFError) as end:
                # Whatever a killed server looks like from outside; a reply is another matter, unless it says that the server stops.
                if isinstance(end, smtplib.SMTPResponseException) and end.smtp_code not in (-1, 421):
                    self._gate.faults.append(f"{self.name}: {end!r}")
            except Exception as fault:
                self._gate.faults.append(f"{self.name}: {fault!r}")
            self._gate.park()

    def _send(self, client: smtplib.SMTP) -> None:
        self._count += 1
        mail = compose(f"{self.name}x{self._count}", self._random)
        self._gate.sent[mail.token] = mail
        code, said = client.mail("app@sender.test")
        for recipient in mail.recipients:
            if code == 250:
                code, said = client.rcpt(recipient)
        if code == 250:
            code, said = client.data(mail.content)
        match = _QUEUED.fullmatch(said.decode("ascii", "replace"))
        if code == 250 and match is not None:
            self._gate.note(mail, match[1])
        elif code not in (-1, 421):
            raise AssertionError(f"{mail.token}: {code} {said!r}")
