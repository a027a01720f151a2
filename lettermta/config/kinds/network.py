"""Addresses, ports, hosts and domains."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from attrs import frozen

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import one, optional, several

Network = IPv4Network | IPv6Network

_PORT = re.compile(r"\d{1,9}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LOOSE_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAPPED = IPv6Network("::ffff:0:0/96")


@frozen
class HostPort:
    """A host, by name or address, and a port. Its ``str()`` is what the file takes: ``host:port``, ``[2001:db8::1]:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_domain(text: str) -> bool:
    """Whether this is a domain name in ASCII (RFC 1035 section 2.3.4, RFC 5321 section 4.1.2), a single label included."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not _ends_like_ipv4(labels)


def _ends_like_ipv4(labels: list[str]) -> bool:
    return len(labels) > 1 and labels[-1].isdigit()  # RFC 1123 section 2.1; a lone number may be the name of a container


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise Wrong(text, "is not a port")
    return int(text)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Wrong(text, "is not an IP address") from None


def _network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise Wrong(text, "is not a network") from None
        raise Wrong(text, "is not a network: bits behind its prefix are set") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        # Peers are compared in their IPv4 form, so this is what the operator means, and what has to be judged.
        return IPv4Network((int(network.network_address) & 0xFFFFFFFF, network.prefixlen - 96))
    return network


def _trusted_network(text: str) -> Network:
    network = _network(text)
    if network.prefixlen < (8 if network.version == 4 else 16):
        raise Wrong(text, "is so wide that strangers could submit: an open relay")
    return network


def _hostname(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):  # RFC 5321 section 4.1.3
        inner = text[1:-1]
        six = inner[:5].lower() == "ipv6:"
        try:
            if ip_address(inner[5:] if six else inner).version == (6 if six else 4):
                return text
        except ValueError:
            pass
        raise Wrong(text, "is not an address literal")
    if not is_domain(text):
        raise Wrong(text, "is not a domain name")
    return text


def _host_port(text: str, default: int) -> HostPort:
    bracketed = re.fullmatch(r"\[([^\[\]]+)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, rest = text.partition(":")
        port = rest if colon else None
    try:
        return HostPort(checked_host(host), default if port is None else _port(port))
    except Wrong as wrong:
        raise Wrong(text, "has no port behind its colon" if port == "" else wrong.complaint) from None


def checked_host(text: str) -> str:
    """A host by name or address, in one form; :class:`Wrong` when it is neither."""
    try:
        return str(ip_address(text))
    except ValueError:
        labels = text.split(".")
        # Names of containers and private networks have underscores, which RFC 1123 doesn't allow and resolvers don't mind.
        if len(text) > 253 or not all(map(_LOOSE_LABEL.fullmatch, labels)) or _ends_like_ipv4(labels):
            raise Wrong(text, "is neither a host name nor an IP address") from None
        return text


def _name_server(text: str) -> HostPort:
    server = _host_port(text, 53)
    try:
        ip_address(server.host)
    except ValueError:
        raise Wrong(text, "is not an IP address") from None
    return server


def _own_address(text: str) -> HostPort:
    own = _host_port(text, 0)
    try:
        ip_address(own.host)
    except ValueError:
        raise Wrong(text, "is not an IP address") from None
    if not own.port:
        raise Wrong(text, "has no port")
    return own


PORT = one(_port, "a number from 1 to 65535")
PORTS = several(_port, "numbers from 1 to 65535", least=1)
ADDRESSES = several(_address, "IPv4 and IPv6 addresses", least=1)
SOURCES = several(_address, "IPv4 and IPv6 addresses")
NETWORKS = several(_network, "networks like 10.0.0.0/8 or 2001:db8::/32")
TRUSTED_NETWORKS = several(_trusted_network, "networks like 10.0.0.0/8 or 2001:db8::/32, no wider than /8 (IPv6: /16)")
HOSTNAME = one(_hostname, "a domain name like mta.example.com, or an address literal like [192.0.2.1] or [IPv6:2001:db8::1]")
DOMAIN = optional(HOSTNAME)
RELAY = optional(one(lambda text: _host_port(text, 25), "a host and maybe a port: smtp.example.com, 192.0.2.1:587, [2001:db8::1]:25"))
NAME_SERVERS = several(_name_server, "IP addresses, each maybe with a port: 192.0.2.53, 127.0.0.1:5300, [::1]:53")
LISTEN = several(_own_address, "IP addresses of this machine, each with a port: 127.0.0.1:9110, [::1]:9110")
