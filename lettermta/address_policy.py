"""Which addresses mail and webhooks may go to: the public Internet, and what the operator allows besides (HARD-CASES rows 21 and 31).

Whoever owns a domain chooses where its MX points, and whoever has a webhook where its host does: without this anyone could have us connect
into our own network.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

Network = IPv4Network | IPv6Network


def normalised(address: str) -> IPv4Address | IPv6Address:
    """The address that packets would go to in the end: IPv4 where IPv6 only wraps it (mapped, 6to4, NAT64). Raises ValueError."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv4Address):
        return parsed
    if parsed in _NAT64:
        return IPv4Address(int(parsed) & 0xFFFFFFFF)
    return parsed.ipv4_mapped or parsed.sixtofour or parsed


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether a normalised address is unicast on the public Internet (RFC 6890's registry)."""
    if address.is_multicast or not address.is_global:
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST


def networks(given: Iterable[str | Network]) -> tuple[Network, ...]:
    """Networks as settings give them, by text or ready made."""
    return tuple(ip_network(str(network)) for network in given)


def permits(address: str, allowed: Iterable[Network]) -> bool:
    """Whether a connection may go to ``address``; what is no address is not permitted."""
    try:
        wanted = normalised(address)
        given = ip_address(address)
    except ValueError:
        return False
    return is_public(wanted) or any(wanted in network or given in network for network in allowed)
