"""Who may submit, within which limits, and until when."""

from __future__ import annotations

import hmac
import sqlite3
from base64 import b64decode, b64encode
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from twisted.logger import LogEvent, formatEvent

from lettermta.config import AuthBeforeTLS
from lettermta.submission.server import SubmissionServer
from tests.smtp.server_peer import Client, codes
from tests.submission.conftest import HEAD, HELLO, Site

INVALID = ["535 5.7.8 Authentication credentials invalid"]
SUCCESS = ["235 2.7.0 Authentication succeeded"]
MESSAGE = ("From: a@out.test", "Subject: x", "", "hello", ".")


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def said(logged: Sequence[LogEvent]) -> str:
    return "\n".join([str(formatEvent(event)) for event in logged])


def cram(client: Client, secret: str, user: str = "lettermint") -> list[str]:
    [challenge] = client.says("AUTH CRAM-MD5")
    digest = hmac.digest(secret.encode(), b64decode(challenge[4:]), "md5").hex()
    return client.says(encoded(f"{user} {digest}"))


def log_in(client: Client, mechanism: str, secret: str, user: str) -> list[str]:
    if mechanism == "PLAIN":
        return client.says("AUTH PLAIN " + encoded(f"\0{user}\0{secret}"))
    if mechanism == "LOGIN":
        client.says("AUTH LOGIN", encoded(user))
        return client.says(encoded(secret))
    return cram(client, secret, user)


MECHANISMS = pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])


@MECHANISMS
@pytest.mark.parametrize("user", ["lettermint", "lettr"])
def test_a_token_logs_in_under_each_user_name(site: Site, mechanism: str, user: str) -> None:
    client = site.client().secure().ehlo()
    assert log_in(client, mechanism, site.secret, user) == SUCCESS
    assert site.submit(HEAD + "\n", client=client).startswith("250 ")
    assert site.stored[-1].message.project == "demo"


@MECHANISMS
def test_an_imported_token_logs_in(site: Site, mechanism: str) -> None:
    site.accounts.create_token("demo", value="lttr_from-elsewhere/+=")
    assert log_in(site.client().secure().ehlo(), mechanism, "lttr_from-elsewhere/+=", "lettr") == SUCCESS


@MECHANISMS
def test_each_cause_of_a_refused_login_is_told_alike_and_logged_apart(site: Site, mechanism: str, logged: Sequence[LogEvent]) -> None:
    """COMPATIBILITY.md section 1; no secret in any log (HARD-CASES row 12)."""
    revoked, revoked_secret = site.accounts.create_token("demo")
    site.accounts.revoke_token(revoked.id)
    site.accounts.create_project("off", smtp=False)
    _, off_secret = site.accounts.create_token("off")
    causes = [
        ("wrong user name", site.secret, "postmaster"),
        ("wrong user name", site.secret, "LETTERMINT"),
        ("unknown token", "lm_no-such-token", "lettermint"),
        ("unknown token" if mechanism == "CRAM-MD5" else f"token {revoked.id} is revoked", revoked_secret, "lettermint"),
        ("SMTP is switched off for project off", off_secret, "lettermint"),
    ]
    for cause, secret, user in causes:
        seen = len(logged)
        client = site.client().secure().ehlo()
        assert log_in(client, mechanism, secret, user) == INVALID, cause
        assert f"192.0.2.9 was refused a login by {mechanism}: {cause}" in said(logged[seen:])
        assert codes(client.says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    assert log_in(site.client().secure().ehlo(), mechanism, site.secret, "lettermint") == SUCCESS
    everything = said(logged) + repr(list(logged))
    for secret in (site.secret, revoked_secret, off_secret, "lm_no-such-token"):
        for form in (secret, encoded(secret)[:20], encoded(f"\0lettermint\0{secret}")[8:40]):
            assert form not in everything


def test_a_login_is_logged_with_its_token(site: Site, logged: Sequence[LogEvent]) -> None:
    client = site.logged_in()
    assert f"192.0.2.9 logged in by PLAIN with token {site.token.id}" in said(logged)
    reply = site.submit("X-Tag: orders\n" + HEAD + "\n", "b@in.test", "c@in.test", client=client)
    identifier = reply.rpartition(" ")[2]
    assert f"{identifier}: queued from=<a@out.test> recipients=2" in said(logged)
    assert "project=demo route=outgoing tag=orders" in said(logged)


def test_what_is_offered_depends_on_the_channel_and_the_listener(site: Site) -> None:
    everything = ("PLAIN", "LOGIN", "CRAM-MD5")
    for policy, in_clear in ((AuthBeforeTLS.NONE, ()), (AuthBeforeTLS.CRAM_MD5, ("CRAM-MD5",)), (AuthBeforeTLS.ALL, everything)):
        server = site.server(auth_before_tls=policy)
        assert tuple(one for one in server.mechanisms(False, False) if not one.startswith("SCRAM")) == in_clear
        assert tuple(one for one in server.mechanisms(True, False) if not one.startswith("SCRAM")) == everything


def test_logging_in_before_tls(site: Site) -> None:
    """HARD-CASES row 4."""
    client = site.client().ehlo()
    assert codes(client.says(site.plain())) == ["538 5.7.11"]
    client = site.client(auth_before_tls=AuthBeforeTLS.CRAM_MD5).ehlo()
    assert codes(client.says(site.plain())) == ["538 5.7.11"]
    assert cram(client, site.secret) == SUCCESS
    assert site.client(auth_before_tls=AuthBeforeTLS.ALL).ehlo().says(site.plain()) == SUCCESS


def test_cram_md5_is_offered_only_where_each_live_token_can_succeed(site: Site, tmp_path: Path) -> None:
    """COMPATIBILITY.md section 2: most clients take it unasked, and try nothing else after it failed."""
    server = site.server(auth_before_tls=AuthBeforeTLS.CRAM_MD5)
    assert "CRAM-MD5" in server.mechanisms(True, False)
    other, _ = site.accounts.create_token("demo")
    with sqlite3.connect(tmp_path / "accounts.db") as database:
        database.execute("UPDATE token SET secret = NULL WHERE id = ?", (other.id,))
    assert "CRAM-MD5" not in server.mechanisms(True, False)
    assert "CRAM-MD5" not in server.mechanisms(False, False)
    client = site.client().secure().ehlo()
    assert codes(client.says("AUTH CRAM-MD5")) == ["504 5.5.4"]
    assert client.says(site.plain()) == SUCCESS
    site.accounts.revoke_token(other.id)
    assert "CRAM-MD5" in server.mechanisms(True, False)


# -- in mid-session


def test_a_revoked_token_ends_at_the_next_message(site: Site, logged: Sequence[LogEvent]) -> None:
    client = site.logged_in()
    assert site.submit(HEAD + "\n", client=client).startswith("250 ")
    site.accounts.revoke_token(site.token.id)
    assert client.says("MAIL FROM:<a@out.test>") == INVALID
    assert f"token {site.token.id} is revoked" in said(logged)


@pytest.mark.parametrize("change", ["revoked", "deleted", "switched off", "project deleted"])
def test_a_token_revoked_between_mail_and_the_end_of_data_stores_nothing(site: Site, change: str) -> None:
    client = site.logged_in().data()
    if change == "revoked":
        site.accounts.revoke_token(site.token.id)
    elif change == "deleted":
        site.accounts.delete_token(site.token.id)
    elif change == "switched off":
        site.accounts.update_project("demo", lambda project: evolve(project, smtp=False))
    else:
        site.accounts.delete_project("demo")
    assert client.says(*MESSAGE) == INVALID
    assert client.says("MAIL FROM:<a@out.test>") == INVALID
    assert site.stored == []


# -- limits


def size_in(ehlo: Sequence[str]) -> int:
    [size] = [int(line.split()[1]) for line in ehlo if line[4:].startswith("SIZE ")]
    return size


def test_the_configured_limits_hold_where_the_project_has_none(site: Site) -> None:
    client = site.logged_in()
    assert size_in(client.says("EHLO client.test")) == 300_000
    assert codes(client.says("MAIL FROM:<a@b> SIZE=300001", "MAIL FROM:<a@b> SIZE=300000")) == ["552 5.3.4", "250 2.1.0"]
    replies = client.says(*[f"RCPT TO:<u{n}@in.test>" for n in range(51)])
    assert codes(replies) == ["250 2.1.5"] * 50 + ["452 4.5.3"]


def test_a_project_may_have_limits_of_its_own(site: Site) -> None:
    site.accounts.update_project("demo", lambda project: evolve(project, message_size=100, recipients=2))
    client = site.client().secure()
    assert size_in(client.says("EHLO client.test")) == 300_000
    client.says(site.plain())
    assert size_in(client.says("EHLO client.test")) == 100
    assert codes(client.says("MAIL FROM:<a@b> SIZE=101")) == ["552 5.3.4"]
    client.says("MAIL FROM:<a@b>")
    assert codes(client.says("RCPT TO:<a@in.test>", "RCPT TO:<b@in.test>", "RCPT TO:<c@in.test>")) == ["250 2.1.5"] * 2 + ["452 4.5.3"]
    client.says("DATA")
    assert codes(client.says("Subject: x", "", "x" * 100, ".")) == ["552 5.3.4"]
    assert site.submit(HEAD + "\nshort\n", client=client).startswith("250 ")


def test_changed_limits_hold_from_the_next_message_on(site: Site) -> None:
    client = site.logged_in()
    site.accounts.update_project("demo", lambda project: evolve(project, recipients=1))
    client.mail()
    assert codes(client.says("RCPT TO:<c@in.test>")) == ["452 4.5.3"]


def test_a_changed_size_limit_holds_from_the_next_message_on(site: Site) -> None:
    """Of a session that is open already: what has been allowed meanwhile is not refused for good."""
    client = site.logged_in()
    client.says("MAIL FROM:<a@b>", "RSET")
    for limit, answer in ((100, "552 5.3.4"), (300, "250 2.1.0"), (None, "250 2.1.0")):
        site.accounts.update_project("demo", lambda project, limit=limit: evolve(project, message_size=limit))
        assert codes(client.says("MAIL FROM:<a@b> SIZE=200")) == [answer]
        client.says("RSET")
        assert size_in(client.says("EHLO client.test")) == (limit or 300_000)


def test_reloaded_limits_hold_for_sessions_that_are_open(site: Site) -> None:
    client = site.logged_in()
    site.submission.limit(1000, 1)
    assert codes(client.says("MAIL FROM:<a@b> SIZE=1001", "MAIL FROM:<a@b>")) == ["552 5.3.4", "250 2.1.0"]
    assert codes(client.says("RCPT TO:<a@in.test>", "RCPT TO:<b@in.test>")) == ["250 2.1.5", "452 4.5.3"]


# -- trusted networks

NETWORKS = tuple(map(ip_network, ("198.51.100.0/24", "2001:db8:1::/48")))


def trusting(site: Site, address: str) -> Client:
    return site.client(address=address, trusted_networks=NETWORKS, trusted_project="demo").ehlo()


@pytest.mark.parametrize("address", ["198.51.100.0", "198.51.100.255", "2001:db8:1::5"])
def test_a_trusted_network_submits_for_its_project(site: Site, address: str) -> None:
    client = trusting(site, address)
    reply = site.submit(HEAD + "X-Tag: printer\n\n", client=client)
    assert reply.startswith("250 ")
    message = site.stored[-1].message
    assert (message.project, message.tag) == ("demo", "printer")
    assert b" with ESMTP\r\n" in message.head


@pytest.mark.parametrize("address", ["198.51.101.0", "192.0.2.9", "2001:db8:2::5", "::1", "127.0.0.1"])
def test_everyone_else_has_to_log_in(site: Site, address: str) -> None:
    assert codes(trusting(site, address).says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    client = trusting(site, address).secure().ehlo()
    assert client.says(site.plain()) == SUCCESS


def test_a_trusted_client_may_log_in_for_another_project(site: Site) -> None:
    site.accounts.create_project("other")
    _, secret = site.accounts.create_token("other")
    client = trusting(site, "198.51.100.7").secure().ehlo()
    assert client.says(site.plain(secret)) == SUCCESS
    site.submit(HEAD + "\n", client=client)
    assert site.stored[-1].message.project == "other"


def test_trust_ends_with_the_project_and_with_its_smtp(site: Site, logged: Sequence[LogEvent]) -> None:
    site.accounts.update_project("demo", lambda project: evolve(project, smtp=False))
    assert codes(trusting(site, "198.51.100.7").says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    assert "SMTP is switched off" in said(logged)
    site.accounts.update_project("demo", lambda project: evolve(project, smtp=True))
    client = trusting(site, "198.51.100.7").data()
    site.accounts.update_project("demo", lambda project: evolve(project, smtp=False))
    assert client.says(*MESSAGE) == INVALID
    site.accounts.delete_project("demo")
    assert codes(client.says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    assert "there is no such project" in said(logged)


def test_without_trusted_networks_nobody_is_trusted(site: Site) -> None:
    server: SubmissionServer = site.server()
    assert server.trusted(Client().peer) is None


# -- storage


def test_a_message_that_can_not_be_stored_is_refused_for_now(site: Site, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 26."""
    client = site.logged_in()
    site.spool.broken = OSError(28, "No space left on device")
    content = watched(site)
    assert site.submit(HELLO, client=client) == "452 4.3.1 The message could not be stored, try again later"
    assert [one.size for one in content] == [0]
    assert (site.stored, site.events) == ([], [])
    assert "No space left on device" in "".join([event["log_failure"].getErrorMessage() for event in logged if "log_failure" in event])
    site.spool.broken = None
    assert site.submit(HELLO, client=client).startswith("250 ")
    assert len(site.stored) == 1


def test_without_room_new_mail_is_refused_at_mail_and_at_the_end_of_data(site: Site, logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 26."""
    client = site.logged_in()
    site.spool.full = True
    assert client.says("MAIL FROM:<a@out.test> SIZE=1000") == ["452 4.3.1 Insufficient system storage, try again later"]
    site.spool.full = False
    client.mail("b@in.test")
    client.says("DATA")
    site.spool.full = True
    assert client.sends(HELLO.encode().replace(b"\n", b"\r\n") + b".\r\n") == ["452 4.3.1 The message could not be stored, try again later"]
    site.spool.full = False
    assert site.submit(HELLO, client=client).startswith("250 ")
    assert len(site.stored) == 1
    assert not [event for event in logged if "log_failure" in event], "a line, and no traceback for each"


def watched(site: Site) -> list:  # type: ignore[type-arg]
    """The contents that the spool hands out from now on."""
    made = []
    real = site.spool.content

    def content():  # type: ignore[no-untyped-def]
        made.append(real())
        return made[-1]

    site.spool.content = content  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("head", ["X-Tag: bad,\n", "X-Lettermint-Route: none\n", "no header\n", "Received: x\n" * 101])
def test_refused_content_is_given_up(site: Site, head: str) -> None:
    client = site.logged_in()
    content = watched(site)
    assert site.submit(head + "\nhello\n", client=client)[:3] in ("550", "554")
    assert [one.size for one in content] == [0]
    assert site.submit(HEAD + "\n", client=client).startswith("250 ")
