"""An MTA-STS policy by HTTPS, from the one place where a domain may have it (RFC 8461 section 3.3).

Promises that only a policy comes out: a redirect, another status, another media type than ``text/plain`` (what a login page would be) and
a certificate that does not verify are :class:`NoPolicy`, with the result type that reports on TLS have for it (RFC 8460 section 4.3.2).
"""

from __future__ import annotations

from lettermta import metrics
from lettermta.delivery.tls.https import HTTPSClient, HTTPSFailed
from lettermta.delivery.tls.sts_policy import NotAPolicy, STSPolicy, parse
from lettermta.smtp.client_tls import Fault

FETCH_ERROR, INVALID, WEBPKI_INVALID = "sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"


class NoPolicy(Exception):
    """A domain that announces a policy has none to be had; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


async def fetch(https: HTTPSClient, domain: str) -> STSPolicy:
    """The policy that a domain serves now. Raises NoPolicy."""
    try:
        policy = await _served(https, f"https://mta-sts.{domain}/.well-known/mta-sts.txt")
    except NotAPolicy as error:
        fault = Fault(INVALID, str(error))
    except HTTPSFailed as error:
        fault = Fault(WEBPKI_INVALID if error.tls else FETCH_ERROR, str(error))
    else:
        metrics.STS_FETCHES["fetched"].inc()
        return policy
    metrics.STS_FETCHES[fault.kind].inc()
    raise NoPolicy(fault)


async def _served(https: HTTPSClient, url: str) -> STSPolicy:
    answer = await https.get(url)
    if answer.status != 200:
        raise HTTPSFailed(f"the answer's status is {answer.status}")
    if answer.media_type != "text/plain":
        raise NotAPolicy(f"its media type is not text/plain: {answer.media_type[:60]!r}")
    return parse(answer.body)
