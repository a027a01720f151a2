"""Who may connect, and how a wrong password is answered (HARD-CASES rows 10 and 11).

Two objects that know neither sockets nor the reactor, and ask an injected clock (whose time must not jump: a reactor's does not):

- :class:`Admission` counts connections in all, for each address and for each network, and names the one that should make room;
- :class:`LoginGuard` counts failed logins for each source and account, says how long their answer waits, and shuts sources out for a while.

Neither of them refuses a client that is well-behaved because of what another address does, nor a right password because of wrong ones for
the same account: whoever can guess a user name could lock its owner out. Each call takes constant time, and memory is bounded whatever
the number of addresses: the first counts only open connections, the second forgets what was longest untouched.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from lettermta.config import Network
from lettermta.message import Reply

IDLE_BEFORE_YIELDING = 5.0
"""Seconds of silence before a connection may be ended in another's favour: nobody who is in the middle of saying hello is."""
FIRST_DELAY = 0.5
"""Seconds that the answer to a first failed login waits; each further one doubles it."""
LONGEST_DELAY = 8.0
HALF_LIFE = 600.0
"""Seconds in which half of what was held against a source or an account is forgotten."""
MOST_REMEMBERED = 50_000
"""Sources, and accounts, that failed logins are remembered of."""

TOO_MANY_IN_ALL = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_FROM_YOU = Reply(421, "4.7.0", "Too many connections from your address, try again later")
SHUT_OUT = Reply(421, "4.7.0", "Too many failed logins from your address, try again later")


def network_of(address: str) -> str:
    """The network that an address counts for: its /24, or for IPv6 its /64, which is what one customer has at the least."""
    parsed = ipaddress.ip_address(address)
    return str(ipaddress.ip_network((parsed, 24 if parsed.version == 4 else 64), strict=False))


def _source_of(address: str) -> str:
    """Who is held responsible for a failed login: an IPv4 address, or an IPv6 network, in which anyone has addresses without end."""
    return network_of(address) if ":" in address else address


class _Exempt:
    """Networks that the caps per address and per network, and shutting out, do not hold for: proxies, gateways, this machine."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: str) -> bool:
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in self._networks)


# -- connections


class Cause(enum.Enum):
    """Why a connection is denied, as log and counters call it."""

    ALL = "connections in all"
    ADDRESS = "connections of its address"
    NETWORK = "connections of its network"
    FAILED_LOGINS = "failed logins"


@frozen
class Denied:
    """The connection is to be answered by ``reply`` and closed."""

    reply: Reply
    cause: Cause


@define(eq=False)
class Visit:
    """One connection that was let in. ``connection`` is the caller's own, and not looked at here."""

    address: str
    connection: object
    network: str = field(repr=False)
    counted: bool = field(repr=False)
    """Whether its address and its network have caps."""
    seen: float


@frozen
class Admitted:
    """The connection may go on; ``yields``, if any, is the one to be ended in its favour (421), and has been counted out already."""

    visit: Visit
    yields: Visit | None = None


@frozen
class Caps:
    """Most connections at a time; the networks have caps of their own so that neighbours don't add up to an attack."""

    connections: int
    per_address: int
    per_network: int


class Admission:
    """Counts the connections of a whole process."""

    def __init__(self, caps: Caps, exempt: Sequence[Network], clock: IReactorTime) -> None:
        self.caps = caps
        self._exempt = _Exempt(exempt)
        self._clock = clock
        self._visits: set[Visit] = set()
        self._anonymous: OrderedDict[Visit, None] = OrderedDict()
        """Those that have not logged in, the longest idle one first."""
        self._addresses: dict[str, int] = {}
        self._networks: dict[str, int] = {}

    def follow(self, caps: Caps, exempt: Sequence[Network]) -> None:
        """Other caps, for connections to come; those that are there stay."""
        self.caps = caps
        self._exempt = _Exempt(exempt)

    def __len__(self) -> int:
        return len(self._visits)

    def enter(self, address: str, connection: object) -> Admitted | Denied:
        """A connection from ``address``. When it was let in, :meth:`leave` has to be called at its end."""
        network = network_of(address)
        counted = address not in self._exempt
        if counted:
            if self._addresses.get(address, 0) >= self.caps.per_address:
                return Denied(TOO_MANY_FROM_YOU, Cause.ADDRESS)
            if self._networks.get(network, 0) >= self.caps.per_network:
                return Denied(TOO_MANY_FROM_YOU, Cause.NETWORK)
        yields = None
        if len(self._visits) >= self.caps.connections:
            yields = self.first_to_go()
            if yields is None:
                return Denied(TOO_MANY_IN_ALL, Cause.ALL)
            self.leave(yields)
        visit = Visit(address, connection, network, counted, self._clock.seconds())
        self._visits.add(visit)
        self._anonymous[visit] = None
        if counted:
            self._addresses[address] = self._addresses.get(address, 0) + 1
            self._networks[network] = self._networks.get(network, 0) + 1
        return Admitted(visit, yields)

    def first_to_go(self) -> Visit | None:
        """The connection that is idle longest of those that have not logged in; None when none is idle for long enough."""
        visit = next(iter(self._anonymous), None)
        if visit is None or self._clock.seconds() - visit.seen < IDLE_BEFORE_YIELDING:
            return None
        return visit

    def active(self, visit: Visit) -> None:
        """The client of ``visit`` has given a command."""
        if visit in self._anonymous:
            visit.seen = self._clock.seconds()
            self._anonymous.move_to_end(visit)

    def logged_in(self, visit: Visit) -> None:
        """From now on ``visit`` makes room for nobody."""
        self._anonymous.pop(visit, None)

    def leave(self, visit: Visit) -> None:
        """The connection has ended; more calls change nothing."""
        if visit not in self._visits:
            return
        self._visits.discard(visit)
        self._anonymous.pop(visit, None)
        if visit.counted:
            _decrease(self._addresses, visit.address)
            _decrease(self._networks, visit.network)


def _decrease(counts: dict[str, int], key: str) -> None:
    if counts[key] == 1:
        del counts[key]
    else:
        counts[key] -= 1


# -- failed logins


@define
class _Record:
    """What is held against somebody: a number that decays, as of a moment."""

    weight: float
    moment: float
    shut_out_until: float = -math.inf

    @property
    def failures(self) -> int:
        return round(self.weight)

    def crosses(self, limit: int) -> bool:
        """Whether the last failure has brought this record to ``limit``."""
        return self.failures >= limit > round(self.weight - 1.0)


class _Memory:
    """Records by key, of which those untouched for longest are forgotten first."""

    def __init__(self, clock: IReactorTime, most: int) -> None:
        self._clock = clock
        self._most = most
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, key: str) -> _Record:
        """One more failure of ``key``."""
        now = self._clock.seconds()
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record(1.0, now)
            if len(self._records) > self._most:
                self._records.popitem(last=False)
            return record
        record.weight = record.weight * 0.5 ** ((now - record.moment) / HALF_LIFE) + 1.0
        record.moment = now
        self._records.move_to_end(key)
        return record

    def get(self, key: str) -> _Record | None:
        return self._records.get(key)

    def forget(self, key: str) -> None:
        self._records.pop(key, None)


@frozen
class FailedLogin:
    """What a failed login comes to."""

    delay: float
    """Seconds that its answer waits; the same whatever the cause of the failure."""
    last: bool
    """The session has had its last try and is to end (421); unless its address is exempt, :meth:`LoginGuard.denies` it from now on."""
    suspicious: bool
    """The account has just come to as many failures, from anywhere, as shut out a source: worth an event, though it stays usable."""


class LoginGuard:
    """Failed logins of a whole process. ``most`` is limits.auth_failures; ``shut_out_seconds`` how long a source is then shut out."""

    def __init__(
        self, most: int, shut_out_seconds: float, exempt: Sequence[Network], clock: IReactorTime, *, remembered: int = MOST_REMEMBERED
    ) -> None:
        self._most = most
        self._shut_out_seconds = shut_out_seconds
        self._exempt = _Exempt(exempt)
        self._clock = clock
        self._sources = _Memory(clock, remembered)
        self._accounts = _Memory(clock, remembered)

    def follow(self, most: int, exempt: Sequence[Network]) -> None:
        """Other limits, for logins to come; who is shut out stays so, unless it is exempt now."""
        self._most = most
        self._exempt = _Exempt(exempt)

    def __len__(self) -> int:
        return len(self._sources) + len(self._accounts)

    def denies(self, address: str) -> Denied | None:
        """What to answer a connection (or an AUTH) from ``address`` with, or None when it may try."""
        record = self._sources.get(_source_of(address))
        if record is None or record.shut_out_until <= self._clock.seconds() or address in self._exempt:
            return None
        return Denied(SHUT_OUT, Cause.FAILED_LOGINS)

    def failed(self, address: str, account: str, in_session: int) -> FailedLogin:
        """A login has failed. ``account`` is whose it was, as far as is known: ``project/user``, or the user name alone.

        ``in_session`` is how many logins have failed in the session, this one included.
        """
        suspicious = self._accounts.add(account).crosses(self._most)
        if address in self._exempt:
            # Everyone behind a gateway shares its address: only the session answers for itself.
            return FailedLogin(_delay(in_session), in_session >= self._most, suspicious)
        record = self._sources.add(_source_of(address))
        failures = max(in_session, record.failures)
        if failures >= self._most:
            record.shut_out_until = self._clock.seconds() + self._shut_out_seconds
        return FailedLogin(_delay(failures), failures >= self._most, suspicious)

    def succeeded(self, address: str) -> None:
        """A login has succeeded: one application with a wrong token must not shut out the others of its address."""
        self._sources.forget(_source_of(address))


def _delay(failures: int) -> float:
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
