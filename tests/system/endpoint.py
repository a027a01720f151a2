"""An endpoint of a webhook: an HTTP server in a thread of the test's own process, which answers as it is told and keeps what it got."""

from __future__ import annotations

import base64
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from attrs import frozen

from tests.system.program import PATIENCE


@frozen
class Got:
    """One request."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def document(self) -> Mapping[str, Any]:
        document: Mapping[str, Any] = json.loads(self.body)
        return document

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed_by(self, secret: str) -> bool:
        """Whether both signatures are those of ``secret`` (COMPATIBILITY.md section 3), by hand."""
        moment = self.headers["webhook-timestamp"]
        ours = hmac.new(secret.encode(), f"{moment}.".encode() + self.body, "sha256").hexdigest()
        key = base64.b64decode(secret.removeprefix("whsec_"))
        standard = hmac.new(key, f"{self.id}.{moment}.".encode() + self.body, "sha256").digest()
        return (
            self.headers["x-lettermint-signature"] == f"t={moment},v1={ours}"
            and self.headers["x-lettermint-delivery"] == moment
            and self.headers["webhook-signature"] == "v1," + base64.b64encode(standard).decode()
        )


Answering = Callable[[Got], int]
"""The status to answer with; may wait."""


class Endpoint:
    """Listens on loopback until it is closed; ``answering`` may be changed at any time."""

    def __init__(self, answering: Answering = lambda got: 200, context: ssl.SSLContext | None = None) -> None:
        self.answering = answering
        self._changed = threading.Condition()
        self._got: list[Got] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                got = Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                status = endpoint.answering(got)
                endpoint._take(got)
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"OK")

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that was killed is no error of ours."""

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _take(self, got: Got) -> None:
        with self._changed:
            self._got.append(got)
            self._changed.notify_all()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def until(self, accept: Callable[[Sequence[Got]], bool], what: str) -> list[Got]:
        """What it got, once that is as ``accept`` wants it."""
        with self._changed:
            if not self._changed.wait_for(lambda: accept(self._got), PATIENCE):
                pytest.fail(f"no {what} at the endpoint; it got {[got.headers['x-lettermint-event'] for got in self._got]}", pytrace=False)
            return list(self._got)

    def requests(self, count: int) -> list[Got]:
        """What it got, once there are so many requests."""
        return self.until(lambda got: len(got) >= count, f"{count} request(s)")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
