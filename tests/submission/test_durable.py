"""Submission into the real spool: what was asked for comes back after a reopening, and so do idempotency keys (issue 3, points 1 and 5)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lettermta.accounts.model import Care, care_of
from lettermta.message import BodyType, DeliverBy, Notify, Options, QueueEntry, State
from lettermta.spool.content import SPILL
from lettermta.spool.store import Spool
from tests.smtp.server_peer import Client
from tests.spool.hand import PATIENCE, Desk
from tests.submission.conftest import HEAD, HELLO, Site

PLAIN = ("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>")
LINE = b"0123456789abcdef" * 4 + b"\r\n"


class DurableSite(Site):
    """A site whose spool is on the disk. ``reopen`` closes all of it and starts again, as a restart does."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.desk = Desk(state_dir / "spool")
        super().__init__(state_dir / "accounts", self.desk.spool)

    def reopen(self) -> None:
        self.desk = self.desk.reopened()
        self.spool = self.desk.spool
        self._submission = None
        self.kept = None

    def close(self) -> None:
        self.desk.close()
        super().close()

    def answers(self, client: Client) -> list[str]:
        """What is answered next, once the spool's threads have done what there is to do."""
        until = time.monotonic() + PATIENCE
        while not client.wire.written:
            assert time.monotonic() < until, "no answer"
            self.desk.reactor.wait(self.spool.advance("test", 0))
        return client.take()

    def send(self, *commands: str, content: str | bytes = HELLO, client: Client | None = None) -> str:
        """A message by the commands in front of DATA; returns the reply at its end."""
        client = client or self.logged_in()
        for reply in client.says(*commands, "DATA"):
            assert reply[:3] in ("250", "354"), reply
        octets = content.encode().replace(b"\n", b"\r\n") if isinstance(content, str) else content
        for start in range(0, len(octets), 65_536):
            client.session.receive(octets[start : start + 65_536])
            while client.wire.paused:
                self.desk.reactor.wait(self.spool.advance("test", 0))
        client.session.receive(b".\r\n")
        [reply] = self.answers(client)
        return reply

    def entries(self, now: float | None = None) -> list[QueueEntry]:
        """All that is due, of every lane."""
        moment = time.time() if now is None else now
        lanes = self.desk.reactor.wait(self.spool.lanes())
        return [entry for lane, _ in lanes for entry in self.desk.reactor.wait(self.spool.due(lane, moment, 100))]


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[DurableSite]:
    (tmp_path / "accounts").mkdir()
    site = DurableSite(tmp_path)
    yield site
    site.close()


def test_the_real_spool_is_meant(durable: DurableSite) -> None:
    assert isinstance(durable.spool, Spool)


def test_what_was_asked_for_comes_back_after_a_reopening(durable: DurableSite) -> None:
    """RFC 3461, 6531, 8689, 2852, 6710: with the message and with each recipient."""
    until = int(time.time()) + 7200
    durable.now = lambda: float(until - 7200)
    reply = durable.send(
        "MAIL FROM:<jürgen@out.test> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=order+2B1 REQUIRETLS BY=7200;RT MT-PRIORITY=-3 SIZE=1000",
        "RCPT TO:<用户@例子.广告> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;jürgen@in.test",
        "RCPT TO:<b@in.test> NOTIFY=NEVER",
        "RCPT TO:<c@in.test>",
    )
    assert reply.startswith("250 ")
    told = durable.desk.entries
    durable.reopen()
    found = durable.entries()
    for entries in (told, found):
        by_domain = {entry.lane.domain: entry for entry in entries}
        assert set(by_domain) == {"例子.广告", "in.test"}
        for entry in by_domain.values():
            assert entry.sender == "jürgen@out.test"
            assert entry.id == reply.rpartition(" ")[2]
            assert entry.options == Options(
                BodyType.EIGHT_BIT, True, "HDRS", "order+1", True, DeliverBy(float(until), bounce=True, trace=True), -3
            )
            assert entry.expires == until
            assert care_of(entry.lane.route_id) is Care.REQUIRE_TLS, "it is not in one lane with mail that may go anywhere"
        [first] = by_domain["例子.广告"].recipients
        assert (first.address, first.notify, first.orcpt) == (
            "用户@例子.广告", frozenset({Notify.SUCCESS, Notify.DELAY}), "utf-8;jürgen@in.test"
        )  # fmt: skip
        assert [(one.address, one.notify, one.orcpt) for one in by_domain["in.test"].recipients] == [
            ("b@in.test", frozenset({Notify.NEVER}), None),
            ("c@in.test", None, None),
        ]


@pytest.mark.parametrize(
    ("parameter", "fields", "care"),
    [
        ("", "TLS-Required: No\n", Care.TLS_NOT_REQUIRED),
        ("", "tls-required:\n no\n", Care.TLS_NOT_REQUIRED),
        ("", "TLS-Required: Yes\n", None),
        ("", "TLS-Required: No\nTLS-Required: No\n", None),
        (" REQUIRETLS", "TLS-Required: No\n", Care.REQUIRE_TLS),
    ],
)
def test_tls_required_no_waives_the_receivers_policies_unless_requiretls_is_given(
    durable: DurableSite, parameter: str, fields: str, care: Care | None
) -> None:
    """RFC 8689 sections 3 (one field, one value) and 4.1. It stays in the message, as the next one on the way is asked as well."""
    assert durable.send(f"MAIL FROM:<a@out.test>{parameter}", "RCPT TO:<b@in.test>", content=fields + HELLO).startswith("250 ")
    [entry] = durable.entries()
    assert care_of(entry.lane.route_id) is care
    assert fields.replace("\n", "\r\n").encode() in durable.desk.content(entry)


def test_a_plain_message_asks_for_nothing(durable: DurableSite) -> None:
    assert durable.send("MAIL FROM:<a@out.test>", "RCPT TO:<b@in.test>").startswith("250 ")
    durable.reopen()
    [entry] = durable.entries()
    assert entry.options == Options()
    assert [(one.notify, one.orcpt) for one in entry.recipients] == [(None, None)]


def test_smtputf8_is_kept_only_where_it_is_needed(durable: DurableSite) -> None:
    """So that ASCII mail of a client that always asks for it can go to servers without the extension."""
    durable.send("MAIL FROM:<a@out.test> SMTPUTF8", "RCPT TO:<b@in.test>")
    durable.send("MAIL FROM:<a@out.test> SMTPUTF8", "RCPT TO:<b@in.test>", content="From: ü@out.test\n\n")
    durable.reopen()
    assert [entry.options.smtputf8 for entry in durable.entries()] == [False, True]


def test_binary_content_comes_back_octet_by_octet(durable: DurableSite) -> None:
    client = durable.logged_in()
    client.says("MAIL FROM:<a@out.test> BODY=BINARYMIME", "RCPT TO:<b@in.test>")
    body = bytes(range(256)) + b"\n.\n\r.\r\r\n.\r\n"
    content = HEAD.encode().replace(b"\n", b"\r\n") + b"\r\n" + body
    client.session.receive(b"BDAT %d LAST\r\n" % len(content) + content)
    assert durable.answers(client)[0].startswith("250 ")
    durable.reopen()
    [entry] = durable.entries()
    assert entry.options.body is BodyType.BINARY
    assert durable.desk.content(entry).endswith(b"\r\n\r\n" + body)


def test_a_held_message_is_scheduled_and_due_when_its_time_has_come(durable: DurableSite) -> None:
    """RFC 4865."""
    now = time.time()
    durable.now = lambda: now
    durable.send("MAIL FROM:<a@out.test> HOLDFOR=3600", "RCPT TO:<b@in.test>")
    durable.reopen()
    [row] = durable.desk.rows()
    assert (row["state"], row["due"]) == (State.SCHEDULED, now + 3600)
    assert durable.entries(now + 3599) == []
    [entry] = durable.entries(now + 3600)
    assert entry.expires == now + 3600 + 432_000
    assert [event.name for _, event in durable.desk.events()] == ["message.created", "message.scheduled"]


@pytest.mark.parametrize("line", [b"X: 1\r\n", b"X: " + b"1" * 990 + b"\r\n", b"x" * 60_000 + b"\r\n"])
def test_a_header_block_without_end_is_refused_before_it_is_kept(durable: DurableSite, line: bytes) -> None:
    """HARD-CASES row 8: 100 MB of header, 100,000 header lines."""
    durable.rules["message_size"] = 200_000_000
    client = durable.logged_in()
    content = line * (100_000 if len(line) < 10 else 100_000_000 // len(line))
    assert durable.send(*PLAIN, content=HEAD.encode().replace(b"\n", b"\r\n") + content, client=client).startswith(
        "552 5.3.4 Header block larger"
    )
    assert client.says("NOOP", "DATA") == ["250 2.0.0 Ok", "503 5.5.1 MAIL first"]
    assert durable.send(*PLAIN, client=client).startswith("250 ")
    assert len(durable.desk.rows()) == 1


# -- idempotency

KEYED = "Idempotency-Key: order-1\n" + HELLO


def large(octets: int, mark: bytes = b"") -> bytes:
    return KEYED.encode().replace(b"\n", b"\r\n") + LINE * (octets // len(LINE)) + mark


def test_a_key_survives_a_restart(durable: DurableSite) -> None:
    """Issue 3, point 5."""
    first = durable.send(*PLAIN, content=KEYED)
    durable.reopen()
    assert durable.send(*PLAIN, content=KEYED) == first
    assert durable.send(*PLAIN, content=KEYED + "more\n") == "550 5.6.0 Idempotency-Key: the key was used for another message"
    assert len(durable.desk.rows()) == 1


def test_a_key_outlives_its_message(durable: DurableSite) -> None:
    """It was delivered meanwhile; the answer is the same."""
    first = durable.send(*PLAIN, content=KEYED)
    [entry] = durable.entries()
    durable.desk.record(entry, State.DELIVERED)
    durable.reopen()
    assert durable.desk.rows() == []
    assert durable.send(*PLAIN, content=KEYED) == first
    assert durable.desk.rows() == []


def test_large_messages_are_told_apart_too(durable: DurableSite) -> None:
    """Their bodies are in files, and what is repeated leaves none behind."""
    durable.rules["message_size"] = 2_000_000
    first = durable.send(*PLAIN, content=large(5 * SPILL))
    assert first.startswith("250 ")
    files = durable.desk.bodies()
    assert len(files) == 1
    assert durable.send(*PLAIN, content=large(5 * SPILL)) == first
    durable.reopen()
    assert durable.send(*PLAIN, content=large(5 * SPILL)) == first
    assert durable.send(*PLAIN, content=large(5 * SPILL, b"x\r\n")).startswith("550 5.6.0 Idempotency-Key")
    durable.reopen()
    assert durable.desk.bodies() == files
    [entry] = durable.entries()
    assert durable.desk.content(entry).endswith(LINE * (5 * SPILL // len(LINE)))


@pytest.mark.parametrize(
    "value",
    ["'; DROP TABLE message; --", '"', "\\", "%s %n {0} {peer}", "../../etc/passwd", "$(reboot)", "`id`", "a\tb", "\u202e", "ü" * 200],
)
def test_what_a_client_says_is_only_ever_data(durable: DurableSite, value: str, tmp_path: Path) -> None:
    """HARD-CASES row 34: nothing of it is taken for SQL, a path, or a form of the log."""
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", " ")
    sender, recipient = f'"{quoted[:60]}"@out.test', f'"{quoted[:60]}"@in.test'
    commands = (f"MAIL FROM:<{sender}> SMTPUTF8 ENVID=x+27+3B", f"RCPT TO:<{recipient}>")
    content = f"X-Metadata-{value}: {value}\nIdempotency-Key: {value}\nX-Lettr-{value}: x\nSubject: {value}\n{HELLO}"
    before = folders(tmp_path)
    reply = durable.send(*commands, content=content)
    assert reply.startswith("250 ")
    assert durable.send(*commands, content=content) == reply
    durable.reopen()
    [entry] = durable.entries()
    assert (entry.sender, entry.recipients[0].address) == (sender, recipient)
    assert entry.options.envid == "x';"
    [row] = durable.desk.rows({"metadata": {value: value}, "sender": sender, "recipient": recipient})
    assert row["metadata"] == {value: value}
    assert folders(tmp_path) == before


def folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_dir())
