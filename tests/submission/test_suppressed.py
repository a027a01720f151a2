"""Mail to somebody who is suppressed: accepted, told of, and not sent."""

from __future__ import annotations

from lettermta.accounts.model import RouteKind
from lettermta.message import State
from lettermta.suppression import Scope, SuppressionReason, suppress, value_of
from tests.submission.conftest import HELLO, Site
from tests.test_counts import grown


def keep_from(site: Site, text: str, reason: SuppressionReason = SuppressionReason.HARD_BOUNCE, scope: Scope | None = None) -> None:
    scope = Scope(site.project.id, site.project.slug) if scope is None else scope
    site.spool.suppressions.keep([suppress(value_of(text), scope, reason, 1.0)])


def names(site: Site) -> list[str]:
    return [event.name for event in site.events]


def test_the_others_of_the_same_message_go_on(site: Site) -> None:
    keep_from(site, "Jane@in.test")
    assert site.submit(HELLO, "JANE@in.test", "joe@in.test").startswith("250 2.0.0 Ok: queued as ")
    [stored] = site.stored
    states = {one.address: one.state for one in stored.recipients.values()}
    assert states == {"JANE@in.test": State.SUPPRESSED, "joe@in.test": State.QUEUED}
    assert names(site) == ["message.created", "message.suppressed"]
    told = site.events[1].data
    assert (told["recipient"], told["reason"]) == ("JANE@in.test", "hard_bounce")
    assert told["message_id"] == stored.message.id
    assert told["subject"] == "x"
    assert site.events[0].data["bcc"] == ["JANE@in.test", "joe@in.test"]


def test_a_message_that_nobody_gets_is_accepted_all_the_same(site: Site) -> None:
    keep_from(site, "in.test", SuppressionReason.MANUAL)
    with grown() as growth:
        reply = site.submit(HELLO, "jane@in.test", "joe@in.test")
    assert reply.startswith("250 2.0.0 Ok: queued as ")
    assert site.stored == []
    assert names(site) == ["message.created", "message.suppressed", "message.suppressed"]
    assert {event.data["message_id"] for event in site.events} == {reply.rpartition(" ")[2]}
    assert growth["lettermta_recipients_total state=suppressed"] == 2
    assert growth["lettermta_recipients_suppressed_total found=submitted"] == 2
    assert growth["lettermta_messages_accepted_total"] == 1


def test_with_an_idempotency_key_the_answer_is_the_same_again(site: Site) -> None:
    keep_from(site, "jane@in.test")
    keyed = "Idempotency-Key: order-1\n" + HELLO
    first = site.submit(keyed, "jane@in.test")
    assert site.submit(keyed, "jane@in.test") == first
    assert names(site) == ["message.created", "message.suppressed"]


def test_broadcasts_are_kept_from_who_unsubscribed_and_other_mail_is_not(site: Site) -> None:
    site.accounts.create_route("demo", "news", kind=RouteKind.BROADCAST)
    keep_from(site, "jane@in.test", SuppressionReason.UNSUBSCRIBE)
    site.submit("X-Lettermint-Route: news\n" + HELLO, "jane@in.test")
    assert names(site) == ["message.created", "message.suppressed"]
    site.submit(HELLO, "jane@in.test")
    assert names(site)[2:] == ["message.created"]
    assert len(site.stored) == 1


def test_what_one_route_or_project_keeps_back_another_one_sends(site: Site) -> None:
    route = site.accounts.create_route("demo", "other")
    keep_from(site, "jane@in.test", scope=Scope(site.project.id, "demo", route.id, "other"))
    keep_from(site, "jane@in.test", scope=Scope("another", "another"))
    site.submit(HELLO, "jane@in.test")
    assert names(site) == ["message.created"]
    site.submit("X-Lettermint-Route: other\n" + HELLO, "jane@in.test")
    assert names(site)[1:] == ["message.created", "message.suppressed"]


def test_while_the_list_can_not_be_read_mail_has_to_come_again(site: Site) -> None:
    """Neither is anything sent to somebody who may be on it, nor is anything lost."""
    site.spool.suppressions.broken = OSError("disk I/O error")
    assert site.submit(HELLO, "jane@in.test").startswith("452 4.3.1 ")
    assert site.stored == []
    site.spool.suppressions.broken = None
    assert site.submit(HELLO, "jane@in.test").startswith("250 ")
