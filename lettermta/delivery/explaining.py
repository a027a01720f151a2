"""What would become of mail to an address, without sending any: the same parts that send it are asked, and tell.

Look-ups are real ones (MX, addresses, TLSA, the MTA-STS policy), so what is told is true for now. No connection to the receiver's hosts is
made: whether they answer, and what they offer, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from lettermta.accounts.directory import Directory
from lettermta.accounts.dns_records import return_path
from lettermta.accounts.model import Route
from lettermta.delivery.exchange import Lookup
from lettermta.delivery.routing import Routing
from lettermta.delivery.tls.policy import HostPolicy, Kind
from lettermta.delivery.transports.mx import MXTransport
from lettermta.delivery.transports.smarthost import SmarthostTransport
from lettermta.delivery.way import Elsewhere, Way
from lettermta.message import Lane, Unreachable, domain_of

_WHY = {
    Kind.OFF: "the configuration, the route or a shaping rule says off",
    Kind.OPPORTUNISTIC: "nobody asks for more: STARTTLS where it is offered, and in clear where it isn't",
    Kind.REQUIRE: "the configuration, the route or a shaping rule requires it",
    Kind.VERIFY: "it gets our password",
    Kind.MTA_STS_TESTING: "the domain has an MTA-STS policy in testing mode: what would fail is reported",
    Kind.MTA_STS: "the domain's MTA-STS policy is to be enforced",
    Kind.DANE: "the host has TLSA records that DNSSEC vouches for",
    Kind.DANE_UNUSABLE: "the host has TLSA records, but none that can be used",
}

Shown = Mapping[str, Any]


@frozen
class Explainer:
    """Asks the parts that delivery consists of."""

    routing: Routing
    directory: Directory
    takes_returns: bool = True
    """Whether a listener takes what comes back to return paths."""

    async def explain(self, address: str, route: Route) -> dict[str, Any]:
        """What would become of a message by ``route`` to the address, as JSON."""
        domain = domain_of(address)
        lane = Lane(route.id, domain)
        way, fault = await self._way(lane)
        transport = way.transport()
        hosts = await self._hosts(transport) if isinstance(transport, MXTransport) else []
        looked_up = fault is None
        if hosts and all(host["fault"] for host in hosts):
            fault = hosts[0]["fault"]
        return {
            "transport": self._transport(route),
            "fault": fault,
            "mx": hosts,
            "sources": _sources(transport) if isinstance(transport, MXTransport | SmarthostTransport) else None,
            "destination": {"key": way.name or way.key, "flow": way.flow},
            "limits": _limits(way) if looked_up else None,
            "schedule": self.routing.schedule_of(lane).delays,
            "lifetime": self.routing.lifetime_of(lane),
            "senders": [self._sender(route.project_id, name) for name in sorted(self.directory.domains(route.project_id))],
        }

    async def _way(self, lane: Lane) -> tuple[Way, str | None]:
        """The way, looked up; and why there is none."""
        way = self.routing.way(lane)
        transport = way.transport()
        if not isinstance(transport, Lookup):
            return way, None
        try:
            await transport.open()
        except Elsewhere:
            return self.routing.way(lane), None
        except Unreachable as error:
            return way, str(error.reply)
        return way, None

    def _transport(self, route: Route) -> str:
        if self.routing.capture_all:
            return "capture"
        if route.smarthost is not None:
            return f"smarthost {route.smarthost.host}:{route.smarthost.port}"
        if route.transport.value == "mx" and self.routing.relayhost is not None:
            return f"relayhost {self.routing.relayhost}"
        return route.transport.value

    async def _hosts(self, transport: MXTransport) -> Sequence[Shown]:
        """Each host, the most preferred ones first, with its addresses and what is asked of its TLS; none behind ourselves."""
        shown = []
        for rank, group in enumerate(transport.exchange.groups, 1):
            for host in group:
                seen = await transport.look(host)
                shown.append(
                    {
                        "host": host,
                        "rank": rank,
                        "addresses": [target.address for target in seen.targets],
                        "fault": seen.fault and str(seen.fault),
                        "tls": seen.policy and _tls(seen.policy),
                    }
                )
                if seen.looped:
                    return shown
        return shown

    def _sender(self, project_id: str, name: str) -> Shown:
        """What mail from one of the project's domains leaves with."""
        signing = self.directory.signing_keys(project_id, name)
        domain = self.directory.domain(project_id, name)
        keys = [] if signing is None else [{"selector": key.selector, "algorithm": key.algorithm.value} for key in signing[1]]
        return {
            "domain": name,
            "signed_by": signing and signing[0],
            "keys": keys,
            "return_path": return_path(name) if domain is not None and domain.uses_return_path(self.takes_returns) else None,
        }


def _sources(transport: MXTransport | SmarthostTransport) -> Shown | None:
    """The pool and its addresses; None where the system chooses."""
    pool = transport.pool
    if pool is None:
        return None
    shown = []
    for source in pool.sources:
        new = source.plan is not None and not pool.warm_up.over(source.name, source.plan)
        plan = pool.warm_up.look(source.name, source.plan, transport.receiver) if new and source.plan is not None else None
        shown.append({"name": source.name, "addresses": source.addresses, "hostname": source.hostname, "warm_up": plan})
    return {"pool": pool.name, "sources": shown}


def _limits(way: Way) -> Shown:
    told = asdict(way.limits, recurse=False)
    rate = way.limits.rate
    return {**told, "tls": told.get("tls") and told["tls"].value, "rate": rate and {"number": rate.number, "seconds": rate.seconds}}


def _tls(policy: HostPolicy) -> Shown:
    text = policy.reported.strings if policy.reported is not None else ()
    return {
        "policy": policy.kind.value,
        "mode": policy.tls.value,
        "verified": policy.verify,
        "why": _WHY[policy.kind],
        "fault": policy.fault and policy.fault.text,
        "text": list(text),
    }
