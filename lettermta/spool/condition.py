"""What the spool can do now, and how much room its file system has (HARD-CASES row 26).

    WORKING <-> LOW -> FULL          by what is free, and by a write for which there was no room
       ^         |       |
       +---------+-------+
    any -> BROKEN -> WORKING         by a failed write or sync, and by a new connection that passed its check

Only while WORKING new mail is taken. What concerns mail that is in the spool already (what an attempt came to, how far a reader of events
is) is written in all states but BROKEN: the floor is there so that there is room for it, and where others have used that up, the reserve
is: a file that is given back to the file system.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path

LARGEST_RESERVE = 33_554_432
"""The reserve takes an eighth of the floor, and no more than this."""


class Condition(enum.Enum):
    """What is written."""

    WORKING = "working"
    """Everything."""
    LOW = "low"
    """Less is free than the floor: no new mail."""
    FULL = "full"
    """There was no room for a write: no new mail, and the reserve is given back."""
    BROKEN = "broken"
    """The disk failed a write or a sync: nothing, until a new connection has passed its check."""


class Room:
    """How much is free, looked at by the writer's thread and read by all. ``floor`` in octets; 0: no floor and no reserve."""

    def __init__(self, directory: Path, floor: int) -> None:
        self.floor = floor
        self.on_disk = 0
        """Octets that the file system has free for this user, as of the last look."""
        self.free = 0
        """Those, and the octets of the database's own free pages, which new mail goes into first: the file does not shrink by itself."""
        self._directory = directory
        self._reserve = directory / "reserve"
        self._reserve_size = min(floor // 8, LARGEST_RESERVE)
        self._above = True

    def look(self, inside: int = 0) -> bool:
        """See how much is free, ``inside`` octets of it in the database; tells whether that is enough. Once it was not, a tenth more than
        the floor is.
        """
        found = os.statvfs(self._directory)
        self.on_disk = found.f_bavail * found.f_frsize
        self.free = self.on_disk + inside
        wanted = self.floor if self._above else self.floor + self.floor // 10
        # File systems that make inodes as they need them count none at all.
        inodes = found.f_favail > 0 or found.f_files == 0
        self._above = self.free >= wanted and inodes
        return self._above

    def takes(self, size: int) -> bool:
        """Whether so much more would leave the floor free, as of the last look."""
        return self.free - size >= self.floor

    def spend(self, size: int) -> None:
        """So much is going to be written: a guess that holds until the next look."""
        self.free -= size

    def keep_reserve(self) -> None:
        """Make the reserve where it is not there; without room for it, there is none."""
        if not self._reserve_size or self.on_disk < 2 * self._reserve_size or self._reserve.exists():
            return
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._reserve_size)
        except OSError:
            self._reserve.unlink()
        finally:
            os.close(descriptor)

    def give_reserve(self) -> None:
        """Give the reserve back to the file system."""
        self._reserve.unlink(missing_ok=True)
