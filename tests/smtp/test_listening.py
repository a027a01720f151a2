"""The listening sockets: all of them, or a text that says what to do about each that can't be had."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from lettermta.config import Listener
from lettermta.smtp import listening
from lettermta.smtp.listening import Bound, CannotListen, open_sockets


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.fixture
def free() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
    return port


def listener(*ports: int, addresses: tuple[str, ...] = ("127.0.0.1",), name: str = "here") -> Listener:
    return Listener(name=name, ports=ports, addresses=addresses)


def close(bound: list[Bound]) -> None:
    for one in bound:
        one.socket.close()


def test_every_port_answers_on_every_address(free: int) -> None:
    one = listener(free, addresses=("127.0.0.1", "127.0.0.2"))
    bound = open_sockets([one])
    try:
        assert [each.socket.getsockname() for each in bound] == [("127.0.0.1", free), ("127.0.0.2", free)]
        assert all(each.listener is one for each in bound)
        for each in bound:
            assert not each.socket.getblocking()
            socket.create_connection(each.socket.getsockname(), timeout=5).close()
    finally:
        close(bound)


def test_ipv4_and_ipv6_share_a_port(free: int) -> None:
    """The default addresses: each family has a socket of its own, so an IPv4 client is never seen as ::ffff:a.b.c.d."""
    bound = open_sockets([listener(free, addresses=("0.0.0.0", "::"))])
    try:
        families = [each.socket.family for each in bound]
        assert families == ([socket.AF_INET, socket.AF_INET6] if socket.has_dualstack_ipv6() else families[:1])
    finally:
        close(bound)


def test_a_port_that_was_just_closed_can_be_had_again(free: int) -> None:
    bound = open_sockets([listener(free)])
    client = socket.create_connection(("127.0.0.1", free), timeout=5)
    accepted, _ = _accept(bound[0].socket)
    close(bound)
    accepted.close()
    client.close()
    close(open_sockets([listener(free)]))


def _accept(server: socket.socket) -> tuple[socket.socket, object]:
    server.setblocking(True)
    return server.accept()


def test_a_port_in_use_is_named_with_the_remedy(taken: int) -> None:
    with pytest.raises(CannotListen) as caught:
        open_sockets([listener(taken)])
    text = str(caught.value)
    assert text.startswith(f"[listener here] port {taken} on 127.0.0.1: Address already in use. ")
    assert f"ss -ltnp 'sport = :{taken}'" in text


def test_an_address_of_another_machine_is_named_with_the_remedy(free: int) -> None:
    with pytest.raises(CannotListen, match=r"on 192\.0\.2\.77: Cannot assign .* does not have the address 192\.0\.2\.77"):
        open_sockets([listener(free, addresses=("192.0.2.77",))])


def test_a_port_that_needs_privileges_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(address: str, port: int, backlog: int) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(listening, "listening_socket", denied)  # who runs the tests may be allowed to bind any port
    with pytest.raises(CannotListen) as caught:
        open_sockets([listener(25)])
    assert str(caught.value).startswith("[listener here] port 25 on 127.0.0.1: Permission denied. Ports below 1024 ")
    assert "CAP_NET_BIND_SERVICE" in str(caught.value)
    assert "etc/dev.ini" in str(caught.value)


def test_all_faults_are_told_at_once_and_nothing_stays_open(taken: int, free: int) -> None:
    listeners = [
        listener(free, taken, name="first"),
        listener(taken, addresses=("127.0.0.1", "192.0.2.77"), name="second"),
    ]
    with pytest.raises(CannotListen) as caught:
        open_sockets(listeners)
    lines = str(caught.value).split("\n")
    assert [line.partition(": ")[0] for line in lines] == [
        f"[listener first] port {taken} on 127.0.0.1",
        f"[listener second] port {taken} on 127.0.0.1",
        f"[listener second] port {taken} on 192.0.2.77",
    ]
    close(open_sockets([listener(free)]))


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_listens_on_ipv4_and_only_then(monkeypatch: pytest.MonkeyPatch, free: int, code: int) -> None:
    real = listening.listening_socket

    def without_ipv6(address: str, port: int, backlog: int) -> socket.socket:
        if ":" in address:
            raise OSError(code, "no IPv6 here")
        return real(address, port, backlog)

    monkeypatch.setattr(listening, "listening_socket", without_ipv6)
    bound = open_sockets([listener(free, addresses=("0.0.0.0", "::"))])
    assert [each.socket.family for each in bound] == [socket.AF_INET]
    close(bound)
    for addresses in (("::",), ("127.0.0.1", "::"), ("0.0.0.0", "2001:db8::1")):
        with pytest.raises(CannotListen):
            open_sockets([listener(free, addresses=addresses)])
