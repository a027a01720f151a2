"""The pages behind links to unsubscribe, as browsers, mail programs and scanners see them."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lettermta import event
from lettermta.accounts.directory import Directory
from lettermta.accounts.store import AccountStore
from lettermta.delivery.unsubscribe.desk import UnsubscribeDesk
from lettermta.delivery.unsubscribe.token import Unsubscription
from lettermta.message import new_id
from lettermta.ops.unsubscribe import MOST_CONNECTIONS, make_site
from lettermta.ops.web import MOST_BODY
from lettermta.testing.spool import MemorySpool
from tests.ops.test_http import Answered
from tests.test_counts import grown

ONE_CLICK = b"List-Unsubscribe=One-Click"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


class Pages(SynchronousTestCase):
    """A site without sockets, in front of a spool in memory."""

    def setUp(self):
        state_dir = Path(self.mktemp())
        state_dir.mkdir()
        store = AccountStore(state_dir)
        self.project = store.create_project("demo")
        self.directory = Directory(state_dir)
        self.addCleanup(store.close)
        self.addCleanup(self.directory.close)
        self.spool = MemorySpool()
        self.desk: UnsubscribeDesk | None = UnsubscribeDesk(self.directory, self.spool, time.time)
        self.site = make_site(lambda: self.desk, Clock())
        self.path = self.path_of("jane@example.com")

    def path_of(self, address: str) -> str:
        return f"/unsubscribe/{Unsubscription(new_id(), self.project.id, address).token(self.directory.unsubscribe_key)}"

    def connect(self):
        channel = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 4711))
        if channel is not None:
            self.transport = StringTransport()
            channel.makeConnection(self.transport)
        return channel

    def ask(self, path: str, method: str = "GET", *fields: str, body: bytes = b"") -> Answered:
        channel = self.connect()
        length = [f"Content-Length: {len(body)}"] if method == "POST" else []
        channel.dataReceived("\r\n".join([f"{method} {path} HTTP/1.1", "Host: news.example.com", *length, *fields, "", ""]).encode() + body)
        return Answered(self.transport.value())

    @property
    def unsubscribed(self) -> list[str]:
        return [one.recipient or "" for _, one in self.spool.outbox if one.name == event.UNSUBSCRIBED]

    def test_one_click_unsubscribes(self):
        """RFC 8058 section 3.2: the form as it may come, and no form at all."""
        fields = ("Content-Type: application/x-www-form-urlencoded",)
        answered = self.ask(self.path, "POST", *fields, body=ONE_CLICK)
        assert answered.code == 200
        assert b"You have unsubscribed" in answered.body
        assert self.unsubscribed == ["jane@example.com"]
        assert self.ask(self.path_of("joe@example.com"), "POST").code == 200
        parts = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
        assert self.ask(self.path_of("ann@example.com"), "POST", "Content-Type: multipart/form-data; boundary=b", body=parts).code == 200
        assert self.unsubscribed == ["jane@example.com", "joe@example.com", "ann@example.com"]

    def test_to_look_changes_nothing(self):
        for method in ("GET", "HEAD"):
            assert self.ask(self.path, method).code == 200
        assert self.ask(self.path, "HEAD").body == b""
        assert self.spool.outbox == []

    def test_the_page_has_one_button_that_posts_to_where_it_is(self):
        page = Elements(self.ask(self.path).body)
        assert [(tag, attributes) for tag, attributes in page.found if tag in ("form", "button", "input", "a")] == [
            ("form", {"method": "post"}),
            ("button", {}),
        ]
        assert "jane@example.com" in page.text
        assert "Unsubscribe" in page.text

    def test_an_address_is_no_markup(self):
        page = Elements(self.ask(self.path_of('"<script>alert(1)</script>{0}"@example.com')).body)
        assert not [tag for tag, _ in page.found if tag == "script"]
        assert '"<script>alert(1)</script>{0}"@example.com' in page.text

    def test_nothing_comes_from_elsewhere_and_nothing_is_kept(self):
        for path, method in ((self.path, "GET"), (self.path, "POST"), ("/unsubscribe/x", "GET")):
            answered = self.ask(path, method)
            policy = answered.headers["content-security-policy"]
            (style,) = re.findall(r"<style>(.*?)</style>", answered.body.decode(), re.DOTALL)
            # The helper of these tests has the fields in lower case.
            assert f"style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'".lower() in policy
            assert policy.startswith("default-src 'none'; ")
            assert "frame-ancestors 'none'" in policy
            assert "form-action 'self'" in policy
            assert answered.headers["cache-control"] == "no-store"
            assert answered.headers["referrer-policy"] == "no-referrer"
            assert answered.headers["x-robots-tag"] == "noindex"
            assert "set-cookie" not in answered.headers
            assert answered.headers["server"] == "lettermta"
            assert not re.search(r"(?:src|href|url\()", answered.body.decode())
            assert not [tag for tag, _ in Elements(answered.body).found if tag in ("script", "img", "link", "iframe")]

    def test_links_that_are_not_ours_are_not_found(self):
        with grown() as growth:
            for path in (self.path[:-1], self.path[:-4] + "AAAA", "/", "/metrics", "/unsubscribe/", "/%00%ff"):
                for method in ("GET", "POST"):
                    assert self.ask(path, method).code == 404
        assert self.spool.outbox == []
        assert growth["lettermta_unsubscriptions_total result=forged"] == 4
        assert growth["lettermta_unsubscriptions_total result=malformed"] == 8

    def test_the_web_server_in_front_may_leave_any_of_the_path(self):
        token = self.path.rpartition("/")[2]
        for path in (f"/{token}", f"/a/b/{token}", f"/{token}?utm_source=mail"):
            assert self.ask(path).code == 200

    def test_other_methods_are_refused(self):
        answered = self.ask(self.path, "DELETE")
        assert answered.code == 405
        assert answered.headers["allow"] == "get, head, post"

    def test_connections_are_bounded(self):
        open_ones = [self.connect() for _ in range(MOST_CONNECTIONS)]
        assert None not in open_ones
        assert self.connect() is None
        open_ones.pop().connectionLost(Failure(connectionDone.value))
        assert self.ask(self.path).code == 200

    def test_a_body_is_bounded(self):
        assert self.ask(self.path, "POST", body=b"x" * (MOST_BODY + 1)).code == 413
        assert self.transport.disconnecting
        assert self.spool.outbox == []

    def test_what_can_not_be_stored_now_is_to_be_asked_for_again(self):
        self.spool.broken = OSError("no disk")
        answered = self.ask(self.path, "POST", body=ONE_CLICK)
        assert (answered.code, b"try again" in answered.body) == (503, True)
        assert len(self.flushLoggedErrors(OSError)) == 1
        self.spool.broken = None
        assert self.ask(self.path, "POST", body=ONE_CLICK).code == 200

    def test_before_the_spool_is_open_it_is_not_now(self):
        self.desk = None
        assert self.ask(self.path).code == self.ask(self.path, "POST").code == 503

    def test_a_fault_of_ours_tells_nobody_the_link(self):
        self.desk = object()
        with capturedLogs() as logs:
            assert self.ask(self.path).code == 500
        assert len(self.flushLoggedErrors(AttributeError)) == 1
        assert [formatEvent(one) for one in logs] == ["a page to unsubscribe could not be made"]
