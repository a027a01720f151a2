"""A lane in memory: nobody is taken in twice, whatever order the spool's answers come in."""

from __future__ import annotations

from lettermta.delivery.lane import WINDOW, LaneQueue
from lettermta.message import Lane, QueuedRecipient, QueueEntry

LANE = Lane("r1", "example.com")


def entry(number: int, *recipients: int) -> QueueEntry:
    members = [QueuedRecipient(one, f"u{one}@example.com") for one in recipients or (number,)]
    return QueueEntry(number, f"m{number}", LANE, "demo", "outgoing", "", 1, 0.0, 1.0, b"{}", b"{}", members)


def test_entries_are_taken_in_their_order_and_one_put_back_is_next() -> None:
    lane = LaneQueue(LANE)
    lane.add(entry(1))
    lane.add(entry(2))
    first = lane.take()
    lane.put_back(first)
    assert [lane.take().number, lane.take().number] == [1, 2]


def test_a_lane_is_idle_when_nothing_is_in_hand_or_asked_for() -> None:
    lane = LaneQueue(LANE)
    assert lane.idle
    lane.add(entry(1))
    assert not lane.idle
    taken = lane.take()
    assert not lane.idle, "under way"
    lane.ask()
    lane.settle(taken)
    assert not lane.idle, "asked for"
    lane.answered([])
    assert lane.idle


def test_what_is_in_hand_is_not_taken_from_an_answer() -> None:
    lane = LaneQueue(LANE)
    lane.add(entry(1, 1, 2))
    lane.take()
    lane.ask()
    assert lane.answered([entry(1, 1, 2, 3), entry(2, 4)]) == 4
    assert [recipient.number for recipient in lane.take().recipients] == [3]
    assert lane.take().number == 2
    assert lane.in_hand == 4


def test_what_was_settled_while_the_spool_was_asked_is_not_taken_from_its_answer() -> None:
    lane = LaneQueue(LANE)
    lane.add(entry(1))
    taken = lane.take()
    lane.ask()
    lane.settle(taken)
    lane.answered([entry(1)])
    assert len(lane) == 0
    lane.ask()
    lane.answered([entry(1)])
    assert len(lane) == 1, "deferred, and due again: the next question is younger"


def test_an_answer_can_be_about_what_was_stored_meanwhile() -> None:
    lane = LaneQueue(LANE)
    lane.more = True
    lane.ask()
    assert not lane.more
    lane.more = True
    lane.answered([])
    assert lane.more


def test_the_window_is_full_by_what_waits_not_by_what_is_under_way() -> None:
    lane = LaneQueue(LANE)
    for number in range(WINDOW):
        lane.add(entry(number))
    assert lane.full
    lane.take()
    assert not lane.full
    assert lane.in_hand == WINDOW
