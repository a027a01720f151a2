"""Listeners that take bounces, from whoever brings them: no open relay, and no place to guess passwords at (issue 3, point 8)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from lettermta.config import AuthBeforeTLS, Role
from tests.smtp.server_peer import Client, codes
from tests.submission.conftest import HELLO, Site

REQUIRED = "530 5.7.0 Authentication required"
REFUSED = {Role.BOUNCES: "550 5.1.1 No such address here", Role.BOTH: REQUIRED}
"""A login would help on the listener for both alone."""


@pytest.mark.parametrize("role", [Role.BOUNCES, Role.BOTH])
@pytest.mark.parametrize("sender", ["", "mailer-daemon@in.test"])
def test_strangers_bring_nothing_to_anybody(site: Site, role: Role, sender: str) -> None:
    """They are refused at RCPT, where a return path would be known by its address; what they bring is swallowed."""
    client = site.client(role=role).ehlo()
    assert codes(client.says(f"MAIL FROM:<{sender}>")) == ["250 2.1.0"]
    for recipient in ("a@out.test", "postmaster@mta.test", "victim@elsewhere.test", '"a b"@[192.0.2.1]'):
        assert client.says(f"RCPT TO:<{recipient}>") == [REFUSED[role]]
    assert client.says("RCPT TO:<postmaster>") == [REFUSED[role]]
    assert codes(client.says("DATA")) == ["554 5.5.1"]
    assert codes(client.sends(b"BDAT 6 LAST\r\nNOOP\r\nNOOP\r\n")) == ["554 5.5.1", "250 2.0.0"]
    assert site.stored == []


def test_a_strangers_transaction_goes_over_tls_too(site: Site) -> None:
    client = site.client(role=Role.BOUNCES).secure().ehlo()
    assert codes(client.says("MAIL FROM:<>", "RCPT TO:<a@out.test>")) == ["250 2.1.0", "550 5.1.1"]


@pytest.mark.parametrize("secure", [False, True])
def test_no_login_is_offered_where_only_bounces_come(site: Site, secure: bool) -> None:
    client = site.client(role=Role.BOUNCES, auth_before_tls=AuthBeforeTLS.ALL)
    if secure:
        client.secure()
    assert not any("AUTH" in line for line in client.says("EHLO client.test"))
    assert codes(client.says(site.plain())) == ["504 5.5.4"]
    assert codes(client.says("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>")) == ["250 2.1.0", "550 5.1.1"]


def test_on_a_listener_for_both_a_login_is_what_it_takes(site: Site) -> None:
    client = site.client(role=Role.BOTH).secure()
    assert any(line[4:].startswith("AUTH ") for line in client.says("EHLO client.test"))
    assert codes(client.says("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>", "RSET")) == ["250 2.1.0", "530 5.7.0", "250 2.0.0"]
    assert codes(client.says(site.plain())) == ["235 2.7.0"]
    assert site.submit(HELLO, client=client).startswith("250 ")


def test_a_login_does_not_take_over_a_strangers_transaction(site: Site) -> None:
    """HARD-CASES row 4: AUTH in a transaction is out of order."""
    client = site.client(role=Role.BOTH).secure().ehlo()
    assert codes(client.says("MAIL FROM:<a@out.test>", site.plain(), "RCPT TO:<b@in.test>")) == ["250 2.1.0", "503 5.5.1", "530 5.7.0"]


def test_where_only_submission_is_strangers_do_not_get_as_far_as_rcpt(site: Site) -> None:
    client = site.client().ehlo()
    assert client.says("MAIL FROM:<>") == [REQUIRED]


def test_control_headers_of_a_stranger_steer_nothing(site: Site) -> None:
    """HARD-CASES row 32: there is no message of theirs in which they could."""
    client = site.client(role=Role.BOTH).ehlo()
    replies = client.says("MAIL FROM:<>", "RCPT TO:<b@in.test>", "DATA", "X-LM-Tag: evil", "X-Lettermint-Route: outgoing", "", ".")
    assert codes(replies)[:3] == ["250 2.1.0", "530 5.7.0", "554 5.5.1"]
    assert (site.stored, site.events) == ([], [])


def test_a_trusted_machine_is_no_stranger(site: Site) -> None:
    client = site.client(role=Role.BOTH, trusted_networks=(ip_network("192.0.2.0/24"),), trusted_project="demo").ehlo()
    assert site.submit(HELLO, client=client).startswith("250 ")


def test_what_a_stranger_may_send_is_announced(site: Site) -> None:
    client: Client = site.client(role=Role.BOUNCES)
    lines = client.says("EHLO client.test")
    assert "250-SIZE 300000" in lines
    [limits] = [line for line in lines if "LIMITS" in line]
    assert limits.endswith("RCPTMAX=10")
    assert codes(client.says("MAIL FROM:<> SIZE=300001")) == ["552 5.3.4"]
