"""What the admin tool may rely on: the rules of projects, routes, tokens and domains, and that no secret lies in the open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from lettermta.accounts.dns_records import return_path
from lettermta.accounts.errors import AccountError, AccountExists, InvalidAccount, NoSuchAccount
from lettermta.accounts.model import Project, ReceivedField, Route, RouteKind, Smarthost, SmarthostTLS, TransportKind
from lettermta.accounts.rules import domain_name
from lettermta.accounts.store import AccountStore
from lettermta.config import kinds
from lettermta.config.faults import Wrong

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
        project = store.create_project("demo", smtp=False, message_size=1000, recipients=7, check_sender=True)
        route = store.create_route(
            "demo",
            "relay",
            kind=RouteKind.BROADCAST,
            transport=TransportKind.SMARTHOST,
            smarthost=RELAY,
            received=ReceivedField.ANONYMOUS,
            mint_message_id=True,
        )
        token, _ = store.create_token("demo", "shop")
        domain = store.create_domain("demo", "example.com")
    with AccountStore(tmp_path) as store:
        assert store.project("demo") == project
        assert store.route("demo", "relay") == route
        assert store.tokens("demo") == [token]
        assert store.domains("demo") == [domain]


@pytest.mark.parametrize("slug", ["", "Demo", "-demo", "_demo", "a b", "a.b", "ä", "a" * 64, "demo\n"])
def test_a_bad_slug_is_refused(store: AccountStore, slug: str) -> None:
    with pytest.raises(InvalidAccount, match="is not a slug"):
        store.create_project(slug)
    if slug:
        with pytest.raises(Wrong, match="is not a slug"):
            kinds.PROJECT.parse(slug, Path())
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="is not a slug"):
        store.create_route("demo", slug)


@pytest.mark.parametrize("slug", ["a", "0", "a-_0", "a" * 63])
def test_a_good_slug_is_taken(store: AccountStore, slug: str) -> None:
    assert store.create_project(slug).slug == slug
    assert kinds.PROJECT.parse(slug, Path()) == slug


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
        return evolve(project, id="forged", slug="forged", smtp=False, recipients=3, check_sender=True)

    assert store.update_project("demo", change) == evolve(before, smtp=False, recipients=3, check_sender=True)
    assert store.project("demo") == evolve(before, smtp=False, recipients=3, check_sender=True)
    with pytest.raises(InvalidAccount, match="recipients"):
        store.update_project("demo", lambda project: evolve(project, recipients=0))
    assert store.project("demo").recipients == 3


def test_a_route_changes_and_keeps_its_identity(store: AccountStore) -> None:
    store.create_project("demo")
    before = store.create_route("demo", "news")

    def change(route: Route) -> Route:
        return evolve(route, id="forged", slug="forged", received=ReceivedField.NONE, mint_message_id=True)

    assert store.update_route("demo", "news", change) == evolve(before, received=ReceivedField.NONE, mint_message_id=True)
    assert store.route("demo", "news") == evolve(before, received=ReceivedField.NONE, mint_message_id=True)


def test_a_deleted_project_takes_all_that_it_owns_along(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_domain("demo", "example.com")
    token, value = store.create_token("demo")
    store.delete_project("demo")
    for question in (lambda: store.project("demo"), lambda: store.route("demo", "outgoing"), lambda: store.token(token.id)):
        with pytest.raises(NoSuchAccount):
            question()
    store.create_project("demo")
    assert len(store.routes("demo")) == 1
    assert store.tokens("demo") == []
    assert store.domains("demo") == []
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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
        ("bücher。example。", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("XN--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("xn--i-7iq.example", "xn--i-7iq.example"),
        ("r3---sn.example", "r3---sn.example"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_domain_is_kept_in_one_form(store: AccountStore, text: str, name: str) -> None:
    store.create_project("demo")
    domain = store.create_domain("demo", text)
    assert domain.name == name
    assert store.domain("demo", text) == store.domain("demo", name) == domain
    with pytest.raises(AccountExists, match="already"):
        store.create_domain("demo", name)
    assert store.delete_domain("demo", text) == domain
    assert store.domains("demo") == []


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..example", ".example", "-a.example", "a-.example", "a_b.example", "a b.example", "example.com\n", "user@example.com"),
        *("192.0.2.1", "[192.0.2.1]", "[IPv6:2001:db8::1]", "*.example.com", "i❤.example", "xn--ü.example", "\udcff.example"),
        *("a" * 64 + ".example", "ü" * 60 + ".example", ".".join(["a" * 63] * 4), "a." * 200 + "example"),
    ],
)
def test_what_is_no_domain_of_mail_is_refused(store: AccountStore, text: str) -> None:
    """RFC 5321 section 4.1.2."""
    store.create_project("demo")
    with pytest.raises(InvalidAccount, match="domain"):
        store.create_domain("demo", text)


@given(st.text(alphabet=st.one_of(st.sampled_from("aZ0-.ü。"), st.characters()), max_size=300))
def test_a_domains_form_is_final_or_there_is_none(text: str) -> None:
    try:
        name = domain_name(text)
    except InvalidAccount:
        return
    assert name.isascii()
    assert name == name.lower() == domain_name(name)
    assert len(name) <= 253


def test_a_domain_leaves_room_for_its_records_and_return_paths(store: AccountStore) -> None:
    """RFC 5321 section 4.5.3.1.3: a path has 256 octets."""
    store.create_project("shop")
    name = ".".join(["a" * 60] * 4)
    with pytest.raises(InvalidAccount, match="196"):
        store.create_domain("shop", name)
    longest = store.create_domain("shop", name[-196:]).name
    assert len(f"<b{'a' * 53}@{return_path(longest)}>") == 256


def test_a_domain_may_belong_to_several_projects(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_project("other")
    store.create_domain("demo", "b.example")
    store.create_domain("demo", "a.example")
    store.create_domain("other", "a.example")
    store.delete_domain("other", "a.example")
    assert [domain.name for domain in store.domains("demo")] == ["a.example", "b.example"]
    with pytest.raises(NoSuchAccount, match=r"no domain a\.example"):
        store.delete_domain("other", "a.example")


def test_a_domain_does_not_cover_its_sub_domains(store: AccountStore) -> None:
    store.create_project("demo")
    store.create_domain("demo", "example.com")
    with pytest.raises(NoSuchAccount):
        store.domain("demo", "mail.example.com")
