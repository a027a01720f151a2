"""Where a lane's mail goes, as delivery knows it now."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from lettermta.delivery.shaping import Limits
from lettermta.interfaces import ITransport

NO_RULE = Limits()
"""What holds where no rule says otherwise."""


@frozen
class Way:
    """The way to one destination: what has the same ``key`` shares its channels, what has the same ``flow`` its limits.

    Keys and flows hold a blank but for the domain of mail whose hosts are still to be looked up, so nobody can address mail to one.
    """

    key: str
    transport: Callable[[], ITransport]
    """Makes what opens channels."""
    flow: str
    limits: Limits = NO_RULE
    name: str = ""
    """What it is called for people, where that is not the flow."""


class Elsewhere(Exception):
    """Fails the opening of a channel where it has just turned out that the mail goes another way, which is known by now."""
