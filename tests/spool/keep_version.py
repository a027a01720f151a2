"""``python -m tests.spool.keep_version DIRECTORY``: writes ``versionN.sql`` of a spool that the code at hand has made.

It has content, recipients in several states, events and an idempotency key. Run once for each new version of the schema; the file is then
never changed.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from lettermta.message import BodyType, DeliverBy, IdempotencyKey, Notify, Options, Recipient, State
from lettermta.spool.schema import STEPS

from .hand import NOW, Desk

HERE = Path(__file__).parent
FIRST = b"Subject: Hello\r\nFrom: shop@example.net\r\n\r\nA body, small\r\n"
SECOND = b"Subject: 8 bit\r\n\r\n" + b"caf\xe9\r\n" * 30_000
OPTIONS = Options(BodyType.EIGHT_BIT, True, "FULL", "env-1", True, DeliverBy(NOW + 7200, True), 3)
ANN = Recipient("Ann@Example.ORG", frozenset({Notify.FAILURE, Notify.DELAY}), "rfc822;ann@example.org")


def main(directory: Path) -> None:
    desk = Desk(directory)
    key = IdempotencyKey("order-1", b"\x01\x02digest", NOW + 86_400)
    desk.store("jane@example.com", "joe@example.com", data=FIRST, idempotency=key)
    desk.record(desk.entries[0], State.DELIVERED, State.DEFERRED, due=NOW + 60, reply="451 4.7.1 Try again later")
    second = desk.message(data=SECOND, created=NOW + 5, sender="", tag=None, metadata={}, options=OPTIONS, recipients=(ANN,))
    desk.reactor.wait(desk.storing(second))
    desk.store("later@example.net", hold_until=NOW + 3600, created=NOW + 6)
    desk.store("lost@example.net", created=NOW + 7)
    desk.record(desk.entries[-1], State.QUARANTINED, reply="its content is damaged", handed_over=False)
    desk.reactor.wait(desk.spool.advance("json_log", 3))
    desk.close()
    connection = sqlite3.connect(directory / "spool.db")
    version = len(STEPS)
    lines = [f"-- What version {version} of the schema wrote. Never changed again.", f"PRAGMA user_version = {version};"]
    (HERE / f"version{version}.sql").write_text("\n".join([*lines, *connection.iterdump()]) + "\n")
    connection.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
