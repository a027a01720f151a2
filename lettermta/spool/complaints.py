"""What there is to complain about in a running spool: why it takes no new mail, and what was found to be damaged."""

from __future__ import annotations

from twisted.logger import Logger

from lettermta import metrics
from lettermta.spool.condition import Condition

MOST_DAMAGE = 100
"""Kinds of damage that are kept for the health check."""


class Complaints:
    """This part of ISpool."""

    log = Logger()

    def __init__(self) -> None:
        self._trouble = ""
        self._damage: list[str] = []

    def _changed(self, condition: Condition | None, why: str) -> None:
        """In the reactor's thread: the writer has another condition now, or (None) has met damage."""
        if condition is None:
            self._note_damage(why)
            return
        trouble = self._trouble = "" if condition is Condition.WORKING else f"{condition.value}: {why}"
        for known in Condition:
            metrics.SPOOL_CONDITION[known.value].set(known is condition)
        if trouble:
            self.log.error("the spool takes no new mail, it is {trouble}", trouble=trouble)
        else:
            self.log.info("the spool is working again: {why}", why=why)

    def complaint(self) -> str | None:
        """Why the spool takes no new mail, or None while it does."""
        return f"the spool takes no new mail, it is {self._trouble}" if self._trouble else None

    def damage(self) -> str | None:
        """What was found to be damaged since the start, in short, or None."""
        if not self._damage:
            return None
        more = f" (and {len(self._damage) - 1} more)" if len(self._damage) > 1 else ""
        return f"damage was found in the spool, `lettermta-queue verify` tells more: {self._damage[0]}{more}"

    def _note_damage(self, text: str) -> None:
        if text not in self._damage and len(self._damage) < MOST_DAMAGE:
            self._damage.append(text)
            self.log.error("damage in the spool: {text}", text=text)
