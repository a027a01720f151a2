"""From a file to a :class:`~lettermta.config.schema.Config`, or to everything that is wrong with it at once."""

from __future__ import annotations

import difflib
import keyword
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from attrs import evolve, frozen

from lettermta.config.faults import ConfigError, Fault, Objection, Wrong, quoted
from lettermta.config.ini import Block, Entry, Reader
from lettermta.config.kinds import either
from lettermta.config.schema import Config
from lettermta.config.schema.declaring import Key, Section
from lettermta.config.schema.events import Hook
from lettermta.config.schema.listening import Listener, overlap
from lettermta.config.schema.receivers import Throttle
from lettermta.config.schema.submission import Policy

S = TypeVar("S", bound=Section)

_LISTED: Mapping[type[Hook | Policy], tuple[str, str]] = {Policy: ("submission", "policies"), Hook: ("events", "hooks")}
"""Where such sections are named besides: in which section before them, by which key."""
_VARIABLE = re.compile(r"\$\{([^}\n]*)(\}|$)", re.MULTILINE)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file; raises :class:`~lettermta.config.faults.ConfigError` with all that is wrong, and nothing else.

    ``${NAME}`` in a value stands for that variable of ``environ``. Besides the file, those that it names in ``[tls]`` are opened.
    """
    file = Path(path)
    reader = Reader(file)
    reader.read(_text(file))
    filling = _Filling(file, environ)
    config = filling.config(reader.blocks)
    faults = reader.faults + filling.faults
    throttles: tuple[Throttle, ...] = ()
    if config.delivery is not None and config.delivery.throttle_rules is not None:
        try:
            throttles = load_sections(config.delivery.throttle_rules, Throttle, environ)
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return evolve(config, throttles=throttles)


def load_sections(path: Path, cls: type[S], environ: Mapping[str, str] = os.environ) -> tuple[S, ...]:
    """Read a file that holds nothing but named sections of one class, in their order; raises ConfigError as :func:`load` does."""
    reader = Reader(path)
    reader.read(_text(path))
    filling = _Filling(path, environ)
    sections = filling.alone(reader.blocks, cls)
    faults = reader.faults + filling.faults
    if faults:
        raise ConfigError(faults)
    return sections


def located(file: Path, section: str, key: str, item: str | Path, problem: str, expected: str = "") -> Fault:
    """A fault that was found beyond the file, in what ``key`` names there: with the line on which ``item`` stands, if it still does.

    A path may stand there as it is or from the file's folder on.
    """
    reader = Reader(file)
    try:
        reader.read(_text(file))
    except ConfigError:
        return Fault(file, None, section, key, problem, expected)
    entry = reader.blocks.get(section, Block(section)).entries.get(key)
    if entry is None:
        return Fault(file, None, section, key, problem, expected)
    written = str(item) if str(item) in entry.text else os.path.relpath(item, file.absolute().parent)
    return Fault(file, entry.line_of(written), section, key, problem, expected)


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError([Fault(file, None, None, None, f"can't be read: {error.strerror}", "a configuration file")]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Offsets count from behind a byte order mark, which holds no line feed, so the lines are right all the same.
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Fault(file, line, None, None, "this line is not UTF-8", "text in UTF-8")]) from None


class _Unset(Exception):
    """A variable of the environment that isn't there, or not a variable at all; the text is the problem."""


@frozen
class _Filled:
    """A section with the block that it came from, for what is checked across sections."""

    section: Section
    block: Block


class _Filling:
    """Fills the schema with the values of one file and notes each fault on the way."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._folder = file.absolute().parent
        self._environ = environ

    def config(self, blocks: Mapping[str, Block]) -> Config:
        """The configuration; only to be used when there are no faults."""
        for block in blocks.values():
            self._known(block)
        values: dict[str, Any] = {}
        for word, (attribute, cls) in Config.sections().items():
            if cls.named():
                found = self._several(blocks, word, cls)
                if len(found) < cls.least:
                    self._fault(Block(f"{word} NAME"), None, "there is none of these sections", "at least one")
                filled = [each for each in found if each is not None]
                self._across(filled)
                self._used(filled, values)
                values[attribute] = tuple(each.section for each in filled)
            else:
                single = self._section(cls, blocks.get(word, Block(word)))
                values[attribute] = single.section if single is not None else None
        self._pools(blocks, values)
        return Config(path=self._file.absolute(), **values)

    def _pools(self, blocks: Mapping[str, Block], values: Mapping[str, Any]) -> None:
        """Note each name of a source or pool that there is none of."""
        sources, pools = ([each.name for each in values[which]] for which in ("sources", "pools"))
        for pool in values["pools"]:
            for name in pool.sources:
                if name not in sources:
                    self._object(blocks[f"pool {pool.name}"], [Objection("sources", "is no [source NAME]", _named(sources), name)])
        delivery = values["delivery"]
        if delivery is None or delivery.pool is None:
            return
        if delivery.pool not in pools:
            self._object(blocks["delivery"], [Objection("pool", "is no [pool NAME]", _named(pools), delivery.pool)])
        if delivery.source_addresses:
            self._object(blocks["delivery"], [Objection("pool", "there are source_addresses too", "one of both", "")])

    def alone(self, blocks: Mapping[str, Block], cls: type[S]) -> tuple[S, ...]:
        """The sections of a file that has no others."""
        word = cls.__name__.lower()
        for block in blocks.values():
            if block.name and not block.name.startswith(f"{word} "):
                self._fault(block, None, "unknown section", f"[{word} NAME]")
        return tuple(cast(S, each.section) for each in self._several(blocks, word, cls) if each is not None)

    def _several(self, blocks: Mapping[str, Block], word: str, cls: type[Section]) -> list[_Filled | None]:
        return [self._section(cls, block) for name, block in blocks.items() if name.split()[:1] == [word] and " " in name]

    def _fault(
        self, block: Block, entry: Entry | None, problem: str, expected: str, item: str | None = None, key: str | None = None
    ) -> None:
        line = entry.line_of(item) if entry is not None else block.line
        self.faults.append(Fault(self._file, line, block.name, key or (entry.key if entry is not None else None), problem, expected))

    def _known(self, block: Block) -> None:
        """Note a section that isn't in the schema; its keys can't be judged."""
        word, _, title = block.name.partition(" ")
        sections = Config.sections()
        headers = [f"{name} NAME" if cls.named() else name for name, (_, cls) in sections.items()]
        if word in sections and sections[word][1].named():
            if not title:
                self._fault(block, None, "this section has no name", f"[{word} NAME]")
        elif word not in sections:
            close = difflib.get_close_matches(word.lower(), sections, 1)
            hint = f" (did you mean [{headers[list(sections).index(close[0])]}]?)" if close else ""
            self._fault(block, None, f"unknown section{hint}", either(headers))
        elif title:
            self._fault(block, None, "there is only one such section, without a name", f"[{word}]")

    def _section(self, cls: type[Section], block: Block) -> _Filled | None:
        before = len(self.faults)
        known = [key.name for key in cls.written()]
        unknown = [entry for entry in block.entries.values() if entry.key not in known]
        rest = cls.open_to()
        values = {key.name: self._value(block, key) for key in cls.declared() if not key.rest}
        if rest is not None:
            values[rest.name] = {entry.key: self._free(block, rest, entry) for entry in unknown}
        else:
            for entry in unknown:
                self._unknown(block, entry, known)
        if len(self.faults) > before:
            return None
        section = cls(**values)
        self._object(block, section.objections())
        return _Filled(section, block)

    def _free(self, block: Block, rest: Key, entry: Entry) -> Any:
        """The value of a key that the schema doesn't know, in a section that takes such."""
        if not entry.key.isidentifier() or keyword.iskeyword(entry.key):
            self._fault(block, entry, "is not the name of an argument", "letters, digits and underscores, and no word of Python")
        return self._parse(block, rest, entry)

    def _unknown(self, block: Block, entry: Entry, names: list[str]) -> None:
        close = difflib.get_close_matches(entry.key.lower(), names, 1)
        elsewhere = [name for name, (_, cls) in Config.sections().items() if entry.key in [key.name for key in cls.written()]]
        postfix = _by_postfix(entry.key)
        if close:
            hint = f" (did you mean {close[0]}?)"
        elif elsewhere:
            hint = f" (it belongs to [{elsewhere[0]}])"
        else:
            hint = f" (what Postfix calls so is {postfix})" if postfix else ""
        self._fault(block, entry, f"unknown key{hint}", either(names))

    def _value(self, block: Block, key: Key) -> Any:
        entry = block.entries.get(key.name)
        if key.titles:
            return self._parse(block, key, Entry(key.name, block.line or 0, [(block.line or 0, block.name.partition(" ")[2])]))
        if entry is not None:
            return self._parse(block, key, entry)
        if key.default is None:
            self._fault(block, None, "this key is missing", key.kind.expected, key=key.name)
            return None
        try:
            return key.kind.parse(key.default_text(), self._folder)
        except Wrong as wrong:
            self._fault(block, None, f"{key.shown}, {quoted(wrong.item)}, {wrong.complaint}", key.kind.expected, key=key.name)
            return None

    def _parse(self, block: Block, key: Key, entry: Entry) -> Any:
        try:
            return key.kind.parse(self._expanded(entry.text), self._folder)
        except _Unset as unset:
            self._fault(block, entry, str(unset), "${NAME} with the name of a variable that is set")
        except Wrong as wrong:
            # A list with a variable in it is shown as it is written: once is enough.
            for each in (wrong, *wrong.more)[: 1 if "${" in entry.text else None]:
                self._fault(block, entry, f"{_shown(entry, each.item)}{each.complaint}", key.kind.expected, each.item)
        return None

    def _expanded(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            if not match[2] or not _VARIABLE_NAME.fullmatch(match[1]):
                raise _Unset(f"{quoted(match[0])} is not the name of a variable")
            if match[1] not in self._environ:
                raise _Unset(f"the environment variable {match[1]} is not set")
            return self._environ[match[1]]

        return _VARIABLE.sub(value, text).strip()

    def _object(self, block: Block, objections: Iterable[Objection]) -> None:
        for objection in objections:
            entry = block.entries.get(objection.key)
            shown = _shown(entry, objection.item) if entry is not None and objection.item else ""
            self._fault(block, entry, shown + objection.complaint, objection.expected, objection.item, objection.key)

    def _used(self, filled: list[_Filled], values: Mapping[str, Any]) -> None:
        """Note each section with a name that is to stand in a list, and doesn't: nobody would read it."""
        for each in filled:
            if not isinstance(each.section, Hook | Policy):
                continue
            attribute, key = _LISTED[type(each.section)]
            listed = getattr(values[attribute], key, None)
            if listed is not None and each.section.name not in listed:
                expected = either(list(listed)) if listed else "it to be named there"
                self._fault(each.block, None, f"is not named in [{attribute}] {key}", expected)

    def _across(self, filled: list[_Filled]) -> None:
        """Note each port of a listener that an earlier one has taken on the same address."""
        listeners = [(each.section, each.block) for each in filled if isinstance(each.section, Listener)]
        for number, (listener, block) in enumerate(listeners):
            for port in listener.ports:
                for other, taken in listeners[:number]:
                    if port in other.ports and any(overlap(a, b) for a in listener.addresses for b in other.addresses):
                        complaint = f"is taken by [{taken.name}] on line {taken.line}"
                        self._object(block, [Objection("ports", complaint, "each port once for an address", str(port))])
                        break


def _by_postfix(name: str) -> str | None:
    """The key that does what this parameter does in Postfix."""
    for word, (_, cls) in Config.sections().items():
        for key in cls.written():
            if name in re.findall(r"[a-z0-9_]+", key.postfix) and ("_" in name or name == key.postfix):
                return f"[{word} NAME] {key.name}" if cls.named() else f"[{word}] {key.name}"
    return None


def _named(names: list[str]) -> str:
    return either(names) if names else "such a section"


def _shown(entry: Entry, item: str) -> str:
    """What an error may show of a value: the part that is wrong, or all as it is written if some of it came from the environment."""
    shown = entry.text if "${" in entry.text else item
    return f"{quoted(shown)} " if shown else ""
