"""TLS to receivers: how sessions are encrypted, what policies decided, and the reports on it."""

from lettermta.metrics.parts import DELIVERY, TLS_VERSIONS
from lettermta.metrics.registry import Label

TLS_OUT = DELIVERY.counters(
    "lettermta_tls_out",
    "Outgoing sessions that were ready to send, by how they are encrypted.",
    Label("version", "the TLS version", {**TLS_VERSIONS, "none": "in clear"}),
)
TLS_POLICIES_OUT = DELIVERY.counters(
    "lettermta_tls_policies_out",
    "Outgoing sessions that were ready to send, by the policy that decided on their TLS and by how far it can be relied on.",
    Label(
        "policy",
        "where the policy comes from",
        {
            "off": "the operator: never TLS",
            "opportunistic": "nobody asks for TLS: it is used where it is offered",
            "waived": "the message sets the receiver's policies aside (TLS-Required: No): TLS is used where it is offered",
            "require": "the operator: TLS, with whoever answers",
            "verify": "the operator: TLS with that very host, which gets a password",
            "mta-sts-testing": "the domain's MTA-STS policy, in testing",
            "mta-sts": "the domain's MTA-STS policy, enforced",
            "dane": "the host's TLSA records",
            "dane-unusable": "TLSA records none of which can be used: TLS, with whoever answers",
        },
    ),
    Label(
        "result",
        "how far TLS can be relied on",
        {"verified": "it is that very host", "unverified": "it is whoever answered", "clear": "there is none"},
    ),
)
TLS_RESUMED_OUT = DELIVERY.counter("lettermta_tls_resumed_out", "Outgoing sessions whose TLS took up an earlier one.")
TLS_RESULTS = DELIVERY.counters(
    "lettermta_tls_results",
    "Sessions with receivers' hosts as reports on TLS count them (RFC 8460), those included that a policy forbade to begin.",
    Label("policy", "the sort of policy", {"tlsa": "DANE", "sts": "MTA-STS", "no-policy-found": "neither"}),
    Label(
        "result",
        "what came of it",
        {
            "success": "TLS as the policy asks for it",
            "starttls-not-supported": "the host offers no STARTTLS",
            "certificate-host-mismatch": "the certificate is for another name",
            "certificate-expired": "the certificate has expired",
            "certificate-not-trusted": "nobody that is trusted vouches for the certificate",
            "validation-failure": "any other reason: the handshake, no TLSA record that matches, a host that the policy does not name",
            "tlsa-invalid": "no TLSA record that can be used",
            "dnssec-invalid": "the TLSA records could not be validated",
            "sts-policy-fetch-error": "there is an MTA-STS policy, and it can't be fetched",
            "sts-policy-invalid": "the MTA-STS policy is none",
            "sts-webpki-invalid": "the certificate of the policy's web server does not verify",
        },
    ),
)
TLS_REPORTS = DELIVERY.counters(
    "lettermta_tls_reports",
    "Reports on TLS, one for each domain and day.",
    Label(
        "result",
        "what came of it",
        {
            "sent": "handed over, or on its way by mail",
            "unwanted": "the domain asks for none",
            "given_up": "not to be delivered for two days",
        },
    ),
)
STS_POLICIES = DELIVERY.gauge("lettermta_mta_sts_policies", "MTA-STS policies that are known, expired ones not yet looked at included.")
STS_FETCHES = DELIVERY.counters(
    "lettermta_mta_sts_fetches",
    "MTA-STS policies that were fetched, or tried to.",
    Label(
        "result",
        "what came of it",
        {
            "fetched": "it is kept, and in force",
            "sts-policy-fetch-error": "the web server could not be reached, or did not answer by a file",
            "sts-webpki-invalid": "the web server's certificate does not verify",
            "sts-policy-invalid": "what it said is no policy",
        },
    ),
)
