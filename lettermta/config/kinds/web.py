"""Addresses in the web."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import one, optional
from lettermta.config.kinds.network import checked_host

_LONGEST = 400
_CHARACTERS = re.compile(r"[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%-]+", re.ASCII)
"""RFC 3986 section 2, without ? and #."""


def _https_url(text: str) -> str:
    """Without a slash at its end."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise Wrong(text, "is no URL") from None
    if url.scheme != "https":
        raise Wrong(text, "does not begin with https://")
    if url.username is not None:
        raise Wrong("", "has a user in its URL")
    if "?" in text or "#" in text:
        raise Wrong(text, "has a query or a fragment")
    if len(text) > _LONGEST or not _CHARACTERS.fullmatch(text):
        raise Wrong("", f"has more than {_LONGEST} characters, or some that no URL has")
    host = checked_host(url.hostname or "")
    return f"https://{f'[{host}]' if ':' in host else host}{'' if port is None else f':{port}'}{url.path.rstrip('/')}"


HTTPS_URL = optional(one(_https_url, "a URL like https://news.example.com/unsubscribe, without query and fragment"))
