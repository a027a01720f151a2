"""``lettermta-admin returns``: what came back and is nothing known, and what a refusal or a report would be taken for."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lettermta.accounts.errors import InvalidAccount, NoSuchAccount
from lettermta.accounts.store import AccountStore
from lettermta.delivery.classes import Classifier, shows_dead_address
from lettermta.delivery.returns.kept import FIELD, Kept
from lettermta.delivery.returns.mime import parse
from lettermta.delivery.returns.recognise import recognise
from lettermta.event import timestamp
from lettermta.message import Reply
from lettermta.ops.admin.commands import Commands
from lettermta.ops.admin.printing import print_many

_REPLY = re.compile(r"([45]\d\d)[ -]\s*(.*)", re.DOTALL)


def add_commands(commands: Commands) -> None:
    """Add the verbs with their options."""
    commands.add("list", _list, "list what came back and is nothing known, the oldest first")
    show = commands.add("show", _show, "print one of them as it came")
    show.add_argument("name", metavar="NAME", help="as `list` has it")
    classify = commands.add("classify", _classify, "tell what refusals are about, by the rules that are in force at the next start")
    classify.add_argument("reply", metavar="REPLY", nargs="+", help='like "550 5.1.1 No such user"')
    recognise = commands.add("recognise", _recognise, "tell what a message that came back is")
    recognise.add_argument("file", metavar="FILE", help="a message, or the NAME of a kept one")


def _folder(args: argparse.Namespace) -> Path:
    folder: Path = Kept.below(args.settings.mta.state_dir).folder
    return folder


def _list(args: argparse.Namespace, store: AccountStore) -> None:
    print_many(args, ("name", "came", "octets", "why"), _kept(_folder(args)))


def _kept(folder: Path) -> Iterator[dict[str, object]]:
    for path in sorted(folder.glob("*.eml")) if folder.is_dir() else ():
        status = path.stat()
        with open(path, "rb") as file:
            why = file.readline().decode("utf-8", "replace").removeprefix(FIELD).strip()
        yield {"name": path.name, "came": timestamp(status.st_mtime), "octets": status.st_size, "why": why}


def _one(args: argparse.Namespace, name: str) -> bytes:
    path = _folder(args) / name
    if path.parent != _folder(args) or not path.is_file():
        raise NoSuchAccount(f"nothing of the name {name!r} is kept: `returns list` has what there is")
    return path.read_bytes()


def _show(args: argparse.Namespace, store: AccountStore) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(_one(args, args.name))


def _classify(args: argparse.Namespace, store: AccountStore) -> None:
    classifier = Classifier(args.settings.delivery.reply_classes)
    for text in args.reply:
        match = _REPLY.fullmatch(text)
        if match is None:
            raise InvalidAccount(f"{text!r} is no refusal: expected a code of 4yz or 5yz and a text, like 550 5.1.1 No such user")
        reply = Reply.parse(int(match[1]), match[2].split("\n"))
        found = classifier.classify(reply)
        dead = shows_dead_address(reply, found)
        if args.json:
            print(json.dumps({"reply": text, "classification": found, "dead_address": dead}))
        else:
            print(f"{found}{' (a dead address)' if dead else ''}")


def _recognise(args: argparse.Namespace, store: AccountStore) -> None:
    path = Path(args.file)
    octets = path.read_bytes() if path.is_file() else _one(args, args.file)
    found = recognise(parse(octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))
    told: dict[str, object] = {"kind": found.kind, "form": found.form, "reported_by": found.reporter or None}
    if found.reply is not None:
        told["reply"] = str(found.reply)
        told["classification"] = Classifier(args.settings.delivery.reply_classes).classify(found.reply)
    if found.detail:
        told["detail"] = found.detail
    print(json.dumps(told) if args.json else "\n".join(f"{name}: {value}" for name, value in told.items()))
