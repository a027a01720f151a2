"""The command line of one noun: its verbs, each a function that the chosen one's arguments and the accounts are handed to.

A verb prints what it did and raises AccountError, :class:`~lettermta.ops.admin.given.Misused` or
:class:`~lettermta.ops.admin.given.Declined`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from lettermta.accounts.store import AccountStore
from lettermta.ops.command_line import Parser

Verb = Callable[[argparse.Namespace, AccountStore], None]


class Commands:
    """The verbs of one noun."""

    def __init__(self, nouns: argparse._SubParsersAction[Parser], noun: str, words: str, common: Parser) -> None:
        self._common = common
        self._verbs = nouns.add_parser(noun, help=words, description=words, parents=[common], allow_abbrev=False).add_subparsers(
            required=True, metavar="VERB", dest="action"
        )

    def add(self, name: str, verb: Verb, words: str) -> Parser:
        """A verb; what it takes is to be added to the parser."""
        command: Parser = self._verbs.add_parser(name, help=words, description=words, parents=[self._common], allow_abbrev=False)
        command.set_defaults(verb=verb)
        return command

    def add_delete(self, verb: Verb, words: str) -> Parser:
        """The verb ``delete``, with the option that :func:`~lettermta.ops.admin.given.confirm` reads."""
        command = self.add("delete", verb, words)
        command.add_argument("--yes", action="store_true", help="don't ask")
        return command
