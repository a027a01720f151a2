"""Look-ups in the DNS."""

from lettermta.metrics.parts import NAMES
from lettermta.metrics.registry import Label

DNS_LOOKUPS = NAMES.counters(
    "lettermta_dns_lookups",
    "Look-ups of the records of one type.",
    Label(
        "type",
        "the records' type",
        {
            "MX": "hosts of a domain",
            "A": "IPv4 addresses",
            "AAAA": "IPv6 addresses",
            "TLSA": "DANE",
            "CNAME": "aliases",
            "TXT": "policies and keys",
        },
    ),
    Label(
        "result",
        "what came of it",
        {
            "cached": "known already, whatever it is",
            "joined": "the same was being asked: one question for both",
            "found": "there are such records",
            "empty": "the name exists, and has none",
            "no_such_domain": "NXDOMAIN, or no name at all",
            "failed": "no server would tell: its mail is put off",
        },
    ),
)
DNS_SECONDS = NAMES.histogram(
    "lettermta_dns_seconds",
    "Time that a look-up took which servers were asked for, all tries and CNAMEs together.",
    (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)
DNS_TRIES_FAILED = NAMES.counters(
    "lettermta_dns_tries_failed",
    "Questions to one server that got no usable answer.",
    Label(
        "cause",
        "why",
        {
            "silent": "no answer in time, or not reachable",
            "SERVFAIL": "the server failed, or the answer did not validate",
            "REFUSED": "the server does not serve us",
            "unusable": "malformed, a referral, a CNAME loop",
        },
    ),
)
DNS_CACHE_ENTRIES = NAMES.gauge("lettermta_dns_cache_entries", "Answers in the cache.")
