"""A process that fills its file system: ``python -m tests.spool.filling DIRECTORY``, where DIRECTORY is on a small one of its own.

New mail comes until it is refused for the floor; then somebody else takes all that is left; then every message's outcome is recorded; then
there is space again. Prints a line for each of these steps.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from lettermta.message import State
from lettermta.spool import writer

from .hand import Desk

FLOOR = 4_194_304
BODY = b"Subject: x\r\n\r\n" + b"0123456789abcdef" * 640


def main(mounted: Path) -> None:
    writer.LOOK_SECONDS = 0.001  # so small a file system is full within a second
    desk = Desk(mounted / "0", FLOOR)
    reserve = mounted / "0" / "reserve"
    while stored(desk):
        pass
    while desk.spool.complaint() is None:
        desk.reactor.turn_once()
    print("refused", desk.spool._writer.condition.value, free(mounted) > FLOOR // 2, reserve.exists(), flush=True)
    take_all(mounted / "somebody")
    print("taken", free(mounted), flush=True)
    entries = desk.due(limit=100_000)
    for entry in entries:
        desk.record(entry, State.DELIVERED)
    print("recorded", len(entries) > 100, desk.rows(), len(desk.told) == 2 * len(entries), flush=True)
    (mounted / "somebody").unlink()
    desk.until_working()
    print("again", stored(desk), flush=True)
    desk.close()


def stored(desk: Desk) -> bool:
    try:
        desk.store(data=BODY)
    except Exception as error:
        print(type(error).__name__, flush=True)
        return False
    return True


def free(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def take_all(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        size = 65_536
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                size //= 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
