"""However a dialogue is split over reads, and however late the answers come, it is the same dialogue.

Each recorded dialogue is a list of flights; between two of them lies a TLS handshake, since octets that come with STARTTLS in one read
are an attack, and no part of a dialogue.
"""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lettermta.message import Reply
from lettermta.smtp.channel_binding import no_binding
from lettermta.smtp.session import MAX_COMMAND, MAX_ERRORS
from tests.smtp.server_peer import PLAIN, TLS, TOKEN, USER, Client, Office

LOGIN = [b"EHLO client.test\r\nSTARTTLS\r\n", f"EHLO client.test\r\nAUTH PLAIN {PLAIN}\r\n".encode()]
MAIL = b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\n"
USERNAME, PASSWORD = b64encode(USER), b64encode(TOKEN)


def logged_in(*parts: bytes) -> list[bytes]:
    return [LOGIN[0], LOGIN[1] + b"".join(parts)]


OPEN = b"MAIL FROM:<a@out.test>\r\nRCPT TO:<b@in.test>\r\n"


def chunk(octets: bytes, last: bytes = b"") -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(octets), last, octets)


SMUGGLED = b"MAIL FROM:<evil@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nsmuggled\r\n.\r\n"

DIALOGUES: dict[str, list[bytes]] = {
    "two messages": logged_in(MAIL, b"Subject: 1\r\n\r\nhello\r\n.\r\n", MAIL, b"Subject: 2\r\n\r\n..\r\n.\r\nQUIT\r\n"),
    "dots": logged_in(MAIL, b"..\r\n...\r\n.a\r\n\r\n..\r\n.\r\n", MAIL, b".\r\n", MAIL, b"\r\n.\r\n", MAIL, b"a\r\n\r\n.\r\nNOOP\r\n"),
    "smuggling by LF": logged_in(MAIL, b"x\n.\n", SMUGGLED, MAIL, b"x\n.\r\n", SMUGGLED, MAIL, b"x\r\n.\n", SMUGGLED, b"NOOP\r\n"),
    "smuggling by CR": logged_in(
        MAIL, b"x\r.\r", SMUGGLED, MAIL, b"x\r\r\n.\r\r\n", SMUGGLED, MAIL, b"x\r\n.\r\r\n", SMUGGLED, b"NOOP\r\n"
    ),
    "every sort of AUTH": [
        b"EHLO a\r\nAUTH PLAIN x\r\nSTARTTLS\r\n",
        b"AUTH PLAIN\r\nEHLO a\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN\r\n" + USERNAME + b"\r\nwrong\r\nAUTH\r\nAUTH LOGIN " + USERNAME + b"\r\n"
        b"dGVzdA==\r\nAUTH PLAIN =\r\nAUTH PLAIN\r\n=\r\nAUTH PLAIN\r\n" + b"x" * 13_000 + b"\r\nAUTH LOGIN\r\n" + USERNAME + b"\n"
        b"AUTH LOGIN\r\n" + USERNAME + b"\r\n" + PASSWORD + b"\r\nAUTH LOGIN\r\nMAIL FROM:<a@b>\r\nAUTH PLAIN x\r\n",
    ],
    "broken lines": logged_in(
        b"NOOP\nNOOP\r\n", b"x" * MAX_COMMAND + b"\r\nNO\rOP\r\n\r\n\n\r\n", b"y" * 5000 + b"\nNOOP\r\nQUIT\r\nNOOP\r\n"
    ),
    "too many errors": logged_in(b"FOO\r\n" * MAX_ERRORS, MAIL, b"hello\r\n.\r\n"),
    "too large": logged_in(
        MAIL, (b"x" * 76 + b"\r\n") * 1400, b".\r\nNOOP\r\n", MAIL, (b"x" * 76 + b"\r\n") * 1400, b"\n\r\n.\r\nNOOP\r\n"
    ),
    "refused at the end": logged_in(
        b"MAIL FROM:<bad@out.test>\r\nRCPT TO:<b@in.test>\r\nDATA\r\nx\r\n.\r\nRCPT TO:<b@in.test>\r\n", MAIL, b"x\r\n.\r\n"
    ),
    "out of order": logged_in(
        b"DATA\r\nRCPT TO:<b@c>\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRSET\r\n", MAIL, b"a\r\n.\r\nSTARTTLS\r\nQUIT\r\n"
    ),
    "no end": logged_in(MAIL, b"Subject: half\r\n.\r"),
    "chunks": logged_in(
        OPEN, chunk(b"Subject: 1\r\n\r"), chunk(b"\nhello\r\n.\r\nQUIT\r\n"), chunk(b""), b"BDAT 0 LAST\r\n",
        OPEN, chunk(b"Subject: 2\r\n\r\n" + b"x" * 40 + b"\r\n", b" LAST"), b"NOOP\r\n",
        b"MAIL FROM:<a@out.test> BODY=BINARYMIME\r\nRCPT TO:<b@in.test>\r\nDATA\r\n", chunk(b"a: b\r\n\r\n\r\r\n\n.\n", b" LAST"),
        OPEN, chunk(b"a: b\r\n\r\n") * 20, b"BDAT 0 LAST\r\nQUIT\r\n",
    ),
    "chunks refused": logged_in(
        chunk(b"NOOP\r\n"), b"MAIL FROM:<a@out.test>\r\n", chunk(b"NOOP\r\nNOOP\r\n", b" LAST"), chunk(b"QUIT\r\n", b" LAST"),
        OPEN, chunk(b"a: b\r\n\r\nbare\n"), SMUGGLED[:-13], chunk(b"QUIT\r\n", b" LAST"),
        OPEN, chunk(b"a: b\r\n\r\nbare\r"), b"DATA\r\nRCPT TO:<c@in.test>\r\n", chunk(b"\r\n.\r\n", b" LAST"),
        OPEN, chunk(b"a: b\r\n\r\n" + b"x" * 60_000), chunk(b"NOOP\r\n" * 10_000), chunk(b"QUIT\r\n", b" LAST"),
        b"NOOP\r\nBDAT x\r\nQUIT\r\n",
    ),
}  # fmt: skip


class PickyOffice(Office):
    """Refuses one sender's messages."""

    def answers(self, step: str, reply: Reply):  # type: ignore[no-untyped-def]
        refused = {"DOT": Reply(550, "5.6.0", "No")} if self.submitted[-1][0] == "bad@out.test" else {}
        self.refusals = dict(refused)
        return super().answers(step, reply)


Result = tuple[list[str], list[tuple[str, tuple[str, ...], bytes]], list[str]]


def play(dialogue: list[bytes], cuts: list[int], *, late: bool, slow: bool, patience: int) -> Result:
    """The replies, what was submitted, and what the wire was asked for; with ``patience`` reads before the oldest answer is let through."""
    office = PickyOffice()
    office.late, office.slow = late, slow
    client = Client(office)
    replies: list[str] = []
    for number, flight in enumerate(dialogue):
        if number:
            client.session.secured(TLS, no_binding)
        places = sorted({0, *(cut % len(flight) for cut in cuts), len(flight)})
        for count, (start, end) in enumerate(pairwise(places)):
            replies += client.sends(flight[start:end])
            if office.waiting and count % patience == 0:
                office.answer()
                client.pass_time()
        while office.waiting:
            office.answer()
            client.pass_time()
        replies += client.take()
    assert not client.wire.paused
    calls = list(client.wire.calls)
    client.session.lost()
    accepted = [message for message in office.submitted if message[0] != "bad@out.test"]
    assert all(content.discarded for content in office.contents[len(office.submitted) :])
    return replies, accepted, calls


@cache
def whole(name: str) -> Result:
    """The dialogue in one read a flight, answered at once."""
    return play(DIALOGUES[name], [], late=False, slow=False, patience=1)


def test_the_recorded_dialogues_say_what_they_are_for() -> None:
    """The property below would also hold for a server that does nothing."""
    count = {
        name: (len(accepted), replies[-1][:3], calls) for name, (replies, accepted, calls) in [(name, whole(name)) for name in DIALOGUES]
    }
    both = ["start_tls", "close"]
    assert count == {
        "chunks": (4, "221", both),
        "chunks refused": (0, "421", both),
        "two messages": (2, "221", both),
        "dots": (4, "250", ["start_tls"]),
        "smuggling by LF": (0, "250", ["start_tls"]),
        "smuggling by CR": (0, "250", ["start_tls"]),
        "every sort of AUTH": (0, "503", ["start_tls"]),
        "broken lines": (0, "221", both),
        "too many errors": (0, "421", both),
        "too large": (0, "250", ["start_tls"]),
        "refused at the end": (1, "250", ["start_tls"]),
        "out of order": (1, "221", both),
        "no end": (0, "354", ["start_tls"]),
    }
    for name in ("smuggling by LF", "smuggling by CR"):
        assert [reply[:3] for reply in whole(name)[0]].count("550") == 3
        assert not any("victim" in reply for reply in whole(name)[0])


@pytest.mark.parametrize("name", DIALOGUES)
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 200_000), max_size=30), late=st.booleans(), slow=st.booleans(), patience=st.integers(1, 5))
def test_every_split_is_the_same_dialogue(name: str, cuts: list[int], late: bool, slow: bool, patience: int) -> None:
    assert play(DIALOGUES[name], cuts, late=late, slow=slow, patience=patience) == whole(name)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", [name for name in DIALOGUES if name not in ("too large", "chunks refused")])
def test_octet_by_octet_is_the_same_dialogue(name: str, late: bool) -> None:
    cuts = list(range(max(map(len, DIALOGUES[name]))))
    assert play(DIALOGUES[name], cuts, late=late, slow=late, patience=3) == whole(name)


@pytest.mark.parametrize("name", ["dots", "smuggling by LF", "smuggling by CR", "no end"])
def test_cut_in_two_at_any_place_is_the_same_dialogue(name: str) -> None:
    for cut in range(1, max(map(len, DIALOGUES[name]))):
        assert play(DIALOGUES[name], [cut], late=False, slow=False, patience=1) == whole(name), cut
