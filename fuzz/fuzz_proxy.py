"""The PROXY protocol's header (lettermta.smtp.proxy)."""

from __future__ import annotations

import ipaddress

from fuzz.promises import clean, pieces, require, swift
from lettermta.smtp.proxy import MAX_HEADER, Command, Proxied, ProxyFault, ProxyHeader

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TOKENS = (
    *(b"PROXY |TCP4|TCP6|UNKNOWN| |\r\n|192.0.2.1|::ffff:192.0.2.1|2001:db8::1|65535".split(b"|")),
    _SIGNATURE,
    _SIGNATURE + b"\x21\x11\0\x0c",
    _SIGNATURE + b"\x21\x21\0\x24",
    _SIGNATURE + b"\x20\0\0\0",
)


def one(data: bytes) -> None:
    """Read ``data`` whole, in pieces and octet by octet."""
    octets, parts = pieces(data)
    with swift("a header"):
        whole = _read([octets])
        require(_read(parts) == whole, "the split of the octets makes no difference")
        require(_read([octets[i : i + 1] for i in range(len(octets))]) == whole, "nor does one octet at a time")
    if isinstance(whole, Proxied):
        _check(whole, octets)
    elif whole is None:
        require(len(octets) < MAX_HEADER, "no header is awaited without end")
    else:
        clean(whole, "a fault")


def _read(parts: list[bytes]) -> Proxied | str | None:
    header = ProxyHeader()
    try:
        for number, part in enumerate(parts):
            if (found := header.feed(part)) is not None:
                return Proxied(found.command, found.source, found.destination, found.rest + b"".join(parts[number + 1 :]))
    except ProxyFault as fault:
        return str(fault)
    return None


def _check(found: Proxied, octets: bytes) -> None:
    require(octets.endswith(found.rest), "what follows the header is untouched")
    require(len(octets) - len(found.rest) <= MAX_HEADER, "a header is bounded")
    require((found.source is None) == (found.destination is None), "both ends or none")
    require(found.command is Command.PROXY or found.source is None, "LOCAL has no addresses")
    for end in (found.source, found.destination):
        if end is not None:
            address = ipaddress.ip_address(end.address)
            require(getattr(address, "ipv4_mapped", None) is None, "mapped addresses are given as IPv4")
            require(0 <= end.port <= 65535, "ports are ports")
