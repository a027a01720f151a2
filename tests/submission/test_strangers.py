"""What strangers bring to where mail may come back: the dialogue, with a stand-in for the desk that takes it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from lettermta.config import Role
from lettermta.interfaces import IReturns
from lettermta.message import Refused, Reply
from lettermta.submission.stranger import FRONT
from tests.smtp.server_peer import Client, codes
from tests.submission.conftest import HELLO, Site

PATH = "bpath@rp.out.test"
REPORT = b"From: mailer-daemon@in.test\r\nSubject: failure notice\r\n\r\nNo.\r\n"


@implementer(IReturns)
class Desk:
    """Knows one return path, and one where too much comes to."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, Sequence[str], bytes]] = []
        self.checked: list[tuple[str, str]] = []
        self.answer: Deferred[None] = succeed(None)

    def check(self, client: str, address: str) -> None:
        self.checked.append((client, address))
        if address == "much@rp.out.test":
            raise Refused(Reply(450, "4.7.1", "Too much"))
        if address != PATH:
            raise Refused(Reply(550, "5.1.1", "No such address here"))

    def take(self, sender: str, addresses: Sequence[str], octets: bytes) -> Deferred[None]:
        self.taken.append((sender, addresses, octets))
        return self.answer


@pytest.fixture
def desk(site: Site) -> Desk:
    site.submission.returns = Desk()
    return site.submission.returns


def stranger(site: Site, role: Role = Role.BOUNCES) -> Client:
    return site.client(role=role).ehlo()


def bring(client: Client, content: bytes = REPORT, sender: str = "") -> str:
    assert codes(client.says(f"MAIL FROM:<{sender}>", f"RCPT TO:<{PATH}>", "DATA")) == ["250 2.1.0", "250 2.1.5", "354"]
    [reply] = client.sends(content + b".\r\n")
    return reply


@pytest.mark.parametrize("role", [Role.BOUNCES, Role.BOTH])
@pytest.mark.parametrize("sender", ["", "mailer-daemon@in.test"])
def test_what_comes_to_a_return_path_is_taken(site: Site, desk: Desk, role: Role, sender: str) -> None:
    assert bring(stranger(site, role), sender=sender) == "250 2.0.0 Ok"
    assert desk.taken == [(sender, [PATH], REPORT)]
    assert desk.checked == [("192.0.2.9", PATH)]
    assert (site.stored, site.events) == ([], []), "nothing of it is submitted"


def test_it_is_answered_when_it_is_durable(site: Site, desk: Desk) -> None:
    desk.answer = Deferred()
    client = stranger(site)
    client.says("MAIL FROM:<>", f"RCPT TO:<{PATH}>", "DATA")
    assert client.sends(REPORT + b".\r\n") == []
    desk.answer.callback(None)
    assert client.says("NOOP") == ["250 2.0.0 Ok", "250 2.0.0 Ok"]


def test_what_can_not_be_taken_now_is_put_off(site: Site, desk: Desk) -> None:
    desk.answer = fail(Refused(Reply(451, "4.3.0", "Not now")))
    client = stranger(site)
    assert bring(client) == "451 4.3.0 Not now"
    desk.answer = succeed(None)
    assert bring(client) == "250 2.0.0 Ok", "the next one begins from nothing"


def test_too_much_is_put_off_and_not_taken_for_a_missing_login(site: Site, desk: Desk) -> None:
    for role in (Role.BOUNCES, Role.BOTH):
        client = stranger(site, role)
        assert codes(client.says("MAIL FROM:<>", "RCPT TO:<much@rp.out.test>")) == ["250 2.1.0", "450 4.7.1"]


def test_of_a_long_message_the_front_is_looked_at(site: Site, desk: Desk) -> None:
    """Reports stand before what they return; memory stays bounded whatever comes."""
    site.rules["message_size"] = 2_000_000
    site.submission.rules = type(site.submission.rules)(**site.rules)
    content = REPORT + b"x" * 70 + b"\r\n" + b"0123456789\r\n" * 80_000
    assert bring(stranger(site), content) == "250 2.0.0 Ok"
    [(_, _, octets)] = desk.taken
    assert len(octets) == FRONT
    assert content.startswith(octets)


def test_more_than_a_message_may_have_is_refused(site: Site, desk: Desk) -> None:
    assert bring(stranger(site), b"x\r\n" * 110_000).startswith("552 5.3.4 ")
    assert desk.taken == []


def test_it_may_come_in_chunks(site: Site, desk: Desk) -> None:
    client = stranger(site)
    client.says("MAIL FROM:<>", f"RCPT TO:<{PATH}>")
    client.sends(b"BDAT 10\r\n" + REPORT[:10])
    assert client.sends(b"BDAT %d LAST\r\n" % (len(REPORT) - 10) + REPORT[10:]) == ["250 2.0.0 Ok"]
    assert desk.taken[0][2] == REPORT


def test_who_logs_in_submits_and_is_no_stranger(site: Site, desk: Desk) -> None:
    client = site.client(role=Role.BOTH).secure().ehlo()
    client.says(site.plain())
    assert site.submit(HELLO, client=client).startswith("250 2.0.0 Ok: queued as ")
    assert (desk.taken, desk.checked) == ([], [])
