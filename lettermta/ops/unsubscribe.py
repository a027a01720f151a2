"""What the public sees behind a link to unsubscribe: a page with one button, and that it is done.

Promises that only a POST unsubscribes, whatever its body: mail clients send one by themselves when somebody clicks their button (RFC 8058
section 3.2), people by the page's. GET and HEAD change nothing, as programs follow links to look for malware. The pages are complete in
themselves: no cookie, no script, nothing from elsewhere; no cache or search engine keeps them, and no other site learns a link from them or
shows them in a frame. Links that are not ours are 404. What can't be stored now is 503, and can be asked for again.

A web server with TLS hands the requests over; which path it leaves of the URL does not matter, its last segment is looked at alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, ClassVar

from twisted.internet.interfaces import IListeningPort, IReactorTime
from twisted.logger import Logger

from lettermta.config import HostPort
from lettermta.delivery.unsubscribe.desk import NotNow, UnsubscribeDesk
from lettermta.delivery.unsubscribe.token import NoLink, Unsubscription
from lettermta.ops import web
from lettermta.ops.web import Answer, Answering, Bounded, Site

MOST_CONNECTIONS = 200
"""Of the web server in front, at once."""

_HTML = b"text/html; charset=utf-8"
_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; padding: 12vh 1.25rem 2rem; font: 1.0625rem/1.55 system-ui, sans-serif; color: #1d2129; background: #f3f4f6; }
main { box-sizing: border-box; max-width: 30rem; margin: 0 auto; padding: 2rem; background: #fff; border-radius: .75rem;
  box-shadow: 0 1px 3px #0003; }
h1 { margin: 0 0 .75rem; font-size: 1.5rem; line-height: 1.25; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; }
p:last-child { margin: 0; }
form { margin: 1.5rem 0 0; }
button { width: 100%; padding: .8rem 1rem; border: 0; border-radius: .5rem; font: inherit; font-weight: 600; cursor: pointer;
  color: #fff; background: #1f4fd8; }
button:hover { background: #173fb0; }
button:focus-visible { outline: 3px solid #8fb0ff; outline-offset: 2px; }
@media (prefers-color-scheme: dark) {
  body { color: #e6e8ec; background: #14161a; }
  main { background: #1f2228; box-shadow: none; }
}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_ASK = """<p>Newsletters from this sender will no longer go to <strong>{address}</strong>. Mail that is about you, like receipts and
passwords, still will.</p>
<form method="post"><button>Unsubscribe</button></form>"""
_DONE = "<p>Newsletters from this sender no longer go to <strong>{address}</strong>. What is on its way already may still arrive.</p>"
_UNKNOWN = "<p>It may have been cut off where it was copied. Please use the link in the message itself.</p>"
_LATER = "<p>This could not be done right now. Please try again in a few minutes.</p>"

_log = Logger()


def _page(code: int, title: str, content: str, address: str = "") -> Answer:
    text = content.format(address=html.escape(address))
    return Answer(code, _HTML, _PAGE.format(title=html.escape(title), style=_STYLE, content=text).encode())


class UnsubscribePage(Answering):
    """Answers for every path. ``desk`` gives who does it, or None while nobody can."""

    isLeaf = True
    methods = (b"GET", b"HEAD", b"POST")
    fields: ClassVar = MappingProxyType(
        {
            b"Content-Security-Policy": (
                f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            ).encode(),
            b"Referrer-Policy": b"no-referrer",
            b"X-Robots-Tag": b"noindex",
            b"X-Content-Type-Options": b"nosniff",
        }
    )

    def __init__(self, desk: Callable[[], UnsubscribeDesk | None]) -> None:
        super().__init__()
        self._desk = desk

    def described(self, request: Any) -> str:
        """See Answering: a link is for its recipient alone."""
        return "a page to unsubscribe"

    def answer(self, request: Any) -> Answer | Coroutine[Any, Any, Answer]:
        """See Answering."""
        desk = self._desk()
        if desk is None:
            return _later()
        try:
            asked = desk.read(request.path.rpartition(b"/")[2].decode("ascii", "replace"))
        except NoLink:
            return _page(404, "This link is not known", _UNKNOWN)
        if request.method == b"POST":
            return _unsubscribed(desk, asked)
        return _page(200, "Unsubscribe?", _ASK, asked.address)


async def _unsubscribed(desk: UnsubscribeDesk, asked: Unsubscription) -> Answer:
    try:
        await desk.unsubscribe(asked)
    except NotNow:
        return _later()
    return _page(200, "You have unsubscribed", _DONE, asked.address)


def _later() -> Answer:
    return _page(503, "Please try again later", _LATER)


def make_site(desk: Callable[[], UnsubscribeDesk | None], reactor: IReactorTime) -> Bounded:
    """The pages as a factory for connections."""
    return Bounded(Site(UnsubscribePage(desk), reactor), MOST_CONNECTIONS)


def listen(reactor: Any, addresses: Iterable[HostPort], site: Bounded) -> list[IListeningPort]:
    """Answer on each of the addresses; raises CannotListen as :func:`lettermta.ops.web.listen` does."""
    return web.listen(reactor, "unsubscribe", addresses, site, _warn_of)


def _warn_of(address: HostPort) -> None:
    if not ip_address(address.host).is_loopback:
        _log.warn("[unsubscribe] listens on {address} without TLS: only a web server with TLS may get there", address=str(address))
