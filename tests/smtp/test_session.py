"""The server's state machine: every command in every state, and what is never to happen."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence

import pytest
from twisted.logger import LogEvent, capturedLogs, formatEvent

from lettermta.message import Refused, Reply
from lettermta.smtp.channel_binding import no_binding
from lettermta.smtp.session import MAX_COMMAND, MAX_ERRORS, MAX_WAITING, SHUTTING_DOWN
from tests.smtp.server_peer import ACCEPTED, PLAIN, TLS, TOKEN, USER, Client, Office, codes

INVALID = ["535 5.7.8 Authentication credentials invalid"]
MESSAGE = ("Subject: hi", "", "hello", ".")


def encoded(octets: bytes) -> str:
    return b64encode(octets).decode()


@pytest.fixture
def client() -> Client:
    return Client().log_in()


@pytest.fixture
def logged() -> Iterator[Sequence[LogEvent]]:
    with capturedLogs() as events:
        yield events


# -- the dialogue


def test_the_banner_and_the_answer_to_ehlo_begin_with_the_host_name() -> None:
    client = Client()
    assert client.banner == ["220 mta.test ESMTP"]
    assert client.says("EHLO client.test")[0] == "250-mta.test"
    assert client.says("HELO client.test") == ["250 mta.test"]


def test_ehlo_lists_what_holds_at_that_moment() -> None:
    client = Client()
    in_clear = [line[4:] for line in client.says("EHLO client.test")]
    assert {"PIPELINING", "SIZE 50000", "8BITMIME", "ENHANCEDSTATUSCODES", "STARTTLS"} <= set(in_clear)
    assert not any(line.startswith("AUTH") for line in in_clear)
    encrypted = [line[4:] for line in client.secure().says("EHLO client.test")]
    assert "STARTTLS" not in encrypted
    assert "AUTH PLAIN LOGIN CRAM-MD5" in encrypted
    client.says(f"AUTH PLAIN {PLAIN}")
    logged_in = [line[4:] for line in client.says("EHLO client.test")]
    assert "SIZE 100000" in logged_in
    assert not any(line.startswith("AUTH") for line in logged_in)


def test_starttls_is_not_offered_where_there_is_no_certificate() -> None:
    client = Client(starttls=False)
    assert not any("STARTTLS" in line for line in client.says("EHLO client.test"))
    assert codes(client.says("STARTTLS")) == ["503 5.5.1"]


def test_a_message_goes_from_the_client_to_submission(client: Client) -> None:
    assert client.says("MAIL FROM:<a@out.test> SIZE=100 BODY=8BITMIME") == ["250 2.1.0 Ok"]
    assert client.says("RCPT TO:<b@in.test>") == ["250 2.1.5 Ok"]
    assert client.says("RCPT TO:<c@in.test>") == ["250 2.1.5 Ok"]
    assert client.says("DATA")[0].startswith("354 ")
    assert client.says(*MESSAGE) == [ACCEPTED]
    assert client.office.submitted == [("a@out.test", ("b@in.test", "c@in.test"), b"Subject: hi\r\n|hello\r\n")]
    [envelope] = client.office.envelopes
    assert (envelope.size, envelope.peer.helo, envelope.peer.esmtp, envelope.peer.tls) == (100, "client.test", True, TLS)
    assert client.says("QUIT") == ["221 2.0.0 Bye"]
    assert client.wire.closed


def test_a_pipelined_message_is_answered_in_order(client: Client) -> None:
    """RFC 2920."""
    replies = client.says("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>", "RCPT TO:<nobody>", "DATA", *MESSAGE, "RSET", "NOOP", "QUIT")
    assert codes(replies) == ["250 2.1.0", "250 2.1.5", "501 5.5.4", "354", "250 2.0.0", "250 2.0.0", "250 2.0.0", "221 2.0.0"]


def test_commands_are_known_in_any_case(client: Client) -> None:
    assert codes(client.says("mail from:<a@out.test>", "Rcpt tO:<b@in.test>", "data")) == ["250 2.1.0", "250 2.1.5", "354"]


NEW, GREETED, SECURED, READY, MAILED, ADDRESSED = "new", "greeted", "secured", "logged in", "MAIL given", "RCPT given"


def in_state(state: str) -> Client:
    client = Client()
    if state == NEW:
        return client
    if state == GREETED:
        return client.ehlo()
    if state == SECURED:
        return client.secure().ehlo()
    client.log_in()
    if state == MAILED:
        client.says("MAIL FROM:<a@out.test>")
    elif state == ADDRESSED:
        client.mail()
    return client


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        ("HELO client.test", ["250"] * 6),
        ("EHLO client.test", ["250"] * 6),
        ("EHLO", ["501 5.5.4"] * 6),
        ("HELO a(b", ["501 5.5.4"] * 6),
        ("STARTTLS", ["220 2.0.0", "220 2.0.0", "503 5.5.1", "503 5.5.1", "503 5.5.1", "503 5.5.1"]),
        ("STARTTLS now", ["501 5.5.4"] * 6),
        ("AUTH", ["503 5.5.1", "501 5.5.4", "501 5.5.4", "503 5.5.1", "503 5.5.1", "503 5.5.1"]),
        ("AUTH LOGIN", ["503 5.5.1", "538 5.7.11", "334", "503 5.5.1", "503 5.5.1", "503 5.5.1"]),
        ("AUTH GSSAPI", ["503 5.5.1", "504 5.5.4", "504 5.5.4", "503 5.5.1", "503 5.5.1", "503 5.5.1"]),
        ("MAIL FROM:<a@b>", ["503 5.5.1", "530 5.7.0", "530 5.7.0", "250 2.1.0", "503 5.5.1", "503 5.5.1"]),
        ("MAIL FROM:<>", ["503 5.5.1", "530 5.7.0", "530 5.7.0", "250 2.1.0", "503 5.5.1", "503 5.5.1"]),
        ("MAIL FROM:a@b", ["503 5.5.1", "530 5.7.0", "530 5.7.0", "501 5.5.4", "503 5.5.1", "503 5.5.1"]),
        ("RCPT TO:<c@in.test>", ["503 5.5.1", "503 5.5.1", "503 5.5.1", "503 5.5.1", "250 2.1.5", "250 2.1.5"]),
        ("RCPT TO:<>", ["503 5.5.1", "503 5.5.1", "503 5.5.1", "503 5.5.1", "501 5.5.4", "501 5.5.4"]),
        ("DATA", ["503 5.5.1", "503 5.5.1", "503 5.5.1", "503 5.5.1", "554 5.5.1", "354"]),
        ("DATA now", ["501 5.5.4"] * 6),
        ("RSET", ["250 2.0.0"] * 6),
        ("NOOP", ["250 2.0.0"] * 6),
        ("NOOP with words", ["250 2.0.0"] * 6),
        ("VRFY root", ["252 2.0.0"] * 6),
        ("HELP", ["214 2.0.0"] * 6),
        ("EXPN list", ["502 5.5.1"] * 6),
        ("TURN", ["502 5.5.1"] * 6),
        ("QUIT", ["221 2.0.0"] * 6),
        ("GET / HTTP/1.1", ["421 4.7.0"] * 6),
        ("", ["500 5.5.1"] * 6),
        ("MÄIL FROM:<a@b>", ["500 5.5.1"] * 6),
    ],
)
def test_each_command_in_each_state(command: str, answers: list[str]) -> None:
    states = (NEW, GREETED, SECURED, READY, MAILED, ADDRESSED)
    for state, answer in zip(states, answers, strict=True):
        client = in_state(state)
        assert codes(client.says(command)) == [answer], state
        assert client.wire.closed == (command in ("QUIT", "GET / HTTP/1.1"))
        assert ("start_tls" in client.wire.calls) == (state not in (NEW, GREETED) or answer == "220 2.0.0")


def test_rset_and_a_new_ehlo_forget_the_transaction_and_keep_the_login(client: Client) -> None:
    for command in ("RSET", "EHLO client.test", "HELO client.test"):
        client.mail()
        client.says(command)
        assert codes(client.says("RCPT TO:<b@in.test>", "DATA")) == ["503 5.5.1", "503 5.5.1"]
    client.data()
    assert client.says(*MESSAGE) == [ACCEPTED]


def test_what_only_asks_changes_no_transaction(client: Client) -> None:
    """HARD-CASES row 6: also where it is refused."""
    client.mail()
    assert codes(client.says("VRFY b@in.test", "EXPN list", "HELP", "NOOP", "VRFY", "FOO", "HELO a(b")) == [
        "252 2.0.0", "502 5.5.1", "214 2.0.0", "250 2.0.0", "252 2.0.0", "500 5.5.1", "501 5.5.4",
    ]  # fmt: skip
    assert codes(client.says("RCPT TO:<c@in.test>", "DATA")) == ["250 2.1.5", "354"]
    client.says(*MESSAGE)
    assert client.office.submitted[0][:2] == ("a@out.test", ("b@in.test", "c@in.test"))


def test_quit_is_heard_at_any_time() -> None:
    for state in (NEW, GREETED, SECURED, READY, MAILED, ADDRESSED):
        client = in_state(state)
        assert client.says("QUIT", "NOOP") == ["221 2.0.0 Bye"], state
        assert client.wire.closed


def test_a_flood_of_bad_recipients_ends_the_session(client: Client) -> None:
    """HARD-CASES row 9."""
    client.says("MAIL FROM:<a@out.test>")
    replies = client.says(*["RCPT TO:<nobody>"] * 100_000)
    assert codes(replies) == ["501 5.5.4"] * MAX_ERRORS + ["421 4.7.0"]
    assert client.wire.closed


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ("SIZE=100000", "250 2.1.0"),
        ("SIZE=100001", "552 5.3.4"),
        ("SIZE=" + "9" * 20, "552 5.3.4"),
        ("SIZE=" + "9" * 21, "501 5.5.4"),
        ("SIZE", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=1x", "501 5.5.4"),
        ("BODY=7bit", "250 2.1.0"),
        ("BODY=9BIT", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("AUTH=<>", "250 2.1.0"),
        ("FUNNY=1", "555 5.5.4"),
        ("FUNNY", "555 5.5.4"),
        ("SIZE=1 SIZE=1", "501 5.5.4"),
        ("=", "501 5.5.4"),
    ],
)
def test_parameters_of_mail(client: Client, parameters: str, answer: str) -> None:
    assert codes(client.says(f"MAIL FROM:<a@out.test> {parameters}")) == [answer]
    following = client.says("RCPT TO:<b@in.test>")
    assert codes(following) == ["250 2.1.5" if answer.startswith("250") else "503 5.5.1"]


def test_unknown_parameters_of_rcpt_are_refused(client: Client) -> None:
    client.mail()
    assert codes(client.says("RCPT TO:<c@in.test> FUNNY=1")) == ["555 5.5.4"]


def test_recipients_over_the_limit_are_for_another_transaction(client: Client) -> None:
    """HARD-CASES row 9: 452 4.5.3 over the limit, and the connection is kept (RFC 5321 section 4.5.3.1.10)."""
    client.says("MAIL FROM:<a@out.test>")
    replies = client.says(*[f"RCPT TO:<u{number}@in.test>" for number in range(150)])
    assert codes(replies) == ["250 2.1.5"] * 100 + ["452 4.5.3"] * 50
    assert codes(client.says("DATA")) == ["354"]
    assert client.says(*MESSAGE) == [ACCEPTED]
    assert len(client.office.submitted[0][1]) == 100


def test_what_submission_refuses_is_answered_in_its_words(client: Client) -> None:
    no = Reply(550, "5.7.1", "Not you")
    client.office.refusals = {"MAIL": no}
    assert client.says("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>") == ["550 5.7.1 Not you", "503 5.5.1 MAIL first"]
    client.office.refusals = {"RCPT c@in.test": no, "DATA": Reply(452, "4.3.1", "Full")}
    client.mail()
    assert client.says("RCPT TO:<c@in.test>", "DATA") == ["550 5.7.1 Not you", "452 4.3.1 Full"]
    client.office.refusals = {}
    assert codes(client.says("DATA")) == ["354"]
    client.says(*MESSAGE)
    assert client.office.submitted[0][1] == ("b@in.test",)


# -- STARTTLS


def test_starttls_forgets_all_that_was_said_in_clear() -> None:
    """RFC 3207 section 4.2, HARD-CASES row 3."""
    office = Office()
    office.in_clear = ("PLAIN",)
    client = Client(office).ehlo()
    client.says(f"AUTH PLAIN {PLAIN}")
    client.mail()
    client.says("RSET")
    assert codes(client.says("STARTTLS")) == ["220 2.0.0"]
    client.session.secured(TLS, no_binding)
    assert client.take() == []
    assert office.logouts == 1
    assert codes(client.says("MAIL FROM:<a@b>", f"AUTH PLAIN {PLAIN}")) == ["503 5.5.1", "503 5.5.1"]
    client.ehlo()
    assert codes(client.says("MAIL FROM:<a@b>", "RCPT TO:<b@b>", "DATA")) == ["530 5.7.0", "503 5.5.1", "503 5.5.1"]


@pytest.mark.parametrize("behind", [b"E", b"EHLO client.test\r\n", b"\r\n", b"MAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\n", b"\x16\x03\x01"])
def test_octets_behind_starttls_drop_the_connection(behind: bytes) -> None:
    """HARD-CASES row 3 (CVE-2011-0411, CVE-2024-34083): nothing sent in clear is taken for encrypted, and no 220 is given."""
    client = Client().ehlo()
    assert client.sends(b"STARTTLS\r\n" + behind) == []
    assert client.wire.calls == ["close"]
    assert client.sends(b"NOOP\r\n") == []


def test_octets_in_front_of_starttls_are_answered_before_it() -> None:
    client = Client()
    assert codes(client.says("EHLO client.test", "STARTTLS")) == ["250", "220 2.0.0"]
    assert client.wire.calls == ["start_tls"]


def test_nothing_is_carried_out_during_the_handshake() -> None:
    client = Client().ehlo()
    client.says("STARTTLS")
    assert client.says("NOOP") == []
    client.session.secured(TLS, no_binding)
    assert codes(client.says("NOOP")) == ["250 2.0.0"]


def test_a_handshake_that_ends_behind_the_session_changes_nothing() -> None:
    client = Client().ehlo()
    client.says("STARTTLS")
    client.session.end(SHUTTING_DOWN)
    client.session.secured(TLS, no_binding)
    assert client.says("EHLO client.test") == []


# -- AUTH


def auth(*lines: str, office: Office | None = None) -> tuple[list[str], Client]:
    client = Client(office).secure().ehlo()
    replies = [reply for line in lines for reply in client.says(line)]
    return replies, client


def cram_answer(challenge: str, token: bytes = TOKEN, user: bytes = USER) -> str:
    assert challenge.startswith("334 ")
    return encoded(user + b" " + hmac.digest(token, b64decode(challenge[4:]), "md5").hex().encode())


SUCCESS = "235 2.7.0 Authentication succeeded"


@pytest.mark.parametrize(
    "lines",
    [
        [f"AUTH PLAIN {PLAIN}"],
        [f"auth plain {PLAIN}"],
        ["AUTH PLAIN", PLAIN],
        ["AUTH PLAIN " + encoded(b"someone\0" + USER + b"\0" + TOKEN)],
        ["AUTH LOGIN", encoded(USER), encoded(TOKEN)],
        ["AUTH LOGIN " + encoded(USER), encoded(TOKEN)],
    ],
)
def test_the_ways_to_log_in(lines: list[str]) -> None:
    replies, client = auth(*lines)
    assert replies[-1] == SUCCESS
    assert all(reply.startswith("334 ") for reply in replies[:-1])
    client.data()
    assert client.says(*MESSAGE) == [ACCEPTED]
    assert client.office.envelopes[0].peer.login == lines[0].split()[1].upper()


def test_login_asks_as_clients_expect() -> None:
    replies, _ = auth("AUTH LOGIN", encoded(USER))
    assert [b64decode(reply[4:]) for reply in replies] == [b"Username:", b"Password:"]
    assert auth("AUTH PLAIN")[0] == ["334 "]


def test_cram_md5_never_sends_the_token() -> None:
    """RFC 2195: a fresh challenge each time, in the form of a message id."""
    [challenge], client = auth("AUTH CRAM-MD5")
    [other], _ = auth("AUTH CRAM-MD5")
    assert challenge != other
    text = b64decode(challenge[4:]).decode()
    assert text.startswith("<")
    assert text.endswith("@mta.test>")
    assert client.says(cram_answer(challenge)) == [SUCCESS]
    assert client.peer.login == "CRAM-MD5"


def test_wrong_credentials_are_told_in_one_way() -> None:
    wrong = [
        ["AUTH PLAIN " + encoded(b"\0nobody\0" + TOKEN)],
        ["AUTH PLAIN " + encoded(b"\0" + USER + b"\0wrong")],
        ["AUTH PLAIN", encoded(b"\0LETTERMINT\0" + TOKEN)],
        ["AUTH LOGIN", encoded(USER), encoded(b"wrong")],
        ["AUTH LOGIN", encoded(b"\xff\0"), encoded(b"\0\r\n")],
    ]
    for lines in wrong:
        replies, client = auth(*lines)
        assert replies[-1:] == INVALID
        assert client.peer.login is None
        assert codes(client.says("MAIL FROM:<a@b>")) == ["530 5.7.0"]
        assert client.says(f"AUTH PLAIN {PLAIN}") == [SUCCESS]
    for token, user in ((b"wrong", USER), (TOKEN, b"nobody")):
        [challenge], client = auth("AUTH CRAM-MD5")
        assert client.says(cram_answer(challenge, token, user)) == INVALID


@pytest.mark.parametrize("mechanism", ["AUTH PLAIN", "AUTH LOGIN", "AUTH CRAM-MD5"])
@pytest.mark.parametrize(
    "response",
    ["", "=", "====", "no base64!", "YQ", "YQ=", "Y", "\xff\xfe", "a b", encoded(b"\0\0"), encoded(b"\0user\0"), "YQ==YQ==", "*" * 2],
)
def test_a_malformed_response_ends_the_exchange(mechanism: str, response: str) -> None:
    """HARD-CASES row 12: 501 or, where it could be a user name, the next question; never a hang, never a cut connection."""
    replies, client = auth(mechanism)
    replies = client.sends(response.encode("latin-1") + b"\r\n")
    if mechanism == "AUTH LOGIN" and response in (encoded(b"\0\0"), encoded(b"\0user\0")):
        assert codes(replies) == ["334"]
        replies = client.says("*")
    assert codes(replies) in (["501 5.5.2"], ["501 5.7.0"])
    assert client.peer.login is None
    assert client.says(f"AUTH PLAIN {PLAIN}") == [SUCCESS]


@pytest.mark.parametrize(
    "command",
    [
        "AUTH PLAIN =",
        "AUTH LOGIN =",
        "AUTH PLAIN no!",
        "AUTH PLAIN  " + PLAIN,
        "AUTH CRAM-MD5 =",
        "AUTH CRAM-MD5 " + PLAIN,
        f"AUTH PLAIN {PLAIN} {PLAIN}",
    ],
)
def test_a_malformed_initial_response_is_refused(command: str) -> None:
    replies, client = auth(command)
    assert codes(replies) == ["501 5.5.2"]
    assert client.says(f"AUTH PLAIN {PLAIN}") == [SUCCESS]


@pytest.mark.parametrize("lines", [["AUTH PLAIN"], ["AUTH LOGIN"], ["AUTH LOGIN", encoded(USER)], ["AUTH CRAM-MD5"]])
def test_an_exchange_can_be_canceled(lines: list[str]) -> None:
    _, client = auth(*lines)
    assert client.says("*") == ["501 5.7.0 Authentication canceled"]
    assert client.peer.login is None
    assert codes(client.says("NOOP", f"AUTH PLAIN {PLAIN}")) == ["250 2.0.0", "235 2.7.0"]


def test_lines_of_an_exchange_end_in_crlf_too() -> None:
    _, client = auth("AUTH PLAIN")
    assert codes(client.sends(PLAIN.encode() + b"\n")) == ["501 5.5.2"]


def test_an_endless_response_is_refused_and_swallowed() -> None:
    """RFC 4954 section 4: responses of up to 12,288 octets; what is longer fails the exchange by 500."""
    _, client = auth("AUTH PLAIN")
    assert codes(client.sends(encoded(b"\0" + USER + b"\0" + b"x" * 9000).encode() + b"\r\n")) == ["535 5.7.8"]
    _, client = auth("AUTH PLAIN")
    assert codes(client.sends(b"x" * 20_000)) == ["500 5.5.6"]
    assert client.sends(b"x" * 20_000) == []
    assert codes(client.sends(b"xx\r\nNOOP\r\n")) == ["250 2.0.0"]
    assert client.peer.login is None
    assert client.says(f"AUTH PLAIN {PLAIN}") == [SUCCESS]


def test_what_may_not_be_said_in_clear_is_named(client: Client) -> None:
    """HARD-CASES row 4."""
    office = Office()
    office.in_clear = ("CRAM-MD5",)
    plain = Client(office).ehlo()
    assert plain.says(f"AUTH PLAIN {PLAIN}") == ["538 5.7.11 Encryption required for this mechanism"]
    assert codes(plain.says("AUTH SCRAM-SHA-1")) == ["504 5.5.4"]
    [challenge] = plain.says("AUTH CRAM-MD5")
    assert plain.says(cram_answer(challenge)) == [SUCCESS]


def test_a_failure_to_check_is_not_the_clients_fault(logged: Sequence[LogEvent]) -> None:
    office = Office()
    office.broken_login = True
    replies, client = auth(f"AUTH PLAIN {PLAIN}", office=office)
    assert replies == ["454 4.7.0 Temporary authentication failure"]
    assert client.peer.login is None
    assert any("could not be checked" in str(formatEvent(event)) for event in logged)


def test_no_secret_is_logged(logged: Sequence[LogEvent]) -> None:
    """HARD-CASES row 12: in no form, also not when something goes wrong."""
    for broken in (False, True):
        office = Office()
        office.broken_login = broken
        for secret in (TOKEN, TOKEN + b"-wrong"):
            plain = encoded(b"\0" + USER + b"\0" + secret)
            for lines in (
                [f"AUTH PLAIN {plain}"],
                ["AUTH PLAIN", plain],
                ["AUTH LOGIN", encoded(USER), encoded(secret)],
                [f"AUTH {plain}"],
                [plain],
            ):
                auth(*lines, office=office)
            [challenge], client = auth("AUTH CRAM-MD5")
            client.says(cram_answer(challenge, secret))
            auth("AUTH PLAIN", plain + "!")
            auth("AUTH PLAIN", plain, "MAIL FROM:" + plain)
    assert logged
    said = " ".join(
        [f"{formatEvent(event)} {event!r} {event.get('log_failure') and event['log_failure'].getTraceback()}" for event in logged]
    )
    for secret in (TOKEN, TOKEN + b"-wrong"):
        whole = encoded(b"\0" + USER + b"\0" + secret)
        for form in (secret.decode(), secret.hex(), encoded(secret), whole, encoded(secret)[4:24], whole[24:44]):
            assert form not in said


def test_the_client_is_logged_out_when_it_goes() -> None:
    client = Client().log_in()
    client.session.lost()
    assert client.office.logouts == 1


def test_a_login_that_succeeds_too_late_is_ended_at_once() -> None:
    client = Client()
    client.office.late = True
    client.secure().ehlo()
    assert client.says(f"AUTH PLAIN {PLAIN}") == []
    client.session.lost()
    client.office.answer()
    assert (client.office.logins, client.office.logouts) == (1, 1)


def test_a_trusted_network_needs_no_login() -> None:
    office = Office()
    office.trusts = True
    client = Client(office).ehlo()
    assert any("SIZE 100000" in line for line in client.says("EHLO client.test"))
    client.data()
    assert client.says(*MESSAGE) == [ACCEPTED]
    assert office.envelopes[0].peer.login is None


# -- lines


def test_an_overlong_line_is_refused_once_and_swallowed(client: Client) -> None:
    """HARD-CASES row 8."""
    assert codes(client.sends(b"NOOP " + b"x" * (MAX_COMMAND - 7) + b"\r\n")) == ["250 2.0.0"]
    assert client.sends(b"NOOP " + b"x" * (MAX_COMMAND - 6) + b"\r\nNOOP\r\n") == ["500 5.5.2 Line too long", "250 2.0.0 Ok"]
    assert client.sends(b"x" * 64_000) == ["500 5.5.2 Line too long"]
    for _ in range(50):
        assert client.sends(b"x" * 64_000) == []
    assert codes(client.sends(b"\r\nNOOP\r\n")) == ["250 2.0.0"]


@pytest.mark.parametrize(
    "line", [b"NOOP\n", b"\n", b"NO\nOP\r\n", b"NOOP\r\r\n", b"NO\rOP\r\n", b"MAIL FROM:<a@out.test>\r\r\n", b"MAIL FROM:<a@out.test>\n"]
)
def test_only_crlf_ends_a_line(client: Client, line: bytes) -> None:
    """RFC 5321 section 2.3.8."""
    first, *_ = client.sends(line)
    assert first == "500 5.5.2 Lines must end in CRLF"
    assert codes(client.says("RCPT TO:<b@in.test>")) == ["503 5.5.1"]


def test_too_many_errors_end_the_session(client: Client) -> None:
    replies = client.says(*["FOO"] * (MAX_ERRORS + 5), "QUIT")
    assert codes(replies) == ["500 5.5.1"] * MAX_ERRORS + ["421 4.7.0"]
    assert client.wire.closed
    assert client.says("NOOP") == []


def test_guessing_tokens_ends_the_session() -> None:
    replies, client = auth(*["AUTH PLAIN " + encoded(b"\0" + USER + b"\0wrong")] * (MAX_ERRORS + 1))
    assert codes(replies) == ["535 5.7.8"] * MAX_ERRORS + ["421 4.7.0"]
    assert client.wire.closed


def test_errors_are_counted_from_the_last_message_on(client: Client) -> None:
    for _ in range(3):
        assert codes(client.says(*["FOO"] * (MAX_ERRORS - 1))) == ["500 5.5.1"] * (MAX_ERRORS - 1)
        client.data()
        client.says(*MESSAGE)
    assert not client.wire.closed


# -- content


@pytest.mark.parametrize("sequence", ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\r\n.\r\r\n", "\r\n.\r\r\n"])
def test_smuggled_commands_are_content_and_the_content_is_refused(client: Client, sequence: str) -> None:
    """HARD-CASES row 1 (CVE-2023-51764/5/6, CVE-2024-27305)."""
    client.data()
    smuggled = (
        "Subject: x\r\n\r\nhello" + sequence + "MAIL FROM:<evil@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nSubject: y\r\n\r\nsmuggled\r\n.\r\n"
    )
    [refused] = client.sends(smuggled.encode())
    assert refused.startswith("550 5.6.0 ")
    assert client.office.submitted == []
    assert client.office.contents[0].discarded
    assert codes(client.says("RCPT TO:<c@in.test>")) == ["503 5.5.1"]


def test_dots_are_unstuffed(client: Client) -> None:
    client.data()
    client.says("Subject: x", "", "..", "...", "..a", ".b", ".")
    assert client.office.submitted[0][2] == b"Subject: x\r\n|.\r\n..\r\n.a\r\nb\r\n"


def test_empty_content_is_content(client: Client) -> None:
    client.data()
    assert client.says(".") == [ACCEPTED]
    assert client.office.submitted[0][2] == b"|"


def test_too_large_content_is_refused_and_the_session_stays_in_step(client: Client) -> None:
    client.data()
    for _ in range(30):
        assert client.sends((b"x" * 998 + b"\r\n") * 10) == []
    assert client.says(".", "NOOP") == ["552 5.3.4 Message larger than the limit", "250 2.0.0 Ok"]
    assert client.office.submitted == []


REFUSALS = {
    "bare LF": ({}, ["bare\nlf", "."], "550 5.6.0"),
    "too large": ({}, [*["x" * 998] * 101, "."], "552 5.3.4"),
    "refused for good": ({"DOT": Reply(550, "5.6.0", "Bad tag")}, MESSAGE, "550 5.6.0"),
    "refused for now": ({"DOT": Reply(452, "4.3.1", "Full")}, MESSAGE, "452 4.3.1"),
    "failed": ({"DOT": RuntimeError("a fault of ours")}, MESSAGE, "451 4.3.0"),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_after_a_refusal_at_the_end_of_data_nothing_is_left(client: Client, why: str) -> None:
    """HARD-CASES row 6: RCPT and DATA are out of order, and the next message starts from nothing."""
    refusals, content, answer = REFUSALS[why]
    client.office.refusals = dict(refusals)
    client.says("MAIL FROM:<first@out.test> SIZE=5 BODY=8BITMIME")
    client.says(*[f"RCPT TO:<u{number}@in.test>" for number in range(100)], "DATA")
    assert codes(client.says(*content)) == [answer]
    assert codes(client.says("DATA", "RCPT TO:<x@in.test>")) == ["503 5.5.1", "503 5.5.1"]
    client.office.refusals = {}
    client.office.submitted.clear()
    client.office.envelopes.clear()
    assert codes(client.says("MAIL FROM:<second@out.test>", "RCPT TO:<y@in.test>", "DATA", *MESSAGE))[-1] == "250 2.0.0"
    assert client.office.submitted == [("second@out.test", ("y@in.test",), b"Subject: hi\r\n|hello\r\n")]
    assert client.office.envelopes[0].size is None


def test_a_lost_connection_leaves_no_content(client: Client) -> None:
    client.data()
    client.sends(b"Subject: half")
    client.session.lost()
    assert client.office.contents[0].discarded
    assert client.office.submitted == []
    assert client.sends(b"\r\n.\r\n") == []


def test_a_connection_lost_while_the_answer_is_awaited_undoes_nothing(client: Client) -> None:
    client.office.late = True
    client.data()
    assert client.says(*MESSAGE) == []
    client.session.lost()
    assert not client.office.contents[0].discarded
    client.office.answer()
    assert client.take() == []


# -- answers that come late


def test_replies_never_overtake_each_other() -> None:
    """TWISTED.md section 1: in twisted.mail a slow RCPT leaks into the next transaction."""
    client = Client()
    client.office.late = True
    client.secure()
    client.ehlo()
    assert client.says(f"AUTH PLAIN {PLAIN}", "MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>", "DATA") == []
    client.office.answer()
    assert codes(client.take()) == ["235 2.7.0", "250 2.1.0", "250 2.1.5", "354"]
    assert client.says(*MESSAGE, "NOOP", "MAIL FROM:<c@out.test>", "FOO", "QUIT") == []
    client.office.answer()
    assert codes(client.take()) == ["250 2.0.0", "250 2.0.0", "250 2.1.0", "500 5.5.1", "221 2.0.0"]
    assert client.wire.closed


def test_a_client_that_floods_while_it_waits_is_read_no_further() -> None:
    client = Client().log_in()
    client.office.late = True
    client.data()
    client.says(*MESSAGE)
    assert not client.wire.paused
    client.sends(b"NOOP\r\n" * (MAX_WAITING // 6 + 1))
    assert client.wire.paused
    client.office.answer()
    assert not client.wire.paused
    assert len(client.take()) == MAX_WAITING // 6 + 2


def test_nothing_is_carried_out_for_a_client_that_does_not_read(client: Client) -> None:
    """HARD-CASES row 8: or replies would pile up in memory, at fifty octets for each one that asks for them."""
    client.session.congested()
    assert client.wire.paused
    assert client.sends(b"NOOP\r\nMAIL FROM:<a@out.test>\r\n") == []
    client.session.relieved()
    assert codes(client.take()) == ["250 2.0.0", "250 2.1.0"]
    assert not client.wire.paused


def test_a_message_whose_answer_comes_while_the_client_does_not_read_is_answered() -> None:
    client = Client().log_in()
    client.office.late = True
    client.data()
    client.says(*MESSAGE)
    client.session.congested()
    client.office.answer()
    assert codes(client.take()) == ["250 2.0.0"]
    assert client.wire.paused
    client.session.relieved()
    assert not client.wire.paused
    assert client.says("NOOP")[-1] == "250 2.0.0 Ok"


def test_content_that_is_slow_to_write_stops_the_reading() -> None:
    client = Client().log_in()
    client.office.slow = True
    client.data()
    assert client.sends(b"Subject: x\r\n\r\n" + b"y" * 100) == []
    assert client.wire.paused
    assert client.sends(b"z" * 100) == []
    client.office.answer()
    assert client.wire.paused
    client.office.answer()
    assert not client.wire.paused
    client.sends(b"\r\n.\r\nNOOP\r\n")
    assert client.office.submitted == []
    client.office.answer()
    assert client.take() == [ACCEPTED, "250 2.0.0 Ok"]
    assert client.office.submitted[0][2] == b"Subject: x\r\n|" + b"y" * 100 + b"z" * 100 + b"\r\n"


def test_content_is_submitted_only_when_it_is_all_written() -> None:
    client = Client().log_in()
    client.office.slow = True
    client.data()
    assert client.says(*MESSAGE, "NOOP") == []
    assert client.office.submitted == []
    client.office.answer()
    assert client.take() == [ACCEPTED, "250 2.0.0 Ok"]


@pytest.mark.parametrize(
    ("error", "answer"),
    [(OSError(28, "No space left on device"), "452 4.3.1"), (Refused(Reply(552, "5.3.4", "Header block too large")), "552 5.3.4")],
)
@pytest.mark.parametrize("at_the_end", [True, False])
def test_content_that_can_not_be_written_is_refused_and_given_up(error: Exception, answer: str, at_the_end: bool) -> None:
    """HARD-CASES row 26."""
    client = Client().log_in()
    client.office.slow = True
    client.data()
    if at_the_end:
        assert client.says(*MESSAGE) == []
        client.office.answer(error)
        replies = client.take()
    else:
        assert client.sends(b"Subject: x\r\n\r\n" + b"y" * 100) == []
        client.office.answer(error)
        assert client.take() == []
        replies = client.says("more", ".")
    assert codes(replies) == [answer]
    assert client.office.contents[0].discarded
    assert client.office.submitted == []
    assert codes(client.says("DATA", "NOOP")) == ["503 5.5.1", "250 2.0.0"]


def test_a_connection_lost_while_content_is_written_leaves_none() -> None:
    client = Client().log_in()
    client.office.slow = True
    client.data()
    client.says(*MESSAGE)
    client.session.lost()
    assert client.office.contents[0].discarded
    client.office.answer()
    assert client.office.submitted == []


# -- ending


def test_ending_tells_why_and_closes_once(client: Client) -> None:
    client.session.end(SHUTTING_DOWN)
    assert client.take() == ["421 4.3.2 Shutting down, try again later"]
    assert client.wire.closed
    client.session.end(SHUTTING_DOWN)


def test_a_session_is_busy_while_a_message_is_in_hand(client: Client) -> None:
    assert not client.session.busy
    client.mail()
    assert not client.session.busy
    client.office.late = True
    client.says("DATA")
    assert client.session.busy
    client.says(*MESSAGE)
    assert client.session.busy
    client.office.answer()
    assert not client.session.busy
