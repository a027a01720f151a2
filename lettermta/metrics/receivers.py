"""Receivers and how much they put up with, by the section that shapes them."""

from lettermta.metrics.parts import DELIVERY
from lettermta.metrics.registry import Label

SHAPING = Label("shaping", "the most specific `[shaping …]` section that holds for the receiver, `*` where there is none")
RECEIVER_RECIPIENTS = DELIVERY.counters(
    "lettermta_receiver_recipients",
    "Recipients that were attempted over a connection, by what the receiver made of them.",
    SHAPING,
    Label("result", "what it was", {"taken": "2yz", "deferred": "4yz, or no answer", "refused": "5yz"}),
)
RECEIVER_CONNECTIONS = DELIVERY.gauges("lettermta_receiver_connections", "Channels that are open to receivers now.", SHAPING)
RECEIVER_ALLOWED = DELIVERY.gauges(
    "lettermta_receiver_connections_allowed",
    "Channels that may be open now, of all receivers in memory together: fewer than configured after push-backs.",
    SHAPING,
)
RECEIVERS_PAUSED = DELIVERY.gauges("lettermta_receivers_paused", "Receivers that are left alone now, by a throttle rule.", SHAPING)
RECEIVERS_HELD_BACK = DELIVERY.gauges(
    "lettermta_receivers_held_back", "Receivers whose mail waits now for the end of a pause, or for its turn by the rate.", SHAPING
)
THROTTLES = DELIVERY.counters(
    "lettermta_throttles",
    "Pauses of a receiver that a throttle rule began.",
    Label("rule", "the NAME of the `[throttle NAME]` section"),
)
