"""What an operator is told who reloads a file with keys that a reload does not bring into force."""

from __future__ import annotations

from pathlib import Path

import pytest

from lettermta.config import Config, load
from lettermta.ops.reloading import from_the_next_start

BEGUN = """[mta]
hostname = mta.example.com
state_dir = state
[listener submission]
ports = 2525
[delivery]
port = 25
[dns]
servers = 192.0.2.53:53
[source one]
addresses = 192.0.2.1
[pool first]
sources = one
[limits]
recipients = 5
[events]
webhook_concurrency = 5
[shaping example.com]
connections = 3
[policy example.Policy]
secret = one
[submission]
policies = example.Policy
"""


def read(directory: Path, *changes: tuple[str, str], more: str = "") -> Config:
    """A configuration with some of its text changed."""
    text = BEGUN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = directory / "mta.ini"
    path.write_text(text + more)
    return load(path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("port = 25\n", "port = 26\nlifetime = 1d\n", ["[delivery] port", "[delivery] lifetime"]),
        ("192.0.2.53:53", "192.0.2.54:53", ["[dns] servers"]),
        ("192.0.2.1\n", "192.0.2.2\n", ["[source one] addresses"]),
        ("[pool first]", "[pool second]", ["[pool first]", "[pool second]"]),
        ("ports = 2525", "ports = 2525, 2526", ["[listener submission] ports"]),
        ("hostname = mta", "hostname = mail", ["[mta] hostname"]),
        ("secret = one", "secret = two\nmore = yes", ["[policy example.Policy] secret", "[policy example.Policy] more"]),
    ],
)
def test_a_changed_key_that_a_reload_leaves_alone_is_named_without_its_value(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    assert sorted(from_the_next_start(read(tmp_path), read(tmp_path, (old, new)))) == sorted(told)


def test_what_a_reload_brings_into_force_is_not_named(tmp_path: Path) -> None:
    changed = read(
        tmp_path,
        ("recipients = 5", "recipients = 6"),
        ("webhook_concurrency = 5", "webhook_concurrency = 6"),
        ("connections = 3", "connections = 4"),
        more="[shaping other.test]\nconnections = 1\n",
    )
    assert from_the_next_start(read(tmp_path), changed) == []
