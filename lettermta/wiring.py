"""The parts of a daemon, made from its configuration: what each key comes to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import ReceivedField
from lettermta.accounts.scram_keys import ScramKeys
from lettermta.accounts.webhooks import GONE_REASON, Webhook
from lettermta.config import BareLineEnds, Config, EightBitHeaders, PolicyFailure, Security, Unroutable
from lettermta.delivery.classes import Classifier
from lettermta.delivery.dkim.signer import Signer
from lettermta.delivery.dkim.thread import SigningThread
from lettermta.delivery.finishing import Finisher
from lettermta.delivery.ourselves import Ourselves
from lettermta.delivery.reporter import Reporter, ReportRules
from lettermta.delivery.resolver import Resolver, system_servers
from lettermta.delivery.returns.desk import DeskRules, ReturnsDesk
from lettermta.delivery.returns.kept import Kept
from lettermta.delivery.returns.path import ReturnPaths
from lettermta.delivery.routing import Routing
from lettermta.delivery.scheduler import Scheduler, whole
from lettermta.delivery.shaping import ShapingRules
from lettermta.delivery.sources import Source, SourcePool, SourcePools
from lettermta.delivery.suppressing import Suppressing
from lettermta.delivery.throttling import ThrottleRules
from lettermta.delivery.tls.decision import TLSPolicies
from lettermta.delivery.tls.https import HTTPSClient
from lettermta.delivery.tls.ledger import FOLDER, DayFiles, Ledger
from lettermta.delivery.tls.mta_sts import MTASTS
from lettermta.delivery.tls.policy import UNCOUNTED, ITLSResults
from lettermta.delivery.tls.report_mail import ReportMail
from lettermta.delivery.tls.report_text import Submitter
from lettermta.delivery.tls.reporting import TLSReports
from lettermta.delivery.tls.sts_files import PolicyFiles
from lettermta.delivery.transports.settings import DeliverySettings
from lettermta.delivery.unsubscribe.desk import UnsubscribeDesk
from lettermta.delivery.unsubscribe.links import Links
from lettermta.delivery.warm_up import Plan, WarmUp
from lettermta.events.amqp import AMQPSettings, AMQPSink
from lettermta.events.amqp_channel import Broker
from lettermta.events.hooks import HookSink
from lettermta.events.json_log import JSONLog
from lettermta.events.log_file import Rotation
from lettermta.events.sink import IEventSink
from lettermta.events.webhooks.own_events import disabled_event
from lettermta.events.webhooks.process import WebhookSink
from lettermta.interfaces import IEventHook, IResolver, IReturns, ISpool, ISubmissionPolicy
from lettermta.message import QueueEntry
from lettermta.smtp.admission import Admission, Caps, LoginGuard
from lettermta.smtp.connection import Opening
from lettermta.smtp.patience import Pace
from lettermta.smtp.server import Edge
from lettermta.smtp.session import SessionRules
from lettermta.smtp.transaction import ContentRules
from lettermta.submission.hygiene import HeaderRules
from lettermta.submission.policies import NamedPolicy, Policies
from lettermta.submission.server import Submission, SubmissionRules
from lettermta.submission.stranger import NothingReturns
from lettermta.webhook_sender import settings_for

NETWORK_SHARE = 4
"""A network may have so many times the connections of an address."""
SHUT_OUT_SECONDS = 600.0
"""How long an address with too many failed logins is not let in."""

_log = Logger()

Parted = Callable[[QueueEntry], Sequence[QueueEntry]]
"""Tells which recipients of an entry have to go by themselves."""

OPENINGS = {Security.STARTTLS: Opening.CLEAR, Security.TLS: Opening.TLS, Security.AUTO: Opening.DETECT}


def threads_of(reactor: Any) -> Callable[..., Deferred[Any]]:
    """Runs a function in one of the reactor's threads."""

    def threaded(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    return threaded


def make_signer(directory: Directory, reactor: Any) -> Signer:
    """What signs mail: in a thread where another core can take it; with one alone that would only cost its hops (a fifth of a message)."""
    beside = len(os.sched_getaffinity(0)) > 1
    signing = SigningThread(reactor.callFromThread).run if beside else maybeDeferred
    return Signer(directory, signing, threads_of(reactor), time.time)


def make_edge(config: Config, reactor: Any, connections: int) -> Edge:
    """What all listeners share: caps, the guard of logins, deadlines. ``connections``: how many of the configured ones there can be."""
    limits = config.limits
    return Edge(
        admission=Admission(_caps(config, connections), limits.exempt_networks, reactor),
        guard=LoginGuard(limits.auth_failures, SHUT_OUT_SECONDS, limits.exempt_networks, reactor),
        pace=_pace(config),
        rules=SessionRules(errors=limits.errors, content=ContentRules(repair=config.submission.bare_line_ends is BareLineEnds.REPAIR)),
    )


def relimit(edge: Edge, config: Config, connections: int) -> Edge:
    """The edge for connections that come after a reload, with other limits; what it has counted goes on counting."""
    limits = config.limits
    edge.admission.follow(_caps(config, connections), limits.exempt_networks)
    edge.guard.follow(limits.auth_failures, limits.exempt_networks)
    return evolve(edge, pace=_pace(config), rules=evolve(edge.rules, errors=limits.errors))


def _caps(config: Config, connections: int) -> Caps:
    limits = config.limits
    per_address = min(limits.connections_per_address, connections)
    return Caps(connections, per_address, min(per_address * NETWORK_SHARE, connections))


def _pace(config: Config) -> Pace:
    limits = config.limits
    return Pace(limits.command_timeout, limits.data_timeout, limits.minimum_rate)


def make_sinks(config: Config, reactor: Any, hooks: Sequence[tuple[str, IEventHook]]) -> list[IEventSink]:
    """The readers of the outbox."""
    sinks: list[IEventSink] = [HookSink(dotted, hook, reactor) for dotted, hook in hooks]
    if config.events.json_log is not None:
        size = config.events.json_log_size
        rotation = None if size is None else Rotation(size, config.events.json_log_keep)
        sinks.append(JSONLog(config.events.json_log, reactor, rotation=rotation))
    if (url := config.amqp.url) is not None:
        amqp = config.amqp
        broker = Broker(url.host, url.port, url.tls, url.user, url.password, url.vhost, amqp.password_file, amqp.ca, amqp.certificate)
        settings = AMQPSettings(broker, amqp.exchange, amqp.declare, amqp.routing_key, amqp.unroutable is Unroutable.WAIT)
        sinks.append(AMQPSink(settings, reactor))
    return sinks


def make_submission(
    config: Config,
    reactor: Any,
    directory: Directory,
    spool: ISpool,
    policies: Sequence[tuple[str, ISubmissionPolicy]] = (),
    returns: IReturns | None = None,
) -> Submission:
    """What the submission of all listeners has in common."""

    rules = SubmissionRules(
        hostname=config.mta.hostname,
        usernames=config.submission.usernames,
        message_size=config.limits.message_size,
        recipients=config.limits.recipients,
        lifetime=config.delivery.lifetime,
        header=HeaderRules(
            message_id_domain=config.submission.message_id_domain or config.mta.hostname,
            eight_bit=config.submission.eight_bit_headers is EightBitHeaders.ACCEPT,
            most_fields=config.submission.header_fields,
            received=ReceivedField(config.submission.received_header),
        ),
        unsubscribe=config.unsubscribe.url is not None,
    )
    asked = Policies(
        [NamedPolicy(name, policy) for name, policy in policies],
        reactor,
        time_limit=config.submission.policy_timeout,
        lenient=config.submission.policy_failure is PolicyFailure.ACCEPT,
        metadata=rules.metadata,
    )
    scram = ScramKeys(directory, rules.usernames, threads_of(reactor))
    return Submission(rules, directory, spool, scram, asked if policies else None, returns or NothingReturns())


def make_returns(config: Config, reactor: Any, spool: ISpool, return_paths: ReturnPaths) -> ReturnsDesk:
    """What takes bounces, complaints and automatic answers."""
    rules = DeskRules(frozenset(config.delivery.complaint_addresses), config.delivery.suppress_bounced)
    kept = Kept.below(config.mta.state_dir)
    classifier = Classifier(config.delivery.reply_classes)
    return ReturnsDesk(rules, return_paths, spool, classifier.classify, kept, reactor, threads_of(reactor), time.time)


def make_webhooks(config: Config, reactor: Any, directory: Directory, spool: ISpool) -> WebhookSink:
    """The reader of the outbox that has webhooks told."""

    def gone(webhook: Webhook) -> None:
        project = directory.project(webhook.project_id)
        route = None if webhook.route_id is None else directory.route_by_id(webhook.route_id)
        if project is not None:
            spool.tell([disabled_event(webhook, project.slug, None if route is None else route.slug, GONE_REASON, time.time())]).addErrback(
                lambda failure: _log.failure("that webhook {id} was switched off could not be told", failure=failure, id=webhook.id)
            )

    return WebhookSink(directory.webhooks, webhook_settings(config), gone, reactor)


def webhook_settings(config: Config) -> Mapping[str, Any]:
    """What the process that sends webhooks is told first."""
    events = config.events
    return settings_for(
        config.mta.state_dir,
        concurrency=events.webhook_concurrency,
        delays=events.webhook_schedule,
        allowed=events.webhook_allow_networks,
        retention=events.webhook_retention,
    )


def make_resolver(config: Config, reactor: Any) -> Resolver:
    """The resolver that delivery asks."""
    servers = [(server.host, server.port) for server in config.dns.servers] or system_servers()
    return Resolver(reactor, servers, config.dns.timeout, config.dns.cache_entries, validating=config.dns.trusted)


def make_tls_policies(config: Config, reactor: Any, resolver: Resolver, results: ITLSResults = UNCOUNTED) -> TLSPolicies:
    """What decides on the TLS of receivers' hosts."""
    delivery = config.delivery
    sts = None
    if delivery.mta_sts:
        files = PolicyFiles(config.mta.state_dir / "mta-sts")
        sts = MTASTS(resolver, make_https(config, reactor, resolver), files, reactor, time.time, threads_of(reactor))
    return TLSPolicies(resolver, delivery.port, delivery.dane and config.dns.trusted, sts, delivery.tls_ca_file, results)


def make_https(config: Config, reactor: Any, resolver: Resolver) -> HTTPSClient:
    """What asks receivers' web servers."""
    return HTTPSClient(reactor, resolver, config.delivery.allow_networks, config.delivery.tls_ca_file)


def make_ledger(config: Config, reactor: Any) -> Ledger:
    """The book of how TLS went."""
    return Ledger(DayFiles(config.mta.state_dir / FOLDER), time.time, threads_of(reactor))


def tls_submitter(config: Config) -> Submitter | None:
    """Who reports on TLS, if anyone."""
    delivery, hostname = config.delivery, config.mta.hostname
    if delivery.tls_report_from is None:
        return None
    return Submitter(delivery.tls_report_organization or hostname, delivery.tls_report_from, hostname)


def make_tls_reports(config: Config, reactor: Any, directory: Directory, spool: ISpool, resolver: Resolver, ledger: Ledger) -> TLSReports:
    """What sends reports on TLS."""
    mailer = ReportMail(spool, directory, config.delivery.lifetime, time.time)
    https = make_https(config, reactor, resolver)
    return TLSReports(ledger, resolver, https, mailer, tls_submitter(config), reactor, time.time)


def make_return_paths(config: Config, directory: Directory) -> ReturnPaths:
    """Return paths, which are of use as long as the events are kept that tell what they stand for."""
    return ReturnPaths(directory, config.events.retention, time.time, config.takes_returns)


def make_links(config: Config, directory: Directory) -> Links | None:
    """What puts links to unsubscribe into mail, if anything does."""
    return None if config.unsubscribe.url is None else Links(directory, config.unsubscribe.url)


def make_unsubscribe_desk(directory: Directory, spool: ISpool) -> UnsubscribeDesk:
    """What is done when somebody follows one."""
    return UnsubscribeDesk(directory, spool, time.time)


def make_sources(config: Config, reactor: Any) -> SourcePools:
    """Where mail leaves from."""
    warm_up = WarmUp(config.mta.state_dir / "warm-up.json", threads_of(reactor), time.time)
    warm_up.load()
    sources = {
        each.name: Source(
            each.name, each.addresses, each.hostname or config.mta.hostname, Plan(each.warm_up, each.warm_up_from) if each.warm_up else None
        )
        for each in config.sources
    }
    pools = {each.name: SourcePool(each.name, [sources[name] for name in each.sources], warm_up) for each in config.pools}
    delivery = config.delivery
    default = pools[delivery.pool] if delivery.pool is not None else None
    if delivery.source_addresses:
        alone = [Source(address, (address,), config.mta.hostname) for address in delivery.source_addresses]
        default = SourcePool("source_addresses", alone, warm_up)
    return SourcePools(pools, default)


def make_routing(
    config: Config, reactor: Any, directory: Directory, resolver: IResolver, policies: TLSPolicies, sources: SourcePools
) -> Routing:
    """What knows the way of all mail."""
    delivery = config.delivery
    links = make_links(config, directory)
    settings = DeliverySettings(
        hostname=config.mta.hostname,
        port=delivery.port,
        tls=delivery.tls.value,
        allow_networks=delivery.allow_networks,
        connect_timeout=delivery.connect_timeout,
        banner_timeout=delivery.banner_timeout,
        command_timeout=delivery.command_timeout,
        data_start_timeout=delivery.data_start_timeout,
        data_block_timeout=delivery.data_block_timeout,
        data_timeout=delivery.data_timeout,
        ourselves=Ourselves((address, port) for listener in config.listeners for address in listener.addresses for port in listener.ports),
        finisher=Finisher(make_signer(directory, reactor), threads_of(reactor), links),
        trust=delivery.tls_ca_file,
    )
    return Routing(
        reactor=reactor,
        settings=settings,
        directory=directory,
        resolver=resolver,
        policies=policies,
        capture_dir=config.mta.state_dir / "capture",
        relayhost=delivery.relayhost,
        capture_all=delivery.capture_all,
        delays=delivery.schedule,
        lifetime=delivery.lifetime,
        shaping=ShapingRules(config.shaping),
        sources=sources,
        links=links,
    )


def in_turn(first: Parted, second: Parted) -> Parted:
    """What one parts is for the other one to part."""
    return lambda entry: [part for one in first(entry) for part in second(one)]


def make_scheduler(
    config: Config, reactor: Any, spool: ISpool, routing: Routing, throttles: ThrottleRules, return_paths: ReturnPaths
) -> Scheduler:
    """Delivery, from the schedule to the ways out."""
    delivery = config.delivery
    rules = ReportRules(config.mta.hostname, delivery.bounce, delivery.delay_warning)
    reporter = Reporter(rules, spool.content, spool.load, routing.lifetime_of, time.time)
    classifier = Classifier(delivery.reply_classes)
    parted: Parted = whole if delivery.capture_all else return_paths.parted
    if (links := make_links(config, return_paths.directory)) is not None:
        parted = in_turn(links.parted, parted)
    suppressing = Suppressing(spool.suppressions, routing.broadcast, delivery.suppress_bounced)
    return Scheduler(
        spool,
        routing.way,
        routing.schedule_of,
        reactor,
        time.time,
        reporter,
        classifier.classify,
        parted,
        throttles,
        suppressing,
    )
