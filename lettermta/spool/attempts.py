"""Attempts as they are kept: a row for each recipient, with what of the dialogue is about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from lettermta.message import Attempt, Outcome

_RCPT = "RCPT TO:<"

Row = tuple[Any, ...]


def rows_of(identifier: str, outcomes: Sequence[Outcome], attempt: Attempt) -> Iterator[Row]:
    """The rows of an attempt of the message ``identifier``."""
    details = attempt.details
    shared = orjson.dumps(details).decode() if len(outcomes) == 1 or "dialogue" not in details else None
    parts = None if shared is not None else _Parts(details)
    for outcome in outcomes:
        one = outcome.recipient
        told = parts.of(one.address) if parts is not None else shared
        yield (
            identifier, one.number, one.attempts + 1, one.address, attempt.moment, attempt.seconds, attempt.via, outcome.state.value,
            outcome.reply, told,
        )  # fmt: skip


class _Parts:
    """The details of an attempt for several recipients: each gets what is about all of them, and its own RCPT."""

    def __init__(self, details: Mapping[str, object]) -> None:
        self._details = details
        dialogue: Any = details["dialogue"]
        self._own: dict[str, list[object]] = {}
        self._before: list[object] = []
        self._behind: list[object] = []
        for exchange in dialogue:
            said = exchange["said"] or ""
            if said.startswith(_RCPT):
                self._own.setdefault(said[len(_RCPT) :].partition(">")[0], []).append(exchange)
            else:
                (self._behind if self._own else self._before).append(exchange)

    def of(self, address: str) -> str:
        """The details for one recipient, as JSON."""
        dialogue = [*self._before, *self._own.get(address, ()), *self._behind]
        return orjson.dumps({**self._details, "dialogue": dialogue}).decode()
