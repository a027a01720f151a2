"""Domains whose mail shares channels, and their TLS policies: nobody's policy is weakened by another one's."""

from __future__ import annotations

from typing import Any

from attrs import define
from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred, fail

from lettermta.delivery.dns_cache import Answer
from lettermta.delivery.dns_wire import Server, TryFailed
from lettermta.delivery.exchange import Exchanges, Lookup
from lettermta.delivery.resolver import TemporaryDNSFailure
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.tls.mta_sts import NOTHING, Discovered
from lettermta.delivery.tls.sts_policy import Mode, STSPolicy
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.way import Elsewhere
from lettermta.message import Unreachable
from lettermta.smtp.client_settings import TLSMode
from tests.delivery.tls.certificates import alone, root
from tests.delivery.tls.test_dane import Receivers

ENFORCED = Discovered(STSPolicy(Mode.ENFORCE, ("mx.in.test",), 86_400))


@define
class Published:
    """What domains say of themselves."""

    policies: dict[str, Discovered]

    async def discover(self, domain: str) -> Discovered:
        return self.policies.get(domain, NOTHING)


class Failing:
    """A resolver that has no answer to the question for MX records, whoever knew it before."""

    def lookup(self, name: str, rdtype: RdataType) -> Deferred[Answer]:
        failed = TryFailed(Server("127.0.0.1", 53), "no answer in time", answered=False)
        return fail(TemporaryDNSFailure(name, rdtype, [failed]))


class Sharing(Receivers):
    """Two customers of one provider."""

    async def test_a_policy_that_is_taken_back_weakens_no_channel_that_others_share(self) -> None:
        """Whoever publishes another customer's policy, and then none, must not have that one's mail downgraded."""
        authority = root()
        trust = authority.write(self.directory / "root.pem")
        mx, port = self.mx(alone("mx.in.test"))
        published = Published({"in.test": ENFORCED, "other.test": ENFORCED})
        for domain in ("in.test", "other.test"):
            self.dns.set(domain, {"MX": [(10, "mx.in.test")]})
        self.dns.set("mx.in.test", {"A": ["127.0.0.1"]})
        settings = DeliverySettings("out.test", port=port, allow_networks=("127.0.0.0/8",), connect_timeout=5)
        policies = TLSPolicies(self.resolver, port, False, published, trust, self.results)  # type: ignore[arg-type]
        exchanges = Exchanges(self.reactor)

        async def found(domain: str) -> Any:
            await self.assertFailure(Lookup(domain, self.resolver, settings, exchanges, policies).open(), Elsewhere)
            return exchanges.get(domain)

        theirs, ours = await found("other.test"), await found("in.test")
        assert (theirs.key, theirs.tls) == (ours.key, ours.tls)
        shared = MXTransport(self.reactor, theirs, self.resolver, settings, policies)
        published.policies["other.test"] = NOTHING
        assert "it is self-signed" in await self.refused(shared)  # type: ignore[arg-type]
        assert (await found("other.test")).tls != ours.tls, "its own mail goes another way from now on"
        assert mx.count == 0

    async def test_a_policy_that_comes_behind_dnssec_is_another_way(self) -> None:
        published = Published({})
        self.dns.set("in.test", {"MX": [(10, "mx.in.test")], "secure": True})
        policies = TLSPolicies(self.resolver, 25, True, published)  # type: ignore[arg-type]
        before = await policies.of_domain("in.test", TLSMode.OPPORTUNISTIC)
        published.policies["in.test"] = ENFORCED
        behind = await policies.of_domain("in.test", TLSMode.OPPORTUNISTIC)
        assert before.shared == "dnssec in.test"
        assert behind.shared == "dnssec in.test mta-sts enforce mx.in.test"

    async def test_not_knowing_whether_dane_applies_puts_the_mail_off(self) -> None:
        """RFC 7672 section 2.1.2: whoever can have a question fail must not be able to switch DANE off."""
        waiting = Deferred.fromCoroutine(TLSPolicies(Failing(), 25, True).of_domain("in.test", TLSMode.OPPORTUNISTIC))
        error = await self.assertFailure(waiting, Unreachable)
        assert str(error.reply).startswith("451 4.4.3")
