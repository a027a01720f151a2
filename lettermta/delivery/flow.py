"""What one receiver lets through: connections, a rate, and pauses, shared by all destinations that lead to it.

    OPEN ── a reply that a throttle rule knows ──> PAUSED ── time is over ──> OPEN      twice as long each time in a row

Connections adapt between one and the configured number: half as many after a push-back (421, 4.7.z, a time-out), one more after as many
successes as there are connections. The rate is kept by even intervals, so no window of time ever has more than it allows but for
:data:`SLACK_SECONDS`. Promises that whoever waits for a flow is told when it may go on, in the order in which it asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from lettermta import metrics
from lettermta.delivery.budget import ChannelBudget, Claimant
from lettermta.delivery.shaping import Limits
from lettermta.delivery.throttling import ThrottleRules
from lettermta.message import Reply, Verdict

MOST_DOUBLED = 8
"""How many times a rule's pause the longest one is."""
SETTLE_SECONDS = 2.0
"""Push-backs within this time of one that counted are taken for the same: they answer what was sent before it."""
LEARNED_SECONDS = 3600.0
"""For how long a push-back says how many connections there may be: a receiver that was dead is not to be remembered for ever."""
SLACK_SECONDS = 0.05
"""How much too early a message may go, so that late timers do not add up to a lower rate."""


class Flow:
    """One receiver's. ``name`` is for the log."""

    log = Logger()

    def __init__(self, name: str, limits: Limits, rules: ThrottleRules, clock: IReactorTime) -> None:
        self.name = name
        self.limits = limits
        self.budget = ChannelBudget(limits.connections)
        self.users = 0
        """Destinations that lead here."""
        self._rules = rules
        self._clock = clock
        self._count_as(limits.rule)
        self._successes = 0
        """Since the number of connections was last changed."""
        self._pushed_back = float("-inf")
        self._paused_until = float("-inf")
        self._paused_by: tuple[Reply, str | None] | None = None
        """What was said, and by which host, that began the last pause."""
        self._in_a_row = 0
        """How many pauses there were without a success between them."""
        self._next = float("-inf")
        """When the next message is due by the rate."""
        self._waiting: OrderedDict[Claimant, None] = OrderedDict()
        self._wake: IDelayedCall | None = None

    def _count_as(self, rule: str) -> None:
        self._results = {result: metrics.RECEIVER_RECIPIENTS[rule, result] for result in ("taken", "deferred", "refused")}

    def reshape(self, limits: Limits) -> None:
        """Other limits from now on."""
        if limits.rule != self.limits.rule:
            self._count_as(limits.rule)
        if limits.rate != self.limits.rate:
            self._next = float("-inf")
            if self._wake is not None:
                self._wake.reset(0.0)
        self.limits = limits
        if self.budget.limit > limits.connections or self._pushed_back == float("-inf"):
            self.budget.resize(limits.connections)

    def reconsider(self) -> None:
        """The rules have changed: a pause that they would not begin any more is over, and a longer one than they say is no longer."""
        if not self.paused or self._paused_by is None:
            return
        found = self._rules.find(*self._paused_by)
        if found is None or not found.pause:
            self._paused_until, self._in_a_row = float("-inf"), 0
        else:
            self._paused_until = min(self._paused_until, self._clock.seconds() + found.pause)
        if self._wake is not None:
            self._wake.reset(0.0)

    # -- asking

    @property
    def paused(self) -> bool:
        """Whether the receiver is left alone now."""
        return self._paused_until > self._clock.seconds()

    def shown(self) -> Mapping[str, object]:
        """How it stands, for operators; times are seconds from now."""
        now = self._clock.seconds()
        return {
            "connections": self.budget.taken,
            "connections_allowed": self.budget.limit,
            "paused_for": max(self._paused_until - now, 0.0),
            "next_message_in": max(self._next - now, 0.0),
            "held_back": self.held_back,
        }

    @property
    def held_back(self) -> bool:
        """Whether somebody waits for the flow: more comes in for it than it lets through."""
        return bool(self._waiting)

    @property
    def at_rest(self) -> bool:
        """Whether nothing would be lost with it: nobody uses it, and what it has learned is old, or is what it would begin anew with."""
        now = self._clock.seconds()
        as_new = self.budget.limit >= self.limits.connections or now - self._pushed_back >= LEARNED_SECONDS
        calm = as_new and self._paused_until <= now and self._next <= now
        return calm and not self.users and not self._waiting and self.budget.idle

    def open(self, claimant: Claimant) -> bool:
        """Whether a message may begin now; if not, the claimant is told when it may."""
        if self._paused_until == self._next:
            return True  # neither was ever set
        now = self._clock.seconds()
        until = max(self._paused_until, self._next - SLACK_SECONDS)
        if until > now:
            self._waiting[claimant] = None
            self._wake_at(until)
            return False
        return True

    def begin(self, messages: int) -> None:
        """So many messages are sent now."""
        rate = self.limits.rate
        if rate is not None:
            self._next = max(self._next, self._clock.seconds()) + messages * rate.seconds / rate.number

    def forget(self, claimant: Claimant) -> None:
        """The claimant wants nothing any more."""
        self._waiting.pop(claimant, None)
        self.budget.forget(claimant)
        if not self._waiting and self._wake is not None:
            self._wake.cancel()
            self._wake = None

    def _wake_at(self, until: float) -> None:
        if self._wake is None:
            self._wake = self._clock.callLater(max(until - self._clock.seconds(), 0.0), self._go_on)

    def _go_on(self) -> None:
        self._wake = None
        waiting, self._waiting = self._waiting, OrderedDict()
        while waiting:
            claimant, _ = waiting.popitem(last=False)
            claimant.pump()
            if self._waiting:
                # What the first ones took has closed it again: the others keep their places before those.
                waiting.update(self._waiting)
                self._waiting = waiting
                return

    # -- learning

    def told(self, verdicts: Sequence[Verdict], host: str | None) -> None:
        """An attempt is over; ``host`` said so."""
        taken = 0
        for verdict in verdicts:
            reply = verdict.reply
            if reply.positive:
                taken += 1
            else:
                self._results["refused" if reply.permanent else "deferred"].inc()
                self.refused(reply, verdict.remote, host)
        if taken:
            self._results["taken"].inc(taken)
            self.succeeded()

    def succeeded(self) -> None:
        """A message was taken."""
        limit, most = self.budget.limit, self.limits.connections
        if self._in_a_row and not self.paused:
            self._in_a_row = 0
        if limit < most:
            self._successes += 1
            if self._successes >= limit:
                self._successes = 0
                self.budget.resize(limit + 1)

    def refused(self, reply: Reply, remote: bool, host: str | None) -> None:
        """A message or a connection was not taken: learn from it, where it is about more than that."""
        if remote:
            found = self._rules.find(reply, host)
            if found is not None:
                if found.pause is not None:
                    self._push_back()
                    if found.pause:
                        self._pause(found.name, found.pause, reply, host)
                return
            if reply.code != 421 and not (reply.enhanced or "").startswith("4.7."):
                return
        elif reply.permanent or reply.enhanced not in ("4.4.1", "4.4.2"):
            return
        self._push_back()

    def _push_back(self) -> None:
        now = self._clock.seconds()
        if now - self._pushed_back >= SETTLE_SECONDS:
            self._pushed_back = now
            self._successes = 0
            self.budget.resize(max(self.budget.limit // 2, 1))

    def _pause(self, rule: str, seconds: float, reply: Reply, host: str | None) -> None:
        now = self._clock.seconds()
        if self._paused_until > now:
            return  # it answers what was sent before
        seconds *= min(1 << min(self._in_a_row, 10), MOST_DOUBLED)
        self._in_a_row += 1
        self._paused_until = now + seconds
        self._paused_by = reply, host
        metrics.THROTTLES[rule].inc()
        self.log.warn(
            "{name}: left alone for {seconds:.0f} s by throttle rule {rule}: {reply}",
            name=self.name,
            seconds=seconds,
            rule=rule,
            reply=str(reply),
        )


class Flows:
    """All flows, by name; those at rest are forgotten when there are many."""

    def __init__(self, rules: ThrottleRules, clock: IReactorTime, most: int = 1000) -> None:
        self._rules = rules
        self._clock = clock
        self._least = most
        self._most = most
        self._flows: dict[str, Flow] = {}
        self._measured: set[str] = set()
        """The rules that ever had a number, so that it goes back to 0."""

    def __len__(self) -> int:
        return len(self._flows)

    def of(self, name: str, limits: Limits) -> Flow:
        """The flow of that name, with these limits from now on."""
        flow = self._flows.get(name)
        if flow is None:
            if len(self._flows) >= self._most:
                for each in [each for each, known in self._flows.items() if known.at_rest]:
                    del self._flows[each]
                self._most = max(2 * len(self._flows), self._least)
            flow = self._flows[name] = Flow(name, limits, self._rules, self._clock)
        elif flow.limits is not limits and flow.limits != limits:
            flow.reshape(limits)
        return flow

    def reconsider(self) -> None:
        """The rules have changed."""
        for flow in self._flows.values():
            flow.reconsider()

    def known(self, name: str) -> Flow | None:
        """The flow of that name, if there is one."""
        return self._flows.get(name)

    def measure(self) -> None:
        """Set the gauges of all receivers."""
        seen: dict[str, list[int]] = {}
        for flow in self._flows.values():
            if not flow.limits.rule:
                continue
            numbers = (flow.budget.taken, flow.budget.limit, int(flow.paused), int(flow.held_back))
            seen[flow.limits.rule] = [a + b for a, b in zip(seen.get(flow.limits.rule, (0, 0, 0, 0)), numbers, strict=True)]
        self._measured.update(seen)
        gauges = (metrics.RECEIVER_CONNECTIONS, metrics.RECEIVER_ALLOWED, metrics.RECEIVERS_PAUSED, metrics.RECEIVERS_HELD_BACK)
        for rule in self._measured:
            for gauge, number in zip(gauges, seen.get(rule, (0, 0, 0, 0)), strict=True):
                gauge[rule].set(number)
