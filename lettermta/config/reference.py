"""The two pages that follow from the schema: ``etc/mta.ini`` and ``docs/configuration.md``. A test holds the files to what is said here."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

from attrs import frozen

from lettermta.config.schema import Config
from lettermta.config.schema.declaring import Key, Section

_WIDTH = 110

_INI_HEAD = """\
# lettermta in production. It starts as it is where lettermta may listen on these ports and write state_dir;
# for a first try without such rights take etc/dev.ini.
#
# "#key = value" shows a key and its default: take the # away and change the value. (Only hostname has none
# that could be shown.) What is not in the file has its default, so one [listener NAME] with its ports would do.
# A file with faults is refused at start, with a line for each of them. To see them without starting:
#
#     lettermta-admin check-config -c FILE
#
# docs/configuration.md says how the file is read, and more about each key.
"""

_MARKDOWN_HEAD = """\
# The configuration file

`twistd -n lettermta -c FILE` reads one file. [`etc/mta.ini`](../etc/mta.ini) is a production file with every key, its default and a line
of comment; [`etc/dev.ini`](../etc/dev.ini) is for trying things on your own machine. Both pages, this one and `etc/mta.ini`, are printed by
`python -m lettermta.config markdown` and `ini`, from the schema that the daemon itself reads by. Projects, routes, tokens and webhooks are
not here: `lettermta-admin` keeps them in a database under `state_dir`.

## How it is read

```ini
# A comment is a whole line that begins with # or ;
[delivery]
lifetime = 2d
schedule = 5m, 15m, 1h
  2h 4h
relayhost = ${RELAY}
```

- **Comments** are whole lines only: behind a value, `#` and `;` belong to the value.
- **Lists** are separated by commas, blanks or line ends. An indented line continues the value above it, and so a key or section never is
  indented. A path with a blank in it can't stand in a list.
- **Durations** are a number with its unit: `500ms`, `30s`, `5m`, `4h`, `5d`. **Sizes** are octets, or a number with `KB`, `MB` or `GB`,
  which count by 1024: `25MB` is 26214400.
- **`${NAME}`** in a value stands for that environment variable, which must be set, also for the tools: they read the same file. Its
  content is never shown in an error.
- **Relative paths** start from the folder of the file.
- **Names** of sections and keys are in lower case. Nothing is ignored: what is unknown, double, missing or malformed, in whatever section,
  keeps lettermta from starting. Every fault is listed at once with file, line, section, key and what was expected; then those of
  certificates, and of hooks and policies (which `check-config` loads and doesn't make):

```
$ lettermta-admin check-config -c etc/mta.ini
etc/mta.ini:12: [listener smtp] ports: '70000' is not a port; expected numbers from 1 to 65535, separated by commas or blanks
etc/mta.ini:20: [dns] server: unknown key (did you mean servers?); expected servers, timeout, cache_entries or validating
etc/mta.ini:24: [delivery] lifetime: '5' has no unit; expected a number with its unit: 500ms, 30s, 5m, 4h, 5d
```

Each key is given with its default in parentheses, as in postconf(5); where Postfix has a parameter for the same, its name is added.
"""


@frozen
class _Instance:
    """A named section that the production file has; ``values`` are the keys that it sets."""

    title: str
    why: str
    values: dict[str, str]


_INSTANCES = {
    "listener": (
        _Instance("smtp", "Port 25, for applications that know no other.", {"ports": "25", "security": "starttls"}),
        _Instance(
            "submission",
            "The submission port (RFC 6409) and its usual stand-ins for networks that block it.",
            {"ports": "587, 2525, 2587", "security": "starttls"},
        ),
        _Instance("submissions", "Submission with TLS from the first byte (RFC 8314).", {"ports": "465", "security": "tls"}),
        _Instance(
            "either",
            "Services disagree about 2465: here STARTTLS and TLS from the first byte both work on it.",
            {"ports": "2465", "security": "auto"},
        ),
    )
}
"""What the production file has of each named section; the first shows every key."""

_WRITTEN = {"mta": {"state_dir"}}
"""Keys that the production file sets to their default: what every operator should have seen."""


def reference_ini() -> str:
    """The text of ``etc/mta.ini``."""
    parts = [_INI_HEAD]
    for word, (_, cls) in Config.sections().items():
        if cls.named() and word not in _INSTANCES:
            parts.append("\n".join(["", *_comment(f"[{word} NAME]: {_doc(cls)}"), *_ini_example(cls, word), ""]))
        elif cls.named():
            parts += [_ini_named(cls, word, number, instance) for number, instance in enumerate(_INSTANCES[word])]
        else:
            written = {key.name: _default(key) for key in cls.written() if key.name in _WRITTEN.get(word, ())}
            parts.append("\n".join([f"\n[{word}]", *_comment(_doc(cls)), "", *_ini_keys(cls, written)]))
    return "\n".join(parts)


def _ini_named(cls: type[Section], word: str, number: int, instance: _Instance) -> str:
    header = f"\n[{word} {instance.title}]"
    if number:
        return "\n".join([header, *_comment(instance.why), *(f"{name} = {value}" for name, value in instance.values.items())]) + "\n"
    return "\n".join([header, *_comment(_doc(cls)), "#", *_comment(instance.why), "", *_ini_keys(cls, instance.values)])


def _ini_example(cls: type[Section], word: str) -> Iterator[str]:
    """A section that the file need not have, as a comment: without a name of its own it can't be there."""
    title = next(key for key in cls.declared() if key.titles)
    yield f"#\n#     [{word} {title.example or 'NAME'}]"
    for key in cls.declared():
        if key.rest:
            yield f"#     {key.example}"
        elif not key.titles:
            yield f"#     {key.name} = {key.example or _default(key)}"


def _ini_keys(cls: type[Section], written: dict[str, str]) -> Iterator[str]:
    for key in cls.written():
        yield from _comment(_ini_doc(key))
        if key.name in written:
            yield f"{key.name} = {written[key.name]}\n"
        else:
            yield f"#{key.name} = {key.example if callable(key.default) else _default(key)}".rstrip() + "\n"


def _ini_doc(key: Key) -> str:
    default = f" Default: {key.shown}." if key.shown else ""
    example = f" Example: {key.example}" if key.example and not callable(key.default) else ""
    return key.doc + default + example


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def reference_markdown() -> str:
    """The text of ``docs/configuration.md``."""
    parts = [_MARKDOWN_HEAD]
    for word, (_, cls) in Config.sections().items():
        parts.append(f"## [{word} NAME]\n" if cls.named() else f"## [{word}]\n")
        parts.append(f"{_paragraph(_doc(cls))}\n")
        parts += map(_markdown_key, cls.declared())
    return "\n".join(parts)


def _markdown_key(key: Key) -> str:
    if key.rest:
        return f"### Any other key\n\n{_paragraph(key.doc)}\n\n*Takes text. Example: `{key.example}`.*\n"
    if key.titles:
        heading = "### NAME (required)"
    elif key.default is None:
        heading = f"### {key.name} (required)"
    else:
        default = key.shown or (f"`{_default(key)}`" if _default(key) else "nothing")
        heading = f"### {key.name} (default: {default})"
    facts = [f"Takes {key.kind.expected}."]
    if key.example:
        facts.append(f"Example: `{key.name} = {key.example}`.")
    if key.postfix:
        facts.append(f"Postfix: {key.postfix}.")
    return f"{heading}\n\n{_paragraph(key.doc)}\n\n{_paragraph('*' + ' '.join(facts) + '*')}\n"


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 140, break_long_words=False, break_on_hyphens=False)


def _default(key: Key) -> str:
    return key.default if isinstance(key.default, str) else ""


def _doc(cls: type[Section]) -> str:
    return " ".join((inspect.getdoc(cls) or "").split())
