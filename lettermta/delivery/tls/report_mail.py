"""A report on TLS becomes a message in the spool: of the project that owns its author's domain, so that it is signed by that one's keys.

It leaves by the project's default route, but whatever is wrong with the receiver's TLS (RFC 8460 section 3), and its own sessions are not
counted. Nobody hears of what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
from attrs import frozen

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Care, with_care
from lettermta.delivery.tls.report_text import Report
from lettermta.delivery.tls.reporting import NotNow
from lettermta.interfaces import ISpool, NotStored
from lettermta.message import BodyType, Message, Notify, Options, Recipient, domain_of, new_id

_NEVER = frozenset({Notify.NEVER})


@frozen
class ReportMail:
    """Stores reports. ``lifetime`` is how long they are tried, in seconds; ``now`` the wall clock."""

    spool: ISpool
    directory: Directory
    lifetime: float
    now: Callable[[], float]

    async def mail(self, report: Report, recipients: Sequence[str]) -> None:
        """See IMailer."""
        author = domain_of(report.submitter.contact)
        project = self.directory.owner(author)
        route = None if project is None else self.directory.default_route(project.id)
        if project is None or route is None:
            raise NotNow(f"no project owns {author}, so that the report could not be signed ([delivery] tls_report_from)")
        identifier, now = new_id(), self.now()
        head, body = report.mail(recipients, identifier, now)
        content = self.spool.content()
        content.write(b"%b\r\n%b" % (head, body))
        facts: dict[str, object] = {"message_id": identifier, "subject": None, "metadata": {}, "tag": None, "tags": [], "headers": []}
        context = {"project_id": project.id, "route_id": route.id, "project": project.slug, "route": route.slug}
        message = Message(
            id=identifier,
            project_id=project.id,
            project=project.slug,
            route_id=with_care(route.id, Care.WHATEVER_TLS),
            route=route.slug,
            sender="",
            recipients=tuple(Recipient(address, _NEVER) for address in recipients),
            tag=None,
            metadata={},
            head=content.head(),
            content=content,
            size=content.size,
            created=now,
            expires=now + self.lifetime,
            facts=orjson.dumps(facts),
            context=orjson.dumps(context),
            options=Options(body=BodyType.SEVEN_BIT if body.isascii() else BodyType.EIGHT_BIT, report=True),
        )
        try:
            await self.spool.store(message, ())
        except NotStored as error:
            raise NotNow(str(error)) from None
