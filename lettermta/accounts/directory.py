"""The accounts as the daemon asks for them, in the reactor's thread: from memory, and current at each question.

Before it answers, the directory asks SQLite's ``data_version`` (some microseconds, no waiting for writers) and reads everything anew when
another connection has committed since: what ``lettermta-admin`` did holds from the next question on, revoking too. A daemon under load is
asked several times a message, and each look lets another thread have Python's lock, so it looks again only :data:`FRESH_SECONDS` after
the last time: less than the tool takes to end behind its commit. When the database
can't be read at that moment, the last good state goes on to answer and the log says so, once for each cause.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import Factory, define, evolve
from twisted.logger import Logger

from lettermta import metrics
from lettermta.accounts import records
from lettermta.accounts.dkim_keys import PrivateKey, private_key
from lettermta.accounts.errors import AccountError, StorageUnusable, storage_faults
from lettermta.accounts.model import Alignment, Domain, DomainKey, Project, Route, Token, without_care
from lettermta.accounts.schema import DATABASE, open_database, version_of
from lettermta.accounts.vault import Unsealable, Vault, token_owner
from lettermta.accounts.webhooks import WEBHOOKS, Webhook, webhook_of

_READ = metrics.ACCOUNTS_READ["succeeded"]
_NOT_READ = metrics.ACCOUNTS_READ["failed"]


FRESH_SECONDS = 0.002
"""For a daemon: how old what it knows of the accounts may be."""


@define
class _Snapshot:
    """All accounts at one moment, by each key they are asked for by."""

    projects: dict[str, Project] = Factory(dict)
    project_slugs: dict[str, Project] = Factory(dict)
    routes: dict[str, Route] = Factory(dict)
    route_slugs: dict[tuple[str, str], Route] = Factory(dict)
    defaults: dict[str, Route] = Factory(dict)
    domains: dict[str, frozenset[str]] = Factory(dict)
    """The names by the project's id; a project without domains may be missing."""
    of_project: dict[str, dict[str, Domain]] = Factory(dict)
    """The domains by the project's id and their names."""
    signing: dict[str, list[DomainKey]] = Factory(dict)
    """The keys that sign, by their domain's id; one without any is missing."""
    webhooks: dict[str, Webhook] = Factory(dict)
    tokens: dict[str, Token] = Factory(dict)
    digests: dict[bytes, Token] = Factory(dict)
    sealed: list[tuple[Token, bytes | None]] = Factory(list)
    """The live tokens and what is kept of their values."""
    secrets: list[tuple[Token, bytes]] | None = None
    """The live tokens whose values could be had, or None before the first CRAM-MD5 asked for them."""

    def add_project(self, project: Project) -> None:
        self.projects[project.id] = project
        self.project_slugs[project.slug] = project

    def add_route(self, route: Route) -> None:
        self.routes[route.id] = route
        self.route_slugs[route.project_id, route.slug] = route
        if route.default:
            self.defaults[route.project_id] = route

    def add_token(self, token: Token, digest: bytes, sealed: bytes | None) -> None:
        self.tokens[token.id] = token
        self.digests[digest] = token
        if token.revoked is None:
            self.sealed.append((token, sealed))


class Directory:
    """Answers about the accounts under ``state_dir``. The database and its key are made where there are none; raises AccountError.

    ``fresh_seconds``: for how long an answer of SQLite's that nothing has changed is taken as holding; 0: for one question.

    Make it before the reactor runs: opening may wait for another process; nothing after that does.
    """

    _log = Logger()

    def __init__(self, state_dir: Path, fresh_seconds: float = 0.0) -> None:
        self._fresh_seconds = fresh_seconds
        self._fresh_until = 0.0
        self._path = state_dir / DATABASE
        self._db, self._vault = open_database(state_dir)
        self._seen: int | None = None
        self._trouble = ""
        try:
            with storage_faults(self._path):
                self._db.execute("PRAGMA busy_timeout = 0")
                self._db.execute("PRAGMA query_only = ON")
                version = self._data_version()
                self._snapshot = _read(self._db, self._vault)
                self._seen = version
                self._in_force()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the files; nothing may be asked after that."""
        self._db.close()

    def project(self, project_id: str) -> Project | None:
        """The project of that id."""
        return self._current().projects.get(project_id)

    def project_by_slug(self, slug: str) -> Project | None:
        """The project of that slug."""
        return self._current().project_slugs.get(slug)

    def route(self, project_id: str, slug: str) -> Route | None:
        """The project's route of that slug."""
        return self._current().route_slugs.get((project_id, slug))

    def route_by_id(self, route_id: str) -> Route | None:
        """The route of that id, or of what :func:`~lettermta.accounts.model.with_care` makes of it."""
        return self._current().routes.get(without_care(route_id))

    def default_route(self, project_id: str) -> Route | None:
        """The project's default route; None only when there is no such project."""
        return self._current().defaults.get(project_id)

    def domains(self, project_id: str) -> frozenset[str]:
        """The names of the project's domains, as :func:`lettermta.accounts.rules.domain_name` writes them; empty without such a project."""
        return self._current().domains.get(project_id, frozenset())

    def domain(self, project_id: str, name: str) -> Domain | None:
        """The project's domain of exactly that name, as :func:`lettermta.accounts.rules.domain_name` writes it."""
        return self._current().of_project.get(project_id, {}).get(name)

    def signing_keys(self, project_id: str, author: str) -> tuple[str, Sequence[DomainKey]] | None:
        """Which domain signs mail of ``author``'s domain, and its keys that do; None when there is none.

        It is the author's own domain or, with relaxed alignment, the nearest one above it that the project has. So it is never a
        top-level domain, nor any other public suffix, unless the project has one: and there it could publish nothing.
        """
        snapshot = self._current()
        domains = snapshot.of_project.get(project_id)
        if not domains:
            return None
        name = author
        relaxed = snapshot.projects[project_id].alignment is Alignment.RELAXED
        while "." in name:
            domain = domains.get(name)
            if domain is not None and (keys := snapshot.signing.get(domain.id)):
                return name, keys
            if not relaxed:
                return None
            name = name.partition(".")[2]
        return None

    @property
    def state(self) -> object:
        """The same object until accounts change: for those who keep what they were told."""
        return self._current()

    @property
    def return_path_key(self) -> bytes:
        """What return paths are signed with: whoever has it can make bounces up."""
        return self._vault.return_path_key

    @property
    def unsubscribe_key(self) -> bytes:
        """What links to unsubscribe are signed with: whoever has it can unsubscribe everyone."""
        return self._vault.unsubscribe_key

    def private_key(self, key: DomainKey) -> PrivateKey:
        """The private part of a key, ready for use: to be kept by whoever signs. Raises Unsealable when it can't be had now."""
        try:
            row = self._db.execute(records.PRIVATE_KEY, (key.id,)).fetchone()
        except sqlite3.Error as fault:
            raise Unsealable(f"{self._path} can't be read: {fault}") from fault
        return private_key(evolve(key, sealed=None if row is None else row[0]), self._vault)

    def webhooks(self) -> Mapping[str, Webhook]:
        """All webhooks by their ids, also those that are switched off; the same object until accounts change."""
        return self._current().webhooks

    def owner(self, domain: str) -> Project | None:
        """The first project, by slug, that has the domain."""
        snapshot = self._current()
        owners = [project for project in snapshot.projects.values() if domain in self.domains(project.id)]
        return min(owners, key=lambda project: project.slug, default=None)

    def token(self, token_id: str) -> Token | None:
        """The token of that id, live or revoked."""
        return self._current().tokens.get(token_id)

    def token_by_secret(self, secret: bytes) -> Token | None:
        """The token of that value, live or revoked; takes the same time whatever the outcome."""
        return self._current().digests.get(self._vault.digest(secret))

    def token_by_cram(self, verify: Callable[[bytes], bool]) -> Token | None:
        """The live token whose value ``verify`` accepts. Each one is tried, also behind a match, so that time doesn't tell which it was."""
        found = None
        for token, secret in self._secrets(self._current()):
            if verify(secret):
                found = token
        return found

    def cram_possible(self) -> bool:
        """Whether CRAM-MD5 can succeed for each live token: a client that fails with it often tries nothing else (COMPATIBILITY.md 2)."""
        snapshot = self._current()
        return len(self._secrets(snapshot)) == len(snapshot.sealed)

    def live_secrets(self) -> Sequence[tuple[Token, bytes]]:
        """The live tokens whose values could be had, with those; the same object until accounts change. What SCRAM's keys are made of."""
        return self._secrets(self._current())

    def scram_salt(self, username: bytes) -> bytes:
        """The salt of any user name (RFC 5802 section 5.1): always the same one, and not to be foretold without the key file."""
        return self._vault.digest(b"SCRAM salt\0" + username)[:16]

    def _current(self) -> _Snapshot:
        if self._fresh_seconds:
            now = time.monotonic()
            if now < self._fresh_until:
                return self._snapshot
            self._fresh_until = now + self._fresh_seconds
        try:
            version = self._data_version()
            if version != self._seen:
                # The version was asked before reading: a commit in between is read now and once more at the next question.
                self._snapshot = _read(self._db, self._vault)
                self._seen = version
                self._in_force()
        except sqlite3.Error as fault:
            # Read at the next question that can, whatever the version is then: only so it is known that the trouble is over.
            self._seen = None
            self._report(str(fault))
        except AccountError as fault:
            # What is in there won't become readable by itself: look again only after the next commit.
            self._seen = version
            self._report(str(fault))
        return self._snapshot

    def _data_version(self) -> int:
        version: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        return version

    def _in_force(self) -> None:
        self._trouble = ""
        _READ.inc()
        metrics.ACCOUNTS_STALE.set(0)

    def _report(self, trouble: str) -> None:
        _NOT_READ.inc()
        metrics.ACCOUNTS_STALE.set(1)
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error(
                "{path}: changes to accounts can't be read, the last ones read stay in force: {why}", path=str(self._path), why=trouble
            )

    def _secrets(self, snapshot: _Snapshot) -> Sequence[tuple[Token, bytes]]:
        if snapshot.secrets is None:
            snapshot.secrets = []
            for token, sealed in snapshot.sealed:
                try:
                    if sealed is not None:
                        snapshot.secrets.append((token, self._vault.unseal(sealed, token_owner(token.id)).encode()))
                except Unsealable as fault:
                    self._log.error("{path} is damaged, CRAM-MD5 is not offered: {fault}", path=str(self._path), fault=str(fault))
        return snapshot.secrets


def _read(connection: sqlite3.Connection, vault: Vault) -> _Snapshot:
    """Read everything as of one moment; raises StorageUnusable or sqlite3.Error."""
    snapshot = _Snapshot()
    connection.execute("BEGIN")
    try:
        version_of(connection)
        for row in connection.execute(records.PROJECTS):
            snapshot.add_project(records.project_of(row))
        for row in connection.execute(records.ROUTES):
            snapshot.add_route(records.route_of(row, vault))
        for row in connection.execute(records.TOKENS):
            snapshot.add_token(records.token_of(row), row[6], row[7])
        snapshot.webhooks = {row[0]: webhook_of(row, vault) for row in connection.execute(WEBHOOKS)}
        for domain in map(records.domain_of, connection.execute(records.DOMAINS)):
            snapshot.of_project.setdefault(domain.project_id, {})[domain.name] = domain
        snapshot.domains = {project_id: frozenset(domains) for project_id, domains in snapshot.of_project.items()}
        for key in map(records.key_of, connection.execute(records.SIGNING_KEYS)):
            snapshot.signing.setdefault(key.domain_id, []).append(key)
    except (Unsealable, ValueError) as fault:
        raise StorageUnusable(f"{DATABASE} is damaged: {fault}") from fault
    finally:
        connection.execute("ROLLBACK")
    return snapshot
