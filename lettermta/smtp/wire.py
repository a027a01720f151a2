"""The seam between a session, which knows no sockets, and the connection that it speaks on."""

from __future__ import annotations

from zope.interface import Interface

from lettermta.smtp.patience import Turn


class IWire(Interface):
    """What a session asks of the connection it speaks on."""

    def write(data: bytes) -> None:
        """Send replies."""

    def start_tls() -> None:
        """Begin a TLS handshake as server; ``secured`` of the session is called when it is complete."""

    def close() -> None:
        """Send what was written and end the connection."""

    def pause() -> None:
        """Read no more for now."""

    def resume() -> None:
        """Read again."""

    def turn(whose: Turn) -> None:
        """From now on it is our turn, or time for a whole command or for content begins."""

    def logged_in() -> None:
        """The client has shown who it is."""
