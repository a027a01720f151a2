"""From verdicts to outcomes and events (COMPATIBILITY.md section 3)."""

from __future__ import annotations

from lettermta.delivery.classes import Classifier
from lettermta.delivery.judge import judge
from lettermta.delivery.schedule import Schedule
from lettermta.message import Lane, Options, QueuedRecipient, QueueEntry, Reply, ReplyClass, State, Verdict

from .scripted import LATER, LOST, NEVER, OK

NOW = 1000.0
EXPIRES = 9000.0


def judged(*verdicts: Verdict, now: float = NOW, warn_after: float | None = None, options: Options | None = None):
    entry = QueueEntry(
        number=1,
        id="m1",
        lane=Lane("r1", "example.com"),
        project="demo",
        route="outgoing",
        sender="shop@example.net",
        size=10,
        created=0.0,
        expires=EXPIRES,
        facts=b'{"message_id":"m1","metadata":{"order_id":"1"},"tag":"orders"}',
        context=b'{"project":"demo"}',
        recipients=[verdict.recipient for verdict in verdicts],
        options=options or Options(),
    )
    return judge(entry, verdicts, lambda _: Schedule((60.0,), jitter=0.0), Classifier().classify, now, warn_after)


def names(events) -> list[str]:
    return [event.name.removeprefix("message.") for event in events]


def jane(**known) -> QueuedRecipient:
    return QueuedRecipient(7, "jane@example.com", **known)


def test_a_delivery_is_sent_and_then_delivered() -> None:
    [outcome], events = judged(Verdict(jane(), OK, handed_over=True))
    assert outcome.state is State.DELIVERED
    assert outcome.handed_over
    assert outcome.reply == "250 2.0.0 OK"
    assert names(events) == ["sent", "delivered"]
    assert events[1].data["response"] == {"status_code": 250, "enhanced_status_code": "2.0.0", "content": "OK"}


def test_every_event_carries_recipient_tag_metadata_and_id() -> None:
    _, events = judged(Verdict(jane(), OK, handed_over=True), Verdict(QueuedRecipient(8, "joe@example.com"), NEVER))
    assert [event.data["recipient"] for event in events] == ["jane@example.com", "jane@example.com", "joe@example.com"]
    for event in events:
        assert (event.data["tag"], event.data["metadata"], event.data["message_id"]) == ("orders", {"order_id": "1"}, "m1")
        assert event.context == {"project": "demo"}


def test_sent_is_not_told_again_at_a_later_attempt() -> None:
    [outcome], events = judged(Verdict(jane(attempts=1, handed_over=True), OK, handed_over=True))
    assert names(events) == ["delivered"]
    assert outcome.handed_over


def test_a_refusal_behind_the_content_is_sent_and_soft_bounced() -> None:
    [outcome], events = judged(Verdict(jane(), LATER, handed_over=True))
    assert (outcome.state, outcome.due, outcome.handed_over) == (State.DEFERRED, NOW + 60.0, True)
    assert names(events) == ["sent", "soft_bounced"]
    assert events[1].data["response"]["status_code"] == 451


def test_what_was_handed_over_once_stays_so() -> None:
    [outcome], _ = judged(Verdict(jane(attempts=1, handed_over=True), LATER))
    assert outcome.handed_over


def test_our_own_temporary_failure_is_no_soft_bounce() -> None:
    [outcome], events = judged(Verdict(jane(), LOST, remote=False))
    assert outcome.state is State.DEFERRED
    assert events == []


def test_a_remote_permanent_refusal_is_a_hard_bounce() -> None:
    [outcome], events = judged(Verdict(jane(), NEVER))
    assert outcome.state is State.BOUNCED
    assert names(events) == ["hard_bounced"]
    assert events[0].data["response"] == {"status_code": 550, "enhanced_status_code": "5.1.1", "content": "No such user"}


def test_our_own_permanent_failure_is_failed_with_a_reason() -> None:
    [outcome], events = judged(Verdict(jane(), Reply(556, "5.1.10", "The domain takes no mail"), remote=False))
    assert outcome.state is State.BOUNCED
    assert names(events) == ["failed"]
    assert events[0].data["reason"] == "The domain takes no mail"
    assert events[0].data["response"] is None


def test_a_failure_at_expiry_ends_the_recipient_and_says_what_the_last_one_was() -> None:
    [outcome], events = judged(Verdict(jane(attempts=4), LATER), now=EXPIRES)
    assert outcome.state is State.EXPIRED
    assert names(events) == ["failed"]
    assert "5 attempts" in events[0].data["reason"]
    assert "Try again later" in events[0].data["reason"]
    assert events[0].data["response"]["status_code"] == 451


def test_a_delivery_at_expiry_is_a_delivery() -> None:
    [outcome], _ = judged(Verdict(jane(), OK, handed_over=True), now=EXPIRES + 5)
    assert outcome.state is State.DELIVERED


def test_the_last_attempt_is_set_for_the_moment_of_expiry() -> None:
    [outcome], _ = judged(Verdict(jane(), LATER), now=EXPIRES - 10)
    assert (outcome.state, outcome.due) == (State.DEFERRED, EXPIRES)


def test_a_code_that_is_none_is_temporary() -> None:
    [outcome], _ = judged(Verdict(jane(), Reply(354, None, "go on")))
    assert outcome.state is State.DEFERRED


def test_recipients_of_one_attempt_come_to_different_ends() -> None:
    outcomes, events = judged(
        Verdict(jane(), OK, handed_over=True),
        Verdict(QueuedRecipient(8, "a@example.com"), NEVER),
        Verdict(QueuedRecipient(9, "b@example.com"), LATER),
    )
    assert [outcome.state for outcome in outcomes] == [State.DELIVERED, State.BOUNCED, State.DEFERRED]
    assert [outcome.recipient.number for outcome in outcomes] == [7, 8, 9]
    assert names(events) == ["sent", "delivered", "hard_bounced", "soft_bounced"]


def test_a_delay_is_measured_from_the_first_deferral_and_told_from_then_on():
    [first], _ = judged(Verdict(jane(), LATER), now=1000.0, warn_after=600.0)
    assert (first.first_deferred, first.warned) == (1000.0, False)
    [second], _ = judged(Verdict(jane(attempts=1, first_deferred=1000.0), LATER), now=1600.0, warn_after=600.0)
    assert (second.first_deferred, second.warned) == (1000.0, True)
    [third], _ = judged(Verdict(jane(attempts=2, first_deferred=1000.0, warned=True), LATER), now=1700.0)
    assert third.warned


def test_no_event_tells_of_a_report():
    for reply in (OK, LATER, NEVER):
        _, events = judged(Verdict(jane(), reply, handed_over=True), options=Options(report=True))
        assert not events


def test_every_refusal_tells_what_it_is_about():
    [hard], [bounced] = judged(Verdict(jane(), NEVER))
    assert (hard.reply_class, bounced.data["classification"]) == (ReplyClass.INVALID_RECIPIENT, "invalid_recipient")
    full = Reply(452, "4.2.2", "The mailbox is full")
    [soft], [deferred] = judged(Verdict(jane(), full))
    assert (soft.reply_class, deferred.data["classification"]) == (ReplyClass.MAILBOX_FULL, "mailbox_full")
    [gone], [failed] = judged(Verdict(jane(attempts=4), full), now=EXPIRES)
    assert (gone.reply_class, failed.data["classification"]) == (ReplyClass.EXPIRED, "expired")
    [ours], [ended] = judged(Verdict(jane(), Reply(556, "5.1.10", "example.com takes no mail (null MX)"), remote=False))
    assert (ours.reply_class, ended.data["classification"]) == (ReplyClass.INVALID_DOMAIN, "invalid_domain")
    [fine], _ = judged(Verdict(jane(), OK, handed_over=True))
    assert fine.reply_class is None
