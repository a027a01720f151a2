"""The SDKs that Lettermint and Standard Webhooks publish verify and parse what a real daemon posts."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from attrs import evolve

from tests.system.endpoint import Endpoint, Got
from tests.system.site import Daemon, Site, mail
from tests.system.webhook_judges import JUDGES, Judge

ALLOWED = {"events": {"webhook_allow_networks": "127.0.0.0/8"}}
SCRIPT = [
    {"stage": "RCPT", "recipient": "hard@example.test", "reply": "550 5.1.1 No such user"},
    {"stage": "RCPT", "recipient": "soft@example.test", "reply": "452 4.2.2 Full"},
]
NAMES = ["message.created", "message.sent", "message.delivered", "message.hard_bounced", "message.soft_bounced", "webhook.test"]


@pytest.fixture(scope="module")
def told(site: Site) -> Iterator[tuple[list[Got], list[str]]]:
    """Requests with events of many sorts, and the secrets that they are signed by: while one is rotated, there are two."""
    endpoint = Endpoint()
    site.receiver(script=SCRIPT)
    daemon = site.daemon("judged", ALLOWED)
    daemon.start()
    url = endpoint.url()
    first = daemon.admin("webhook", "create", "--project", "demo", "--url", url, "--events", ",".join(NAMES), "--first-soft-bounce-only")
    webhook = _id(daemon)
    daemon.send(mail("X-Tag: orders", "X-Metadata-name: Jürgen / 😀", 'Subject: Müsli \\ "so"'), "jane@example.test", "hard@example.test")
    daemon.send(mail(), "soft@example.test")
    endpoint.until(lambda got: set(NAMES[:-1]) <= {one.headers["x-lettermint-event"] for one in got}, "event of each name")
    second = daemon.admin("webhook", "rotate", webhook)
    daemon.admin("webhook", "test", webhook)
    requests = endpoint.until(lambda got: any(one.headers["x-lettermint-event"] == "webhook.test" for one in got), "webhook.test")
    daemon.stop()
    endpoint.close()
    yield requests, [first, second]


def _id(daemon: Daemon) -> str:
    return str(json.loads(daemon.admin("webhook", "list", "--project", "demo", "--json"))["id"])


@pytest.mark.parametrize("name", JUDGES)
def test_an_sdk_verifies_and_parses_each_event(told: tuple[list[Got], list[str]], name: str) -> None:
    requests, (first, second) = told
    judge = Judge(name)
    before = [got for got in requests if " " not in got.headers["webhook-signature"]]
    assert judge.verdicts(before, first) == [got.headers["x-lettermint-event"] for got in before]
    rotating = [got for got in requests if " " in got.headers["webhook-signature"]]
    assert judge.verdicts(rotating, second) == [got.headers["x-lettermint-event"] for got in rotating]
    if name.startswith("standardwebhooks"):
        assert judge.verdicts(rotating, first) == [got.headers["x-lettermint-event"] for got in rotating]


@pytest.mark.parametrize("name", JUDGES)
def test_an_sdk_refuses_what_was_altered(told: tuple[list[Got], list[str]], name: str) -> None:
    """So that what it says of the others means something."""
    requests, (first, _) = told
    altered = evolve(requests[0], body=requests[0].body.replace(b"demo", b"omed"))
    (verdict,) = Judge(name).verdicts([altered], first)
    assert verdict.startswith("refused: ")
