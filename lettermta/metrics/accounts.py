"""The accounts as the daemon reads them, and suppressions."""

from lettermta.metrics.parts import ACCOUNTS, SUPPRESSION
from lettermta.metrics.registry import Label

ACCOUNTS_READ = ACCOUNTS.counters(
    "lettermta_accounts_read",
    "Times that all accounts were read, at the start and behind each change.",
    Label("result", "what came of it", {"succeeded": "they are in force", "failed": "the ones read before stay in force"}),
)
ACCOUNTS_STALE = ACCOUNTS.gauge(
    "lettermta_accounts_stale", "1 while changes to accounts can't be read, so that a revoked token may still be good."
)

_REASON = Label(
    "reason",
    "why nothing is sent there",
    {
        "spam_complaint": "the recipient complained",
        "hard_bounce": "there is no such mailbox, as its server said",
        "unsubscribe": "the recipient unsubscribed",
        "manual": "an operator said so",
    },
)
SUPPRESSIONS = SUPPRESSION.gauges("lettermta_suppressions", "Suppressions that there are.", _REASON)
SUPPRESSIONS_ADDED = SUPPRESSION.counters(
    "lettermta_suppressions_added", "Suppressions that the daemon added, once that is durable.", _REASON
)
SUPPRESSIONS_REMOVED = SUPPRESSION.counters(
    "lettermta_suppressions_removed", "Suppressions that the daemon removed, once that is durable.", _REASON
)
RECIPIENTS_SUPPRESSED = SUPPRESSION.counters(
    "lettermta_recipients_suppressed",
    "Recipients that nothing was sent to as they are suppressed.",
    Label("found", "when that was found", {"submitted": "when the message came in", "queued": "before a later attempt"}),
)
