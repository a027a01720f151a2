"""MTA-STS policies and their announcements, read (RFC 8461 section 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.delivery.tls.sts_policy import LONGEST_AGE, Mode, NotAPolicy, STSPolicy, announced, parse

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n"


def test_the_policy_of_the_rfc_reads_as_it_stands() -> None:
    policy = parse(POLICY)
    assert policy == STSPolicy(Mode.ENFORCE, ("mail.example.com", "*.example.net", "backupmx.example.com"), 604_800)
    assert parse("\n".join(policy.lines).encode()) == policy


@pytest.mark.parametrize(
    "text",
    [
        b"version: STSv1\nmode: testing\nmx: mx.test\nmax_age: 60",
        b"version:STSv1\nmode:testing\nmx:mx.test\nmax_age:60\n",
        b"\n  version :  STSv1  \nmode: testing\n\nmx: MX.test.\nmax_age: 60\nfuture: what ever\xc3\xbc\n",
        b"max_age: 60\nmx: mx.test\nmode: testing\nversion: STSv1\nmode: enforce\nmax_age: 7\n",
    ],
)
def test_line_ends_blanks_order_and_unknown_fields_do_not_matter(text: bytes) -> None:
    assert parse(text) == STSPolicy(Mode.TESTING, ("mx.test",), 60)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "version"),
        (b"<html>not found</html>", "no field"),
        (POLICY.replace(b"STSv1", b"STSv2"), "version"),
        (POLICY.replace(b"enforce", b"Enforce"), "mode"),
        (POLICY.replace(b"mode: enforce\r\n", b""), "mode"),
        (POLICY.replace(b"604800", b"a week"), "max_age"),
        (POLICY.replace(b"604800", b"-1"), "max_age"),
        (POLICY.replace(b"604800", "٦".encode()), "max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 60", "no mx"),
        (POLICY.replace(b"mx: mail.example.com", b"mx: mail.*.com"), "no name"),
        (POLICY.replace(b"mx: mail.example.com", b"mx: *"), "no name"),
        (POLICY.replace(b"mx: mail.example.com", b"mx: *.*.com"), "no name"),
        (POLICY.replace(b"mx: mail.example.com", b"mx: a" + b"a" * 300), "no name"),
        (POLICY + b"mx: x.test\n" * 300, None),
        (POLICY + b"".join(b"mx: x%d.test\n" % number for number in range(300)), "more than"),
        (POLICY + b"\xff", "UTF-8"),
    ],
)
def test_what_is_no_policy_is_none(text: bytes, why: str | None) -> None:
    if why is None:
        text = POLICY + b"mx: x.test\n" * 150
        assert parse(text).mx[-1] == "x.test"
        return
    with pytest.raises(NotAPolicy, match=why):
        parse(text)


def test_mode_none_needs_no_hosts_and_ages_have_a_limit() -> None:
    assert parse(b"version: STSv1\nmode: none\nmax_age: 9999999999") == STSPolicy(Mode.NONE, (), LONGEST_AGE)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mail.example.com", True),
        ("MAIL.Example.COM.", True),
        ("other.example.com", False),
        ("a.example.net", True),
        ("a.b.example.net", False),
        ("example.net", False),
        ("badexample.net", False),
        (".example.net", False),
    ],
)
def test_a_star_is_one_label_on_the_left(host: str, named: bool) -> None:
    """RFC 8461 section 4.1."""
    assert parse(POLICY).names(host) is named


@pytest.mark.parametrize(
    ("texts", "identifier"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ; id = 1 ; ext=2"], "1"),
        (["google-site=x", "v=STSv1; id=1;", "v=spf1 -all"], "1"),
        (["v=STSv1; id=1;", "v=STSv1; id=2;"], None),
        (["v=STSv1; id=;"], None),
        (["v=STSv1; id=not-alnum;"], None),
        (["v=STSv1; id=" + "1" * 33], None),
        (["v=STSv1;"], None),
        (["v=STSv1; id=1; what is this"], None),
        (["v=STSv10; id=1"], None),
        ([" v=STSv1; id=1"], None),
        ([], None),
    ],
)
def test_exactly_one_record_announces_a_policy(texts: list[str], identifier: str | None) -> None:
    """RFC 8461 section 3.1."""
    assert announced(texts) == identifier


@given(st.binary(max_size=200) | st.builds(lambda cut, more: POLICY[:cut] + more, st.integers(0, len(POLICY)), st.binary(max_size=40)))
def test_whatever_a_stranger_says_is_a_policy_or_none(text: bytes) -> None:
    try:
        policy = parse(text)
    except NotAPolicy:
        return
    assert policy.mode is Mode.NONE or policy.mx
