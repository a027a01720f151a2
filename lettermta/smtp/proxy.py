"""The PROXY protocol's header, versions 1 and 2, by which a load balancer tells whom it speaks for (HAProxy, doc/proxy-protocol.txt).

:class:`ProxyHeader` takes the first octets of a connection, however they are split, and says as soon as it can what they are: the
addresses of the connection that is passed on, with the octets behind the header untouched (a ClientHello, an EHLO), or
:class:`ProxyFault`, upon which the connection is to be dropped (section 2: the receiver must not guess). It waits for nothing by
itself: a deadline is the caller's, and so is the choice of whose header to believe, for who may send one may claim any address.

Memory is bounded by :data:`MAX_HEADER`, time is linear in the octets fed.
"""

from __future__ import annotations

import enum
import ipaddress
import struct

from attrs import frozen

V1_MAX = 107
"""Octets of the longest line of version 1, CRLF included (section 2.1)."""
MAX_HEADER = 16 + 4096
"""Octets of the longest header of version 2 that is taken: the 16 fixed ones, and addresses with their TLVs (section 2.2 allows 64 KB)."""

_V1_BEGIN = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
_UNKNOWN = b"UNKNOWN"


class ProxyFault(Exception):
    """The octets are no header to be accepted; the text says why, for the log, and quotes none of them."""


class Command(enum.Enum):
    """What a header says of its connection."""

    LOCAL = "the proxy speaks for itself, as in a health check"
    PROXY = "the proxy speaks for another"


@frozen
class Endpoint:
    """One end of a TCP connection. An IPv4 address that came in IPv6's form is given as IPv4."""

    address: str
    port: int


@frozen
class Proxied:
    """A complete header. Where ``source`` is None the connection's own addresses hold: LOCAL, UNKNOWN, UNSPEC, a Unix socket."""

    command: Command
    source: Endpoint | None
    destination: Endpoint | None
    rest: bytes
    """What came behind the header."""


class ProxyHeader:
    """Reads one header."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Proxied | None:
        """Take the next octets; None means that more are needed. Raises :class:`ProxyFault`. Not to be called after either end."""
        buffer = self._buffer
        buffer += data
        # The first octet tells the versions apart, and nearly everything else from both (section 2.2).
        if buffer.startswith(_SIGNATURE[:1]):
            return self._version_2()
        if buffer:
            return self._version_1()
        return None

    def _version_1(self) -> Proxied | None:
        buffer = self._buffer
        if not _begins(buffer, _V1_BEGIN):
            raise ProxyFault("no PROXY header")
        end = buffer.find(b"\n", 0, V1_MAX)
        if end < 0:
            if len(buffer) >= V1_MAX:
                raise ProxyFault("PROXY line too long")
            return None
        if end == 0 or buffer[end - 1] != 0x0D or buffer.find(b"\r", 0, end - 1) >= 0:
            raise ProxyFault("PROXY line not ended by CRLF")
        return _line(bytes(buffer[len(_V1_BEGIN) : end - 1]), bytes(buffer[end + 1 :]))

    def _version_2(self) -> Proxied | None:
        buffer = self._buffer
        if not _begins(buffer, _SIGNATURE):
            raise ProxyFault("no PROXY header")
        if len(buffer) < _FIXED:
            return None
        length = int.from_bytes(buffer[14:_FIXED], "big")
        if _FIXED + length > MAX_HEADER:
            raise ProxyFault("PROXY header too long")
        if len(buffer) < _FIXED + length:
            return None
        return _block(buffer[12], buffer[13], bytes(buffer[_FIXED : _FIXED + length]), bytes(buffer[_FIXED + length :]))


def _begins(buffer: bytearray, expected: bytes) -> bool:
    """Whether ``buffer`` begins with ``expected``, as far as there is any of it yet."""
    return buffer[: len(expected)] == expected[: len(buffer)]


def _line(line: bytes, rest: bytes) -> Proxied:
    """Version 1 behind ``PROXY ``: protocol, two addresses, two ports, single blanks between them (section 2.1)."""
    words = line.split(b" ")
    if words[0] == _UNKNOWN:
        return Proxied(Command.PROXY, None, None, rest)
    if len(words) != 5 or words[0] not in (b"TCP4", b"TCP6"):
        raise ProxyFault("malformed PROXY line")
    family: type[ipaddress.IPv4Address | ipaddress.IPv6Address] = ipaddress.IPv4Address if words[0] == b"TCP4" else ipaddress.IPv6Address
    source = Endpoint(_address(words[1], family), _port(words[3]))
    return Proxied(Command.PROXY, source, Endpoint(_address(words[2], family), _port(words[4])), rest)


def _address(word: bytes, family: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        # A zone such as %eth0 is no part of the format; what else it forbids, leading zeros say, the parser refuses by itself.
        if b"%" in word:
            raise ProxyFault("malformed address in the PROXY line")
        return _shown(family(word.decode("ascii")))
    except ValueError:
        raise ProxyFault("malformed address in the PROXY line") from None


def _port(word: bytes) -> int:
    # bytes.isdigit knows ASCII digits alone, so int() has nothing to be generous about.
    if not word.isdigit() or len(word) > 5 or (word.startswith(b"0") and len(word) > 1) or int(word) > 65535:
        raise ProxyFault("malformed port in the PROXY line")
    return int(word)


def _block(version_command: int, protocol: int, block: bytes, rest: bytes) -> Proxied:
    """Version 2 behind its signature: what the 13th and the 14th octet say of the address block (section 2.2)."""
    if version_command >> 4 != 2:
        raise ProxyFault("unknown version of the PROXY header")
    if version_command & 15 == 0:
        # The family is not looked at, and the block was skipped by its length: "must not assume zero is presented".
        return Proxied(Command.LOCAL, None, None, rest)
    if version_command & 15 != 1:
        raise ProxyFault("unknown command in the PROXY header")
    family, transport = protocol >> 4, protocol & 15
    if family not in _FAMILIES or transport > 2:
        raise ProxyFault("unknown family or transport in the PROXY header")
    form = _FAMILIES[family]
    if transport == 0 or form is None:
        return Proxied(Command.PROXY, None, None, rest)
    if len(block) < form.size:
        raise ProxyFault("PROXY header too short for its addresses")
    # TLVs behind the addresses are skipped, as the section allows; so is what can't be the far end of a TCP connection to us.
    if transport != 1 or family == _UNIX:
        return Proxied(Command.PROXY, None, None, rest)
    source, destination, source_port, destination_port = form.unpack_from(block)
    return Proxied(
        Command.PROXY,
        Endpoint(_shown(ipaddress.ip_address(source)), source_port),
        Endpoint(_shown(ipaddress.ip_address(destination)), destination_port),
        rest,
    )


_UNIX = 3
_FAMILIES = {0: None, 1: struct.Struct("!4s4sHH"), 2: struct.Struct("!16s16sHH"), _UNIX: struct.Struct("!108s108s")}
"""The address blocks of section 2.2 by address family; UNSPEC has none."""


def _shown(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address as it is compared and logged: a mapped one (RFC 4291 section 2.5.5.2) is the IPv4 address that it stands for."""
    return str(getattr(address, "ipv4_mapped", None) or address)
