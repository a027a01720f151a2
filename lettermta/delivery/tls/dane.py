"""Finding a host's TLSA records (RFC 7672 section 2.2, RFC 7671 section 7).

They count only where every answer on the way was validated: the MX records (whoever asks here has seen to that), the host's addresses,
the TLSA records themselves. A secure "there is none" and an insecure zone mean that DANE does not apply; an answer that could not be
had, bogus ones among them, means that the host must not be used now, which is what TemporaryDNSFailure says here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import dns.rdtypes.ANY.TLSA
from attrs import frozen
from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred

from lettermta.delivery.dns_cache import Answer
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.tls.tlsa import TLSA


class Lookups(Protocol):
    """What is asked of a resolver; see :class:`~lettermta.delivery.resolver.Resolver`."""

    def lookup(self, name: str, rdtype: RdataType) -> Deferred[Answer]:
        """The records of one type."""


@frozen
class Found:
    """A host's TLSA records, with the base domain that has them: what SNI says, and what certificates are for."""

    base: str
    records: tuple[TLSA, ...]


async def find(resolver: Lookups, host: str, port: int) -> Found | None:
    """The TLSA records of a host whose name is authenticated; None: DANE does not apply to it. Raises TemporaryDNSFailure."""
    for base in await _bases(resolver, host):
        try:
            answer = await resolver.lookup(f"_{port}._tcp.{base}", RdataType.TLSA)
        except NoSuchDomain:
            continue
        if answer.authenticated and answer.records:
            records = cast(tuple[dns.rdtypes.ANY.TLSA.TLSA, ...], answer.records)
            return Found(base, tuple(TLSA(one.usage, one.selector, one.mtype, bytes(one.cert)) for one in records))
    return None


async def _bases(resolver: Lookups, host: str) -> Sequence[str]:
    """The domains that may have the records, the best one first. Hosts in insecure zones are not asked for: some of their servers fail
    at the very question (RFC 7672 section 2.2.2).
    """
    answers = await _addresses(resolver, host)
    secure = bool(answers) and all(answer.authenticated for answer in answers)
    aliased = [answer.name for answer in answers if answer.name != host]
    if not aliased:
        return [host] if secure else []
    if secure:
        return [aliased[0], host]
    # The alias leads out of what is signed: it counts itself, if it is signed (RFC 7672 section 2.2.2).
    try:
        alias = await resolver.lookup(host, RdataType.CNAME)
    except NoSuchDomain:
        return []
    return [host] if alias.authenticated and alias.records else []


async def _addresses(resolver: Lookups, host: str) -> list[Answer]:
    """The answers that have addresses. One family that can't be looked up does not matter while the other has some."""
    found: list[Answer] = []
    failure: TemporaryDNSFailure | None = None
    for family in (RdataType.AAAA, RdataType.A):
        try:
            answer = await resolver.lookup(host, family)
        except NoSuchDomain:
            continue
        except TemporaryDNSFailure as error:
            failure = error
            continue
        if answer.records:
            found.append(answer)
    if not found and failure is not None:
        raise failure
    return found
