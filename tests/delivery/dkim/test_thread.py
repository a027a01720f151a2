"""The thread that signs: in order, in goes, with failures told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.python.failure import Failure

from lettermta.delivery.dkim.thread import MOST_AT_ONCE, SigningThread

PATIENCE = 20.0
Call = tuple[Callable[..., object], tuple[Any, ...]]


class Place:
    """A thread, and what it calls the reactor for."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Call] = SimpleQueue()
        self.told: list[object] = []
        self.thread = SigningThread(lambda function, *arguments: self.calls.put((function, arguments)))

    def ask(self, function: Callable[..., object], *arguments: object) -> None:
        self.thread.run(function, *arguments).addBoth(self.told.append)

    def call(self) -> int:
        """Do the next call; returns how much was told by it."""
        before = len(self.told)
        function, arguments = self.calls.get(timeout=PATIENCE)
        function(*arguments)
        return len(self.told) - before


def test_what_comes_while_it_is_busy_is_told_in_few_calls_and_in_order() -> None:
    place = Place()
    began, go_on = threading.Event(), threading.Event()

    def first() -> int:
        began.set()
        go_on.wait(PATIENCE)
        return 0

    place.ask(first)
    assert began.wait(PATIENCE)
    for number in range(1, MOST_AT_ONCE + 3):
        place.ask(lambda number=number: number)
    go_on.set()
    assert [place.call(), place.call()] == [MOST_AT_ONCE, 3]
    assert place.told == list(range(MOST_AT_ONCE + 3))


def test_it_is_another_thread_and_outlives_what_fails() -> None:
    place = Place()
    place.ask(lambda: 1 // 0)
    place.call()
    place.ask(threading.get_ident)
    place.call()
    failure, thread = place.told
    assert isinstance(failure, Failure)
    assert failure.check(ZeroDivisionError)
    assert thread != threading.get_ident()
