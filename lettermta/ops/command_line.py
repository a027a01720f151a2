"""What the command-line tools have in common: the parser's manners, where the configuration is, words to the operator."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

DEFAULT_CONFIG = "/etc/lettermta/mta.ini"


class Parser(argparse.ArgumentParser):
    """Exits by sysexits; options can't be abbreviated, so that a later one doesn't change what a script means."""

    def error(self, message: str) -> NoReturn:
        """A wrong command line: usage and reason on standard error, exit 64."""
        self.print_usage(sys.stderr)
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n")


def config_path(given: str | None) -> Path:
    """The configuration to use: the one given by ``-c``, else ``$LETTERMTA_CONFIG``, else the system's."""
    return Path(given or os.environ.get("LETTERMTA_CONFIG") or DEFAULT_CONFIG)


def open_streams() -> None:
    """Have all three standard streams, whoever started us without: what is opened next must not come to stand in for one of them."""
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, mode))


def say(words: str) -> None:
    """Words to the operator, beside what the tool gives out."""
    print(words, file=sys.stderr)


def reader_left() -> int:
    """Exit well when the reader of our output has seen enough: nothing may be written there any more, at exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return os.EX_OK
