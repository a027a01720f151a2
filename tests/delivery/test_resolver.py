"""The resolver against a DNS server on loopback, and against a socket and a clock that the test holds."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from lettermta.delivery.resolver import InvalidName, NoSuchDomain, Resolver, TemporaryDNSFailure, ascii_name, system_servers
from lettermta.interfaces import IResolver
from lettermta.testing.dns import DNSAuthority

ZONE: dict[str, Any] = {
    "example.com": {"MX": [(10, "MX1.example.com"), (20, "mx2.example.com")], "TXT": ["hello"], "A": ["192.0.2.7"]},
    "mx1.example.com": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "null.example": {"MX": [(0, ".")]},
    "bare.example": {"A": ["192.0.2.9"]},
    "alias.example": {"CNAME": ["example.com"]},
    "dangling.example": {"CNAME": ["nowhere.example"]},
    "unchased.example": {"CNAME": ["example.com"], "fault": "unchased"},
    "loop-a.example": {"CNAME": ["loop-b.example"]},
    "loop-b.example": {"CNAME": ["loop-a.example"]},
    "far-a.example": {"CNAME": ["far-b.example"], "fault": "unchased"},
    "far-b.example": {"CNAME": ["far-a.example"], "fault": "unchased"},
    "into-loop.example": {"CNAME": ["far-a.example"], "fault": "unchased"},
    "truncated.example": {"MX": [(5, "mx.truncated.example")], "fault": "truncated"},
    "hangs-up.example": {"MX": [(5, "mx.example.com")], "fault": "hangs-up"},
    "garbage.example": {"MX": [(5, "mx.example.com")], "fault": "garbage"},
    "wrong-id.example": {"MX": [(5, "mx.example.com")], "fault": "wrong-id"},
    "wrong-question.example": {"MX": [(5, "mx.example.com")], "fault": "wrong-question"},
    "not-a-response.example": {"MX": [(5, "mx.example.com")], "fault": "not-a-response"},
    "referral.example": "referral",
    "half.example": {"A": ["192.0.2.3"], "AAAA": "SERVFAIL"},
    "half-dead.example": {"A": "SERVFAIL"},
    "xn--mller-kva.example": {"MX": [(1, "mx.example.com")]},
    "under_score.example": {"A": ["192.0.2.4"]},
    "secure.example": {"TLSA": [(3, 1, 1, "ab" * 32)], "secure": True},
    "to-secure.example": {"CNAME": ["secure.example"]},
    "big.example": {"MX": [(n, f"mx{n}.a-rather-long-host-name-so-that-it-fills-the-datagram.example") for n in range(60)]},
    **{f"{rcode.lower()}.example": rcode for rcode in ("SERVFAIL", "REFUSED", "NXDOMAIN", "FORMERR", "NOTIMP", "NOTAUTH")},
}


class OnTheWireTests(TestCase):
    """Against a real server on loopback."""

    timeout = 10

    def setUp(self) -> None:
        self.authority = DNSAuthority(ZONE)
        self.port = self.authority.listen(reactor)
        self.addCleanup(self.authority.stop)
        self.resolver = Resolver(reactor, [("127.0.0.1", self.port)], 5, validating=True)

    def asked(self) -> list[tuple[str, str, str]]:
        return [(query.name, query.rdtype, query.transport) for query in self.authority.queries]

    async def temporary(self, waiting: Deferred[Any]) -> TemporaryDNSFailure:
        return await self.assertFailure(waiting, TemporaryDNSFailure)  # type: ignore[no-any-return]

    def test_it_provides_what_delivery_asks_for(self) -> None:
        verifyObject(IResolver, self.resolver)

    async def test_mx_hosts_come_in_lower_case_without_the_dot(self) -> None:
        self.assertEqual(sorted(await self.resolver.mx("Example.COM.")), [(10, "mx1.example.com"), (20, "mx2.example.com")])

    async def test_both_address_families_are_asked_for(self) -> None:
        self.assertEqual(await self.resolver.addresses("mx1.example.com"), ["2001:db8::1", "192.0.2.1"])

    async def test_a_name_without_mx_is_not_a_failure(self) -> None:
        self.assertEqual(await self.resolver.mx("bare.example"), [])

    async def test_a_name_without_addresses_is_not_a_failure(self) -> None:
        self.assertEqual(await self.resolver.addresses("null.example"), [])

    async def test_null_mx_is_an_empty_host(self) -> None:
        """RFC 7505; HARD-CASES row 20."""
        self.assertEqual(await self.resolver.mx("null.example"), [(0, "")])

    async def test_nxdomain_is_permanent(self) -> None:
        """HARD-CASES row 20."""
        for name in ("nowhere.example", "nxdomain.example", "dangling.example"):
            await self.assertFailure(self.resolver.mx(name), NoSuchDomain)
            await self.assertFailure(self.resolver.addresses(name), NoSuchDomain)

    async def test_every_other_rcode_is_temporary_and_named(self) -> None:
        """HARD-CASES row 20."""
        for rcode in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "NOTAUTH"):
            failure = await self.temporary(self.resolver.mx(f"{rcode.lower()}.example"))
            self.assertEqual((failure.rcode, failure.server), (rcode, f"127.0.0.1:{self.port}"))
            self.assertEqual(str(failure), f"MX of {rcode.lower()}.example: 127.0.0.1:{self.port}: {rcode}")
            await self.temporary(self.resolver.addresses(f"{rcode.lower()}.example"))

    async def test_garbage_is_temporary(self) -> None:
        failure = await self.temporary(self.resolver.mx("garbage.example"))
        self.assertIn("malformed", failure.reason)

    async def test_a_referral_is_not_taken_for_no_data(self) -> None:
        failure = await self.temporary(self.resolver.mx("referral.example"))
        self.assertIn("referral", failure.reason)

    async def test_nobody_listening_is_told_without_waiting(self) -> None:
        await self.authority.stop()
        began = time.monotonic()
        failure = await self.temporary(self.resolver.mx("example.com"))
        self.assertLess(time.monotonic() - began, 4)
        self.assertIn("unreachable", failure.reason)

    async def test_the_next_server_is_asked_when_one_fails(self) -> None:
        for fault in ("SERVFAIL", "REFUSED", "garbage", "hangs-up", "referral"):
            broken = DNSAuthority({"example.com": fault})
            first = broken.listen(reactor)
            resolver = Resolver(reactor, [("127.0.0.1", first), ("127.0.0.1", self.port)], 5)
            try:
                self.assertEqual(len(await resolver.mx("example.com")), 2)
            finally:
                await broken.stop()

    async def test_a_truncated_answer_is_asked_for_again_by_tcp(self) -> None:
        self.assertEqual(await self.resolver.mx("truncated.example"), [(5, "mx.truncated.example")])
        self.assertEqual([transport for _, _, transport in self.asked()], ["udp", "tcp"])

    async def test_an_answer_larger_than_the_announced_payload_comes_whole(self) -> None:
        self.assertEqual(len(await self.resolver.mx("big.example")), 60)
        self.assertEqual([query.edns_payload for query in self.authority.queries], [1232, 1232])

    async def test_a_tcp_connection_closed_without_an_answer_fails_at_once(self) -> None:
        began = time.monotonic()
        failure = await self.temporary(self.resolver.mx("hangs-up.example"))
        self.assertLess(time.monotonic() - began, 4)
        self.assertIn("closed without an answer", failure.reason)

    async def test_a_forged_answer_is_ignored_and_the_true_one_awaited(self) -> None:
        """RFC 5452 section 9: id, question and QR are checked."""
        for forgery in ("wrong-id", "wrong-question", "not-a-response"):
            self.assertEqual(await self.resolver.mx(f"{forgery}.example"), [(5, "mx.example.com")])

    async def test_id_and_source_port_are_random(self) -> None:
        await gatherResults([self.resolver.mx(f"{n}.example.com").addErrback(lambda _: None) for n in range(20)])
        self.assertGreater(len({query.id for query in self.authority.queries}), 15)
        self.assertGreater(len({query.port for query in self.authority.queries}), 15)

    async def test_equal_questions_in_flight_are_asked_once(self) -> None:
        answers = await gatherResults([self.resolver.mx(name) for name in ("example.com", "EXAMPLE.com", "example.com.")])
        self.assertEqual([len(answer) for answer in answers], [2, 2, 2])
        self.assertEqual(len(self.asked()), 1)

    async def test_a_cancelled_caller_leaves_the_others_their_answer(self) -> None:
        first, second = self.resolver.mx("example.com"), self.resolver.mx("example.com")
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertEqual(len(await second), 2)

    async def test_one_family_may_fail_while_the_other_has_addresses(self) -> None:
        self.assertEqual(await self.resolver.addresses("half.example"), ["192.0.2.3"])

    async def test_one_family_failing_is_temporary_when_the_other_has_none(self) -> None:
        await self.temporary(self.resolver.addresses("half-dead.example"))

    async def test_cname_within_the_answer(self) -> None:
        self.assertEqual(len(await self.resolver.mx("alias.example")), 2)
        self.assertEqual(len(self.asked()), 1)

    async def test_cname_that_the_server_leaves_to_us(self) -> None:
        answer = await self.resolver.lookup("unchased.example", dns.rdatatype.MX)
        self.assertEqual((answer.name, len(answer.records)), ("example.com", 2))
        self.assertEqual([name for name, _, _ in self.asked()], ["unchased.example", "example.com"])

    async def test_cname_loops_end(self) -> None:
        for name in ("loop-a.example", "far-a.example", "into-loop.example"):
            failure = await self.temporary(self.resolver.mx(name))
            self.assertIn("CNAME loop", failure.reason)
        self.assertEqual(len(self.asked()), 1 + 2 + 3)

    async def test_cname_chains_have_an_end(self) -> None:
        for n in range(20):
            self.authority.set(f"c{n}.example", {"CNAME": [f"c{n + 1}.example"], "fault": "unchased"})
        await self.temporary(self.resolver.mx("c0.example"))
        self.assertLess(len(self.asked()), 13)

    async def test_international_names_go_out_as_a_labels(self) -> None:
        for name in ("müller.example", "MÜLLER。example", "xn--mller-kva.example"):
            self.assertEqual(await self.resolver.mx(name), [(1, "mx.example.com")])
        self.assertEqual(self.asked(), [("xn--mller-kva.example", "MX", "udp")])

    async def test_an_underscore_in_a_host_name_is_no_reason_to_refuse_it(self) -> None:
        self.assertEqual(await self.resolver.addresses("under_score.example"), ["192.0.2.4"])

    async def test_names_that_cannot_exist_fail_for_good_and_nobody_is_asked(self) -> None:
        for name in ("", ".", "a..b", "x" * 64 + ".example", "a." * 130 + "b", "\u0378.example", "a b.example", "a\\b.example", "ü" * 9000):
            await self.assertFailure(self.resolver.mx(name), InvalidName)
        self.assertEqual(self.asked(), [])

    async def test_other_types_and_the_ad_bit(self) -> None:
        answer = await self.resolver.lookup("secure.example", dns.rdatatype.TLSA)
        self.assertTrue(answer.authenticated)
        self.assertEqual(answer.records[0].to_text(), "3 1 1 " + "ab" * 32)
        self.assertTrue(self.authority.queries[0].asks_ad)
        self.assertFalse((await self.resolver.lookup("example.com", dns.rdatatype.TXT)).authenticated)

    async def test_the_ad_bit_of_a_server_that_nobody_vouches_for_is_worth_nothing(self) -> None:
        """RFC 6840 section 5.8."""
        resolver = Resolver(reactor, [("127.0.0.1", self.port)], 5)
        answer = await resolver.lookup("secure.example", dns.rdatatype.TLSA)
        self.assertEqual((len(answer.records), answer.authenticated), (1, False))

    async def test_ad_needs_every_name_of_a_chain(self) -> None:
        self.authority.set("to-secure.example", {"CNAME": ["secure.example"], "fault": "unchased"})
        answer = await self.resolver.lookup("to-secure.example", dns.rdatatype.TLSA)
        self.assertEqual((len(answer.records), answer.authenticated), (1, False))

    async def test_a_server_on_ipv6(self) -> None:
        authority = DNSAuthority(ZONE)
        port = authority.listen(reactor, interface="::1")
        try:
            resolver = Resolver(reactor, [("::1", port)], 5)
            self.assertEqual(len(await resolver.mx("example.com")), 2)
            self.assertEqual(len(await resolver.mx("truncated.example")), 1)
        finally:
            await authority.stop()


class StubServer:
    """A name server's socket that the test reads and answers from by hand."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(5)
        self.address: tuple[str, int] = self.socket.getsockname()

    def receive(self) -> tuple[dns.message.Message, tuple[str, int]]:
        wire, client = self.socket.recvfrom(4096)
        return dns.message.from_wire(wire), client

    def pending(self) -> int:
        """How many queries have come; they are read."""
        self.socket.setblocking(False)
        count = 0
        try:
            while True:
                self.socket.recv(4096)
                count += 1
        except BlockingIOError:
            self.socket.settimeout(5)
            return count


def reply(query: dns.message.Message, *records: str, ttl: int = 300, soa: int | None = None, rcode: int = 0) -> bytes:
    """An answer with ``records`` of the type asked for; ``soa`` is the minimum of an SOA record in the authority section."""
    message = dns.message.make_response(query, recursion_available=True)
    asked = query.question[0]
    message.set_rcode(dns.rcode.Rcode(rcode))
    if records:
        message.answer.append(dns.rrset.from_text(asked.name, ttl, "IN", asked.rdtype, *records))
    if soa is not None:
        message.authority.append(dns.rrset.from_text(dns.name.root, 86400, "IN", "SOA", f". . 1 1 1 1 {soa}"))
    return message.to_wire()


class ClockTests(SynchronousTestCase):
    """With time and sockets in the test's hands."""

    def setUp(self) -> None:
        self.clock = MemoryReactorClock()
        self.first, self.second = StubServer(), StubServer()
        self.addCleanup(self.first.socket.close)
        self.addCleanup(self.second.socket.close)
        self.addCleanup(self.clock.pump, [5] * 5)  # ends what a test left unanswered

    def resolver(self, *servers: StubServer, entries: int = 100) -> Resolver:
        return Resolver(self.clock, [server.address for server in servers], 5, entries)

    def deliver(self) -> None:
        """Have the resolver read what has come."""
        for reader in list(self.clock.getReaders()):
            reader.doRead()

    def answer(self, server: StubServer, *records: str, **how: int) -> None:
        """Answer the next query that ``server`` got."""
        query, client = server.receive()
        server.socket.sendto(reply(query, *records, **how), client)
        self.deliver()

    def test_silence_is_temporary_and_bounded(self) -> None:
        waiting = self.resolver(self.first, self.second).mx("example.com")
        self.clock.pump([5, 5, 5])
        self.assertNoResult(waiting)
        self.clock.advance(5)
        failure: Any = self.failureResultOf(waiting, TemporaryDNSFailure).value
        self.assertEqual([failed.reason for failed in failure.tries], ["no answer in time"] * 4)
        self.assertIsNone(failure.rcode)
        self.assertEqual((self.first.pending(), self.second.pending()), (2, 2))
        self.assertEqual((self.clock.getReaders(), self.clock.getDelayedCalls()), ([], []))

    def test_a_server_that_gave_an_error_is_not_asked_again(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        self.answer(self.first, rcode=2)
        self.failureResultOf(waiting, TemporaryDNSFailure)
        self.assertEqual(self.first.pending(), 0)

    def test_a_silent_server_is_asked_last_from_then_on(self) -> None:
        resolver = self.resolver(self.first, self.second)
        waiting = resolver.mx("example.com")
        self.clock.advance(5)
        self.answer(self.second, "10 mx.example.com.")
        self.successResultOf(waiting)
        self.flush(resolver.mx("example.net"))
        self.assertEqual((self.first.pending(), self.second.pending()), (1, 1))

    def test_an_answer_from_elsewhere_is_not_seen(self) -> None:
        """RFC 5452 section 9.1: right id, question and port, wrong source address."""
        waiting = self.resolver(self.first).mx("example.com")
        query, client = self.first.receive()
        self.second.socket.sendto(reply(query, "10 forged.example."), client)
        self.deliver()
        self.assertNoResult(waiting)
        self.first.socket.sendto(reply(query, "10 true.example."), client)
        self.deliver()
        self.assertEqual(self.successResultOf(waiting), [(10, "true.example")])

    def test_an_answer_for_another_type_is_ignored(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        query, client = self.first.receive()
        other = dns.message.make_query("example.com", "A", id=query.id)
        self.first.socket.sendto(reply(other, soa=60), client)
        self.deliver()
        self.assertNoResult(waiting)
        self.first.socket.sendto(reply(query, "10 true.example."), client)
        self.deliver()
        self.assertEqual(self.successResultOf(waiting), [(10, "true.example")])

    def test_truncated_and_without_tcp_answer_ends_at_the_same_deadline(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        for _ in range(2):
            query, client = self.first.receive()
            self.clock.advance(3)
            wire = bytearray(reply(query))
            wire[2] |= dns.flags.TC >> 8
            self.first.socket.sendto(wire, client)
            self.deliver()
            protocol = self.clock.tcpClients[-1][2].buildProtocol(None)
            protocol.makeConnection(StringTransport())
            self.assertNoResult(waiting)
            self.clock.advance(2)
        self.failureResultOf(waiting, TemporaryDNSFailure)

    def test_a_tcp_answer_may_come_octet_by_octet(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        query, client = self.first.receive()
        wire = bytearray(reply(query))
        wire[2] |= dns.flags.TC >> 8
        self.first.socket.sendto(wire, client)
        self.deliver()
        protocol = self.clock.tcpClients[-1][2].buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        sent = transport.value()
        self.assertEqual(int.from_bytes(sent[:2], "big"), len(sent) - 2)
        answer = reply(dns.message.from_wire(sent[2:]), "10 mx.example.com.")
        for octet in len(answer).to_bytes(2, "big") + answer:
            self.assertNoResult(waiting)
            protocol.dataReceived(bytes([octet]))
        self.assertEqual(self.successResultOf(waiting), [(10, "mx.example.com")])

    def test_a_server_without_edns_is_asked_without(self) -> None:
        """RFC 6891 section 7."""
        waiting = self.resolver(self.first).mx("example.com")
        query, client = self.first.receive()
        self.assertEqual(query.edns, 0)
        bare = query.id.to_bytes(2, "big") + b"\x80\x01" + bytes(8)
        self.first.socket.sendto(bare, client)
        self.deliver()
        query, client = self.first.receive()
        self.assertEqual(query.edns, -1)
        self.first.socket.sendto(reply(query, "10 mx.example.com."), client)
        self.deliver()
        self.assertEqual(self.successResultOf(waiting), [(10, "mx.example.com")])

    def test_an_error_by_a_bare_header_is_an_error(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        query, client = self.first.receive()
        self.first.socket.sendto(query.id.to_bytes(2, "big") + b"\x80\x05" + bytes(8), client)
        self.deliver()
        failure: Any = self.failureResultOf(waiting, TemporaryDNSFailure).value
        self.assertEqual(failure.rcode, "REFUSED")

    def test_an_error_that_the_reactor_sees_ends_the_try(self) -> None:
        waiting = self.resolver(self.first).mx("example.com")
        for _ in range(2):
            for reader in list(self.clock.getReaders()):
                reader.connectionLost(Failure(ConnectionError()))
        self.failureResultOf(waiting, TemporaryDNSFailure)

    def kept_for(self, resolver: Resolver, name: str, *records: str, **how: int) -> int:
        """Seconds for which an answer is given without asking, looked at after 0, 1, 59, 60, … seconds."""
        waiting = resolver.mx(name)
        self.answer(self.first, *records, **how)
        self.flush(waiting)
        began = self.clock.seconds()
        last = -1
        for moment in (0, 1, 59, 60, 299, 300, 3599, 3600, 86_399, 86_400, 90_000):
            self.clock.advance(began + moment - self.clock.seconds())
            waiting = resolver.mx(name)
            self.flush(waiting)
            if self.first.pending():
                self.clock.pump([5, 5])
                self.first.pending()
                break
            last = moment
        return last

    def flush(self, waiting: Deferred[Any]) -> None:
        waiting.addErrback(lambda _: None)

    def test_an_answer_is_kept_for_its_ttl(self) -> None:
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example", "10 mx.example.", ttl=60), 59)

    def test_an_answer_without_ttl_is_not_kept(self) -> None:
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example", "10 mx.example.", ttl=0), -1)

    def test_no_answer_is_kept_for_longer_than_a_day(self) -> None:
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example", "10 mx.example.", ttl=2_000_000), 86_399)

    def test_absences_are_kept_for_the_minimum_of_the_soa(self) -> None:
        """RFC 2308 section 5."""
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example", soa=60), 59)
        self.assertEqual(self.kept_for(self.resolver(self.first), "b.example", soa=300, rcode=3), 299)
        self.assertEqual(self.kept_for(self.resolver(self.first), "c.example", soa=86_400, rcode=3), 3599)

    def test_absences_without_soa_are_not_kept(self) -> None:
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example"), -1)
        self.assertEqual(self.kept_for(self.resolver(self.first), "b.example", rcode=3), -1)

    def test_failures_are_not_kept(self) -> None:
        self.assertEqual(self.kept_for(self.resolver(self.first), "a.example", rcode=2), -1)

    def test_nxdomain_counts_for_every_type(self) -> None:
        resolver = self.resolver(self.first)
        self.flush(resolver.mx("a.example"))
        self.answer(self.first, rcode=3, soa=60)
        self.failureResultOf(resolver.addresses("a.example"), NoSuchDomain)
        self.assertEqual(self.first.pending(), 0)

    def test_the_cache_is_bounded_and_the_least_used_goes_first(self) -> None:
        resolver = self.resolver(self.first, entries=2)
        for name in ("a.example", "b.example"):
            resolver.mx(name)
            self.answer(self.first, "10 mx.example.")
        self.successResultOf(resolver.mx("a.example"))
        resolver.mx("c.example")
        self.answer(self.first, "10 mx.example.")
        self.successResultOf(resolver.mx("a.example"))
        self.successResultOf(resolver.mx("c.example"))
        waiting = resolver.mx("b.example")
        self.assertNoResult(waiting)
        self.flush(waiting)

    def test_only_so_many_sockets_are_open_at_once(self) -> None:
        resolver = self.resolver(self.first)
        waiting = [resolver.mx(f"{n}.example") for n in range(300)]
        self.assertEqual(len(self.clock.getReaders()), 256)
        self.clock.pump([5, 5, 5, 5])
        for each in waiting:
            self.failureResultOf(each, TemporaryDNSFailure)


def test_a_server_must_be_an_address() -> None:
    with pytest.raises(ValueError):
        Resolver(MemoryReactorClock(), [("dns.example", 53)], 5)
    with pytest.raises(ValueError):
        Resolver(MemoryReactorClock(), [], 5)


def test_ascii_names_keep_what_the_dns_allows() -> None:
    assert ascii_name("_25._tcp.MX.example.") == "_25._tcp.mx.example"
    assert ascii_name("_dmarc.bücher.example") == "_dmarc.xn--bcher-kva.example"
    assert ascii_name("straße.example") == "xn--strae-oqa.example"


def test_system_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# one\nnameserver 192.0.2.53\nsearch example.com\nnameserver 2001:db8::53 \nnameserver bogus\nnameserver\n")
    assert system_servers(str(path)) == [("192.0.2.53", 53), ("2001:db8::53", 53)]


def test_no_system_servers_means_the_local_one(tmp_path: Path) -> None:
    assert system_servers(str(tmp_path / "missing")) == [("127.0.0.1", 53)]
