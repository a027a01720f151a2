"""Administration of the accounts: what ``lettermta-admin`` does, each change durable and seen by a running daemon when the call returns.

Blocks on the disk (and up to ten seconds on another writer), so it is for tools and for a daemon's start, not for the reactor's thread;
there :class:`~lettermta.accounts.directory.Directory` answers. Every failure is an :class:`~lettermta.accounts.errors.AccountError`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from lettermta.accounts import records, rules
from lettermta.accounts.dkim_keys import new_pair, retired
from lettermta.accounts.errors import AccountExists, InvalidAccount, NoSuchAccount, StorageUnusable, storage_faults
from lettermta.accounts.model import (
    OUTGOING,
    Alignment,
    Domain,
    DomainKey,
    KeyState,
    Project,
    ReceivedField,
    Route,
    RouteKind,
    RouteTLS,
    Smarthost,
    Token,
    TransportKind,
)
from lettermta.accounts.schema import DATABASE, open_database
from lettermta.accounts.vault import Unsealable, token_owner
from lettermta.message import new_id

RETIRED_SECONDS = 30 * 86400.0
"""How long a retired key is shown, so that its record is not removed while mail that it signed is still being verified."""


class AccountStore:
    """The accounts under one ``state_dir``. A context manager that closes itself.

    A change to a project or route is a function from what it is now to what it shall be; both are looked at in one transaction, so two
    tools at work at the same time don't undo each other's changes.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / DATABASE
        self._db, self._vault = open_database(state_dir)

    def __enter__(self) -> AccountStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._db.close()

    def create_project(
        self,
        slug: str,
        *,
        smtp: bool = True,
        message_size: int | None = None,
        recipients: int | None = None,
        check_sender: bool = False,
        alignment: Alignment = Alignment.RELAXED,
    ) -> Project:
        """A new project with its default route ``outgoing`` (transactional, by MX)."""
        now = time.time()
        project = Project(new_id(), slug, smtp, message_size, recipients, now, check_sender, alignment)
        rules.check_project(project)
        route = Route(new_id(), project.id, OUTGOING, RouteKind.TRANSACTIONAL, TransportKind.MX, None, True, now, ReceivedField.DEFAULT)
        with self._transaction():
            if self._rows(f"{records.PROJECTS} WHERE slug = ?", slug):
                raise AccountExists(f"there is a project {slug} already")
            self._db.execute(records.INSERT_PROJECT, records.project_row(project))
            self._db.execute(records.INSERT_ROUTE, records.route_row(route, self._vault))
        return project

    def projects(self) -> Sequence[Project]:
        """All projects by slug."""
        return [records.project_of(row) for row in self._rows(f"{records.PROJECTS} ORDER BY slug")]

    def project(self, slug: str) -> Project:
        """The project of that slug; raises NoSuchAccount."""
        for row in self._rows(f"{records.PROJECTS} WHERE slug = ?", slug):
            return records.project_of(row)
        raise NoSuchAccount(f"there is no project {slug}")

    def project_by_id(self, project_id: str) -> Project:
        """The project of that id; raises NoSuchAccount."""
        for row in self._rows(f"{records.PROJECTS} WHERE id = ?", project_id):
            return records.project_of(row)
        raise NoSuchAccount(f"there is no project of the id {project_id}")

    def update_project(self, slug: str, change: Callable[[Project], Project]) -> Project:
        """Change a project's SMTP switch, limits and check of senders; its slug and id stay."""
        with self._transaction():
            old = self.project(slug)
            new = evolve(change(old), id=old.id, slug=old.slug, created=old.created)
            rules.check_project(new)
            self._db.execute(records.UPDATE_PROJECT, records.project_changes(new))
        return new

    def delete_project(self, slug: str) -> Project:
        """Remove a project with its routes, tokens, domains and webhooks."""
        with self._transaction():
            project = self.project(slug)
            self._db.execute("DELETE FROM project WHERE id = ?", (project.id,))
        return project

    def create_route(
        self,
        project_slug: str,
        slug: str,
        *,
        kind: RouteKind = RouteKind.TRANSACTIONAL,
        transport: TransportKind = TransportKind.MX,
        smarthost: Smarthost | None = None,
        default: bool = False,
        received: ReceivedField = ReceivedField.DEFAULT,
        mint_message_id: bool = False,
        schedule: tuple[float, ...] | None = None,
        lifetime: float | None = None,
        tls: RouteTLS | None = None,
        pool: str | None = None,
    ) -> Route:
        """A new route of a project; ``default`` makes it the project's default in the place of the one before."""
        with self._transaction():
            project = self.project(project_slug)
            now = time.time()
            trace = (received, mint_message_id)
            route = Route(new_id(), project.id, slug, kind, transport, smarthost, default, now, *trace, schedule, lifetime, tls, pool)
            rules.check_route(route)
            if self._rows(f"{records.ROUTES} WHERE project_id = ? AND slug = ?", project.id, slug):
                raise AccountExists(f"project {project_slug} has a route {slug} already")
            if default:
                self._take_default(project.id)
            self._db.execute(records.INSERT_ROUTE, records.route_row(route, self._vault))
        return route

    def routes(self, project_slug: str) -> Sequence[Route]:
        """All routes of a project by slug."""
        project = self.project(project_slug)
        return [self._route_of(row) for row in self._rows(f"{records.ROUTES} WHERE project_id = ? ORDER BY slug", project.id)]

    def route(self, project_slug: str, slug: str) -> Route:
        """The route of that slug; raises NoSuchAccount."""
        project = self.project(project_slug)
        for row in self._rows(f"{records.ROUTES} WHERE project_id = ? AND slug = ?", project.id, slug):
            return self._route_of(row)
        raise NoSuchAccount(f"project {project_slug} has no route {slug}")

    def update_route(self, project_slug: str, slug: str, change: Callable[[Route], Route]) -> Route:
        """Change a route's settings, or make it the default; its slug and ids stay."""
        with self._transaction():
            old = self.route(project_slug, slug)
            new = evolve(change(old), id=old.id, project_id=old.project_id, slug=old.slug, created=old.created)
            rules.check_route(new)
            if old.default and not new.default:
                raise InvalidAccount(f"route {slug} is the default of project {project_slug}: make another route the default instead")
            if new.default:
                self._take_default(new.project_id)
            self._db.execute(records.UPDATE_ROUTE, records.route_changes(new, self._vault))
        return new

    def delete_route(self, project_slug: str, slug: str) -> Route:
        """Remove a route that is not its project's default."""
        with self._transaction():
            route = self.route(project_slug, slug)
            if route.default:
                raise InvalidAccount(f"route {slug} is the default of project {project_slug}: make another route the default first")
            if self._rows("SELECT 1 FROM webhook WHERE route_id = ?", route.id):
                raise InvalidAccount(f"route {slug} of project {project_slug} has webhooks of its own: delete them or move them first")
            self._db.execute("DELETE FROM route WHERE id = ?", (route.id,))
        return route

    def create_token(self, project_slug: str, name: str = "", *, value: str | None = None) -> tuple[Token, str]:
        """A new token of a project and its value, which can't be had from here again; ``value`` brings one from elsewhere."""
        rules.check_name(name)
        secret = rules.new_token() if value is None else value
        rules.check_token(secret)
        digest = self._vault.digest(secret.encode())
        with self._transaction():
            project = self.project(project_slug)
            if self._rows(f"{records.TOKENS} WHERE digest = ?", digest):
                raise AccountExists("a token of this value is known already, live or revoked, in this project or another one")
            token = Token(new_id(), project.id, name, time.time(), None, rules.hint_of(secret))
            sealed = self._vault.seal(secret, token_owner(token.id))
            self._db.execute(records.INSERT_TOKEN, records.token_row(token, digest, sealed))
        return token, secret

    def tokens(self, project_slug: str) -> Sequence[Token]:
        """All tokens of a project, revoked ones too, oldest first."""
        project = self.project(project_slug)
        return [records.token_of(row) for row in self._rows(f"{records.TOKENS} WHERE project_id = ? ORDER BY id", project.id)]

    def token(self, token_id: str) -> Token:
        """The token of that id; raises NoSuchAccount."""
        for row in self._rows(f"{records.TOKENS} WHERE id = ?", token_id):
            return records.token_of(row)
        # What was given may be a token's value, by mistake: it is not repeated.
        raise NoSuchAccount("there is no token of that id (`token list` shows the ids)")

    def rename_token(self, token_id: str, name: str) -> Token:
        """Give a token another name."""
        rules.check_name(name)
        with self._transaction():
            token = evolve(self.token(token_id), name=name)
            self._db.execute("UPDATE token SET name = ? WHERE id = ?", (name, token.id))
        return token

    def revoke_token(self, token_id: str) -> Token:
        """End a token's use for good, and keep it so that the log can tell who still uses it. Once revoked, it stays as it is."""
        with self._transaction():
            token = self.token(token_id)
            if token.revoked is None:
                token = evolve(token, revoked=time.time())
                self._db.execute("UPDATE token SET revoked = ? WHERE id = ?", (token.revoked, token.id))
        return token

    def delete_token(self, token_id: str) -> Token:
        """Forget a token."""
        with self._transaction():
            token = self.token(token_id)
            self._db.execute("DELETE FROM token WHERE id = ?", (token.id,))
        return token

    def create_domain(self, project_slug: str, name: str) -> Domain:
        """A new domain of a project, with its first keys; ``name`` may be in Unicode. Other projects may have it too, with other keys."""
        name = rules.domain_name(name)
        rules.check_room_below(name)
        self._no_such_domain_yet(self.project(project_slug), name)
        identifier = new_id()
        # Before the transaction: an RSA key takes its time, and nobody else could write meanwhile.
        keys = new_pair(identifier, KeyState.SIGNING, self._vault)
        with self._transaction():
            project = self.project(project_slug)
            self._no_such_domain_yet(project, name)
            domain = Domain(identifier, project.id, name, time.time())
            self._db.execute(records.INSERT_DOMAIN, records.domain_row(domain))
            self._add_keys(keys)
        return domain

    def _no_such_domain_yet(self, project: Project, name: str) -> None:
        if self._rows(f"{records.DOMAINS} WHERE project_id = ? AND name = ?", project.id, name):
            raise AccountExists(f"project {project.slug} has the domain {name} already")

    def domains(self, project_slug: str) -> Sequence[Domain]:
        """All domains of a project by name."""
        project = self.project(project_slug)
        return [records.domain_of(row) for row in self._rows(f"{records.DOMAINS} WHERE project_id = ? ORDER BY name", project.id)]

    def domain(self, project_slug: str, name: str) -> Domain:
        """The project's domain of that name, in whatever form; raises NoSuchAccount."""
        name = rules.domain_name(name)
        project = self.project(project_slug)
        for row in self._rows(f"{records.DOMAINS} WHERE project_id = ? AND name = ?", project.id, name):
            return records.domain_of(row)
        raise NoSuchAccount(f"project {project_slug} has no domain {name}")

    def update_domain(self, domain: Domain, change: Callable[[Domain], Domain]) -> Domain:
        """Note what was seen of a domain's records; its name and ids stay."""
        with self._transaction():
            old = self._domain_by_id(domain)
            new = evolve(change(old), id=old.id, project_id=old.project_id, name=old.name, created=old.created)
            self._db.execute(records.UPDATE_DOMAIN, records.domain_changes(new))
        return new

    def _domain_by_id(self, domain: Domain) -> Domain:
        for row in self._rows(f"{records.DOMAINS} WHERE id = ?", domain.id):
            return records.domain_of(row)
        raise NoSuchAccount(f"the domain {domain.name} is gone")

    def domain_keys(self, domain: Domain) -> Sequence[DomainKey]:
        """A domain's keys, oldest first. One that has none, from before there were keys, gets its first pair, which signs at once."""
        if found := self._keys(domain):
            return found
        keys = new_pair(domain.id, KeyState.SIGNING, self._vault)
        with self._transaction():
            self._domain_by_id(domain)
            if not self._keys(domain):
                self._add_keys(keys)
            return self._keys(domain)

    def rotate_keys(self, domain: Domain) -> Sequence[DomainKey]:
        """Have a pair that waits to take over, made now unless there is one; returns all keys. Long retired ones are forgotten."""
        keys = () if self._waiting(domain) else new_pair(domain.id, KeyState.WAITING, self._vault)
        with self._transaction():
            self._domain_by_id(domain)
            if not self._waiting(domain):
                self._add_keys(keys)
            self._db.execute("DELETE FROM dkim_key WHERE domain_id = ? AND retired < ?", (domain.id, time.time() - RETIRED_SECONDS))
            return self._keys(domain)

    def activate_keys(self, domain: Domain) -> Sequence[DomainKey]:
        """Have the pair that waits sign from now on, and retire the one that did; without one that waits nothing changes."""
        now = time.time()
        with self._transaction():
            if self._waiting(domain):
                for key in self._keys(domain):
                    if key.state is KeyState.SIGNING:
                        self._db.execute(records.UPDATE_KEY, records.key_changes(retired(key, now)))
                    elif key.state is KeyState.WAITING:
                        self._db.execute(records.UPDATE_KEY, records.key_changes(evolve(key, state=KeyState.SIGNING)))
            return self._keys(domain)

    def note_keys(self, domain: Domain, verified: Mapping[str, float | None]) -> Sequence[DomainKey]:
        """Note when the records of the keys of these ids were seen to be right, or that they were not; returns all keys."""
        with self._transaction():
            for identifier, seen in verified.items():
                self._db.execute("UPDATE dkim_key SET verified = ? WHERE id = ? AND domain_id = ?", (seen, identifier, domain.id))
            return self._keys(domain)

    def _keys(self, domain: Domain) -> Sequence[DomainKey]:
        rows = self._rows(f"{records.KEYS} WHERE domain_id = ? ORDER BY id", domain.id)
        try:
            return [records.key_of(row) for row in rows]
        except ValueError as fault:
            raise StorageUnusable(f"{self._path} is damaged: {fault}") from fault

    def _waiting(self, domain: Domain) -> bool:
        return any(key.state is KeyState.WAITING for key in self._keys(domain))

    def _add_keys(self, keys: Sequence[DomainKey]) -> None:
        self._db.executemany(records.INSERT_KEY, map(records.key_row, keys))

    def delete_domain(self, project_slug: str, name: str) -> Domain:
        """Remove a domain of a project, with its keys."""
        with self._transaction():
            domain = self.domain(project_slug, name)
            self._db.execute("DELETE FROM domain WHERE id = ?", (domain.id,))
        return domain

    def _take_default(self, project_id: str) -> None:
        """Leave a project without default route for a moment, so that another one can become it."""
        self._db.execute("UPDATE route SET is_default = 0 WHERE project_id = ?", (project_id,))

    def _route_of(self, row: records.Row) -> Route:
        try:
            return records.route_of(row, self._vault)
        except (Unsealable, ValueError) as fault:
            raise StorageUnusable(f"{self._path} is damaged: {fault}") from fault

    def _rows(self, query: str, *values: object) -> list[records.Row]:
        with storage_faults(self._path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with storage_faults(self._path):
            # IMMEDIATE: a reader that turns into a writer would be refused whatever the timeout.
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                try:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                except sqlite3.Error:
                    pass  # The fault that led here tells more.
                raise
