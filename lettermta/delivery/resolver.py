"""Name look-ups for delivery: a stub resolver on the named recursive servers, with a cache.

It promises to tell three things apart that decide what becomes of mail (HARD-CASES row 20): a name that does not exist
(:class:`NoSuchDomain`, permanent), a name that has no such records (an empty answer), and not knowing
(:class:`TemporaryDNSFailure`: never a reason to give up, nor to ask for another type instead). A server that fails is no answer,
the next one is asked; what can't be an answer is never read as "no data".

Equal questions in flight are asked once. Time is bounded: two rounds over the servers at most, each try of ``timeout`` seconds,
for each CNAME hop that the server left to us. Names are absolute: no search list, no hosts file, and an IP address is no name.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype
import idna
from attrs import frozen
from dns.rdtypes.ANY.MX import MX
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, fail, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.delivery.dns_cache import LONGEST, LONGEST_NEGATIVE, Absence, Answer, AnswerCache
from lettermta.delivery.dns_wire import Server, TryFailed, ask
from lettermta.interfaces import IResolver

_ROUNDS = 2
_MOST_HOPS = 10
_MOST_AT_ONCE = 256
"""Questions on the wire at the same time, a socket each; more of them wait for their turn."""

_ASCII_NAME = re.compile(r"[!-\[\]-~]+")
"""Printable and without the backslash, which is an escape to the codec. Underscores occur in real host names."""


class DNSFailure(Exception):
    """A look-up came to nothing; ``name`` is what was looked up."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class NoSuchDomain(DNSFailure):
    """The name does not exist (NXDOMAIN, RFC 1035 section 4.1.1), nor do names below it (RFC 8020): permanent."""

    def __init__(self, name: str, text: str = "does not exist (NXDOMAIN)") -> None:
        super().__init__(name, f"{name} {text}")


class InvalidName(NoSuchDomain):
    """The name can't exist: too long, an empty label, or not to be encoded by IDNA 2008 (RFC 5891). Nobody was asked."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, f"is no domain name ({reason})")


class TemporaryDNSFailure(DNSFailure):
    """No server would tell. ``tries`` has each failed try in order; ``reason``, ``server`` and ``rcode`` are those of the last one."""

    def __init__(self, name: str, rdtype: dns.rdatatype.RdataType, tries: Sequence[TryFailed]) -> None:
        told = "; ".join(dict.fromkeys(str(failed) for failed in tries))
        super().__init__(name, f"{dns.rdatatype.to_text(rdtype)} of {name}: {told}")
        self.tries = tuple(tries)
        self.reason = tries[-1].reason
        self.server = str(tries[-1].server)
        self.rcode = tries[-1].rcode
        """The name of the response code (SERVFAIL, REFUSED …), or None when there was none."""


def ascii_name(domain: str) -> str:
    """A domain as the DNS has it: lower case, A-labels, no trailing dot. Raises :class:`InvalidName`.

    Non-ASCII labels go through IDNA 2008, after the mapping for what people type (capitals, wide dots: UTS 46, non-transitional).
    """
    text = domain
    if not text.isascii():
        try:
            mapped = idna.uts46_remap(text, std3_rules=False)
            text = ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split("."))
        except UnicodeError as error:
            raise InvalidName(domain, str(error)) from error
    text = text.lower().removesuffix(".")
    if not _ASCII_NAME.fullmatch(text):
        raise InvalidName(domain, "empty" if not text else "characters that no name has")
    return text


def _wire_name(domain: str) -> dns.name.Name:
    """The same for the codec, which knows the lengths (RFC 1035 section 2.3.4); ``domain`` comes from :func:`ascii_name`."""
    try:
        return dns.name.Name([*(label.encode("ascii") for label in domain.split(".")), b""])
    except (dns.exception.DNSException, ValueError) as error:
        raise InvalidName(domain, str(error)) from error


def _text(name: dns.name.Name) -> str:
    """A name from an answer: lower case, without the trailing dot; the root is the empty string."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def system_servers(path: str = "/etc/resolv.conf") -> list[tuple[str, int]]:
    """The name servers that the system uses, as (address, port); the local one when the file names none or isn't there."""
    try:
        lines = Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    servers = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                servers.append(Server.parse(words[1], 53))
            except ValueError:
                continue
    return [(server.host, server.port) for server in servers] or [("127.0.0.1", 53)]


class _Finding(enum.Enum):
    """What one server's answer comes to."""

    RECORDS = enum.auto()
    NO_RECORDS = enum.auto()
    NO_NAME = enum.auto()
    ELSEWHERE = enum.auto()
    """A CNAME leads to a name of which the answer says no more."""


@frozen
class _Step:
    server: Server
    finding: _Finding
    name: dns.name.Name
    hops: int
    ttl: float
    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool


def _read(server: Server, message: dns.message.QueryMessage) -> _Step:
    """What a NOERROR or NXDOMAIN says. Raises TryFailed for what is no answer to us: a referral, a loop, records for no name."""
    try:
        chain = message.resolve_chaining()
    except dns.message.ChainTooLong as error:
        raise TryFailed(server, "CNAME loop") from error
    except dns.exception.DNSException as error:
        raise TryFailed(server, f"malformed answer ({type(error).__name__})") from error
    kinds = {rrset.rdtype for rrset in message.authority}
    # RFC 2308 section 5: an absence without an SOA record has no time to live.
    ttl = min(chain.minimum_ttl, LONGEST_NEGATIVE) if dns.rdatatype.SOA in kinds else 0.0
    records: tuple[dns.rdata.Rdata, ...] = ()
    if chain.answer is not None:
        finding, records, ttl = _Finding.RECORDS, tuple(chain.answer), min(chain.minimum_ttl, LONGEST)
    elif message.rcode() == dns.rcode.NXDOMAIN:
        finding = _Finding.NO_NAME
    elif dns.rdatatype.SOA in kinds:
        finding = _Finding.NO_RECORDS
    elif chain.cnames:
        finding, ttl = _Finding.ELSEWHERE, min(min(rrset.ttl for rrset in chain.cnames), LONGEST)
    elif dns.rdatatype.NS in kinds or not message.flags & (dns.flags.RA | dns.flags.AA):
        # RFC 2308 section 2.2: "ask there" is not "there is none". A server that doesn't recurse is of no use to a stub.
        raise TryFailed(server, "referral instead of an answer")
    else:
        finding = _Finding.NO_RECORDS
    authenticated = bool(message.flags & dns.flags.AD)
    return _Step(server, finding, chain.canonical_name, len(chain.cnames), ttl, records, authenticated)


@implementer(IResolver)
class Resolver:
    """Asks recursive ``servers`` (address, port), the first that works preferred; ``timeout`` is seconds a try.

    ``validating``: the operator vouches for these servers, that they validate DNSSEC and that nobody is between them and us. Only then is
    an answer ever authenticated, whatever its AD bit says (RFC 6840 section 5.8).
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[tuple[str, int]],
        timeout: float,
        cache_entries: int = 10_000,
        *,
        validating: bool = False,
    ) -> None:
        if not servers:
            raise ValueError("a resolver needs at least one server")
        self._reactor = reactor
        self._servers = [Server.parse(host, port) for host, port in servers]
        self._timeout = timeout
        self._validating = validating
        self._cache = AnswerCache(cache_entries)
        self._in_flight: dict[tuple[str, dns.rdatatype.RdataType], list[Deferred[Answer]]] = {}
        self._slots = DeferredSemaphore(_MOST_AT_ONCE)

    def mx(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """The MX records as (preference, host), unsorted; empty when the name exists and has none.

        A null MX (RFC 7505) is ``[(0, "")]``. Fails with :class:`NoSuchDomain` or :class:`TemporaryDNSFailure`.
        """

        def pairs(answer: Answer) -> Sequence[tuple[int, str]]:
            records = cast(tuple[MX, ...], answer.records)
            return [(record.preference, _text(record.exchange)) for record in records]

        return self.lookup(domain, dns.rdatatype.MX).addCallback(pairs)

    def addresses(self, host: str) -> Deferred[Sequence[str]]:
        """The IPv6 and then the IPv4 addresses of a host; empty when the name exists and has none.

        One family that can't be looked up doesn't matter while the other has addresses. Fails as :meth:`mx` does.
        """

        def gather(results: list[tuple[bool, Any]]) -> Sequence[str]:
            found = [str(record.address) for ok, answer in results if ok for record in answer.records]
            failures: list[Failure] = [failure for ok, failure in results if not ok]
            if found:
                return found
            for failure in failures:
                if not isinstance(failure.value, NoSuchDomain):
                    failure.raiseException()
            if len(failures) == len(results):
                failures[0].raiseException()
            return found

        families = (dns.rdatatype.AAAA, dns.rdatatype.A)
        return DeferredList([self.lookup(host, family) for family in families], consumeErrors=True).addCallback(gather)

    def lookup(self, name: str, rdtype: dns.rdatatype.RdataType) -> Deferred[Answer]:
        """The records of any one type, CNAMEs followed. Fails as :meth:`mx` does; cancelling it lets the question go on for others."""
        try:
            domain = ascii_name(name)
            known = self._cache.get(domain, rdtype, self._reactor.seconds())
            if known is not None:
                _count(rdtype, "cached")
                return succeed(_told(domain, known))
            asked = _wire_name(domain)
        except InvalidName as error:
            _count(rdtype, "no_such_domain")
            return fail(error)
        except NoSuchDomain as error:
            return fail(error)
        waiter: Deferred[Answer] = Deferred()
        key = (domain, rdtype)
        waiting = self._in_flight.get(key)
        if waiting is not None:
            _count(rdtype, "joined")
            waiting.append(waiter)
            return waiter
        self._in_flight[key] = [waiter]
        Deferred.fromCoroutine(self._resolve(domain, asked, rdtype)).addBoth(self._tell, key, self._reactor.seconds())
        return waiter

    def measure(self) -> None:
        """Set the gauge that tells how much is in the cache."""
        metrics.DNS_CACHE_ENTRIES.set(len(self._cache))

    def _tell(self, result: Answer | Failure, key: tuple[str, dns.rdatatype.RdataType], began: float) -> None:
        metrics.DNS_SECONDS.observe(self._reactor.seconds() - began)
        _count(key[1], _result(result))
        for waiter in self._in_flight.pop(key):
            waiter.callback(result)

    async def _resolve(self, domain: str, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Answer:
        """Ask, follow CNAMEs across answers (RFC 1034 section 3.6.2), and keep what was learnt."""
        seen = {name}
        hops, ttl, authenticated = 0, LONGEST, True
        while True:
            step = await self._ask_servers(domain, name, rdtype)
            hops += step.hops
            ttl = min(ttl, step.ttl)
            authenticated = authenticated and step.authenticated and self._validating
            name = step.name
            if hops > _MOST_HOPS or (step.finding is _Finding.ELSEWHERE and name in seen):
                raise TemporaryDNSFailure(domain, rdtype, [TryFailed(step.server, "CNAME loop, or too long a chain")])
            if step.finding is not _Finding.ELSEWHERE:
                break
            seen.add(name)
        now = self._reactor.seconds()
        known: Answer | Absence
        if step.finding is _Finding.NO_NAME:
            known = Absence(now + ttl)
        else:
            known = Answer(_text(name), step.records, authenticated, now + ttl)
        self._cache.put(domain, rdtype, known, now)
        return _told(domain, known)

    async def _ask_servers(self, domain: str, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> _Step:
        """The first server's answer that is one. In the second round only those are asked that were silent in the first."""
        tries: list[TryFailed] = []
        async with self._slots:
            servers = list(self._servers)
            for _ in range(_ROUNDS):
                silent = []
                for server in servers:
                    try:
                        return _read(server, await ask(self._reactor, server, name, rdtype, self._timeout))
                    except TryFailed as failed:
                        tries.append(failed)
                        metrics.DNS_TRIES_FAILED[_cause(failed)].inc()
                        if not failed.answered:
                            silent.append(server)
                            self._ask_last(server)
                servers = silent
        raise TemporaryDNSFailure(domain, rdtype, tries)

    def _ask_last(self, server: Server) -> None:
        """Have later questions not wait for a server that is down, while there are others."""
        self._servers.remove(server)
        self._servers.append(server)


def _count(rdtype: dns.rdatatype.RdataType, result: str) -> None:
    metrics.DNS_LOOKUPS[dns.rdatatype.to_text(rdtype), result].inc()


def _result(result: Answer | Failure) -> str:
    if isinstance(result, Answer):
        return "found" if result.records else "empty"
    return "no_such_domain" if isinstance(result.value, NoSuchDomain) else "failed"


def _cause(failed: TryFailed) -> str:
    if not failed.answered:
        return "silent"
    return failed.rcode or "unusable"


def _told(domain: str, known: Answer | Absence) -> Answer:
    if isinstance(known, Absence):
        raise NoSuchDomain(domain)
    return known
