"""What the admin tool may rely on: the rules of projects, routes and tokens, and that no secret lies in the open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve

from lettermta.accounts.errors import AccountError, AccountExists, InvalidAccount, NoSuchAccount
from lettermta.accounts.model import Project, Route, RouteKind, Smarthost, SmarthostTLS, TransportKind
from lettermta.accounts.store import AccountStore

RELAY = Smarthost("relay.example", 587, SmarthostTLS.REQUIRE, "bob", "hunter2-is-secret")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccountStore]:
    with AccountStore(tmp_path) as store:
        yield store


def everything_on_disk(state_dir: Path) -> bytes:
    return b"".join(path.read_bytes() for path in state_dir.iterdir())


def as_default(route: Route) -> Route:
    return evolve(route, default=True)


def defaults(store: AccountStore) -> list[str]:
    return [route.slug for route in store.routes("demo") if route.default]


def test_a_new_project_has_the_route_outgoing(store: AccountStore) -> None:
    project = store.create_project("demo")
    (route,) = store.routes("demo")
    assert (project.smtp, project.message_size, project.recipients) == (True, None, None)
    assert (route.slug, route.kind, route.transport, route.default) == ("outgoing", RouteKind.TRANSACTIONAL, TransportKind.MX, True)
    assert route.project_id == project.id


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    with AccountStore(tmp_path) as store:
        project = store.create_project("demo", smtp=False, message_size=1000, recipients=7)
        route = store.create_route("demo", "relay", kind=RouteKind.BROADCAST, transport=TransportKind.SMARTHOST, smarthost=RELAY)
        token, _ = store.create_token("demo", "shop")
    with AccountStore(tmp_path) as store:
        assert store.project("demo") == project
        assert store.route("demo", "relay") == route
        assert store.tokens("demo") == [token]


@pytest.mark.parametrize("slug", ["", "Demo", "-demo", "_demo", "a b", "a.b", "ä", "a" * 64, "demo\n"])
def test_a_bad_slug_is_refused(store: AccountStore, slug: str) -> None:
    with pytest.raises(InvalidAccount, match="is not a slug"):
        store.create_project(slug)
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="is not a slug"):
        store.create_route("demo", slug)


@pytest.mark.parametrize("slug", ["a", "0", "a-_0", "a" * 63])
def test_a_good_slug_is_taken(store: AccountStore, slug: str) -> None:
    assert store.create_project(slug).slug == slug


def test_a_slug_is_taken_once(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_project("other")
    with pytest.raises(AccountExists, match="project demo"):
        store.create_project("demo")
    with pytest.raises(AccountExists, match="route outgoing"):
        store.create_route("demo", "outgoing")
    store.create_route("demo", "news")
    assert store.create_route("other", "news").slug == "news"


def test_a_project_changes_and_keeps_its_identity(store: AccountStore) -> None:
    before = store.create_project("demo")

    def change(project: Project) -> Project:
        return evolve(project, id="forged", slug="forged", smtp=False, recipients=3)

    assert store.update_project("demo", change) == evolve(before, smtp=False, recipients=3)
    assert store.project("demo") == evolve(before, smtp=False, recipients=3)
    with pytest.raises(InvalidAccount, match="recipients"):
        store.update_project("demo", lambda project: evolve(project, recipients=0))
    assert store.project("demo").recipients == 3


def test_a_deleted_project_takes_routes_and_tokens_along(store: AccountStore) -> None:
    store.create_project("demo")
    token, value = store.create_token("demo")
    store.delete_project("demo")
    for question in (lambda: store.project("demo"), lambda: store.route("demo", "outgoing"), lambda: store.token(token.id)):
        with pytest.raises(NoSuchAccount):
            question()
    store.create_project("demo")
    assert len(store.routes("demo")) == 1
    assert store.tokens("demo") == []
    store.create_token("demo", value=value)


def test_exactly_one_route_is_the_default(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_route("demo", "news", default=True)
    assert defaults(store) == ["news"]
    store.update_route("demo", "outgoing", as_default)
    assert defaults(store) == ["outgoing"]
    with pytest.raises(InvalidAccount, match="make another route the default"):
        store.update_route("demo", "outgoing", lambda route: evolve(route, default=False))
    assert defaults(store) == ["outgoing"]


def test_the_default_route_stays(store: AccountStore) -> None:
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="is the default"):
        store.delete_route("demo", "outgoing")
    store.create_route("demo", "news", default=True)
    store.delete_route("demo", "outgoing")
    assert [route.slug for route in store.routes("demo")] == ["news"]


def test_a_smarthost_goes_with_its_transport_alone(store: AccountStore) -> None:
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="needs a smarthost"):
        store.create_route("demo", "relay", transport=TransportKind.SMARTHOST)
    with pytest.raises(InvalidAccount, match="takes no smarthost"):
        store.create_route("demo", "relay", transport=TransportKind.CAPTURE, smarthost=RELAY)
    store.create_route("demo", "relay", transport=TransportKind.SMARTHOST, smarthost=RELAY)
    changed = store.update_route("demo", "relay", lambda route: evolve(route, transport=TransportKind.DISCARD, smarthost=None))
    assert changed.smarthost is None
    assert store.route("demo", "relay") == changed


@pytest.mark.parametrize(
    "smarthost",
    [
        evolve(RELAY, host="relay example"),
        evolve(RELAY, host="rélay.example"),
        evolve(RELAY, host=""),
        evolve(RELAY, port=0),
        evolve(RELAY, port=65536),
        evolve(RELAY, username=None),
        evolve(RELAY, password=None),
        evolve(RELAY, password="hunter2\0"),
        evolve(RELAY, password=""),
    ],
)
def test_a_bad_smarthost_is_refused_without_telling_its_password(store: AccountStore, smarthost: Smarthost) -> None:
    store.create_project("demo")
    with pytest.raises(InvalidAccount) as refusal:
        store.create_route("demo", "relay", transport=TransportKind.SMARTHOST, smarthost=smarthost)
    assert "hunter2" not in str(refusal.value)


def test_a_new_token_is_easily_copied_and_unlike_any_other(store: AccountStore) -> None:
    store.create_project("demo")
    (one, value), (_, other) = store.create_token("demo", "shop"), store.create_token("demo")
    assert value.startswith("lm_")
    assert len(value) == 46
    assert value[3:].isalnum()
    assert value.isascii()
    assert value != other
    assert one.hint == value[:5] + "…"
    assert one.name == "shop"
    assert one.revoked is None


@pytest.mark.parametrize("value", ["secret", "x", "lttr_" + "a" * 64, "!#$%&'()*+,-./:;<=>?@[]^_`{|}~\\\"", "a" * 255])
def test_an_existing_token_is_imported_as_it_is(store: AccountStore, value: str) -> None:
    store.create_project("demo")
    token, told = store.create_token("demo", value=value)
    assert told == value
    assert token.hint is None or len(value) >= 32


@pytest.mark.parametrize("value", ["", "a b", "a\tb", "a\n", "a\0", "naïve", "a" * 256])
def test_a_value_that_is_no_token_is_refused_without_repeating_it(store: AccountStore, value: str) -> None:
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="printable ASCII") as refusal:
        store.create_token("demo", value=value)
    assert not value or repr(value) not in str(refusal.value)


def test_a_short_token_has_no_hint(store: AccountStore) -> None:
    store.create_project("demo")
    assert store.create_token("demo", value="secret")[0].hint is None


def test_a_known_token_is_not_imported_again(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_project("other")
    token, _ = store.create_token("demo", value="only-once")
    for _ in ("live", "revoked"):
        with pytest.raises(AccountExists) as refusal:
            store.create_token("other", value="only-once")
        assert "only-once" not in str(refusal.value)
        store.revoke_token(token.id)


def test_revoking_is_for_good_and_keeps_its_time(store: AccountStore) -> None:
    store.create_project("demo")
    token, _ = store.create_token("demo")
    revoked = store.revoke_token(token.id).revoked
    assert revoked is not None
    assert store.revoke_token(token.id).revoked == revoked
    assert store.rename_token(token.id, "old shop").revoked == revoked
    assert store.token(token.id) == evolve(token, name="old shop", revoked=revoked)


def test_an_unknown_token_is_not_repeated(store: AccountStore) -> None:
    """Someone may give the token's value where its id is asked for."""
    with pytest.raises(NoSuchAccount) as refusal:
        store.revoke_token("lm_this-is-a-secret")
    assert "this-is-a-secret" not in str(refusal.value)


def test_no_secret_lies_in_the_open(tmp_path: Path) -> None:
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
        token, value = store.create_token("demo", value="an-imported-token-of-some-length-0123456789")
        route = store.create_route("demo", "relay", transport=TransportKind.SMARTHOST, smarthost=RELAY)
        assert RELAY.password is not None
        for secret in (value, value[6:], RELAY.password):
            assert secret.encode() not in everything_on_disk(tmp_path)
            assert secret not in repr((token, route, store))
    for secret in (value, value[6:], RELAY.password):
        assert secret.encode() not in everything_on_disk(tmp_path)


def test_a_failed_change_leaves_nothing_behind(store: AccountStore) -> None:
    store.create_project("demo")

    def change(route: Route) -> Route:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.update_route("demo", "outgoing", change)
    with pytest.raises(AccountError):
        store.create_route("nobody", "news", default=True)
    assert defaults(store) == ["outgoing"]
    store.create_route("demo", "news")
