"""What refusals are about: real replies with the class that each must get, and rules that nobody's text can abuse."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lettermta.config.reply_rules import BadRules, reply_rules
from lettermta.delivery.classes import LONGEST, Classifier, plain, shipped_rules
from lettermta.message import Reply, ReplyClass

TABLE = Path(__file__).with_name("replies.tsv")


def replies() -> list[tuple[str, str, str]]:
    rows = [line.split("\t") for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return [(row[0], row[1], row[2]) for row in rows]


def reply_of(text: str) -> Reply:
    return Reply.parse(int(text[:3]), text[4:].split("\\n"))


CLASSIFIER = Classifier()


@pytest.mark.parametrize(("expected", "source", "reply"), replies())
def test_a_real_reply_gets_its_class(expected: str, source: str, reply: str) -> None:
    assert CLASSIFIER.classify(reply_of(reply)) == expected, f"{reply} ({source})"


def test_the_table_has_120_replies_of_every_class_each_with_its_source() -> None:
    rows = replies()
    assert len({reply for _, _, reply in rows}) >= 120
    assert {word for word, _, _ in rows} == set(ReplyClass)
    assert all(source for _, source, _ in rows)


@pytest.mark.parametrize("text", ["user unknown", "No such user here", "mailbox disabled", "Recipient not found"])
def test_a_temporary_security_refusal_is_never_a_dead_address(text: str) -> None:
    for status in ("4.7.0", "4.7.1", "4.7.650"):
        assert not CLASSIFIER.classify(Reply(451, status, text)).dead_address
        assert not CLASSIFIER.classify(Reply(550, status, text)).dead_address


@pytest.mark.parametrize(
    "text",
    [
        "550 5.7.1 <mail.example.com>: Helo command rejected: Host not found",
        "501 5.5.4 Invalid domain name",
        "501 5.1.7 Invalid address",
        "550 5.1.8 Sender domain has no MX record",
        "550-Requested action not taken: mailbox unavailable\\n550 invalid DNS MX or A/AAAA resource record",
        "554 5.7.1 example.com does not accept mail from dynamic IP addresses",
        "554 5.7.1 Connection terminated",
        "554 Transaction abandoned",
        "535 5.7.8 Error: authentication failed: no such user",
        "535 Authentication failed: account disabled",
        "550 5.7.1 Your account has been suspended for sending spam",
        "550 Sender IP reverse lookup rejected: unknown host",
        "550 5.7.25 Client host not found, [192.0.2.1]",
        "550 no such domain in your MAIL FROM",
        "553 malformed address: invalid address in From: header",
        "550 Domain not found in HELO",
    ],
)
def test_what_is_about_our_name_sender_or_login_is_no_dead_address(text: str) -> None:
    assert not CLASSIFIER.classify(reply_of(text)).dead_address


def test_a_reputation_block_is_no_dead_address_whatever_else_it_says() -> None:
    text = "5.1.1 user unknown: your IP address is on the Spamhaus block list"
    assert CLASSIFIER.classify(Reply(550, "5.7.1", text)) is ReplyClass.REPUTATION


def test_names_in_addresses_are_no_reasons() -> None:
    reply = Reply(550, "5.1.1", "<spamhaus.quota-exceeded@rate-limit.example>: unheard of")
    assert CLASSIFIER.classify(reply) is ReplyClass.INVALID_RECIPIENT
    assert plain("<Jane@Example.com>:  Not\n here") == "@>: not here"
    assert plain("550 jane@example.com...User unknown") == "550 @...user unknown"


def test_an_enhanced_code_in_the_text_counts() -> None:
    assert CLASSIFIER.classify(Reply(554, None, "nothing doing (#5.2.2)")) is ReplyClass.MAILBOX_FULL


def test_an_address_of_a_host_is_no_enhanced_code() -> None:
    assert CLASSIFIER.classify(Reply(554, None, "nothing doing for 5.2.2.9")) is ReplyClass.UNDETERMINED


def test_own_replies_of_ours_have_classes_too() -> None:
    ours = {
        (556, "5.1.10", "The domain can't receive mail: there is no example.invalid"): ReplyClass.INVALID_DOMAIN,
        (451, "4.4.1", "mx.example.com [192.0.2.1]:25 refuses connections"): ReplyClass.NETWORK,
        (451, "4.4.1", "Connecting to mx.example.com [192.0.2.1]:25 timed out"): ReplyClass.NETWORK,
        (451, "4.4.2", "Connection lost in DATA"): ReplyClass.NETWORK,
        (451, "4.4.3", "Looking up example.com failed: SERVFAIL"): ReplyClass.DNS,
        (451, "4.7.4", "TLS is required, and mx.example.com doesn't offer it"): ReplyClass.TLS,
        (554, "5.4.7", "The time by which the message was to be delivered has passed"): ReplyClass.EXPIRED,
        (554, "5.4.6", "Mail for example.com would come back to us: a loop"): ReplyClass.NETWORK,
    }
    assert {reply: CLASSIFIER.classify(Reply(*reply)) for reply in ours} == ours


@pytest.mark.parametrize("text", ["a@" * 40_000, "account " * 10_000, "domain " * 10_000, "x" * 100_000, "exceed " * 8_000, "@" * 90_000])
def test_no_text_costs_much(text: str) -> None:
    began = time.process_time()
    for number in range(20):
        Classifier().classify(Reply(550, None, f"{number} {text}"))
    assert (time.process_time() - began) / 20 < 0.02


def test_what_stands_behind_the_bound_is_not_looked_at() -> None:
    assert CLASSIFIER.classify(Reply(554, None, "x" * LONGEST + " user unknown")) is ReplyClass.UNDETERMINED


# -- rules of one's own


def test_own_rules_go_first() -> None:
    own = reply_rules('[[rule]]\nclass = "spam_block"\ncodes = ["5xx"]\ntexts = ["no * Thanks"]')
    assert Classifier(own).classify(Reply(550, "5.1.1", "No, and many\n thanks: user unknown")) is ReplyClass.SPAM_BLOCK
    assert Classifier(own).classify(Reply(450, "4.1.1", "no and many thanks: user unknown")) is ReplyClass.INVALID_RECIPIENT


@pytest.mark.parametrize(
    ("code", "reply", "fits"),
    [
        ("550", Reply(550, "5.0.0", ""), True),
        ("55x", None, None),
        ("5xx", Reply(554, None, ""), True),
        ("5xx", Reply(450, None, ""), False),
        ("5.7.*", Reply(550, "5.7.1", ""), True),
        ("5.7.*", Reply(550, "4.7.1", ""), False),
        ("x.7.600-649", Reply(450, "4.7.606", ""), True),
        ("x.7.600-649", Reply(450, "4.7.650", ""), False),
        ("5.1.1", Reply(550, "5.1.10", ""), False),
    ],
)
def test_codes(code: str, reply: Reply | None, fits: bool | None) -> None:
    source = f'[[rule]]\nclass = "spam_block"\ncodes = ["{code}"]'
    if reply is None:
        with pytest.raises(BadRules, match="55x"):
            reply_rules(source)
    else:
        assert (Classifier(reply_rules(source)).classify(reply) is ReplyClass.SPAM_BLOCK) is fits


def test_every_fault_of_a_file_is_told() -> None:
    source = """
        colour = "red"
        [[rule]]
        class = "nice"
        texts = ["fine"]
        [[rule]]
        class = "rate"
        [[rule]]
        class = "rate"
        codes = "550"
        texts = ["no", 7, "abc*"]
        text = "x"
    """
    with pytest.raises(BadRules) as caught:
        reply_rules(source)
    said = str(caught.value)
    for part in (
        "'colour'",
        "rule 1: class is 'nice'",
        "invalid_recipient",
        "rule 2: it has neither",
        "rule 3: unknown key 'text'",
        "codes is no list",
        "'no'",
        "has 7",
        "'abc*'",
    ):
        assert part in said
    with pytest.raises(BadRules, match="not TOML"):
        reply_rules("[[rule]")


def test_the_shipped_rules_are_all_of_use() -> None:
    """A phrase that an earlier rule of the same codes holds already can never decide."""
    seen: set[tuple[str, ...]] = set()
    doubled: list[tuple[str, ...]] = []
    for rule in shipped_rules():
        doubled += [parts for parts in rule.texts if parts in seen]
        if not rule.codes:
            seen.update(rule.texts)
    assert not doubled
