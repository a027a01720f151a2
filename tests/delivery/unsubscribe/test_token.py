"""What a link says: all of it comes back, and nobody can make one up."""

from __future__ import annotations

import base64
import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lettermta.delivery.unsubscribe.token import NoLink, Unsubscription, read

KEY = b"k" * 32
UUIDS = st.uuids().map(str)
TAGS = st.none() | st.from_regex(r"[a-zA-Z0-9_-]{1,255}", fullmatch=True)
ADDRESSES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=250)
ANY = st.builds(Unsubscription, message_id=UUIDS, project_id=UUIDS, address=ADDRESSES, tag=TAGS)
ONE = Unsubscription(str(uuid.UUID(int=1)), str(uuid.UUID(int=2)), "jane@example.com", "news")


@settings(deadline=None)
@given(ANY)
def test_everything_comes_back_from_a_token_that_fits_in_a_url(meant: Unsubscription) -> None:
    token = meant.token(KEY)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert read(token, KEY) == meant


@settings(deadline=None)
@given(ANY, st.data())
def test_no_octet_of_it_can_be_changed(meant: Unsubscription, data: st.DataObject) -> None:
    token = meant.token(KEY)
    octets = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(NoLink) as caught:
        read(base64.urlsafe_b64encode(octets).decode().rstrip("="), KEY)
    assert caught.value.cause == ("malformed" if at == 0 else "forged")


@settings(deadline=None)
@given(st.text(max_size=2100) | st.binary(max_size=300).map(lambda octets: base64.urlsafe_b64encode(octets).decode().rstrip("=")))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(NoLink):
        read(text, KEY)


def test_another_daemons_links_are_forged_here() -> None:
    with pytest.raises(NoLink) as caught:
        read(ONE.token(b"other" * 8), KEY)
    assert caught.value.cause == "forged"


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 21])
def test_a_link_that_was_cut_off_is_none(cut: int) -> None:
    with pytest.raises(NoLink):
        read(ONE.token(KEY)[:-cut], KEY)


def test_a_token_stays_readable() -> None:
    """Links are in mail that people keep for years: a change of the form needs another version."""
    kept = "AQAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAACBG5ld3NqYW5lQGV4YW1wbGUuY29tO_ic2fN-U6GTPkat3o6WLQ"
    assert ONE.token(KEY) == kept
    assert read(kept, KEY) == ONE
