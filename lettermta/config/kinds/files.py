"""Paths, and the files that are opened as the configuration is read."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificates

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import LISTED, Kind, each_of, listed, optional
from lettermta.config.reply_rules import BadRules, ReplyRule, reply_rules


def _path(text: str, folder: Path) -> Path:
    if not text:
        raise Wrong("", "is empty")
    if "\0" in text:
        raise Wrong(text, "has a NUL in it, as no path can")
    path = folder / text
    # Symbolic links stay, so that what they point to may change; but ".." is only right on the real folders.
    return path.resolve() if ".." in path.parts else path


def _files(text: str, folder: Path) -> tuple[Path, ...]:
    return each_of(listed(text), lambda item: _file(item, folder))


def _file(item: str, folder: Path) -> Path:
    path = _path(item, folder)
    try:
        if not path.is_file() and path.exists():
            raise Wrong(item, "is not a file")
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        raise Wrong(item, f"can't be read: {error.strerror}") from None
    return path


def _authorities(text: str, folder: Path) -> Path:
    path = _path(text, folder)
    try:
        load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Wrong(text, f"can't be read: {error.strerror}") from None
    except ValueError as error:
        raise Wrong(text, f"has no certificates in it, or broken ones: {error}") from None
    return path


def _reply_rules(text: str, folder: Path) -> tuple[ReplyRule, ...]:
    if not text:
        return ()
    try:
        return reply_rules(_path(text, folder).read_text("utf-8"))
    except OSError as error:
        raise Wrong(text, f"can't be read: {error.strerror}") from None
    except (BadRules, UnicodeDecodeError) as error:
        raise Wrong(text, f"has faults: {'; '.join(str(error).splitlines())}") from None


def _readable(text: str, folder: Path) -> Path:
    files = _files(text, folder)
    if len(files) != 1:
        raise Wrong(text, "is not one file")
    return files[0]


PATH = Kind(_path, "the path of a folder")
FILE = optional(Kind(_path, "the path of a file"))
AUTHORITIES = optional(Kind(_authorities, "the path of a file of certificates in PEM"))
READABLE_FILE = Kind(_readable, "the path of a file that lettermta can read")
FILES = Kind(_files, f"paths of files that lettermta can read, {LISTED}")
REPLY_RULES = Kind(_reply_rules, "the path of a file of rules (inbound.md)")
