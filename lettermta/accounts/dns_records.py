"""What a domain's owner publishes in the DNS so that receivers trust the domain's mail: DKIM keys, return path, DMARC, SPF.

The DKIM records and the return path's CNAME are needed as they stand. DMARC and SPF are hints: a domain has one record of each, that may
be there already and say more; then ours is satisfied by what it says.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from attrs import frozen

from lettermta.accounts.model import Alignment, Domain, DomainKey, KeyState, Project

_LONGEST_STRING = 255
"""Octets of one string of a TXT record (RFC 1035 section 3.3.14); longer values are several, and read as one (RFC 6376 section 3.6.2.2)."""


class Purpose(enum.StrEnum):
    """What a record is for."""

    DKIM = "dkim"
    RETURN_PATH = "return-path"
    DMARC = "dmarc"
    SPF = "spf"


@frozen
class DNSRecord:
    """A record to publish."""

    purpose: Purpose
    name: str
    """Without the dot at its end."""
    type: str
    value: str
    """In one piece, without quotes; a name without the dot at its end."""
    verified: float | None
    """When it was last seen to be right."""
    key: DomainKey | None = None

    @property
    def needed(self) -> bool:
        """Whether mail suffers without it: it is no mere hint, nor a retired key's."""
        return self.purpose in (Purpose.DKIM, Purpose.RETURN_PATH) and (self.key is None or self.key.state is not KeyState.RETIRED)

    @property
    def zone_line(self) -> str:
        """The record as a line of a zone file (RFC 1035 section 5.1)."""
        return f"{self.name}. IN {self.type} {self.pasted}"

    @property
    def pasted(self) -> str:
        """The value as zone files and most providers' forms take it: a name with its dot, text as quoted strings of 255 characters."""
        if self.type != "TXT":
            return f"{self.value}."
        pieces = [self.value[start : start + _LONGEST_STRING] for start in range(0, len(self.value), _LONGEST_STRING)]
        return " ".join(f'"{piece}"' for piece in pieces)


def return_path(name: str) -> str:
    """The domain that a domain's bounces come back to."""
    return f"rp.{name}"


def sender_term(hostname: str) -> str:
    """The term of an SPF record that permits a host (RFC 7208 section 5), which may be an address literal (RFC 5321 section 4.1.3)."""
    if not hostname.startswith("["):
        return f"a:{hostname}"
    return address_term(hostname.strip("[]").removeprefix("IPv6:"))


def address_term(address: str) -> str:
    """The term of an SPF record that permits an address."""
    return f"ip6:{address}" if ":" in address else f"ip4:{address}"


def dns_records(
    domain: Domain, keys: Sequence[DomainKey], project: Project, hostname: str, bounce_host: str, sources: Sequence[str] = ()
) -> Sequence[DNSRecord]:
    """The records of a domain: ``hostname`` sends its mail, from these ``sources`` too, and ``bounce_host`` takes its bounces."""
    dkim = [
        DNSRecord(
            Purpose.DKIM,
            f"{key.selector}._domainkey.{domain.name}",
            "TXT",
            f"v=DKIM1; k={key.algorithm}; p={key.public}",
            key.verified,
            key,
        )
        for key in keys
    ]
    # Alignment of SPF stays relaxed (the default): the return path is below the domain.
    strict = "; adkim=s" if project.alignment is Alignment.STRICT else ""
    terms = " ".join(dict.fromkeys([sender_term(hostname), *map(address_term, sources)]))
    path = DNSRecord(Purpose.RETURN_PATH, return_path(domain.name), "CNAME", bounce_host, domain.return_path_verified)
    return [
        *dkim,
        *([] if bounce_host.startswith("[") else [path]),  # there is no alias of an address
        DNSRecord(Purpose.DMARC, f"_dmarc.{domain.name}", "TXT", f"v=DMARC1; p=none{strict}", domain.dmarc_verified),
        DNSRecord(Purpose.SPF, domain.name, "TXT", f"v=spf1 {terms} ~all", domain.spf_verified),
    ]
