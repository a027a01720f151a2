"""The control socket: one request, rows in pages, and never more in memory than its reader takes."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.logger import capturedLogs

from lettermta.ops import control
from lettermta.ops.control import PAGE, ControlFactory, listen
from lettermta.testing.spool import MemorySpool


class Rows(MemorySpool):
    """A spool with as many rows as a test wants, that counts what it is asked."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.asked: list[tuple[int, int]] = []
        self.waiting: Deferred[Any] | None = None

    def query(self, filters, after, limit):
        self.asked.append((after, limit))
        rows = [
            {"number": number, "recipient": f"u{number}@example.com"} for number in range(after + 1, min(after + limit, self.count) + 1)
        ]
        answer: Deferred[Any] = Deferred()
        answer.callback(rows)
        return answer


class Reader(StringTransport):
    """Takes ``room`` octets, then asks for a pause, as a full socket does."""

    def __init__(self, room: int = 1 << 40) -> None:
        super().__init__()
        self.room = room

    def write(self, data):
        super().write(data)
        if self.producer is not None and len(self.value()) > self.room:
            self.producer.pauseProducing()

    def unregisterProducer(self):
        self.producer = None


def connected(spool: MemorySpool, transport: Reader | None = None):
    protocol = ControlFactory(spool).buildProtocol(None)
    transport = transport or Reader()
    protocol.makeConnection(transport)
    return protocol, transport


def ask(protocol, **request: Any) -> None:
    protocol.dataReceived(json.dumps(request).encode() + b"\n")


def answer(transport: Reader) -> list[dict[str, Any]]:
    return [json.loads(line) for line in transport.value().splitlines()]


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_every_row_comes_once_and_then_the_end(count: int) -> None:
    protocol, transport = connected(Rows(count))
    ask(protocol, verb="list", filters={})
    *rows, end = answer(transport)
    assert [row["number"] for row in rows] == list(range(1, count + 1))
    assert end == {"end": True}
    assert transport.disconnecting


def test_a_reader_that_is_slow_holds_no_more_than_some_pages() -> None:
    spool = Rows(20_000)
    protocol, transport = connected(spool, Reader(room=10_000))
    ask(protocol, verb="list", filters={})
    assert len(spool.asked) == 1
    while not transport.disconnecting:
        pages = len(spool.asked)
        transport.room = len(transport.value()) + 10_000
        protocol.resumeProducing()
        assert len(spool.asked) <= pages + 1
    assert len(answer(transport)) == 20_001


def test_a_reader_that_went_is_asked_for_no_more() -> None:
    spool = Rows(20_000)
    protocol, transport = connected(spool, Reader(room=10_000))
    ask(protocol, verb="list", filters={})
    protocol.connectionLost()
    assert len(spool.asked) == 1
    assert not transport.disconnecting


def test_only_one_request_is_taken() -> None:
    protocol, transport = connected(Rows(2))
    protocol.dataReceived(b'{"verb":"list","filters":{}}\n{"verb":"list","filters":{}}\n')
    assert [row.get("number") for row in answer(transport)] == [1, 2, None]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"{}",
        b"[]",
        b"1",
        b"null",
        b'{"verb":"drop"}',
        b'{"verb":["list"]}',
        b'{"verb":"list"}',
        b'{"verb":"show"}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_answered_by_an_error(line: bytes) -> None:
    protocol, transport = connected(Rows(2))
    protocol.dataReceived(line + b"\n")
    [said] = answer(transport)
    assert "not a request" in said["error"]
    assert transport.disconnecting


def test_a_filter_that_there_is_none_of_is_answered_by_an_error(tmp_path: Path) -> None:
    class Strict(MemorySpool):
        def query(self, filters, after, limit):
            return fail(KeyError("colour"))

    protocol, transport = connected(Strict())
    ask(protocol, verb="list", filters={"colour": "red"})
    assert "colour" in answer(transport)[0]["error"]


def test_a_fault_of_the_spool_is_told_and_logged() -> None:
    class Broken(MemorySpool):
        def message(self, identifier):
            return fail(OSError("I/O error"))

    protocol, transport = connected(Broken())
    with capturedLogs() as logged:
        ask(protocol, verb="show", id="x")
    assert answer(transport) == [{"error": "I/O error"}]
    assert any("log_failure" in event for event in logged)


def test_a_message_is_shown_and_one_that_is_unknown_is_nothing() -> None:
    class One(MemorySpool):
        def message(self, identifier):
            answer: Deferred[Any] = Deferred()
            answer.callback({"id": identifier} if identifier == "m1" else None)
            return answer

    for identifier, rows in (("m1", [{"id": "m1"}, {"end": True}]), ("m2", [{"end": True}])):
        protocol, transport = connected(One())
        ask(protocol, verb="show", id=identifier)
        assert answer(transport) == rows


def test_a_request_that_never_ends_is_cut_off() -> None:
    protocol, transport = connected(Rows(1))
    protocol.dataReceived(b"x" * 70_000)
    assert transport.disconnecting


def test_the_socket_is_for_the_owner_alone_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / control.SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))

    modes: list[int] = []

    class Listening(MemoryReactor):
        def listenUNIX(self, address, factory, backlog=50, mode=0o666, wantPID=0):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
                made.bind(address)
            modes.append(stat.S_IMODE(Path(address).stat().st_mode))
            return super().listenUNIX(address, factory, backlog, mode, wantPID)

    listen(Listening(), tmp_path, Rows(0))
    assert modes == [0o600], "from its first moment"
