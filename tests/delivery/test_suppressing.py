"""Mail in the queue to an address that was suppressed meanwhile, and refusals that suppress an address."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from lettermta.delivery.reporter import ReportRules
from lettermta.delivery.suppressing import Suppressing
from lettermta.event import CREATED, message_event
from lettermta.message import Message, Reply, State, Unreachable
from lettermta.suppression import EVERYBODY, AppliesTo, Scope, Suppression, SuppressionReason, suppress, value_of
from tests.delivery.scripted import LATER, NEVER, NO_ANSWER, World, answer, make_message, unreachable
from tests.test_counts import grown

DEMO = Scope("p1", "demo")
CONTEXT = b'{"project_id":"p1","project":"demo","route_id":"r1","route":"outgoing"}'


def send(world: World, *recipients: str) -> Message:
    message = evolve(make_message(world.spool, recipients, world.now()), context=CONTEXT)
    world.spool.store(message, [message_event(CREATED, world.now(), message.id, message.facts, message.context)])
    return message


def keep_from(world: World, text: str, scope: Scope = DEMO, reason: SuppressionReason = SuppressionReason.UNSUBSCRIBE) -> None:
    world.spool.suppressions.keep([suppress(value_of(text), scope, reason, world.now(), AppliesTo.ALL)])


def suppressed(world: World) -> list[Suppression]:
    return list(world.spool.suppressions.kept.values())


# -- mail in the queue


def test_what_was_put_off_is_not_tried_again_once_its_address_is_suppressed():
    world = World(reporter=ReportRules("mta.example.org")).start()
    world.place("example.com").answer = answer(LATER)
    message = send(world, "jane@example.com")
    world.clock.advance(1)
    keep_from(world, "Jane@Example.com")
    with grown() as growth:
        world.clock.advance(60)
    assert world.place("example.com").attempts == [("jane@example.com",)]
    assert world.told(message) == ["soft_bounced", "suppressed"]
    [event] = world.events("suppressed")
    assert (event.data["recipient"], event.data["reason"]) == ("jane@example.com", "unsubscribe")
    assert not world.spool.stored
    assert growth["lettermta_recipients_total state=suppressed"] == 1
    assert growth["lettermta_recipients_suppressed_total found=queued"] == 1
    assert world.place("example.net").attempts == [], "no report goes to the sender"
    world.assert_at_rest()


def test_the_others_of_the_same_attempt_are_sent_to():
    world = World().start()
    world.place("example.com").answer = answer(LATER)
    send(world, "a@example.com", "b@example.com", "c@example.com")
    keep_from(world, "b@example.com")
    world.place("example.com").answer = lambda entry, one: answer(Reply(250, None, "OK"), handed_over=True)(entry, one)
    world.clock.advance(60)
    assert world.place("example.com").attempts == [("a@example.com", "b@example.com", "c@example.com"), ("a@example.com", "c@example.com")]
    assert world.told() == ["soft_bounced"] * 3 + ["suppressed"] + ["sent", "delivered"] * 2
    assert not world.spool.stored
    world.assert_at_rest()


def test_what_waits_for_a_channel_is_not_sent_either():
    world = World().start()
    place = world.place("example.com")
    place.holding_opens = True
    send(world, "jane@example.com", "joe@example.com")
    keep_from(world, "example.com", EVERYBODY, SuppressionReason.MANUAL)
    place.holding_opens = False
    place.opening.pop().callback(place.channel())
    assert place.attempts == []
    assert world.told() == ["suppressed", "suppressed"]
    assert place.open_channels, "the channel is good for others"
    send(world, "x@example.com")
    world.assert_at_rest()


def test_mail_for_a_host_that_can_not_be_reached_is_not_kept_for_days():
    world = World().start()
    world.place("example.com").fault = unreachable(NO_ANSWER)
    message = send(world, "jane@example.com", "joe@example.com")
    assert [one.state for one in world.recipients()] == [State.DEFERRED] * 2
    keep_from(world, "jane@example.com")
    world.clock.advance(120)
    states = {one.address: one.state for one in world.recipients()}
    assert states == {"jane@example.com": State.SUPPRESSED, "joe@example.com": State.DEFERRED}
    assert world.told(message) == ["suppressed"]


def test_what_was_suppressed_during_its_attempt_is_not_put_off():
    world = World().start()
    place = world.place("example.com")
    place.answer, place.holding = answer(LATER), True
    message = send(world, "jane@example.com")
    keep_from(world, "jane@example.com")
    place.channels[0].finish()
    assert world.told(message) == ["soft_bounced", "suppressed"]
    assert not world.spool.stored
    world.assert_at_rest()


def test_what_was_delivered_during_it_is_delivered():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    message = send(world, "jane@example.com")
    keep_from(world, "jane@example.com")
    place.channels[0].finish()
    assert world.told(message) == ["sent", "delivered"]


def test_a_report_goes_to_a_sender_who_is_suppressed():
    """Whoever sent the mail is told what became of it: suppressions are about mail of projects."""
    world = World(reporter=ReportRules("mta.example.org")).start()
    keep_from(world, "shop@example.net", EVERYBODY, SuppressionReason.HARD_BOUNCE)
    world.place("example.com").answer = answer(Reply(550, "5.7.1", "Message refused"))
    send(world, "jane@example.com")
    assert world.place("example.net").recipients == ["shop@example.net"]
    world.assert_at_rest()


def test_broadcasts_are_told_from_other_mail_by_the_route_of_now():
    world = World()
    world.scheduler._recorder._suppressing = Suppressing(world.spool.suppressions, lambda lane: lane.route_id == "r1")
    world.start()
    world.place("example.com").answer = answer(LATER)
    message = send(world, "jane@example.com")
    world.spool.suppressions.keep([suppress("jane@example.com", DEMO, SuppressionReason.UNSUBSCRIBE, 1.0)])
    world.clock.advance(60)
    assert world.told(message) == ["soft_bounced", "suppressed"]


def test_while_the_list_can_not_be_read_nothing_is_sent_and_nothing_lost():
    world = World().start()
    world.place("example.com").answer = answer(LATER)
    message = send(world, "jane@example.com")
    world.spool.suppressions.broken = OSError("disk I/O error")
    with capturedLogs():
        world.clock.advance(60)
    assert len(world.place("example.com").attempts) == 1
    assert [one.state for one in world.recipients()] == [State.DEFERRED]
    world.spool.suppressions.broken = None
    world.place("example.com").answer = lambda entry, one: answer(Reply(250, None, "OK"), handed_over=True)(entry, one)
    world.clock.advance(600)
    assert world.told(message)[-1] == "delivered"
    world.assert_at_rest()


def test_an_answer_that_takes_its_time_holds_up_nobody_else():
    world = World().start()
    late: list[Deferred[object]] = []
    real = world.spool.suppressions.find

    def find(mailing, addresses):
        if addresses == ["jane@example.com"]:
            late.append(Deferred())
            return late[-1]
        return real(mailing, addresses)

    keep_from(world, "other@example.com")
    world.spool.suppressions.find = find  # type: ignore[method-assign]
    send(world, "jane@example.com")
    send(world, "joe@example.com")
    assert world.place("example.com").recipients == ["joe@example.com"]
    late[0].callback({})
    assert world.place("example.com").recipients == ["joe@example.com", "jane@example.com"]
    world.assert_at_rest()


def test_what_could_not_be_put_on_record_is_not_sent_meanwhile():
    world = World().start()
    world.place("example.com").answer = answer(LATER)
    message = send(world, "jane@example.com")
    keep_from(world, "jane@example.com")
    world.spool.broken = OSError("no space left")
    with capturedLogs():
        world.clock.advance(60)
    world.spool.broken = None
    world.clock.advance(5)
    assert len(world.place("example.com").attempts) == 1
    assert world.told(message) == ["soft_bounced", "suppressed"]
    world.assert_at_rest()


# -- what refusals show


def test_an_address_that_its_server_does_not_know_is_suppressed_for_the_project():
    world = World().start()
    world.place("example.com").answer = lambda entry, one: answer(NEVER if one.address.startswith("J") else LATER)(entry, one)
    message = send(world, "Jane@Example.com", "other@example.com")
    [one] = suppressed(world)
    assert (one.value, one.scope, one.reason, one.message_id) == ("jane@example.com", DEMO, SuppressionReason.HARD_BOUNCE, message.id)
    assert [event.name for _, event in world.spool.outbox][1:] == ["message.hard_bounced", "message.soft_bounced", "suppression.added"]
    [_, event] = world.spool.outbox[-1]
    assert event.context["project_id"] == "p1"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(550, "5.7.1", "Message refused as spam"),
        Reply(554, "5.7.1", "Service unavailable; client host blocked using zen.spamhaus.org"),
        Reply(550, "5.7.26", "This mail has been blocked because the sender is unauthenticated"),
        Reply(552, "5.2.2", "Mailbox full"),
        Reply(552, "5.3.4", "Message too big"),
        Reply(550, None, "Administrative prohibition"),
        Reply(550, "5.1.8", "Sender address rejected: domain not found"),
        Reply(550, "4.2.1", "No such user here, for now"),
        Reply(550, "4.7.1", "User unknown"),
    ],
)
def test_what_is_about_us_or_the_message_or_passes_suppresses_nobody(reply):
    world = World().start()
    world.place("example.com").answer = answer(reply)
    send(world, "jane@example.com")
    assert world.told() == ["hard_bounced"]
    assert suppressed(world) == []


def test_what_we_said_ourselves_suppresses_nobody():
    world = World().start()
    world.place("example.com").fault = unreachable(Reply(556, "5.1.10", "The domain takes no mail"))
    send(world, "jane@example.com")
    assert world.told() == ["failed"]
    assert suppressed(world) == []


def test_what_a_server_said_before_it_knew_the_recipient_suppresses_nobody():
    world = World().start()
    world.place("example.com").fault = Unreachable(Reply(550, "5.1.1", "User unknown"), remote=True)
    send(world, "jane@example.com")
    assert world.told() == ["hard_bounced"]
    assert suppressed(world) == []


def test_it_can_be_switched_off():
    world = World()
    world.scheduler._recorder._suppressing = Suppressing(world.spool.suppressions, learn=False)
    world.start()
    world.place("example.com").answer = answer(NEVER)
    send(world, "jane@example.com")
    assert world.told() == ["hard_bounced"]
    assert suppressed(world) == []


def test_a_report_that_nobody_takes_suppresses_nobody():
    world = World(reporter=ReportRules("mta.example.org")).start()
    world.place("example.com").answer = answer(Reply(550, "5.7.1", "Message refused"))
    world.place("example.net").answer = answer(NEVER)
    send(world, "jane@example.com")
    assert world.place("example.net").attempts
    assert suppressed(world) == []
