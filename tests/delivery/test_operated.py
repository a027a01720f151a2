"""What operators do while mail is waiting or under way: nothing goes out that is held, nothing twice, and nobody is forgotten."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lettermta.delivery.scheduler import LOOK_AGAIN_SECONDS
from lettermta.message import Change, Lane, Operation, Reply, State
from lettermta.testing.spool import MemorySpool

from .scripted import LATER, StagedSpool, World, accept, answer, unreachable

LANE = Lane("r1", "example.com")
OVER = Reply(550, "5.7.1", "Returned")


def operate(world: World, operation: Operation, recipient: str = "", **more: str) -> None:
    filters = {"recipient": recipient} if recipient else {}
    changed = []
    world.spool.change(Change(operation, world.now(), **more), filters, 0, 500).addCallback(changed.append)
    world.scheduler.reread(changed[0].lanes)


def opened(world: World, name: str = "example.com") -> None:
    place = world.place(name)
    place.holding_opens = False
    for opening in place.opening:
        opening.callback(place.channel())
    place.opening = []


def test_what_is_held_while_it_waits_is_not_sent():
    world = World().start()
    world.place("example.com").holding_opens = True
    for name in "abc":
        world.submit(f"{name}@example.com")
    operate(world, Operation.HOLD, "b@example.com")
    opened(world)
    assert world.place("example.com").recipients == ["a@example.com", "c@example.com"]
    operate(world, Operation.RELEASE)
    assert world.place("example.com").recipients == ["a@example.com", "c@example.com", "b@example.com"]
    world.assert_at_rest()


def test_what_is_removed_while_it_waits_is_not_sent():
    world = World().start()
    world.place("example.com").holding_opens = True
    world.submit("a@example.com")
    operate(world, Operation.REMOVE)
    opened(world)
    assert world.place("example.com").recipients == []
    assert not world.spool.stored
    world.assert_at_rest()


def test_an_attempt_under_way_is_finished_and_held_behind_it():
    world = World().start()
    place = world.place("example.com")
    place.holding, place.answer = True, answer(LATER)
    world.submit("a@example.com")
    operate(world, Operation.HOLD)
    place.channels[0].finish()
    assert [one.state for one in world.recipients()] == [State.HELD]
    world.clock.advance(1000)
    assert len(place.attempts) == 1
    place.holding, place.answer = False, accept
    operate(world, Operation.RELEASE)
    assert len(place.attempts) == 2
    world.assert_at_rest()


def test_an_answer_read_before_the_change_does_not_count():
    world = World(StagedSpool())
    spool = world.spool
    world.submit("a@example.com", "b@example.com")
    spool.settle()
    world.start()
    while not any(True for _ in spool.reads if world.scheduler._asked):
        if spool.reads:
            spool.read_one()
        spool.call_one()
        world.clock.advance(0)
    spool.read_one()  # the lane's due recipients, both of them
    operate(world, Operation.HOLD, "a@example.com")
    spool.settle()
    assert world.place("example.com").recipients == ["b@example.com"]
    assert sorted(one.state for one in world.recipients()) == [State.DELIVERED, State.HELD]


def test_what_is_rerouted_while_it_is_under_way_is_not_sent_by_both_routes():
    world = World().start()
    world.ways["r2"] = "relay"
    place = world.place("example.com")
    place.holding = True
    world.submit("a@example.com")
    operate(world, Operation.REROUTE, project_id="p1", route_id="r2", route="bulk")
    world.clock.advance(LOOK_AGAIN_SECONDS)
    assert world.place("relay").attempts == [], "the old route has it"
    place.answer = answer(LATER)
    place.channels[0].finish()
    world.clock.advance(LOOK_AGAIN_SECONDS)
    world.clock.advance(60)
    assert world.place("relay").recipients == ["a@example.com"]
    assert len(place.attempts) == 1
    assert not world.spool.stored
    world.assert_at_rest()


def test_what_is_rerouted_while_it_waits_goes_the_new_way():
    world = World().start()
    world.ways["r2"] = "relay"
    world.place("example.com").holding_opens = True
    world.submit("a@example.com")
    operate(world, Operation.REROUTE, project_id="p1", route_id="r2", route="bulk")
    assert world.place("relay").recipients == ["a@example.com"]
    opened(world)
    assert world.place("example.com").recipients == []
    world.assert_at_rest()


def bounce(world: World) -> list[int]:
    done: list[int] = []
    asked = world.spool.entries({}, 0, 500)
    Deferred.fromCoroutine(world.scheduler.bounce(asked, OVER)).addCallback(lambda told: done.append(told[0]))
    return done


def test_what_is_bounced_ends_as_a_failure_of_ours():
    world = World().start()
    world.place("example.com").holding_opens = True
    waiting = world.submit("a@example.com")
    held = world.submit("b@example.com")
    operate(world, Operation.HOLD, "b@example.com")
    assert bounce(world) == [2]
    assert world.told(waiting) == world.told(held) == ["failed"]
    opened(world)
    assert world.place("example.com").recipients == []
    assert not world.spool.stored
    world.assert_at_rest()


def test_what_is_under_way_is_bounced_unless_it_is_delivered():
    for verdict, told in ((accept, ["sent", "delivered"]), (answer(LATER), ["failed"])):
        world = World().start()
        place = world.place("example.com")
        place.holding, place.answer = True, verdict
        world.submit("a@example.com")
        assert bounce(world) == [1]
        place.channels[0].finish()
        assert world.told() == told
        assert not world.spool.stored
        world.assert_at_rest()


def test_what_is_bounced_between_its_attempt_and_the_record_of_it_is_bounced_all_the_same():
    world = World(StagedSpool()).start()
    spool = world.spool
    spool.settle()
    world.place("example.com").holding = True
    world.place("example.com").answer = answer(LATER)
    world.submit("a@example.com")
    spool.settle()
    world.place("example.com").channels[0].finish()
    assert len(spool.writes) == 1, "its outcome is not on record yet"
    done = MemorySpool.entries(spool, {}, 0, 500)
    Deferred.fromCoroutine(world.scheduler.bounce(done, OVER))
    spool.settle()
    assert world.told() == ["soft_bounced", "failed"]
    assert not spool.stored
    world.assert_at_rest()


def test_what_was_delivered_while_the_spool_was_asked_what_to_bounce_is_not_told_to_have_failed():
    world = World(StagedSpool()).start()
    spool = world.spool
    spool.settle()
    world.place("example.com").holding = True
    world.submit("a@example.com")
    spool.settle()
    asked: Deferred = Deferred()
    told: list = []
    found = []
    MemorySpool.entries(spool, {}, 0, 500).addCallback(found.append)
    Deferred.fromCoroutine(world.scheduler.bounce(asked, OVER)).addCallback(told.append)
    world.place("example.com").channels[0].finish()
    spool.settle()
    asked.callback(found[0])
    spool.settle()
    assert world.told() == ["sent", "delivered"]
    assert told == [(0, None, True)], "the spool is to be asked again"
    world.assert_at_rest()


def test_why_mail_for_a_destination_that_is_out_of_reach_is_not_tried_can_be_told():
    world = World().start()
    assert world.scheduler.refusal(LANE) is None
    place = world.place("example.com")
    place.fault = unreachable()
    world.submit("a@example.com")
    assert "451" in world.scheduler.refusal(LANE)
    place.fault = None
    world.clock.advance(60)
    assert world.scheduler.refusal(LANE) is None


def test_who_is_in_a_hurry_does_not_wait_for_the_end_of_a_pause():
    world = World().start()
    place = world.place("example.com")
    place.fault = unreachable()
    world.submit("a@example.com")
    place.fault = None
    world.spool.change(Change(Operation.RETRY, world.now()), {}, 0, 500)
    world.scheduler.hurry([LANE])
    assert place.recipients == ["a@example.com"]
    world.assert_at_rest()


def test_each_attempt_is_kept_with_its_channel_and_its_time():
    world = World().start()
    place = world.place("example.com")
    place.holding = True
    world.submit("a@example.com")
    world.clock.advance(2.5)
    place.channels[0].finish()
    [(_, address, attempt)] = world.spool.attempts
    assert (address, attempt.via, attempt.seconds, attempt.moment) == ("a@example.com", place.channels[0].description, 2.5, world.now())
