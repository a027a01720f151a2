"""A message is news once: by its commit, or by an answer of the spool's, but not by both."""

from __future__ import annotations

from lettermta.message import Lane

from .hand import NOW, PATIENCE, Desk


def test_what_the_listeners_have_not_heard_of_is_in_no_answer(desk: Desk) -> None:
    """The reading thread may see a commit before the reactor has told of it. Whoever got an entry both ways would send it twice; this was
    found by the crash ledger (HARD-CASES row 16)."""
    before = desk.store()
    stored = desk.storing(desk.message())
    while True:
        news, arguments = desk.reactor._calls.get(timeout=PATIENCE)
        if news == desk.spool._committed:
            break  # it is durable, and nobody has been told
        news(*arguments)
    assert [entry.id for entry in desk.due()] == [before.id]
    news(*arguments)
    assert stored.called
    assert [entry.id for entry in desk.due()] == [entry.id for entry in desk.entries]


def test_after_a_restart_all_that_is_there_is_known(desk: Desk) -> None:
    stored = desk.store()
    again = desk.reopened()
    found = again.reactor.wait(again.spool.due(Lane("r1", "example.com"), NOW, 10))
    assert [entry.id for entry in found] == [stored.id]
    again.close()
