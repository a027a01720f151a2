"""The listening sockets: opened all at once, before privileges are given up, and every fault told with its remedy."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from attrs import frozen
from twisted.logger import Logger

from lettermta.config import Listener

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel may know a lower bound (net.core.somaxconn)."""

_log = Logger()


class CannotListen(Exception):
    """One or more ports can't be bound; the text has a line for each."""


@frozen
class Bound:
    """A socket that listens, and the listener that it is for."""

    listener: Listener
    socket: socket.socket


def open_sockets(listeners: Iterable[Listener]) -> list[Bound]:
    """Listen on every address and port; raises CannotListen when one of them is not to be had."""
    bound: list[Bound] = []
    faults: list[str] = []
    for listener in listeners:
        for address in listener.addresses:
            for port in listener.ports:
                try:
                    bound.append(Bound(listener, listening_socket(address, port, BACKLOG)))
                except OSError as error:
                    if _only_ipv6_is_missing(listener, address, error):
                        _log.info("this machine has no IPv6: port {port} listens on IPv4 only", port=port)
                    else:
                        faults.append(f"[listener {listener.name}] port {port} on {address}: {_explain(error, address, port)}")
    if faults:
        for one in bound:
            one.socket.close()
        raise CannotListen("\n".join(faults))
    return bound


def _only_ipv6_is_missing(listener: Listener, address: str, error: OSError) -> bool:
    """Whether all that can't be had is IPv6 on a machine without it, where IPv4 is listened on as well."""
    return address == "::" and "0.0.0.0" in listener.addresses and error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # noqa: S104


def listening_socket(address: str, port: int, backlog: int) -> socket.socket:
    """A socket that listens on one address; raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # IPv4 has sockets of its own; otherwise its clients would show up as ::ffff:a.b.c.d on some systems and not on others.
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening


def _explain(error: OSError, address: str, port: int) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"{reason}. Ports below 1024 need root or CAP_NET_BIND_SERVICE, which systemd/lettermta.service gives;"
            " etc/dev.ini uses ports that anyone may bind"
        )
    if error.errno == errno.EADDRINUSE:
        return f"{reason}. Another program listens there (ss -ltnp 'sport = :{port}' names it): stop it, or change the listener's ports"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}. This machine does not have the address {address}: change the listener's addresses"
    return reason
