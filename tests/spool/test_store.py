"""The spool: what was answered is there after a reopening, whole; what is finished is gone, whole."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.logger import capturedLogs
from zope.interface.verify import verifyObject

from lettermta.event import CREATED, DELIVERED
from lettermta.interfaces import ISpool
from lettermta.message import IdempotencyKey, Lane, Message, Options, Outcome, State
from lettermta.spool import outbox, waiting
from lettermta.spool.content import MemoryContent
from lettermta.spool.damage import SpoolDamaged
from lettermta.spool.store import Spool, SpoolInUse

from .hand import NOW, SMALL, Desk, HandReactor, large

ROOT = Path(__file__).parents[2]


def test_the_interface_is_provided(desk: Desk) -> None:
    verifyObject(ISpool, desk.spool)


def test_a_stored_message_is_told_of_once_with_an_entry_for_each_domain(desk: Desk) -> None:
    message = desk.store("a@one.example", "b@two.example", "c@ONE.example")
    assert [(entry.lane, [r.address for r in entry.recipients]) for entry in desk.entries] == [
        (Lane("r1", "one.example"), ["a@one.example", "c@ONE.example"]),
        (Lane("r1", "two.example"), ["b@two.example"]),
    ]
    assert {entry.id for entry in desk.entries} == {message.id}
    assert [(sequence, event.name) for sequence, event in desk.told] == [(1, CREATED)]


def test_listeners_are_told_once_per_commit_and_behind_the_answers(desk: Desk) -> None:
    order: list[object] = []

    class Listener:
        def entries_stored(self, entries):
            order.append(len(entries))

        def events_stored(self, events):
            order.append([sequence for sequence, _ in events])

    desk.spool.subscribe(Listener())  # type: ignore[arg-type]
    go_on = _held(desk)
    messages = [desk.message() for _ in range(3)]
    waiting = [desk.storing(message) for message in messages]
    for deferred in waiting:
        deferred.addCallback(lambda _: order.append("answered"))
    go_on()
    for deferred in waiting:
        desk.reactor.wait(deferred)
    assert order == ["answered"] * 3 + [3, [1, 2, 3]]


def _held(desk: Desk):
    """Keep the writer busy until what is returned is called."""
    import threading

    from lettermta.spool.writer import Unit

    begun, go_on = threading.Event(), threading.Event()

    def work(connection: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(20)

    desk.spool._writer.put(Unit(rows=(), work=work))
    assert begun.wait(20)
    return go_on.set


def test_a_reopened_spool_has_messages_recipients_states_events_and_cursors(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.com", "c@other.example", data=SMALL)
    big = desk.store("d@example.com", data=large(), created=NOW + 5)
    [first, _] = desk.due(now=NOW + 5)
    desk.record(first, State.DELIVERED, State.DEFERRED, due=NOW + 600, reply="451 later")
    desk.reactor.wait(desk.spool.advance("hooks", 2))
    again = desk.reopened()
    try:
        [entry] = again.due(now=NOW + 60)
        assert entry.id == big.id
        assert again.content(entry) == large()
        [entry] = again.due(now=NOW + 600, limit=1000)[1:]
        assert (entry.id, entry.project, entry.route, entry.sender, entry.size) == (
            message.id, "demo", "outgoing", "shop@example.net", len(SMALL),
        )  # fmt: skip
        assert (entry.created, entry.expires, entry.facts, entry.context) == (NOW, NOW + 432_000, message.facts, message.context)
        [recipient] = entry.recipients
        assert (recipient.address, recipient.attempts, recipient.handed_over) == ("b@example.com", 1, True)
        assert again.content(entry) == SMALL
        lanes = dict(again.reactor.wait(again.spool.lanes()))
        assert lanes == {Lane("r1", "example.com"): NOW + 5, Lane("r1", "other.example"): NOW}
        assert again.reactor.wait(again.spool.next_due(Lane("r1", "example.com"), NOW)) == NOW + 5
        assert again.reactor.wait(again.spool.next_due(Lane("r2", "example.com"), 0.0)) is None
        assert [(sequence, event.name) for sequence, event in again.events()] == [(1, CREATED), (2, CREATED), (3, DELIVERED)]
        assert again.events(after=2, limit=1)[0][1].payload == again.events()[2][1].payload
        assert again.reactor.wait(again.spool.cursor("hooks")) == 2
        assert again.reactor.wait(again.spool.cursor("json_log")) == 0
        states = {row["recipient"]: row["state"] for row in again.rows()}
        assert states == {"a@example.com": "delivered", "b@example.com": "deferred", "c@other.example": "queued", "d@example.com": "queued"}
        again.store("e@example.com")
        assert again.told[-1][0] == 4
    finally:
        again.close()


def test_content_is_the_same_from_memory_and_from_the_disk(desk: Desk) -> None:
    desk.store(data=SMALL)
    desk.store(data=large())
    desk.store(data=b"Subject: no body\r\n\r\n")
    fresh = [desk.content(entry) for entry in desk.entries]
    assert fresh == [SMALL, large(), b"Subject: no body\r\n\r\n"]
    again = desk.reopened()
    try:
        assert [again.content(entry) for entry in again.due()] == fresh
    finally:
        again.close()


def test_fresh_content_is_kept_within_bounds(desk: Desk) -> None:
    desk.spool._fresh._limit = 10_000
    data = b"Subject: x\r\n\r\n" + b"y" * 1000
    for _ in range(50):
        desk.store(data=data)
    assert sum(content.size for content in desk.spool._fresh._contents.values()) == desk.spool._fresh.octets <= 10_000
    assert isinstance(desk.reactor.wait(desk.spool.load(desk.entries[-1])), MemoryContent)
    assert desk.content(desk.entries[0]) == data
    for entry in desk.entries:
        desk.record(entry, State.DELIVERED)
    assert desk.spool._fresh.octets == 0
    assert not desk.spool._fresh


def test_a_message_stays_until_its_last_recipient_is_finished(desk: Desk) -> None:
    desk.store("a@example.com", "b@example.com", "c@other.example", data=large())
    same, other = desk.entries
    desk.record(same, State.DELIVERED, State.DEFERRED, due=NOW + 60)
    assert [row["recipient"] for row in desk.rows()] == ["a@example.com", "b@example.com", "c@other.example"]
    desk.record(other, State.BOUNCED)
    assert len(desk.bodies()) == 1
    [entry] = desk.due(now=NOW + 60)
    assert desk.content(entry) == large()
    desk.record(entry, State.EXPIRED)
    assert desk.rows() == []
    assert desk.due(now=NOW + 1e6) == []
    desk.close()
    assert desk.bodies() == []
    connection = sqlite3.connect(desk.directory / "spool.db")
    counts = {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in ("message", "recipient", "content")}
    connection.close()
    assert counts == {"message": 0, "recipient": 0, "content": 0}


def test_two_outcomes_in_one_commit_finish_a_message_between_them(desk: Desk) -> None:
    for data in (SMALL, large()):
        desk.store("a@one.example", "b@two.example", data=data)
    go_on = _held(desk)
    from lettermta.message import Outcome

    waiting = [
        desk.spool.record(entry, [Outcome(recipient, State.DELIVERED, "250 OK") for recipient in entry.recipients], [])
        for entry in desk.entries
    ]
    go_on()
    for deferred in waiting:
        assert desk.reactor.wait(deferred) is None
    assert desk.rows() == []
    desk.close()
    assert desk.bodies() == []


def test_states_that_are_not_final_keep_the_message(desk: Desk) -> None:
    for state in (State.QUARANTINED, State.HELD, State.DEFERRED):
        desk.store("a@example.com")
        desk.record(desk.entries[-1], state, due=NOW + 60, handed_over=False)
    assert [row["state"] for row in desk.rows()] == ["quarantined", "held", "deferred"]
    assert [entry.id for entry in desk.due(now=NOW + 60)] == [desk.entries[-1].id], "only what waits is due"


def test_attempts_are_counted_and_handing_over_sticks(desk: Desk) -> None:
    desk.store("a@example.com")
    for number, handed_over in enumerate((False, True, False), 1):
        [entry] = desk.due(now=NOW + 1000)
        desk.record(entry, State.DEFERRED, due=NOW + number, reply=f"45{number} later", handed_over=handed_over)
    [recipient] = desk.due(now=NOW + 1000)[0].recipients
    assert (recipient.attempts, recipient.handed_over) == (3, True)
    assert desk.rows()[0]["last_reply"] == "453 later"


def report_on(desk: Desk, data: bytes = b"Subject: Report\r\n\r\nIt failed.\r\n") -> Message:
    return desk.message("shop@example.net", data=data, sender="", options=Options(report=True))


def test_a_report_is_stored_in_the_commit_of_the_outcome_that_it_tells_of(desk: Desk) -> None:
    """HARD-CASES row 19: there is no moment with the one and not the other."""
    desk.store("a@example.com")
    [entry] = desk.due()
    [recipient] = entry.recipients
    report = report_on(desk)
    commits: list[list[object]] = []
    whole = desk.spool._writer._committed
    desk.spool._writer._committed = lambda units: (commits.append(list(units)), whole(units))  # type: ignore[assignment,return-value]
    desk.reactor.wait(desk.spool.record(entry, [Outcome(recipient, State.BOUNCED, "550 no")], [], reports=[report]))
    assert [len(units) for units in commits] == [1]
    assert [(row["id"], row["sender"], row["recipient"]) for row in desk.rows()] == [(report.id, "", "shop@example.net")]
    told = desk.entries[-1]
    assert (told.id, told.options.report, told.sender) == (report.id, True, "")
    assert desk.content(told) == b"Subject: Report\r\n\r\nIt failed.\r\n"
    again = desk.reopened()
    [entry] = again.due("example.net")
    assert (entry.id, entry.options.report) == (report.id, True)
    assert again.content(entry) == b"Subject: Report\r\n\r\nIt failed.\r\n"
    desk.spool, desk.reactor = again.spool, again.reactor


def test_an_outcome_whose_report_can_not_be_stored_is_not_stored(desk: Desk) -> None:
    known = desk.store("a@example.com")
    [entry] = desk.due()
    twice = desk.message("shop@example.net", sender="", id=known.id)
    with pytest.raises(sqlite3.IntegrityError):
        desk.reactor.wait(desk.spool.record(entry, [Outcome(entry.recipients[0], State.BOUNCED, "550 no")], [], reports=[twice]))
    assert [(row["id"], row["state"]) for row in desk.rows()] == [(known.id, "queued")]


def test_the_first_deferral_and_the_warning_are_kept(desk: Desk) -> None:
    desk.store("a@example.com")
    [entry] = desk.due()
    assert (entry.recipients[0].first_deferred, entry.recipients[0].warned) == (0.0, False)
    outcome = Outcome(entry.recipients[0], State.DEFERRED, "451 later", NOW + 60, first_deferred=NOW, warned=True)
    desk.reactor.wait(desk.spool.record(entry, [outcome], []))
    [entry] = desk.due(now=NOW + 60)
    assert (entry.recipients[0].first_deferred, entry.recipients[0].warned) == (NOW, True)


def test_due_recipients_come_earliest_first_grouped_by_message_and_limited(desk: Desk) -> None:
    late = desk.store("a@example.com", "b@example.com", created=NOW + 20)
    early = desk.store("c@example.com", "d@example.com", created=NOW + 10)
    desk.store("e@example.com", created=NOW + 30)
    found = desk.due(now=NOW + 29)
    assert [(entry.id, [r.address for r in entry.recipients]) for entry in found] == [
        (early.id, ["c@example.com", "d@example.com"]),
        (late.id, ["a@example.com", "b@example.com"]),
    ]
    assert [r.address for entry in desk.due(now=NOW + 99, limit=3) for r in entry.recipients] == [
        "c@example.com",
        "d@example.com",
        "a@example.com",
    ]
    assert desk.due(now=NOW + 9) == []
    assert desk.due("other.example", now=NOW + 99) == []
    assert desk.due(route="r2", now=NOW + 99) == []


def test_what_is_scheduled_is_due_at_its_time(desk: Desk) -> None:
    desk.store("a@example.com", hold_until=NOW + 3600)
    assert desk.entries[0].due == NOW + 3600
    assert desk.due(now=NOW + 3599) == []
    assert desk.rows()[0]["state"] == "scheduled"
    [entry] = desk.due(now=NOW + 3600)
    desk.record(entry, State.DELIVERED)
    assert desk.rows() == []


def test_an_idempotency_key_is_stored_with_its_message_and_expires(desk: Desk) -> None:
    message = desk.store("a@example.com", idempotency=IdempotencyKey("k1", b"digest", NOW + 86_400))
    again = desk.reopened()
    try:
        recall = again.spool.recall
        assert again.reactor.wait(recall("p1", "k1", NOW + 86_399)) == (b"digest", message.id)
        assert again.reactor.wait(recall("p1", "k1", NOW + 86_400)) is None
        assert again.reactor.wait(recall("p2", "k1", NOW)) is None
        assert again.reactor.wait(recall("p1", "k1' OR 1=1 --", NOW)) is None
    finally:
        again.close()


def test_the_queue_is_read_in_pages(desk: Desk) -> None:
    for number in range(7):
        desk.store(f"u{number}@example.com")
    seen: list[str] = []
    after = 0
    while rows := desk.rows(after=after, limit=3):
        assert len(rows) <= 3
        seen += [row["recipient"] for row in rows]
        after = rows[-1]["number"]
    assert seen == [f"u{number}@example.com" for number in range(7)]


def test_a_message_is_shown_whole_and_by_its_events_when_it_has_gone(desk: Desk) -> None:
    message = desk.store("a@example.com", "b@example.com", metadata={"Käse": "Brot"})
    shown = desk.reactor.wait(desk.spool.message(message.id))
    assert shown["headers"] == ["Subject: Hello", "From: shop@example.net"]
    assert shown["metadata"] == {"Käse": "Brot"}
    assert [one["recipient"] for one in shown["recipients"]] == ["a@example.com", "b@example.com"]
    assert [told["event"] for told in shown["events"]] == [CREATED]
    desk.record(desk.entries[0], State.DELIVERED, State.DELIVERED)
    shown = desk.reactor.wait(desk.spool.message(message.id))
    assert shown["recipients"] == []
    assert [told["event"] for told in shown["events"]] == [CREATED, DELIVERED]
    assert desk.reactor.wait(desk.spool.message("unknown")) is None


# -- the outbox


def test_events_are_forgotten_when_they_are_old_and_every_sink_has_them(desk: Desk) -> None:
    for number in range(6):
        desk.store("a@example.com", created=NOW + number)
    for sink, sequence in (("a", 5), ("b", 3)):
        desk.reactor.wait(desk.spool.advance(sink, sequence))
    trim = desk.spool.trim
    assert desk.reactor.wait(trim(NOW + 2)) == 2
    assert [sequence for sequence, _ in desk.events()] == [3, 4, 5, 6]
    assert desk.reactor.wait(trim(NOW + 100)) == 1, "the third is the last that both have"
    desk.reactor.wait(desk.spool.advance("b", 6))
    desk.reactor.wait(desk.spool.advance("a", 6))
    assert desk.reactor.wait(trim(NOW + 100)) == 2
    assert desk.reactor.wait(trim(NOW + 100)) == 0


def test_where_nobody_reads_the_outbox_the_old_are_forgotten_all_the_same(desk: Desk) -> None:
    for _ in range(4):
        desk.store("a@example.com")
    assert desk.reactor.wait(desk.spool.trim(NOW + 100)) == 3


def test_trimming_takes_a_bounded_number_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "TRIM_ROWS", 4)
    for _ in range(10):
        desk.store("a@example.com")
    assert [desk.reactor.wait(desk.spool.trim(NOW + 100)) for _ in range(4)] == [4, 4, 1, 0]


@pytest.mark.parametrize("confirmed", [True, False])
def test_sequence_numbers_are_never_used_again(desk: Desk, confirmed: bool) -> None:
    for _ in range(5):
        desk.store("a@example.com")
    if confirmed:
        desk.reactor.wait(desk.spool.advance("hooks", 5))
    desk.reactor.wait(desk.spool.trim(NOW + 100))
    again = desk.reopened()
    try:
        again.store("b@example.com")
        assert again.told[-1][0] == 6
    finally:
        again.close()


def test_a_cursor_is_moved(desk: Desk) -> None:
    assert desk.reactor.wait(desk.spool.cursor("hooks")) == 0
    for sequence in (3, 9):
        desk.reactor.wait(desk.spool.advance("hooks", sequence))
    assert desk.reactor.wait(desk.spool.cursor("hooks")) == 9


# -- faults


def test_a_message_that_can_not_be_stored_harms_no_other(desk: Desk) -> None:
    first = desk.store("a@example.com")
    go_on = _held(desk)
    twin = desk.message("b@example.com", id=first.id)
    good = desk.message("c@example.com")
    waiting = [desk.storing(twin), desk.storing(good)]
    go_on()
    with pytest.raises(sqlite3.IntegrityError):
        desk.reactor.wait(waiting[0])
    desk.reactor.wait(waiting[1])
    assert [row["recipient"] for row in desk.rows()] == ["a@example.com", "c@example.com"]
    assert [sequence for sequence, _ in desk.events()] == [1, 3]


def test_a_body_is_synced_before_any_row_names_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        order.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    put = desk.spool._writer.put
    monkeypatch.setattr(desk.spool._writer, "put", lambda unit: (order.append("row"), put(unit))[1])
    desk.store("a@example.com", data=large())
    [name] = desk.bodies()
    assert order == [name, name[-2:], "row"]


def test_what_fails_to_sync_is_not_stored(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    message = desk.message("a@example.com", data=large())

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        desk.reactor.wait(desk.storing(message))
    monkeypatch.undo()
    assert desk.rows() == []
    message.content.discard()  # type: ignore[attr-defined]
    desk.store("b@example.com", data=large())
    assert [row["recipient"] for row in desk.rows()] == ["b@example.com"]


@pytest.mark.parametrize("fault", ["missing", "torn"])
def test_a_body_file_that_is_not_what_was_stored_is_no_content(desk: Desk, fault: str) -> None:
    """A truncated message must not leave as if it were whole (HARD-CASES row 14)."""
    desk.store("a@example.com", data=large())
    [path] = [path for path in (desk.directory / "body").rglob("*") if path.is_file()]
    if fault == "missing":
        path.unlink()
    else:
        os.truncate(path, 1000)
    with pytest.raises(LookupError, match=path.name):
        desk.content(desk.entries[0])


def test_content_that_is_not_there_is_told_so(desk: Desk) -> None:
    desk.store("a@example.com")
    desk.record(desk.entries[0], State.DELIVERED)
    with pytest.raises(LookupError):
        desk.content(desk.entries[0])


def test_a_body_file_that_no_message_has_is_removed_at_the_start(desk: Desk) -> None:
    desk.store("a@example.com", data=large())
    [kept] = desk.bodies()
    orphan = "01890000-0000-7000-8000-0000000000ab"
    (desk.directory / "body" / "ab" / orphan).write_bytes(b"torn")
    with capturedLogs() as logged:
        again = desk.reopened()
    try:
        assert again.bodies() == [kept]
        assert [event["name"] for event in logged if "orphan" in event["log_format"]] == [orphan]
        [entry] = again.due()
        assert again.content(entry) == large()
    finally:
        again.close()


def test_a_body_file_that_can_not_be_removed_is_logged_and_the_outcome_stands(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.store("a@example.com", data=large())

    def denied(name: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(desk.spool._files, "remove", denied)
    with capturedLogs() as logged:
        desk.record(desk.entries[0], State.DELIVERED)
        desk.close()
        desk.reactor.turn()
        while not logged:
            function, arguments = desk.reactor._calls.get(timeout=20)
            function(*arguments)
    assert desk.spool._lock is None
    assert "was not removed" in logged[0]["log_format"]


# -- opening


def test_a_second_process_is_refused(desk: Desk) -> None:
    script = (
        "import sys; from pathlib import Path; from lettermta.spool.store import Spool, SpoolInUse\n"
        "from tests.spool.hand import HandReactor\n"
        "try: Spool(Path(sys.argv[1]), HandReactor()).open()\n"
        "except SpoolInUse as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(desk.directory)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert "in use by another lettermta" in run.stdout
    desk.store("a@example.com")


def test_an_opening_that_fails_lets_go_of_the_lock(tmp_path: Path) -> None:
    Desk(tmp_path / "0").close()
    database = tmp_path / "0" / "spool.db"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = database.read_bytes()
    database.write_bytes(b"this is no database, and long enough to be looked at" * 200)
    for _ in range(2):
        with pytest.raises(SpoolDamaged, match="left as it is"):
            Spool(tmp_path / "0", HandReactor()).open()  # type: ignore[arg-type]
    database.write_bytes(whole)
    Desk(tmp_path / "0").close()


def test_one_lock_one_owner_within_a_process_too(desk: Desk) -> None:
    with pytest.raises(SpoolInUse):
        Desk(desk.directory)


def test_all_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        desk = Desk(tmp_path / "0")
        desk.store("a@example.com", data=large())
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "0").iterdir()}
        desk.close()
    finally:
        os.umask(umask)
    assert modes == {"lock": 0o600, "spool.db": 0o600, "spool.db-wal": 0o600, "spool.db-shm": 0o600, "body": 0o700}


def test_a_new_spools_directories_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is synced within a directory that a power cut takes away is lost all the same."""
    synced: set[str] = set()
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    Desk(tmp_path / "state" / "spool" / "0").close()
    assert {str(tmp_path), str(tmp_path / "state"), str(tmp_path / "state" / "spool")} <= synced


def test_what_was_put_off_is_made_due_earlier_in_steps_and_nothing_else_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """HARD-CASES row 27: the wall clock was set back by two hours."""
    monkeypatch.setattr(waiting, "HASTEN_ROWS", 2)
    late = [desk.store(f"late{number}@example.com") for number in range(5)]
    for entry in list(desk.entries):
        desk.record(entry, State.DEFERRED, due=NOW + 7500, reply="451 later")
    desk.store("held-until@example.net", hold_until=NOW + 9000)
    desk.store("soon@example.org")
    desk.record(desk.entries[-1], State.DEFERRED, due=NOW + 100, reply="451 later")
    assert desk.reactor.wait(desk.spool.hasten(7200.0, NOW)) == 6
    rows = {row["recipient"]: row["due"] - NOW for row in desk.rows()}
    assert {rows[f"late{number}@example.com"] for number in range(len(late))} == {300.0}
    assert (rows["held-until@example.net"], rows["soon@example.org"]) == (9000.0, 0.0)
