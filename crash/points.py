"""Where a daemon dies: the points that are chosen, and how far into a life each one lies."""

from __future__ import annotations

from random import Random

from attrs import frozen


@frozen
class Point:
    """A point as the table names it. ``operation`` and ``path`` are the shim's; a call between the first and the ``most``-th is chosen.

    Without an operation the harness kills, some time behind the daemon's start. With ``answers`` the count begins behind so many answers
    of the next server at the most. ``stopping``: the daemon is told to stop first.
    """

    name: str
    operation: str = ""
    path: str = "*"
    most: int = 1
    phases: tuple[str, ...] = ("before", "after")
    answers: int = 0
    stopping: bool = False

    def environment(self, random: Random) -> dict[str, str]:
        """What the shim is told."""
        told = {}
        if self.operation:
            told["CRASH_POINT"] = f"{self.operation} {random.choice(self.phases)} {random.randint(1, self.most)} {self.path}"
        if self.answers:
            told["CRASH_ANSWERS"] = str(random.randint(1, self.answers))
        return told


WRITE = ("before", "half", "after")
WAL, DATABASE, BODY, LOG, KEPT = "spool.db-wal", "spool.db", "/body/", "events.jsonl", "/capture/"

RANDOM = Point("any moment")
STOPPING = Point("while it stops", stopping=True)
STOPPED = Point("not killed: it had stopped in good order")
"""What becomes of STOPPING when the kill comes too late."""
POINTS = (
    RANDOM,
    STOPPING,
    Point("the write of a record", "write", WAL, 400, WRITE),
    Point("the sync of a commit", "sync", WAL, 60),
    Point("the other side's 250", "answer", "*", 1, ("before",), 40),
    Point("the write of the record behind a 250", "write", WAL, 1, WRITE, 40),
    Point("the sync of the record behind a 250", "sync", WAL, 1, ("before", "after"), 40),
    Point("a body file made", "create", BODY, 6),
    Point("the write of a body file", "write", BODY, 8, WRITE),
    Point("the sync of a body file or its directory", "sync", BODY, 8),
    Point("a body file removed", "unlink", BODY, 4),
    Point("a captured message's rename", "rename", KEPT, 6),
    Point("a captured message's sync", "sync", KEPT, 10),
    Point("the write of the event log", "write", LOG, 40, WRITE),
    Point("the sync of the event log", "sync", LOG, 4),
)
"""What a life that was not the first one is ended by."""
CHECKPOINT = (
    Point("the write of a checkpoint", "write", DATABASE, 60, WRITE),
    Point("the sync of a checkpoint", "sync", DATABASE, 2),
    Point("the log of the database removed", "unlink", WAL, 1),
)
"""The database takes its write-ahead log up when it is opened and when it is closed, so these are reached before it is ready."""
FIRST = (
    Point("the spool's directories made", "mkdir", "*", 300),
    Point("the spool's files made", "create", "*", 6),
    Point("a sync of the first start", "sync", "*", 12),
)
"""The first start of all."""
EVERY = (*POINTS, *CHECKPOINT, *FIRST, STOPPED)
