"""One daemon, its senders and the next server, and the rounds in which it is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

from attrs import define, field

from crash import ledger
from crash.ledger import Account, Receipt, Round
from crash.points import CHECKPOINT, FIRST, POINTS, RANDOM, STOPPED, Point
from crash.power import Cut, Layer
from crash.senders import KEPT, PATIENCE, Gate, Sender
from crash.sink import facts
from tests.system.program import ROOT, Program
from tests.system.site import BIN, MX, Daemon, Site, write_ini

SENDERS = 4
MOST = 60
"""Messages that are acknowledged in a round before the harness kills, when the chosen point doesn't come up."""
LATEST = 0.5
"""Seconds behind its start in which the daemon is killed at any moment."""
STOP = 0.08
"""The same behind SIGTERM: about as long as it takes to stop."""


class NoStart(Exception):
    """The daemon did not come up again."""


@define(eq=False)
class Life:
    """A process of the daemon; what it says goes to a file, and its end is told to the gate."""

    process: subprocess.Popen[bytes]
    manager: socket.socket
    gate: Gate

    @classmethod
    def begin(cls, config: Path, said: Path, env: Mapping[str, str], gate: Gate) -> Life:
        """Start one."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"lettermta-crash-{uuid.uuid4()}"
        manager.bind(f"\0{address}")
        command = [str(BIN / "twistd"), "-n", "--pidfile=", "lettermta", "-c", str(config)]
        with said.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - our own words
                command,
                cwd=ROOT,
                env={**os.environ, **env, "NOTIFY_SOCKET": f"@{address}"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return cls(process, manager, gate)

    def ready(self) -> bool:
        """Wait until it says that it is ready; False when it ends before."""
        descriptor = os.pidfd_open(self.process.pid)
        try:
            there, _, _ = select.select([self.manager.fileno(), descriptor], [], [], PATIENCE)
        finally:
            os.close(descriptor)
        if not there:
            raise NoStart(f"no answer within {PATIENCE:g} s")
        if self.manager.fileno() not in there:
            return False
        threading.Thread(target=self._watch, daemon=True).start()
        return True

    def _watch(self) -> None:
        self.process.wait()
        with self.gate.changed:
            self.gate.changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """End it, if it has not ended by itself."""
        if not self.over:
            self.process.kill()

    def ended(self) -> int:
        """Wait for the end."""
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.manager.close()


@define(eq=False)
class Arena:
    """A daemon under test. ``broken`` is put into its environment, to show that the ledger sees what is missing."""

    name: str
    site: Site
    library: Path
    random: Random
    broken: Mapping[str, str] = field(factory=dict)
    account: Account = field(factory=Account)
    _gate: Gate = field(factory=Gate, init=False)
    _daemon: Daemon = field(init=False)
    _layer: Layer = field(init=False)
    _sink: Program | None = field(default=None, init=False)
    _senders: list[Sender] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._daemon = self.site.daemon(self.name)
        self._daemon.admin("route", "create", "--project", "demo", KEPT, "--transport", "capture")
        # Made beforehand: one that the daemon makes itself is not synced with its name (docs/durability.md).
        for part in ("tmp", "new", "cur"):
            (self._daemon.directory / "state" / "capture" / part).mkdir(mode=0o700, parents=True)
        self._layer = Layer(self._daemon.directory.resolve(), self.site.directory / f"{self.name}.journal")
        self._senders = [Sender(f"s{number}", self._gate, self._daemon.port, f"{self.random.random()}") for number in range(SENDERS)]
        for sender in self._senders:
            sender.start()

    @property
    def _receipts(self) -> Path:
        return self.site.directory / f"{self.name}.received"

    @property
    def _said(self) -> Path:
        return self.site.directory / f"{self.name}.said"

    def deliver(self, *extensions: str) -> None:
        """Have a next server from now on."""
        self._sink = Program([sys.executable, "-m", "crash.sink", MX, str(self.site.port), str(self._receipts), *extensions])
        self._sink.line("^listening$")

    # -- rounds

    def round(self, point: Point, cut: Cut) -> Round:
        """Start the daemon, have it die at a point, and see what is left."""
        this = Round(len(self.account.rounds) + 1, point.name, cut)
        self.account.rounds.append(this)
        life = self._begin(this.number, {**self._layer.environment(self.library), **point.environment(self.random), **self.broken})
        if life.ready():
            self._gate.open(this.number)
            try:
                self._wait(life, point)
            finally:
                life.kill()
                if life.ended() == 0:
                    this.point = STOPPED.name
                this.died = time.time()
                self._gate.close()
        elif life.ended() != -signal.SIGKILL:
            before = [(each.point, each.cut.value) for each in self.account.rounds[-3:]]
            raise NoStart(f"status {life.process.returncode} in round {this.number} behind {before}: {self._last()}")
        this.died = this.died or time.time()
        self._layer.settle(cut, self.random)
        if point.operation and not self._layer.died:
            this.point = RANDOM.name  # the chosen point did not come up
        this.snapshot = ledger.look(self._daemon.directory / "state" / "spool" / "0")
        ledger.check_crash(self._gate, this, self.account)
        return this

    def _begin(self, number: int, env: Mapping[str, str]) -> Life:
        settings = {
            "mta": {"hostname": f"r{number}.sender.test"},
            "listener submission": {"trusted_networks": "127.0.0.0/8", "trusted_project": "demo"},
        }
        write_ini(self._daemon.config, self.site.settings(self._daemon.port), settings)
        return Life.begin(self._daemon.config, self._said, env, self._gate)

    def _wait(self, life: Life, point: Point) -> None:
        """Wait for the death at the point, or for the moment to kill."""
        gate, before = self._gate, len(self._gate.acknowledged)
        with gate.changed:
            if point.operation:
                if not gate.changed.wait_for(lambda: life.over or gate.faults or len(gate.acknowledged) - before >= MOST, PATIENCE):
                    raise AssertionError(f"{len(gate.acknowledged) - before} messages in {PATIENCE:g} s; {gate.faults}; {self._last()}")
            else:
                gate.changed.wait_for(lambda: life.over, self.random.uniform(0, LATEST))
        if point.stopping:
            life.process.terminate()
            with gate.changed:
                gate.changed.wait_for(lambda: life.over, self.random.uniform(0, STOP))

    def _last(self) -> str:
        return self._said.read_text(errors="replace")[-3000:]

    # -- the end

    def finish(self) -> Account:
        """Let the daemon live until its queue is empty, and complete the account."""
        this = Round(len(self.account.rounds) + 1, "none", Cut.NONE)
        self.account.rounds.append(this)
        life = self._begin(this.number, {})
        try:
            if not life.ready():
                raise NoStart(self._last())
            self._gate.end()
            rows = self._daemon.queue_until(lambda rows: all(row["state"] == "quarantined" for row in rows))
            self.account.faults += [f"{row['id']} for {row['recipient']} stays in the queue: {row['last_reply']}" for row in rows]
            life.process.terminate()
            if life.ended() != 0:
                self.account.faults.append(f"it did not end well: {self._last()}")
        finally:
            life.kill()
        orphans = [path.name for path in (self._daemon.directory / "state" / "spool" / "0" / "body").glob("*/*")]
        if orphans:
            self.account.faults.append(f"{len(orphans)} body files belong to nobody")
        with (self._daemon.directory / "events.jsonl").open("rb") as log:
            ledger.judge(self._gate, self.account, [*self._taken(), *self._captured()], log)
        self.account.entries, self.account.writes = self._layer.entries, self._layer.writes
        return self.account

    def dispose(self) -> None:
        """Leave nothing running."""
        self._gate.end()
        if self._sink is not None:
            self._sink.dispose()

    def _taken(self) -> Iterator[Receipt]:
        """What the next server was given."""
        with self._receipts.open("rb") as file:
            for line in file:
                told = json.loads(line)
                number = int(told["helo"].partition(".")[0][1:])
                for recipient in told["recipients"]:
                    yield Receipt(told["token"], recipient, told["id"], told["digest"], number, told["moment"])

    def _captured(self) -> Iterator[Receipt]:
        """What is in the Maildir: each file is of the round in which it was written."""
        for path in (self._daemon.directory / "state" / "capture" / "new").glob("*"):
            content, moment = path.read_bytes(), path.stat().st_mtime
            told = facts(content)
            number = next((each.number for each in self.account.rounds if each.died >= moment), len(self.account.rounds))
            for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
                if line.startswith(b"Delivered-To: "):
                    yield Receipt(told["token"], line[14:].decode(), told["id"], told["digest"], number, moment)


def plan(number: int, random: Random) -> tuple[Point, Cut]:
    """What a round of this number is ended by: the first ones are the first starts, every sixth one dies before it is ready."""
    if number <= len(FIRST):
        return FIRST[number - 1], random.choice((Cut.LOST, Cut.TORN))
    if number == len(FIRST) + 1:
        return RANDOM, Cut.LOST  # the directories that the first mail depends on
    cut = random.choices((Cut.NONE, Cut.LOST, Cut.TORN), (2, 2, 1))[0]
    if number % 6 == 0:
        return random.choice(CHECKPOINT), cut
    return random.choice(POINTS), cut
