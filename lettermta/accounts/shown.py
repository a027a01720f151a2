"""Accounts as they are told to the outside: by ``--json`` now, and by whatever else shows them later. Never a secret among it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lettermta.accounts.dns_records import DNSRecord, return_path
from lettermta.accounts.model import Domain, Project, Route, Token
from lettermta.accounts.webhooks import Webhook
from lettermta.event import timestamp

Shown = Mapping[str, object]
"""An account as a JSON object; times are RFC 3339."""


def shown_project(project: Project) -> Shown:
    """A project."""
    return {
        "id": project.id,
        "slug": project.slug,
        "smtp": project.smtp,
        "message_size": project.message_size,
        "recipients": project.recipients,
        "check_sender": project.check_sender,
        "alignment": project.alignment.value,
        "created": timestamp(project.created),
    }


def shown_route(route: Route, project_slug: str) -> Shown:
    """A route with its smarthost, without the password."""
    host = route.smarthost
    return {
        "id": route.id,
        "project": project_slug,
        "project_id": route.project_id,
        "slug": route.slug,
        "kind": route.kind.value,
        "transport": route.transport.value,
        "smarthost": host and {"host": host.host, "port": host.port, "tls": host.tls.value, "username": host.username},
        "default": route.default,
        "received": route.received.value,
        "mint_message_id": route.mint_message_id,
        "schedule": route.schedule,
        "lifetime": route.lifetime,
        "tls": route.tls and route.tls.value,
        "pool": route.pool,
        "created": timestamp(route.created),
    }


def shown_token(token: Token, project_slug: str) -> Shown:
    """A token; its value is not part of it."""
    return {
        "id": token.id,
        "project": project_slug,
        "project_id": token.project_id,
        "name": token.name,
        "hint": token.hint,
        "created": timestamp(token.created),
        "revoked": _time(token.revoked),
    }


def shown_domain(domain: Domain, project_slug: str, records: Sequence[DNSRecord] = ()) -> Shown:
    """A domain, with the records to publish where they are given."""
    shown: dict[str, object] = {
        "id": domain.id,
        "project": project_slug,
        "project_id": domain.project_id,
        "domain": domain.name,
        "created": timestamp(domain.created),
        "return_path": return_path(domain.name),
        "return_path_use": domain.return_path_use.value,
        "return_path_verified": _time(domain.return_path_verified),
    }
    if records:
        shown["records"] = [shown_record(record) for record in records]
    return shown


def shown_record(record: DNSRecord) -> dict[str, object]:
    """A record to publish; ``value`` in one piece, ``zone`` as a line of a zone file."""
    key = record.key
    return {
        "purpose": record.purpose.value,
        "name": record.name,
        "type": record.type,
        "value": record.value,
        "zone": record.zone_line,
        "needed": record.needed,
        "verified": _time(record.verified),
        "key": key
        and {
            "selector": key.selector,
            "algorithm": key.algorithm.value,
            "state": key.state.value,
            "created": timestamp(key.created),
            "retired": _time(key.retired),
        },
    }


def _time(moment: float | None) -> str | None:
    return None if moment is None else timestamp(moment)


def shown_webhook(webhook: Webhook, project_slug: str, route_slug: str | None, now: float) -> dict[str, object]:
    """A webhook; its secrets and its password are not part of it."""
    rotating = webhook.former_secret is not None and now < webhook.former_until
    return {
        "id": webhook.id,
        "project": project_slug,
        "project_id": webhook.project_id,
        "url": webhook.url,
        "route": route_slug,
        "events": webhook.events,
        "basic_auth": webhook.username,
        "first_soft_bounce_only": webhook.first_soft_bounce_only,
        "rotating_until": timestamp(webhook.former_until) if rotating else None,
        "created": timestamp(webhook.created),
        "disabled": None if webhook.disabled is None else timestamp(webhook.disabled),
        "disabled_reason": webhook.disabled_reason or None,
    }
