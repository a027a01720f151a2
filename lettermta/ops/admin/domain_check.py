"""A domain's records as the DNS has them now, against what they are to be.

What is there but different is told apart from what is not there, and both from not knowing: a look-up that failed says nothing.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import dns.rdatatype
from attrs import evolve, frozen

from lettermta.accounts.dns_records import DNSRecord, Purpose, sender_term
from lettermta.accounts.model import Domain, KeyState
from lettermta.accounts.store import AccountStore
from lettermta.delivery.resolver import NoSuchDomain, Resolver, TemporaryDNSFailure

_MOST_LOOKUPS = 10
"""Terms of an SPF record that ask the DNS (RFC 7208 section 4.6.4)."""
_MECHANISM = re.compile(r"(all|include|a|mx|ip4|ip6)(?::([^/]*))?(/.*)?")
_MOST_ALIASES = 8
"""Of a return path, one of another."""


class Finding(enum.StrEnum):
    """What became of a record."""

    FOUND = "found"
    WRONG = "wrong"
    MISSING = "missing"
    UNKNOWN = "unknown"


@frozen
class Check:
    """A record and what there is in its place."""

    record: DNSRecord
    finding: Finding
    there: tuple[str, ...] = ()
    """What the DNS has there."""
    why: str = ""
    """What is wrong with it, or why it isn't known."""


async def check(resolver: Resolver, record: DNSRecord, hostname: str, sources: Sequence[str] = ()) -> Check:
    """Look one record up; ``hostname`` is the host that sends, from these ``sources`` too."""
    judge = {Purpose.DKIM: _dkim, Purpose.RETURN_PATH: _return_path, Purpose.DMARC: _dmarc}
    try:
        if record.purpose is Purpose.SPF:
            return await _spf(resolver, record, hostname, sources)
        return await judge[record.purpose](resolver, record)
    except TemporaryDNSFailure as fault:
        return Check(record, Finding.UNKNOWN, why=str(fault))


def note(store: AccountStore, domain: Domain, checks: Sequence[Check], now: float) -> Domain:
    """Keep when each record was seen to be right. One that is wrong or gone was not; one that isn't known stays as it was."""
    known = [each for each in checks if each.finding is not Finding.UNKNOWN]
    seen = {each.record.purpose: now if each.finding is Finding.FOUND else None for each in known if each.record.key is None}
    keys = {each.record.key.id: now if each.finding is Finding.FOUND else None for each in known if each.record.key is not None}
    store.note_keys(domain, keys)
    return store.update_domain(
        domain,
        lambda domain: evolve(
            domain,
            return_path_verified=seen.get(Purpose.RETURN_PATH, domain.return_path_verified),
            dmarc_verified=seen.get(Purpose.DMARC, domain.dmarc_verified),
            spf_verified=seen.get(Purpose.SPF, domain.spf_verified),
        ),
    )


def all_waiting_found(checks: Sequence[Check]) -> bool:
    """Whether there are keys that wait, and the records of all of them are there."""
    waiting = [each for each in checks if each.record.key is not None and each.record.key.state is KeyState.WAITING]
    return bool(waiting) and all(each.finding is Finding.FOUND for each in waiting)


async def _dkim(resolver: Resolver, record: DNSRecord) -> Check:
    """RFC 6376 section 3.6.1."""
    texts = await _texts(resolver, record.name)
    assert record.key is not None
    if not texts:
        return Check(record, Finding.MISSING)
    if len(texts) > 1:
        # RFC 6376 section 3.6.2.2: what comes of that is undefined.
        return Check(record, Finding.WRONG, texts, "there is more than one record")
    tags = _tags(texts[0])
    wrong = ""
    if _octets(tags.get("p", "")) != _octets(record.key.public):
        wrong = "it is revoked (p= is empty)" if tags.get("p") == "" else "its p= is another key, or cut short"
    elif tags.get("v", "DKIM1") != "DKIM1":
        wrong = "its v= is not DKIM1"
    elif "v" in tags and next(iter(tags)) != "v":
        wrong = "its v= is not what it begins with"
    elif "y" in tags.get("t", "").split(":"):
        wrong = "its t= has y, by which signatures count for nothing"
    elif tags.get("k", "rsa") != record.key.algorithm.value:
        wrong = f"its k= is not {record.key.algorithm}"
    elif "sha256" not in tags.get("h", "sha256").split(":"):
        wrong = "its h= leaves sha256 out"
    elif not {"*", "email"} & set(tags.get("s", "*").split(":")):
        wrong = "its s= leaves mail out"
    return Check(record, Finding.WRONG if wrong else Finding.FOUND, texts, wrong)


async def _return_path(resolver: Resolver, record: DNSRecord) -> Check:
    """An alias of the bounce host, maybe by others, or a domain whose MX it is, where a provider can't do the former."""
    aliases = await _aliases(resolver, record.name, record.value)
    there = aliases or await _exchanges(resolver, record.name)
    if not there:
        return Check(record, Finding.MISSING)
    if (aliases[-1:] or there) != (record.value,):
        return Check(record, Finding.WRONG, there, "it is an alias of another name" if aliases else "its MX is another host")
    if not (await _addresses(resolver, record.value) or (aliases and await _exchanges(resolver, record.value))):
        # Nothing could come back, and receivers refuse mail from a domain that has no host.
        return Check(record, Finding.WRONG, there, f"{record.value} has no address")
    return Check(record, Finding.FOUND, there)


async def _exchanges(resolver: Resolver, name: str) -> tuple[str, ...]:
    try:
        return tuple(host for _, host in sorted(await resolver.mx(name)))
    except NoSuchDomain:
        return ()


async def _aliases(resolver: Resolver, name: str, wanted: str) -> tuple[str, ...]:
    """The names that a name is an alias of, one after the other, up to the one that is wanted."""
    found: list[str] = []
    while name != wanted and len(found) < _MOST_ALIASES:
        targets = await _records(resolver, name, dns.rdatatype.CNAME)
        if not targets:
            break
        name = _name(targets[0].target)
        found.append(name)
    return tuple(found)


async def _dmarc(resolver: Resolver, record: DNSRecord) -> Check:
    """Its own record or, failing that, that of a domain above it (RFC 7489 section 6.6.3)."""
    name = record.name.removeprefix("_dmarc.")
    while "." in name:
        texts = tuple(text for text in await _texts(resolver, f"_dmarc.{name}") if text.lower().startswith("v=dmarc1"))
        if texts:
            wrong = ""
            if len(texts) > 1:
                wrong = "there is more than one record"
            elif _tags(texts[0]).get("p", "").lower() not in {"none", "quarantine", "reject"}:
                wrong = "its p= is none of none, quarantine, reject"
            return Check(record, Finding.WRONG if wrong else Finding.FOUND, texts, wrong)
        name = name.partition(".")[2]
    return Check(record, Finding.MISSING)


async def _spf(resolver: Resolver, record: DNSRecord, hostname: str, sources: Sequence[str]) -> Check:
    """Whether the domain's one record permits the host that sends, at each of its addresses (RFC 7208)."""
    texts = await _spf_texts(resolver, record.name)
    if not texts:
        return Check(record, Finding.MISSING)
    if len(texts) > 1:
        return Check(record, Finding.WRONG, texts, "there is more than one record")
    terms = texts[0].lower().split()[1:]
    literal = hostname.startswith("[")
    own = [hostname.strip("[]").removeprefix("IPv6:")] if literal else await _addresses(resolver, hostname)
    addresses = [*own, *sources]
    outside = [address for address in addresses if not await _SPFSearch(resolver).permits(record.name, terms, address)]
    named = sender_term(hostname).lower() in {term.lstrip("+") for term in terms}
    if not outside and (addresses or named):
        return Check(record, Finding.FOUND, texts)
    return Check(record, Finding.WRONG, texts, f"it doesn't permit {hostname}" + (f" ({', '.join(outside)})" if outside else ""))


class _SPFSearch:
    """As much of RFC 7208 as tells whether one address passes: without macros, ``exists`` and ``ptr``, which nobody's server needs."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._left = _MOST_LOOKUPS

    async def permits(self, domain: str, terms: Sequence[str], address: str) -> bool:
        """Whether the first mechanism that matches the address passes; without one it is for ``redirect`` to say (section 6.1)."""
        redirect = ""
        for term in terms:
            if term.startswith("redirect="):
                redirect = term.removeprefix("redirect=")
            elif await self._matches(term.lstrip("+-~?"), domain, address):
                return term[0] not in "-~?"
        return bool(redirect) and await self._of_another(redirect, address)

    async def _matches(self, mechanism: str, domain: str, address: str) -> bool:
        found = _MECHANISM.fullmatch(mechanism)
        if found is None:
            return False
        name, argument, prefix = found[1], found[2] or "", found[3] or ""
        if name in ("ip4", "ip6"):
            return _within(address, f"{argument}{prefix}")
        if name == "include":
            return await self._of_another(argument, address)
        if name == "all":
            return True
        if self._left <= 0:
            return False
        self._left -= 1
        four, _, six = prefix.partition("//")
        return any(
            _within(address, host + ((f"/{six}" if six else "") if ":" in host else four))
            for host in await self._named(name, argument or domain)
        )

    async def _of_another(self, domain: str, address: str) -> bool:
        if self._left <= 0:
            return False
        self._left -= 1
        texts = await _spf_texts(self._resolver, domain)
        return len(texts) == 1 and await self.permits(domain, texts[0].lower().split()[1:], address)

    async def _named(self, mechanism: str, domain: str) -> set[str]:
        hosts = [domain] if mechanism == "a" else (await _exchanges(self._resolver, domain))[:_MOST_LOOKUPS]
        return {address for host in hosts for address in await _addresses(self._resolver, host)}


def _within(address: str, network: str) -> bool:
    try:
        return ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


async def _addresses(resolver: Resolver, host: str) -> Sequence[str]:
    try:
        return await resolver.addresses(host)
    except NoSuchDomain:
        return ()


async def _spf_texts(resolver: Resolver, name: str) -> tuple[str, ...]:
    return tuple(text for text in await _texts(resolver, name) if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 "))


async def _texts(resolver: Resolver, name: str) -> tuple[str, ...]:
    """The TXT records of a name, the strings of each joined."""
    return tuple(b"".join(record.strings).decode("utf-8", "replace") for record in await _records(resolver, name, dns.rdatatype.TXT))


async def _records(resolver: Resolver, name: str, rdtype: dns.rdatatype.RdataType) -> Sequence[Any]:
    try:
        return (await resolver.lookup(name, rdtype)).records
    except NoSuchDomain:
        return ()


def _name(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower()


def _tags(text: str) -> dict[str, str]:
    """A tag list (RFC 6376 section 3.2), without white space."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {tag.strip(): "".join(value.split()) for tag, equals, value in pairs if equals}


def _octets(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
