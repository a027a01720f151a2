"""How an address is compared with what is suppressed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lettermta.spool.key_filter import KeyFilter
from lettermta.suppression import (
    EVERYBODY,
    AppliesTo,
    Scope,
    SuppressionReason,
    SuppressionType,
    address_value,
    suppress,
    type_of,
    value_of,
    values_of,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("jane@example.com", "jane@example.com"),
        ("Jane.Doe@EXAMPLE.Com", "jane.doe@example.com"),
        ("jane+news@example.com", "jane+news@example.com"),
        (" jane@example.com\t", "jane@example.com"),
        ('"Jane"@example.com', "jane@example.com"),
        ('"jane doe"@example.com', '"jane doe"@example.com'),
        (r'"j\ane"@example.com', "jane@example.com"),
        ("Jürgen@MÜNCHEN.de", "jürgen@xn--mnchen-3ya.de"),
        ("ju\u0308rgen@example.com", "jürgen@example.com"),
        ("jane@[192.0.2.1]", "jane@[192.0.2.1]"),
        ("Example.COM", "example.com"),
        ("@example.com", "example.com"),
        ("example.com.", "example.com"),
        ("münchen.de", "xn--mnchen-3ya.de"),
        (".XYZ", ".xyz"),
        (".co.uk", ".co.uk"),
        ("Jane@A_b.example", "jane@a_b.example"),
    ],
)
def test_what_somebody_wrote_has_one_form(text: str, value: str) -> None:
    assert value_of(text) == value
    assert value_of(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "@",
        ".",
        "jane@",
        "a b@example.com",
        "a@b..c",
        "jane@exa mple.com",
        "x@y\0",
        "a" * 400,
        "-@-_-",
        "x,y@example.com",
        '"a@example.com',
        "[192.0.2.1]",
        "a@[1]",
    ],
)
def test_what_is_nothing_of_the_kind_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no address, domain or extension"):
        value_of(text)


def test_a_star_for_all_addresses_is_told_how_they_are_written() -> None:
    with pytest.raises(ValueError, match=r"the domain alone, example\.com"):
        value_of("*@example.com")


def test_an_address_is_kept_from_by_itself_its_domain_and_each_extension() -> None:
    assert values_of("Jane+News@Mail.Example.CO.UK") == [
        "jane+news@mail.example.co.uk", "mail.example.co.uk", ".example.co.uk", ".co.uk", ".uk"
    ]  # fmt: skip
    assert values_of("jane@localhost") == ["jane@localhost", "localhost"]


def test_plus_addresses_are_addresses_of_their_own() -> None:
    assert value_of("jane@example.com") not in values_of("jane+news@example.com")
    assert value_of("jane+news@example.com") not in values_of("jane@example.com")


def test_the_kinds_are_told_apart_by_their_form() -> None:
    assert [type_of(value_of(text)) for text in ("jane@example.com", "@example.com", ".example")] == list(SuppressionType)


@given(st.emails())
def test_whoever_is_suppressed_is_found_however_they_are_written(address: str) -> None:
    value = value_of(address)
    assert values_of(address)[0] == values_of(address.upper())[0] == value == address_value(value)


def test_who_unsubscribes_still_gets_what_is_no_broadcast() -> None:
    told = {reason: suppress("jane@example.com", EVERYBODY, reason, 1.0).applies_to for reason in SuppressionReason}
    assert told.pop(SuppressionReason.UNSUBSCRIBE) is AppliesTo.BROADCAST
    assert set(told.values()) == {AppliesTo.ALL}


def test_scopes() -> None:
    route = Scope("p1", "demo", "r1", "news")
    project = Scope("p1", "demo")
    assert [(one.key, one.name) for one in (route, project, EVERYBODY)] == [("r1", "route"), ("p1", "project"), ("", "global")]


@given(st.sets(st.text(), max_size=200), st.integers(0, 300))
def test_the_filter_never_says_no_of_what_was_added(keys: set[str], capacity: int) -> None:
    known = KeyFilter(capacity)
    for key in keys:
        known.add(key)
    assert all(key in known for key in keys)


def test_the_filter_says_no_of_nearly_everything_else_in_two_octets_a_key() -> None:
    known = KeyFilter(10_000)
    for number in range(10_000):
        known.add(f"user{number}@example.com")
    wrong = sum(f"other{number}@example.com" in known for number in range(10_000))
    assert wrong < 200  # some 50 are to be expected
    assert known.octets <= 4 * 10_000
