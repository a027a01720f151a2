"""The ledger: what was promised, what came, and what was told, held against each other.

Lost is a message with a 250 that did not come to each of its recipients whole, or whose events did not all come out. A duplicate is
explained when the daemon that made the earlier delivery was killed and the spool as the crash left it still has the recipient waiting:
so it died between the other side's answer and the sync of its own record. Any other duplicate breaks the promise.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, frozen

from crash.power import Cut
from crash.senders import Gate, Mail
from lettermta.message import WAITING

CREATED, SENT, DELIVERED = "message.created", "message.sent", "message.delivered"
HARD, SOFT = "message.hard_bounced", "message.soft_bounced"


@frozen
class Receipt:
    """One recipient's copy of a message, as it came."""

    token: str
    recipient: str
    identifier: str
    digest: str
    round: int
    moment: float


@frozen
class Snapshot:
    """What a spool holds after a crash, read from a copy: the daemon's own files are left as the crash made them."""

    known: frozenset[str]
    """Ids of all messages that it has ever had."""
    waiting: frozenset[tuple[str, str]]
    """Ids and addresses of the recipients that wait."""
    bodiless: frozenset[str]
    """Ids of waiting messages whose body file is missing or of the wrong size."""
    damage: str = ""
    """Why the database can't be read: then nothing is in it."""


NOTHING = Snapshot(frozenset(), frozenset(), frozenset())


def look(spool: Path) -> Snapshot:
    """Read the spool in a directory."""
    with tempfile.TemporaryDirectory() as place:
        for name in ("spool.db", "spool.db-wal"):
            if (spool / name).exists():
                shutil.copyfile(spool / name, Path(place, name))
        connection = sqlite3.connect(Path(place, "spool.db"), isolation_level=None)
        try:
            return _read(connection, spool / "body")
        except sqlite3.DatabaseError as damage:
            return evolve(NOTHING, damage=str(damage))
        finally:
            connection.close()


def _read(connection: sqlite3.Connection, bodies: Path) -> Snapshot:
    if not connection.execute("PRAGMA user_version").fetchone()[0]:
        return NOTHING  # it was killed before it had made its tables
    waiting = connection.execute("SELECT m.id, r.address, r.state FROM recipient r JOIN message m ON m.number = r.message")
    contents = connection.execute("SELECT m.id, m.size, c.head, c.file FROM message m LEFT JOIN content c ON c.number = m.number")
    return Snapshot(
        frozenset(row[0] for row in connection.execute("SELECT message_id FROM event WHERE name = ?", (CREATED,))),
        frozenset((identifier, address) for identifier, address, state in waiting if state in WAITING),
        frozenset(
            identifier
            for identifier, size, head, file in contents
            if head is None or (file is not None and _size(bodies / file[-2:] / file) != size - len(head) - 2)
        ),
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


@define
class Round:
    """One life of the daemon."""

    number: int
    point: str
    cut: Cut
    died: float = 0.0
    """When it was dead, by the wall clock."""
    snapshot: Snapshot | None = None
    """None when it was not killed."""
    acknowledged: int = 0
    lost: int = 0
    duplicates: int = 0
    explained: int = 0


@define
class Account:
    """What it all came to."""

    rounds: list[Round] = field(factory=list)
    acknowledged: int = 0
    unanswered: int = 0
    """Messages that were accepted, but whose 250 was lost with the daemon: they have to come too."""
    recipients: int = 0
    received: int = 0
    """Copies that came, of all recipients."""
    lost: dict[str, list[str]] = field(factory=dict)
    """Tokens of messages that were lost, or a part of what belongs to them, and how that shows."""
    duplicates: int = 0
    explained: int = 0
    windows: list[float] = field(factory=list)
    """Seconds from a copy that was to come again to the daemon's death."""
    events: int = 0
    repeated: int = 0
    """Lines of the event log that were there already, octet by octet."""
    torn: int = 0
    """Lines of the event log that a crash broke off; their events are there whole, too."""
    faults: list[str] = field(factory=list)
    """Everything else that must not be."""
    entries: int = 0
    writes: int = 0
    seconds: float = 0.0

    def add(self, other: Account) -> None:
        """Take in another account."""
        for name in ("rounds", "windows", "faults"):
            getattr(self, name).extend(getattr(other, name))
        self.lost.update(other.lost)
        for name in ("acknowledged", "unanswered", "recipients", "received", "duplicates", "explained", "events", "repeated", "torn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.entries += other.entries
        self.writes += other.writes

    def lose(self, token: str, why: str) -> None:
        """Note a loss."""
        self.lost.setdefault(token, []).append(why)

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return not self.lost and not self.faults and self.duplicates == self.explained


def check_crash(gate: Gate, round_: Round, account: Account) -> None:
    """The losses that are plain at once: what was acknowledged in this round and is not in the spool that the crash left."""
    snapshot = round_.snapshot
    assert snapshot is not None
    if snapshot.damage:
        account.faults.append(
            f"the database can't be read after round {round_.number} ({round_.point}, {round_.cut.value}): {snapshot.damage}"
        )
    for token, (identifier, number) in gate.acknowledged.items():
        if token in account.lost:
            continue
        round_.acknowledged += number == round_.number
        why = (
            "is not in the spool" if identifier not in snapshot.known else "has lost its body" if identifier in snapshot.bodiless else None
        )
        if why is not None:
            round_.lost += 1
            account.lose(token, f"{identifier} of round {number} {why} after round {round_.number}: {round_.point}, {round_.cut.value}")


def judge(gate: Gate, account: Account, receipts: Iterable[Receipt], lines: Iterable[bytes]) -> None:
    """Complete the account, once the queue has run empty."""
    account.acknowledged = len(gate.acknowledged)
    account.faults += gate.faults
    came: dict[tuple[str, str], list[Receipt]] = defaultdict(list)
    for receipt in receipts:
        came[receipt.token, receipt.recipient].append(receipt)
        account.received += 1
    told = _events(account, lines)
    accepted = {token for token, _ in came} | told.keys()
    account.unanswered = len(accepted - gate.acknowledged.keys())
    for token in accepted - gate.sent.keys():
        account.faults.append(f"{token}: nobody has sent that")
    for token in gate.acknowledged.keys() | (accepted & gate.sent.keys()):
        mail = gate.sent[token]
        account.recipients += len(mail.recipients)
        for fault in (*_arrivals(mail, came), *_stories(mail, told.get(token, {}), gate)):
            account.lose(token, f"{fault} (acknowledged in round {gate.acknowledged.get(token, ('', 0))[1]})")
    by_number = {each.number: each for each in account.rounds}
    for copies in came.values():
        _duplicates(account, by_number, copies)
    for token, recipient in came:
        if token in gate.sent and recipient not in gate.sent[token].arriving:
            account.faults.append(f"{token}: came to {recipient}")


def _arrivals(mail: Mail, came: Mapping[tuple[str, str], list[Receipt]]) -> Iterable[str]:
    for recipient in mail.arriving:
        copies = came.get((mail.token, recipient), [])
        if not copies:
            yield f"did not come to {recipient}"
        elif any(copy.digest != mail.digest for copy in copies):
            yield f"came changed to {recipient}"


def _duplicates(account: Account, rounds: Mapping[int, Round], copies: list[Receipt]) -> None:
    copies.sort(key=lambda copy: copy.moment)
    for copy, following in pairwise(copies):
        account.duplicates += 1
        life = rounds[copy.round]
        life.duplicates += 1
        snapshot = life.snapshot
        if following.round > copy.round and snapshot is not None and (copy.identifier, copy.recipient) in snapshot.waiting:
            account.explained += 1
            life.explained += 1
            account.windows.append(max(life.died - copy.moment, 0.0))
        else:
            account.faults.append(
                f"{copy.token}: came to {copy.recipient} in rounds {copy.round} ({life.point}, {life.cut.value}) and {following.round},"
                " and the first was on record"
            )


# -- events

Told = dict[tuple[str, str], Counter[str]]
"""By name and recipient: how often each event, by its id, was told."""


def _events(account: Account, lines: Iterable[bytes]) -> dict[str, Told]:
    """What the event log tells, by token."""
    told: dict[str, Told] = defaultdict(dict)
    seen: dict[str, bytes] = {}
    for line in lines:
        try:
            document: dict[str, Any] = json.loads(line)
        except ValueError:
            account.torn += 1
            continue
        identifier, data = document["id"], document["data"]
        if identifier in seen:
            account.repeated += 1
            if seen[identifier] != line:
                account.faults.append(f"event {identifier} was told in two ways")
            continue
        seen[identifier] = line
        account.events += 1
        if "message_id" not in data:
            continue  # a suppression, which is no message's event
        token = data["metadata"].get("token", "")
        counts = told[token].setdefault((document["event"], data.get("recipient", "")), Counter())
        counts[data["message_id"]] += 1
    return told


def _stories(mail: Mail, told: Told, gate: Gate) -> Iterable[str]:
    """What is wrong with the events of one message: each that has to be is there, as one event with the id of the 250."""
    wanted = {(CREATED, "")}
    for recipient in mail.recipients:
        arrives = recipient in mail.arriving
        wanted |= {(SENT, recipient), (DELIVERED, recipient)} if arrives else {(HARD, recipient)}
    # An attempt that was put off may have had no record before the crash; the next one then begins anew.
    possible = {(SOFT, recipient) for recipient in mail.recipients if recipient.startswith("later")}
    for missing in wanted - told.keys():
        yield f"no event {missing[0]} {missing[1]}"
    for name, counts in told.items():
        if name not in wanted | possible:
            yield f"an event {name[0]} {name[1]} that can't be"
        if sum(counts.values()) > 1:
            yield f"{sum(counts.values())} events {name[0]} {name[1]}"
        identifier = gate.acknowledged.get(mail.token, (next(iter(counts)), 0))[0]
        if set(counts) != {identifier}:
            yield f"an event {name[0]} with another message's id"
