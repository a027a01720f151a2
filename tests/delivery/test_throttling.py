"""Throttle rules: which replies are about us, by data that operators can add to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lettermta.config import ConfigError, Throttle, load, load_sections
from lettermta.delivery.throttling import THROTTLES, ThrottleRules
from lettermta.message import Reply


@pytest.mark.parametrize(
    ("host", "reply", "rule"),
    [
        (
            "mta7.am0.yahoodns.net",
            Reply(421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints"),
            "yahoo-complaints",
        ),
        ("mta7.am0.yahoodns.net", Reply(421, None, "Max message per connection reached, closing"), "yahoo-messages-per-connection"),
        (
            "gmail-smtp-in.l.google.com",
            Reply(421, "4.7.28", "Gmail has detected an unusual rate of unsolicited mail originating from your IP address."),
            "google-unusual-rate",
        ),
        (
            "outlook-com.olc.protection.outlook.com",
            Reply(451, "4.7.650", "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation."),
            "outlook-rate-limited",
        ),
        ("a-b.mail.protection.outlook.com", Reply(451, "4.7.500", "Server busy. Please try again later from [192.0.2.1]."), "outlook-busy"),
        (
            "eur.olc.protection.outlook.com",
            Reply(
                550,
                "5.7.1",
                "Unfortunately, messages from [192.0.2.1] weren't sent, since part of their network is on our block list (S3150).",
            ),
            "outlook-blocked",
        ),
        ("mx01.mail.icloud.com", Reply(421, "4.7.1", "[HCM1] Your mail from 192.0.2.1 was deferred"), "apple-deferred"),
        ("mx00.emig.gmx.net", Reply(554, None, "Transaction failed\nReject due to policy restrictions."), "united-internet"),
        (
            "smtp-in.orange.fr",
            Reply(421, None, "Trop de connexions, veuillez verifier votre configuration. OFR004_104"),
            "orange-connections",
        ),
        ("mx.somebody.example", Reply(421, "4.7.0", "Too many connections from your address"), "too-many-connections"),
        ("mx.somebody.example", Reply(450, "4.7.1", "Error: too much mail from 192.0.2.1"), "rate-limited"),
        ("mx.somebody.example", Reply(421, None, "Message rate limit reached"), "rate-limited"),
    ],
)
def test_what_large_receivers_say_is_known(host: str, reply: Reply, rule: str):
    found = ThrottleRules().find(reply, host)
    assert found is not None
    assert found.name == rule
    assert found.pause is not None


def test_greylisting_says_nothing_about_the_destination():
    found = ThrottleRules().find(Reply(450, "4.7.1", "Recipient address rejected: Greylisted for 5 minutes"), "mx.example")
    assert found is not None
    assert found.pause is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(550, "5.1.1", "No such user"),
        Reply(452, "4.2.2", "Mailbox full"),
        Reply(451, "4.3.0", "Temporary lookup failure"),
        Reply(552, "5.2.2", "Over quota"),
        Reply(450, "4.2.1", "The user you are trying to contact is receiving mail too quickly"),
    ],
)
def test_what_is_about_one_recipient_matches_no_rule(reply: Reply):
    assert ThrottleRules().find(reply, "mx.example") is None


def test_the_operators_rules_come_first(tmp_path: Path):
    file = tmp_path / "own.ini"
    file.write_text("[throttle ours]\nmx = *.example\ncodes = 45?\nenhanced = 4.7.*\ntext = come back (later|tomorrow)\npause = 2h\n")
    rules = ThrottleRules(load_sections(file, Throttle))
    reply = Reply(451, "4.7.9", "Rate limit: Come Back Tomorrow")
    assert rules.find(reply, "MX.example").pause == 7200
    assert rules.find(reply, "mx.test").name == "rate-limited"
    assert rules.find(Reply(451, "4.8.9", "come back later"), "mx.example") is None
    assert rules.find(Reply(421, "4.7.9", "come back later"), "mx.example") is None


def test_the_file_that_comes_along_has_each_name_once():
    names = [section.name for section in load_sections(THROTTLES, Throttle)]
    assert len(set(names)) == len(names) > 15


def test_an_operator_reads_what_is_wrong_with_a_file_of_rules(tmp_path: Path):
    (tmp_path / "mta.ini").write_text("[listener a]\nports = 25\n[delivery]\nthrottle_rules = own.ini\n")
    (tmp_path / "own.ini").write_text("[throttle a]\ntext = (\n[throttle b]\npause = 5m\n[shaping x]\n[throttle c]\ncodes = 250\n")
    with pytest.raises(ConfigError) as failed:
        load(tmp_path / "mta.ini")
    own = tmp_path / "own.ini"
    assert str(failed.value).splitlines() == [
        f"{own}:2: [throttle a] text: '(' is no regular expression: missing ), unterminated subpattern at position 0; expected a regular "
        "expression in the syntax of Python, capitals or not, or nothing",
        f"{own}:3: [throttle b] name: the rule would match whatever is temporary; expected codes, enhanced or text in it",
        f"{own}:5: [shaping x] unknown section; expected [throttle NAME]",
        f"{own}:7: [throttle c] codes: '250' is no reply code of a failure; expected reply codes of 4yz or 5yz, ? for any digit: 421, 45?, "
        "separated by commas or blanks",
    ]


def test_a_file_of_rules_that_is_not_there_is_a_fault(tmp_path: Path):
    (tmp_path / "mta.ini").write_text("[listener a]\nports = 25\n[delivery]\nthrottle_rules = own.ini\n")
    with pytest.raises(ConfigError, match=r"mta.ini:4: \[delivery\] throttle_rules: 'own.ini' can't be read: No such file"):
        load(tmp_path / "mta.ini")
