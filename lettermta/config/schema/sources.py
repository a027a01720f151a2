"""The addresses that mail leaves from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from ipaddress import ip_address

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.schema.declaring import Section, key


class Source(Section):
    """An address of this machine that mail leaves from, with the name it has there. Routes choose among them by pools."""

    name: str = key(kinds.NAME, "What pools and logs call it.", example="mta1", titles=True)
    addresses: tuple[str, ...] = key(
        kinds.ADDRESSES,
        "Local addresses: one IPv4 address, one IPv6 address, or one of each. Where it has none of a family, that family is not used.",
        example="192.0.2.10, 2001:db8::10",
        postfix="smtp_bind_address, smtp_bind_address6",
    )
    hostname: str | None = key(
        kinds.DOMAIN,
        "The name in EHLO. Receivers want it to agree with the reverse DNS of the addresses.",
        default="",
        shown="mta.hostname",
        example="mta1.example.com",
        postfix="smtp_helo_name",
    )
    warm_up: tuple[int, ...] | None = key(
        kinds.optional(kinds.PLAN),
        "A new address: how many messages each receiver gets from it at the most on its first day, on its second day and so on. What is "
        "more goes by the pool's other addresses. Behind the last number there is no limit.",
        default="",
        example="50, 100, 250, 500, 1000, 2500, 5000, 10000",
    )
    warm_up_from: date | None = key(
        kinds.optional(kinds.DAY),
        "The first day of the plan (UTC).",
        default="",
        shown="the day of the first message",
        example="2026-12-01",
    )

    def objections(self) -> Iterable[Objection]:
        """Which address of a family is used would be anyone's guess."""
        for version in (4, 6):
            if len([each for each in self.addresses if ip_address(each).version == version]) > 1:
                yield Objection(
                    "addresses", f"there are several of IPv{version}", "one of each at the most, and another [source …] for the next one"
                )
        if self.warm_up_from is not None and self.warm_up is None:
            yield Objection("warm_up_from", "there is no warm_up", "both, or warm_up alone")


class Pool(Section):
    """Sources that mail of a route leaves from, in turn (lettermta-admin route update --pool NAME)."""

    name: str = key(kinds.NAME, "What routes call it.", example="transactional", titles=True)
    sources: tuple[str, ...] = key(kinds.NAMES, "The names of its [source …] sections.", example="mta1, mta2")
