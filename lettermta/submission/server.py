"""Submission: who may send on a listener, and what becomes of what they send.

:class:`SubmissionServer` answers the edge's questions for one listener; :class:`Submitter` is the avatar of a session that may send for a
project. What is revoked or switched off meanwhile is refused at the next MAIL of a session, not only at its next login.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from attrs import frozen
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Project
from lettermta.config import AuthBeforeTLS, Listener
from lettermta.interfaces import IContent, ISMTPServer, ISpool, ISubmitter
from lettermta.message import Envelope, Message, Peer, Refused, Reply
from lettermta.submission.compose import compose, parse
from lettermta.submission.control import MetadataBounds
from lettermta.submission.login import CRAMChecker, SubmissionRealm, TokenChecker, login_fault

NOT_STORED = Reply(452, "4.3.1", "The message could not be stored, try again later")
NO_LONGER_VALID = Reply(535, "5.7.8", "Authentication credentials invalid")


@frozen
class SubmissionRules:
    """What holds for all submission; sizes in octets, the lifetime in seconds."""

    hostname: str
    usernames: tuple[str, ...]
    message_size: int
    recipients: int
    lifetime: float
    metadata: MetadataBounds = MetadataBounds()  # noqa: RUF009 - frozen


@implementer(ISMTPServer)
class SubmissionServer:
    """Submission as one listener offers it."""

    log = Logger()

    def __init__(self, rules: SubmissionRules, listener: Listener, directory: Directory, spool: ISpool) -> None:
        self.hostname = rules.hostname
        self.max_size = rules.message_size
        self._rules = rules
        self._listener = listener
        self._directory = directory
        self._spool = spool
        self.portal = Portal(
            SubmissionRealm(self._by_token), [TokenChecker(directory, rules.usernames), CRAMChecker(directory, rules.usernames)]
        )

    def mechanisms(self, secure: bool) -> Sequence[str]:
        """See ISMTPServer. CRAM-MD5 is offered only where no live token is bound to fail with it (COMPATIBILITY.md section 2)."""
        policy = self._listener.auth_before_tls
        if not secure and policy is AuthBeforeTLS.NONE:
            return ()
        cram = ("CRAM-MD5",) if self._directory.cram_possible() else ()
        if not secure and policy is AuthBeforeTLS.CRAM_MD5:
            return cram
        return ("PLAIN", "LOGIN", *cram)

    def trusted(self, peer: Peer) -> ISubmitter | None:
        """See ISMTPServer."""
        if not self._listener.trusted_networks:
            return None
        address = ipaddress.ip_address(peer.address)
        if not any(address in network for network in self._listener.trusted_networks):
            return None
        slug = self._listener.trusted_project
        project = self._directory.project_by_slug(slug)
        if project is None or not project.smtp:
            fault = "there is no such project" if project is None else "its SMTP is switched off"
            self.log.warn("{peer.address} is in a network trusted for project {slug}, but {fault}", peer=peer, slug=slug, fault=fault)
            return None
        return Submitter(self._rules, self._directory, self._spool, project.id, None)

    def _by_token(self, project_id: str, token_id: str) -> ISubmitter:
        return Submitter(self._rules, self._directory, self._spool, project_id, token_id)


@implementer(ISubmitter)
class Submitter:
    """Sends for one project, by a token or (``token_id`` None) by a trusted network."""

    log = Logger()

    def __init__(self, rules: SubmissionRules, directory: Directory, spool: ISpool, project_id: str, token_id: str | None) -> None:
        self._rules = rules
        self._directory = directory
        self._spool = spool
        self._project_id = project_id
        self._token_id = token_id
        self._take_limits(directory.project(project_id))

    def mail(self, envelope: Envelope) -> None:
        """See ISubmitter."""
        self._take_limits(self._project())

    def _take_limits(self, project: Project | None) -> None:
        """The project's own limits, else the configured ones; they hold for a transaction."""
        self.max_size = (project.message_size if project else None) or self._rules.message_size
        self.max_recipients = (project.recipients if project else None) or self._rules.recipients

    def recipient(self, envelope: Envelope, address: str) -> None:
        """See ISubmitter: any address can be sent to."""

    def content(self) -> IContent:
        """See ISubmitter."""
        return self._spool.content()

    def _project(self) -> Project:
        """The project, if mail may still be sent for it."""
        if self._token_id is not None:
            fault = login_fault(self._directory, self._directory.token(self._token_id))
            if fault is not None:
                raise Refused(NO_LONGER_VALID, fault)
        project = self._directory.project(self._project_id)
        if project is None or not project.smtp:
            raise Refused(NO_LONGER_VALID, "the project is gone" if project is None else f"SMTP is switched off for project {project.slug}")
        return project

    def submit(self, envelope: Envelope, content: IContent) -> Deferred[Reply]:
        """See ISubmitter."""
        try:
            project = self._project()
            parsed = parse(content.head(), self._rules.metadata)
            if parsed.route is None:
                route = self._directory.default_route(project.id)
            else:
                route = self._directory.route(project.id, parsed.route)
            if route is None:
                raise Refused(Reply(550, "5.7.1", "X-Lettermint-Route: the project has no such route"), "unknown route")
            message, created = compose(
                envelope, content, parsed, project, route, hostname=self._rules.hostname, lifetime=self._rules.lifetime
            )
        except Exception as error:
            content.discard()
            return fail(error)
        return self._spool.store(message, created).addCallbacks(self._stored, self._not_stored, (message,), {}, (content,))

    def _stored(self, _: None, message: Message) -> Reply:
        self.log.info(
            "{id}: queued from=<{sender}> recipients={count} size={size} project={project} route={route} tag={tag}",
            id=message.id,
            sender=message.sender,
            count=len(message.recipients),
            size=message.size,
            project=message.project,
            route=message.route,
            tag=message.tag,
        )
        return Reply(250, "2.0.0", f"Ok: queued as {message.id}")

    def _not_stored(self, failure: Failure, content: IContent) -> Reply:
        content.discard()
        self.log.failure("a message could not be stored", failure=failure)
        return NOT_STORED
