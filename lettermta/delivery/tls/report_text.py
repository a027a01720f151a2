"""A report on TLS, written: its JSON (RFC 8460 section 4.4), and the mail that carries it (section 5.3)."""

from __future__ import annotations

import datetime
import gzip
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import orjson
from attrs import frozen

from lettermta.delivery.tls.policy import Reported
from lettermta.delivery.tls.tally import DomainDay, Failed, Tally

MEDIA_TYPE = "application/tlsrpt+gzip"


@frozen
class Submitter:
    """Who reports. ``contact`` is an address; reports by mail come from it. ``name`` is our host's name."""

    organization: str
    contact: str
    name: str


@frozen
class Report:
    """On one domain and one day (``2026-11-25``, UTC)."""

    submitter: Submitter
    day: str
    domain: DomainDay

    @property
    def identifier(self) -> str:
        """The same however often it is made, so that whoever gets it twice can tell."""
        return f"{self.day}_{self.domain.domain}@{self.submitter.name}"

    @property
    def filename(self) -> str:
        """Section 5.1."""
        begin, end = (int(moment.timestamp()) for moment in self._span())
        return f"{self.submitter.name}!{self.domain.domain}!{begin}!{end}.json.gz"

    def told(self) -> Mapping[str, object]:
        """The document."""
        begin, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in self._span())
        return {
            "organization-name": self.submitter.organization,
            "date-range": {"start-datetime": begin, "end-datetime": end},
            "contact-info": self.submitter.contact,
            "report-id": self.identifier,
            "policies": [_policy(reported, tally) for reported, tally in self.domain.policies.items()],
        }

    def packed(self) -> bytes:
        """The document, compressed; the same octets each time."""
        return gzip.compress(orjson.dumps(self.told()), mtime=0)

    def mail(self, recipients: Sequence[str], identifier: str, moment: float) -> tuple[bytes, bytes]:
        """Header block and body of the mail that carries it."""
        message = EmailMessage(policy=SMTP)
        message["From"] = self.submitter.contact
        message["To"] = ", ".join(recipients)
        message["Subject"] = f"Report Domain: {self.domain.domain} Submitter: {self.submitter.name} Report-ID: <{self.identifier}>"
        message["Date"] = format_datetime(datetime.datetime.fromtimestamp(moment, datetime.UTC))
        message["Message-ID"] = f"<{identifier}@{self.submitter.name}>"
        message["TLS-Report-Domain"] = self.domain.domain
        message["TLS-Report-Submitter"] = self.submitter.name
        # RFC 8689 section 5: whoever passes it on shall do so whatever is wrong with TLS.
        message["TLS-Required"] = "No"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(
            f"This is an aggregate report on TLS by {self.submitter.organization} on sessions with the mail hosts of {self.domain.domain}\n"
            f"on {self.day} (UTC): {sum(tally.successes for tally in self.domain.policies.values())} that succeeded, "
            f"{sum(tally.failed for tally in self.domain.policies.values())} that failed. RFC 8460 explains its form.\n"
        )
        message.add_attachment(self.packed(), maintype="application", subtype="tlsrpt+gzip", filename=self.filename)
        message.replace_header("Content-Type", "multipart/report")
        message.set_param("report-type", "tlsrpt")
        message.set_boundary(f"=_{identifier}")
        head, _, body = message.as_bytes().partition(b"\r\n\r\n")
        return head + b"\r\n", body

    def _span(self) -> tuple[datetime.datetime, datetime.datetime]:
        begin = datetime.datetime.combine(datetime.date.fromisoformat(self.day), datetime.time(), datetime.UTC)
        return begin, begin + datetime.timedelta(days=1, seconds=-1)


def _policy(reported: Reported, tally: Tally) -> Mapping[str, object]:
    policy: dict[str, object] = {"policy-type": reported.type}
    if reported.strings:
        policy["policy-string"] = reported.strings
    policy["policy-domain"] = reported.policy_domain
    if reported.mx_hosts:
        policy["mx-host"] = reported.mx_hosts
    told: dict[str, object] = {
        "policy": policy,
        "summary": {"total-successful-session-count": tally.successes, "total-failure-session-count": tally.failed},
    }
    if tally.failures:
        told["failure-details"] = [_failure(failed, count) for failed, count in tally.failures.items()]
    return told


def _failure(failed: Failed, count: int) -> Mapping[str, object]:
    told = {
        "result-type": failed.result,
        "sending-mta-ip": failed.source,
        "receiving-mx-hostname": failed.host,
        "receiving-ip": failed.address,
        "failure-reason-code": failed.reason,
    }
    return {**{name: value for name, value in told.items() if value}, "failed-session-count": count}
