"""Shaping rules: which of them hold for a receiver, and what comes along for the large ones."""

from __future__ import annotations

import pytest

from lettermta.config import Rate, Shaping, load_sections
from lettermta.delivery.shaping import RECEIVERS, Limits, ShapingRules


def rules(*sections: Shaping) -> ShapingRules:
    return ShapingRules(sections, ())


def test_without_rules_the_defaults_hold():
    assert rules().limits("example.com", ["mx.example.com"]) == Limits()


def test_each_key_is_taken_from_the_most_specific_rule_that_sets_it():
    asked = rules(
        Shaping(pattern="*", connections=9, messages_per_connection=9, recipients_per_message=9, idle_time=9.0),
        Shaping(pattern="*.example.net", connections=8, messages_per_connection=8, recipients_per_message=8),
        Shaping(pattern="mx*.example.net", connections=7, messages_per_connection=7),
        Shaping(pattern="mx1.example.net", connections=6),
    )
    found = asked.limits("shop.test", ["mx1.example.net"])
    assert (found.connections, found.messages_per_connection, found.recipients_per_message, found.idle_time) == (6, 7, 8, 9.0)
    assert found.rule == "mx1.example.net"
    assert asked.limits("shop.test", ["mx2.example.net"]).connections == 7
    assert asked.limits("shop.test", ["in.example.net"]).connections == 8
    assert asked.limits("shop.test", ["in.elsewhere.test"]).connections == 9


def test_the_domain_comes_before_its_hosts_and_a_name_before_a_pattern():
    asked = rules(
        Shaping(pattern="*.test", connections=4),
        Shaping(pattern="mx.*", connections=3),
        Shaping(pattern="mx.big.test", connections=2),
        Shaping(pattern="shop.test", connections=1),
    )
    assert asked.limits("shop.test", ["mx.big.test"]).connections == 1
    assert asked.limits("other.test", ["mx.big.test"]).connections == 2
    assert asked.limits("other.test", ["mx.elsewhere.example"]).connections == 4
    assert asked.limits("other.example", ["mx.elsewhere.example"]).connections == 3


def test_a_rule_on_hosts_holds_where_all_preferred_ones_match():
    asked = rules(Shaping(pattern="*.big.example", connections=2))
    assert asked.limits("a.test", ["mx1.big.example", "mx2.big.example"]).connections == 2
    assert asked.limits("a.test", ["mx1.big.example", "mx.a.test"]).connections == Limits().connections
    assert asked.limits("a.test", []).connections == Limits().connections, "nobody knows the hosts yet"


def test_a_section_of_the_operators_comes_before_ours_of_the_same_name():
    asked = ShapingRules([Shaping(pattern="*.google.com", connections=99)])
    found = asked.limits("example.com", ["aspmx.l.google.com"])
    assert (found.connections, found.messages_per_connection) == (99, 50)


def test_a_domain_that_is_named_is_a_destination_of_its_own():
    asked = rules(Shaping(pattern="shop.test", connections=1), Shaping(pattern="*.test", rate=Rate(5, "s")))
    assert asked.limits("shop.test", ["mx.example"]).named == "shop.test"
    assert asked.limits("other.test", ["mx.example"]).named == "*.test"
    assert asked.limits("shop.example", ["mx.test"]).named is None


def test_what_is_together_has_its_limits_together_unless_a_closer_rule_sets_others():
    asked = rules(Shaping(pattern="*.outlook.example", connections=3, together=True), Shaping(pattern="vip.outlook.example", connections=9))
    one, other = asked.limits("a.test", ["a-test.outlook.example"]), asked.limits("b.test", ["b-test.outlook.example"])
    assert one is other
    assert one.together == "*.outlook.example"
    assert asked.limits("c.test", ["vip.outlook.example"]).together == "vip.outlook.example in *.outlook.example"


@pytest.mark.parametrize(
    ("domain", "host", "rule"),
    [
        ("gmail.com", "gmail-smtp-in.l.google.com", "*.google.com"),
        ("workspace.example", "aspmx.l.google.com", "*.google.com"),
        ("workspace.example", "smtp.google.com", "*.google.com"),
        ("outlook.com", "outlook-com.olc.protection.outlook.com", "*.olc.protection.outlook.com"),
        ("tenant.example", "tenant-example.mail.protection.outlook.com", "*.mail.protection.outlook.com"),
        ("tenant.example", "tenant-example.a-v1.mx.microsoft", "*.mx.microsoft"),
        ("yahoo.com", "mta5.am0.yahoodns.net", "*.yahoodns.net"),
        ("icloud.com", "mx01.mail.icloud.com", "*.icloud.com"),
        ("gmx.de", "mx00.emig.gmx.net", "*.gmx.net"),
        ("web.de", "mx-ha02.web.de", "*.web.de"),
        ("t-online.de", "mx00.t-online.de", "*.t-online.de"),
        ("orange.fr", "smtp-in.orange.fr", "smtp-in.orange.fr"),
        ("comcast.net", "mx1a1.comcast.net", "*.comcast.net"),
        ("somebody.example", "mail.somebody.example", "*"),
    ],
)
def test_the_large_receivers_are_known(domain: str, host: str, rule: str):
    assert ShapingRules().limits(domain, [host]).rule == rule


def test_what_comes_along_is_a_file_as_an_operator_would_write_it():
    sections = load_sections(RECEIVERS, Shaping)
    assert len({section.pattern for section in sections}) == len(sections) > 20
    assert ShapingRules(sections, ()).limits("example.com", ["mx.example.com"]) == Limits(), "[shaping *] is what holds anyway"
