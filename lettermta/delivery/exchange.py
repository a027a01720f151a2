"""The hosts that take a domain's mail (RFC 5321 section 5.1, null MX by RFC 7505), and for how long that is taken as known.

Promises that not knowing is never taken for knowing: a look-up that fails is temporary, and the domain's own address stands in only when
it is certain that there is no MX record (HARD-CASES row 20). Permanent are a domain that doesn't exist, one that takes no mail, and one
whose best host is ourselves.

What is known is a memory of the resolver's answers, which follow their TTL: it is at most :data:`FRESH_SECONDS` older than they are.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from itertools import groupby

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.shaping import Limits
from lettermta.delivery.tls.decision import DomainPolicy, TLSPolicies
from lettermta.delivery.transports.counting import counted
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.way import Elsewhere
from lettermta.interfaces import IChannel, IResolver, ITransport
from lettermta.message import Reply, Unreachable

FRESH_SECONDS = 10.0
"""How long the resolver isn't asked again, whose own cache answers in between."""
MOST_KNOWN = 10_000
"""Domains in memory; the one that was looked up first goes first."""
MOST_HOSTS = 20
"""Hosts of one domain that count, the best ones."""
LOOK_UP = Limits(connections=1, rule="")
"""For a domain whose exchange isn't known: one question at a time, counted for no receiver."""
_NAMED = 3
"""Hosts that a key tells by name; of more it tells the number."""


@frozen
class Exchange:
    """The hosts of a domain, the most preferred group first; ``implicit``: the domain itself, for want of MX records."""

    domain: str
    groups: tuple[tuple[str, ...], ...]
    implicit: bool = False
    tls: str = ""
    """What the TLS policies for the domain have in common with those of others (:attr:`~.tls.decision.DomainPolicy.shared`)."""
    policy: DomainPolicy | None = field(default=None, eq=False, repr=False)
    """The policies themselves, as they were looked up. They hold for all domains that share channels with this one, whatever becomes of
    its own policies meanwhile: then it shares other channels.
    """
    key: str = field(init=False)
    """The same for all domains that have the same hosts, whatever their preferences are."""

    @key.default
    def _make_key(self) -> str:
        names = sorted({host for group in self.groups for host in group})
        if len(names) <= _NAMED:
            return f"mx {' '.join(names)}"
        digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:12]
        return f"mx {' '.join(self.groups[0][:_NAMED])} of {len(names)} ({digest})"


async def find(resolver: IResolver, domain: str, hostname: str) -> Exchange:
    """Look up the exchange of a domain (in lower case, or an address literal in brackets); ``hostname`` is ours.

    Raises Unreachable with the reply that its mail gets.
    """
    if domain.startswith("["):
        return Exchange(domain, ((domain,),))
    try:
        records = list(await resolver.mx(domain))
    except NoSuchDomain as error:
        raise Unreachable(Reply(556, "5.1.10", f"The domain can't receive mail: {error}")) from None
    except TemporaryDNSFailure as error:
        raise Unreachable(Reply(451, "4.4.3", f"Looking up {domain} failed: {error}")) from None
    hosts = sorted((preference, host.rstrip(".").lower()) for preference, host in records)
    if records and not any(host for _, host in hosts):
        raise Unreachable(Reply(556, "5.1.10", f"{domain} takes no mail (null MX)"))
    groups = _groups([(preference, host) for preference, host in hosts if host] or [(0, domain)], hostname.rstrip(".").lower())
    if not groups:
        raise Unreachable(Reply(554, "5.4.6", f"Mail for {domain} would come back to us: a loop"))
    return Exchange(domain, groups, implicit=not records)


def _groups(records: Iterable[tuple[int, str]], ourselves: str) -> tuple[tuple[str, ...], ...]:
    """By preference; what is no better than ourselves is left out (RFC 5321 section 5.1), as is all behind :data:`MOST_HOSTS`."""
    groups: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for _, group in groupby(records, key=lambda record: record[0]):
        names = [host for _, host in group]
        if ourselves in names:
            break
        fresh = tuple(dict.fromkeys(host for host in names if host not in seen))[: MOST_HOSTS - len(seen)]
        seen.update(fresh)
        if fresh:
            groups.append(fresh)
    return tuple(groups)


class Exchanges:
    """What is known of domains now. Bounded; asks nobody by itself."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Exchange]] = OrderedDict()

    def get(self, domain: str) -> Exchange | None:
        """The exchange of a domain, if it was looked up a moment ago."""
        known = self._known.get(domain)
        return known[1] if known is not None and known[0] > self._clock.seconds() else None

    def last(self, domain: str) -> Exchange | None:
        """The same, however long ago that was."""
        known = self._known.get(domain)
        return None if known is None else known[1]

    def latest(self, exchange: Exchange) -> Exchange:
        """What is known now of the exchange's domain, where it is the same set of hosts under the same policies."""
        known = self.last(exchange.domain)
        return known if known is not None and (known.key, known.tls) == (exchange.key, exchange.tls) else exchange

    def put(self, exchange: Exchange) -> None:
        """It has just been looked up. Where nothing has changed, the object that is known stays."""
        _, known = self._known.pop(exchange.domain, (0.0, exchange))
        exchange = known if known == exchange else exchange
        self._known[exchange.domain] = (self._clock.seconds() + FRESH_SECONDS, exchange)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)


@implementer(ITransport)
@frozen(eq=False)
class Lookup:
    """The way of mail for a domain whose exchange isn't known now: opening a channel looks it up, and then its mail goes elsewhere."""

    domain: str
    resolver: IResolver
    settings: DeliverySettings
    exchanges: Exchanges
    policies: TLSPolicies | None = None

    def open(self) -> Deferred[IChannel]:
        """Fails in any case: with Elsewhere once the exchange is known, else with Unreachable."""
        return counted("mx", Deferred.fromCoroutine(self._look_up()))

    async def _look_up(self) -> IChannel:
        exchange = await find(self.resolver, self.domain, self.settings.hostname)
        if self.policies is not None and not self.domain.startswith("["):
            policy = await self.policies.of_domain(self.domain, self.settings.tls)
            exchange = evolve(exchange, tls=policy.shared, policy=policy)
        self.exchanges.put(exchange)
        raise Elsewhere
