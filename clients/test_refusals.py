"""What the clients of ``docs/clients.md`` do when they, or the daemon, must not go on: an error that the application sees, and no mail."""

# ruff: noqa: D103 - a test's name says what it promises

from __future__ import annotations

import re

import pytest

from clients.document import IMPLICIT_TLS, Section, sections
from clients.site import ClientSite

SECTIONS = sections()
EVERY = pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)


@EVERY
def test_a_wrong_token_is_an_error(site: ClientSite, section: Section) -> None:
    _, ran = site.send(section, (), site.starttls, token="lm_not-a-token-of-anyone", authority=site.authority)  # noqa: S106
    assert ran.status != 0, ran.said
    assert re.search("535|could not authenticate|login denied", ran.said, re.I), ran.said
    assert "lm_not-a-token" not in site.daemon.running.output


@EVERY
@pytest.mark.parametrize("way", ["STARTTLS", IMPLICIT_TLS])
def test_a_certificate_of_an_unknown_authority_is_an_error(site: ClientSite, section: Section, way: str) -> None:
    implicit = way == IMPLICIT_TLS
    _, ran = site.send(section, (IMPLICIT_TLS,) if implicit else (), site.implicit if implicit else site.starttls)
    assert ran.status != 0, ran.said
    assert "logged in" not in site.daemon.running.output
