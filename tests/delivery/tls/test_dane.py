"""DANE, from the look-ups to the session, over loopback: a resolver that is believed, a host with TLS, RFC 7672 case by case."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.trial.unittest import TestCase

from lettermta import metrics
from lettermta.delivery.resolver import Resolver
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.tls.policy import Reported
from lettermta.delivery.tls.tlsa import TLSA
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.message import Unreachable
from lettermta.smtp.client_settings import TLSMode
from lettermta.smtp.client_tls import Fault
from lettermta.testing.dns import DNSAuthority
from lettermta.testing.mx import EXTENSIONS, RemoteMX, ServerTLS
from tests.delivery.by_mx import ByMX
from tests.delivery.test_transports import NoTLS
from tests.delivery.tls.certificates import Signed, alone, root
from tests.smtp.client_peer import Content, entry, shown
from tests.test_metrics import exposed


@define
class Results:
    """Remembers what it is told."""

    told: list[tuple[str, str | None]] = field(factory=list)
    policy_domains: list[str] = field(factory=list)

    def count(self, reported: Reported, fault: Fault | None, host: str, address: str, source: str) -> None:
        self.told.append((reported.type, None if fault is None else fault.kind))
        self.policy_domains.append(reported.policy_domain)


class Receivers(TestCase):
    """A world of receivers."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.results = Results()
        self.dns = DNSAuthority({})
        self.dns_port = self.dns.listen(reactor)
        self.addCleanup(self.dns.stop)
        self.resolver = Resolver(reactor, [("127.0.0.1", self.dns_port)], 5, validating=True)
        self.files = 0

    def mx(self, server: Signed | None = None, extensions: tuple[str, ...] = EXTENSIONS) -> tuple[RemoteMX, int]:
        """A host, with TLS by a certificate."""
        tls = None
        if server is not None:
            self.files += 1
            tls = ServerTLS(server.write(self.directory / f"{self.files}.pem"))
        mx = RemoteMX(tls=tls, extensions=extensions)
        port = mx.listen(self.reactor)
        self.addCleanup(mx.stop)
        return mx, port

    def zone(self, port: int, *records: TLSA, **changes: Any) -> None:
        """The domain ``in.test`` with the host ``mx.in.test``, all of it signed unless ``changes`` say otherwise of a name."""
        entries: dict[str, Any] = {
            "in_test": {"MX": [(10, "mx.in.test")], "secure": True},
            "mx_in_test": {"A": ["127.0.0.1"], "secure": True},
        }
        if records:
            entries["tlsa"] = {"TLSA": [str(record) for record in records], "secure": True}
        for name, change in changes.items():
            old = entries.get(name, {})
            entries[name] = {**old, **change} if isinstance(change, Mapping) else change
        for name, value in entries.items():
            domain = f"_{port}._tcp.mx.in.test" if name == "tlsa" else name.replace("_", ".")
            self.dns.set(domain, value)

    def transport(self, port: int, *, dane: bool = True, tls: str = "opportunistic", domain: str = "in.test", **parts: Any) -> ByMX:
        settings = DeliverySettings("out.test", port=port, tls=TLSMode(tls), allow_networks=("127.0.0.0/8",), connect_timeout=5)
        policies = TLSPolicies(self.resolver, port, dane, results=self.results, **parts)
        return ByMX(self.reactor, domain, self.resolver, settings, policies)

    async def sent(self, transport: ByMX, **wishes: Any) -> tuple[str, str, str]:
        """How a message fares: the reply's code, and the policy with what it came to."""
        channel = await transport.open()
        [(reply, _, _)] = shown([await channel.send(entry(**wishes), Content())])
        tls = dict(channel.details["tls"])  # type: ignore[call-overload]
        channel.close()
        return reply[:9].rstrip(), tls["policy"], tls["result"]

    async def refused(self, transport: ByMX) -> str:
        """What an opening fails with, always for now."""
        error = await self.assertFailure(transport.open(), Unreachable)
        self.assertFalse(error.reply.permanent)
        return str(error.reply)


def resumed() -> float:
    """How many sessions of TLS were taken up again."""
    return exposed(metrics.REGISTRY)[("lettermta_tls_resumed_out_total",)]


DELIVERED = "250 2.0.0"


class DANEOverLoopback(Receivers):
    """Each outcome as RFC 7672 says."""

    async def test_a_certificate_that_the_records_tell_gets_mail(self) -> None:
        authority = root()
        server = authority.issue("mx.in.test")
        for record in (server.tlsa(3, 1, 1), server.tlsa(3, 0, 2), authority.tlsa(2, 0, 1)):
            mx, port = self.mx(server)
            self.zone(port, record)
            assert await self.sent(self.transport(port)) == (DELIVERED, "dane", "verified")
            assert mx.messages[0].tls
        assert self.results.told == [("tlsa", None)] * 3
        assert set(self.results.policy_domains) == {"mx.in.test"}, "RFC 8460 section 1.1: the TLSA base domain"

    async def test_any_other_certificate_gets_nothing_and_clear_is_no_way_out(self) -> None:
        """RFC 7672 section 2.2, HARD-CASES row 24."""
        mx, port = self.mx(alone("mx.in.test"))
        self.zone(port, alone("mx.in.test").tlsa(3, 1, 1))
        said = await self.refused(self.transport(port))
        assert said.startswith("451 4.7.5") and "none of the TLSA records matches" in said
        assert (mx.count, mx.connections) == (0, 1)
        assert self.results.told == [("tlsa", "validation-failure")]

    async def test_starttls_that_was_stripped_gets_nothing(self) -> None:
        mx, port = self.mx()
        self.zone(port, alone("mx.in.test").tlsa(3, 1, 1))
        assert (await self.refused(self.transport(port))).startswith("451 4.7.4")
        assert mx.count == 0
        assert self.results.told == [("tlsa", "starttls-not-supported")]

    async def test_under_an_anchor_the_name_counts_and_the_domain_is_one(self) -> None:
        """RFC 7672 sections 3.1.2 and 3.2."""
        authority = root()
        for name, fine in (("mx.in.test", True), ("in.test", True), ("other.test", False)):
            _, port = self.mx(authority.issue(name))
            self.zone(port, authority.tlsa(2, 1, 1))
            if fine:
                assert await self.sent(self.transport(port)) == (DELIVERED, "dane", "verified")
            else:
                assert "not for mx.in.test or in.test" in await self.refused(self.transport(port))

    async def test_records_of_which_none_can_be_used_ask_for_tls_of_whatever_kind(self) -> None:
        """RFC 7672 section 2.2."""
        server = alone("mx.in.test")
        _, port = self.mx(server)
        self.zone(port, TLSA(1, 1, 1, b"x" * 32))
        assert await self.sent(self.transport(port)) == (DELIVERED, "dane-unusable", "unverified")
        _, bare = self.mx()
        self.zone(bare, TLSA(1, 1, 1, b"x" * 32))
        assert (await self.refused(self.transport(bare))).startswith("451 4.7.4")
        assert self.results.told == [("tlsa", "tlsa-invalid"), ("tlsa", "starttls-not-supported")]

    async def test_a_secure_absence_means_that_dane_does_not_apply(self) -> None:
        for tlsa in ({"secure": True}, None):
            _, port = self.mx(alone("mx.in.test"))
            self.zone(port, tlsa=tlsa)
            assert (await self.sent(self.transport(port)))[:2] == (DELIVERED, "opportunistic")

    async def test_records_that_can_not_be_had_put_the_mail_off(self) -> None:
        """RFC 7672 section 2.1.2: a bogus answer is a SERVFAIL to us, and no host may be used without knowing."""
        mx, port = self.mx(alone("mx.in.test"))
        for fault in ("SERVFAIL", "REFUSED"):
            self.zone(port, tlsa=fault)
            said = await self.refused(self.transport(port))
            assert said.startswith("451 4.7.5") and fault in said
        assert mx.connections == 0
        assert self.results.told == [("tlsa", "dnssec-invalid")]

    async def test_the_next_host_is_tried_when_one_can_not_be_relied_on(self) -> None:
        server = alone("mx.in.test")
        _, port = self.mx(server)
        self.zone(port, server.tlsa(3, 1, 1), in_test={"MX": [(1, "bogus.in.test"), (10, "mx.in.test")]})
        self.dns.set("bogus.in.test", {"A": ["127.0.0.1"], "secure": True})
        self.dns.set(f"_{port}._tcp.bogus.in.test", "SERVFAIL")
        assert (await self.sent(self.transport(port)))[1] == "dane"

    async def test_an_insecure_link_on_the_way_means_that_dane_does_not_apply(self) -> None:
        """RFC 7672 sections 2.2.1 and 2.2.2: neither MX records nor addresses nor TLSA records without DNSSEC."""
        wrong = alone("mx.in.test").tlsa(3, 1, 1)
        for name in ("in_test", "mx_in_test", "tlsa"):
            _, port = self.mx(alone("mx.in.test"))
            self.resolver = Resolver(self.reactor, [("127.0.0.1", self.dns_port)], 5, validating=True)
            self.zone(port, wrong, **{name: {"secure": False}})
            assert (await self.sent(self.transport(port)))[1] == "opportunistic", name
            asked = [query.name for query in self.dns.queries if query.rdtype == "TLSA" and query.name.startswith(f"_{port}.")]
            assert bool(asked) == (name == "tlsa"), "hosts in insecure zones are not asked for TLSA records"

    async def test_without_a_resolver_that_is_believed_nothing_is_asked(self) -> None:
        server = alone("mx.in.test")
        _, port = self.mx(server)
        self.zone(port, server.tlsa(3, 1, 1))
        assert (await self.sent(self.transport(port, dane=False)))[1:] == ("opportunistic", "unverified")
        assert not [query for query in self.dns.queries if query.rdtype == "TLSA"]

    async def test_without_mx_records_the_domain_itself_is_the_host(self) -> None:
        server = alone("in.test")
        _, port = self.mx(server)
        self.dns.set("in.test", {"A": ["127.0.0.1"], "secure": True})
        self.dns.set(f"_{port}._tcp.in.test", {"TLSA": [str(server.tlsa(3, 1, 1))], "secure": True})
        assert await self.sent(self.transport(port)) == (DELIVERED, "dane", "verified")

    async def test_a_host_that_is_an_alias_has_its_records_at_either_end(self) -> None:
        """RFC 7672 section 2.2.3, RFC 7671 section 7: the expanded name first, and the host's own where the way out is not signed."""
        authority = root()
        server = authority.issue("real.test")
        records = {"TLSA": [str(authority.tlsa(2, 1, 1))], "secure": True}
        wrong = {"TLSA": [str(alone("x").tlsa(3, 1, 1))], "secure": True}
        for at, target_secure, certificate, policy in (
            ({"real.test": records, "mx.in.test": wrong}, True, server, "dane"),
            ({"mx.in.test": records}, True, authority.issue("mx.in.test"), "dane"),
            ({"mx.in.test": records, "real.test": wrong}, False, authority.issue("mx.in.test"), "dane"),
            ({"real.test": wrong}, False, server, "opportunistic"),
        ):
            _, port = self.mx(certificate)
            self.resolver = Resolver(self.reactor, [("127.0.0.1", self.dns_port)], 5, validating=True)
            self.dns.set("in.test", {"MX": [(10, "mx.in.test")], "secure": True})
            self.dns.set("mx.in.test", {"CNAME": ["real.test"], "secure": True})
            self.dns.set("real.test", {"A": ["127.0.0.1"], "secure": target_secure})
            for name, told in at.items():
                self.dns.set(f"_{port}._tcp.{name}", told)
            assert (await self.sent(self.transport(port)))[:2] == (DELIVERED, policy)
        assert self.results.policy_domains == ["real.test", "mx.in.test", "mx.in.test", "in.test"]

    async def test_sni_says_the_domain_that_has_the_records(self) -> None:
        """RFC 7672 section 8.1: the TLSA base domain, which need not be what the MX record says."""
        server = alone("mx.in.test")
        for aliased in (False, True):
            seen: list[bytes | None] = []
            tls = ServerTLS(server.write(self.directory / f"sni{aliased}.pem"))
            tls._context.set_tlsext_servername_callback(lambda connection, seen=seen: seen.append(connection.get_servername()))
            mx = RemoteMX(tls=tls)
            port = mx.listen(self.reactor)
            self.addCleanup(mx.stop)
            self.resolver = Resolver(self.reactor, [("127.0.0.1", self.dns_port)], 5, validating=True)
            self.zone(port, server.tlsa(3, 1, 1))
            if aliased:
                self.dns.set("mx.in.test", {"CNAME": ["real.test"], "secure": True})
                self.dns.set("real.test", {"A": ["127.0.0.1"], "secure": True})
                self.dns.set(f"_{port}._tcp.real.test", {"TLSA": [str(server.tlsa(3, 1, 1))], "secure": True})
            assert (await self.sent(self.transport(port)))[1:] == ("dane", "verified")
            assert seen == [b"real.test" if aliased else b"mx.in.test"]

    async def test_a_handshake_that_fails_gets_nothing_either(self) -> None:
        mx = RemoteMX(tls=NoTLS())
        port = mx.listen(self.reactor)
        self.addCleanup(mx.stop)
        self.zone(port, alone("mx.in.test").tlsa(3, 1, 1))
        assert (await self.refused(self.transport(port))).startswith("451 4.")
        assert (mx.count, mx.connections) == (0, 1)
        assert self.results.told == [("tlsa", "validation-failure")]

    async def test_the_domains_own_alias_is_a_name_too(self) -> None:
        """RFC 7672 section 3.2.2."""
        authority = root()
        _, port = self.mx(authority.issue("in.test"))
        self.zone(port, authority.tlsa(2, 1, 1))
        self.dns.set("alias.test", {"CNAME": ["in.test"], "secure": True})
        assert (await self.sent(self.transport(port, domain="alias.test")))[1:] == ("dane", "verified")

    async def test_require_stays_what_it_is_and_off_asks_nothing(self) -> None:
        server = alone("mx.in.test")
        _, port = self.mx(server)
        self.zone(port)
        assert (await self.sent(self.transport(port, tls="require")))[1:] == ("require", "unverified")
        self.zone(port, server.tlsa(3, 1, 1))
        assert (await self.sent(self.transport(port, tls="off")))[1:] == ("off", "clear")

    async def test_requiretls_goes_where_the_host_is_known(self) -> None:
        """RFC 8689 section 4.2.1: by DANE, or by MX records under DNSSEC and a certificate that the roots vouch for."""
        authority = root()
        server = authority.issue("mx.in.test")
        trust = authority.write(self.directory / "root.pem")
        for records, certificate, code in (
            ([server.tlsa(3, 1, 1)], server, DELIVERED),
            ([], server, DELIVERED),
            ([], alone("mx.in.test"), "550 5.7.3"),
            ([], authority.issue("other.test"), "550 5.7.3"),
        ):
            mx, port = self.mx(certificate, extensions=("REQUIRETLS",))
            self.zone(port, *records)
            assert (await self.sent(self.transport(port, trust=trust), require_tls=True))[0] == code
            assert [message.parameters for message in mx.messages] == ["REQUIRETLS"] * (code == DELIVERED)

    async def test_requiretls_goes_on_to_the_next_host_and_fails_when_there_is_none(self) -> None:
        """RFC 8689 section 4.2.1: each host is tried; other mail may use the first one."""
        server = alone("mx.in.test")
        first, port = self.mx(server)
        second = RemoteMX(tls=ServerTLS(server.write(self.directory / "second.pem")), extensions=("REQUIRETLS",))
        second.listen(self.reactor, port, "127.0.0.2")
        self.addCleanup(second.stop)
        self.zone(port, server.tlsa(3, 1, 1), in_test={"MX": [(10, "mx.in.test"), (20, "second.in.test")]})
        self.dns.set("second.in.test", {"A": ["127.0.0.2"], "secure": True})
        self.dns.set(f"_{port}._tcp.second.in.test", {"TLSA": [str(server.tlsa(3, 1, 1))], "secure": True})
        strict = evolve(self.transport(port), require_tls=True)
        assert await self.sent(strict, require_tls=True) == (DELIVERED, "dane", "verified")
        assert [(mx.count, mx.connections) for mx in (first, second)] == [(0, 1), (1, 1)]
        second.extensions = []
        error = await self.assertFailure(strict.open(), Unreachable)
        assert str(error.reply).startswith("550 5.7.30 REQUIRETLS support required: ") and "doesn't offer it" in str(error.reply)
        await second.stop()
        assert (await self.refused(strict)).startswith("451 4.4.1"), "one that can't be reached now may do it later"

    async def test_requiretls_does_not_go_where_mx_records_are_not_signed(self) -> None:
        authority = root()
        trust = authority.write(self.directory / "root.pem")
        mx, port = self.mx(authority.issue("mx.in.test"), extensions=("REQUIRETLS",))
        self.zone(port, in_test={"secure": False})
        assert (await self.sent(self.transport(port, trust=trust), require_tls=True))[0] == "550 5.7.3"
        assert mx.count == 0

    async def test_a_session_is_resumed_and_judged_anew(self) -> None:
        server = alone("mx.in.test")
        _, port = self.mx(server)
        self.zone(port, server.tlsa(3, 1, 1))
        transport = self.transport(port)
        sessions = transport.settings.sessions
        before = resumed()
        for _ in range(3):
            assert (await self.sent(transport))[1:] == ("dane", "verified")
            await self.until(lambda: len(sessions) == 1)
        assert resumed() - before == 2
        # Other records are another judge, and what the old one let pass is of no use to it.
        self.zone(port, alone("mx.in.test").tlsa(3, 1, 1))
        self.resolver = Resolver(self.reactor, [("127.0.0.1", self.dns_port)], 5, validating=True)
        await self.refused(evolve(self.transport(port), settings=transport.settings))
        assert resumed() - before == 2

    async def test_a_session_under_an_anchor_is_resumed_with_its_chain_and_judged_by_it(self) -> None:
        """What is judged of a chain must not be missing when it is not shown again."""
        authority = root()
        server = authority.issue("an intermediate", authority=True).issue("mx.in.test")
        _, port = self.mx(server)
        self.zone(port, authority.tlsa(2, 0, 1))
        transport = self.transport(port)
        before = resumed()
        for _ in range(2):
            assert (await self.sent(transport))[1:] == ("dane", "verified")
            await self.until(lambda: len(transport.settings.sessions) == 1)
        assert resumed() - before == 1

    async def test_a_session_with_a_fault_is_not_resumed(self) -> None:
        _, port = self.mx(alone("mx.in.test"))
        self.zone(port)
        transport = self.transport(port)
        before = resumed()
        for _ in range(2):
            assert (await self.sent(transport))[1:] == ("opportunistic", "unverified")
        assert resumed() == before

    async def until(self, condition: Any) -> None:
        from twisted.internet.task import deferLater

        for _ in range(500):
            if condition():
                return
            await deferLater(self.reactor, 0.01)
        self.fail("it never came to that")
