"""The process that sends webhooks, without being one: what it says to the daemon when its database can't be written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from lettermta.events.webhooks.frames import Frames, Kind, packed
from lettermta.spool import deliveries
from lettermta.webhook_sender import SenderProcess, settings_for


class Reactor(Clock):
    stopped = False

    def stop(self) -> None:
        self.stopped = True


class BrokenSender:
    """Takes nothing; syncs well, as a disk does that has lost what was to be synced."""

    def __init__(self) -> None:
        self.taking: Deferred[None] = Deferred()
        self.syncing: Deferred[None] = Deferred()

    def take(self, payloads: object) -> Deferred[None]:
        return self.taking

    def sync(self) -> Deferred[None]:
        return self.syncing

    async def stop(self) -> None:
        """There is nothing to stop."""


def said(transport: StringTransport) -> list[Kind]:
    got: list[Kind] = []
    reader = Frames(lambda kind, body: got.append(kind), lambda: None)
    reader.makeConnection(StringTransport())
    reader.dataReceived(transport.value())
    return got


AS_THE_DAEMON_DOES = """
import os, sys
from lettermta.events.webhooks.process import DESCRIPTOR
from lettermta.webhook_sender import main
os.dup2(int(sys.argv[1]), DESCRIPTOR)
if int(sys.argv[1]) != DESCRIPTOR:
    os.close(int(sys.argv[1]))
sys.exit(main())
"""


def ends(process: SenderProcess, transport: StringTransport) -> None:
    """It closes the connection, and when that is closed, it is over."""
    assert transport.disconnecting
    process._frames.connectionLost(Failure(ConnectionDone()))
    process._reactor.advance(0)


def test_why_it_ended_is_in_the_daemons_log(tmp_path: Path) -> None:
    """The real process: what it says last is not lost with it."""
    deliveries.connect(deliveries.directory_of(tmp_path)).execute("PRAGMA user_version = 99").connection.close()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            descriptor = theirs.fileno()
            child = subprocess.Popen([sys.executable, "-c", AS_THE_DAEMON_DOES, str(descriptor)], pass_fds=[descriptor])
        transport = StringTransport()
        writer = Frames(lambda kind, body: None, lambda: None)
        writer.makeConnection(transport)
        writer.send(Kind.SETTINGS, orjson.dumps(settings_for(tmp_path, concurrency=3, delays=(5.0,), allowed=(), retention=9.0)))
        ours.sendall(transport.value())
        ours.settimeout(30)
        got = b""
        while piece := ours.recv(65_536):
            got += piece
        assert child.wait(30) == os.EX_UNAVAILABLE
    assert b"webhooks can't be sent: " in got
    assert b"has version 99" in got


def test_a_sync_behind_events_that_could_not_be_written_is_not_confirmed() -> None:
    reactor, transport, sender = Reactor(), StringTransport(), BrokenSender()
    process = SenderProcess(reactor)
    process._frames.makeConnection(transport)
    process._sender = sender  # type: ignore[assignment]
    process._received(Kind.EVENTS, packed([b"{}"]))
    process._received(Kind.SYNC, b"")
    sender.taking.errback(Failure(OSError("the disk is full")))
    sender.syncing.callback(None)
    assert said(transport) == []
    ends(process, transport)
    assert reactor.stopped
    assert process._status == os.EX_IOERR


def test_the_daemons_log_has_what_is_ours_and_what_went_wrong() -> None:
    """An endpoint that sends interim responses without end writes no lines into it."""
    transport = StringTransport()
    process = SenderProcess(Reactor())
    process._frames.makeConnection(transport)
    for namespace, level in (
        ("twisted.web._newclient", LogLevel.info),
        ("lettermta.events.webhooks.queue", LogLevel.info),
        ("__main__", LogLevel.info),
    ):
        Logger(namespace, observer=process._logged).emit(level, "a word")
    Logger("twisted.internet", observer=process._logged).warn("a fault")
    assert said(transport) == [Kind.LOG] * 3


def test_settings_are_json(tmp_path: Path) -> None:
    from ipaddress import ip_network

    told = settings_for(tmp_path, concurrency=3, delays=(5.0,), allowed=(ip_network("10.0.0.0/8"),), retention=9.0)
    assert orjson.loads(orjson.dumps(told))["allowed"] == ["10.0.0.0/8"]


def test_a_state_dir_that_is_of_no_use_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reactor, transport = Reactor(), StringTransport()
    process = SenderProcess(reactor)
    process._frames.makeConnection(transport)
    told = settings_for(tmp_path / "nowhere", concurrency=3, delays=(5.0,), allowed=(), retention=9.0)
    process._received(Kind.SETTINGS, orjson.dumps(told))
    process._received(Kind.EVENTS, packed([b"{}"]))
    ends(process, transport)
    assert reactor.stopped
    assert process._status == os.EX_UNAVAILABLE
