"""What becomes of what comes back: events with all that events of the message have, once, and durable before the answer."""

from __future__ import annotations

import os
import quopri
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lettermta import event, metrics
from lettermta.delivery.classes import Classifier
from lettermta.delivery.returns import desk as desk_module
from lettermta.delivery.returns.desk import LOOK_AGAIN_SECONDS, WAIT_SECONDS, DeskRules, ReturnsDesk
from lettermta.delivery.returns.kept import Kept
from lettermta.event import message_event
from lettermta.message import Refused, Reply, new_id
from lettermta.testing.spool import MemorySpool
from tests.delivery.test_return_path import NOW, Site

from .test_recognise import octets

FBL = "fbl@bounces.test"
JANE = "jane@example.com"
CONTEXT = {"scope": "project", "team_id": None, "project_id": "p1", "route_id": "r1", "project": "demo", "route": "outgoing"}


def threaded(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """What the daemon does in a thread."""
    return maybeDeferred(function, *arguments)


class Desk:
    """A desk, and messages whose events are in the outbox and that have left the spool."""

    def __init__(self, state_dir: Path) -> None:
        self.site = Site(state_dir)
        self.spool = MemorySpool()
        self.clock = Clock()
        self.kept = Kept(state_dir / "returns", most=3)
        rules = DeskRules(frozenset({FBL}), per_address=8, per_minute=12)
        self.desk = ReturnsDesk(
            rules, self.site.paths, self.spool, Classifier().classify, self.kept, self.clock, threaded, lambda: self.site.time
        )

    def close(self) -> None:
        self.site.directory.close()
        self.site.store.close()

    def sent(self, recipient: str = JANE, *, to: str | None = None, recorded: bool = True) -> tuple[str, str]:
        """A message that was sent to ``recipient``; returns its id and its return path."""
        identifier = new_id()
        facts = orjson.dumps(
            {"message_id": identifier, "subject": "Your order", "metadata": {"order_id": "1"}, "tag": "orders", "tags": [], "headers": []}
        )
        self.facts, self.context = facts, orjson.dumps(CONTEXT)
        created = {"from": {"email": "shop@shop.test", "name": ""}, "to": [to or recipient], "cc": [], "bcc": [], "reply_to": []}
        self.tell(identifier, event.CREATED, **created)
        if recorded:
            self.tell(identifier, event.SENT, recipient=recipient)
            self.tell(identifier, event.DELIVERED, recipient=recipient, response=event.response(Reply(250, "2.0.0", "OK")))
        return identifier, self.site.paths.address(identifier, recipient, "rp.shop.test")

    def tell(self, identifier: str, name: str, **data: Any) -> None:
        self.spool.tell([message_event(name, NOW, identifier, self.facts, self.context, **data)])

    def take(self, name: str | bytes, address: str, sender: str = "") -> Deferred[None]:
        self.desk.check("192.0.2.1", address)
        return self.desk.take(sender, [address], octets(name) if isinstance(name, str) else name)

    def told(self, identifier: str) -> list[event.Event]:
        """The events of a message behind those of its sending, and what is told besides."""
        names = (event.CREATED, event.SENT, event.DELIVERED)
        return [one for _, one in self.spool.outbox if one.message_id == identifier and one.name not in names]

    @property
    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.kept.folder.glob("*"))]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def result(taken: Deferred[None]) -> None:
    outcome: list[Any] = []
    taken.addBoth(outcome.append)
    assert outcome, "it still waits"
    if outcome[0] is not None:
        outcome[0].raiseException()


def messages(told: list[event.Event]) -> list[str]:
    return [one.name for one in told if one.name.startswith("message.")]


def test_a_failure_days_later_is_a_hard_bounce_with_all_that_the_message_had(desk: Desk) -> None:
    identifier, path = desk.sent()
    desk.site.time += 5 * 86_400
    result(desk.take("postfix", path))
    [bounced] = [one for one in desk.told(identifier) if one.name == "message.hard_bounced"]
    assert (bounced.data["message_id"], bounced.data["recipient"]) == (identifier, JANE)
    assert (bounced.data["tag"], bounced.data["metadata"], bounced.data["subject"]) == ("orders", {"order_id": "1"}, "Your order")
    assert bounced.context == CONTEXT
    assert bounced.data["response"] == {
        "status_code": 550,
        "enhanced_status_code": "5.1.1",
        "content": "<jane@example.com>: Recipient address rejected: User unknown in virtual mailbox table",
    }
    assert (bounced.data["classification"], bounced.data["reported_by"]) == ("invalid_recipient", "mx.example.org")
    assert "from" not in bounced.data
    assert bounced.created == desk.site.time


def test_the_recipient_is_found_whether_its_sending_is_on_record_or_not(desk: Desk) -> None:
    identifier, path = desk.sent("ann@example.com", to="list@example.com")
    result(desk.take("qmail", path))
    assert desk.told(identifier)[0].data["recipient"] == "ann@example.com"


@pytest.mark.parametrize(
    ("name", "told", "data"),
    [
        ("postfix-delay", "message.soft_bounced", {"classification": "network", "response": 450}),
        ("exim-old", "message.hard_bounced", {"classification": "invalid_recipient", "response": 550}),
        ("postfix-expired", "message.hard_bounced", {"classification": "expired", "response": 450}),
        ("complaint", "message.spam_complaint", {"feedback_type": "abuse", "reported_by": "SomeGenerator/1.0"}),
        ("vacation", "message.auto_replied", {"reported_by": None}),
    ],
)
def test_each_kind_has_its_event(desk: Desk, name: str, told: str, data: dict[str, object]) -> None:
    identifier, path = desk.sent()
    result(desk.take(name, path))
    assert messages(desk.told(identifier)) == [told]
    found = desk.told(identifier)[0].data
    shown = {key: found[key]["status_code"] if key == "response" else found[key] for key in data}
    assert shown == data
    assert not desk.files


def test_a_success_that_was_asked_for_tells_nothing_new(desk: Desk) -> None:
    identifier, path = desk.sent()
    result(desk.take("two-recipients", path))
    assert not desk.told(identifier)


def test_dead_addresses_and_complaints_are_suppressed_in_the_same_commit(desk: Desk) -> None:
    for name, reason in (("qmail", "hard_bounce"), ("complaint", "spam_complaint")):
        _, path = desk.sent(f"{reason}@example.com")
        result(desk.take(name, path))
        added = [one.data for _, one in desk.spool.outbox if one.name == "suppression.added"][-1]
        assert (added["value"], added["reason"]) == (f"{reason}@example.com", reason)
    before = len(desk.spool.outbox)
    for name in ("postfix-expired", "exim-modern", "vacation", "general"):
        result(desk.take(name, desk.sent(f"{name}@example.com")[1]))
    assert not [one for _, one in desk.spool.outbox[before:] if one.name == "suppression.added"]


def test_what_comes_again_is_told_once(desk: Desk) -> None:
    """Whoever got a message has its return path, and must not be able to flood anybody with events."""
    identifier, path = desk.sent()
    for name in ("postfix", "qmail", "complaint", "complaint", "vacation", "out-of-office"):
        result(desk.take(name, path))
    assert messages(desk.told(identifier)) == ["message.hard_bounced", "message.spam_complaint", "message.auto_replied"]


def test_two_at_once_are_told_once(desk: Desk) -> None:
    identifier, path = desk.sent()
    waiting: list[Deferred[None]] = []
    message = desk.spool.message

    def slow(identifier: str) -> Deferred[Any]:
        held: Deferred[None] = Deferred()
        waiting.append(held)
        return held.addCallback(lambda _: message(identifier))

    desk.spool.message = slow  # type: ignore[method-assign]
    taken = [desk.take("postfix", path), desk.take("postfix", path)]
    while waiting:
        waiting.pop(0).callback(None)
    for one in taken:
        result(one)
    assert messages(desk.told(identifier)) == ["message.hard_bounced"]


def test_delays_are_told_a_bounded_number_of_times(desk: Desk) -> None:
    identifier, path = desk.sent()
    for minute in range(3):
        desk.clock.advance(60 * minute)
        for _ in range(6):
            result(desk.take("postfix-delay", path))
    assert messages(desk.told(identifier)) == ["message.soft_bounced"] * 10


def test_a_report_waits_for_the_attempt_that_it_is_about(desk: Desk) -> None:
    """Another server may answer before what it took is on record here: the events are in the order of what happened."""
    identifier, path = desk.sent(recorded=False)
    taken = desk.take("postfix", path)
    desk.clock.advance(LOOK_AGAIN_SECONDS)
    assert not desk.told(identifier)
    desk.tell(identifier, event.SENT, recipient=JANE)
    desk.clock.advance(LOOK_AGAIN_SECONDS)
    result(taken)
    assert messages(desk.told(identifier)) == ["message.hard_bounced"]


def test_it_does_not_wait_for_ever_nor_keep_others_waiting(desk: Desk) -> None:
    identifier, path = desk.sent(recorded=False)
    other, others_path = desk.sent("ann@example.com")
    taken = desk.take("postfix", path)
    result(desk.take("postfix", others_path))
    assert desk.told(other)
    for _ in range(int(WAIT_SECONDS / LOOK_AGAIN_SECONDS)):
        desk.clock.advance(LOOK_AGAIN_SECONDS)
    result(taken)
    assert messages(desk.told(identifier)) == ["message.hard_bounced"]


# -- what is kept


def test_what_is_unrecognised_is_kept_for_people_to_see(desk: Desk) -> None:
    identifier, path = desk.sent()
    result(desk.take("person", path, sender=JANE))
    assert not desk.told(identifier)
    [kept] = desk.files
    assert kept == f"X-Lettermta-Kept: for message {identifier}\r\n".encode() + octets("person")
    [file] = desk.kept.folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert desk.kept.folder.stat().st_mode & 0o777 == 0o700


def test_the_oldest_of_what_is_kept_is_forgotten(desk: Desk) -> None:
    for number in range(5):
        result(desk.take(b"Subject: %d\r\n\r\n" % number, desk.sent()[1]))
    assert [kept.partition(b"Subject: ")[2][:1] for kept in desk.files] == [b"2", b"3", b"4"]


def test_a_message_that_nothing_is_known_of_is_kept(desk: Desk) -> None:
    path = desk.site.paths.address(new_id(), JANE, "rp.shop.test")
    result(desk.take("postfix", path))
    assert b"nothing is known of message" in desk.files[0]


# -- complaints to an address of their own


@pytest.mark.parametrize("name", ["complaint", "complaint-attached"])
def test_a_complaint_is_known_by_the_return_path_in_it(desk: Desk, name: str) -> None:
    identifier, path = desk.sent()
    result(desk.take(octets(name).replace(b"RETURN", path.encode()), FBL, sender="feedback@provider.test"))
    assert messages(desk.told(identifier)) == ["message.spam_complaint"]


def test_a_complaint_may_have_the_return_path_in_what_is_encoded(desk: Desk) -> None:
    """Such an address is longer than the lines of quoted-printable have room for."""
    identifier, path = desk.sent()
    field, encoding = f"Return-Path: <{path}>\n".encode(), b"message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n"
    whole = octets("complaint").replace(b"message/rfc822\r\n\r\n", encoding + b"\r\n" + quopri.encodestring(field).replace(b"\n", b"\r\n"))
    assert path.encode() not in whole
    result(desk.take(whole, FBL, sender="feedback@provider.test"))
    assert messages(desk.told(identifier)) == ["message.spam_complaint"]


def test_a_complaint_about_nothing_of_ours_is_kept_and_so_is_what_is_none(desk: Desk) -> None:
    identifier, path = desk.sent()
    result(desk.take("complaint", FBL))
    result(desk.take(octets("qmail").replace(b"return@rp.shop.test", path.encode()), "FBL@Bounces.test"))
    assert not desk.told(identifier)
    assert len(desk.files) == 2


# -- who may send


def refused(desk: Desk, address: str, client: str = "192.0.2.1") -> Reply:
    with pytest.raises(Refused) as caught:
        desk.desk.check(client, address)
    return caught.value.reply


def test_nobody_else_takes_anything(desk: Desk) -> None:
    """No backscatter and no open relay: HARD-CASES row 25."""
    path = desk.sent()[1]
    for address in ("postmaster@rp.shop.test", "jane@example.com", "b@rp.shop.test", path.replace("@", ".@"), f"x{path}"):
        assert str(refused(desk, address)) == "550 5.1.1 No such address here"
    desk.site.time += 8 * 86_400
    assert str(refused(desk, path)) == "550 5.1.1 This return path is no longer in force"


def test_how_much_comes_in_a_minute_is_bounded(desk: Desk) -> None:
    path = desk.sent()[1]
    for _ in range(8):
        desk.desk.check("192.0.2.1", path)
    assert refused(desk, path).code == 450
    for _ in range(4):
        desk.desk.check("192.0.2.2", path)
    assert refused(desk, path, "192.0.2.3").code == 450
    desk.clock.advance(60)
    desk.desk.check("192.0.2.1", path)


class Failing(SynchronousTestCase):
    """The disk fails: the other side keeps what it has."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.desk = Desk(folder)
        self.addCleanup(self.desk.close)

    def assert_put_off(self, taken: Deferred[None]) -> None:
        assert str(self.failureResultOf(taken, Refused).value.reply).startswith("451 4.3.0")
        assert self.flushLoggedErrors(OSError)

    def test_what_can_not_be_told_is_put_off_and_told_when_it_comes_again(self) -> None:
        identifier, path = self.desk.sent()
        self.desk.spool.broken = OSError("no space")
        self.assert_put_off(self.desk.take("postfix", path))
        assert not self.desk.told(identifier)
        self.desk.spool.broken = None
        self.successResultOf(self.desk.take("postfix", path))
        assert messages(self.desk.told(identifier)) == ["message.hard_bounced"]

    def test_a_fault_of_ours_in_reading_a_message_keeps_it_instead_of_having_it_sent_for_days(self) -> None:
        path = self.desk.sent()[1]
        for name in ("parse", "recognise"):
            patch = self.patch(desk_module, name, lambda *_: 1 / 0)
            self.successResultOf(self.desk.take("postfix", path))
            patch.restore()
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 2
        assert len(self.desk.files) == 2

    def test_what_can_not_be_kept_is_put_off(self) -> None:
        self.desk.kept.folder.write_text("in the way")
        self.assert_put_off(self.desk.take("person", self.desk.sent()[1], sender=JANE))


def test_what_came_back_is_counted(desk: Desk) -> None:
    before = {kind: metrics.RETURNS[kind]._value.get() for kind in ("failed", "repeated", "arrived", "unrecognised", "complaint")}
    path = desk.sent()[1]
    for name in ("postfix", "qmail", "two-recipients", "complaint"):
        result(desk.take(name, path))
    result(desk.take("person", path, sender=JANE))
    grown = {kind: metrics.RETURNS[kind]._value.get() - count for kind, count in before.items()}
    assert grown == {"failed": 1, "repeated": 1, "arrived": 1, "unrecognised": 1, "complaint": 1}
    assert os.path.isdir(desk.kept.folder)
