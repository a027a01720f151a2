"""A thread that signs, beside the reactor's: an RSA signature takes longer than all else that is done for a message on its way out, and
OpenSSL makes it without Python's lock.

What has come while it was busy is done in one go and told in one call, since a call from thread to thread costs a fifth of a signature.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

MOST_AT_ONCE = 8
"""Jobs in one go: the first of them waits for the last."""

T = TypeVar("T")
_Job = tuple[Callable[..., Any], tuple[Any, ...], "Deferred[Any]"]
_Done = tuple[Callable[[Any], None], Any]


class SigningThread:
    """Runs functions one after the other, in the order in which they are asked for. The thread begins with the first one, and ends with the
    process.
    """

    def __init__(self, to_reactor: Callable[..., object]) -> None:
        self._to_reactor = to_reactor
        self._queue: SimpleQueue[_Job] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Fires, in the reactor's thread, with what the function returns; fails with what it raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="signing", daemon=True)
            self._thread.start()
        told: Deferred[T] = Deferred()
        self._queue.put((function, arguments, told))
        return told

    def _work(self) -> None:
        while True:
            done = [_done(*self._queue.get())]
            while len(done) < MOST_AT_ONCE and not self._queue.empty():
                done.append(_done(*self._queue.get()))
            self._to_reactor(_tell, done)


def _done(function: Callable[..., Any], arguments: tuple[Any, ...], told: Deferred[Any]) -> _Done:
    try:
        return told.callback, function(*arguments)
    except Exception as error:
        return told.errback, error


def _tell(done: list[_Done]) -> None:
    for tell, result in done:
        tell(result)
