"""What TLSA records say of a certificate chain."""

from __future__ import annotations

import pytest
from attrs import evolve
from zope.interface.verify import verifyObject

from lettermta.delivery.tls.tlsa import DANE, TLSA, usable
from lettermta.smtp.client_tls import EXPIRED, HOST_MISMATCH, NOT_TRUSTED, IJudge, WebPKI
from tests.delivery.tls.certificates import alone, root

ROOT = root()
INTERMEDIATE = ROOT.issue("an intermediate", authority=True)
SERVER = INTERMEDIATE.issue("mx.in.test")
FORMS = [(selector, matching) for selector in (0, 1) for matching in (0, 1, 2)]


def fault(records: list[TLSA], server: object = SERVER, names: tuple[str, ...] = ("mx.in.test", "in.test")) -> str | None:
    """The kind of fault that a judge with these records finds."""
    judge = DANE(usable(records), names)
    verifyObject(IJudge, judge)
    found = judge.fault(server.chain, None)  # type: ignore[attr-defined]
    return None if found is None else found.kind


@pytest.mark.parametrize(("selector", "matching"), FORMS)
def test_dane_ee_is_the_certificate_or_key_itself_in_each_form(selector: int, matching: int) -> None:
    """RFC 6698 sections 2.1.2 and 2.1.3."""
    assert fault([SERVER.tlsa(3, selector, matching)]) is None
    assert fault([INTERMEDIATE.issue("mx.in.test").tlsa(3, selector, matching)]) is not None
    assert fault([INTERMEDIATE.tlsa(3, selector, matching)]) is not None, "only the server's own one"


def test_with_dane_ee_neither_names_nor_dates_nor_issuers_count() -> None:
    """RFC 7672 section 3.1.1."""
    for server in (alone("other.test", days=-1), INTERMEDIATE.issue("other.test", days=-1)):
        assert fault([server.tlsa(3, 1, 1)], server) is None


@pytest.mark.parametrize(("selector", "matching"), FORMS)
@pytest.mark.parametrize("anchor", [ROOT, INTERMEDIATE])
def test_dane_ta_is_an_authority_in_the_chain_in_each_form(anchor: object, selector: int, matching: int) -> None:
    """RFC 7672 section 3.1.2: the anchor need be no root."""
    record = anchor.tlsa(2, selector, matching)  # type: ignore[attr-defined]
    assert fault([record]) is None
    assert fault([root().tlsa(2, selector, matching)]) is not None


def test_with_dane_ta_names_dates_and_signatures_count() -> None:
    """RFC 7672 section 3.1.2."""
    anchor = INTERMEDIATE.tlsa(2, 1, 1)
    assert fault([anchor], INTERMEDIATE.issue("other.test")) == HOST_MISMATCH
    assert fault([anchor], INTERMEDIATE.issue("in.test")) is None, "the next-hop domain is a name too"
    assert fault([anchor], INTERMEDIATE.issue("mx.in.test", days=-1)) == EXPIRED
    stranger = evolve(root("a stranger").issue("mx.in.test"), above=INTERMEDIATE.chain)
    assert fault([anchor], stranger) == NOT_TRUSTED, "shown beside an anchor that did not sign it"


def test_with_dane_ta_the_common_name_counts_where_no_dns_name_is_told() -> None:
    """RFC 7672 section 3.2.3, unlike everywhere else."""
    anchor = INTERMEDIATE.tlsa(2, 1, 1)
    assert fault([anchor], INTERMEDIATE.issue(common="mx.in.test")) is None
    assert fault([anchor], INTERMEDIATE.issue(common="*.in.test")) is None
    assert fault([anchor], INTERMEDIATE.issue("192.0.2.1", common="MX.in.test")) is None
    for wrong in ("other.test", "a server", "*.test", "mx.in.test\0.evil.test", "\u0444"):
        assert fault([anchor], INTERMEDIATE.issue(common=wrong)) == HOST_MISMATCH
    assert fault([anchor], INTERMEDIATE.issue("other.test", common="mx.in.test")) == HOST_MISMATCH
    assert WebPKI(("mx.in.test",)).fault(INTERMEDIATE.issue(common="mx.in.test").chain, None) is not None


def test_a_server_that_is_no_authority_is_no_trust_anchor() -> None:
    leaf = INTERMEDIATE.issue("mx.in.test")
    below = leaf.issue("mx.in.test")
    assert fault([leaf.tlsa(2, 1, 1)], below) is not None


def test_a_whole_anchor_in_the_record_need_not_be_sent() -> None:
    bare = evolve(SERVER, above=())
    assert fault([INTERMEDIATE.tlsa(2, 0, 0)], bare) is None
    assert fault([INTERMEDIATE.tlsa(2, 0, 1)], bare) is not None


def test_one_record_that_fits_is_enough() -> None:
    """A key that is rolled over has two."""
    assert fault([alone("x").tlsa(3, 1, 1), root().tlsa(2, 0, 1), SERVER.tlsa(3, 1, 1)]) is None


@pytest.mark.parametrize(
    "record",
    [
        evolve(SERVER.tlsa(3, 1, 1), usage=0),
        evolve(SERVER.tlsa(3, 1, 1), usage=1),
        evolve(SERVER.tlsa(3, 1, 1), usage=4),
        evolve(SERVER.tlsa(3, 1, 1), selector=2),
        evolve(SERVER.tlsa(3, 1, 1), matching=3),
        TLSA(3, 1, 1, b"short"),
        TLSA(3, 1, 2, b"x" * 32),
        TLSA(3, 0, 0, b"no certificate"),
        TLSA(2, 1, 0, b"no key"),
        TLSA(3, 1, 0, b""),
    ],
    ids=str,
)
def test_what_can_not_be_used_is_passed_over(record: TLSA) -> None:
    """RFC 7672 section 3.1.3 and RFC 6698 section 4.1."""
    assert usable([record]) == ()
    assert usable([record, SERVER.tlsa(3, 1, 1)]) == (SERVER.tlsa(3, 1, 1),)


def test_of_digests_of_the_same_thing_only_the_strongest_counts() -> None:
    """RFC 7671 section 9."""
    weak, strong, whole = SERVER.tlsa(3, 1, 1), alone("x").tlsa(3, 1, 2), alone("y").tlsa(3, 1, 0)
    assert set(usable([weak, strong, whole])) == {strong, whole}
    assert fault([weak, strong]) is not None
    other = SERVER.tlsa(3, 0, 1)
    assert set(usable([weak, strong, other])) == {strong, other}, "another selector tells another thing"
