"""Webhooks as accounts: what they may be, what changes, and that a directory sees it at its next question."""

from __future__ import annotations

import base64
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from lettermta.accounts.directory import Directory
from lettermta.accounts.errors import AccountError, InvalidAccount, NoSuchAccount
from lettermta.accounts.store import AccountStore
from lettermta.accounts.webhooks import Webhook, WebhookStore, new_secret, signing_key

URL = "https://shop.example/hooks?a=1"


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[AccountStore]:
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
        yield store


@pytest.fixture
def webhooks(accounts: AccountStore) -> WebhookStore:
    return WebhookStore(accounts)


def test_a_secret_serves_both_signatures() -> None:
    """COMPATIBILITY.md section 3: ``whsec_`` and the base64 of 24 to 64 random octets."""
    secret = new_secret()
    assert secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(secret[6:], validate=True)) <= 64
    assert signing_key(secret) == base64.b64decode(secret[6:])
    assert secret != new_secret()


@pytest.mark.parametrize("secret", ["whsec_", "whsec_AAAA", "Q2hhbmdlTWVJbkFSZWFsU2VjcmV0MTIzNDU2", "whsec_not base64 at all!"])
def test_what_is_no_secret_is_told(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        signing_key(secret)


def test_a_webhook_comes_back_as_it_was_made(accounts: AccountStore, webhooks: WebhookStore) -> None:
    route = accounts.create_route("demo", "news")
    made = webhooks.create(
        "demo", URL, route_slug="news", events=("message.soft_bounced",), login=("shop", "p:w"), first_soft_bounce_only=True
    )
    assert webhooks.webhook(made.id) == made
    assert webhooks.of_project("demo") == [made]
    assert (made.route_id, made.username, made.password) == (route.id, "shop", "p:w")


def test_secrets_are_sealed_and_shown_by_no_repr(webhooks: WebhookStore, tmp_path: Path) -> None:
    made = webhooks.rotate(webhooks.create("demo", URL, login=("shop", "open sesame")).id)
    assert made.former_secret is not None
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (made.secret, made.former_secret, "open sesame"):
        assert secret.encode() not in files
        assert signing_key(made.secret) not in files
        assert secret not in repr(made)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://shop.example/", "expected https"),
        ("shop.example/hooks", "expected https"),
        ("https:///hooks", "expected https"),
        ("https://shop.example/#there", "nothing may follow a #"),
        ("https://shop.example/#", "nothing may follow a #"),
        ("https://shop.example:99999/", "is not an URL"),
        ("https://shop.example:0/", "1 to 65535"),
        ("https://shop.example:/", "1 to 65535"),
        ("https://bücher.example/", "only ASCII"),
        ("https://shop.example/a b", "without blanks"),
        ("https://shop.example/\r\nX-Header: 1", "without blanks"),
        ("https://a_b!.example/", "neither a host name"),
        ("https://x.example/" + "a" * 2000, "2000 characters"),
    ],
)
def test_an_url_that_cant_be_posted_to_is_refused(webhooks: WebhookStore, url: str, why: str) -> None:
    with pytest.raises(InvalidAccount, match=why):
        webhooks.create("demo", url)


def test_a_login_in_the_url_is_refused_and_not_repeated(webhooks: WebhookStore) -> None:
    with pytest.raises(InvalidAccount, match="--basic-auth") as refused:
        webhooks.create("demo", "https://bob:hunter2@shop.example/")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "https://[2001:db8::1]:8443/x", "https://a-b.example./hooks"])
def test_hosts_may_be_names_and_addresses(webhooks: WebhookStore, url: str) -> None:
    assert webhooks.create("demo", url).url == url


def test_event_names_are_those_that_there_are(webhooks: WebhookStore) -> None:
    with pytest.raises(InvalidAccount, match=r"no event 'message\.deliverd'; there are .*message\.delivered"):
        webhooks.create("demo", URL, events=("message.deliverd",))
    with pytest.raises(InvalidAccount, match="without any event"):
        webhooks.create("demo", URL, events=())
    with pytest.raises(InvalidAccount, match=r"message\.soft_bounced is not among"):
        webhooks.create("demo", URL, events=("message.sent",), first_soft_bounce_only=True)


@pytest.mark.parametrize("login", [("", "p"), ("a:b", "p"), ("a\nb", "p"), ("a", "p\0"), ("a", "x" * 256)])
def test_a_login_that_http_cant_carry_is_refused(webhooks: WebhookStore, login: tuple[str, str]) -> None:
    with pytest.raises(InvalidAccount):
        webhooks.create("demo", URL, login=login)


def test_what_an_event_is_wanted_by() -> None:
    all_of_it = Webhook("w", "p", URL, 0.0, "s")
    assert all_of_it.wants("message.sent", "r")
    assert all_of_it.wants("suppression.added", None)
    some = evolve(all_of_it, events=("message.sent",), route_id="r")
    assert some.wants("message.sent", "r")
    assert not some.wants("message.sent", "other")
    assert not some.wants("message.delivered", "r")


def test_a_rotated_secret_signs_for_a_while(webhooks: WebhookStore) -> None:
    first = webhooks.create("demo", URL)
    second = webhooks.rotate(first.id, 60)
    now = time.time()
    assert second.secret != first.secret
    assert second.signing_secrets(now) == (second.secret, first.secret)
    assert second.signing_secrets(now + 61) == (second.secret,)
    assert first.signing_secrets(now) == (first.secret,)


def test_switched_off_and_on_again(webhooks: WebhookStore) -> None:
    made = webhooks.create("demo", URL)
    off = webhooks.disable(made.id, "it said 410 Gone")
    assert off.disabled is not None
    assert webhooks.disable(made.id, "later") == off, "the first reason stays"
    assert webhooks.enable(made.id) == made


def test_there_are_none_of_that_id(webhooks: WebhookStore) -> None:
    for verb in (webhooks.webhook, webhooks.rotate, webhooks.enable, webhooks.delete):
        with pytest.raises(NoSuchAccount) as refused:
            verb("whsec_secret")
        assert "whsec_secret" not in str(refused.value)


def test_a_directory_sees_changes_at_its_next_question(webhooks: WebhookStore, tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    assert directory.webhooks() == {}
    made = webhooks.create("demo", URL)
    assert directory.webhooks() == {made.id: made}
    rotated = webhooks.rotate(made.id)
    assert directory.webhooks() == {made.id: rotated}
    webhooks.delete(made.id)
    assert directory.webhooks() == {}
    directory.close()


def test_a_project_takes_its_webhooks_with_it_and_a_route_does_not(accounts: AccountStore, webhooks: WebhookStore) -> None:
    accounts.create_route("demo", "news")
    made = webhooks.create("demo", URL, route_slug="news")
    with pytest.raises(InvalidAccount, match="has webhooks of its own"):
        accounts.delete_route("demo", "news")
    accounts.delete_project("demo")
    with pytest.raises(NoSuchAccount):
        webhooks.webhook(made.id)


def test_a_secret_moved_to_another_webhook_does_not_open(webhooks: WebhookStore, tmp_path: Path) -> None:
    one, two = webhooks.create("demo", URL), webhooks.create("demo", URL)
    with sqlite3.connect(tmp_path / "accounts.db") as connection:
        connection.execute("UPDATE webhook SET secret = (SELECT secret FROM webhook WHERE id = ?) WHERE id = ?", (one.id, two.id))
    connection.close()
    with pytest.raises(AccountError, match="is damaged"):
        webhooks.webhook(two.id)
