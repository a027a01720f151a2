"""Submission: who may send on a listener, and what becomes of what they send.

:class:`SubmissionServer` answers the edge's questions for one listener; :class:`Submitter` is the avatar of a session that may send for a
project. What is revoked or switched off meanwhile is refused at the next MAIL of a session, not only at its next login.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from attrs import define, evolve, field, frozen
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lettermta import metrics
from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Project, Route
from lettermta.accounts.scram_keys import ScramKeys
from lettermta.config import AuthBeforeTLS, Listener, Role
from lettermta.interfaces import IContent, IReturns, ISMTPServer, ISpool, ISubmitter, NotStored
from lettermta.message import Envelope, IdempotencyKey, Message, Peer, Refused, Reply
from lettermta.smtp.channel_binding import Binding
from lettermta.smtp.sasl import MECHANISMS, Mechanism
from lettermta.smtp.scram import SCRAM_SHA_256, SCRAM_SHA_256_PLUS, Scram
from lettermta.submission import suppressing
from lettermta.submission.compose import Parsed, Terms, compose, parse
from lettermta.submission.control import MetadataBounds
from lettermta.submission.hygiene import HeaderRules, check_block, check_from, check_sender
from lettermta.submission.idempotency import Idempotency
from lettermta.submission.login import CRAMChecker, ScramChecker, SubmissionRealm, TokenChecker, login_fault
from lettermta.submission.policies import Draft, Policies
from lettermta.submission.stranger import NothingReturns, Stranger

NOT_STORED = Reply(452, "4.3.1", "The message could not be stored, try again later")
NO_ROOM = Reply(452, "4.3.1", "Insufficient system storage, try again later")
NO_LONGER_VALID = Reply(535, "5.7.8", "Authentication credentials invalid")


@frozen
class SubmissionRules:
    """What holds for all submission; sizes in octets, the lifetime in seconds."""

    hostname: str
    usernames: tuple[str, ...]
    message_size: int
    recipients: int
    lifetime: float
    header: HeaderRules = HeaderRules()  # noqa: RUF009 - frozen
    metadata: MetadataBounds = MetadataBounds()  # noqa: RUF009 - frozen
    unsubscribe: bool = False
    """Whether broadcasts get links to unsubscribe."""


@define(eq=False)
class Submission:
    """What the submission of all listeners has in common."""

    rules: SubmissionRules
    directory: Directory
    spool: ISpool
    scram: ScramKeys
    policies: Policies | None = None
    """Asked of each message; None: there are none."""
    returns: IReturns = field(factory=NothingReturns)
    """Takes what strangers bring back, on listeners for that."""
    idempotency: Idempotency = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.idempotency = Idempotency(self.spool)

    def limit(self, message_size: int, recipients: int) -> None:
        """Other limits, from the next command of each session on."""
        self.rules = evolve(self.rules, message_size=message_size, recipients=recipients)


@implementer(ISMTPServer)
class SubmissionServer:
    """Submission as one listener offers it."""

    log = Logger()

    def __init__(self, submission: Submission, listener: Listener) -> None:
        rules, directory = submission.rules, submission.directory
        self.hostname = rules.hostname
        self._submission = submission
        self._listener = listener
        checkers = [
            TokenChecker(directory, rules.usernames),
            CRAMChecker(directory, rules.usernames),
            ScramChecker(directory, rules.usernames, submission.scram),
        ]
        self.portal = Portal(SubmissionRealm(self._by_token), checkers)

    @property
    def max_size(self) -> int:
        """See ISMTPServer."""
        return self._submission.rules.message_size

    @property
    def max_recipients(self) -> int:
        """See ISMTPServer."""
        return self._submission.rules.recipients

    def mechanisms(self, secure: bool, plus: bool) -> Sequence[str]:
        """See ISMTPServer. What tries each token is offered only where no live one is bound to fail with it."""
        policy = self._listener.auth_before_tls
        if self._listener.role is Role.BOUNCES or (not secure and policy is AuthBeforeTLS.NONE):
            return ()
        cram = ("CRAM-MD5",) if self._submission.directory.cram_possible() else ()
        if not secure and policy is AuthBeforeTLS.CRAM_MD5:
            return cram
        scram = (SCRAM_SHA_256,) if self._submission.scram.possible() else ()
        return ("PLAIN", "LOGIN", *cram, *scram, *([SCRAM_SHA_256_PLUS] if plus and secure and scram else []))

    def exchange(self, mechanism: str, binding: Binding) -> Mechanism:
        """See ISMTPServer."""
        if mechanism in (SCRAM_SHA_256, SCRAM_SHA_256_PLUS):
            return Scram(self._submission.scram.challenge, binding, plus=mechanism == SCRAM_SHA_256_PLUS)
        return MECHANISMS[mechanism](self.hostname)

    def trusted(self, peer: Peer) -> ISubmitter | None:
        """See ISMTPServer: machines in a trusted network, and, where mail may come back, strangers."""
        if self._listener.trusted_networks and self._is_trusted(peer):
            project = self._submission.directory.project_by_slug(self._listener.trusted_project)
            if project is not None and project.smtp:
                return Submitter(self._submission, project.id, None)
            self.log.warn(
                "{peer.address} is in the trusted network of project {slug}, but {fault}",
                peer=peer,
                slug=self._listener.trusted_project,
                fault="there is no such project" if project is None else "SMTP is switched off for it",
            )
        if self._listener.role is not Role.SUBMISSION:
            return Stranger(self._submission.returns, self._submission.rules.message_size, self._listener.role is Role.BOTH)
        return None

    def _is_trusted(self, peer: Peer) -> bool:
        address = ipaddress.ip_address(peer.address)
        return any(address in network for network in self._listener.trusted_networks)

    def _by_token(self, project_id: str, token_id: str) -> ISubmitter:
        return Submitter(self._submission, project_id, token_id)


@implementer(ISubmitter)
class Submitter:
    """Sends for one project, by a token or (``token_id`` None) by a trusted network."""

    log = Logger()

    def __init__(self, submission: Submission, project_id: str, token_id: str | None) -> None:
        self._submission = submission
        self._directory = submission.directory
        self._spool = submission.spool
        self._idempotency = submission.idempotency
        self._policies = submission.policies
        self._project_id = project_id
        self._token_id = token_id

    @property
    def max_size(self) -> int:
        """See ISubmitter: the project's own limit, else the configured one, as they are at this moment."""
        project = self._directory.project(self._project_id)
        return (project.message_size if project else None) or self._rules.message_size

    @property
    def max_recipients(self) -> int:
        """See ISubmitter: as max_size."""
        project = self._directory.project(self._project_id)
        return (project.recipients if project else None) or self._rules.recipients

    @property
    def _rules(self) -> SubmissionRules:
        return self._submission.rules

    def mail(self, envelope: Envelope) -> None:
        """See ISubmitter. What could not be stored is refused before it is sent (RFC 1870 section 6.1)."""
        self._project()
        if not self._spool.room(envelope.size or 0):
            raise Refused(NO_ROOM, "no room in the spool", "storage")

    def recipient(self, envelope: Envelope, address: str) -> None:
        """See ISubmitter: any address can be sent to."""

    def content(self) -> IContent:
        """See ISubmitter."""
        return self._spool.content()

    def _project(self) -> Project:
        """The project, if mail may still be sent for it."""
        if self._token_id is not None:
            revoked = login_fault(self._directory, self._directory.token(self._token_id))
            if revoked is not None:
                raise Refused(NO_LONGER_VALID, str(revoked), "credentials")
        project = self._directory.project(self._project_id)
        if project is None or not project.smtp:
            fault = "the project is gone" if project is None else f"SMTP is switched off for project {project.slug}"
            raise Refused(NO_LONGER_VALID, fault, "credentials")
        return project

    def submit(self, envelope: Envelope, content: IContent) -> Deferred[Reply]:
        """See ISubmitter."""
        try:
            project = self._project()
            parsed = parse(content.head(), self._rules.metadata)
            self._check(envelope, content.head(), parsed, project)
            route = self._route(project, parsed.control.route)
            terms = self._terms(project, route)
            if parsed.control.idempotency_key is not None:
                draft = Draft(envelope, content, parsed, terms)
                return Deferred.fromCoroutine(self._submit_once(draft, parsed.control.idempotency_key))
            if self._policies is not None:
                return Deferred.fromCoroutine(self._submit_judged(Draft(envelope, content, parsed, terms)))
            message, events = compose(envelope, content, parsed, terms, None)
        except Exception as error:
            content.discard()
            _count(error)
            return fail(error)
        return suppressing.store(self._spool, message, events, route).addCallbacks(
            self._stored, self._not_stored, (message,), {}, (content,)
        )

    def _check(self, envelope: Envelope, head: bytes, parsed: Parsed, project: Project) -> None:
        check_block(head, parsed.fields, parsed.kept, self._rules.header, smtputf8=envelope.options.smtputf8)
        authors = check_from(parsed.fields)
        if project.check_sender:
            check_sender(envelope.sender, authors, self._directory.domains(project.id))

    def _route(self, project: Project, slug: str | None) -> Route:
        route = self._directory.default_route(project.id) if slug is None else self._directory.route(project.id, slug)
        if route is None:
            raise Refused(Reply(550, "5.7.1", "X-Lettermint-Route: the project has no such route"), "unknown route", "route")
        return route

    def _terms(self, project: Project, route: Route) -> Terms:
        rules = self._rules
        return Terms(project, route, rules.hostname, self._lifetime(route), rules.header, unsubscribe=rules.unsubscribe)

    def _lifetime(self, route: Route) -> float:
        return self._rules.lifetime if route.lifetime is None else route.lifetime

    async def _submit_once(self, draft: Draft, key: str) -> Reply:
        """Submit a message with an idempotency key; of one that comes again, no policy is asked again."""
        project, content = draft.terms.project, draft.content
        try:
            begun = await self._idempotency.begin(project.id, key, draft.envelope, content)
        except BaseException as error:
            content.discard()
            _count(error)
            raise
        if isinstance(begun, str):
            content.discard()
            metrics.MESSAGES_REPEATED.inc()
            self.log.info("{id}: submitted again with its idempotency key", id=begun)
            return _queued_as(begun)
        try:
            return await self._submit_judged(draft, begun)
        finally:
            self._idempotency.end(project.id, key)

    async def _submit_judged(self, draft: Draft, idempotency: IdempotencyKey | None = None) -> Reply:
        """Submit what the policies make of a message."""
        content = draft.content
        try:
            if self._policies is not None:
                draft = await self._policies.judge(draft, self._finish)
        except BaseException as error:
            content.discard()
            _count(error)
            raise
        try:
            message, events = compose(draft.envelope, content, draft.parsed, draft.terms, idempotency)
            await suppressing.store(self._spool, message, events, draft.terms.route)
        except Exception:
            return self._not_stored(Failure(), content)  # type: ignore[no-untyped-call]
        return self._stored(None, message)

    def _finish(self, draft: Draft, slug: str | None) -> Draft:
        """See policies.Finish."""
        terms = draft.terms
        if slug is not None:
            route = self._route(terms.project, slug)
            terms = evolve(terms, route=route, lifetime=self._lifetime(route))
        self._check(draft.envelope, b"".join([one.raw for one in draft.parsed.kept]), draft.parsed, terms.project)
        return evolve(draft, terms=terms)

    def _stored(self, _: None, message: Message) -> Reply:
        metrics.MESSAGES_ACCEPTED.inc()
        metrics.ACCEPTED_BYTES.inc(message.size)
        metrics.RECIPIENTS_ACCEPTED.inc(len(message.recipients))
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
        return _queued_as(message.id)

    def _not_stored(self, failure: Failure, content: IContent) -> Reply:
        content.discard()
        metrics.MESSAGES_REFUSED["storage"].inc()
        if isinstance(failure.value, NotStored):
            self.log.warn("a message was not stored: {reason}", reason=failure.getErrorMessage())
        else:
            self.log.failure("a message could not be stored", failure=failure)
        return NOT_STORED


def _count(error: BaseException) -> None:
    """A message was refused at its end, or a fault of ours made us give it up."""
    metrics.MESSAGES_REFUSED[error.word if isinstance(error, Refused) and error.word else "local"].inc()


def _queued_as(identifier: str) -> Reply:
    """The 250 whose last word is the id (COMPATIBILITY.md section 1, request id)."""
    return Reply(250, "2.0.0", f"Ok: queued as {identifier}")
