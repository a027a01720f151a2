"""The PROXY protocol's header, as HAProxy's doc/proxy-protocol.txt has it (HARD-CASES row 30)."""

from __future__ import annotations

import itertools
import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.smtp.proxy import MAX_HEADER, V1_MAX, Command, Endpoint, Proxied, ProxyFault, ProxyHeader

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT_HELLO = b"\x16\x03\x01\0\0\r\nEHLO"


def version_2(command: int, family: int, block: bytes, tlvs: bytes = b"") -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(block) + len(tlvs)).to_bytes(2, "big") + block + tlvs


def inet(source: str = "192.0.2.7", destination: str = "198.51.100.1") -> bytes:
    return socket.inet_aton(source) + socket.inet_aton(destination) + (40000).to_bytes(2, "big") + (25).to_bytes(2, "big")


def inet6(source: str = "2001:db8::7") -> bytes:
    pack = socket.inet_pton
    return pack(socket.AF_INET6, source) + pack(socket.AF_INET6, "2001:db8::1") + (40000).to_bytes(2, "big") + (25).to_bytes(2, "big")


def read(data: bytes) -> Proxied | None:
    return ProxyHeader().feed(data)


def read_split(pieces: list[bytes]) -> Proxied | str | None:
    """What a header in pieces comes to; what follows the end is what a server would take for the client's."""
    header = ProxyHeader()
    try:
        for number, piece in enumerate(pieces):
            if (found := header.feed(piece)) is not None:
                return Proxied(found.command, found.source, found.destination, found.rest + b"".join(pieces[number + 1 :]))
    except ProxyFault as fault:
        return str(fault)
    return None


ACCEPTED = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", Endpoint("192.0.2.7", 40000), Endpoint("198.51.100.1", 25)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Endpoint("255.255.255.255", 65535), Endpoint("255.255.255.255", 65535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Endpoint("0.0.0.0", 0), Endpoint("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::7 2001:db8::1 40000 25\r\n", Endpoint("2001:db8::7", 40000), Endpoint("2001:db8::1", 25)),
    (b"PROXY TCP6 ::ffff:c000:207 ::ffff:c633:6401 1 25\r\n", Endpoint("192.0.2.7", 1), Endpoint("198.51.100.1", 25)),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN " + b"f" * (V1_MAX - 16) + b"\r\n", None, None),
    (version_2(0x21, 0x11, inet()), Endpoint("192.0.2.7", 40000), Endpoint("198.51.100.1", 25)),
    (version_2(0x21, 0x21, inet6()), Endpoint("2001:db8::7", 40000), Endpoint("2001:db8::1", 25)),
    (version_2(0x21, 0x21, inet6("::ffff:192.0.2.7")), Endpoint("192.0.2.7", 40000), Endpoint("2001:db8::1", 25)),
    (version_2(0x21, 0x11, inet(), b"\x02\0\x04host\x20\0\x02\1\2"), Endpoint("192.0.2.7", 40000), Endpoint("198.51.100.1", 25)),
    (version_2(0x21, 0x11, inet(), b"\x02\xff\xff a length that lies"), Endpoint("192.0.2.7", 40000), Endpoint("198.51.100.1", 25)),
    (version_2(0x21, 0x11, inet(), bytes(4096 - 12)), Endpoint("192.0.2.7", 40000), Endpoint("198.51.100.1", 25)),
    (version_2(0x21, 0x31, bytes(216)), None, None),
    (version_2(0x21, 0x12, inet()), None, None),
    (version_2(0x21, 0x00, b""), None, None),
    (version_2(0x21, 0x00, b"anything"), None, None),
]


@pytest.mark.parametrize(("header", "source", "destination"), ACCEPTED)
def test_a_header_gives_the_addresses_and_leaves_what_follows_untouched(
    header: bytes, source: Endpoint | None, destination: Endpoint | None
) -> None:
    assert read(header + CLIENT_HELLO) == Proxied(Command.PROXY, source, destination, CLIENT_HELLO)
    assert read(header) == Proxied(Command.PROXY, source, destination, b"")


@pytest.mark.parametrize("block", [b"", inet(), bytes(300)])
@pytest.mark.parametrize("family", [0x00, 0x11, 0xFF])
def test_local_keeps_the_connections_own_addresses_whatever_its_block(family: int, block: bytes) -> None:
    """Section 2.2: the block, with the family, is skipped and not looked at."""
    assert read(version_2(0x20, family, block) + b"EHLO x\r\n") == Proxied(Command.LOCAL, None, None, b"EHLO x\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO client.example\r\n",
        b"G",
        b"\x16\x03\x01",
        b"\0",
        b"PROXX",
        b"proxy TCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
        b"PROXY\tTCP4",
        b"\r\n\r\nQUIT\r\n",
        SIGNATURE[:11] + b"\r",
    ],
)
def test_what_is_no_header_is_known_at_its_first_wrong_octet(data: bytes) -> None:
    with pytest.raises(ProxyFault, match="no PROXY header"):
        read(data)


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UDP4 192.0.2.7 198.51.100.1 40000 25\r\n",
        b"PROXY TCP4 192.0.2.7  198.51.100.1 40000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 40000 25\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.1 40000 25\r\n",
        b"PROXY TCP4 2001:db8::7 198.51.100.1 40000 25\r\n",
        b"PROXY TCP6 192.0.2.7 2001:db8::1 40000 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 40000 25\r\n",
        b"PROXY TCP6 2001::db8::7 2001:db8::1 40000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 040 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 1_0 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 \xd9\xa1 25\r\n",
        b"PROXY TCP4 \xff 198.51.100.1 1 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\n",
        b"PROXY TCP4 192.0.2.7\r198.51.100.1 40000 25\r\n",
    ],
)
def test_a_line_that_is_not_exactly_the_protocol_is_refused(line: bytes) -> None:
    """Section 2.1: any sequence that does not match is discarded and the connection dropped."""
    with pytest.raises(ProxyFault):
        read(line + b"EHLO x\r\n")


@pytest.mark.parametrize(
    "header",
    [
        version_2(0x11, 0x11, inet()),
        version_2(0x22, 0x11, inet()),
        version_2(0x2F, 0x11, inet()),
        version_2(0x21, 0x41, bytes(300)),
        version_2(0x21, 0x13, inet()),
        version_2(0x21, 0x11, inet()[:-1]),
        version_2(0x21, 0x21, inet6()[:-1]),
        version_2(0x21, 0x31, bytes(215)),
    ],
)
def test_a_block_that_is_not_the_protocol_is_refused(header: bytes) -> None:
    with pytest.raises(ProxyFault):
        read(header + b"EHLO x\r\n")


def test_a_line_without_end_is_refused_at_107_octets() -> None:
    line = b"PROXY UNKNOWN ".ljust(V1_MAX, b"f")
    assert read(line[:-1]) is None
    with pytest.raises(ProxyFault, match="too long"):
        read(line)
    with pytest.raises(ProxyFault, match="too long"):
        read(line + b"\r\n")


def test_an_oversized_block_is_refused_by_its_length_before_it_comes() -> None:
    with pytest.raises(ProxyFault, match="too long"):
        read(SIGNATURE + b"\x21\x11" + (MAX_HEADER - 16 + 1).to_bytes(2, "big"))
    assert read(SIGNATURE + b"\x21\x11" + (MAX_HEADER - 16).to_bytes(2, "big")) is None


@pytest.mark.parametrize("header", [header for header, _, _ in ACCEPTED])
def test_nothing_is_said_before_the_header_is_whole(header: bytes) -> None:
    reader = ProxyHeader()
    for octet in header[:-1]:
        assert reader.feed(bytes([octet])) is None
    assert reader.feed(header[-1:]) is not None


@given(
    data=st.one_of(
        st.sampled_from([header for header, _, _ in ACCEPTED]).flatmap(lambda header: st.binary(max_size=40).map(header.__add__)),
        st.binary(max_size=60).map(b"PROXY ".__add__),
        st.binary(max_size=60).map(SIGNATURE.__add__),
        st.binary(max_size=60),
    ),
    cuts=st.lists(st.integers(0, 140), max_size=8),
)
def test_every_split_of_the_octets_comes_to_the_same(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)] if max(cuts, default=0) <= len(data) else [data]
    assert read_split(pieces) == read_split([data]) == read_split([data[i : i + 1] for i in range(len(data))])


def test_a_fault_quotes_nothing_of_what_the_client_sent() -> None:
    with pytest.raises(ProxyFault) as caught:
        read(b"PROXY TCP4 forged\x1b[2J 198.51.100.1 1 2\r\n")
    assert "forged" not in str(caught.value)
    assert "forged" not in str(caught.value.__cause__ or "")


def test_a_large_read_behind_the_header_is_not_searched() -> None:
    data = b"PROXY UNKNOWN\r\n" + b"x" * 50_000_000
    began = time.process_time()
    found = read(data)
    assert found is not None
    assert len(found.rest) == 50_000_000
    assert time.process_time() - began < 1.0
