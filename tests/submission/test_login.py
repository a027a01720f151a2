"""Logging in with real tokens: SCRAM through a whole session, and refusals that tell the client nothing and the operator the cause."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from lettermta.smtp.admission import LoginGuard
from lettermta.smtp.connection import Opening
from lettermta.smtp.tls import ServerTLS
from tests.smtp.memory_transport import TLSClient
from tests.smtp.scram_client import ScramClient
from tests.smtp.server_peer import TLS, Client, codes
from tests.smtp.server_place import LOG_IN, Place, tls
from tests.submission.conftest import HELLO, Site
from tests.test_counts import grown

__all__ = ["tls"]

SUCCESS = ["235 2.7.0 Authentication succeeded"]
INVALID = ["535 5.7.8 Authentication credentials invalid"]


def encoded(octets: bytes) -> str:
    return b64encode(octets).decode()


def challenge(replies: Sequence[str]) -> bytes:
    [reply] = replies
    assert reply.startswith("334 "), reply
    return b64decode(reply[4:])


def begun(site: Site, secret: str | None = None, user: str = "lettermint") -> tuple[Client, ScramClient, str]:
    """A session that is about to send its client-final-message, and that message."""
    client = site.client().secure().ehlo()
    scram = ScramClient(user, site.secret if secret is None else secret)
    final = scram.final(challenge(client.says("AUTH SCRAM-SHA-256 " + encoded(scram.first))))
    return client, scram, encoded(final)


def confirming(site: Site) -> Client:
    """A session whose proof was right, and that has yet to take note of the server's."""
    client, scram, final = begun(site)
    assert challenge(client.says(final)) == scram.expected
    return client


@pytest.mark.parametrize("user", ["lettermint", "lettr"])
def test_scram_logs_in_and_proves_the_server(site: Site, user: str) -> None:
    """RFC 7677, RFC 5802 section 5: the server's last message is one more challenge, whose answer is empty (RFC 4422 section 3.6)."""
    client, scram, final = begun(site, user=user)
    assert challenge(client.says(final)) == scram.expected
    assert not client.wire.known
    with grown() as growth:
        assert client.says("") == SUCCESS
    assert growth == {"lettermta_logins_total mechanism=SCRAM-SHA-256 result=succeeded": 1}
    assert client.wire.known
    assert client.peer.login == "SCRAM-SHA-256"
    assert site.submit(HELLO, client=client).startswith("250 ")
    assert b" with ESMTPSA " in site.stored[-1].message.head
    assert codes(client.says("AUTH SCRAM-SHA-256")) == ["503 5.5.1"]


def test_scram_without_an_initial_response(site: Site) -> None:
    client = site.client().secure().ehlo()
    scram = ScramClient("lettermint", site.secret)
    assert challenge(client.says("AUTH SCRAM-SHA-256")) == b""
    final = scram.final(challenge(client.says(encoded(scram.first))))
    assert challenge(client.says(encoded(final))) == scram.expected
    assert client.says("") == SUCCESS


def test_no_token_of_a_scram_login_is_on_the_wire(site: Site) -> None:
    _, scram, final = begun(site)
    for said in (scram.first, b64decode(final)):
        assert site.secret.encode() not in said


@pytest.mark.parametrize(
    ("secret", "user"), [("lm_another-token", "lettermint"), (None, "postmaster"), ("lm_another-token", "postmaster"), (None, "LETTERMINT")]
)
def test_a_wrong_proof_is_a_wrong_password(site: Site, secret: str | None, user: str) -> None:
    """RFC 5802 section 9: names that don't exist have a salt as well, so that nothing tells them apart."""
    client, _, final = begun(site, secret, user)
    assert client.says(final) == INVALID
    assert client.peer.login is None
    assert codes(client.says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    assert client.says(site.plain()) == SUCCESS


def test_a_name_has_the_same_salt_each_time_and_another_one_another(site: Site) -> None:
    def salt(user: str) -> bytes:
        client = site.client().secure().ehlo()
        first = challenge(client.says("AUTH SCRAM-SHA-256 " + encoded(ScramClient(user, "x").first)))
        assert first.endswith(b",i=4096")
        return first.partition(b",s=")[2]

    assert salt("lettermint") == salt("lettermint") != salt("lettr")
    assert salt("nobody") == salt("nobody") != salt("lettermint")


def test_a_revoked_token_proves_nothing(site: Site) -> None:
    site.accounts.revoke_token(site.token.id)
    other, secret = site.accounts.create_token("demo")
    client, _, final = begun(site)
    assert client.says(final) == INVALID
    client, scram, final = begun(site, secret)
    assert challenge(client.says(final)) == scram.expected
    site.accounts.revoke_token(other.id)
    assert client.says("") == SUCCESS
    assert client.says("MAIL FROM:<a@out.test>") == INVALID


@pytest.mark.parametrize(
    ("line", "answer"),
    [(b"*\r\n", "501 5.7.0"), (b"\n", "501 5.5.2"), (b"MAIL FROM:<a@out.test>\r\n", "501 5.5.2"), (b"x" * 13_000 + b"\r\n", "500 5.5.6")],
)
def test_a_login_that_is_not_confirmed_is_none(site: Site, line: bytes, answer: str) -> None:
    """A client that does not like the server's proof cancels, and is nobody."""
    client = confirming(site)
    with grown() as growth:
        assert codes(client.sends(line)) == [answer]
    assert not any("succeeded" in name for name in growth)
    assert not client.wire.known
    assert client.peer.login is None
    assert codes(client.says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
    assert client.says(site.plain()) == SUCCESS


def test_a_connection_lost_before_the_confirmation_logs_nobody_in(site: Site) -> None:
    client = confirming(site)
    client.session.lost()
    assert client.says("") == []
    assert client.peer.login is None


@pytest.mark.parametrize("response", ["", "=", "no base64", encoded(b"n,,n=user"), encoded(b"p=x,,n=lettermint,r=abc\0")])
def test_a_malformed_scram_message_ends_the_exchange(site: Site, response: str) -> None:
    """HARD-CASES row 12."""
    client = site.client().secure().ehlo()
    client.says("AUTH SCRAM-SHA-256")
    assert codes(client.says(response)) == ["501 5.5.2"]
    assert client.says(site.plain()) == SUCCESS
    client, _, _ = begun(site)
    assert codes(client.says(response)) == ["501 5.5.2"]
    assert client.says(site.plain()) == SUCCESS


def test_scram_is_offered_only_where_each_live_token_can_succeed(site: Site) -> None:
    server = site.server()
    assert server.mechanisms(True, True) == ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
    assert server.mechanisms(True, False) == ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256")
    assert server.mechanisms(False, False) == ()
    site.accounts.create_token("demo", value="lttr_imported")
    assert "SCRAM-SHA-256" in server.mechanisms(True, False)


# -- bound to the channel

KINDS: dict[str, tuple[int, Callable[[SSL.Connection], bytes | None]]] = {
    "tls-exporter": (SSL.TLS1_3_VERSION, lambda connection: connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")),
    "tls-unique": (SSL.TLS1_2_VERSION, lambda connection: connection.get_finished()),
}


def connected(site: Site, tls: ServerTLS, kind: str) -> tuple[TLSClient, bytes]:
    """A session over TLS, and the octets of its channel binding as the client sees them."""
    version, binding = KINDS[kind]
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    client = TLSClient(Place(Opening.TLS, tls, server=site.server(), failures=100).connect(), context=context).handshake()
    assert client.reads() == b"220 mta.test ESMTP\r\n"
    assert b"SCRAM-SHA-256 SCRAM-SHA-256-PLUS" in client.sends(b"EHLO client.test\r\n")
    data = binding(client.connection)
    assert data
    return client, data


def exchange(client: TLSClient, mechanism: str, scram: ScramClient) -> bytes:
    def lines(octets: bytes) -> list[str]:
        return client.sends(octets).decode().splitlines()

    first = challenge(lines(f"AUTH {mechanism} {encoded(scram.first)}\r\n".encode()))
    return client.sends(encoded(scram.final(first)).encode() + b"\r\n")


@pytest.mark.parametrize("kind", KINDS)
def test_scram_plus_through_a_whole_session(site: Site, tls: ServerTLS, kind: str) -> None:
    client, data = connected(site, tls, kind)
    scram = ScramClient("lettermint", site.secret, header=f"p={kind},,", data=data)
    assert b64decode(exchange(client, "SCRAM-SHA-256-PLUS", scram)[4:]) == scram.expected
    assert client.sends(b"\r\n") == b"235 2.7.0 Authentication succeeded\r\n"
    sent = client.sends(b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\nFrom: a@out.test\r\n\r\nhello\r\n.\r\n")
    assert b"\r\n250 2.0.0 Ok: queued as " in sent
    assert len(site.stored) == 1


@pytest.mark.parametrize(
    ("mechanism", "header", "cause"),
    [
        ("SCRAM-SHA-256-PLUS", "p={kind},,", "bound to another"),
        ("SCRAM-SHA-256", "y,,", "downgraded"),
        ("SCRAM-SHA-256-PLUS", "p=unheard-of,,", "not to be had"),
        ("SCRAM-SHA-256-PLUS", "n,,", "does not go with"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_who_sits_in_the_middle_is_refused_like_a_wrong_password(
    site: Site, tls: ServerTLS, kind: str, mechanism: str, header: str, cause: str, logged: Sequence[LogEvent]
) -> None:
    place = Place(Opening.TLS, tls, server=site.server(), failures=100)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(KINDS[kind][0])
    client = TLSClient(place.connect(), context=context).handshake()
    client.sends(b"EHLO client.test\r\n")
    scram = ScramClient("lettermint", site.secret, header=header.format(kind=kind), data=b"elsewhere")
    with grown() as growth:
        assert exchange(client, mechanism, scram) == b""
        place.clock.advance(0.5)
    assert client.reads().decode().splitlines() == INVALID
    assert growth[f"lettermta_logins_total mechanism={mechanism} result=malformed"] == 1
    assert any(cause in str(formatEvent(event)) for event in logged)


# -- failures


def try_plain(client: Client, secret: str, user: str) -> None:
    client.session.receive(b"AUTH PLAIN %b\r\n" % b64encode(f"\0{user}\0{secret}".encode()))


def try_login(client: Client, secret: str, user: str) -> None:
    client.says("AUTH LOGIN", encoded(user.encode()))
    client.session.receive(encoded(secret.encode()).encode() + b"\r\n")


def try_cram(client: Client, secret: str, user: str) -> None:
    text = challenge(client.says("AUTH CRAM-MD5"))
    client.session.receive(encoded(f"{user} {hmac.digest(secret.encode(), text, 'md5').hex()}".encode()).encode() + b"\r\n")


def try_scram(client: Client, secret: str, user: str) -> None:
    scram = ScramClient(user, secret)
    final = scram.final(challenge(client.says("AUTH SCRAM-SHA-256 " + encoded(scram.first))))
    client.session.receive(encoded(final).encode() + b"\r\n")


TRIES = {"PLAIN": try_plain, "LOGIN": try_login, "CRAM-MD5": try_cram, "SCRAM-SHA-256": try_scram}


@pytest.fixture
def causes(site: Site) -> Iterator[dict[str, tuple[str, str]]]:
    """A token and a user name for each cause of a refusal, as the counters call it."""
    revoked, revoked_secret = site.accounts.create_token("demo")
    site.accounts.revoke_token(revoked.id)
    site.accounts.create_project("off", smtp=False)
    _, off_secret = site.accounts.create_token("off")
    yield {
        "wrong_user_name": (site.secret, "postmaster"),
        "unknown_token": ("lttr_of-another-service", "lettermint"),
        "revoked": (revoked_secret, "lettermint"),
        "smtp_off": (off_secret, "lettermint"),
    }


@pytest.mark.parametrize("mechanism", TRIES)
def test_every_cause_is_answered_alike_and_after_the_same_time(
    site: Site, causes: dict[str, tuple[str, str]], mechanism: str, logged: Sequence[LogEvent]
) -> None:
    """HARD-CASES row 11, COMPATIBILITY.md section 1; each leaves one line and one count that name it."""
    for cause, (secret, user) in causes.items():
        if cause == "revoked" and mechanism in ("CRAM-MD5", "SCRAM-SHA-256"):
            cause = "unknown_token"  # only live tokens are tried
        client = site.client().secure().ehlo()
        seen = len(logged)
        with grown() as growth:
            TRIES[mechanism](client, secret, user)
            assert client.take() == []
            client.clock.advance(0.49)
            assert client.take() == []
            client.clock.advance(0.02)
            assert client.take() == INVALID
        assert growth == {f"lettermta_logins_total mechanism={mechanism} result={cause}": 1, "lettermta_commands_refused_total code=535": 1}
        [line] = [str(formatEvent(event)) for event in logged[seen:]]
        assert line.startswith(f"192.0.2.9 was refused a login by {mechanism}: ")
        assert cause.split("_")[0] in line.lower()


def test_guessing_from_many_connections_is_told_of_by_account(site: Site, logged: Sequence[LogEvent]) -> None:
    clock = Clock()
    guard = LoginGuard(10, 600.0, (), clock)
    for number in range(12):
        client = Client(site.server(), address=f"198.51.100.{number}", clock=clock, guard=guard).secure().ehlo()
        assert client.says(site.plain("wrong")) == INVALID
    warnings = [str(formatEvent(event)) for event in logged if "one account" in str(event.get("log_format"))]
    assert warnings == ["many logins have failed for one account lately, from 198.51.100.9 among others"]


def test_a_canceled_login_is_counted_as_one(site: Site) -> None:
    client = site.client().secure().ehlo()
    with grown() as growth:
        assert codes(client.says("AUTH LOGIN", "*", "AUTH PLAIN", "!")) == ["334", "501 5.7.0", "334", "501 5.5.2"]
    assert growth == {
        "lettermta_logins_total mechanism=LOGIN result=canceled": 1,
        "lettermta_logins_total mechanism=PLAIN result=malformed": 1,
        "lettermta_commands_refused_total code=501": 2,
    }


def test_the_channel_decides_what_is_offered(site: Site) -> None:
    """RFC 4954 section 4: in clear nothing by default; SCRAM-…-PLUS where TLS can be bound."""
    client = site.client().ehlo()
    assert not any(line[4:].startswith("AUTH") for line in client.says("EHLO client.test"))
    assert codes(client.says(LOG_IN.decode().strip())) == ["538 5.7.11"]
    assert codes(client.says("AUTH SCRAM-SHA-256-PLUS")) == ["538 5.7.11"]
    client.says("STARTTLS")
    client.session.secured(TLS, lambda name: b"x" if name == "tls-exporter" else None)
    assert "250 AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-256-PLUS" in client.says("EHLO client.test")
