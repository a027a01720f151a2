"""What README and the pages name is there: pages and their headings, files, keys, metrics, commands with their options, make's targets."""

from __future__ import annotations

import argparse
import configparser
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lettermta import metrics
from lettermta.config import Config
from lettermta.ops import queue
from lettermta.ops.admin import _parser as admin_parser

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
}


def said() -> Iterator[tuple[str, int, str]]:
    """Each line of each page, with its place."""
    for page, text in PAGES.items():
        for number, line in enumerate(text.splitlines(), 1):
            yield page, number, line


@cache
def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    dead = []
    for page, number, line in said():
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                dead.append(f"{page}:{number}: {target}")
    assert dead == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", PAGES["README.md"]))
    assert sorted(set(PAGES) - linked - {"README.md", "CHANGELOG.md"}) == []


def test_files_that_are_named_are_there() -> None:
    named = re.compile(
        r"`((?:lettermta|tests|bench|etc|systemd|twisted|clients|crash|fuzz|docs)/[\w./-]+\w\.(?:py|ini|toml|md|sql|service))`"
    )
    missing = [
        f"{page}:{number}: {path}"
        for page, number, line in said()
        for path in named.findall(line)
        if "versionN" not in path and not (ROOT / path).exists()
    ]
    assert missing == []


def test_keys_that_are_named_are_there() -> None:
    sections = Config.sections()
    wrong = []
    for page, number, line in said():
        for section, key in re.findall(r"`\[([a-z]+)(?: [^\]]*)?\] ([a-z_]+)", line):
            if section in sections and key not in {each.name for each in sections[section][1].declared()}:
                wrong.append(f"{page}:{number}: [{section}] {key}")
            elif section not in sections and section not in {"throttle", "unit", "service"}:
                wrong.append(f"{page}:{number}: [{section}]")
    assert wrong == []


def test_metrics_that_are_named_are_there() -> None:
    declared = {metric.name for part in metrics.REGISTRY.parts for metric in part.declared}
    known = {name for each in declared for name in (each, *(f"{each}_{part}" for part in ("bucket", "sum", "count")))}
    wrong = [
        f"{page}:{number}: {name}"
        for page, number, line in said()
        for name in re.findall(r"\blettermta_[a-z_]+[a-z]", line)
        if name not in known
    ]
    assert wrong == []


def test_targets_of_make_that_are_named_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    wrong = [
        f"{page}:{number}: make {target}"
        for page, number, line in said()
        for target in re.findall(r"`make ([a-z-]+)", line)
        if target not in targets
    ]
    assert wrong == []


def test_make_help_tells_of_every_target_that_people_type() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.M)[0].split())
    told = set(re.findall(r'@echo "make ([a-z-]+)', makefile))
    assert sorted(targets - told - {"help"}) == []


def commands(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
    """Each command with the options that it takes."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    yield name, {option for action in parser._actions for option in action.option_strings}
    for action in below:
        for verb, its in action.choices.items():
            yield from commands(its, f"{name} {verb}")


@cache
def known_commands() -> dict[str, set[str]]:
    return dict([*commands(admin_parser(), "lettermta-admin"), *commands(queue._parser(), "lettermta-queue")])


def test_commands_and_options_that_are_named_are_there() -> None:
    known, wrong = known_commands(), []
    for page, number, line in said():
        for command in re.findall(r"(lettermta-(?:admin|queue) [^`|#;&>]*)", line):
            words = command.split()
            name, options = words[0], {word.partition("=")[0].rstrip(",]") for word in words if word.startswith("--")}
            for word in words[1:]:
                if f"{name} {word}" in known:
                    name = f"{name} {word}"
            wrong += [f"{page}:{number}: {name} {option}" for option in sorted(options) if option not in known[name]]
            if name == words[0] and re.fullmatch(r"[a-z-]+", words[1]) and words[1] != "-c":
                wrong.append(f"{page}:{number}: {command}")
    assert wrong == []


def test_ini_blocks_can_be_read() -> None:
    """Sections and keys of the examples, where they name sections."""
    sections, wrong = Config.sections(), []
    for page, text in PAGES.items():
        for block in re.findall(r"^```ini\n(.*?)^```", text, re.M | re.S):
            parser = configparser.RawConfigParser(strict=True, comment_prefixes=("#", ";"), delimiters=("=",))
            if not block.lstrip().startswith(("[", "#", ";")):
                continue  # an application's own file
            parser.read_string(block)
            for title in parser.sections():
                word = title.split()[0]
                if word == "throttle":
                    continue
                cls = sections[word][1]
                if cls.open_to() is None:
                    wrong += [f"{page}: [{title}] {key}" for key in parser[title] if key not in {each.name for each in cls.written()}]
    assert wrong == []


@pytest.mark.parametrize("name", ["mta", "dev"])
def test_comments_of_the_files_name_keys_that_are_there(name: str) -> None:
    text = (ROOT / f"etc/{name}.ini").read_text()
    sections = Config.sections()
    for section, key in re.findall(r"\[([a-z]+)\] ([a-z]+_[a-z_]+|(?:hooks|policies|validating|listen)\b)", text):
        assert key in {each.name for each in sections[section][1].declared()}, f"[{section}] {key}"
