"""How sessions with one domain's hosts went on one day, as data: what a report on TLS tells (RFC 8460 section 4).

Bounded: of a policy's failures so many kinds are told apart, and those beyond are counted by their result type alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define, frozen

from lettermta.delivery.tls.policy import Reported

MOST_KINDS = 100
"""Failures of one policy that are told apart."""
MOST_POLICIES = 20
"""Policies of one domain on one day: more of them count as the last one."""
_LONGEST = 300


@frozen
class Failed:
    """One kind of failure (RFC 8460 section 4.4)."""

    result: str
    host: str = ""
    address: str = ""
    source: str = ""
    """Our own address."""
    reason: str = ""


@define
class Tally:
    """Under one policy."""

    successes: int = 0
    failures: dict[Failed, int] = Factory(dict)

    def count(self, failed: Failed | None) -> None:
        """One more session."""
        if failed is None:
            self.successes += 1
            return
        if failed not in self.failures and len(self.failures) >= MOST_KINDS:
            failed = Failed(failed.result)
        self.failures[failed] = self.failures.get(failed, 0) + 1

    @property
    def failed(self) -> int:
        """Sessions that failed."""
        return sum(self.failures.values())


@define
class DomainDay:
    """Of one domain on one day. ``fate`` is what became of its report; empty while there is none, or not all have it."""

    domain: str
    policies: dict[Reported, Tally] = Factory(dict)
    fate: str = ""
    taken: list[str] = Factory(list)
    """The addresses and URLs that have the report."""

    def count(self, reported: Reported, failed: Failed | None) -> None:
        """One more session."""
        if reported not in self.policies and len(self.policies) >= MOST_POLICIES:
            reported = next(reversed(self.policies))
        self.policies.setdefault(reported, Tally()).count(failed)

    def told(self) -> Mapping[str, object]:
        """As JSON tells it, in our own files."""
        return {
            "domain": self.domain,
            "fate": self.fate,
            "taken": self.taken,
            "policies": [
                {
                    "type": reported.type,
                    "strings": reported.strings,
                    "mx_hosts": reported.mx_hosts,
                    "base": reported.base,
                    "successes": tally.successes,
                    "failures": [[each.result, each.host, each.address, each.source, each.reason, n] for each, n in tally.failures.items()],
                }
                for reported, tally in self.policies.items()
            ],
        }

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> DomainDay:
        """The other way round; raises KeyError, TypeError or ValueError for anything else."""
        day = cls(str(told["domain"]), fate=str(told["fate"]), taken=list(_texts(told.get("taken", ()))))
        for one in told["policies"]:
            base = str(one.get("base", ""))  # which older files have not
            reported = Reported(day.domain, str(one["type"]), _texts(one["strings"]), _texts(one["mx_hosts"]), base)
            failures = {Failed(*map(str, each[:5])): int(each[5]) for each in one["failures"]}
            day.policies[reported] = Tally(int(one["successes"]), failures)
        return day


def short(text: str) -> str:
    """A reason as reports give it: on one line, and not too long."""
    return " ".join(text.split())[:_LONGEST]


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, values))
