"""Messages that clients bring: taken, refused, repeated, and what the policies made of them."""

from lettermta.metrics.parts import SUBMISSION
from lettermta.metrics.registry import Label

MESSAGES_ACCEPTED = SUBMISSION.counter("lettermta_messages_accepted", "Messages that got their 250: durable, each counted once.")
ACCEPTED_BYTES = SUBMISSION.counter(
    "lettermta_messages_accepted_bytes", "Octets of the accepted messages as they are stored, header and body."
)
RECIPIENTS_ACCEPTED = SUBMISSION.counter("lettermta_recipients_accepted", "Recipients of the accepted messages, duplicates taken out.")
MESSAGES_REFUSED = SUBMISSION.counters(
    "lettermta_messages_refused",
    "Messages whose content came and was refused at its end, for now or for good.",
    Label(
        "cause",
        "why",
        {
            "size": "larger than the limit, or too large a header block",
            "line_ends": "a bare CR or LF in the content",
            "header": "a header block that breaks RFC 5322 or a limit",
            "control_header": "a tag, metadata or another control header that breaks its rule",
            "route": "the project has no such route",
            "loop": "too many Received fields",
            "credentials": "the token or the project is no longer valid",
            "sender": "a sender that the project may not use",
            "idempotency": "the same idempotency key with another body, or still in progress",
            "policy": "a policy refused it",
            "policy_failure": "a policy came to no verdict, and `[submission] policy_failure` is refuse",
            "storage": "it could not be stored",
            "local": "a fault of ours",
        },
    ),
)
MESSAGES_REPEATED = SUBMISSION.counter(
    "lettermta_messages_repeated", "Messages answered by an earlier 250 for the sake of their idempotency key, and not stored again."
)
POLICY_VERDICTS = SUBMISSION.counters(
    "lettermta_policy_verdicts",
    "What the policies made of the messages that they were shown.",
    Label("policy", "its dotted name in `[submission] policies`"),
    Label(
        "verdict",
        "what it came to",
        {
            "accepted": "taken as it was",
            "changed": "taken with changes",
            "held": "taken, and kept until somebody releases it",
            "refused": "refused, for now or for good",
            "failed": "no verdict: the policy raised, or its verdict could not be carried out",
            "timed_out": "no verdict within `[submission] policy_timeout`",
        },
    ),
)
