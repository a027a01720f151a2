"""What becomes of a click: on the list and told, in one commit, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from lettermta import event
from lettermta.accounts.directory import Directory
from lettermta.accounts.store import AccountStore
from lettermta.delivery.unsubscribe.desk import NotNow, Result, UnsubscribeDesk
from lettermta.delivery.unsubscribe.token import NoLink, Unsubscription
from lettermta.event import Event, message_event
from lettermta.message import new_id
from lettermta.suppression import AppliesTo, Scope, SuppressionReason, suppress
from lettermta.testing.spool import MemorySpool
from tests.test_counts import grown

NOW = 1_800_000_000.0
JANE = "Jane@example.com"


class Place:
    """A desk, and a message whose events are in the outbox and that has left the spool."""

    def __init__(self, state_dir: Path) -> None:
        self.store = AccountStore(state_dir)
        self.project = self.store.create_project("demo")
        self.directory = Directory(state_dir)
        self.spool = MemorySpool()
        self.desk = UnsubscribeDesk(self.directory, self.spool, lambda: NOW)
        self.scope = Scope(self.project.id, "demo")
        self.asked = Unsubscription(new_id(), self.project.id, JANE, "november")
        facts = {"message_id": self.asked.message_id, "subject": "News", "metadata": {"issue": "7"}, "tag": "november"}
        context = {"scope": "project", "team_id": None, "project_id": self.project.id, "route_id": "r", "project": "demo", "route": "news"}
        self.facts, self.context = orjson.dumps({**facts, "tags": [], "headers": []}), orjson.dumps(context)
        for name, data in ((event.CREATED, {"to": [JANE]}), (event.DELIVERED, {"recipient": JANE})):
            self.spool.tell([message_event(name, NOW, self.asked.message_id, self.facts, self.context, **data)])

    def click(self, asked: Unsubscription | None = None) -> Result:
        results: list[Result] = []
        Deferred.fromCoroutine(self.desk.unsubscribe(asked or self.asked)).addCallback(results.append)
        return results[0]

    def told(self, name: str) -> list[Event]:
        return [one for _, one in self.spool.outbox if one.name == name]

    @property
    def listed(self) -> list[tuple[str, str, str, str]]:
        kept = self.spool.suppressions.kept.values()
        return [(one.value, one.reason.value, one.applies_to.value, one.scope.key) for one in kept]

    def forget(self) -> None:
        """What the outbox does when events have been kept long enough."""
        self.spool.outbox.clear()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.directory.close()
    place.store.close()


def test_a_click_is_told_with_all_that_is_known_of_the_message(place: Place) -> None:
    with grown() as growth:
        assert place.click() is Result.DONE
    assert place.listed == [("jane@example.com", "unsubscribe", "broadcast", place.project.id)]
    (told,) = place.told(event.UNSUBSCRIBED)
    assert told.message_id == place.asked.message_id
    assert told.data == orjson.loads(place.facts) | {"recipient": JANE, "unsubscribed_at": event.timestamp(NOW)}
    assert told.context == orjson.loads(place.context)
    assert len(place.told(event.SUPPRESSION_ADDED)) == 1
    (kept,) = place.spool.suppressions.kept.values()
    assert kept.message_id == place.asked.message_id
    assert growth["lettermta_unsubscriptions_total result=done"] == 1


def test_another_click_tells_nothing(place: Place) -> None:
    place.click()
    before = list(place.spool.outbox)
    with grown() as growth:
        assert place.click() is Result.REPEATED
    assert place.spool.outbox == before
    assert growth["lettermta_unsubscriptions_total result=repeated"] == 1


def test_who_was_taken_off_the_list_is_on_it_again_after_another_click(place: Place) -> None:
    place.click()
    place.spool.suppressions.remove("jane@example.com", place.scope, None, NOW)
    assert place.listed == []
    assert place.click() is Result.REPEATED
    assert place.listed == [("jane@example.com", "unsubscribe", "broadcast", place.project.id)]
    assert len(place.told(event.UNSUBSCRIBED)) == 1
    assert len(place.told(event.SUPPRESSION_ADDED)) == 2


def test_a_link_works_when_nothing_else_is_known_of_its_message(place: Place) -> None:
    place.forget()
    assert [place.click(), place.click()] == [Result.DONE, Result.REPEATED]
    (told,) = place.told(event.UNSUBSCRIBED)
    assert told.message_id == place.asked.message_id
    assert (told.recipient, told.tag, told.subject, told.metadata) == (JANE, "november", None, {})
    assert set(told.data) == {"message_id", "subject", "metadata", "tag", "tags", "headers", "recipient", "unsubscribed_at"}
    assert told.context == orjson.loads(place.context) | {"route_id": None, "route": None}


def test_a_link_of_a_project_that_is_gone_is_no_fault(place: Place) -> None:
    place.forget()
    asked = evolve(place.asked, project_id=new_id())
    assert place.click(asked) is Result.DONE
    assert place.listed == [("jane@example.com", "unsubscribe", "broadcast", asked.project_id)]


def test_somebody_who_is_kept_from_all_mail_stays_so(place: Place) -> None:
    """A click must not narrow what an operator has said by hand."""
    place.spool.tell([], [suppress("jane@example.com", place.scope, SuppressionReason.UNSUBSCRIBE, 1.0, AppliesTo.ALL)])
    assert place.click() is Result.REPEATED
    assert place.listed == [("jane@example.com", "unsubscribe", "all", place.project.id)]


def test_other_reasons_and_other_lists_are_no_unsubscription(place: Place) -> None:
    other = Scope("p2", "other")
    place.spool.tell([], [suppress("jane@example.com", place.scope, SuppressionReason.MANUAL, 1.0)])
    place.spool.tell([], [suppress("jane@example.com", other, SuppressionReason.UNSUBSCRIBE, 1.0)])
    assert place.click() is Result.DONE


def test_what_can_not_be_stored_now_can_be_asked_for_again(place: Place) -> None:
    place.spool.broken = OSError("no disk")
    caught: list[BaseException] = []
    with capturedLogs() as logs, grown() as growth:
        Deferred.fromCoroutine(place.desk.unsubscribe(place.asked)).addErrback(lambda failure: caught.append(failure.value))
    assert [type(one) for one in caught] == [NotNow]
    assert growth["lettermta_unsubscriptions_total result=failed"] == 1
    assert any("could not be unsubscribed" in (one["log_format"] or "") for one in logs)
    place.spool.broken = None
    assert place.click() is Result.DONE


def test_only_links_of_ours_are_read(place: Place) -> None:
    token = place.asked.token(place.directory.unsubscribe_key)
    assert place.desk.read(token) == place.asked
    with grown() as growth:
        for wrong in (place.asked.token(b"x" * 32), "robots.txt"):
            with pytest.raises(NoLink):
                place.desk.read(wrong)
    assert growth["lettermta_unsubscriptions_total result=forged"] == 1
    assert growth["lettermta_unsubscriptions_total result=malformed"] == 1


def test_the_log_does_not_have_the_link(place: Place) -> None:
    with capturedLogs() as logs:
        place.click()
    (line,) = [one for one in logs if one["log_namespace"].endswith("UnsubscribeDesk")]
    assert (line["id"], line["recipient"]) == (place.asked.message_id, JANE)
    assert place.asked.token(place.directory.unsubscribe_key) not in str(line)
