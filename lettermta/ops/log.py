"""The log on standard output: one line an event, cheap enough for a line at each step of each message.

Twisted's own observer takes some 15 microseconds a line, most of them for the time and the format; this one takes about three. It writes
the same form, and is used when twistd would write to standard output; ``--logfile``, ``--syslog`` and ``--logger`` are left to twistd.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEventAsClassicLogText
from twisted.python import usage
from zope.interface import implementer

_PLAIN = frozenset({LogLevel.info, LogLevel.warn})
_NAMES = {level: level.name for level in LogLevel.iterconstants()}


@implementer(ILogObserver)
class LineObserver:
    """Writes each event as a line to ``out``: time, part, level, text."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._second = 0
        self._stamp = ""

    def __call__(self, event: LogEvent) -> None:
        """See ILogObserver; never raises for an event that can't be formatted."""
        line = self._line(event) or formatEventAsClassicLogText(event)
        if line:
            self._out.write(line)
            self._out.flush()

    def _line(self, event: Mapping[str, Any]) -> str | None:
        """The line of an ordinary event; None for what carries a traceback or comes from the older logging module."""
        level = event["log_level"]
        template = event.get("log_format")
        if template is None or level not in _PLAIN or "log_failure" in event or event.get("log_system") is not None:
            return None
        try:
            text = template.format_map(event)
        except Exception:
            return None
        # One event is one line: what a peer says must not be able to forge another.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) if not text.isprintable() else text
        return f"{self._time(event['log_time'])} [{event['log_namespace']}#{_NAMES[level]}] {text}\n"

    def _time(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))
        return self._stamp


def wanted(twistd: usage.Options | None) -> bool:
    """Whether twistd was asked for nothing else than lines on standard output."""
    return bool(
        twistd is not None
        and twistd.get("nodaemon")
        and not twistd.get("logger")
        and not twistd.get("syslog")
        and twistd.get("logfile") in (None, "-")
    )
