"""Which host and which address of it is tried: ourselves never, IPv6 and IPv4 by turns (HARD-CASES row 21)."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError, NoRouteError, TimeoutError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from lettermta.delivery.exchange import Exchange
from lettermta.delivery.ourselves import Ourselves
from lettermta.delivery.transports.connecting import FALL_OVER_SECONDS
from lettermta.delivery.transports.families import AVOID_SECONDS, MOST_SILENT, Families
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.settings import DeliverySettings
from tests.delivery.test_transports import Names

SIX, SIX_TOO = "2001:4860:4860::8888", "2001:4860:4860::8844"
FOUR, FOUR_TOO = "8.8.8.8", "8.8.4.4"


def local_address() -> str:
    """An address of this machine beside loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class Opening:
    """An attempt to open a channel; each connection is ended as the test says."""

    def __init__(self, groups: Any, addresses: Any, settings: DeliverySettings | None = None, reactor: Any = None) -> None:
        self.reactor = reactor or MemoryReactorClock()
        settings = settings or DeliverySettings("out.test")
        self.failed: list[str] = []
        self.at = len(self.reactor.tcpClients)
        transport = MXTransport(self.reactor, Exchange("in.test", groups), Names({}, addresses), settings, shuffle=list.sort)
        transport.open().addErrback(lambda failure: self.failed.append(str(failure.value.reply)))

    def fail(self, *errors: Exception) -> list[str]:
        """What was tried until now, one more for each error."""
        for error in errors:
            self.reactor.tcpClients[-1][2].clientConnectionFailed(None, Failure(error))
        return [client[0] for client in self.reactor.tcpClients[self.at :]]

    @property
    def timeout(self) -> float:
        return float(self.reactor.tcpClients[-1][3])


REFUSED = ConnectionRefusedError()


def test_the_families_alternate_ipv6_first() -> None:
    opening = Opening([("mx.test",)], {"mx.test": [SIX, SIX_TOO, FOUR, FOUR_TOO]})
    assert opening.fail(REFUSED, REFUSED, REFUSED) == [SIX, FOUR, SIX_TOO, FOUR_TOO]


def test_a_family_that_fails_gives_way_to_the_other_one() -> None:
    opening = Opening([("mx.test",)], {"mx.test": [SIX, SIX_TOO, SIX.replace("8888", "64"), FOUR]})
    assert opening.timeout == FALL_OVER_SECONDS, "it is not waited for long while there is another family"
    assert opening.fail(TimeoutError()) == [SIX, FOUR]
    assert opening.timeout == FALL_OVER_SECONDS
    opening.fail(TimeoutError())
    assert opening.timeout == 30.0, "what is left has all the time that there is"


def test_a_family_without_a_route_is_tried_last_for_a_while_by_everyone() -> None:
    settings = DeliverySettings("out.test")
    first = Opening([("mx.test",)], {"mx.test": [SIX, FOUR]}, settings)
    assert first.fail(NoRouteError(101, "Network is unreachable")) == [SIX, FOUR]
    second = Opening([("mx.test",)], {"mx.test": [SIX, FOUR]}, settings, first.reactor)
    assert second.fail() == [FOUR]
    first.reactor.advance(AVOID_SECONDS)
    third = Opening([("mx.test",)], {"mx.test": [SIX, FOUR]}, settings, first.reactor)
    assert third.fail() == [SIX]


def test_a_family_that_times_out_again_and_again_is_avoided_until_it_works() -> None:
    families, clock = Families(), Clock()
    for _ in range(MOST_SILENT - 1):
        families.silent(clock, SIX)
    assert families.order(clock, [SIX, FOUR]) == [SIX, FOUR]
    families.silent(clock, SIX)
    assert families.order(clock, [SIX, FOUR]) == [FOUR, SIX]
    families.works(SIX_TOO)
    assert families.order(clock, [SIX, FOUR]) == [SIX, FOUR]
    families.no_route(clock, SIX)
    families.no_route(clock, FOUR)
    assert families.order(clock, [SIX, FOUR]) == [SIX, FOUR], "when neither works, both are tried as ever"


def test_an_ipv6_only_host_is_reached() -> None:
    assert Opening([("mx.test",)], {"mx.test": [SIX]}).fail() == [SIX]


# -- ourselves


def test_a_host_by_another_name_that_is_ourselves_is_a_loop() -> None:
    settings = DeliverySettings("out.test", ourselves=Ourselves([(FOUR, 25)]))
    opening = Opening([("alias.test",)], {"alias.test": [FOUR]}, settings)
    assert opening.failed == ["554 5.4.6 Mail for in.test would come back to us: a loop"]
    assert opening.fail() == []


def test_behind_a_better_host_we_are_no_loop_and_nothing_worse_is_tried() -> None:
    settings = DeliverySettings("out.test", ourselves=Ourselves([(FOUR, 25)]))
    groups = [("best.test",), ("alias.test",), ("worse.test",)]
    opening = Opening(groups, {"best.test": [FOUR_TOO], "alias.test": [FOUR], "worse.test": ["8.8.0.1"]}, settings)
    assert opening.fail(REFUSED) == [FOUR_TOO]
    assert opening.failed[0].startswith("451 4.4.1")


def test_an_address_literal_of_ours_is_a_loop() -> None:
    settings = DeliverySettings("out.test", ourselves=Ourselves([(FOUR, 25)]))
    failed: list[str] = []
    literal = f"[{FOUR}]"
    transport = MXTransport(MemoryReactorClock(), Exchange(literal, ((literal,),)), Names({}, {}), settings)
    transport.open().addErrback(lambda failure: failed.append(str(failure.value.reply)))
    assert failed[0].startswith("554 5.4.6")


@pytest.mark.parametrize(
    ("listeners", "address", "port", "ours"),
    [
        ([("0.0.0.0", 25)], "127.0.0.1", 25, True),
        ([("0.0.0.0", 25)], "127.9.8.7", 25, True),
        ([("0.0.0.0", 25)], "127.0.0.1", 2525, False),
        ([("0.0.0.0", 25)], FOUR, 25, False),
        ([("::", 25)], "::1", 25, True),
        ([("::", 25)], "127.0.0.1", 25, False),
        ([("0.0.0.0", 25)], "::ffff:127.0.0.1", 25, True),
        ([("127.0.0.2", 25)], "127.0.0.2", 25, True),
        ([("127.0.0.2", 25)], "127.0.0.3", 25, False),
        ([], "127.0.0.1", 25, False),
    ],
)
def test_ourselves_is_where_a_listener_of_ours_answers(listeners: list[tuple[str, int]], address: str, port: int, ours: bool) -> None:
    assert Ourselves(listeners).answer(address, port) is ours


def test_any_address_of_the_machine_is_known() -> None:
    assert Ourselves([("0.0.0.0", 25)]).answer(local_address(), 25)
