"""Idempotency-Key over SMTP: what comes again is answered again and queued once (COMPATIBILITY.md section 1)."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent

from lettermta.submission.idempotency import LIFETIME
from tests.smtp.server_peer import Client, codes
from tests.submission.conftest import HEAD, Site, Wall
from tests.test_counts import grown

OTHER = "550 5.6.0 Idempotency-Key: the key was used for another message"
LATER = "451 4.3.0 Idempotency-Key: a message with this key is being stored, try again later"


def keyed(body: str = "hello\n", key: str = "order-1") -> str:
    return f"Idempotency-Key: {key}\n{HEAD}\n{body}"


def send(site: Site, client: Client, content: str, *recipients: str, sender: str = "a@out.test") -> str:
    client.says(f"MAIL FROM:<{sender}>", *[f"RCPT TO:<{one}>" for one in recipients or ("b@in.test",)], "DATA")
    [reply] = client.sends(content.replace("\n", "\r\n").encode() + b".\r\n") or ["nothing yet"]
    return reply


def test_the_same_message_gets_the_first_answer_again_and_is_queued_once(site: Site) -> None:
    with grown() as growth:
        first = site.submit(keyed())
        again = site.submit(keyed())
        elsewhere = site.submit(keyed(), client=site.logged_in())
    assert first.startswith("250 2.0.0 Ok: queued as ")
    assert first == again == elsewhere
    assert len(site.stored) == 1
    assert [event.name for event in site.events] == ["message.created"]
    assert growth["lettermta_messages_accepted_total"] == 1
    assert growth["lettermta_messages_repeated_total"] == 2


def test_the_key_does_not_leave(site: Site) -> None:
    assert b"Idempotency" not in site.accepted(keyed()).content


def test_a_header_that_changes_by_itself_makes_no_other_message(site: Site) -> None:
    """A client that tries again makes a new Date and a new Message-ID."""
    first = site.submit("Date: Mon, 1 Jan 2024 00:00:00 +0000\nMessage-ID: <1@x>\n" + keyed())
    assert site.submit("Date: Tue, 2 Jan 2024 00:00:00 +0000\nMessage-ID: <2@x>\n" + keyed()) == first


@pytest.mark.parametrize("change", ["body", "recipient", "more recipients", "sender"])
def test_another_message_under_the_same_key_is_refused_for_good(site: Site, change: str) -> None:
    client = site.logged_in()
    assert send(site, client, keyed()).startswith("250 ")
    with grown() as growth:
        if change == "body":
            assert send(site, client, keyed("hello!\n")) == OTHER
        elif change == "recipient":
            assert send(site, client, keyed(), "c@in.test") == OTHER
        elif change == "more recipients":
            assert send(site, client, keyed(), "b@in.test", "c@in.test") == OTHER
        else:
            assert send(site, client, keyed(), sender="z@out.test") == OTHER
    assert len(site.stored) == 1
    assert growth["lettermta_messages_refused_total cause=idempotency"] == 1
    assert codes(client.says("DATA")) == ["503 5.5.1"]
    assert send(site, client, keyed()).startswith("250 ")


def test_the_order_of_recipients_makes_no_other_message(site: Site) -> None:
    client = site.logged_in()
    assert send(site, client, keyed(), "b@in.test", "c@in.test") == send(site, client, keyed(), "c@in.test", "b@in.test")


def test_each_key_and_each_project_stand_for_themselves(site: Site) -> None:
    first = site.submit(keyed())
    assert site.submit(keyed(key="order-2")) != first
    assert site.submit(keyed(key="ORDER-1")) != first
    site.accounts.create_project("other")
    _, secret = site.accounts.create_token("other")
    client = site.client().secure().ehlo()
    client.says(site.plain(secret))
    foreign = site.submit(keyed("something else\n"), client=client)
    assert foreign.startswith("250 ")
    assert len(site.stored) == 4


def test_without_a_key_everything_is_new(site: Site) -> None:
    assert site.submit(HEAD + "\nhello\n") != site.submit(HEAD + "\nhello\n")
    assert len(site.stored) == 2


def test_a_key_expires_after_a_day(site: Site, wall: Wall) -> None:
    first = site.submit(keyed())
    wall.moment += LIFETIME - 1
    assert site.submit(keyed()) == first
    wall.moment += 1
    again = site.submit(keyed("another\n"))
    assert again.startswith("250 ")
    assert again != first
    assert site.submit(keyed("another\n")) == again


class Storing:
    """A spool that has yet to finish storing."""

    def __init__(self, site: Site) -> None:
        self._store = site.spool.store
        self.waiting: list[Deferred[None]] = []
        site.spool.store = self.store  # type: ignore[method-assign]

    def store(self, message, events):  # type: ignore[no-untyped-def]
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: self._store(message, events))


def test_while_the_first_is_being_stored_the_second_is_put_off(site: Site) -> None:
    storing = Storing(site)
    first, second = site.logged_in(), site.logged_in()
    assert send(site, first, keyed()) == "nothing yet"
    with grown() as growth:
        assert send(site, second, keyed()) == LATER
        assert send(site, second, keyed("another body\n")) == LATER
    assert growth["lettermta_messages_refused_total cause=idempotency"] == 2
    assert send(site, second, keyed(key="another")) == "nothing yet"
    for done in storing.waiting:
        done.callback(None)
    [reply] = first.take()
    second.take()
    assert send(site, second, keyed()) == reply
    assert len(site.stored) == 2


def test_a_client_that_left_before_the_answer_gets_it_when_it_comes_back(site: Site) -> None:
    """What the key is for: nobody knows whether the message was taken."""
    storing = Storing(site)
    client = site.logged_in()
    assert send(site, client, keyed()) == "nothing yet"
    client.session.lost()
    storing.waiting.pop().callback(None)
    assert site.submit(keyed(), client=site.logged_in()) == f"250 2.0.0 Ok: queued as {site.stored[0].message.id}"
    assert len(site.stored) == 1


def test_a_message_that_could_not_be_stored_leaves_its_key_free(site: Site, logged: list[LogEvent]) -> None:
    site.spool.broken = OSError(28, "No space left on device")
    with grown() as growth:
        assert site.submit(keyed()).startswith("452 4.3.1 ")
    assert growth["lettermta_messages_refused_total cause=storage"] == 1
    site.spool.broken = None
    assert site.submit(keyed("another\n")).startswith("250 ")


@pytest.mark.parametrize("refused", ["X-Tag: bad,\n", "X-Lettermint-Route: none\n", "From: b@out.test\n"])
def test_a_message_that_was_refused_leaves_its_key_free(site: Site, refused: str) -> None:
    assert site.submit(refused + keyed()).startswith("550 ")
    assert site.submit(keyed("another\n")).startswith("250 ")


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "=?utf-8?Q?" + "k" * 60 + "?=" + " " + "k" * 200])
def test_a_key_has_1_to_255_characters(site: Site, key: str) -> None:
    assert site.submit(keyed(key=key)) == "550 5.6.0 Idempotency-Key: an idempotency key has 1 to 255 characters"
    assert site.stored == []


@pytest.mark.parametrize("key", ["k", "k" * 255, "a key: with; everything'--\"", "=?utf-8?Q?sch=C3=B6n?=", "\n folded"])
def test_a_key_is_text_of_any_sort(site: Site, key: str) -> None:
    """HARD-CASES rows 32 and 34: decoded first, compared then, and never a part of a statement."""
    assert site.submit(keyed(key=key)) == site.submit(keyed(key=key))
    assert len(site.stored) == 1


def test_of_several_keys_the_last_counts(site: Site) -> None:
    first = site.submit("Idempotency-Key: x\n" + keyed(key="y"))
    assert site.submit(keyed(key="y")) == first
    assert site.submit(keyed(key="x")) != first


def test_a_repeated_message_needs_a_token_that_is_still_good(site: Site) -> None:
    client = site.logged_in()
    send(site, client, keyed())
    client.data()
    site.accounts.update_project("demo", lambda project: evolve(project, smtp=False))
    assert codes(client.sends(keyed().replace("\n", "\r\n").encode() + b".\r\n")) == ["535 5.7.8"]


def test_content_of_a_repetition_is_given_up(site: Site) -> None:
    made = []
    real = site.spool.content
    site.spool.content = lambda: [made.append(real()), made[-1]][1]  # type: ignore[method-assign,func-returns-value]
    for content in (keyed(), keyed(), keyed("other\n")):
        site.submit(content)
    assert [bool(one.size) for one in made] == [True, False, False]
