"""The wiring: the one place that knows all parts, and the order in which they start and stop.

Start: sockets are bound and certificates read while there may be privileges to do it; then, as the user the daemon stays, accounts, spool,
delivery and events; the ports are answered last. Stop: the ports first, then what is under way (within a bound), the spool last.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python import usage
from twisted.python.failure import Failure

from lettermta import __version__, metrics
from lettermta.accounts.directory import FRESH_SECONDS, Directory
from lettermta.accounts.errors import AccountError
from lettermta.config import Config, ConfigError, load
from lettermta.delivery.shaping import ShapingRules
from lettermta.delivery.throttling import ThrottleRules
from lettermta.delivery.unsubscribe.desk import UnsubscribeDesk
from lettermta.events.dispatcher import Dispatcher
from lettermta.ops import control, descriptors, http, notify, unsubscribe
from lettermta.ops.log import LineObserver, wanted
from lettermta.ops.operations import Operations
from lettermta.ops.privileges import NotOurs, refuse_root
from lettermta.ops.reloading import RELOADED, from_the_next_start
from lettermta.outside import PluggedIn, certificate_faults, certificate_pairs, plugged_in
from lettermta.smtp.listening import Bound, CannotListen, open_sockets
from lettermta.smtp.server import ESMTPFactory
from lettermta.smtp.tls import CertificatePair, ServerTLS, TLSFault, self_signed
from lettermta.spool.damage import SpoolDamaged
from lettermta.spool.schema import SpoolVersionError
from lettermta.spool.store import Spool, SpoolInUse
from lettermta.submission.server import SubmissionServer
from lettermta.wiring import (
    OPENINGS,
    make_edge,
    make_ledger,
    make_resolver,
    make_return_paths,
    make_returns,
    make_routing,
    make_scheduler,
    make_sinks,
    make_sources,
    make_submission,
    make_tls_policies,
    make_tls_reports,
    make_unsubscribe_desk,
    make_webhooks,
    relimit,
    webhook_settings,
)

_HTTP = "[http]"
"""What has TLS like a listener, and a name that no listener can have."""
DRAIN_SECONDS = 10.0
"""How long sessions with a message in hand may take to finish when the daemon stops."""


class Options(usage.Options):
    """What ``twistd lettermta`` takes."""

    optParameters = [["config", "c", "/etc/lettermta/mta.ini", "The configuration file."]]  # noqa: RUF012 - usage.Options wants a list

    def postOptions(self) -> None:
        """Read the configuration; every fault in it ends the program with all of them told."""
        try:
            self["settings"] = load(self["config"])
            self["plugged"] = plugged_in(self["settings"])
        except ConfigError as error:
            _end(f"The configuration has faults:\n{error}", os.EX_CONFIG)


def makeService(options: Options) -> Lettermta:
    """The service that ``twistd lettermta`` runs."""
    from twisted.internet import reactor

    observer = LineObserver(sys.stdout) if wanted(getattr(options, "parent", None)) else None
    return Lettermta(options["settings"], options["plugged"], reactor, observer)


class Lettermta(Service):
    """One daemon, all of it."""

    log = Logger()

    def __init__(self, config: Config, plugged: PluggedIn, reactor: Any, observer: ILogObserver | None = None) -> None:
        self._config = config
        self._observer = observer
        self._plugged = plugged
        self._reactor = reactor
        self._bound: list[Bound] = []
        self._health = http.Health()
        self._http: list[IListeningPort] = []
        self._tls: Mapping[str, ServerTLS] = {}
        """By the listener's name: each has ticket keys of its own."""
        self._ports: list[IListeningPort] = []
        """What the outside comes in by: closed first."""
        self._unsubscribe_desk: UnsubscribeDesk | None = None
        self._factories: list[ESMTPFactory] = []

    # -- starting

    def setServiceParent(self, parent: Any) -> None:
        """Become part of twistd's application, which asks its components for the log observer."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if self._observer is not None:
            parent.setComponent(ILogObserver, self._observer)

    def privilegedStartService(self) -> None:
        """Bind the ports and read the certificates, with the privileges that there may be."""
        # Timers must not follow the wall clock when it is set (HARD-CASES row 27).
        self._reactor.seconds = time.monotonic
        try:
            self._bound = open_sockets(self._config.listeners)
            site = http.make_site(metrics.REGISTRY, self._health, self._reactor)
            https = (lambda: self._tls[_HTTP]) if self._config.http.tls else None
            self._http = http.listen(self._reactor, self._config.http.listen, site, https)
            pages = unsubscribe.make_site(lambda: self._unsubscribe_desk, self._reactor)
            self._ports = unsubscribe.listen(self._reactor, self._config.unsubscribe.listen, pages)
            if self._config.tls.certificate:
                self._tls = self._configured_tls(self._config)
        except CannotListen as error:
            _end(f"lettermta can't listen:\n{error}", os.EX_UNAVAILABLE)
        except TLSFault as error:
            _end(f"lettermta can't use its certificates:\n{error}", os.EX_CONFIG)

    def startService(self) -> None:
        """Start every part; what can't be started ends the program with the reason."""
        super().startService()  # type: ignore[no-untyped-call]
        config = self._config
        try:
            self._prepare_state(config)
            self._directory = Directory(config.mta.state_dir, FRESH_SECONDS)
            self._spool = Spool(config.mta.state_dir / "spool" / "0", self._reactor, config.limits.free_space)
            self._spool.open()
        except (AccountError, SpoolVersionError, SpoolInUse, SpoolDamaged, TLSFault) as error:
            _end(f"lettermta can't start: {error}", os.EX_UNAVAILABLE)
        except OSError as error:
            _end(_state_fault(config, error), os.EX_CANTCREAT)
        self._webhooks = make_webhooks(config, self._reactor, self._directory, self._spool)
        sinks = [*make_sinks(config, self._reactor, self._plugged.hooks), self._webhooks]
        self._dispatcher = Dispatcher(self._spool, sinks, self._reactor, retention=config.events.retention)
        resolver = make_resolver(config, self._reactor)
        ledger = make_ledger(config, self._reactor)
        self._tls_policies = make_tls_policies(config, self._reactor, resolver, ledger)
        self._tls_reports = make_tls_reports(config, self._reactor, self._directory, self._spool, resolver, ledger)
        return_paths = make_return_paths(config, self._directory)
        returns = make_returns(config, self._reactor, self._spool, return_paths)
        sources = make_sources(config, self._reactor)
        self._routing = make_routing(config, self._reactor, self._directory, resolver, self._tls_policies, sources)
        self._throttles = ThrottleRules(config.throttles)
        self._unsubscribe_desk = make_unsubscribe_desk(self._directory, self._spool)
        self._scheduler = make_scheduler(config, self._reactor, self._spool, self._routing, self._throttles, return_paths)
        operations = Operations(self._spool, self._scheduler, self._directory, time.time)
        try:
            self._control = control.listen(self._reactor, config.mta.state_dir, self._spool, operations)
        except CannotListenError as error:
            _end(f"lettermta can't open its control socket {error.port}: {error.socketError}", os.EX_CANTCREAT)
        self._submission = make_submission(config, self._reactor, self._directory, self._spool, self._plugged.policies, returns)
        self._edge = make_edge(config, self._reactor, self._connections(config))
        self._health.check("spool", self._spool.complaint)
        self._health.check("spool-damage", self._spool.damage, http.Severity.WARNING)
        self._health.check("events", self._dispatcher.complaint, http.Severity.WARNING)
        metrics.REGISTRY.measure("spool", lambda: Deferred.fromCoroutine(self._spool.measure()))
        metrics.REGISTRY.measure("delivery", self._scheduler.measure)
        metrics.REGISTRY.measure("events", self._dispatcher.measure)
        metrics.REGISTRY.measure("webhooks", self._webhooks.measure)
        self._health.check("webhooks", self._webhooks.complaint, http.Severity.WARNING)
        metrics.REGISTRY.measure("dns", resolver.measure)
        Deferred.fromCoroutine(self._start()).addErrback(self._start_failed)

    def _connections(self, config: Config) -> int:
        """How many connections there can be; says so when they are fewer than configured."""
        wanted, files = config.limits.connections, descriptors.raise_limit()
        shortage = descriptors.shortage(wanted, files)
        self._health.check("descriptors", lambda: shortage, http.Severity.WARNING)
        if shortage is not None:
            self.log.warn("{shortage}", shortage=shortage)
        return descriptors.connections_within(wanted, files)

    def _prepare_state(self, config: Config) -> None:
        state_dir = config.mta.state_dir
        refuse_root(state_dir)
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = not self._tls
        if own:
            pair = self_signed(state_dir / "tls", config.mta.hostname)
            self._tls = self._make_tls(config, [pair])
            self.log.warn(
                "no certificate is configured: {file} is self-signed, and clients that verify will refuse it ([tls] certificate)",
                file=str(pair.certificate),
            )
        self._tell_certificates(self_signed=own)

    async def _start(self) -> None:
        await self._dispatcher.start()
        await self._tls_policies.start()
        await self._tls_reports.start()
        await self._scheduler.start()
        await self._submission.scram.warm()
        for bound in self._bound:
            self._answer(bound)
        self._reactor.callWhenRunning(self._take_signals)
        listening = ", ".join(sorted({str(bound.socket.getsockname()[1]) for bound in self._bound}, key=int))
        self.log.info("lettermta {version} answers on ports {ports}", version=__version__, ports=listening)
        for bound in self._bound:
            bound.socket.close()  # the reactor has its own descriptors
        self._health.check("listeners", self._deaf_port)
        # What is here now stays to the end: to look through all of it in each collection would cost tens of milliseconds for nothing.
        gc.collect()
        gc.freeze()
        self._health.condition = http.Condition.READY
        notify.notify(notify.READY)

    def _deaf_port(self) -> str | None:
        deaf = not all(getattr(port, "connected", False) for port in self._ports)
        return "a port is no longer listened on" if deaf else None

    def _start_failed(self, failure: Failure) -> None:
        self.log.critical("lettermta can't start: {reason}", reason=failure.getErrorMessage())
        # twistd would exit by 0 whatever the reason was that the reactor stopped.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, os.EX_UNAVAILABLE)
        self._reactor.callWhenRunning(self._reactor.stop)

    def _answer(self, bound: Bound) -> None:
        listener = bound.listener
        factory = ESMTPFactory(
            SubmissionServer(self._submission, listener),
            self._reactor,
            edge=self._edge,
            listener=listener.name,
            opening=OPENINGS[listener.security],
            tls=self._tls[listener.name],
            detection_time=listener.detection_time,
            proxies=listener.proxy_protocol_from,
        )
        self._factories.append(factory)
        self._ports.append(self._reactor.adoptStreamPort(bound.socket.fileno(), bound.socket.family, factory))

    def _configured_tls(self, config: Config) -> Mapping[str, ServerTLS]:
        return self._make_tls(config, certificate_pairs(config))

    def _make_tls(self, config: Config, pairs: Sequence[CertificatePair]) -> Mapping[str, ServerTLS]:
        """For the listeners that were there at the start; a reload brings no new ones."""
        names = [*(listener.name for listener in self._config.listeners), _HTTP]
        return {name: ServerTLS(pairs, config.tls.minimum, config.tls.ciphers, name) for name in names}

    # -- signals

    def _take_signals(self) -> None:
        """SIGTERM and SIGINT stop in good order, SIGHUP reloads; twistd's own handlers would end by the signal, or at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._reactor.stop))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def _reload(self) -> None:
        """The service manager is told when it begins and when it is over, and what came of it."""
        notify.notify(notify.reloading())
        notify.notify(f"{notify.READY}\n{notify.status(self._read_anew())}")

    def _read_anew(self) -> str:
        """Read certificates and rules of delivery anew; with any fault in any of them all the old ones stay (HARD-CASES row 29). Returns
        what came of it.
        """
        try:
            config = load(self._config.path)
            if faults := certificate_faults(config):
                raise ConfigError(faults)
            if config.tls.certificate:
                self._certify(self._configured_tls(config))
        except (ConfigError, TLSFault) as error:
            metrics.RELOADS["refused"].inc()
            self.log.error("reload refused, the old configuration stays in force: {reason}", reason=str(error))
            return f"reload refused: {error}"
        self._relimit(config)
        self._routing.reshape(ShapingRules(config.shaping))
        self._throttles.follow(config.throttles)
        self._scheduler.reshape()
        # Where the state is changes with a restart alone.
        self._webhooks.renew(webhook_settings(evolve(config, mta=self._config.mta)))
        metrics.RELOADS["succeeded"].inc()
        self.log.info("{told}", told=RELOADED)
        left = ", ".join(from_the_next_start(self._config, config))
        if left:
            self.log.warn("changed in the file, and in force from the next start only: {left}", left=left)
        return f"{RELOADED}; from the next start only: {left}" if left else RELOADED

    def _certify(self, tls: Mapping[str, ServerTLS]) -> None:
        """Serve other certificates from the next handshake on."""
        self._tls = tls
        self._tell_certificates(self_signed=False)
        for factory in self._factories:
            factory.tls = tls[factory.listener]

    def _tell_certificates(self, *, self_signed: bool) -> None:
        """Have metrics and health say what the certificates are worth."""
        metrics.CERTIFICATE_EXPIRES.set(min(tls.expires for tls in self._tls.values()))
        metrics.CERTIFICATE_SELF_SIGNED.set(self_signed)
        complaint = "the certificate is self-signed: clients that verify refuse it" if self_signed else None
        self._health.check("tls", lambda: complaint, http.Severity.WARNING)

    def _relimit(self, config: Config) -> None:
        """What [limits] says: for connections to come; for messages and room on the disk at once."""
        self._submission.limit(config.limits.message_size, config.limits.recipients)
        self._spool.keep_free(config.limits.free_space)
        self._edge = relimit(self._edge, config, self._connections(config))
        for factory in self._factories:
            factory.edge = self._edge

    # -- stopping

    def stopService(self) -> Deferred[None]:
        """Stop every part in good order, within a bound."""
        super().stopService()  # type: ignore[no-untyped-call]
        notify.notify(notify.STOPPING)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._health.condition = http.Condition.STOPPING
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self._drain()
        await self._scheduler.stop()
        await self._tls_policies.stop()
        await self._tls_reports.stop()
        await maybeDeferred(self._control.stopListening)
        await self._dispatcher.stop()
        await self._spool.close()
        self._directory.close()
        for port in self._http:
            await maybeDeferred(port.stopListening)
        self.log.info("lettermta has stopped")

    async def _drain(self) -> None:
        """Let sessions finish the message that they have in hand."""
        until = self._reactor.seconds() + DRAIN_SECONDS
        while sum([factory.drain() for factory in self._factories]) and self._reactor.seconds() < until:
            await deferLater(self._reactor, 0.05)
        for factory in self._factories:
            factory.abort()


def _end(text: str, status: int) -> NoReturn:
    """End the program before it has begun: the text to standard error, a status of sysexits to whoever started it."""
    # twistd has sent sys.stderr to its log by now; whoever started us looks at the real one.
    print(text, file=sys.__stderr__)
    raise SystemExit(status)


def _state_fault(config: Config, error: OSError) -> str:
    if isinstance(error, NotOurs):
        return f"lettermta can't start: {error}"
    text = f"lettermta can't use its state directory {config.mta.state_dir}: {error}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        text += "\nIt must belong to the user that lettermta runs as ([mta] state_dir); etc/dev.ini keeps its state in the checkout"
    return text
