"""What an SPF record permits (RFC 7208), and where a return path leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import dns.rdata
import pytest
from twisted.internet.defer import Deferred

from lettermta.accounts.dns_records import DNSRecord, Purpose
from lettermta.delivery.resolver import NoSuchDomain
from lettermta.ops.admin.domain_check import Check, check

ZONE = {
    "mta.test": ("A 192.0.2.1", "AAAA 2001:db8::1"),
    "near.test": ("A 192.0.2.77", "AAAA 2001:db8::77"),
    "_spf.test": ('TXT "v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/32 -all"',),
    "_not.test": ('TXT "v=spf1 -ip4:192.0.2.1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"',),
    **{f"{number}.test": ('TXT "v=spf1 -all"',) for number in range(1, 7)},
}


class Names:
    """What the resolver would find in a zone."""

    def __init__(self, zone: Mapping[str, Sequence[str]]) -> None:
        self.zone = zone

    async def lookup(self, name: str, rdtype: int) -> Any:
        records = [dns.rdata.from_text("IN", *record.split(" ", 1)) for record in self.zone.get(name, ())]
        found = [record for record in records if record.rdtype == rdtype]
        if not found:
            raise NoSuchDomain(name)
        return SimpleNamespace(records=found)

    async def mx(self, name: str) -> list[tuple[int, str]]:
        return [(record.preference, record.exchange.to_text(True)) for record in (await self.lookup(name, 15)).records]

    async def addresses(self, name: str) -> list[str]:
        return [record.split()[1] for record in self.zone.get(name, ()) if record.startswith("A")]


@pytest.mark.parametrize(
    ("terms", "finding"),
    [
        ("a:mta.test -all", "found"),
        ("a:mta.test/24 ip6:2001:db8::/32 -all", "found"),
        ("a:near.test/24//64 -all", "found"),
        ("a:near.test/24 -all", "wrong"),
        ("mx/24//64 -all", "found"),
        ("+all", "found"),
        ("?all", "wrong"),
        ("-ip4:192.0.2.1 a:mta.test -all", "wrong"),
        ("-all redirect=_spf.test", "wrong"),
        ("redirect=_spf.test", "found"),
        ("include:_not.test -all", "wrong"),
        ("include:sender.test -all", "wrong"),
        ("exists:%{i}.test ptr unknown:x -all", "wrong"),
        ("include:1.test include:2.test include:3.test include:4.test include:5.test include:6.test include:_spf.test -all", "found"),
    ],
)
def test_of_an_spf_record_the_first_mechanism_that_matches_decides(terms: str, finding: str) -> None:
    """RFC 7208 sections 4.6.2 and 6.1; each address has its own ten look-ups."""
    record = DNSRecord(Purpose.SPF, "sender.test", "TXT", "v=spf1 a:mta.test ~all", None)
    resolver: Any = Names({**ZONE, "sender.test": (f'TXT "v=spf1 {terms}"', "MX 10 near.test.")})
    told: list[Check] = []
    Deferred.fromCoroutine(check(resolver, record, "mta.test")).addCallback(told.append)
    assert told[0].finding == finding, told[0]


@pytest.mark.parametrize(
    ("zone", "finding"),
    [
        ({"rp.sender.test": ["CNAME bounces.test."], "bounces.test": ["A 192.0.2.1"]}, "found"),
        ({"rp.sender.test": ["CNAME bounces.test."], "bounces.test": ["MX 10 mta.test."]}, "found"),
        ({"rp.sender.test": ["CNAME bounces.test."]}, "wrong"),
        ({"rp.sender.test": ["MX 10 bounces.test."], "bounces.test": ["AAAA 2001:db8::1"]}, "found"),
        ({"rp.sender.test": ["MX 10 bounces.test."], "bounces.test": ["MX 10 mta.test."]}, "wrong"),
        ({"rp.sender.test": ["CNAME a.test."], "a.test": ["CNAME b.test."], "b.test": ["CNAME a.test."]}, "wrong"),
        ({}, "missing"),
    ],
)
def test_a_return_path_leads_to_a_host(zone: Mapping[str, Sequence[str]], finding: str) -> None:
    """RFC 5321 section 5.1: an MX names a host, an alias may have an MX of its own."""
    record = DNSRecord(Purpose.RETURN_PATH, "rp.sender.test", "CNAME", "bounces.test", None)
    resolver: Any = Names({**ZONE, **zone})
    told: list[Check] = []
    Deferred.fromCoroutine(check(resolver, record, "mta.test")).addCallback(told.append)
    assert told[0].finding == finding, told[0]
