"""Caps on connections, failed logins, and time (HARD-CASES rows 10 and 11)."""

from __future__ import annotations

import math
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from lettermta.smtp.admission import (
    FIRST_DELAY,
    HALF_LIFE,
    IDLE_BEFORE_YIELDING,
    LONGEST_DELAY,
    Admission,
    Admitted,
    Caps,
    Cause,
    Denied,
    LoginGuard,
    Visit,
    network_of,
)
from lettermta.smtp.patience import Pace, Patience, Turn

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admission(clock: Clock, *, connections: int = 100, per_address: int = 3, per_network: int = 5) -> Admission:
    return Admission(Caps(connections, per_address, per_network), LOOPBACK, clock)


def let_in(to: Admission, address: str) -> Visit:
    result = to.enter(address, object())
    assert isinstance(result, Admitted)
    assert result.yields is None
    return result.visit


def denied(to: Admission, address: str) -> Cause:
    result = to.enter(address, object())
    assert isinstance(result, Denied)
    assert str(result.reply).startswith("421 4.7.0 ")
    return result.cause


def test_an_address_has_its_cap_and_its_neighbours_have_theirs(clock: Clock) -> None:
    door = admission(clock)
    visits = [let_in(door, "192.0.2.1") for _ in range(3)]
    assert denied(door, "192.0.2.1") is Cause.ADDRESS
    let_in(door, "192.0.2.2")
    door.leave(visits[0])
    let_in(door, "192.0.2.1")


def test_a_network_has_a_cap_over_all_its_addresses(clock: Clock) -> None:
    door = admission(clock)
    for last in range(5):
        let_in(door, f"192.0.2.{last}")
    assert denied(door, "192.0.2.99") is Cause.NETWORK
    let_in(door, "192.0.3.1")


def test_an_ipv6_network_is_a_64(clock: Clock) -> None:
    door = admission(clock)
    for last in range(5):
        let_in(door, f"2001:db8::{last}")
    assert denied(door, "2001:db8::ffff:0:0:1") is Cause.NETWORK
    let_in(door, "2001:db8:0:1::1")
    assert network_of("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64"
    assert network_of("192.0.2.77") == "192.0.2.0/24"


def test_exempt_networks_have_only_the_cap_in_all(clock: Clock) -> None:
    door = admission(clock, connections=10)
    for _ in range(10):
        let_in(door, "127.0.0.1")
    assert denied(door, "127.0.0.1") is Cause.ALL
    assert denied(door, "192.0.2.1") is Cause.ALL


def test_when_all_are_taken_the_longest_idle_without_a_login_makes_room(clock: Clock) -> None:
    door = admission(clock, connections=3)
    first, second, third = (let_in(door, f"192.0.{n}.1") for n in range(3))
    clock.advance(IDLE_BEFORE_YIELDING)
    door.active(second)
    door.logged_in(first)
    result = door.enter("198.51.100.1", object())
    assert isinstance(result, Admitted)
    assert result.yields is third
    assert len(door) == 3
    # The one that was active a moment ago is not sent away, nor is the one that has logged in.
    assert denied(door, "198.51.100.2") is Cause.ALL
    clock.advance(IDLE_BEFORE_YIELDING - 1)
    door.active(result.visit)
    clock.advance(1)
    later = door.enter("198.51.100.2", object())
    assert isinstance(later, Admitted)
    assert later.yields is second


def test_one_that_made_room_may_leave_once_more(clock: Clock) -> None:
    """Its connection is lost some time after it was told to go."""
    door = admission(clock, connections=1)
    gone = let_in(door, "192.0.2.1")
    clock.advance(IDLE_BEFORE_YIELDING)
    let = door.enter("192.0.2.1", object())
    assert isinstance(let, Admitted)
    door.leave(gone)
    door.active(gone)
    door.logged_in(gone)
    assert len(door) == 1
    door.leave(let.visit)
    assert len(door) == 0
    assert let_in(door, "192.0.2.1")


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0, 20)), max_size=60))
def test_the_caps_hold_whatever_comes_and_goes(steps: list[tuple[int, bool, float]]) -> None:
    clock = Clock()
    door = admission(clock, connections=6, per_address=2, per_network=4)
    inside: list[Visit] = []
    for number, leaves, seconds in steps:
        clock.advance(seconds)
        if leaves and inside:
            door.leave(inside.pop(number % len(inside)))
        else:
            result = door.enter(f"192.0.2.{number}", None)
            if isinstance(result, Admitted):
                inside.append(result.visit)
                if result.yields is not None:
                    inside.remove(result.yields)
        assert len(door) == len(inside) <= 4
        assert max([0, *(sum(each.address == visit.address for each in inside) for visit in inside)]) <= 2
    for visit in inside:
        door.leave(visit)
    assert door._addresses == door._networks == {}
    assert not door._anonymous


# -- failed logins


def guard(clock: Clock, *, most: int = 5, remembered: int = 100) -> LoginGuard:
    return LoginGuard(most, 900.0, LOOPBACK, clock, remembered=remembered)


def test_each_failure_of_a_session_waits_twice_as_long(clock: Clock) -> None:
    guarded = guard(clock, most=100)
    delays = [guarded.failed("192.0.2.1", "lettermint", number).delay for number in range(1, 8)]
    assert delays == [FIRST_DELAY, 1.0, 2.0, 4.0, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]


def test_a_new_session_does_not_begin_anew(clock: Clock) -> None:
    guarded = guard(clock, most=100)
    assert [guarded.failed("192.0.2.1", "lettermint", 1).delay for _ in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert guarded.failed("192.0.2.2", "lettermint", 1).delay == FIRST_DELAY


def test_a_source_is_shut_out_for_a_while(clock: Clock) -> None:
    guarded = guard(clock)
    for number in range(1, 5):
        assert not guarded.failed("192.0.2.1", "lettermint", number).last
        assert guarded.denies("192.0.2.1") is None
    assert guarded.failed("192.0.2.1", "lettermint", 5).last
    answer = guarded.denies("192.0.2.1")
    assert answer is not None
    assert str(answer.reply).startswith("421 4.7.0 ")
    assert answer.cause is Cause.FAILED_LOGINS
    assert guarded.denies("192.0.2.2") is None
    clock.advance(899.0)
    assert guarded.denies("192.0.2.1") is not None
    clock.advance(1.0)
    assert guarded.denies("192.0.2.1") is None


def test_who_comes_back_from_being_shut_out_has_fewer_tries(clock: Clock) -> None:
    guarded = guard(clock, most=8)
    for number in range(1, 9):
        guarded.failed("192.0.2.1", "lettermint", number)
    clock.advance(HALF_LIFE)
    tries = 1
    while not guarded.failed("192.0.2.1", "lettermint", 1).last:
        tries += 1
    assert tries == 4


def test_an_ipv6_source_is_its_network(clock: Clock) -> None:
    guarded = guard(clock)
    for number in range(5):
        guarded.failed(f"2001:db8::{number}", "lettermint", 1)
    assert guarded.denies("2001:db8::beef") is not None
    assert guarded.denies("2001:db8:0:1::1") is None


def test_old_failures_are_forgotten_by_and_by(clock: Clock) -> None:
    guarded = guard(clock)
    for _ in range(50):
        assert not guarded.failed("192.0.2.1", "lettermint", 1).last
        clock.advance(HALF_LIFE)


def test_a_success_clears_its_source(clock: Clock) -> None:
    """A machine on which one application has a wrong token goes on sending with the others."""
    guarded = guard(clock)
    for _ in range(10):
        for _ in range(4):
            assert not guarded.failed("192.0.2.1", "lettermint", 1).last
        guarded.succeeded("192.0.2.1")
    assert guarded.failed("192.0.2.1", "lettermint", 1).delay == FIRST_DELAY


def test_an_exempt_address_is_never_shut_out_but_its_sessions_are_slowed_and_end(clock: Clock) -> None:
    guarded = guard(clock)
    for _ in range(20):
        assert guarded.failed("127.0.0.1", "lettermint", 1).delay == FIRST_DELAY
    last = guarded.failed("127.0.0.1", "lettermint", 5)
    assert last.last
    assert last.delay == LONGEST_DELAY
    assert guarded.denies("127.0.0.1") is None


def test_a_source_that_was_shut_out_comes_in_again_once_it_is_exempt(clock: Clock) -> None:
    """What an operator does about a gateway behind which one application has a wrong token."""
    guarded = guard(clock)
    for number in range(1, 6):
        for source in ("192.0.2.1", "198.51.100.1"):
            guarded.failed(source, "lettermint", number)
    guarded.follow(5, (*LOOPBACK, ip_network("192.0.2.0/24")))
    assert guarded.denies("192.0.2.1") is None
    assert guarded.denies("198.51.100.1") is not None


def test_an_account_tried_from_everywhere_is_told_of_once_and_stays_usable(clock: Clock) -> None:
    guarded = guard(clock)
    told = [guarded.failed(f"192.0.{n}.1", "shop/lettermint", 1).suspicious for n in range(12)]
    assert told == [False] * 4 + [True] + [False] * 7
    assert guarded.denies("198.51.100.1") is None
    assert not guarded.failed("198.51.100.1", "another/lettermint", 1).suspicious


def test_memory_is_bounded_whatever_the_number_of_addresses(clock: Clock) -> None:
    guarded = guard(clock, remembered=100)
    for number in range(5):
        guarded.failed("203.0.113.9", "lettermint", number)
    for number in range(99):
        guarded.failed(f"10.0.{number}.1", f"project-{number}", 1)
    assert guarded.denies("203.0.113.9") is not None
    for number in range(1000):
        guarded.failed(f"10.1.{number % 250}.{number // 250}", f"other-{number}", 1)
        assert len(guarded) <= 200
    assert guarded.denies("203.0.113.9") is None


# -- time


def patience(clock: Clock) -> Patience:
    return Patience(Pace(command_seconds=300.0, content_seconds=60.0, minimum_rate=1000.0), clock)


def test_a_command_has_to_be_whole_in_time_however_its_octets_come(clock: Clock) -> None:
    """A slow-loris sends one octet each 59 seconds: no read puts the end off."""
    time = patience(clock)
    for _ in range(6):
        assert time.left() > 0
        clock.advance(59.0)
        time.received(1)
    assert time.left() <= 0
    time.command()
    assert time.left() == 300.0


def test_our_own_time_does_not_count(clock: Clock) -> None:
    time = patience(clock)
    time.pause()
    clock.advance(3600.0)
    assert time.left() == math.inf
    time.command()
    assert time.left() == 300.0


def test_silent_content_ends_with_its_credit(clock: Clock) -> None:
    time = patience(clock)
    time.content()
    clock.advance(59.0)
    assert time.left() == 1.0
    clock.advance(1.0)
    assert time.left() <= 0


def test_trickling_content_ends_a_little_later(clock: Clock) -> None:
    time = patience(clock)
    time.content()
    seconds = 0
    while time.left() > 0:
        clock.advance(1.0)
        seconds += 1
        time.received(500)
    assert 119 <= seconds <= 121


def test_content_at_the_least_rate_may_take_for_ever(clock: Clock) -> None:
    time = patience(clock)
    time.content()
    for _ in range(10_000):
        clock.advance(1.0)
        time.received(1000)
        assert time.left() > 0


def test_a_good_start_is_no_licence_to_trickle(clock: Clock) -> None:
    time = patience(clock)
    time.content()
    time.received(50_000_000)
    assert time.left() == 60.0
    clock.advance(60.0)
    assert time.left() <= 0


def test_content_that_we_would_not_read_is_not_missed(clock: Clock) -> None:
    time = patience(clock)
    time.content()
    clock.advance(40.0)
    time.pause()
    time.pause()
    clock.advance(3600.0)
    time.resume_content()
    assert time.turn is Turn.CONTENT
    assert time.left() == 20.0
