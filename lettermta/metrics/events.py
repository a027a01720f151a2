"""Events on their way to their readers and to webhooks."""

from lettermta.metrics.parts import EVENTS, WEBHOOKS
from lettermta.metrics.registry import Label

SINK = Label("sink", "the reader's name: `json_log`, or `hook:` and a dotted name of `[events] hooks`")
EVENTS_TOLD = EVENTS.counters("lettermta_events_told", "Events that a reader of the outbox has taken, repeats included.", SINK)
EVENTS_FAILED = EVENTS.counters(
    "lettermta_events_failed", "Times that a reader failed and was left alone for a while; what it did not take is told again.", SINK
)
EVENTS_BEHIND = EVENTS.gauges(
    "lettermta_events_behind",
    "Events that a reader has not taken yet. After a start it counts only what is known: all of it from the first new event on.",
    SINK,
)
EVENTS_WORKING = EVENTS.gauges("lettermta_events_working", "1 while a reader takes events, 0 while it is left alone or stopped.", SINK)
EVENTS_FORGOTTEN = EVENTS.counter("lettermta_events_forgotten", "Events removed from the outbox behind the retention time.")

WEBHOOK_ATTEMPTS = WEBHOOKS.counters(
    "lettermta_webhook_attempts",
    "Attempts to tell a webhook of an event, repeats included.",
    Label(
        "status",
        "what came of it",
        {
            "success": "2xx",
            "failed": "no answer that counts: no connection, an address that isn't allowed, a redirect",
            "client_error": "4xx",
            "server_error": "5xx",
            "timeout": "no whole answer in time",
        },
    ),
)
WEBHOOK_PENDING = WEBHOOKS.gauge(
    "lettermta_webhook_pending", "Deliveries to webhooks that are not over, those of webhooks that are off too."
)
WEBHOOK_OLDEST_SECONDS = WEBHOOKS.gauge("lettermta_webhook_oldest_seconds", "How long the one of them waits that waits longest.")
WEBHOOKS_FAILING = WEBHOOKS.gauge(
    "lettermta_webhooks_failing", "Webhooks that are on and whose requests all failed for five minutes or more."
)
WEBHOOKS_OFF = WEBHOOKS.gauge("lettermta_webhooks_off", "Webhooks that are switched off, by their owner or for a 410.")
WEBHOOK_RESTARTS = WEBHOOKS.counter("lettermta_webhook_restarts", "Times that the process which sends webhooks ended unasked.")
