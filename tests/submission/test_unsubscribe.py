"""Which mail is to have a link to unsubscribe, as is decided when it is submitted."""

from __future__ import annotations

import pytest
from attrs import evolve

from lettermta.accounts.model import RouteKind
from lettermta.spool.options import decode_options, encode_options
from tests.submission.conftest import HELLO, Site

NEWS = "X-Lettermint-Route: news\n"


def wanted(site: Site, message: str) -> bool:
    assert site.submit(message, "you@in.test", "me@in.test").startswith("250 ")
    return site.stored[-1].message.options.unsubscribe


@pytest.fixture
def linking(site: Site) -> Site:
    site.accounts.create_route("demo", "news", kind=RouteKind.BROADCAST)
    site.rules["unsubscribe"] = True
    return site


def test_a_broadcast_is_to_have_one(linking: Site) -> None:
    assert wanted(linking, NEWS + HELLO)


@pytest.mark.parametrize(
    "own", ["List-Unsubscribe: <mailto:out@out.test>\n", "list-unsubscribe:\n <https://out.test/u>\n", "List-Unsubscribe-Post: x\n"]
)
def test_one_that_brings_its_own_is_not(linking: Site, own: str) -> None:
    """RFC 8058 section 3.1: there is one such field."""
    assert not wanted(linking, NEWS + own + HELLO)


def test_transactional_mail_is_not(linking: Site) -> None:
    assert not wanted(linking, HELLO)


def test_nothing_is_where_there_are_no_links(site: Site) -> None:
    site.accounts.create_route("demo", "news", kind=RouteKind.BROADCAST)
    assert not wanted(site, NEWS + HELLO)


def test_the_spool_keeps_it(linking: Site) -> None:
    assert wanted(linking, NEWS + HELLO)
    options = linking.stored[-1].message.options
    assert decode_options(encode_options(options)) == options
    assert not decode_options(encode_options(evolve(options, unsubscribe=False))).unsubscribe
