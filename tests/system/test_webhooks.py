"""Webhooks of a real daemon: what an endpoint gets, what the tools say of it, and that no crash loses an event (HARD-CASES row 19)."""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import json
import os
import signal
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.system.endpoint import Endpoint, Got
from tests.system.program import PATIENCE
from tests.system.site import Daemon, Receiver, Site, mail

ALLOWED = {"events": {"webhook_allow_networks": "127.0.0.0/8"}}
KILLS = int(os.environ.get("WEBHOOK_KILLS", "4"))
THREE = ["message.created", "message.sent", "message.delivered"]


@pytest.fixture(scope="module", autouse=True)
def receiver(site: Site) -> Receiver:
    return site.receiver()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def create(daemon: Daemon, url: str, *options: str) -> tuple[str, str]:
    """A new webhook of the project ``demo``: its id and its secret."""
    secret = daemon.admin("webhook", "create", "--project", "demo", "--url", url, *options)
    shown = daemon.admin("webhook", "list", "--project", "demo", "--json").splitlines()
    return json.loads(shown[-1])["id"], secret


def deliveries(daemon: Daemon, webhook: str, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.admin("webhook", "deliveries", webhook, "--json", *options).splitlines()]


def names(requests: list[Got]) -> list[str]:
    return [got.headers["x-lettermint-event"] for got in requests]


def test_from_the_first_event_to_a_replay(site: Site, endpoint: Endpoint) -> None:
    daemon = site.daemon("whole", ALLOWED)
    daemon.start()
    webhook, secret = create(daemon, endpoint.url("/hook?a=1"), "--basic-auth", "shop:pass")
    message = daemon.send(mail("X-Tag: orders", "X-Metadata-order_id: 1234", "Subject: Müsli"), "jane@example.test")
    told = endpoint.requests(3)
    assert names(told) == THREE
    assert [got.document["data"]["message_id"] for got in told] == [message] * 3
    assert all(got.is_signed_by(secret) and got.path == "/hook?a=1" for got in told)
    assert all(got.headers["authorization"] == "Basic c2hvcDpwYXNz" for got in told)
    assert all(got.document["data"]["tag"] == "orders" and got.document["data"]["metadata"] == {"order_id": "1234"} for got in told)
    assert told[0].body.find("Müsli".encode()) > 0

    answered = daemon.admin("webhook", "test", webhook)
    assert answered.startswith("success: status 200 after ")
    test = endpoint.requests(4)[3]
    assert test.is_signed_by(secret)
    assert test.document["event"] == "webhook.test"
    assert test.document["data"].keys() == {"message", "webhook_id", "timestamp"}

    new_secret = daemon.admin("webhook", "rotate", webhook)
    daemon.admin("webhook", "test", webhook)
    rotated = endpoint.requests(5)[4]
    assert len(rotated.headers["webhook-signature"].split(" ")) == 2
    assert not rotated.is_signed_by(secret)

    endpoint.answering = lambda got: 410
    daemon.send(mail(), "jane@example.test")
    daemon.running.line("switched off, as http://127.0.0.1.* answered 410 Gone")
    until(lambda: json.loads(daemon.admin("webhook", "show", webhook, "--json"))["disabled_reason"] == "its endpoint answered 410 Gone")
    until(lambda: [told["webhook_id"] for told in logged(daemon, "webhook.disabled")] == [webhook])
    missed = daemon.send(mail("X-Tag: missed"), "jane@example.test")
    daemon.events_until(missed, "message.delivered")
    endpoint.answering = lambda got: 200
    count = len(endpoint.requests(6))
    daemon.admin("webhook", "enable", webhook)
    daemon.admin("webhook", "replay", webhook, "--message", missed, "--name", "message.delivered")
    assert "tell once more" in daemon.tool("lettermta-admin", "webhook", "replay", webhook, "--tag", "missed", "--since", "1h").stderr
    again = endpoint.until(lambda got: sum(one.document["data"].get("message_id") == missed for one in got) >= 4, "replay")[count:]
    told_again = Counter(one.headers["x-lettermint-event"] for one in again if one.document["data"].get("message_id") == missed)
    assert told_again == {"message.created": 1, "message.sent": 1, "message.delivered": 2}
    assert all(got.is_signed_by(new_secret) or " " in got.headers["webhook-signature"] for got in again)
    until(lambda: all(record["status"] == "success" for record in deliveries(daemon, webhook, "--limit", "4")))
    daemon.stop()


def logged(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    """The data of all events of that name in the event log."""
    lines = (daemon.directory / "events.jsonl").read_text().splitlines()
    return [document["data"] for document in map(json.loads, lines) if document["event"] == name]


def until(accept: Any) -> None:
    """Look again until it is so; each look is a run of a tool, so this doesn't spin."""
    limit = time.monotonic() + PATIENCE
    while not accept():
        assert time.monotonic() < limit


def test_with_the_daemon_down_what_is_to_be_told_waits_for_it(site: Site, endpoint: Endpoint) -> None:
    daemon = site.daemon("down", ALLOWED)
    daemon.start()
    webhook, secret = create(daemon, endpoint.url())
    message = daemon.send(mail(), "jane@example.test")
    endpoint.requests(3)
    daemon.stop()
    assert "is sent when it starts" in daemon.tool("lettermta-admin", "webhook", "test", webhook).stderr
    daemon.admin("webhook", "replay", webhook, "--message", message)
    assert [record["status"] for record in deliveries(daemon, webhook)] == ["pending"] * 4 + ["success"] * 3
    daemon.start()
    told = endpoint.requests(7)[3:]
    assert Counter(names(told)) == Counter([*THREE, "webhook.test"])
    assert all(got.is_signed_by(secret) for got in told)
    daemon.stop()


def test_a_certificate_has_to_be_good_for_the_host(site: Site, tmp_path: Path) -> None:
    authority, context = certificate(tmp_path)
    good, bad = Endpoint(context=context), Endpoint(context=context)
    daemon = site.daemon("tls", ALLOWED, {"SSL_CERT_FILE": str(authority)})
    daemon.start()
    first, secret = create(daemon, f"https://127.0.0.1:{good.port}/")
    second, _ = create(daemon, f"https://localhost:{bad.port}/")
    assert daemon.admin("webhook", "test", first).startswith("success: ")
    assert good.requests(1)[0].is_signed_by(secret)
    answered = daemon.admin("webhook", "test", second)
    assert answered.startswith("failed: the certificate is not one of this host")
    daemon.stop()
    for endpoint in (good, bad):
        endpoint.close()


def certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 alone, which is its own authority; a server's context that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "endpoint")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "endpoint.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = directory / "endpoint.key"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, private)
    return file, context


def test_settings_follow_a_reload(site: Site, endpoint: Endpoint) -> None:
    daemon = site.daemon("reloaded")
    daemon.start()
    webhook, _ = create(daemon, endpoint.url())
    assert daemon.admin("webhook", "test", webhook).startswith("failed: 127.0.0.1 is not allowed")
    daemon.config.write_text(daemon.config.read_text().replace("[events]", "[events]\nwebhook_allow_networks = 127.0.0.0/8"))
    daemon.running.send_signal(signal.SIGHUP)
    daemon.running.line("rules reloaded")
    assert daemon.admin("webhook", "test", webhook).startswith("success: ")
    daemon.stop()


# -- crashes


def sender_of(daemon: Daemon) -> int:
    """The process that sends the daemon's webhooks."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            if parent == daemon.running.pid and b"webhook_sender" in (path.parent / "cmdline").read_bytes():
                return int(path.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    pytest.fail("no process sends webhooks", pytrace=False)


def test_a_sender_that_dies_is_started_again_and_nothing_is_missing(site: Site, endpoint: Endpoint) -> None:
    daemon = site.daemon("sender", ALLOWED)
    daemon.start()
    create(daemon, endpoint.url())
    sent = [daemon.send(mail(), "jane@example.test") for _ in range(5)]
    endpoint.requests(3)
    os.kill(sender_of(daemon), signal.SIGKILL)
    sent += [daemon.send(mail(), "jane@example.test") for _ in range(5)]
    daemon.running.line("the process that sends webhooks has ended")
    all_told(endpoint, sent)
    daemon.stop()


def all_told(endpoint: Endpoint, messages: list[str]) -> list[Got]:
    """What the endpoint got, once it has the three events of each message."""
    wanted = {(message, name) for message in messages for name in THREE}

    def complete(got: Any) -> bool:
        return wanted <= {(one.document["data"].get("message_id"), one.document["event"]) for one in got}

    return endpoint.until(complete, "event of each sort of each message")


@pytest.mark.parametrize("moment", ["between commit and request", "between request and answer"])
def test_whatever_the_moment_of_a_kill_each_event_arrives_with_the_same_id_and_octets(site: Site, endpoint: Endpoint, moment: str) -> None:
    """The daemon is killed when a message was acknowledged, or while one of its events is with the endpoint. ``make crash-webhooks`` does
    it many times.
    """
    daemon = site.daemon(moment.rpartition(" ")[2], ALLOWED)
    daemon.start()
    create(daemon, endpoint.url())
    sent: list[str] = []

    def kill() -> None:
        daemon.running.send_signal(signal.SIGKILL)

    def kill_at(number: int) -> Callable[[Got], int]:
        """At that request from now on, before it is answered."""
        requests = itertools.count(1)

        def answering(_: Got) -> int:
            if next(requests) == number:
                kill()
            return 200

        return answering

    for number in range(KILLS):
        if moment == "between request and answer":
            endpoint.answering = kill_at(number % len(THREE) + 1)
        sent += [daemon.send(mail(), "jane@example.test")]
        if moment == "between commit and request":
            kill()
        assert daemon.running.ended() == -signal.SIGKILL
        endpoint.answering = lambda got: 200
        daemon.start()
    told = all_told(endpoint, sent)
    daemon.stop()
    octets = defaultdict(set)
    for got in told:
        octets[got.id].add(got.body)
    assert all(len(bodies) == 1 for bodies in octets.values())
    ids = {(got.document["data"]["message_id"], got.document["event"]): got.id for got in told}
    for message in sent:
        for event in daemon.events(message):
            assert ids[message, event["event"]] == event["id"], "the id that the event log has"
