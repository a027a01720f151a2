"""The content of new messages that is still in memory, so that their first attempt need not read it back. Bounded in octets."""

from __future__ import annotations

from collections import OrderedDict

from lettermta.spool.content import MemoryContent


class FreshContent:
    """By the number of the message; the oldest gives way. ``octets`` are how many there are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._contents: OrderedDict[int, MemoryContent] = OrderedDict()
        self.octets = 0

    def __len__(self) -> int:
        return len(self._contents)

    def keep(self, number: int, content: MemoryContent) -> None:
        """Keep one more."""
        self._contents[number] = content
        self.octets += content.size
        while self.octets > self._limit:
            _, dropped = self._contents.popitem(last=False)
            self.octets -= dropped.size

    def get(self, number: int) -> MemoryContent | None:
        """The content, if it is still here."""
        return self._contents.get(number)

    def drop(self, number: int) -> bool:
        """Let go of it: it was attempted, or could not be stored; tells if it was here."""
        content = self._contents.pop(number, None)
        if content is not None:
            self.octets -= content.size
        return content is not None
