"""What EHLO announces, and that each of it works just there: the parameters of MAIL and RCPT, good and bad, and where they lead."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lettermta.message import BodyType, DeliverBy, Notify, Options, Recipient, Reply
from lettermta.smtp.channel_binding import no_binding
from lettermta.smtp.parameters import MAX_HOLD
from lettermta.smtp.session import SessionRules
from tests.smtp.server_peer import ACCEPTED, NOW, PLAIN, TLS, Client, Office, codes

MESSAGE = ("Subject: hi", "", "hello", ".")
ALWAYS = {
    "PIPELINING": "",
    "8BITMIME": "",
    "SMTPUTF8": "",
    "CHUNKING": "",
    "BINARYMIME": "",
    "DSN": "",
    "ENHANCEDSTATUSCODES": "",
    "FUTURERELEASE": f"{MAX_HOLD} 2023-12-14T22:13:20Z",
    "DELIVERBY": "",
    "MT-PRIORITY": "",
}


@pytest.fixture
def client() -> Client:
    return Client().log_in()


def announced(client: Client) -> dict[str, str]:
    """Keyword and parameters of each line behind the first."""
    lines = client.says("EHLO client.test")
    assert lines[0] == "250-mta.test"
    assert len({line[4:].partition(" ")[0] for line in lines}) == len(lines), "announced twice"
    return {line[4:].partition(" ")[0]: line[4:].partition(" ")[2] for line in lines[1:]}


def test_ehlo_announces_exactly_what_works_in_each_state() -> None:
    """RFC 5321 section 2.2.1; REQUIRETLS never in clear (RFC 8689 section 2), AUTH to nobody who is logged in, STARTTLS not inside TLS."""
    before = {**ALWAYS, "SIZE": "50000", "LIMITS": "MAILMAX=10000 RCPTMAX=40"}
    office = Office()
    assert announced(Client(office, starttls=False)) == before
    assert announced(Client(office)) == {**before, "STARTTLS": ""}
    office.in_clear = ("CRAM-MD5",)
    assert announced(Client(office)) == {**before, "STARTTLS": "", "AUTH": "CRAM-MD5"}
    client = Client(office).secure()
    assert announced(client) == {**before, "REQUIRETLS": "", "AUTH": "PLAIN LOGIN CRAM-MD5"}
    client.says(f"AUTH PLAIN {PLAIN}")
    after = {**ALWAYS, "SIZE": "100000", "LIMITS": "MAILMAX=10000 RCPTMAX=100"}
    assert announced(client) == {**after, "REQUIRETLS": ""}
    office.trusts = True
    assert announced(Client(office)) == {**after, "STARTTLS": "", "AUTH": "CRAM-MD5"}


def test_helo_announces_nothing() -> None:
    assert Client().says("HELO client.test") == ["250 mta.test"]


def test_plus_is_offered_where_the_channel_can_be_bound() -> None:
    """RFC 5802 section 6: the server tells its mechanisms by what the channel can do."""
    asked = []

    class Noting(Office):
        def mechanisms(self, secure: bool, plus: bool) -> Sequence[str]:
            asked.append((secure, plus))
            return ()

    client = Client(Noting()).ehlo()
    for binding in (no_binding, lambda name: b"bound" if name == "tls-exporter" else None):
        client = Client(Noting())
        client.says("STARTTLS")
        client.session.secured(TLS, binding)
        client.ehlo()
    assert asked == [(False, False), (True, False), (True, True)]


# -- MAIL

GOOD = {
    "SIZE=100000": Options(),
    "SIZE=0": Options(),
    "size=00000000000000000001": Options(),
    "BODY=7BIT": Options(),
    "BODY=8bitmime": Options(body=BodyType.EIGHT_BIT),
    "SMTPUTF8": Options(smtputf8=True),
    "AUTH=<>": Options(),
    "AUTH=jane+2Bx@out.test": Options(),
    "RET=full": Options(ret="FULL"),
    "RET=HDRS": Options(ret="HDRS"),
    "ENVID=QQ314159": Options(envid="QQ314159"),
    "ENVID=a+2Bb+3Dc": Options(envid="a+b=c"),
    "ENVID=" + "x" * 100: Options(envid="x" * 100),
    "REQUIRETLS": Options(require_tls=True),
    "BY=120;R": Options(deliver_by=DeliverBy(NOW + 120, True)),
    "BY=120;n": Options(deliver_by=DeliverBy(NOW + 120, False)),
    "BY=-10;NT": Options(deliver_by=DeliverBy(NOW - 10, False, True)),
    "BY=999999999;RT": Options(deliver_by=DeliverBy(NOW + 999_999_999, True, True)),
    "MT-PRIORITY=9": Options(priority=9),
    "MT-PRIORITY=-9": Options(priority=-9),
    "MT-PRIORITY=0": Options(),
    "RET=HDRS ENVID=e SMTPUTF8 BODY=8BITMIME MT-PRIORITY=3 SIZE=10 REQUIRETLS AUTH=<> BY=60;R": Options(
        BodyType.EIGHT_BIT, True, "HDRS", "e", True, DeliverBy(NOW + 60, True), 3
    ),
}


@pytest.mark.parametrize("parameters", GOOD)
def test_what_mail_asks_for_goes_with_the_message(client: Client, parameters: str) -> None:
    assert codes(client.says(f"MAIL FROM:<a@out.test> {parameters}", "RCPT TO:<b@in.test>", "DATA", *MESSAGE))[-1] == "250 2.0.0"
    [envelope] = client.office.envelopes
    assert envelope.options == GOOD[parameters]
    assert envelope.hold_until is None


@pytest.mark.parametrize(
    ("parameter", "until"),
    [
        ("HOLDFOR=0", NOW),
        ("HOLDFOR=3600", NOW + 3600),
        (f"HOLDFOR={MAX_HOLD}", NOW + MAX_HOLD),
        ("HOLDUNTIL=2023-11-15T00:00:00Z", 1_700_006_400.0),
        ("HOLDUNTIL=2023-11-15T01:00:00+01:00", 1_700_006_400.0),
        ("holduntil=2001-01-01T00:00:00Z", 978_307_200.0),
    ],
)
def test_a_message_can_be_held(client: Client, parameter: str, until: float) -> None:
    """RFC 4865; a moment that has passed means now."""
    client.says(f"MAIL FROM:<a@out.test> {parameter}", "RCPT TO:<b@in.test>", "DATA", *MESSAGE)
    assert [envelope.hold_until for envelope in client.office.envelopes] == [until]


BAD = {
    "501 5.5.4": [
        "SIZE", "SIZE=-1", "SIZE=1x", "SIZE=" + "9" * 21, "BODY", "BODY=9BIT", "BODY=BINARY", "SMTPUTF8=yes", "AUTH", "RET", "RET=ALL",
        "ENVID", "ENVID=a+ZZ", "ENVID=a+2b", "ENVID=a+0A", "ENVID=a+00", "ENVID=a+7F", "ENVID=" + "x" * 101, "REQUIRETLS=1",
        "HOLDFOR", "HOLDFOR=-1", "HOLDFOR=1.5", "HOLDFOR=soon", f"HOLDFOR={MAX_HOLD + 1}", "HOLDFOR=" + "9" * 10,
        "HOLDUNTIL", "HOLDUNTIL=tomorrow", "HOLDUNTIL=2023-11-15T00:00:00", "HOLDUNTIL=2024-02-30T00:00:00Z",
        "HOLDUNTIL=2024-11-15T00:00:00Z", "HOLDUNTIL=9999-12-31T23:59:59-23:59", "HOLDFOR=60 HOLDUNTIL=2023-11-15T00:00:00Z",
        "BY", "BY=120", "BY=120;X", "BY=R", "BY=0;R", "BY=-1;R", "BY=1234567890;N", "BY=12;NN",
        "MT-PRIORITY", "MT-PRIORITY=10", "MT-PRIORITY=-10", "MT-PRIORITY=+1", "MT-PRIORITY=high",
        "SIZE=1 SIZE=1", "RET=HDRS ret=FULL", "=", "=1", "-X", "SIZE==1", "SIZE=1;BODY=7BIT",
    ],
    "552 5.3.4": ["SIZE=100001", "SIZE=" + "9" * 20],
    "555 5.5.4": ["FUNNY", "FUNNY=1", "NOTIFY=NEVER", "XYZZY=<>", "SIZE=1 FUNNY"],
}  # fmt: skip


@pytest.mark.parametrize(("parameters", "answer"), [(one, answer) for answer, each in BAD.items() for one in each])
def test_what_mail_may_not_ask_for_begins_no_transaction(client: Client, parameters: str, answer: str) -> None:
    """RFC 5321 section 4.1.1.11."""
    assert codes(client.says(f"MAIL FROM:<a@out.test> {parameters}", "RCPT TO:<b@in.test>")) == [answer, "503 5.5.1"]


def test_requiretls_is_not_known_on_a_channel_in_clear() -> None:
    """RFC 8689 section 2."""
    office = Office()
    office.trusts = True
    client = Client(office).ehlo()
    assert codes(client.says("MAIL FROM:<a@out.test> REQUIRETLS")) == ["555 5.5.4"]
    client.secure().ehlo()
    assert codes(client.says("MAIL FROM:<a@out.test> REQUIRETLS")) == ["250 2.1.0"]


def test_what_one_message_asks_for_is_not_asked_for_the_next(client: Client) -> None:
    client.says("MAIL FROM:<a@out.test> RET=HDRS HOLDFOR=60 SMTPUTF8", "RCPT TO:<ü@in.test> NOTIFY=NEVER", "DATA", *MESSAGE)
    client.says("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>", "DATA", *MESSAGE)
    envelope = client.office.envelopes[1]
    assert (envelope.options, envelope.hold_until, envelope.recipients) == (Options(), None, [Recipient("b@in.test")])


# -- RCPT

EACH = frozenset({Notify.SUCCESS, Notify.FAILURE, Notify.DELAY})


@pytest.mark.parametrize(
    ("parameters", "asked"),
    [
        ("NOTIFY=NEVER", Recipient("b@in.test", frozenset({Notify.NEVER}))),
        ("notify=success,FAILURE,Delay", Recipient("b@in.test", EACH)),
        ("NOTIFY=DELAY,DELAY", Recipient("b@in.test", frozenset({Notify.DELAY}))),
        ("ORCPT=rfc822;jane@example.com", Recipient("b@in.test", None, "rfc822;jane@example.com")),
        ("ORCPT=RFC822;jane+2Btag@example.com", Recipient("b@in.test", None, "rfc822;jane+tag@example.com")),
        ("NOTIFY=FAILURE ORCPT=x400;/S=x", None),
        ("NOTIFY=FAILURE ORCPT=x400;/S+3Dx", Recipient("b@in.test", frozenset({Notify.FAILURE}), "x400;/S=x")),
        ("ORCPT=utf-8;j\\x{FC}rgen@example.com", Recipient("b@in.test", None, "utf-8;j\\x{FC}rgen@example.com")),
        ("ORCPT=utf-8;jürgen@example.com", Recipient("b@in.test", None, "utf-8;jürgen@example.com")),
        ("ORCPT=rfc822;" + "x" * 500, Recipient("b@in.test", None, "rfc822;" + "x" * 500)),
        ("NOTIFY", None),
        ("NOTIFY=NEVER,FAILURE", None),
        ("NOTIFY=SOMETIMES", None),
        ("NOTIFY=SUCCESS,", None),
        ("ORCPT", None),
        ("ORCPT=jane@example.com", None),
        ("ORCPT=rfc822;", None),
        ("ORCPT=;jane@example.com", None),
        ("ORCPT=rfc822;a+0Ab", None),
        ("ORCPT=rfc822;a+9Bb", None),
        ("ORCPT=rfc822;jürgen@example.com", None),
        ("ORCPT=rfc822;" + "x" * 501, None),
        ("ORCPT=utf-8;" + "ü" * 501, None),
        ("ORCPT=utf-8;a\u202eb", None),
        ("NOTIFY=NEVER NOTIFY=NEVER", None),
    ],
)
def test_what_rcpt_asks_for_goes_with_the_recipient(client: Client, parameters: str, asked: Recipient | None) -> None:
    """RFC 3461 sections 4.1 and 4.2, RFC 6533 section 3; None: refused."""
    client.says("MAIL FROM:<a@out.test> SMTPUTF8", "RCPT TO:<first@in.test>")
    answer = ["501 5.5.4"] if asked is None else ["250 2.1.5"]
    assert codes(client.says(f"RCPT TO:<b@in.test> {parameters}")) == answer
    client.says("DATA", *MESSAGE)
    [envelope] = client.office.envelopes
    assert envelope.recipients == [Recipient("first@in.test"), *([asked] if asked else [])]


@pytest.mark.parametrize("parameters", ["FUNNY", "FUNNY=1", "SIZE=10", "NOTIFY=NEVER RET=FULL"])
def test_rcpt_refuses_what_is_not_its_own(client: Client, parameters: str) -> None:
    client.mail()
    assert codes(client.says(f"RCPT TO:<c@in.test> {parameters}")) == ["555 5.5.4"]


def test_postmaster_needs_no_domain(client: Client) -> None:
    """RFC 5321 section 4.5.1."""
    assert codes(client.says("MAIL FROM:<a@out.test>", "RCPT TO:<PostMaster>", "DATA", *MESSAGE))[-1] == "250 2.0.0"
    assert client.office.submitted[0][1] == ("postmaster@mta.test",)


# -- SMTPUTF8

NEEDED = "553 5.6.7"


def test_addresses_in_utf_8_need_smtputf8(client: Client) -> None:
    """RFC 6531 section 3.3 and 3.5; what is refused changes nothing."""
    assert codes(client.says("MAIL FROM:<jürgen@out.test>", "RCPT TO:<b@in.test>")) == [NEEDED, "503 5.5.1"]
    assert codes(client.says("MAIL FROM:<a@out.test> BODY=8BITMIME", "RCPT TO:<jürgen@in.test>", "RCPT TO:<b@müller.test>")) == [
        "250 2.1.0",
        NEEDED,
        NEEDED,
    ]
    assert codes(client.says("RCPT TO:<b@in.test> ORCPT=utf-8;jürgen@in.test", "RCPT TO:<b@in.test>", "DATA")) == [
        NEEDED,
        "250 2.1.5",
        "354",
    ]
    assert client.says(*MESSAGE) == [ACCEPTED]
    assert client.office.submitted[0][1] == ("b@in.test",)


def test_addresses_in_utf_8_are_kept_as_they_are_written(client: Client) -> None:
    says = client.says("MAIL FROM:<jürgen@out.test> SMTPUTF8", "RCPT TO:<用户@例子.广告>", "RCPT TO:<x@MÜLLER.test>", "DATA", *MESSAGE)
    assert codes(says)[-1] == "250 2.0.0"
    assert client.office.submitted[0][:2] == ("jürgen@out.test", ("用户@例子.广告", "x@MÜLLER.test"))


def test_octets_that_are_no_utf_8_are_a_fault_of_syntax(client: Client) -> None:
    for line in (
        b"MAIL FROM:<\xfcber@out.test> SMTPUTF8",
        "MAIL FROM:<\x85@out.test> SMTPUTF8".encode(),
        b"MAIL FROM:<a@\xc3.test> SMTPUTF8",
    ):
        assert codes(client.says(line)) == ["501 5.5.4"]


# -- replies


def test_every_reply_has_its_enhanced_code_and_they_agree(client: Client) -> None:
    """RFC 2034 section 4: all but those of the greeting, EHLO, HELO, AUTH's challenges and DATA; the classes are the same."""
    client.office.refusals = {"RCPT c@in.test": Reply(450, "4.2.1", "Not now")}
    said = client.says(
        "NOOP", "RSET", "VRFY x", "EXPN x", "HELP", "FOO", "", "AUTH PLAIN", "MAIL", "RCPT", "DATA", "DATA x", "BDAT 0", "STARTTLS",
        "MAIL FROM:<a@b>", "RCPT TO:<c@in.test>", "DATA", "RCPT TO:<d@in.test>", "MAIL FROM:<a@b>",
        "BDAT 0", "RCPT TO:<e@in.test>", "DATA", "BDAT 0 LAST",
        "MAIL FROM:<a@b> SIZE=x", "MAIL FROM:<a@b> X=y", "MAIL FROM:<a@b> SIZE=999999", "MAIL FROM:<ü@b>", "QUIT",
    )  # fmt: skip
    assert len(said) == 28
    for line in said:
        code, enhanced, text = line.split(" ", 2)
        assert enhanced.count(".") == 2
        assert enhanced[0] == code[0]
        assert text


# -- LIMITS (RFC 9422)


def test_the_limits_that_are_announced_hold() -> None:
    client = Client(rules=SessionRules(messages=2)).log_in()
    limits = dict(one.split("=") for one in announced(client)["LIMITS"].split())
    assert limits == {"MAILMAX": "2", "RCPTMAX": "100"}
    client.says("MAIL FROM:<a@out.test>")
    assert codes(client.says(*["RCPT TO:<b@in.test>"] * 101)) == ["250 2.1.5"] * 100 + ["452 4.5.3"]
    assert codes(client.says("RSET")) == ["250 2.0.0"]
    assert codes(client.says("MAIL FROM:<refused", "MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>", "DATA", *MESSAGE))[-1] == "250 2.0.0"
    assert codes(client.says("MAIL FROM:<a@out.test>")) == ["421 4.7.0"]
    assert client.wire.closed
    assert len(client.office.submitted) == 1
