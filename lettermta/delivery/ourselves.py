"""Which addresses lead back to this daemon, so that no mail is sent in a circle (HARD-CASES row 21).

An address is ours where one of our listeners answers on that port. Addresses of this machine that others answer on are not ours: a mail
server beside us is a receiver like any other. Whether the machine has an address is asked of the kernel, by binding a socket that sends
nothing; where it lets anybody bind anything (ip_nonlocal_bind), only listeners that name their address count.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import ip_address

from lettermta.address_policy import normalised

_NOT_OURS = "192.0.2.1"
"""For documentation (RFC 5737), so on no machine."""


class Ourselves:
    """Listeners, as (address, port); an unspecified address is every one of its family."""

    def __init__(self, listeners: Iterable[tuple[str, int]]) -> None:
        self._named: set[tuple[str, int]] = set()
        self._everywhere: set[tuple[int, int]] = set()
        for address, port in listeners:
            parsed = ip_address(address)
            if parsed.is_unspecified:
                self._everywhere.add((parsed.version, port))
            else:
                self._named.add((str(normalised(address)), port))
        if self._everywhere and _has(_NOT_OURS):
            self._everywhere.clear()

    def answer(self, address: str, port: int) -> bool:
        """Whether a connection to ``address`` and ``port`` would be one to ourselves."""
        parsed = normalised(address)
        if (str(parsed), port) in self._named:
            return True
        return (parsed.version, port) in self._everywhere and _has(str(parsed))


def _has(address: str) -> bool:
    """Whether this machine has the address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


NOBODY = Ourselves(())
"""Where no listener is known."""
