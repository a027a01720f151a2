"""A spool that is filled as submission would fill it, while its daemon is down."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from bench.daemon import Daemon
from lettermta.event import CREATED, message_event
from lettermta.message import Message, Recipient, new_id
from lettermta.spool.store import Spool
from tests.spool.hand import HandReactor

IN_FLIGHT = 2000
"""Messages under way at once, so that each commit has many."""


@frozen
class Sender:
    """The project and the route that the messages are of."""

    project_id: str
    project: str
    route_id: str
    route: str

    @classmethod
    def of(cls, daemon: Daemon, project: str = "bench", route: str = "outgoing") -> Sender:
        """As the daemon's accounts have them."""
        project_id = json.loads(daemon.admin("project", "show", project, "--json"))["id"]
        return cls(project_id, project, json.loads(daemon.admin("route", "show", "--project", project, route, "--json"))["id"], route)


def fill(state: Path, sender: Sender, recipients: Iterable[str], size: int) -> float:
    """Store a message for each recipient, all of them due; returns messages per second."""
    reactor = HandReactor()
    spool = Spool(state / "spool" / "0", reactor)  # type: ignore[arg-type]
    spool.open()
    data = _content(size)
    under_way = stored = 0

    def done(_: object) -> None:
        nonlocal under_way, stored
        under_way -= 1
        stored += 1

    began, now = time.monotonic(), time.time()
    for number, recipient in enumerate(recipients):
        content = spool.content()
        content.write(data)
        message = _message(sender, recipient, number, content, now)
        spool.store(message, [message_event(CREATED, now, message.id, message.facts, message.context)]).addCallback(done)
        under_way += 1
        while under_way > IN_FLIGHT:
            reactor.turn_once()
    while under_way:
        reactor.turn_once()
    reactor.wait(spool.close())
    return stored / (time.monotonic() - began)


def _content(size: int) -> bytes:
    head = b"From: sender@source.example\r\nTo: recipient@destination.example\r\nSubject: deep\r\n\r\n"
    line = b"All is well, and there is more of it.\r\n"
    return head + (line * (size // len(line) + 1))[: size - len(head) - 2] + b"\r\n"


def _message(sender: Sender, recipient: str, number: int, content: object, now: float) -> Message:
    identifier = new_id()
    tag, order = f"tag-{number % 7}", str(number)
    facts = b'{"message_id":"%b","subject":"deep","metadata":{"order":"%b"},"tag":"%b","tags":[],"headers":[]}' % (
        identifier.encode(),
        order.encode(),
        tag.encode(),
    )
    context = b'{"scope":"project","project":"%b","route":"%b"}' % (sender.project.encode(), sender.route.encode())
    return Message(
        id=identifier,
        project_id=sender.project_id,
        project=sender.project,
        route_id=sender.route_id,
        route=sender.route,
        sender="sender@source.example",
        recipients=(Recipient(recipient),),
        tag=tag,
        metadata={"order": order},
        head=content.head(),  # type: ignore[attr-defined]
        content=content,
        size=content.size,  # type: ignore[attr-defined]
        created=now,
        expires=now + 432_000.0,
        facts=facts,
        context=context,
    )
