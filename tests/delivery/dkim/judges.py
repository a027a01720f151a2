"""Verifiers that are not ours: dkimpy, and Debian's opendkim."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import dkim

from tests.tools import need

_SAID = re.compile(r"dkim=(\w+)[^;]*? header\.a=([\w-]+)")
BOTH = ["rsa-sha256", "ed25519-sha256"]


def by_dkimpy(message: bytes, published: Mapping[str, str]) -> list[str]:
    """The algorithms whose signatures verify, from the top; a signature that doesn't is told as what it came to."""

    def txt(name: bytes, timeout: float = 0) -> bytes | None:
        return published.get(name.decode().rstrip("."), "").encode() or None

    judge = dkim.DKIM(message)
    count = sum(name.lower() == b"dkim-signature" for name, _ in judge.headers)
    told = []
    for index in range(count):
        good = dkim.DKIM(message)
        try:
            verified = good.verify(idx=index, dnsfunc=txt)
        except dkim.DKIMException as fault:
            told.append(f"{type(fault).__name__}: {fault}")
            continue
        told.append(good.signature_fields[b"a"].decode() if verified else "does not verify")
    return told


def by_opendkim(messages: Sequence[bytes], published: Mapping[str, str], directory: Path) -> list[list[str]]:
    """The same for each message, by one run of opendkim's test mode, which verifies both algorithms."""
    program = need("opendkim", "opendkim")
    keys, settings = directory / "keys", directory / "opendkim.conf"
    keys.write_text("".join(f"{name} {text}\n" for name, text in published.items() if "._domainkey." in name))
    settings.write_text(f"Mode v\nTestDNSData file:{keys}\n")
    names = []
    for number, message in enumerate(messages):
        names.append(str(number))
        (directory / names[-1]).write_bytes(message)
    command = [program, "-x", str(settings), "-t", ",".join(names), "-vvv"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    headers = done.stdout.split("### INSHEADER: ")[1:]
    assert len(headers) == len(messages), (done.stdout[-2000:], done.stderr[-2000:])
    return [[f"{algorithm}" if said == "pass" else said for said, algorithm in _SAID.findall(header)] for header in headers]
