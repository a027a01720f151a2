"""Policies: shown each message before it is stored, and never able to do more than a verdict says (docs/policies.md)."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from lettermta.accounts.model import RouteKind
from lettermta.interfaces import ISubmissionPolicy
from lettermta.message import State
from lettermta.policy import Accept, Hold, PolicyMessage, Refuse
from lettermta.submission.control import MetadataBounds
from lettermta.submission.policies import NamedPolicy, Policies
from tests.submission.conftest import HEAD, HELLO, Site, leaving
from tests.test_counts import grown

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
LATER = "451 4.3.0 The message could not be judged, try again later"
LIMIT = 5.0


@implementer(ISubmissionPolicy)
class Deciding:
    """Decides as the test says, and keeps what it was shown."""

    def __init__(self, decide: Callable[[PolicyMessage], Any]) -> None:
        self.decide = decide
        self.shown: list[PolicyMessage] = []

    def look_at(self, message: PolicyMessage) -> Any:
        self.shown.append(message)
        return self.decide(message)


class Judging:
    """A site whose submission has policies; ``lenient`` may be set until the first message."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.clock = Clock()
        self.lenient = False

    def by(self, *policies: Any) -> list[Any]:
        """Have these asked, where each may be a function that decides."""
        made = [Deciding(policy) if not ISubmissionPolicy.providedBy(policy) else policy for policy in policies]
        named = [NamedPolicy(f"test.p{number}", policy) for number, policy in enumerate(made)]
        judges = Policies(named, self.clock, time_limit=LIMIT, lenient=self.lenient, metadata=MetadataBounds())
        self.site.submission.policies = judges
        self.site.kept = None
        return made


@pytest.fixture
def judging(site: Site) -> Judging:
    return Judging(site)


def raising(message: PolicyMessage) -> None:
    raise RuntimeError("the list of customers is away")


def test_a_policy_is_shown_what_was_sent_without_control_headers(judging: Judging) -> None:
    site = judging.site
    (policy,) = judging.by(lambda message: None)
    stored = site.accepted(
        "X-LM-Tag: orders\nX-Metadata-Order: 12\nBcc: c@in.test\nIdempotency-Key: k\n"
        "From: =?utf-8?q?J=C3=BCrgen?= <a@out.test>\nSubject: Your\n order\nX-Own: 1\nx-own: 2\n\nThank you.\n",
        "b@in.test",
        "c@in.test",
    )
    (shown,) = policy.shown
    assert shown.id == stored.message.id
    assert (shown.project, shown.route, shown.sender) == ("demo", "outgoing", "a@out.test")
    assert [recipient.address for recipient in shown.recipients] == ["b@in.test", "c@in.test"]
    assert (shown.peer.address, shown.peer.login) == ("192.0.2.9", "PLAIN")
    assert (shown.tag, shown.metadata) == ("orders", {"Order": "12"})
    assert list(shown.headers) == [("From", "Jürgen <a@out.test>"), ("Subject", "Your order"), ("X-Own", "1"), ("x-own", "2")]
    assert shown.header("SUBJECT") == "Your order"
    assert shown.header("X-OWN") == "1"
    assert shown.header("Bcc") is None
    assert shown.body_size == len("Thank you.\r\n")
    assert leaving(stored).startswith(b"From: =?utf-8?q?J"), "what is accepted as it is leaves as it came"


@pytest.mark.parametrize("verdict", [None, Accept()])
@pytest.mark.parametrize("how", [lambda verdict: verdict, succeed, "coroutine"])
def test_what_is_accepted_as_it_is_is_stored_as_it_came(judging: Judging, verdict: Any, how: Any) -> None:
    async def later(message: PolicyMessage) -> Any:
        await succeed(None)
        return verdict

    judging.by(later if how == "coroutine" else lambda message: how(verdict))
    with grown() as growth:
        stored = judging.site.accepted(HELLO)
    assert leaving(stored) == HELLO.replace("\n", "\r\n").encode()
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=accepted"] == 1
    assert growth["lettermta_messages_accepted_total"] == 1


def test_changes_show_in_what_leaves_in_the_queue_and_in_every_event(judging: Judging) -> None:
    site = judging.site
    site.accounts.create_route("demo", "newsletter", kind=RouteKind.BROADCAST)
    judging.by(
        lambda message: Accept(
            remove=["x-old", "Subject"],
            add=[("X-New", "1"), ("Subject", "Grüße")],
            tag="news letter",
            metadata={"list": "7"},
            route="newsletter",
        )
    )
    with grown() as growth:
        stored = site.accepted("X-Metadata-order: 1\nX-Tag: old\nX-Old: a\nX-OLD: b\n" + HEAD + "\nhello\n")
    assert leaving(stored) == b"From: a@out.test\r\nX-New: 1\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\nhello\r\n"
    assert (stored.message.route, stored.message.tag) == ("newsletter", "news letter")
    assert stored.message.metadata == {"order": "1", "list": "7"}
    assert site.data["subject"] == "Grüße"
    assert (site.data["tag"], site.data["metadata"]) == ("news letter", {"order": "1", "list": "7"})
    assert site.data["headers"] == [{"name": "X-New", "value": "1"}]
    assert site.events[-1].context["route"] == "newsletter"
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=changed"] == 1


def test_a_route_brings_its_own_lifetime(judging: Judging) -> None:
    site = judging.site
    site.accounts.create_route("demo", "quick")
    site.accounts.update_route("demo", "quick", lambda route: evolve(route, lifetime=60.0))
    judging.by(lambda message: Accept(route="quick"))
    message = site.accepted(HELLO).message
    assert message.expires - message.created == 60.0


def test_a_tag_is_taken_off_by_the_empty_text(judging: Judging) -> None:
    judging.by(lambda message: Accept(tag=""))
    assert judging.site.accepted("X-Tag: old\n" + HELLO).message.tag is None


def test_each_policy_sees_what_those_before_it_made(judging: Judging) -> None:
    first, second, third = judging.by(
        lambda message: Accept(tag="a", add={"X-First": "1"}, metadata={"k": "1"}),
        lambda message: Accept(remove=["X-First"], metadata={"k": "2"}),
        lambda message: None,
    )
    stored = judging.site.accepted(HELLO)
    assert second.shown[0].tag == "a"
    assert second.shown[0].header("X-First") == "1"
    assert second.shown[0].metadata == {"k": "1"}
    assert third.shown[0].header("X-First") is None
    assert stored.message.metadata == {"k": "2"}
    assert first.shown[0].id == third.shown[0].id == stored.message.id


def test_a_refusal_is_the_clients_reply_and_keeps_nothing(judging: Judging) -> None:
    site = judging.site
    _, later = judging.by(lambda message: Refuse("Not today", code=450), lambda message: None)
    with grown() as growth:
        assert site.submit(HELLO) == "450 4.7.1 Not today"
    assert site.stored == []
    assert site.events == []
    assert later.shown == []
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=refused"] == 1
    assert growth["lettermta_messages_refused_total cause=policy"] == 1


def test_what_is_held_gets_its_250_and_waits_for_its_release(judging: Judging) -> None:
    site = judging.site
    _, later = judging.by(lambda message: Hold(reason="somebody is to look", tag="odd"), lambda message: None)
    with grown() as growth:
        stored = site.accepted(HELLO, "b@in.test", "c@elsewhere.test")
    assert {one.state for one in stored.recipients.values()} == {State.HELD}
    assert stored.message.held == "somebody is to look"
    assert stored.message.tag == "odd"
    assert len(later.shown) == 1
    assert [event.name for event in site.events] == ["message.created"]
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=held"] == 1
    assert growth["lettermta_policy_verdicts_total policy=test.p1 verdict=accepted"] == 1


def test_a_later_policy_may_refuse_what_an_earlier_one_holds(judging: Judging) -> None:
    judging.by(lambda message: Hold(reason="a look"), lambda message: Refuse("No"))
    assert judging.site.submit(HELLO) == "550 5.7.1 No"
    assert judging.site.stored == []


async def exiting(message: PolicyMessage) -> None:
    raise SystemExit(1)


NO_VERDICTS = {
    "raises": raising,
    "fails": lambda message: fail(RuntimeError("no")),
    "ends the process": exiting,
    "nonsense": lambda message: "250 fine",
    "nonsense later": lambda message: succeed(True),
    "bad tag": lambda message: Accept(tag="a,b"),
    "long tag": lambda message: Accept(tag="a" * 256),
    "bad metadata": lambda message: Accept(metadata={"k": "v" * 1001}),
    "too much metadata": lambda message: Accept(metadata={str(number): "" for number in range(51)}),
    "no such route": lambda message: Accept(route="nowhere"),
    "no From left": lambda message: Accept(remove=["From"]),
    "two From": lambda message: Accept(add={"From": "z@out.test"}),
    "a line too long": lambda message: Accept(add={"X-Long": "x" * 1000}),
    "a line end": lambda message: Accept(add={"X-A": "1\r\nBcc: everybody@in.test"}),
    "a control header": lambda message: Accept(add={"X-LM-Tag": "orders"}),
    "Received": lambda message: Accept(remove=["received"]),
    "a code that is none": lambda message: Refuse("No", code=250),
    "a mixed reply": lambda message: Refuse("No", code=451, enhanced="5.7.1"),
    "a reply of two lines": lambda message: Refuse("No\r\n250 Ok"),
    "a reply that is not ASCII": lambda message: Refuse("Nö"),
}


@pytest.mark.parametrize("fault", NO_VERDICTS)
def test_without_a_verdict_the_client_is_to_try_again(judging: Judging, fault: str) -> None:
    site = judging.site
    judging.by(NO_VERDICTS[fault], lambda message: None)
    with grown() as growth:
        assert site.submit(HELLO) == LATER
    assert site.stored == []
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=failed"] == 1
    assert growth["lettermta_messages_refused_total cause=policy_failure"] == 1
    judging.by(lambda message: None)
    site.accepted(HELLO)


@pytest.mark.parametrize("fault", NO_VERDICTS)
def test_or_the_message_goes_on_without_it_where_the_operator_says_so(judging: Judging, fault: str) -> None:
    judging.lenient = True
    _, later = judging.by(NO_VERDICTS[fault], lambda message: Accept(add={"X-Seen": "yes"}))
    with grown() as growth:
        stored = judging.site.accepted(HELLO)
    assert leaving(stored) == b"From: a@out.test\r\nSubject: x\r\nX-Seen: yes\r\n\r\nhello\r\n"
    assert len(later.shown) == 1
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=failed"] == 1


def test_the_log_names_policy_and_message_and_why(judging: Judging, logged: list[Any]) -> None:
    judging.by(raising)
    judging.site.submit(HELLO)
    (told,) = [event for event in logged if event.get("policy")]
    assert told["policy"] == "test.p0"
    assert re.fullmatch(r"[0-9a-f-]{36}", told["id"])
    assert "the list of customers is away" in str(told["log_failure"])


def stubborn() -> Deferred[None]:
    """Of no use to anybody who cancels it."""

    async def on_and_on() -> None:
        while True:
            try:
                await Deferred()
            except Exception:
                continue

    return Deferred.fromCoroutine(on_and_on())


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("waiting", [Deferred, stubborn])
def test_a_policy_that_takes_too_long_is_not_waited_for(judging: Judging, waiting: Callable[[], Any], lenient: bool) -> None:
    site = judging.site
    judging.lenient = lenient
    judging.by(lambda message: waiting())
    client = site.logged_in()
    client.mail()
    client.says("DATA")
    assert client.sends(HELLO.replace("\n", "\r\n").encode() + b".\r\n") == []
    judging.clock.advance(LIMIT - 0.01)
    assert client.take() == []
    with grown() as growth:
        judging.clock.advance(0.01)
        (reply,) = client.take()
    assert reply.startswith("250 ") if lenient else reply == LATER
    assert growth["lettermta_policy_verdicts_total policy=test.p0 verdict=timed_out"] == 1
    assert judging.clock.getDelayedCalls() == []


def test_other_sessions_go_on_while_a_policy_thinks(judging: Judging) -> None:
    site, thinking = judging.site, []
    judging.by(lambda message: thinking.append(Deferred()) or thinking[-1])
    first, second = site.logged_in(), site.logged_in()
    for client in (first, second):
        client.mail()
        client.says("DATA")
        assert client.sends(HELLO.replace("\n", "\r\n").encode() + b".\r\n") == []
    thinking[1].callback(Refuse("No"))
    assert second.take() == ["550 5.7.1 No"]
    assert first.take() == []
    thinking[0].callback(None)
    assert first.take()[0].startswith("250 ")


def test_a_message_that_comes_again_is_answered_again_without_asking(judging: Judging) -> None:
    site = judging.site
    (policy,) = judging.by(lambda message: Refuse("Later", code=451) if len(policy_shown) < 2 else Accept(tag="judged"))
    policy_shown = policy.shown
    keyed = "Idempotency-Key: k\n" + HELLO
    assert site.submit(keyed).startswith("451 "), "a refusal leaves the key free"
    first = site.submit(keyed)
    assert first.startswith("250 ")
    assert site.submit(keyed) == first
    assert len(policy.shown) == 2
    assert [stored.message.tag for stored in site.stored] == ["judged"]


def test_a_changed_from_has_to_be_of_the_projects_domains(judging: Judging) -> None:
    site = judging.site
    site.accounts.create_domain("demo", "out.test")
    site.accounts.update_project("demo", lambda project: evolve(project, check_sender=True))
    judging.by(lambda message: Accept(remove=["From"], add={"From": "ceo@bank.test"}))
    assert site.submit(HELLO) == LATER


def test_a_body_is_read_in_pieces_as_often_as_wanted(judging: Judging) -> None:
    bodies: list[bytes] = []

    async def read(message: PolicyMessage) -> None:
        bodies.append(b"".join([piece async for piece in message.body()]))
        bodies.append(b"".join([piece async for piece in message.body()]))

    judging.by(read)
    body = b"0123456789abcdef\r\n" * 10_000
    stored = judging.site.accepted(HEAD.replace("\n", "\r\n").encode() + b"\r\n" + body)
    assert bodies == [body, body]
    assert stored.content.endswith(b"\r\n\r\n" + body)


def test_without_policies_nobody_is_asked(site: Site) -> None:
    assert site.submission.policies is None
    with grown() as growth:
        site.accepted(HELLO)
    assert not [name for name in growth if "policy" in name]


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_the_name_and_value_one_field_is_added_or_none(name: str, value: str) -> None:
    """HARD-CASES row 34: nobody can put a line of his own into the header block."""
    try:
        verdict = Accept(add={name: value})
    except ValueError:
        return
    (raw,) = verdict.add
    assert raw.endswith(b"\r\n")
    assert raw.startswith(name.encode("ascii") + b":")
    lines = raw[:-2].split(b"\r\n")
    assert all(line[:1] in (b" ", b"\t") and line.strip() for line in lines[1:])
    assert not re.search(rb"[\r\n\x00]", b"".join(lines))


@pytest.mark.parametrize("name", ["", "a b", "a:", "X-Lettermint-Route", "x-metadata-k", "BCC", "ü", "a\r\nb", "x" * 77])
def test_fields_that_steer_or_are_none_can_be_neither_added_nor_removed(name: str) -> None:
    with pytest.raises(ValueError):
        Accept(add={name: "x"})
    with pytest.raises(ValueError):
        Accept(remove=[name])


class Example:
    """The page's code, as a module."""

    def __init__(self) -> None:
        (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
        self.module = types.ModuleType("example_policies")
        exec(code, self.module.__dict__)


def test_the_pages_policies_work_as_shown(judging: Judging) -> None:
    site, example = judging.site, Example().module
    judging.by(example.NoPrograms(endings=".exe .scr"), example.Invoices(), example.HoldBulk(most="2"))
    program = 'Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Disposition: attachment; filename="holiday.SCR"\n\nMZ\n--b--\n'
    assert site.submit(HEAD + program) == "550 5.7.1 Programs are not sent by mail here"
    assert site.submit(HEAD + program.replace(".SCR", ".pdf")).startswith("250 ")
    far = "x" * 59 + "\n"
    assert site.submit(HEAD + program.replace("\n\n--b\n", "\n\n" + far * 1091 + "--b\n")).startswith("550 "), "across two pieces"
    invoice = site.accepted("From: a@out.test\nSubject: Rechnung 17\n\nhello\n")
    assert (invoice.message.tag, invoice.message.metadata) == ("invoices", {"kind": "invoice"})
    assert b"\r\nX-Judged-By: Invoices\r\n" in invoice.content
    assert site.accepted(HELLO).message.tag is None
    held = site.accepted(HELLO, "a@in.test", "b@in.test", "c@in.test")
    assert {one.state for one in held.recipients.values()} == {State.HELD}
    assert held.message.held == "to 3 recipients at once: somebody is to look at it"
    assert not site.accepted(HELLO, "a@in.test", "b@in.test").message.held
