"""Links to unsubscribe on the real way: from a broadcast's submission to the mail that its reader gets no more."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from lettermta.smtp.tls import self_signed
from tests.delivery.dkim.judges import BOTH, by_dkimpy
from tests.system.program import PATIENCE, ROOT
from tests.system.site import Daemon, Receiver, Site, free_port, mail
from tests.tools import need

pytestmark = pytest.mark.filterwarnings("ignore::BytesWarning:dkim")
URL = "https://news.sender.test/unsubscribe"
DOMAIN = ("--project", "demo", "sender.test")
NEWS = ("X-Lettermint-Route: news", "X-Tag: november", "X-LM-Metadata-issue: 7", "Subject: News")


@frozen
class Place:
    """A daemon that signs, whose broadcasts have links; the server that its mail goes to; and where links are answered."""

    daemon: Daemon
    receiver: Receiver
    http_port: int

    @property
    def published(self) -> Mapping[str, str]:
        records = json.loads(self.daemon.admin("domain", "show", *DOMAIN, "--json"))["records"]
        return {record["name"]: record["value"] for record in records}

    def arrived(self, identifier: str, count: int = 1) -> dict[str, bytes]:
        """The copies of a message by their recipients."""
        copies = self.receiver.messages(count, where=lambda one: f"id {identifier};".encode() in one["content"])
        assert [len(copy["recipients"]) for copy in copies] == [1] * count
        return {copy["recipients"][0]: copy["content"] for copy in copies}

    def follow(self, link: str, method: str = "POST") -> tuple[int, str]:
        """What is answered where the web server in front hands a request for the link to."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=PATIENCE)
        body = "List-Unsubscribe=One-Click" if method == "POST" else None
        connection.request(method, link.removeprefix("https://news.sender.test"), body, {"Host": "news.sender.test"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def names(self, identifier: str, last: str) -> list[str]:
        return [one["event"].removeprefix("message.") for one in self.daemon.events_until(identifier, f"message.{last}")]

    def told(self, name: str) -> list[dict[str, Any]]:
        """The events of that name in the log of events, which is complete once the daemon has stopped."""
        documents = map(json.loads, (self.daemon.directory / "events.jsonl").read_text().splitlines())
        return [document for document in documents if document["event"] == name]


@pytest.fixture(scope="module")
def place(site: Site) -> Iterator[Place]:
    receiver = site.receiver()
    port = free_port()
    daemon = site.daemon("unsubscribing", {"unsubscribe": {"url": URL, "listen": f"127.0.0.1:{port}"}})
    daemon.admin("domain", "create", *DOMAIN)
    daemon.admin("route", "create", "--project", "demo", "news", "--kind", "broadcast")
    daemon.start()
    yield Place(daemon, receiver, port)
    daemon.dispose()


def link_of(content: bytes) -> str:
    match = re.search(rb"^List-Unsubscribe: <(\S+)>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n", content, re.MULTILINE)
    assert match is not None, content
    return match[1].decode()


def test_a_reader_of_two_unsubscribes_by_one_click(place: Place) -> None:
    """RFC 8058: each has a link of its own, under both signatures; looking at it changes nothing, a POST does, once."""
    first = place.daemon.send(mail(*NEWS), "jane@example.test", "joe@example.test")
    copies = place.arrived(first, 2)
    for content in copies.values():
        assert by_dkimpy(content, place.published) == BOTH
        signed = re.findall(r";h=([^;]+);", re.sub(r"\s", "", content.partition(b"\r\n\r\n")[0].decode()))
        assert [names.split(":").count("list-unsubscribe") for names in signed] == [2, 2]
        assert [names.split(":").count("list-unsubscribe-post") for names in signed] == [2, 2]
    jane, joe = link_of(copies["jane@example.test"]), link_of(copies["joe@example.test"])
    assert jane != joe
    assert jane.startswith(URL + "/")

    assert place.follow(jane, "GET")[0] == place.follow(jane, "HEAD")[0] == 200
    assert "jane@example.test" in place.follow(jane, "GET")[1]
    looked = place.daemon.send(mail(*NEWS), "jane@example.test")
    assert place.names(looked, "delivered") == ["created", "sent", "delivered"]

    assert [place.follow(jane)[0] for _ in range(2)] == [200, 200]
    assert place.names(first, "unsubscribed").count("unsubscribed") == 1
    second = place.daemon.send(mail(*NEWS), "jane@example.test", "joe@example.test")
    assert sorted(place.names(second, "delivered")) == ["created", "delivered", "sent", "suppressed"]
    assert list(place.arrived(second)) == ["joe@example.test"]
    receipt = place.daemon.send(mail("Subject: Receipt"), "jane@example.test")
    assert place.names(receipt, "delivered") == ["created", "sent", "delivered"]
    assert b"List-Unsubscribe" not in place.arrived(receipt)["jane@example.test"]

    broken = jane[:-3] + ("AAA" if not jane.endswith("AAA") else "BBB")
    assert place.follow(broken)[0] == place.follow("/robots.txt", "GET")[0] == 404
    place.daemon.stop()
    (unsubscribed,) = place.told("message.unsubscribed")
    data = unsubscribed["data"]
    assert {name: data[name] for name in ("message_id", "recipient", "subject", "tag", "metadata")} == {
        "message_id": first,
        "recipient": "jane@example.test",
        "subject": "News",
        "tag": "november",
        "metadata": {"issue": "7"},
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", data["unsubscribed_at"])
    assert (unsubscribed["context"]["project"], unsubscribed["context"]["route"]) == ("demo", "news")
    (added,) = place.told("suppression.added")
    assert {name: added["data"][name] for name in ("type", "value", "reason", "applies_to")} == {
        "type": "email",
        "value": "jane@example.test",
        "reason": "unsubscribe",
        "applies_to": "broadcast",
    }
    said = place.daemon.running.output
    assert f"{first}: unsubscribed <jane@example.test>" in said
    assert jane.rpartition("/")[2] not in said
    place.daemon.start()


@pytest.fixture
def nginx(place: Place, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A real one, as the documentation configures it: its port, and its certificate."""
    (server,) = re.findall(r"^```nginx\n(.*?)^```", (ROOT / "docs" / "suppression.md").read_text(), re.M | re.S)
    pair, port = self_signed(tmp_path, "news.example.com"), free_port()
    server = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port} ssl", server)
    server = re.sub(r"listen \[::\]:443 ssl", f"listen [::1]:{port} ssl", server)
    server = re.sub(r"/etc/\S+/fullchain.pem", str(pair.certificate), server)
    server = re.sub(r"/etc/\S+/privkey.pem", str(pair.private_key), server)
    server = server.replace("http://127.0.0.1:9120", f"http://127.0.0.1:{place.http_port}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    config = tmp_path / "nginx.conf"
    http_part = f"http {{\naccess_log {tmp_path}/access;\n{folders}{server}}}\n"
    config.write_text(f"pid {tmp_path}/pid;\nmaster_process off;\nevents {{}}\n{http_part}")
    program = [need("nginx", "nginx-light"), "-e", str(tmp_path / "errors"), "-p", str(tmp_path), "-c", str(config)]
    started = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)  # it listens when this is over
    assert started.returncode == 0, started.stderr
    try:
        yield port, pair.certificate
    finally:
        subprocess.run([*program, "-s", "stop"], timeout=PATIENCE, check=True)


def test_it_works_behind_nginx_as_documented(place: Place, nginx: tuple[int, Path]) -> None:
    port, certificate = nginx
    sent = place.daemon.send(mail(*NEWS), "amy@example.test")
    link = link_of(place.arrived(sent)["amy@example.test"])
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    for method, path, status in (
        ("GET", link.removeprefix("https://news.sender.test"), 200),
        ("POST", link.removeprefix("https://news.sender.test"), 200),
        ("POST", "/unsubscribe/x", 404),
        ("GET", "/metrics", 404),
    ):
        connection = http.client.HTTPSConnection("localhost", port, timeout=PATIENCE, context=context)
        connection.request(method, path, "List-Unsubscribe=One-Click" if method == "POST" else None, {"Host": "news.example.com"})
        assert connection.getresponse().status == status, (method, path)
        connection.close()
    assert place.names(sent, "unsubscribed").count("unsubscribed") == 1
    assert link.rpartition("/")[2] not in (certificate.parent / "access").read_text()


def test_the_tool_tells_which_mail_gets_a_link(place: Place) -> None:
    assert f"a link below {URL}" in place.daemon.admin("explain", "--route", "news", "jane@example.test")
    for route, url in (("news", URL), ("outgoing", None)):
        assert json.loads(place.daemon.admin("route", "show", "--project", "demo", route, "--json"))["unsubscribe"] == url


def test_a_body_in_a_file_gets_links_too_and_mail_with_one_of_its_own_keeps_that(place: Place) -> None:
    body = "".join(f"line {number} of a long letter\r\n" for number in range(20_000))
    large = place.arrived(place.daemon.send(mail(*NEWS, body=body), "ann@example.test", "ben@example.test"), 2)
    assert len({link_of(content) for content in large.values()}) == 2
    assert [by_dkimpy(content, place.published) for content in large.values()] == [BOTH, BOTH]
    own = "List-Unsubscribe: <https://sender.test/u>"
    kept = place.receiver.received(place.daemon.send(mail(*NEWS, own), "ann@example.test", "ben@example.test"))
    assert kept["content"].count(b"List-Unsubscribe") == 1
    assert kept["recipients"] == ["ann@example.test", "ben@example.test"]
