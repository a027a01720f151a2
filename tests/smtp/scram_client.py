"""The client's side of SCRAM (RFC 5802), as little of it as the tests need, written apart from the server's."""

from __future__ import annotations

import base64
import hashlib
import hmac


class ScramClient:
    """One exchange; ``header`` is the GS2 header, ``data`` the channel's octets behind it in ``c=``."""

    def __init__(
        self, username: str, password: str, *, header: str = "n,,", data: bytes = b"", nonce: str = "fyko+d2lbbFgONRv9qkxdawL"
    ) -> None:
        self.bare = f"n={username.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self.header = header
        self.data = data
        self.password = password.encode()
        self.expected = b""

    @property
    def first(self) -> bytes:
        return (self.header + self.bare).encode()

    def final(self, server_first: bytes, *, nonce: str | None = None) -> bytes:
        """The answer to the server's first message; ``nonce`` takes the place of the right one."""
        said = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self.password, base64.b64decode(said["s"]), int(said["i"]))
        binding = base64.b64encode(self.header.encode() + self.data).decode()
        without_proof = f"c={binding},r={nonce or said['r']}"
        message = ",".join([self.bare, server_first.decode(), without_proof]).encode()
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self.expected = b"v=" + base64.b64encode(hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256"))
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()
