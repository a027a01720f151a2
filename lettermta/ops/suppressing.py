"""What ``lettermta-admin suppression`` asks for, in the form in which it is asked of a daemon or of the spool's files.

A request to add has a ``scope`` and ``entries``: lists of a value, a reason and what it applies to (or null). Times are given as what they
are when the request is carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lettermta.event import timestamp
from lettermta.suppression import AppliesTo, Scope, Suppression, SuppressionReason, suppress


def scope_row(scope: Scope) -> Mapping[str, str | None]:
    """A scope as it is asked for and shown."""
    return {"project_id": scope.project_id, "project": scope.project, "route_id": scope.route_id, "route": scope.route}


def scope_of(row: Mapping[str, str | None]) -> Scope:
    """The scope that is asked for."""
    return Scope(row["project_id"], row["project"], row["route_id"], row["route"])


def asked_for(request: Mapping[str, Any], now: float) -> list[Suppression]:
    """The suppressions that a request wants to be added. Raises ValueError or KeyError for what is none."""
    scope = scope_of(request["scope"])
    return [
        suppress(value, scope, SuppressionReason(reason), now, None if applies_to is None else AppliesTo(applies_to))
        for value, reason, applies_to in request["entries"]
    ]


def reason_of(request: Mapping[str, Any]) -> SuppressionReason | None:
    """The reason that a request to remove is about; None: all of them."""
    return None if request["reason"] is None else SuppressionReason(request["reason"])


def suppression_row(one: Suppression) -> Mapping[str, str | None]:
    """A suppression as it is shown."""
    return {
        "id": one.id,
        "type": one.type.value,
        "value": one.value,
        "reason": one.reason.value,
        "applies_to": one.applies_to.value,
        "scope": one.scope.name,
        **scope_row(one.scope),
        "message_id": one.message_id or None,
        "created": timestamp(one.created),
    }
