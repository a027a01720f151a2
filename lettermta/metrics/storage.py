"""The spool and the queue in it."""

from lettermta.metrics.parts import QUEUE, SPOOL
from lettermta.metrics.registry import Label

SPOOL_COMMIT_SECONDS = SPOOL.histogram(
    "lettermta_spool_commit_seconds",
    "Time from the begin of a transaction until its sync was done.",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
SPOOL_COMMIT_UNITS = SPOOL.histogram(
    "lettermta_spool_commit_units",
    "How many writes (a new message, an outcome, a cursor) shared one transaction and its sync.",
    (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
SPOOL_COMMIT_FAILURES = SPOOL.counter(
    "lettermta_spool_commit_failures", "Transactions that failed and were rolled back: a full disk, an I/O error."
)
SPOOL_QUARANTINED = SPOOL.counter("lettermta_spool_quarantined", "Recipients put into quarantine, because their record is damaged.")
SPOOL_CONDITION = SPOOL.gauges(
    "lettermta_spool_condition",
    "1 for the condition that the spool is in, 0 for the others.",
    Label(
        "condition",
        "what it can do",
        {
            "working": "everything is written",
            "low": "less is free than `[limits] free_space`: no new mail, everything else is written",
            "full": "a write found no room: no new mail, the reserve is given back for everything else",
            "broken": "the disk failed: nothing is written until it works again",
        },
    ),
)
SPOOL_CONDITION["working"].set(1)
SPOOL_FREE_BYTES = SPOOL.gauge("lettermta_spool_free_bytes", "Octets that are free on the spool's file system for lettermta's user.")

QUEUE_RECIPIENTS = QUEUE.gauges(
    "lettermta_queue_recipients",
    "Recipients in the queue.",
    Label(
        "state",
        "their state",
        {
            "queued": "not tried yet",
            "scheduled": "for later, as the sender asked",
            "deferred": "tried, and to be tried again",
            "held": "held by an operator or a rule",
            "quarantined": "damaged",
        },
    ),
)
QUEUE_MESSAGES = QUEUE.gauge("lettermta_queue_messages", "Messages in the spool.")
QUEUE_OLDEST_SECONDS = QUEUE.gauge("lettermta_queue_oldest_seconds", "Age of the oldest message in the spool, 0 when it is empty.")
QUEUE_IN_HAND = QUEUE.gauge("lettermta_queue_in_hand", "Entries that the scheduler has in memory: waiting for a channel, or on one.")
QUEUE_LANES = QUEUE.gauge("lettermta_queue_lanes", "Lanes (one domain's mail of one route) that the scheduler has in memory.")
QUEUE_DESTINATIONS = QUEUE.gauge("lettermta_queue_destinations", "Destinations that the scheduler has in memory.")
