"""Webhooks as accounts: who of a project wants to be told which events, where, and signed by which secret.

A secret is ``whsec_`` and the base64 of random octets (COMPATIBILITY.md section 3): Lettermint's signature takes the text as its key,
Standard Webhooks' the octets. While a secret is being rotated the former one goes on to sign as well, for as long as ``rotate`` says.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from attrs import evolve, field, frozen

from lettermta.accounts.errors import InvalidAccount, NoSuchAccount, StorageUnusable
from lettermta.accounts.rules import is_host
from lettermta.accounts.store import AccountStore
from lettermta.accounts.vault import Unsealable, Vault
from lettermta.event import NAMES, SOFT_BOUNCED
from lettermta.message import new_id

BY_OWNER = "switched off by its owner"
"""The reason where nothing went wrong."""
GONE_REASON = "its endpoint answered 410 Gone"
OVERLAP = 86_400.0
"""Seconds that a former secret goes on to sign by default."""
_PREFIX = "whsec_"
_OCTETS = 33
"""Of a new secret: between 24 and 64, and a multiple of three, so that no reader of base64 stumbles over padding."""
_LONGEST_URL = 2000
_LONGEST_LOGIN = 255


@frozen
class Webhook:
    """An endpoint of a project. ``username`` and ``password`` are both given or both None."""

    id: str
    project_id: str
    url: str
    created: float
    secret: str = field(repr=False)
    route_id: str | None = None
    """Whose events it gets; None: those of all routes."""
    events: tuple[str, ...] | None = None
    """The names that it gets; None: all."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    first_soft_bounce_only: bool = False
    """Whether of the ``message.soft_bounced`` of a recipient it gets the first one alone."""
    former_secret: str | None = field(default=None, repr=False)
    former_until: float = 0.0
    """Until when the former secret signs as well."""
    disabled: float | None = None
    """When it was switched off, or None while it is on."""
    disabled_reason: str = ""

    @property
    def given_up(self) -> bool:
        """Whether it was switched off by us, for what its endpoint answered."""
        return self.disabled is not None and self.disabled_reason != BY_OWNER

    def signing_secrets(self, now: float) -> tuple[str, ...]:
        """The secrets that sign at ``now``, the one in force first."""
        if self.former_secret is not None and now < self.former_until:
            return (self.secret, self.former_secret)
        return (self.secret,)

    def wants(self, name: str, route_id: str | None) -> bool:
        """Whether an event of its project is for it, by the event's name and route."""
        return (name in NAMES if self.events is None else name in self.events) and (self.route_id is None or self.route_id == route_id)


def new_secret() -> str:
    """A new secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_OCTETS)).decode()


def signing_key(secret: str) -> bytes:
    """The octets that a secret stands for (Standard Webhooks 1.0.0, "Signature scheme"); raises ValueError when it is none."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as fault:
        raise ValueError(f"a webhook's secret is {_PREFIX} and base64; this one is not") from fault
    if not secret.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f"a webhook's secret is {_PREFIX} and the base64 of 24 to 64 octets; this one is not")
    return key


# -- the rules


def check_webhook(webhook: Webhook) -> None:
    """An URL that can be posted to, event names that there are, a login that HTTP can carry."""
    check_url(webhook.url)
    if webhook.events is not None:
        if not webhook.events:
            raise InvalidAccount("a webhook without any event would never be told anything: name some, or none at all to get all of them")
        for name in webhook.events:
            if name not in NAMES:
                raise InvalidAccount(f"there is no event {name!r}; there are {', '.join(sorted(NAMES))}")
    if webhook.first_soft_bounce_only and webhook.events is not None and SOFT_BOUNCED not in webhook.events:
        raise InvalidAccount(f"only the first soft bounce is asked for, but {SOFT_BOUNCED} is not among the events")
    for what, text in (("user name", webhook.username), ("password", webhook.password)):
        if text is not None and (len(text) > _LONGEST_LOGIN or not text.isprintable()):
            raise InvalidAccount(f"the {what} is longer than {_LONGEST_LOGIN} characters, or has control characters")
    if webhook.username is not None and (not webhook.username or ":" in webhook.username):
        raise InvalidAccount("the user name of basic authentication is not empty and has no colon (RFC 7617 section 2)")


def check_url(url: str) -> None:
    """https or http, a host, maybe a port, a path and a query; neither a login nor a fragment."""
    if len(url) > _LONGEST_URL:
        raise InvalidAccount(f"an URL has at most {_LONGEST_URL} characters; the one given has {len(url)}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidAccount(f"{url!r} is not an URL: only ASCII without blanks, the rest encoded as %XX, a host's name as xn--…")
    if "@" in url.partition("://")[2].partition("/")[0]:
        # What stands there is a password as a rule: it is not repeated.
        raise InvalidAccount("an URL must not hold a login; --basic-auth USER:PASSWORD takes one")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as fault:
        raise InvalidAccount(f"{url!r} is not an URL: {fault}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidAccount(f"{url!r} is not the URL of a webhook: expected https://HOST/PATH or http://HOST/PATH")
    if not is_host(parts.hostname):
        raise InvalidAccount(f"{parts.hostname!r} in {url!r} is neither a host name in ASCII nor an IP address")
    if port == 0 or parts.netloc.endswith(":") or _fragment(parts, url):
        raise InvalidAccount(f"{url!r} is not the URL of a webhook: a port is 1 to 65535, and nothing may follow a #")


def _fragment(parts: SplitResult, url: str) -> bool:
    return bool(parts.fragment) or url.endswith("#")


# -- rows

WEBHOOKS = (
    "SELECT id, project_id, url, created, secret, route_id, events, username, password, first_soft_bounce_only, former_secret, "
    "former_until, disabled, disabled_reason FROM webhook"
)
_INSERT = (
    "INSERT INTO webhook (route_id, url, events, username, password, first_soft_bounce_only, secret, former_secret, former_until, "
    "disabled, disabled_reason, id, project_id, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE = (
    "UPDATE webhook SET route_id = ?, url = ?, events = ?, username = ?, password = ?, first_soft_bounce_only = ?, secret = ?, "
    "former_secret = ?, former_until = ?, disabled = ?, disabled_reason = ? WHERE id = ?"
)

Row = tuple[Any, ...]


def webhook_of(row: Row, vault: Vault) -> Webhook:
    """The webhook in a row of :data:`WEBHOOKS`; raises Unsealable when its secrets don't open."""
    identifier, project_id, url, created, secret, route_id, events, username, password, first, former, until, disabled, reason = row
    owner = _owner(identifier)
    return Webhook(
        identifier,
        project_id,
        url,
        created,
        vault.unseal(secret, owner),
        route_id,
        None if events is None else tuple(events.split()),
        username,
        None if password is None else vault.unseal(password, owner),
        bool(first),
        None if former is None else vault.unseal(former, owner),
        until,
        disabled,
        reason,
    )


def _settings(webhook: Webhook, vault: Vault) -> Row:
    """The values of :data:`_UPDATE`, and the first ones of :data:`_INSERT`."""

    def sealed(text: str | None) -> bytes | None:
        return None if text is None else vault.seal(text, _owner(webhook.id))

    return (
        webhook.route_id,
        webhook.url,
        None if webhook.events is None else " ".join(webhook.events),
        webhook.username,
        sealed(webhook.password),
        int(webhook.first_soft_bounce_only),
        sealed(webhook.secret),
        sealed(webhook.former_secret),
        webhook.former_until,
        webhook.disabled,
        webhook.disabled_reason,
        webhook.id,
    )


def _owner(webhook_id: str) -> str:
    """The owner that a webhook's secrets are sealed for."""
    return f"webhook {webhook_id}"


# -- the store


class WebhookStore:
    """The webhooks of an :class:`AccountStore`, of which this is a part; every failure is an AccountError."""

    def __init__(self, accounts: AccountStore) -> None:
        self._accounts = accounts

    def create(
        self,
        project_slug: str,
        url: str,
        *,
        route_slug: str | None = None,
        events: tuple[str, ...] | None = None,
        login: tuple[str, str] | None = None,
        first_soft_bounce_only: bool = False,
    ) -> Webhook:
        """A new webhook with a new secret, which nothing shows later on."""
        accounts = self._accounts
        username, password = login or (None, None)
        with accounts._transaction():
            project = accounts.project(project_slug)
            webhook = Webhook(
                new_id(),
                project.id,
                url,
                time.time(),
                new_secret(),
                None if route_slug is None else accounts.route(project_slug, route_slug).id,
                events,
                username,
                password,
                first_soft_bounce_only,
            )
            check_webhook(webhook)
            accounts._db.execute(_INSERT, (*_settings(webhook, accounts._vault), webhook.project_id, webhook.created))
        return webhook

    def of_project(self, project_slug: str) -> Sequence[Webhook]:
        """All webhooks of a project, oldest first."""
        project = self._accounts.project(project_slug)
        return self._webhooks(f"{WEBHOOKS} WHERE project_id = ? ORDER BY id", project.id)

    def webhook(self, webhook_id: str) -> Webhook:
        """The webhook of that id; raises NoSuchAccount."""
        for webhook in self._webhooks(f"{WEBHOOKS} WHERE id = ?", webhook_id):
            return webhook
        # What was given may be a secret, by mistake: it is not repeated.
        raise NoSuchAccount("there is no webhook of that id (`webhook list` shows the ids)")

    def update(self, webhook_id: str, change: Callable[[Webhook], Webhook]) -> Webhook:
        """Change a webhook from what it is to what it shall be; its ids stay."""
        accounts = self._accounts
        with accounts._transaction():
            old = self.webhook(webhook_id)
            new = evolve(change(old), id=old.id, project_id=old.project_id, created=old.created)
            check_webhook(new)
            accounts._db.execute(_UPDATE, _settings(new, accounts._vault))
        return new

    def rotate(self, webhook_id: str, overlap: float = OVERLAP) -> Webhook:
        """Give a webhook a new secret; the one before goes on to sign as well for ``overlap`` seconds."""
        until = time.time() + overlap
        return self.update(webhook_id, lambda old: evolve(old, secret=new_secret(), former_secret=old.secret, former_until=until))

    def disable(self, webhook_id: str, reason: str) -> Webhook:
        """Switch a webhook off; one that is off stays as it is."""
        return self.update(webhook_id, lambda old: old if old.disabled else evolve(old, disabled=time.time(), disabled_reason=reason))

    def enable(self, webhook_id: str) -> Webhook:
        """Switch a webhook on again."""
        return self.update(webhook_id, lambda old: evolve(old, disabled=None, disabled_reason=""))

    def delete(self, webhook_id: str) -> Webhook:
        """Remove a webhook."""
        accounts = self._accounts
        with accounts._transaction():
            webhook = self.webhook(webhook_id)
            accounts._db.execute("DELETE FROM webhook WHERE id = ?", (webhook.id,))
        return webhook

    def _webhooks(self, query: str, *values: object) -> Sequence[Webhook]:
        accounts = self._accounts
        try:
            return [webhook_of(row, accounts._vault) for row in accounts._rows(query, *values)]
        except Unsealable as fault:
            raise StorageUnusable(f"{accounts._path} is damaged: {fault}") from fault
