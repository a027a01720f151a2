"""What becomes of messages shows in the metrics, each refusal by its cause."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import evolve
from twisted.internet.defer import fail
from twisted.logger import LogEvent

from lettermta.message import Refused, Reply
from lettermta.submission import server
from tests.smtp.server_peer import codes
from tests.submission.conftest import HEAD, HELLO, Site
from tests.test_counts import grown

MESSAGES = "lettermta_messages_"
RECIPIENTS = "lettermta_recipients_accepted_total"


def of_messages(growth: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix(MESSAGES): count for name, count in growth.items() if name.startswith(MESSAGES)}


def test_an_accepted_message_is_counted_with_its_octets_and_recipients(site: Site) -> None:
    with grown() as growth:
        stored = site.accepted(HELLO, "b@in.test", "c@in.test", "b@in.test")
    assert of_messages(growth) == {"accepted_total": 1, "accepted_bytes_total": len(stored.content)}
    assert growth[RECIPIENTS] == 2


def refused(site: Site, content: str | bytes) -> dict[str, float]:
    client = site.logged_in()
    with grown() as growth:
        reply = site.submit(content, client=client)
    assert reply[0] in "45"
    assert growth[f"lettermta_commands_refused_total code={reply[:3]}"] == 1
    assert RECIPIENTS not in growth
    return of_messages(growth)


@pytest.mark.parametrize(
    ("cause", "content"),
    [
        ("size", HELLO + "x" * 300_000 + "\n"),
        ("line_ends", b"From: a@out.test\r\n\r\nbare\nlf\r\n"),
        ("header", "Subject: no author\n\n"),
        ("header", "no header\n\n"),
        ("header", "X-\0: 1\n" + HELLO),
        ("header", HEAD + "X: " + "x" * 998 + "\n\n"),
        ("control_header", "X-LM-Tag: bad,\n" + HELLO),
        ("control_header", "Idempotency-Key:\n" + HELLO),
        ("route", "X-Lettermint-Route: none\n" + HELLO),
        ("loop", "Received: x\n" * 101 + HELLO),
    ],
)
def test_a_refused_message_is_counted_by_its_cause(site: Site, cause: str, content: str | bytes) -> None:
    assert refused(site, content) == {f"refused_total cause={cause}": 1}


def test_a_foreign_sender_is_counted(site: Site) -> None:
    site.accounts.update_project("demo", lambda project: evolve(project, check_sender=True))
    assert refused(site, HELLO) == {"refused_total cause=sender": 1}


def test_a_token_that_was_revoked_meanwhile_is_counted(site: Site) -> None:
    client = site.logged_in().data()
    site.accounts.revoke_token(site.token.id)
    with grown() as growth:
        assert codes(client.sends(b"From: a@out.test\r\n\r\n.\r\n")) == ["535 5.7.8"]
        assert codes(client.says("MAIL FROM:<a@out.test>")) == ["535 5.7.8"]
    assert of_messages(growth) == {"refused_total cause=credentials": 1}


@pytest.mark.parametrize("key", ["", "Idempotency-Key: k\n"])
def test_a_message_that_could_not_be_stored_is_counted(site: Site, key: str, logged: Sequence[LogEvent]) -> None:
    site.spool.broken = OSError(28, "No space left on device")
    assert refused(site, key + HELLO) == {"refused_total cause=storage": 1}


def test_a_fault_of_ours_is_counted_as_such(site: Site, monkeypatch: pytest.MonkeyPatch, logged: Sequence[LogEvent]) -> None:
    monkeypatch.setattr(server, "parse", lambda head, bounds: 1 / 0)
    assert refused(site, HELLO) == {"refused_total cause=local": 1}
    monkeypatch.setattr(server, "parse", _refuse)
    assert refused(site, HELLO) == {"refused_total cause=local": 1}


def _refuse(head: bytes, bounds: object) -> None:
    raise Refused(Reply(550, "5.0.0", "for no reason that has a name"))


def _too_large(data: bytes) -> None:
    raise Refused(Reply(552, "5.3.4", "Header block too large"))


@pytest.mark.parametrize(("cause", "write"), [("storage", lambda data: fail(OSError(28, "No space left on device"))), ("size", _too_large)])
def test_content_that_could_not_be_written_is_counted(site: Site, cause: str, write: object, logged: Sequence[LogEvent]) -> None:
    real = site.spool.content

    def content() -> object:
        made = real()
        made.write = write
        return made

    site.spool.content = content  # type: ignore[method-assign,assignment]
    assert refused(site, HELLO) == {f"refused_total cause={cause}": 1}


def test_a_size_that_was_declared_is_no_message_yet(site: Site) -> None:
    client = site.logged_in()
    with grown() as growth:
        assert codes(client.says("MAIL FROM:<a@out.test> SIZE=300001")) == ["552 5.3.4"]
    assert of_messages(growth) == {}
