"""Reports to senders: stored with the outcome that they tell of, to those who want them, and never on themselves (RFC 3461, 3464)."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from attrs import evolve
from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from lettermta.delivery.recorder import RECORD_AGAIN_SECONDS
from lettermta.delivery.reporter import LARGEST, ReportRules
from lettermta.delivery.transports.connecting import Target
from lettermta.event import CREATED, message_event
from lettermta.message import BodyType, Message, Notify, Options, Recipient, Reply, State, Unreachable, Verdict
from lettermta.smtp.client import ClientSession
from lettermta.smtp.client_capabilities import Capabilities
from lettermta.smtp.client_settings import ClientSettings
from lettermta.testing.spool import MemorySpool

from .scripted import LATER, NEVER, OK, StagedSpool, World, answer, make_message, unreachable

RULES = ReportRules("mta.example.org")
SUCCESS = frozenset({Notify.SUCCESS})


def world_with(rules: ReportRules = RULES, spool: MemorySpool | None = None) -> World:
    """A world whose sender's domain takes no mail for now, so that reports can be looked at in the spool."""
    world = World(spool, reporter=rules).start()
    world.place("example.net").holding = True
    return world


def submit(world: World, *recipients: Recipient, **changes: object) -> Message:
    message = make_message(world.spool, [one.address for one in recipients], world.now())
    lifetime = changes.pop("lifetime", 432_000.0)
    assert isinstance(lifetime, float)
    message = evolve(message, recipients=recipients, expires=world.now() + lifetime, **changes)
    world.spool.store(message, [message_event(CREATED, world.now(), message.id, message.facts, message.context)])
    return message


def reports(world: World) -> list[Message]:
    return [stored.message for stored in world.spool.stored.values() if stored.message.options.report]


def parsed(world: World, report: Message) -> tuple[EmailMessage, EmailMessage, list[EmailMessage]]:
    """The report, and of its second part the fields of the message and those of each recipient."""
    [content] = [stored.content for stored in world.spool.stored.values() if stored.message is report]
    mail = message_from_bytes(content, policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert mail.get_content_type() == "multipart/report"
    _, status, _ = mail.get_payload()
    message, *recipients = status.get_payload()
    return mail, message, recipients


def fields_of(world: World) -> list[EmailMessage]:
    [report] = reports(world)
    return parsed(world, report)[2]


def test_a_refused_recipient_among_accepted_ones_is_reported():
    world = world_with()
    world.place("example.com").answer = lambda entry, one: Verdict(one, NEVER if one.address.startswith("bad") else OK, handed_over=True)
    original = submit(world, Recipient("good@example.com"), Recipient("bad@example.com", orcpt="rfc822;alias@example.com"))
    [report] = reports(world)
    assert (report.sender, report.recipients) == ("", (Recipient("shop@example.net", frozenset({Notify.NEVER})),))
    assert (report.project, report.route_id, report.route) == ("demo", "r1", "outgoing")
    assert report.options == Options(report=True)
    mail, message, [fields] = parsed(world, report)
    assert mail["To"] == "shop@example.net"
    assert mail["Message-ID"] == f"<{report.id}@mta.example.org>"
    assert message["X-Lettermta-Message-ID"] == original.id
    assert fields["Final-Recipient"] == "rfc822;bad@example.com"
    assert fields["Original-Recipient"] == "rfc822;alias@example.com"
    assert (fields["Action"], fields["Status"], fields["Remote-MTA"]) == ("failed", "5.1.1", "dns; mx.example.com")
    assert fields["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert "Subject: Hello" in mail.get_payload()[2].as_string()


def test_a_report_is_delivered_like_any_mail_and_no_event_tells_of_it():
    world = World(reporter=RULES).start()
    world.place("example.com").answer = answer(NEVER)
    original = submit(world, Recipient("jane@example.com"))
    assert world.place("example.net").recipients == ["shop@example.net"]
    assert {event.message_id for _, event in world.spool.outbox} == {original.id}
    assert world.told() == ["hard_bounced"]
    assert not world.spool.stored
    world.assert_at_rest()


@pytest.mark.parametrize("reply", [NEVER, Reply(451, "4.2.2", "Full")])
def test_a_report_is_never_reported_on(reply):
    world = World(reporter=RULES).start()
    world.place("example.com").answer = answer(NEVER)
    world.place("example.net").answer = answer(reply)
    submit(world, Recipient("jane@example.com"))
    with capturedLogs() as logged:
        world.clock.pump([300.0] * 2000)
    assert not world.spool.stored
    assert world.told() == ["hard_bounced"]
    assert len([e for e in logged if "report" in (e.get("log_format") or "")]) == (reply is not NEVER)
    world.assert_at_rest()


@pytest.mark.parametrize(
    ("recipient", "changes"),
    [
        (Recipient("jane@example.com", frozenset({Notify.NEVER})), {}),
        (Recipient("jane@example.com", SUCCESS), {}),
        (Recipient("jane@example.com"), {"sender": ""}),
    ],
    ids=["NEVER", "SUCCESS alone", "null sender"],
)
def test_who_does_not_want_a_report_gets_none(recipient, changes):
    world = world_with()
    world.place("example.com").answer = answer(NEVER)
    submit(world, recipient, **changes)
    assert world.told() == ["hard_bounced"]
    assert not world.spool.stored


def test_reports_can_be_switched_off():
    world = world_with(ReportRules("mta.example.org", enabled=False, warn_after=1.0))
    world.place("example.com").answer = answer(NEVER)
    submit(world, Recipient("jane@example.com"), Recipient("joe@other.example", SUCCESS))
    assert not world.spool.stored


def test_an_expired_recipient_is_reported_as_out_of_time():
    world = world_with()
    world.place("example.com").answer = answer(LATER)
    submit(world, Recipient("jane@example.com"), lifetime=30.0)
    world.clock.advance(30)
    assert world.told() == ["soft_bounced", "failed"]
    [fields] = fields_of(world)
    assert (fields["Action"], fields["Status"]) == ("failed", "4.4.7")
    assert fields["Diagnostic-Code"] == "smtp; 451 4.7.1 Try again later"


@pytest.mark.parametrize("fault", [Reply(556, "5.1.10", "The domain takes no mail"), Reply(550, None, "No")])
def test_what_we_say_ourselves_is_not_called_a_reply(fault):
    world = world_with()
    world.place("example.com").fault = Unreachable(fault)
    submit(world, Recipient("jane@example.com"))
    [fields] = fields_of(world)
    assert fields["Status"] == (fault.enhanced or "5.0.0")
    assert fields["Diagnostic-Code"] == f"X-Lettermta; {fault.text}"
    assert fields["Remote-MTA"] is None


# -- together with the outcome


def test_the_report_is_in_the_commit_of_the_outcome():
    spool = StagedSpool()
    world = World(spool, reporter=RULES)
    world.scheduler.start()
    spool.settle()
    world.place("example.com").answer = answer(NEVER)
    world.place("example.net").holding = True
    world.submit("jane@example.com")
    while len(spool.stored) < 2:
        assert [one.state for one in world.recipients()] in ([], [State.QUEUED]), "it ended before its report was there"
        (spool.write_one if spool.writes else spool.read_one if spool.reads else spool.call_one)()
        if spool.stored and reports(world):
            break
    assert [message.options.report for message in (one.message for one in spool.stored.values())] == [True]


def test_what_could_not_be_recorded_is_recorded_later_with_one_report():
    world = world_with()
    place = world.place("example.com")
    place.holding = True
    submit(world, Recipient("jane@example.com"))
    world.spool.broken = OSError("no space left")
    [channel] = place.channels
    place.answer = answer(NEVER)
    channel.finish()
    assert not reports(world)
    world.spool.broken = None
    world.clock.advance(RECORD_AGAIN_SECONDS)
    assert len(reports(world)) == 1
    assert world.told() == ["hard_bounced"]


def test_content_that_is_gone_costs_the_header_block_and_not_the_outcome():
    world = world_with()
    world.place("example.com").fault = Unreachable(NEVER)
    world.spool.load = lambda entry: fail(LookupError("gone"))  # type: ignore[method-assign]
    world.reporter._load = world.spool.load
    submit(world, Recipient("jane@example.com"))
    assert world.told() == ["failed"]
    assert fields_of(world)[0]["Action"] == "failed"


def test_a_fault_in_making_a_report_does_not_keep_the_outcome_from_the_record():
    world = world_with()
    world.place("example.com").fault = Unreachable(NEVER)
    world.reporter._content = None
    with capturedLogs() as logged:
        submit(world, Recipient("jane@example.com"))
    assert world.told() == ["failed"]
    assert not world.spool.stored
    assert [event for event in logged if "no report" in (event.get("log_format") or "")]


def test_a_stop_waits_for_reports_that_are_being_made():
    spool = StagedSpool()
    world = World(spool, reporter=RULES)
    world.scheduler.start()
    spool.settle()
    place = world.place("example.com")
    place.holding = True
    world.submit("jane@example.com")
    spool.settle()
    place.answer = answer(NEVER)
    place.channels[0].finish()
    stopped: list[object] = []
    world.scheduler.stop().addCallback(stopped.append)
    assert not stopped
    spool.settle()
    assert stopped
    assert len(reports(world)) == 1


def test_one_sender_gets_so_many_reports_a_minute():
    """HARD-CASES row 25: whoever has a forged sender bounce by the thousand floods nobody."""
    world = world_with(ReportRules("mta.example.org", per_minute=5))
    world.place("example.com").answer = answer(NEVER)
    with capturedLogs() as logged:
        for number in range(20):
            submit(world, Recipient(f"u{number}@example.com"))
        submit(world, Recipient("u@example.com"), sender="other@example.net")
    assert len(reports(world)) == 6
    assert world.told().count("hard_bounced") == 21
    assert len([event for event in logged if "reports of this minute" in (event.get("log_format") or "")]) == 15
    world.clock.advance(60)
    submit(world, Recipient("u@example.com"))
    assert len(reports(world)) == 7


def test_a_hundred_verbose_refusals_make_reports_that_fit_into_memory():
    world = world_with()
    world.place("example.com").answer = answer(Reply(550, "5.1.1", "x" * 5000))
    submit(world, *[Recipient(f"{'u' * 50}{number}@example.com") for number in range(100)])
    assert len(reports(world)) > 1
    assert all(report.size <= LARGEST + 2 for report in reports(world))
    told = [fields["Final-Recipient"] for report in reports(world) for fields in parsed(world, report)[2]]
    assert len(set(told)) == len(told) == 100


# -- what of the original


def test_the_original_comes_back_whole_when_it_was_asked_for():
    world = world_with()
    world.place("example.com").answer = answer(NEVER)
    submit(world, Recipient("jane@example.com"), options=Options(ret="FULL", envid="order 42"))
    [report] = reports(world)
    mail, message, _ = parsed(world, report)
    assert message["Original-Envelope-Id"] == "order 42"
    [whole] = mail.get_payload()[2].get_payload()
    assert whole.get_payload() == "A body.\r\n" or whole.get_payload() == "A body.\n"
    assert report.options.ret is None


def test_what_travelled_encrypted_is_reported_encrypted():
    world = world_with()
    world.place("example.com").answer = answer(NEVER)
    submit(world, Recipient("jane@example.com"), options=Options(require_tls=True))
    assert reports(world)[0].options.require_tls


def test_mail_in_utf8_is_reported_in_utf8():
    world = world_with()
    world.place("example.com").answer = answer(NEVER)
    submit(world, Recipient("jané@example.com"), sender="büro@example.net", options=Options(smtputf8=True))
    [report] = reports(world)
    assert (report.options.smtputf8, report.options.body) == (True, BodyType.EIGHT_BIT)


# -- delays and successes


def test_a_delay_is_told_once_when_it_has_lasted_long_enough():
    world = World(delays=(600.0,), reporter=ReportRules("mta.example.org", warn_after=1500.0)).start()
    world.place("example.net").holding = True
    world.place("example.com").answer = answer(LATER)
    submit(world, Recipient("jane@example.com"), Recipient("joe@example.com", SUCCESS))
    world.clock.advance(600)
    world.clock.advance(600)
    assert not reports(world), "it is late by 1200 seconds"
    world.clock.advance(600)
    [fields] = fields_of(world)
    assert (fields["Action"], fields["Status"], fields["Final-Recipient"]) == ("delayed", "4.7.1", "rfc822;jane@example.com")
    assert fields["Will-Retry-Until"]
    world.clock.advance(600)
    assert len(reports(world)) == 1
    for one in world.recipients():
        assert one.warned or one.address == "shop@example.net"


def test_a_delay_is_not_told_again_after_a_restart():
    rules = ReportRules("mta.example.org", warn_after=900.0)
    world = World(delays=(600.0,), reporter=rules).start()
    world.place("example.net").holding = True
    world.place("example.com").fault = unreachable()
    submit(world, Recipient("jane@example.com"))
    world.clock.advance(600)
    world.scheduler.stop()
    world.spool._listeners.clear()
    world.scheduler = world.new_scheduler()
    world.start()
    assert not reports(world)
    for _ in range(6):
        world.clock.advance(600)
    assert len(reports(world)) == 1, "the first deferral was before the restart"


def test_a_delay_is_told_of_mail_that_waited_untried_for_a_dead_destination():
    world = World(reporter=ReportRules("mta.example.org", warn_after=900.0)).start()
    world.place("example.net").holding = True
    world.place("example.com").fault = unreachable()
    for name in ("jane", "joe", "jill"):
        submit(world, Recipient(f"{name}@example.com"))
    for _ in range(14):
        world.clock.advance(60)
    assert not reports(world)
    for _ in range(60):
        world.clock.advance(60)
    assert len(reports(world)) == 3, "once for each"


def test_success_is_told_as_relayed_where_the_next_server_cannot():
    world = world_with()
    submit(world, Recipient("jane@example.com", SUCCESS), Recipient("joe@example.com"))
    [fields] = fields_of(world)
    assert (fields["Action"], fields["Status"], fields["Final-Recipient"]) == ("relayed", "2.0.0", "rfc822;jane@example.com")
    assert fields["Remote-MTA"] == "dns; mx.example.com"


def test_success_is_left_to_the_next_server_where_it_offers_dsn():
    world = world_with()
    world.place("example.com").dsn = True
    submit(world, Recipient("jane@example.com", SUCCESS))
    assert world.told() == ["sent", "delivered"]
    assert not world.spool.stored


def test_success_is_told_as_delivered_where_the_way_ends_here():
    world = world_with()
    place = world.place("example.com")
    place.holding = True
    submit(world, Recipient("jane@example.com", SUCCESS))
    place.channels[0].host = None
    place.channels[0].finish()
    [fields] = fields_of(world)
    assert (fields["Action"], fields["Remote-MTA"]) == ("delivered", None)


def test_success_costs_no_look_at_the_content_and_no_turn():
    """The hot path: what nobody is to be told of is settled at once."""
    world = world_with()
    loads = []
    world.reporter._load = loads.append
    submit(world, Recipient("jane@example.com"), Recipient("joe@example.com", frozenset({Notify.FAILURE})))
    world.place("example.com").answer = answer(LATER)
    submit(world, Recipient("jane@example.com"))
    assert not loads
    assert not world.scheduler._recorder._reports


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (Target("mx.example.com", "192.0.2.1", 25), "mx.example.com"),
        (Target("192.0.2.1", "192.0.2.1", 25), "[192.0.2.1]"),
        (Target("2001:db8::1", "2001:db8::1", 25), "[2001:db8::1]"),
    ],
    ids=str,
)
def test_a_session_knows_whose_it_is(target, host):
    session = ClientSession(FakeWire(), Clock(), ClientSettings("mta.example.org"), str(target))
    assert session.host == host
    assert session.dsn is False
    session.capabilities = Capabilities.parse(["mx.example.com", "DSN"])
    assert session.dsn is True


class FakeWire:
    """A wire that nothing is sent on."""
