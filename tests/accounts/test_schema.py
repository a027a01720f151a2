"""Opening: the files' modes, the key file, upgrades from each released version, and clear words for what can't be opened."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from lettermta.accounts.directory import Directory
from lettermta.accounts.errors import StorageDenied, StorageUnusable
from lettermta.accounts.model import (
    Alignment,
    Project,
    ReceivedField,
    ReturnPathUse,
    Route,
    RouteKind,
    RouteTLS,
    Smarthost,
    SmarthostTLS,
    TransportKind,
)
from lettermta.accounts.schema import VERSION, open_database
from lettermta.accounts.store import AccountStore
from lettermta.accounts.webhooks import WebhookStore

HERE = Path(__file__).parent
DUMPS_KEY = bytes(range(32))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_all_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with AccountStore(tmp_path) as store:
            store.create_project("demo")
            files = {path.name: mode(path) for path in tmp_path.iterdir()}
    finally:
        os.umask(umask)
    assert files == dict.fromkeys(("accounts.db", "accounts.db-wal", "accounts.db-shm", "accounts.key"), 0o600)


def test_commits_are_durable(tmp_path: Path) -> None:
    connection, _ = open_database(tmp_path)
    full = 2
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (full,)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_the_key_is_made_once(tmp_path: Path) -> None:
    AccountStore(tmp_path).close()
    key = (tmp_path / "accounts.key").read_bytes()
    AccountStore(tmp_path).close()
    assert len(key) == 32
    assert (tmp_path / "accounts.key").read_bytes() == key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["accounts.db", "accounts.key"]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_get_at_is_not_used(tmp_path: Path, bits: int) -> None:
    AccountStore(tmp_path).close()
    (tmp_path / "accounts.key").chmod(bits)
    with pytest.raises(StorageDenied, match=f"{bits:04o}.*chmod 600"):
        AccountStore(tmp_path)


def test_a_missing_foreign_or_damaged_key_is_told_at_once(tmp_path: Path) -> None:
    AccountStore(tmp_path).close()
    key = tmp_path / "accounts.key"
    key.write_bytes(bytes(32))
    with pytest.raises(StorageUnusable, match="not the one"):
        AccountStore(tmp_path)
    key.write_bytes(bytes(31))
    with pytest.raises(StorageUnusable, match="damaged"):
        AccountStore(tmp_path)
    key.unlink()
    with pytest.raises(StorageUnusable, match="missing"):
        AccountStore(tmp_path)
    assert not key.exists()


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    AccountStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "accounts.db") as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StorageUnusable, match=f"version {VERSION + 1}.*later lettermta"):
        AccountStore(tmp_path)


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_bytes(b"this is no database " * 100)
    with pytest.raises(StorageUnusable, match=r"accounts\.db"):
        AccountStore(tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageUnusable, match="nowhere"):
        AccountStore(tmp_path / "nowhere")


def test_an_opening_that_was_cut_short_is_made_good(tmp_path: Path) -> None:
    """A crash may leave the empty database and the key without what is in between."""
    (tmp_path / "accounts.db").touch(0o600)
    descriptor = os.open(tmp_path / "accounts.key", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, DUMPS_KEY)
    os.close(descriptor)
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
    assert (tmp_path / "accounts.key").read_bytes() == DUMPS_KEY


def test_many_may_open_it_for_the_first_time_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from lettermta.accounts.store import AccountStore as Store; "
        "Store(pathlib.Path(sys.argv[1])).create_project(sys.argv[2])"
    )
    openers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"p{n}"], cwd=HERE.parent.parent) for n in range(4)]
    assert [opener.wait() for opener in openers] == [0] * 4
    with AccountStore(tmp_path) as store:
        assert [project.slug for project in store.projects()] == ["p0", "p1", "p2", "p3"]


def put_back(state_dir: Path, version: int) -> None:
    """The accounts as that version of the schema wrote them."""
    (state_dir / "accounts.key").write_bytes(DUMPS_KEY)
    (state_dir / "accounts.key").chmod(0o600)
    with sqlite3.connect(state_dir / "accounts.db") as connection:
        connection.executescript((HERE / f"version{version}.sql").read_text())
    connection.close()


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_what_each_version_wrote_opens(tmp_path: Path, version: int) -> None:
    """What the first release wrote is read by each later one."""
    put_back(tmp_path, version)
    second, third, fourth = version >= 2, version >= 3, version >= 4
    with AccountStore(tmp_path) as store:
        assert (tmp_path / "accounts.db-wal").exists()
        project = store.project("demo")
        alignment = Alignment.STRICT if fourth else Alignment.RELAXED
        assert project == Project(project.id, "demo", False, 1000000, 50, project.created, check_sender=second, alignment=alignment)
        outgoing, relay = store.routes("demo")
        assert outgoing == Route(
            outgoing.id, project.id, "outgoing", RouteKind.TRANSACTIONAL, TransportKind.MX, None, False, outgoing.created
        )
        assert relay == Route(
            relay.id,
            project.id,
            "relay",
            RouteKind.BROADCAST,
            TransportKind.SMARTHOST,
            Smarthost("relay.example", 587, SmarthostTLS.REQUIRE, "bob", "hunter2"),
            True,
            relay.created,
            received=ReceivedField.ANONYMOUS if second else ReceivedField.FULL,
            mint_message_id=second,
            schedule=(300.0, 3600.5) if third else None,
            lifetime=172800.0 if third else None,
            tls=RouteTLS.REQUIRE if version >= 7 else None,
            pool="bulk" if version >= 8 else None,
        )
        live, revoked = store.tokens("demo")
        assert (live.name, live.revoked, revoked.revoked) == ("shop", None, 1.5)
        domains = store.domains("demo")
        assert [domain.name for domain in domains] == (["xn--mnchen-3ya.example"] if second else [])
        seen = (2.5, 3.5, 4.5) if fourth else (None, None, None)
        assert [(d.return_path_verified, d.dmarc_verified, d.spf_verified) for d in domains] == ([seen] if second else [])
        assert [d.return_path_use for d in domains] == ([ReturnPathUse.ON if version >= 6 else ReturnPathUse.AUTO] if second else [])
        keys = [store.domain_keys(domain) for domain in domains]
        states = ["retired", "retired", "signing", "signing"] if fourth else ["signing", "signing"]
        assert [[key.state for key in of_domain] for of_domain in keys] == ([states] if second else [])
        if version >= 5:
            (webhook,) = WebhookStore(store).of_project("demo")
            assert (webhook.url, webhook.route_id, webhook.events) == (
                "https://shop.example/hook",
                relay.id,
                ("message.delivered", "message.failed"),
            )
            assert (webhook.username, webhook.password) == ("bob", "hunter3")
            assert webhook.secret != webhook.former_secret
    directory = Directory(tmp_path)
    assert directory.token_by_secret(b"secret") == live
    assert directory.token_by_secret(b"revoked-secret") == revoked
    assert directory.token_by_cram(lambda secret: secret == b"secret") == live
    assert directory.domains(project.id) == ({"xn--mnchen-3ya.example"} if second else frozenset())
    signing = directory.signing_keys(project.id, "xn--mnchen-3ya.example")
    assert (signing is not None) is second
    if signing is not None:
        rsa, ed25519 = map(directory.private_key, signing[1])
        assert isinstance(rsa, RSAPrivateKey)
        assert isinstance(ed25519, Ed25519PrivateKey)
    directory.close()


@pytest.mark.parametrize("version", range(1, VERSION + 1))
def test_an_old_database_becomes_like_a_new_one(tmp_path: Path, version: int) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    put_back(tmp_path / "old", version)
    schemas = []
    for state_dir in (tmp_path / "old", tmp_path / "new"):
        connection, _ = open_database(state_dir)
        schemas.append(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall())
        connection.close()
    assert schemas[0] == schemas[1]
