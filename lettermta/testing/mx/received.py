"""A message as the server under test got it."""

from __future__ import annotations

from base64 import b64encode

import orjson
from attrs import frozen


@frozen
class ReceivedMessage:
    """One message as it came."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    """Dot-stuffing undone."""
    parameters: str
    """Those of MAIL, as they came."""
    helo: str
    tls: bool
    connection: int
    """The number of the connection it came by, from 1."""

    def line(self, moment: float) -> bytes:
        """The message as a line of JSON."""
        try:
            content = {"content": self.content.decode()}
        except UnicodeDecodeError:
            content = {"content_base64": b64encode(self.content).decode()}
        told = {"sender": self.sender, "recipients": self.recipients, **content, "parameters": self.parameters}
        return orjson.dumps({**told, "helo": self.helo, "tls": self.tls, "connection": self.connection, "received": moment}) + b"\n"
