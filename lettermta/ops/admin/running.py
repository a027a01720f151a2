"""The reactor in a tool: it runs for one piece of work, and the tool goes on behind it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def run(work: Callable[[Any], Coroutine[Deferred[Any], Any, T]]) -> T:
    """What ``work``, given the reactor, comes to. Once in a process: a reactor can't run twice."""
    from twisted.internet import reactor

    results: list[Any] = []

    def begin() -> None:
        Deferred.fromCoroutine(work(reactor)).addBoth(results.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if not results:
        raise KeyboardInterrupt
    result: T | Failure = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
