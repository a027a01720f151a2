"""A process that stores messages until it is killed, or until its disk is full; prints what it was promised, a line each.

``python -m tests.spool.storing DIRECTORY`` prints the id of each message whose Deferred has fired. With ``full OCTETS`` no file may grow
beyond that; it prints ``stored`` or ``refused`` for each of three phases: until the first refusal, while full, and with space again.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from .hand import SMALL, Desk, large


def until_killed(desk: Desk) -> None:
    number = 0
    while True:
        batch = [desk.message(data=large() if number % 5 == 4 else SMALL) for _ in range(3)]
        for message, stored in [(message, desk.storing(message)) for message in batch]:
            desk.reactor.wait(stored)
            print(message.id, flush=True)
            number += 1


def until_full(desk: Desk, octets: int) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, unlimited[1]))
    said = ""
    while said != "refused":
        said = attempt(desk, SMALL * 500)
        print("filling", said, flush=True)
    for _ in range(3):
        print("full", attempt(desk, SMALL * 500), flush=True)
        print("full", attempt(desk, large(octets + 400_000)), flush=True)
    print("read", len(desk.rows()), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    desk.until_working()
    for data in (SMALL, large(octets + 400_000)):
        print("again", attempt(desk, data), flush=True)
    desk.close()
    print("closed", flush=True)


def attempt(desk: Desk, data: bytes) -> str:
    content = None
    try:
        message = desk.message(data=data)
        content = message.content
        desk.reactor.wait(desk.storing(message))
    except Exception:
        if content is not None:
            content.discard()  # type: ignore[attr-defined]
        return "refused"
    return "stored"


if __name__ == "__main__":
    opened = Desk(Path(sys.argv[1]))
    if sys.argv[2:3] == ["full"]:
        until_full(opened, int(sys.argv[3]))
    else:
        until_killed(opened)
