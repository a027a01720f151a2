"""Rows of the accounts' database as data, and back. The only place that knows which column is which."""

from __future__ import annotations

from typing import Any

from lettermta.accounts.model import (
    Alignment,
    Domain,
    DomainKey,
    KeyAlgorithm,
    KeyState,
    Project,
    ReceivedField,
    ReturnPathUse,
    Route,
    RouteKind,
    RouteTLS,
    Smarthost,
    SmarthostTLS,
    Token,
    TransportKind,
)
from lettermta.accounts.vault import Vault, smarthost_owner

PROJECTS = "SELECT id, slug, smtp, message_size, recipients, created, check_sender, alignment FROM project"
ROUTES = (
    "SELECT id, project_id, slug, kind, transport, smarthost_host, smarthost_port, smarthost_tls, smarthost_username, "
    "smarthost_password, is_default, created, received, mint_message_id, schedule, lifetime, tls, pool FROM route"
)
TOKENS = "SELECT id, project_id, name, created, revoked, hint, digest, secret FROM token"
DOMAINS = "SELECT id, project_id, name, created, return_path_verified, dmarc_verified, spf_verified, return_path FROM domain"
KEYS = "SELECT id, domain_id, selector, algorithm, state, public, private, created, verified, retired FROM dkim_key"
SIGNING_KEYS = (
    "SELECT id, domain_id, selector, algorithm, state, public, NULL, created, verified, retired FROM dkim_key "
    "WHERE state = 'signing' ORDER BY id"
)
"""Without their private parts: those are read one by one, when they are needed."""
PRIVATE_KEY = "SELECT private FROM dkim_key WHERE id = ?"

INSERT_PROJECT = (
    "INSERT INTO project (id, slug, smtp, message_size, recipients, check_sender, alignment, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE_PROJECT = "UPDATE project SET smtp = ?, message_size = ?, recipients = ?, check_sender = ?, alignment = ? WHERE id = ?"
INSERT_ROUTE = (
    "INSERT INTO route (id, project_id, slug, kind, transport, smarthost_host, smarthost_port, smarthost_tls, smarthost_username, "
    "smarthost_password, is_default, received, mint_message_id, schedule, lifetime, tls, pool, created) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE_ROUTE = (
    "UPDATE route SET kind = ?, transport = ?, smarthost_host = ?, smarthost_port = ?, smarthost_tls = ?, smarthost_username = ?, "
    "smarthost_password = ?, is_default = ?, received = ?, mint_message_id = ?, schedule = ?, lifetime = ?, tls = ?, pool = ? WHERE id = ?"
)
INSERT_TOKEN = "INSERT INTO token (id, project_id, name, created, revoked, hint, digest, secret) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S105
INSERT_DOMAIN = "INSERT INTO domain (id, project_id, name, created) VALUES (?, ?, ?, ?)"
UPDATE_DOMAIN = "UPDATE domain SET return_path_verified = ?, dmarc_verified = ?, spf_verified = ?, return_path = ? WHERE id = ?"
INSERT_KEY = (
    "INSERT INTO dkim_key (id, domain_id, selector, algorithm, state, public, private, created, verified, retired) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
UPDATE_KEY = "UPDATE dkim_key SET state = ?, private = ?, verified = ?, retired = ? WHERE id = ?"

Row = tuple[Any, ...]


def project_of(row: Row) -> Project:
    """The project in a row of :data:`PROJECTS`; raises ValueError for an unknown word."""
    identifier, slug, smtp, message_size, recipients, created, check_sender, alignment = row
    return Project(identifier, slug, bool(smtp), message_size, recipients, created, bool(check_sender), Alignment(alignment))


def project_row(project: Project) -> Row:
    """The values of :data:`INSERT_PROJECT`."""
    return (project.id, project.slug, *_project_settings(project), project.created)


def project_changes(project: Project) -> Row:
    """The values of :data:`UPDATE_PROJECT`."""
    return (*_project_settings(project), project.id)


def _project_settings(project: Project) -> Row:
    return (int(project.smtp), project.message_size, project.recipients, int(project.check_sender), project.alignment.value)


def route_of(row: Row, vault: Vault) -> Route:
    """The route in a row of :data:`ROUTES`; raises Unsealable when its smarthost's password doesn't open, ValueError for unknown words."""
    identifier, project_id, slug, kind, transport, host, port, tls, username, sealed, default, created, received, mint = row[:14]
    schedule, lifetime, wanted, pool = row[14:]
    smarthost = None
    if host is not None:
        password = None if sealed is None else vault.unseal(sealed, smarthost_owner(identifier))
        smarthost = Smarthost(host, port, SmarthostTLS(tls), username, password)
    return Route(
        identifier,
        project_id,
        slug,
        RouteKind(kind),
        TransportKind(transport),
        smarthost,
        bool(default),
        created,
        ReceivedField(received),
        bool(mint),
        None if schedule is None else tuple(map(float, schedule.split())),
        lifetime,
        None if wanted is None else RouteTLS(wanted),
        pool,
    )


def route_row(route: Route, vault: Vault) -> Row:
    """The values of :data:`INSERT_ROUTE`."""
    return (route.id, route.project_id, route.slug, *_route_settings(route, vault), route.created)


def route_changes(route: Route, vault: Vault) -> Row:
    """The values of :data:`UPDATE_ROUTE`."""
    return (*_route_settings(route, vault), route.id)


def _route_settings(route: Route, vault: Vault) -> Row:
    smarthost: Row = (None, None, None, None, None)
    if route.smarthost is not None:
        host = route.smarthost
        sealed = None if host.password is None else vault.seal(host.password, smarthost_owner(route.id))
        smarthost = (host.host, host.port, host.tls.value, host.username, sealed)
    schedule = None if route.schedule is None else " ".join(map(repr, route.schedule))
    trace = (route.received.value, int(route.mint_message_id))
    return (
        route.kind.value,
        route.transport.value,
        *smarthost,
        int(route.default),
        *trace,
        schedule,
        route.lifetime,
        route.tls and route.tls.value,
        route.pool,
    )


def token_of(row: Row) -> Token:
    """The token in a row of :data:`TOKENS`, whose last two columns stay behind."""
    return Token(*row[:6])


def token_row(token: Token, digest: bytes, sealed: bytes) -> Row:
    """The values of :data:`INSERT_TOKEN`."""
    return (token.id, token.project_id, token.name, token.created, token.revoked, token.hint, digest, sealed)


def domain_of(row: Row) -> Domain:
    """The domain in a row of :data:`DOMAINS`; raises ValueError for unknown words."""
    identifier, project_id, name, created, return_path, dmarc, spf, use = row
    return Domain(identifier, project_id, name, created, return_path, dmarc, spf, ReturnPathUse(use))


def domain_row(domain: Domain) -> Row:
    """The values of :data:`INSERT_DOMAIN`."""
    return (domain.id, domain.project_id, domain.name, domain.created)


def domain_changes(domain: Domain) -> Row:
    """The values of :data:`UPDATE_DOMAIN`."""
    return (domain.return_path_verified, domain.dmarc_verified, domain.spf_verified, domain.return_path_use.value, domain.id)


def key_of(row: Row) -> DomainKey:
    """The key in a row of :data:`KEYS` or :data:`SIGNING_KEYS`; raises ValueError for unknown words."""
    identifier, domain_id, selector, algorithm, state, *rest = row
    return DomainKey(identifier, domain_id, selector, KeyAlgorithm(algorithm), KeyState(state), *rest)


def key_row(key: DomainKey) -> Row:
    """The values of :data:`INSERT_KEY`."""
    names = (key.id, key.domain_id, key.selector, key.algorithm.value, key.state.value)
    return (*names, key.public, key.sealed, key.created, key.verified, key.retired)


def key_changes(key: DomainKey) -> Row:
    """The values of :data:`UPDATE_KEY`."""
    return (key.state.value, key.sealed, key.verified, key.retired, key.id)
