"""A DNS server for domains that have an MX host of their own each, on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SENDING = """
[delivery]
port = {sink}
allow_networks = 127.0.0.0/8
[dns]
servers = 127.0.0.1:{dns}
"""
"""The daemon's configuration, to send by MX with these names."""
ALIVE = "127.0.0.1"
DEAD = "127.0.0.2"
"""An address at which nobody listens: connections are refused."""


@contextmanager
def names(hosts: Mapping[str, str], directory: Path) -> Iterator[int]:
    """Answers for domains by the address of their hosts; gives the port. ``directory`` takes the zone."""
    zone: dict[str, object] = {}
    for domain, address in hosts.items():
        zone[domain] = {"MX": [[10, f"mx.{domain}."]]}
        zone[f"mx.{domain}"] = {"A": [address]}
    (directory / "zone.json").write_text(json.dumps(zone))
    command = [sys.executable, "-m", "lettermta.testing.dns", "--port", "0", "--zone", str(directory / "zone.json")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield int(server.stdout.readline().split()[1])
    finally:
        server.terminate()
        server.wait()
