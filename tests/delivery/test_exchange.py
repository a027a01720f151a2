"""Domains that share their MX hosts share a destination; what isn't known is looked up first, and not knowing is not knowing."""

from __future__ import annotations

import pytest
from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from lettermta.delivery.dns_wire import Server, TryFailed
from lettermta.delivery.exchange import FRESH_SECONDS, LOOK_UP, MOST_HOSTS, MOST_KNOWN, Exchange, Exchanges, Lookup, find
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.way import Way
from lettermta.message import Unreachable
from tests.delivery.scripted import World

SERVFAIL = TemporaryDNSFailure("in.test", RdataType.MX, [TryFailed(Server("127.0.0.1", 53), "SERVFAIL", rcode="SERVFAIL")])


class Zone:
    """A resolver that says what a test says, at once or when the test lets it."""

    def __init__(self) -> None:
        self.mail: dict[str, object] = {}
        self.asked: list[str] = []
        self.holding = False
        self.held: list[tuple[str, Deferred]] = []

    def mx(self, domain):
        self.asked.append(domain)
        if self.holding:
            self.held.append((domain, Deferred()))
            return self.held[-1][1]
        return self._answer(domain)

    def _answer(self, domain):
        found = self.mail.get(domain, NoSuchDomain(domain))
        return fail(found) if isinstance(found, Exception) else succeed(found)

    def release(self) -> None:
        held, self.held = self.held, []
        for domain, waiter in held:
            self._answer(domain).chainDeferred(waiter)


class Net(World):
    """A world in which domains are looked up; a place is named by its key."""

    def __init__(self) -> None:
        super().__init__()
        self.zone = Zone()
        self.exchanges = Exchanges(self.clock)

    def way(self, lane):
        exchange = self.exchanges.get(lane.domain)
        if exchange is None:
            return Way(
                lane.domain, lambda: Lookup(lane.domain, self.zone, DeliverySettings("mta.test"), self.exchanges), lane.domain, LOOK_UP
            )
        return Way(exchange.key, lambda: self.place(exchange.key), exchange.key)


def exchange(records, domain: str = "in.test", hostname: str = "mta.test") -> Exchange:
    zone = Zone()
    zone.mail[domain] = records
    found: list[Exchange] = []
    failures: list[Failure] = []
    Deferred.fromCoroutine(find(zone, domain, hostname)).addCallbacks(found.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return found[0]


def test_hosts_are_grouped_by_preference():
    assert exchange([(20, "c.test."), (10, "B.test"), (10, "a.test"), (30, "a.test")]).groups == (("a.test", "b.test"), ("c.test",))


def test_what_is_no_better_than_ourselves_is_left_out():
    assert exchange([(5, "a.test"), (10, "mta.test"), (10, "b.test"), (20, "c.test")]).groups == (("a.test",),)


@pytest.mark.parametrize(
    ("records", "reply"),
    [
        ([(10, "mta.test."), (20, "b.test")], "554 5.4.6 Mail for in.test would come back to us: a loop"),
        ([(10, "MTA.test"), (10, "b.test")], "554 5.4.6 Mail for in.test would come back to us: a loop"),
        ([(0, ".")], "556 5.1.10 in.test takes no mail (null MX)"),
    ],
)
def test_a_domain_that_leads_back_to_us_or_nowhere_fails_its_mail_at_once(records, reply):
    """HARD-CASES rows 20 and 21; RFC 5321 section 5.1, RFC 7505."""
    with pytest.raises(Unreachable) as caught:
        exchange(records)
    assert str(caught.value.reply) == reply


def test_no_more_hosts_count_than_there_may_be():
    """HARD-CASES row 21."""
    found = exchange([(number, f"mx{number:02}.test") for number in range(50)])
    assert sum(map(len, found.groups)) == MOST_HOSTS
    assert found.groups[0] == ("mx00.test",)


def test_the_same_hosts_have_the_same_key_whatever_their_preferences():
    one = exchange([(1, "a.test"), (2, "b.test")])
    other = exchange([(10, "b.test"), (10, "a.test")], "other.test")
    assert one.key == other.key == "mx a.test b.test"
    many = [(number, f"mx{number}.test") for number in range(9)]
    assert exchange(many).key == exchange(many, "other.test").key != exchange(many[1:]).key
    assert len(exchange(many).key) < 60


def test_what_is_known_is_asked_again_soon_and_bounded():
    clock = Clock()
    known = Exchanges(clock)
    known.put(Exchange("in.test", (("mx.test",),)))
    first = known.get("in.test")
    clock.advance(FRESH_SECONDS)
    assert known.get("in.test") is None
    assert known.last("in.test") is first
    known.put(Exchange("in.test", (("mx.test",),)))
    assert known.get("in.test") is first, "nothing has changed, so nothing that hangs on it has to"
    known.put(Exchange("in.test", (("new.test",),)))
    assert known.get("in.test").groups == (("new.test",),)
    for number in range(MOST_KNOWN):
        known.put(Exchange(f"{number}.test", (("mx.test",),)))
    assert known.last("in.test") is None


def test_domains_that_share_their_hosts_share_channels():
    net = Net()
    for number in range(100):
        net.zone.mail[f"d{number}.test"] = [(10, "mx1.big.test"), (20, "mx2.big.test")]
    net.zone.mail["other.test"] = [(10, "mx1.big.test")]
    net.start()
    for number in range(100):
        net.submit(f"u@d{number}.test")
    net.submit("u@other.test")
    assert net.place("mx mx1.big.test mx2.big.test").opened == 1
    assert len(net.place("mx mx1.big.test mx2.big.test").attempts) == 100
    assert len(net.place("mx mx1.big.test").attempts) == 1
    net.assert_at_rest()


def test_the_limit_of_connections_holds_for_all_domains_with_the_same_hosts():
    net = Net()
    for number in range(100):
        net.zone.mail[f"d{number}.test"] = [(10, "mx.big.test")]
    place = net.place("mx mx.big.test")
    place.holding = True
    net.start()
    for number in range(100):
        net.submit(f"u@d{number}.test")
    assert len(place.open_channels) == 20


def test_mail_waits_for_its_look_up_and_the_look_up_is_made_once():
    net = Net()
    net.zone.mail["in.test"] = [(10, "mx.test")]
    net.zone.holding = True
    net.start()
    for number in range(10):
        net.submit(f"u{number}@in.test")
    assert net.zone.asked == ["in.test"]
    net.zone.holding = False
    net.zone.release()
    assert len(net.place("mx mx.test").attempts) == 10
    net.assert_at_rest()


def test_a_known_domain_costs_no_question():
    net = Net()
    net.zone.mail["in.test"] = [(10, "mx.test")]
    net.start()
    for number in range(50):
        net.submit(f"u{number}@in.test")
    assert net.zone.asked == ["in.test"]


def test_a_domain_whose_hosts_change_goes_the_new_way():
    net = Net()
    net.zone.mail["in.test"] = [(10, "old.test")]
    net.start()
    net.submit("a@in.test")
    net.zone.mail["in.test"] = [(10, "new.test")]
    net.clock.advance(FRESH_SECONDS)
    net.submit("b@in.test")
    assert net.place("mx old.test").recipients == ["a@in.test"]
    assert net.place("mx new.test").recipients == ["b@in.test"]
    net.assert_at_rest()


def test_what_waited_for_the_old_hosts_goes_to_the_new_ones():
    net = Net()
    net.zone.mail["in.test"] = [(10, "old.test")]
    old = net.place("mx old.test")
    old.holding = True
    net.start()
    for number in range(30):
        net.submit(f"u{number}@in.test")
    under_way = len(old.attempts)
    net.zone.mail["in.test"] = [(10, "new.test")]
    net.clock.advance(FRESH_SECONDS)
    net.submit("last@in.test")
    assert len(net.place("mx new.test").attempts) == 31 - under_way
    for channel in old.open_channels:
        channel.finish()
    net.assert_at_rest()


def test_a_failing_look_up_defers_and_the_domain_is_not_asked_for_each_message():
    """HARD-CASES row 20: SERVFAIL is tried again, and never taken for an answer."""
    net = Net()
    net.zone.mail["in.test"] = SERVFAIL
    net.start()
    messages = [net.submit(f"u{number}@in.test") for number in range(10)]
    assert len(net.zone.asked) <= 2
    assert {one.state.value for one in net.recipients()} <= {"deferred", "queued"}
    net.zone.mail["in.test"] = [(10, "mx.test")]
    net.clock.pump([10.0] * 60)
    assert sorted(net.place("mx mx.test").recipients) == sorted(f"u{number}@in.test" for number in range(10))
    assert all("failed" not in net.told(message) for message in messages)
    net.assert_at_rest()


def test_a_domain_that_does_not_exist_fails_its_mail_at_once():
    net = Net().start()
    message = net.submit("a@gone.test")
    assert net.told(message) == ["failed"]
    net.assert_at_rest()


def test_domains_that_can_not_be_looked_up_slow_nobody():
    net = Net()
    net.zone.mail["in.test"] = [(10, "mx.test")]
    net.start()
    net.submit("a@in.test")
    net.zone.holding = True
    for number in range(50):
        net.submit(f"u@silent{number}.test")
    net.submit("b@in.test")
    assert net.place("mx mx.test").recipients == ["a@in.test", "b@in.test"]
