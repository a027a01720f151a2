"""What came back and is nothing that is known: kept in files for people to look at, the newest :data:`MOST_FILES`.

Each is a message as it came (its front, where it was long), with a field on top that says why it is here. Blocking; for a thread.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from attrs import define, field

from lettermta.message import new_id

MOST_FILES = 1_000
FIELD = "X-Lettermta-Kept:"
"""What stands on top of each."""


@define(eq=False)
class Kept:
    """The files of a folder, which is made when the first one is kept. Their names go with time, so the oldest goes first."""

    folder: Path
    most: int = MOST_FILES
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    @classmethod
    def below(cls, state_dir: Path) -> Kept:
        """What a daemon with that directory keeps."""
        return cls(state_dir / "returns")

    def keep(self, octets: bytes, why: str) -> str:
        """Keep a message durably; returns the name of its file. Raises OSError."""
        name = f"{new_id()}.eml"
        with self._lock:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(f"{FIELD} {_printable(why)}\r\n".encode() + octets)
                file.flush()
                os.fsync(descriptor)
            self._forget_oldest()
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return name

    def _forget_oldest(self) -> None:
        names = sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(".eml"))
        for name in names[: max(len(names) - self.most, 0)]:
            os.unlink(self.folder / name)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:500]
