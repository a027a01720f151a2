"""What has been learnt from the DNS, kept until it expires: bounded, the least recently used entry goes first."""

from __future__ import annotations

from collections import OrderedDict

import dns.rdata
import dns.rdatatype
from attrs import frozen

LONGEST = 86_400.0
"""Seconds that an answer is kept at most, whatever its TTL says."""

LONGEST_NEGATIVE = 3_600.0
"""Seconds that an absence is kept at most (RFC 2308 section 5 advises one to three hours)."""

_MOST_RECORDS = 50
"""Larger answers are given but not kept, so that a stranger's zone can't fill the memory."""


@frozen
class Answer:
    """The records of one type that a name has; none when the name exists without them."""

    name: str
    """The name that has the records, in lower case: another than the one asked for when CNAME records led there."""
    records: tuple[dns.rdata.Rdata, ...]
    authenticated: bool
    """Every answer on the way had the AD bit (RFC 4035 section 3.2.3), and the operator vouches for the servers."""
    expires: float
    """In the reactor's seconds."""


@frozen
class Absence:
    """The name does not exist, whatever the type (NXDOMAIN, RFC 2308 section 2.1)."""

    expires: float


class AnswerCache:
    """Holds at most ``entries`` answers and absences, by name (in lower case) and type."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._known: OrderedDict[tuple[str, dns.rdatatype.RdataType | None], Answer | Absence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, name: str, rdtype: dns.rdatatype.RdataType, now: float) -> Answer | Absence | None:
        """What is known and has not expired at ``now``."""
        for key in ((name, rdtype), (name, None)):
            known = self._known.get(key)
            if known is None:
                continue
            if known.expires > now:
                self._known.move_to_end(key)
                return known
            del self._known[key]
        return None

    def put(self, name: str, rdtype: dns.rdatatype.RdataType, known: Answer | Absence, now: float) -> None:
        """Keep what was learnt at ``now``; what has no time to live is not kept."""
        if known.expires <= now or (isinstance(known, Answer) and len(known.records) > _MOST_RECORDS):
            return
        key = (name, rdtype if isinstance(known, Answer) else None)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)
