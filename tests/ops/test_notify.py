"""The datagram that systemd gets."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from lettermta.ops.notify import READY, STOPPING, notify, reloading, status


@pytest.fixture
def listening(tmp_path: Path):
    def listen(address: str) -> socket.socket:
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.settimeout(5)
        manager.bind(address)
        managers.append(manager)
        return manager

    managers: list[socket.socket] = []
    yield listen
    for manager in managers:
        manager.close()


def test_each_state_arrives_as_one_datagram(listening, tmp_path):
    path = str(tmp_path / "notify")
    manager = listening(path)
    for state in (READY, STOPPING, status("3 queued\nall well")):
        assert notify(state, {"NOTIFY_SOCKET": path})
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"STOPPING=1", b"STATUS=3 queued all well"]


def test_an_abstract_socket_is_reached(listening, tmp_path):
    manager = listening(f"\0lettermta-test{tmp_path}")
    assert notify(READY, {"NOTIFY_SOCKET": f"@lettermta-test{tmp_path}"})
    assert manager.recv(100) == b"READY=1"


def test_reloading_carries_the_monotonic_time(listening, tmp_path):
    path = str(tmp_path / "notify")
    manager = listening(path)
    assert notify(reloading(), {"NOTIFY_SOCKET": path})
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", manager.recv(100))


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1", "/nonexistent/notify", "/" + "x" * 200, "@" + "x" * 200])
def test_without_a_manager_nothing_happens(address):
    assert notify(READY, {} if address is None else {"NOTIFY_SOCKET": address}) is False
