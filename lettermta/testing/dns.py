"""A small DNS server for tests, which answers by UDP and TCP on one port and misbehaves where it is told to.

It is its own root: authoritative for every name, a resolver for whoever asks, following CNAMEs as long as it knows the targets.
A zone is plain Python, or the same as JSON::

    {
        "example.com": {"MX": [(10, "mx.example.com")], "TXT": ["v=spf1 -all"]},
        "mx.example.com": {"A": ["192.0.2.1"], "AAAA": "SERVFAIL", "ttl": 5},
        "www.example.com": {"CNAME": ["example.com"]},
        "dead.example": "silent",
        "big.example": {"A": ["192.0.2.2"], "fault": "truncated", "secure": True},
    }

A record is its text in a zone file, or a sequence of its fields (of TXT, of its strings); names need no trailing dot. What stands in place
of the records of a type, or of the whole entry, or as ``fault`` beside the records, is a fault: the name of an rcode (``SERVFAIL``,
``REFUSED``, ``NXDOMAIN`` …), or one of :class:`Fault`. ``ttl`` is in seconds. ``secure`` sets the AD bit for those who ask for it (RFC 6840
section 5.7). A name that is not in the zone, nor above one that is, gets NXDOMAIN; every absence comes with an SOA record.

As a program: ``python -m lettermta.testing.dns --port 0 --zone zone.json`` prints ``listening PORT`` once it answers.
"""

from __future__ import annotations

import argparse
import enum
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol, Protocol, ServerFactory

_BIND_TRIES = 20
_MOST_HOPS = 16


class Fault(enum.StrEnum):
    """Ways to misbehave that are no rcode."""

    SILENT = "silent"
    """Never answers."""
    TRUNCATED = "truncated"
    """Sends no records by UDP but sets TC; answers in full by TCP."""
    HANGS_UP = "hangs-up"
    """Truncated by UDP; closes a TCP connection without an answer."""
    GARBAGE = "garbage"
    """A right header and question, and then octets that are no records."""
    WRONG_ID = "wrong-id"
    """Sends a forged NXDOMAIN with another id, and then the true answer."""
    WRONG_QUESTION = "wrong-question"
    """Sends a forged NXDOMAIN for another name, and then the true answer."""
    NOT_A_RESPONSE = "not-a-response"
    """Sends a forged NXDOMAIN without the QR bit, and then the true answer."""
    REFERRAL = "referral"
    """Names other servers instead of answering, as one that doesn't recurse."""
    UNCHASED = "unchased"
    """Answers with the CNAME alone and leaves the rest to the client."""


@frozen
class Query:
    """A question that was received."""

    name: str
    """In lower case, without the trailing dot."""
    rdtype: str
    transport: str
    """``udp`` or ``tcp``."""
    id: int
    port: int
    """The client's source port."""
    edns_payload: int | None
    """The payload size of its OPT record, or None when it has none."""
    asks_ad: bool


@define
class _Entry:
    """What the zone says of one name."""

    records: dict[dns.rdatatype.RdataType, list[dns.rdata.Rdata]] = Factory(dict)
    faults: dict[dns.rdatatype.RdataType | None, str] = Factory(dict)
    """By type; under None, for all types."""
    ttl: int = 300
    secure: bool = False


def _fault(text: str) -> str:
    """A known fault. Raises ValueError for any other word."""
    if text.lower() in set(Fault):
        return text.lower()
    try:
        return dns.rcode.to_text(dns.rcode.from_text(text))
    except (dns.exception.DNSException, ValueError) as error:
        raise ValueError(f"{text!r} is neither a fault ({', '.join(Fault)}) nor an rcode") from error


def _record(rdtype: dns.rdatatype.RdataType, value: Any) -> dns.rdata.Rdata:
    if rdtype == dns.rdatatype.TXT:
        octets = "".join(value).encode("utf-8")
        cut = [octets[start : start + 255] for start in range(0, len(octets), 255)] or [b""]
        strings = cut if isinstance(value, str) else [string.encode("utf-8") for string in value]
        value = " ".join('"' + "".join(f"\\{octet:03d}" for octet in string) + '"' for string in strings)
    text = value if isinstance(value, str) else " ".join(str(field) for field in value)
    return dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, origin=dns.name.root, relativize=False)


def _entry(value: Mapping[str, Any] | str) -> _Entry:
    """Read one entry. Raises ValueError or a DNSException for what can't be understood."""
    if isinstance(value, str):
        return _Entry(faults={None: _fault(value)})
    entry = _Entry()
    for key, content in value.items():
        if key == "fault":
            entry.faults[None] = _fault(content)
        elif key == "ttl":
            entry.ttl = int(content)
        elif key == "secure":
            entry.secure = bool(content)
        elif isinstance(content, str):
            entry.faults[dns.rdatatype.from_text(key)] = _fault(content)
        else:
            rdtype = dns.rdatatype.from_text(key)
            entry.records[rdtype] = [_record(rdtype, one) for one in content]
    return entry


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


class DNSAuthority:
    """A DNS server with ``zone`` for its world; ``negative_ttl`` is the minimum of its SOA record in seconds.

    ``queries`` lists what was asked, in order of arrival.
    """

    def __init__(self, zone: Mapping[str, Mapping[str, Any] | str], *, negative_ttl: int = 60) -> None:
        self.queries: list[Query] = []
        self._entries: dict[dns.name.Name, _Entry] = {}
        self._below: Counter[dns.name.Name] = Counter()
        """How many names there are below each: a name without records of its own exists while there are some (RFC 8020)."""
        self._ports: list[IListeningPort] = []
        soa = f". nobody.invalid. 1 3600 600 86400 {negative_ttl}"
        self._soa = dns.rrset.from_text(dns.name.root, max(negative_ttl, 0), "IN", "SOA", soa)
        for name, value in zone.items():
            self.set(name, value)

    def set(self, name: str, value: Mapping[str, Any] | str | None) -> None:
        """Have ``name`` answer by ``value`` from now on; None takes the name out of the zone."""
        key = dns.name.from_text(name)
        there = key in self._entries
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = _entry(value)
        change = (key in self._entries) - there
        while change and key != dns.name.root:
            key = key.parent()
            self._below[key] += change

    def listen(self, reactor: Any, port: int = 0, interface: str = "127.0.0.1") -> int:
        """Bind UDP and TCP to the same port, any free one for 0, and return it. Raises CannotListenError."""
        for remaining in reversed(range(_BIND_TRIES)):
            stream = reactor.listenTCP(port, _StreamFactory(self), interface=interface)
            number: int = stream.getHost().port
            try:
                datagram = reactor.listenUDP(number, _Datagrams(self), interface=interface, maxPacketSize=65535)
            except CannotListenError:
                stream.stopListening()
                if port or not remaining:
                    raise
                continue
            self._ports = [stream, datagram]
            break
        return number

    def stop(self) -> Deferred[None]:
        """Stop listening; fires once the port is free. Safe to call twice."""
        ports, self._ports = self._ports, []
        return gatherResults([maybeDeferred(port.stopListening) for port in ports]).addCallback(lambda _: None)

    def answer(self, wire: bytes, transport: str, port: int) -> Sequence[bytes] | None:
        """The messages that answer a query that came by ``transport`` from ``port``: maybe none; None means to hang up."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return []
        if not query.question:
            return []
        asked = query.question[0]
        payload = query.payload if query.edns >= 0 else None
        asks_ad = bool(query.flags & dns.flags.AD)
        self.queries.append(Query(_plain(asked.name), dns.rdatatype.to_text(asked.rdtype), transport, query.id, port, payload, asks_ad))
        entry = self._entries.get(asked.name, _Entry())
        fault = entry.faults.get(asked.rdtype) or entry.faults.get(None)
        if fault == Fault.SILENT:
            return []
        if fault == Fault.HANGS_UP and transport == "tcp":
            return None
        return self._with_fault(query, fault, transport)

    def _with_fault(self, query: dns.message.Message, fault: str | None, transport: str) -> Sequence[bytes]:
        if fault is not None and fault not in set(Fault):
            return [self._reply(query, rcode=dns.rcode.from_text(fault)).to_wire()]
        if fault in (Fault.TRUNCATED, Fault.HANGS_UP) and transport == "udp":
            return [_truncated(self._reply(query))]
        if fault == Fault.GARBAGE:
            wire = bytearray(self._reply(query, rcode=dns.rcode.NOERROR, edns=False).to_wire())
            wire[6:8] = (1).to_bytes(2, "big")  # one record is promised
            return [bytes(wire) + b"\xc0\xff\xff\xffgarbage"]
        if fault == Fault.REFERRAL:
            return [self._referral(query).to_wire()]
        messages = [self._reply(query) if fault == Fault.UNCHASED else self._reply(query, chase=True)]
        if fault in (Fault.WRONG_ID, Fault.WRONG_QUESTION, Fault.NOT_A_RESPONSE):
            messages.insert(0, self._forged(query, fault))
        limit = 65535 if transport == "tcp" else query.payload if query.edns >= 0 else 512
        return [_fitting(message, limit) for message in messages]

    def _reply(
        self, query: dns.message.Message, *, rcode: dns.rcode.Rcode | None = None, chase: bool = False, edns: bool = True
    ) -> dns.message.Message:
        """What the zone says, or ``rcode`` alone."""
        reply = dns.message.make_response(query, recursion_available=True)
        reply.flags |= dns.flags.AA
        if not edns:
            reply.use_edns(False)
        if rcode is not None:
            reply.set_rcode(rcode)
            if rcode == dns.rcode.NXDOMAIN:
                reply.authority.append(self._soa)
            return reply
        if self._fill(reply, chase=chase) and query.flags & dns.flags.AD:
            reply.flags |= dns.flags.AD
        return reply

    def _fill(self, reply: dns.message.Message, *, chase: bool) -> bool:
        """Put in what the zone says; whether every name on the way is secure."""
        name, rdtype = reply.question[0].name, reply.question[0].rdtype
        secure = True
        for _ in range(_MOST_HOPS):
            entry = self._entries.get(name)
            if entry is None:
                if not self._below[name]:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                reply.authority.append(self._soa)
                return False
            secure = secure and entry.secure
            records = entry.records.get(rdtype)
            if records:
                reply.answer.append(dns.rrset.from_rdata_list(name, entry.ttl, records))
                break
            aliases = entry.records.get(dns.rdatatype.CNAME)
            if not aliases:
                reply.authority.append(self._soa)
                break
            reply.answer.append(dns.rrset.from_rdata_list(name, entry.ttl, aliases))
            name = aliases[0].target  # type: ignore[attr-defined]
            if not chase:
                break
        return secure

    def _referral(self, query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        reply.authority.append(dns.rrset.from_text(query.question[0].name.parent(), 300, "IN", "NS", "ns.elsewhere.invalid."))
        return reply

    def _forged(self, query: dns.message.Message, fault: str) -> dns.message.Message:
        """What an attacker would send who has not seen the query."""
        forged = self._reply(query, rcode=dns.rcode.NXDOMAIN)
        if fault == Fault.WRONG_ID:
            forged.id ^= 1
        elif fault == Fault.WRONG_QUESTION:
            asked = query.question[0]
            labels = asked.name.labels
            other = dns.name.Name([b"x" * len(labels[0]), *labels[1:]])  # of the same length, so that only its letters tell
            forged.question = [dns.rrset.RRset(other, asked.rdclass, asked.rdtype)]
        else:
            forged.flags &= ~dns.flags.QR
        return forged


def _truncated(reply: dns.message.Message) -> bytes:
    reply.answer.clear()
    reply.authority.clear()
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def _fitting(reply: dns.message.Message, limit: int) -> bytes:
    """The message, or TC and no records when it has more than ``limit`` octets (RFC 2181 section 9)."""
    try:
        return reply.to_wire(max_size=max(limit, 512))
    except dns.exception.TooBig:
        return _truncated(reply)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, authority: DNSAuthority) -> None:
        self._authority = authority

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Answer one query."""
        assert self.transport is not None
        for message in self._authority.answer(datagram, "udp", addr[1]) or ():
            self.transport.write(message, addr)


class _Stream(Protocol):
    """Queries over TCP, each behind two octets of length (RFC 1035 section 4.2.2)."""

    def __init__(self, authority: DNSAuthority) -> None:
        self._authority = authority
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer each query that is complete."""
        assert self.transport is not None
        self._buffer += data
        while len(self._buffer) > 2 and len(self._buffer) >= (end := 2 + int.from_bytes(self._buffer[:2], "big")):
            query, self._buffer = self._buffer[2:end], self._buffer[end:]
            messages = self._authority.answer(query, "tcp", self.transport.getPeer().port)  # type: ignore[attr-defined]
            if messages is None:
                self.transport.loseConnection()
                return
            for message in messages:
                self.transport.write(len(message).to_bytes(2, "big") + message)


class _StreamFactory(ServerFactory):
    noisy = False

    def __init__(self, authority: DNSAuthority) -> None:
        self._authority = authority

    def buildProtocol(self, addr: object) -> Protocol:
        """A connection of its own for each client."""
        return _Stream(self._authority)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a zone until told to stop (SIGINT, SIGTERM); returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lettermta.testing.dns", description="A DNS server for tests.")
    parser.add_argument("--port", type=int, default=0, help="UDP and TCP port; 0 takes a free one")
    parser.add_argument("--interface", default="127.0.0.1", help="address to bind")
    parser.add_argument("--zone", required=True, help="JSON file with the zone")
    options = parser.parse_args(arguments)
    try:
        authority = DNSAuthority(json.loads(Path(options.zone).read_text("utf-8")))
    except (OSError, ValueError, AttributeError, TypeError, dns.exception.DNSException) as error:
        parser.error(f"zone {options.zone}: {error}")

    from twisted.internet import reactor as untyped

    reactor: Any = untyped
    try:
        port = authority.listen(reactor, options.port, options.interface)
    except CannotListenError as error:
        parser.error(str(error))
    reactor.callWhenRunning(print, "listening", port, flush=True)
    reactor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
