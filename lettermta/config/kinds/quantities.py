"""Numbers, times, sizes, and yes or no. Sizes are octets, durations are seconds."""

from __future__ import annotations

import re
from datetime import date

from attrs import frozen

from lettermta.config.faults import Wrong
from lettermta.config.kinds.kind import one, several

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400

_SIZE = re.compile(r"(\d{1,15})(|KB|MB|GB)", re.ASCII)
_OCTETS = {"": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}

_RATE = re.compile(r"(\d{1,9})/([smh])", re.ASCII)

_WORDS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


@frozen
class Rate:
    """So many in so many seconds. Its ``str()`` is what the file takes: ``100/m``."""

    number: int
    unit: str

    @property
    def seconds(self) -> float:
        """The time that the number is for."""
        return _SECONDS[self.unit]

    def __str__(self) -> str:
        return f"{self.number}/{self.unit}"


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) < 1:
        raise Wrong(text, "is not a number from 1 on")
    return int(text)


def _workers(text: str) -> int:
    if text == "auto" or (_NUMBER.fullmatch(text) and text != "1"):
        raise Wrong(text, "does not work yet: lettermta runs in one process as of now")
    if text != "1":
        raise Wrong(text, "is not a number")
    return 1


def _boolean(text: str) -> bool:
    if text not in _WORDS:
        raise Wrong(text, "is neither yes nor no")
    return _WORDS[text]


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Wrong(text, "has no unit" if _NUMBER.fullmatch(text) else "is not a duration")
    seconds = float(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= _LONGEST:
        raise Wrong(text, "is more than a year" if seconds else "is no time at all")
    return seconds


def _pause(text: str) -> float:
    return 0.0 if text == "0s" else _duration(text)


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise Wrong(text, "is not a size")
    return int(match[1]) * _OCTETS[match[2]]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Wrong(text, "is not a date") from None


def _rate(text: str) -> Rate:
    match = _RATE.fullmatch(text.replace(" ", ""))
    if match is None or not int(match[1]):
        raise Wrong(text, "is not a rate")
    return Rate(int(match[1]), match[2])


NUMBER = one(_number, "a number from 1 on")
WORKERS = one(_workers, "1")
BOOLEAN = one(_boolean, "yes or no")
DURATION = one(_duration, "a number with its unit: 500ms, 30s, 5m, 4h, 5d")
PAUSE = one(_pause, "a number with its unit like 30s, 5m, 4h, or 0s")
DURATIONS = several(_duration, "durations like 5m or 4h", least=1, repeats=True)
SIZE = one(_size, "a number of octets, or one with its unit: 10KB, 25MB, 1GB")
PLAN = several(_number, "numbers of messages", least=1, repeats=True)
DAY = one(_day, "a date like 2026-12-31")
RATE = one(_rate, "a number of messages in a second, minute or hour: 10/s, 100/m, 5000/h")
