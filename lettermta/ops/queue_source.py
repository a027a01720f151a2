"""Where ``lettermta-queue`` looks and works: the daemon through its control socket, or the spool's files while no daemon runs.

Both are asked the same way and answer in the same rows; what only a daemon can do raises :class:`NeedsDaemon` on the files.
"""

from __future__ import annotations

import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from lettermta.message import Change, Operation
from lettermta.ops.control import PAGE, SOCKET
from lettermta.ops.operations import DESTINATION, STEP, NoSuch, change_of, rule_row
from lettermta.ops.suppressing import asked_for, reason_of, scope_of, suppression_row
from lettermta.spool.event_queries import event_row
from lettermta.spool.offline import Offline

Row = Mapping[str, Any]


class DaemonFault(Exception):
    """The daemon answered by an error."""


class NeedsDaemon(Exception):
    """This can't be done on the files alone."""


class Source(Protocol):
    """Where the tool looks and works."""

    def ask(self, verb: str, **request: Any) -> Iterator[Row]:
        """The rows that answer a request of the control socket (see :mod:`lettermta.ops.control`)."""

    def recipients(self, filters: Row) -> Iterator[Row]:
        """One row a recipient."""

    def message(self, identifier: str) -> Row | None:
        """All of one message."""


class Daemon:
    """A running daemon, asked through its control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def recipients(self, filters: Row) -> Iterator[Row]:
        """See Source."""
        return self.ask("list", filters=filters)

    def message(self, identifier: str) -> Row | None:
        """See Source."""
        return next(self.ask("show", id=identifier), None)

    def ask(self, verb: str, **request: Any) -> Iterator[Row]:
        """See Source; raises DaemonFault, NoSuch."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
            daemon.connect(str(self._path))
            daemon.sendall(orjson.dumps({"verb": verb, **request}) + b"\n")
            with daemon.makefile("rb") as answer:
                for line in answer:
                    row = orjson.loads(line)
                    if row.get("end") is True:
                        return
                    if "error" in row:
                        raise (NoSuch if row.get("no_such") else DaemonFault)(row["error"])
                    yield row
        raise DaemonFault("the daemon went away in the middle of its answer")


class Files:
    """The spool's files, while no daemon runs."""

    def __init__(self, spool: Offline) -> None:
        self._spool = spool
        self._verbs: Mapping[str, Callable[..., Iterator[Row]]] = {
            "list": self.recipients,
            "show": self._show,
            "count": self._count,
            "change": self._change,
            "rules": lambda: map(rule_row, self._spool.hold_rules()),
            "add_rule": self._add_rule,
            "drop_rule": self._drop_rule,
            "trace": lambda id: iter(self._spool.trace(id)),
            "content": self._content,
            "stats": self._stats,
            "daily": lambda by, since, project: iter(self._spool.daily(by, since, project)),
            "events": self._events,
            "suppressions": self._suppressions,
            "suppress": self._suppress,
            "unsuppress": self._unsuppress,
        }

    def ask(self, verb: str, **request: Any) -> Iterator[Row]:
        """See Source; raises NeedsDaemon."""
        return self._verbs[verb](**request)

    def recipients(self, filters: Row) -> Iterator[Row]:
        """See Source."""
        after = 0
        while rows := self._spool.query(filters, after, PAGE):
            yield from rows
            if len(rows) < PAGE:
                return
            after = rows[-1]["number"]

    def message(self, identifier: str) -> Row | None:
        """See Source."""
        return self._spool.message(identifier)

    def _show(self, id: str) -> Iterator[Row]:
        shown = self.message(id)
        return iter(() if shown is None else (shown,))

    def _stats(self, by: str, filters: Row) -> Iterator[Row]:
        if by == DESTINATION:
            # Which domains share their hosts is known to delivery alone.
            return ({by: row.pop("domain"), **row} for row in map(dict, self._spool.figures("domain", filters)))
        return iter(self._spool.figures(by, filters))

    def _content(self, id: str) -> Iterator[Row]:
        try:
            for piece in self._spool.content(id):
                yield {"octets": b64encode(piece).decode()}
        except LookupError as fault:
            yield {"damaged": str(fault)}

    def _events(self, filters: Row, after: int = 0, follow: bool = False) -> Iterator[Row]:
        if follow:
            raise NeedsDaemon("new events are made by a daemon")
        while found := self._spool.find_events(filters, after, PAGE):
            for sequence, event in found:
                yield event_row(sequence, event)
            after = found[-1][0]

    def _count(self, **request: Any) -> Iterator[Row]:
        yield {"count": self._spool.count(_change_offline(request), request["filters"])}

    def _change(self, **request: Any) -> Iterator[Row]:
        for count in self._spool.steps(_change_offline(request), request["filters"], STEP):
            yield {"changed": count}

    def _suppressions(self, filters: Mapping[str, str]) -> Iterator[Row]:
        after = 0
        while found := self._spool.suppressions(filters, after, PAGE):
            for _, one in found:
                yield suppression_row(one)
            after = found[-1][0]

    def _suppress(self, told: bool, **request: Any) -> Iterator[Row]:
        yield {"added": len(self._spool.suppress(asked_for(request, time.time()), told=told))}

    def _unsuppress(self, value: str, scope: Row, reason: str | None) -> Iterator[Row]:
        removed = self._spool.unsuppress(value, scope_of(scope), reason_of({"reason": reason}), time.time())
        return map(suppression_row, removed)

    def _add_rule(self, conditions: Mapping[str, str], reason: str) -> Iterator[Row]:
        yield rule_row(self._spool.add_hold_rule(conditions, reason, time.time()))

    def _drop_rule(self, id: int) -> Iterator[Row]:
        yield {"dropped": self._spool.drop_hold_rule(id)}


def _change_offline(request: Row) -> Change:
    if request["operation"] not in (Operation.HOLD, Operation.RELEASE, Operation.REMOVE):
        raise NeedsDaemon(f"{request['operation']} is the work of delivery")
    return change_of(request, time.time())


def source(state_dir: Path) -> Source:
    """The daemon if it answers, else the files; raises FileNotFoundError when there is neither."""
    path = state_dir / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
        return Daemon(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    return Files(Offline(files(state_dir)))


def files(state_dir: Path) -> Path:
    """The directory of the spool's files; raises FileNotFoundError when there are none."""
    directory = state_dir / "spool" / "0"
    if not (directory / "spool.db").exists():
        raise FileNotFoundError(f"{directory / 'spool.db'}: there is no spool yet: the daemon makes it at its first start")
    return directory
