"""A small Internet on loopback: a DNS server, receivers on addresses of 127.0.0.0/8, and daemons that are configured for it."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import select
import smtplib
import socket
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from tests.system.program import PATIENCE, ROOT, Program

BIN = Path(sys.executable).parent
MX, FIRST, BACKUP, SECURE, RELAY = (f"127.0.0.{number}" for number in range(2, 7))
"""Where receivers can be."""
OURS = "127.0.0.7"
"""Where a daemon may listen on the receivers' port."""

ZONE = {
    "example.test": {"MX": [(10, "mx.example.test")]},
    "other.test": {"MX": [(10, "mx.example.test")]},
    "mx.example.test": {"A": [MX]},
    "bare.test": {"A": [MX]},
    "two.test": {"MX": [(20, "backup.two.test"), (10, "first.two.test")]},
    "first.two.test": {"A": [FIRST]},
    "backup.two.test": {"A": [BACKUP]},
    "secure.test": {"MX": [(10, "mx.secure.test")]},
    "mx.secure.test": {"A": [SECURE]},
    "null.test": {"MX": [(0, ".")]},
    "addressless.test": {"TXT": ["no mail here"]},
    "circle.test": {"MX": [(10, "mx.circle.test"), (20, "behind.circle.test")]},
    "mx.circle.test": {"A": [OURS]},
    "behind.circle.test": {"A": [MX]},
    "shop.test": {"MX": [(10, "mx.shop.test")]},
    "mx.shop.test": {"A": [FIRST]},
}
"""All domains but those of other tests' own; what isn't here doesn't exist."""

Settings = Mapping[str, Mapping[str, str]]


def free_port(*addresses: str) -> int:
    """A port that nobody has on any of the addresses, below those that the kernel gives to outgoing connections."""
    for port in random.sample(range(20_000, 32_000), 200):
        probes = []
        try:
            for address in addresses or ("127.0.0.1",):
                probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                probes.append(probe)
                probe.bind((address, port))
        except OSError:
            continue
        else:
            return port
        finally:
            for probe in probes:
                probe.close()
    pytest.fail("this machine has no free port between 20000 and 32000")


def write_ini(path: Path, *settings: Settings) -> Path:
    """Write a configuration; later settings go over earlier ones."""
    merged: dict[str, dict[str, str]] = {}
    for each in settings:
        for section, keys in each.items():
            merged.setdefault(section, {}).update(keys)
    lines = []
    for section, keys in merged.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items()), ""]
    path.write_text("\n".join(lines))
    return path


class Receiver(Program):
    """A receiving server; see :mod:`tests.system.receiver` for the options."""

    def __init__(self, interface: str, port: int, **options: Any) -> None:
        told = json.dumps({"interface": interface, "port": port, **options})
        super().__init__([sys.executable, "-m", "tests.system.receiver", told])
        self.line("^listening$")

    def messages(
        self, count: int = 1, *, where: Callable[[Mapping[str, Any]], bool] = lambda _: True, patience: float = PATIENCE
    ) -> list[dict[str, Any]]:
        """The messages that ``where`` accepts, once there are ``count`` of them; ``content`` as octets."""

        def found(lines: Sequence[str]) -> list[dict[str, Any]] | None:
            here = [message for message in map(_message, lines) if message is not None and where(message)]
            return here if len(here) >= count else None

        return self.until(found, f"{count} message(s) of that sort", patience)

    def received(self, identifier: str, *, times: int = 1) -> dict[str, Any]:
        """The message that lettermta queued as ``identifier``."""
        return self.messages(times, where=lambda message: f"id {identifier};".encode() in message["content"])[-1]


def _message(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    message: dict[str, Any] = json.loads(line)
    coded = message.pop("content_base64", None)
    message["content"] = message["content"].encode() if coded is None else base64.b64decode(coded)
    return message


@define
class Daemon:
    """A lettermta with a directory of its own: its configuration, its accounts, and, between ``start`` and its end, its process."""

    directory: Path
    config: Path
    port: int
    env: Mapping[str, str]
    token: str = ""
    wrapper: Sequence[str] = ()
    """What the daemon's command is an argument of, if anything."""
    program: Program | None = None
    manager: socket.socket | None = None

    @property
    def running(self) -> Program:
        """The process."""
        assert self.program is not None
        return self.program

    def start(self) -> Program:
        """Start it, and wait until it says (as systemd would have it said) that it is ready."""
        self._listen_to_notices()
        assert self.manager is not None
        command = [*self.wrapper, str(BIN / "twistd"), "-n", "--pidfile=", "lettermta", "-c", str(self.config)]
        self.program = Program(command, env={**os.environ, **self.env, "NOTIFY_SOCKET": self._notices})
        assert self.notice() == "READY=1"
        return self.program

    @property
    def _notices(self) -> str:
        assert self.manager is not None
        return "@" + self.manager.getsockname()[1:].decode()

    def _listen_to_notices(self) -> None:
        if self.manager is not None:
            self.manager.close()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(f"\0lettermta-test-{uuid.uuid4()}")

    def notice(self) -> str:
        """What it tells the service manager next; fails the test when it ends before."""
        assert self.manager is not None
        process = os.pidfd_open(self.running.pid)
        try:
            ready, _, _ = select.select([self.manager, process], [], [], PATIENCE)
        finally:
            os.close(process)
        if self.manager not in ready:
            pytest.fail(f"the daemon {'ended' if ready else 'hung'}; it said:\n{self.running.output}", pytrace=False)
        return self.manager.recv(4096).decode()

    def stop(self) -> None:
        """Stop it as systemd does."""
        assert self.running.end() == 0, self.running.output

    def dispose(self) -> None:
        """Leave nothing behind."""
        if self.program is not None:
            self.program.dispose()
        if self.manager is not None:
            self.manager.close()

    # -- the tools

    def tool(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run lettermta-admin or lettermta-queue on this daemon's configuration."""
        done = subprocess.run(
            [str(BIN / name), "-c", str(self.config), *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def admin(self, *arguments: str) -> str:
        """What lettermta-admin prints."""
        return self.tool("lettermta-admin", *arguments).stdout.strip()

    def queue(self, *filters: str) -> list[dict[str, Any]]:
        """What ``lettermta-queue list --json`` prints."""
        return [json.loads(line) for line in self.tool("lettermta-queue", "list", "--json", *filters).stdout.splitlines()]

    def queue_until(self, accept: Callable[[list[dict[str, Any]]], bool], *filters: str) -> list[dict[str, Any]]:
        """The queue once it is as ``accept`` wants it; each look is a run of the tool, so this doesn't spin."""
        limit = time.monotonic() + PATIENCE
        while not accept(rows := self.queue(*filters)):
            assert time.monotonic() < limit, f"the queue stays {rows}"
        return rows

    def events(self, identifier: str) -> list[dict[str, Any]]:
        """The events of one message in the event log, in their order. The log is complete once the daemon has stopped."""
        documents = [json.loads(line) for line in (self.directory / "events.jsonl").read_text().splitlines()]
        return [document for document in documents if document["data"].get("message_id") == identifier]

    def events_until(self, identifier: str, last: str) -> list[dict[str, Any]]:
        """The same from the spool's outbox of a running daemon, once an event ``last`` is among them."""
        limit = time.monotonic() + PATIENCE
        while True:
            shown = json.loads(self.tool("lettermta-queue", "show", "--json", identifier).stdout)
            documents = [told["document"] for told in shown["events"]]
            if any(document["event"] == last for document in documents):
                return documents
            assert time.monotonic() < limit, f"no {last} among {documents}"

    # -- sending

    def client(self, port: int | None = None) -> smtplib.SMTP:
        """A client with TLS and a login."""
        client = smtplib.SMTP("127.0.0.1", port or self.port, "client.test", timeout=PATIENCE)
        client.starttls(context=unverified())
        client.ehlo()
        client.user, client.password = "lettermint", self.token
        client.auth("PLAIN", client.auth_plain)
        return client

    def send(self, content: bytes, *recipients: str, sender: str = "app@sender.test") -> str:
        """Submit a message; returns the id that it was queued as."""
        with self.client() as client:
            return submit(client, content, *recipients, sender=sender)


def submit(client: smtplib.SMTP, content: bytes, *recipients: str, sender: str = "app@sender.test") -> str:
    """Send a message over a session; returns the id that it was queued as."""
    code, said = client.mail(sender)
    for recipient in recipients:
        if code == 250:
            code, said = client.rcpt(recipient)
    if code == 250:
        code, said = client.data(content)
    match = re.fullmatch(r"2\.0\.0 Ok: queued as ([A-Za-z0-9._-]+)", said.decode())
    assert code == 250, (code, said)
    assert match is not None, said
    return match[1]


def unverified() -> ssl.SSLContext:
    """TLS for clients that take a self-signed certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def mail(*fields: str, body: str = "Hello.\r\n") -> bytes:
    """A message with these header fields, and what every message has."""
    usual = ("From: App <app@sender.test>", "To: you@example.test", "Message-ID: <1@sender.test>", "Date: Fri, 20 Nov 2026 10:00:00 +0000")
    return ("".join(f"{field}\r\n" for field in (*usual, *fields)) + "\r\n" + body).encode()


class Site:
    """What one test module runs: all of it is gone when the module is done."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port("127.0.0.1", MX, FIRST, BACKUP, SECURE, RELAY)
        """The port that all receivers have."""
        zone = directory / "zone.json"
        zone.write_text(json.dumps(ZONE))
        self._running: list[Program | Daemon] = []
        dns = self.keep(Program([sys.executable, "-m", "lettermta.testing.dns", "--zone", str(zone)]))
        self.dns_port = int(dns.line(r"^listening (\d+)$")[1])

    def keep(self, program: Program) -> Program:
        """Have a program end with the rest."""
        self._running.append(program)
        return program

    def receiver(self, interface: str = MX, **options: Any) -> Receiver:
        """Start a receiver."""
        receiver = Receiver(interface, self.port, **options)
        self._running.append(receiver)
        return receiver

    def settings(self, port: int) -> Settings:
        """How a daemon here is configured when nothing else is said."""
        return {
            "mta": {"hostname": "mta.sender.test", "state_dir": "state"},
            "listener submission": {"ports": str(port), "addresses": "127.0.0.1"},
            "dns": {"servers": f"127.0.0.1:{self.dns_port}", "timeout": "2s"},
            "delivery": {"port": str(self.port), "schedule": "1s", "allow_networks": "127.0.0.0/8", "command_timeout": "10s"},
            "events": {"json_log": "events.jsonl"},
        }

    def daemon(self, name: str, settings: Settings | None = None, env: Mapping[str, str] | None = None) -> Daemon:
        """A daemon with the project ``demo`` and a token, not started yet."""
        directory = self.directory / name
        directory.mkdir()
        port = free_port()
        config = write_ini(directory / "mta.ini", self.settings(port), settings or {})
        daemon = Daemon(directory, config, port, env or {})
        daemon.admin("project", "create", "demo")
        daemon.token = daemon.admin("token", "create", "--project", "demo")
        self._running.append(daemon)
        return daemon

    def said(self) -> list[tuple[str, str]]:
        """What each daemon said last, by its name."""
        daemons = [each for each in self._running if isinstance(each, Daemon) and each.program is not None]
        return [(f"daemon {daemon.directory.name}", "\n".join(daemon.running.lines[-40:])) for daemon in daemons]

    def dispose(self) -> None:
        """Leave nothing running."""
        for each in reversed(self._running):
            each.dispose()


__all__ = ["BACKUP", "FIRST", "MX", "RELAY", "ROOT", "SECURE", "Daemon", "Receiver", "Site", "free_port", "mail", "submit", "unverified"]
