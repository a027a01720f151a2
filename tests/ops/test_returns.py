"""``lettermta-admin returns``: what is kept, and what replies and messages would be taken for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lettermta.delivery.returns.kept import Kept
from lettermta.ops import admin
from tests.delivery.returns.test_recognise import MAIL, octets

CONFIG = """\
[mta]
state_dir = state
[delivery]
reply_classes = mine.toml
[listener a]
ports = 2525
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text('[[rule]]\nclass = "inactive_recipient"\ntexts = ["left the * building"]\n')
    config = tmp_path / "mta.ini"
    config.write_text(CONFIG)
    return config


def run(config: Path, *argv: str) -> int:
    return admin.main(["returns", *argv, "-c", str(config)])


def test_what_is_kept_is_listed_and_shown_as_it_came(config: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(config, "list", "--json") == 0
    assert capfdbinary.readouterr().out == b""
    name = Kept.below(config.parent / "state").keep(octets("person"), "for message 1\x1b[2J")
    assert run(config, "list", "--json") == 0
    [listed] = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert (listed["name"], listed["why"]) == (name, "for message 1?[2J")
    assert listed["came"].endswith("Z")
    assert run(config, "show", name) == 0
    assert capfdbinary.readouterr().out == b"X-Lettermta-Kept: for message 1?[2J\r\n" + octets("person")


@pytest.mark.parametrize("name", ["none.eml", "../accounts.db", "/etc/passwd", ""])
def test_only_what_is_kept_is_shown(config: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "show", name) == 67
    assert "nothing of the name" in capsys.readouterr().err


def test_replies_are_classified_by_the_rules_of_the_configuration(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "classify", "550 5.1.1 No such user", "550 She left the old\nbuilding", "451 4.7.1 Greylisted") == 0
    assert capsys.readouterr().out.splitlines() == ["invalid_recipient (a dead address)", "inactive_recipient (a dead address)", "rate"]
    assert run(config, "classify", "--json", "550 Spamhaus") == 0
    told = {"reply": "550 Spamhaus", "classification": "reputation", "dead_address": False}
    assert json.loads(capsys.readouterr().out) == told
    assert run(config, "classify", "--json", "450 4.1.1 No such user", "550 4.1.1 No such user") == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["classification"], row["dead_address"]) for row in told] == [("invalid_recipient", False)] * 2, "for now is not for good"
    assert run(config, "classify", "250 OK") == 65


def test_a_message_is_recognised_from_a_file_or_by_its_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "recognise", "--json", str(MAIL / "qmail.eml")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["form"], told["classification"]) == ("failed", "qmail", "invalid_recipient")
    name = Kept.below(config.parent / "state").keep(octets("complaint"), "no return path in it")
    assert run(config, "recognise", name) == 0
    assert "kind: complaint" in capsys.readouterr().out.splitlines()
