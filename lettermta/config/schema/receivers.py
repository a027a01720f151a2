"""Single receivers: how much mail they get at once, and what they say when it is too much."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lettermta.config import kinds
from lettermta.config.faults import Objection
from lettermta.config.kinds import Rate
from lettermta.config.schema.declaring import Section, key
from lettermta.config.schema.delivery import DeliveryTLS


class Shaping(Section):
    """How much mail a receiver gets at once.

    The name is a recipient's domain or the name of an MX host, or a pattern of either (* and ?). Where several sections match, each key is
    taken from the most specific one that sets it: a whole name before a pattern, the domain before its MX hosts, a longer pattern before a
    shorter one; and what comes with lettermta for the large receivers stands behind a section of yours of the same name.
    """

    pattern: str = key(kinds.PATTERN, "Whom it is for: a domain, the name of an MX host, or a pattern.", example="gmail.com", titles=True)
    connections: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Most connections at once. There are fewer for a while when the receiver turns mail or connections away for now.",
        default="",
        shown="20",
        example="5",
        postfix="default_destination_concurrency_limit",
    )
    messages_per_connection: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Messages after which a connection is ended.",
        default="",
        shown="1000",
        example="50",
        postfix="smtp_connection_reuse_count_limit",
    )
    rate: Rate | None = key(
        kinds.optional(kinds.RATE),
        "Most messages in a second, minute or hour, sent at even intervals.",
        default="",
        shown="no limit",
        example="100/m",
        postfix="default_destination_rate_delay",
    )
    recipients_per_message: int | None = key(
        kinds.optional(kinds.NUMBER),
        "Recipients that a message may have; one with more goes in several transactions.",
        default="",
        shown="100",
        example="20",
        postfix="default_destination_recipient_limit",
    )
    schedule: tuple[float, ...] | None = key(
        kinds.optional(kinds.DURATIONS),
        "Delays between attempts at this receiver, whatever the route's own are.",
        default="",
        shown="that of the route, or of [delivery]",
        example="15m, 1h, 4h",
    )
    idle_time: float | None = key(
        kinds.optional(kinds.DURATION),
        "How long a connection is kept when there is nothing to send.",
        default="",
        shown="10s",
        example="2s",
        postfix="smtp_connection_cache_time_limit",
    )
    tls: DeliveryTLS | None = key(
        kinds.optional(kinds.choice(DeliveryTLS)),
        "What this receiver's hosts must do of TLS, as in [delivery] tls. For require name the domain: who its MX hosts are is not certain "
        "without DNSSEC.",
        default="",
        shown="that of the route, or of [delivery]",
        example="require",
        postfix="smtp_tls_policy_maps",
    )
    together: bool | None = key(
        kinds.optional(kinds.BOOLEAN),
        "Whether all that this section matches counts as one destination, though the MX hosts have different names.",
        default="",
        shown="no",
        example="yes",
    )


class Throttle(Section):
    """A reply at which the whole destination is left alone for a while; what isn't given matches anything.

    These sections have files of their own: the one that comes with lettermta, and ``[delivery] throttle_rules``. The first one that
    matches counts.
    """

    name: str = key(kinds.NAME, "What the log calls the rule.", example="shop", titles=True)
    mx: tuple[str, ...] = key(kinds.PATTERNS, "The hosts that say so, by name or pattern.", default="", example="*.yahoodns.net")
    codes: tuple[str, ...] = key(kinds.CODES, "Reply codes.", default="", shown="4??", example="421, 45?")
    enhanced: tuple[str, ...] = key(kinds.ENHANCED_CODES, "Enhanced codes (RFC 3463).", default="", example="4.7.*")
    text: re.Pattern[str] | None = key(kinds.optional(kinds.EXPRESSION), "What the reply's text holds.", default="", example="rate limit")
    pause: float | None = key(
        kinds.optional(kinds.PAUSE),
        "How long the destination is left alone. Twice as long each time in a row, up to eight times as long. "
        "0s: not at all, but fewer connections are opened.",
        default="",
        shown="not at all: such a reply says nothing about the destination",
        example="5m",
    )

    def objections(self) -> Iterable[Objection]:
        """A rule that matches everything would stop all mail at the first greylisting."""
        if not (self.codes or self.enhanced or self.text):
            yield Objection("name", "the rule would match whatever is temporary", "codes, enhanced or text in it")
