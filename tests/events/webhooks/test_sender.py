"""Webhooks over simulated hours: what endpoints of all sorts are told, when, and that none holds up another (HARD-CASES rows 19 and 31)."""

from __future__ import annotations

import base64
import hmac
from collections import Counter
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol

from lettermta.accounts.webhooks import new_secret
from lettermta.events.webhooks.connecting import _BoundingFactory
from lettermta.events.webhooks.queue import KEEP, KEEP_FAILING
from tests.events.webhooks.place import CONTEXT, HOST, NOW, OK, Place, Request, Wire, answer, event, status

OTHER = "203.0.113.7"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "deliveries")
    place.sender.start()
    return place


# -- what is told


def test_an_event_is_posted_as_it_stands_over_one_connection(place: Place) -> None:
    webhook = place.webhook(f"http://{HOST}:8080/hook?a=1")
    host = place.host()
    told = place.happen(event("message.created"), event("message.sent"), event("message.delivered", response={"status_code": 250}))
    assert [request.body for request in host.requests] == [one.payload for one in told]
    assert {request.connection for request in host.requests} == {1}
    request = host.requests[1]
    assert (request.path, request.headers["host"], request.headers["x-lettermint-event"]) == ("/hook?a=1", f"{HOST}:8080", "message.sent")
    assert request.headers["content-type"] == "application/json"
    assert {"X-Lettermint-Signature", "X-Lettermint-Event", "X-Lettermint-Delivery", "X-Lettermint-Attempt"} <= set(request.names)
    assert {"webhook-id", "webhook-timestamp", "webhook-signature"} <= set(request.names)
    key = base64.b64decode(webhook.secret[6:])
    signed = f"{told[1].id}.{int(NOW)}.".encode() + told[1].payload
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    first = place.records()[0]
    assert (first["status"], first["attempt"], first["http_status"], first["response"], first["due"]) == ("success", 1, 200, "OK", None)


def test_each_webhook_gets_what_it_asked_for(place: Place) -> None:
    hosts = {name: place.host(f"203.0.113.{number}") for number, name in enumerate(("all", "some", "route", "off", "project"), 1)}
    urls = {name: f"http://{host.address}/" for name, host in hosts.items()}
    place.webhook(urls["all"], "all")
    place.webhook(urls["some"], "some", events=("message.delivered", "message.failed"))
    place.webhook(urls["route"], "route", route_id="other")
    place.webhook(urls["off"], "off", disabled=NOW)
    place.webhook(urls["project"], "project")
    place.change("project", project_id="another")
    place.happen(event("message.created"), event("message.delivered"))
    place.happen(event("message.failed", context=CONTEXT.replace(b'"r"', b'"other"')))
    got = {name: [request.headers["x-lettermint-event"] for request in host.requests] for name, host in hosts.items()}
    assert got == {
        "all": ["message.created", "message.delivered", "message.failed"],
        "some": ["message.delivered", "message.failed"],
        "route": ["message.failed"],
        "off": [],
        "project": [],
    }


def test_a_new_webhook_is_told_what_happens_from_then_on(place: Place) -> None:
    place.webhook()
    host = place.host()
    place.happen(event(at=NOW - 2))
    assert host.requests == []


def test_of_soft_bounces_the_first_one_alone_if_so_wished(place: Place) -> None:
    place.webhook(first_soft_bounce_only=True)
    host = place.host()
    first = event("message.soft_bounced", recipient="a@x.example")
    place.happen(first)
    place.happen(event("message.soft_bounced", recipient="a@x.example"), event("message.soft_bounced", recipient="b@x.example"))
    place.happen(first)  # told again, as after a crash
    place.happen(event("message.delivered", recipient="a@x.example"))
    told = [(request.headers["x-lettermint-event"], request.event["data"]["recipient"]) for request in host.requests]
    bounced, delivered = "message.soft_bounced", "message.delivered"
    assert told == [(bounced, "a@x.example"), (bounced, "b@x.example"), (delivered, "a@x.example")]


def test_events_that_are_told_to_us_twice_are_told_once(place: Place) -> None:
    place.webhook()
    host = place.host()
    told = place.happen(event(), event())
    place.happen(*told)
    assert host.ids() == [one.id for one in told]


def test_an_event_that_cant_be_read_keeps_no_other_from_being_told(place: Place) -> None:
    place.webhook()
    host = place.host()
    good = event()
    place.sender.take([b"damaged", b"{}", good.payload])
    place.settle()
    assert host.ids() == [good.id]


def test_events_of_one_message_go_out_one_after_the_other(place: Place) -> None:
    held: list[Wire] = []
    place.webhook()
    host = place.host(answering=lambda request, wire: held.append(wire))
    told = place.happen(event(message="m1"), event(message="m1"), event(message="m2"), event(message="m1"))
    assert host.ids() == [told[0].id, told[2].id], "the second of m1 waits for the first"
    for _ in range(2):
        held.pop(0).say(OK)
        place.settle()
    assert host.ids() == [told[0].id, told[2].id, told[1].id]
    held.pop(0).say(OK)
    place.settle()
    assert host.ids()[-1] == told[3].id


def test_changes_hold_from_the_next_attempt_on(place: Place) -> None:
    place.webhook(username="bob", password="old")
    host, other = place.host(answering=status(500)), place.host(OTHER)
    (told,) = place.happen(event())
    fresh = new_secret()
    place.change("w1", url=f"http://{OTHER}/new", username=None, password=None, secret=fresh)
    place.pass_time(6)
    assert (len(host.requests), len(other.requests)) == (1, 1)
    request = other.requests[0]
    signed = f"{request.headers['webhook-timestamp']}.".encode() + told.payload
    assert request.headers["x-lettermint-signature"].endswith("v1=" + hmac.digest(fresh.encode(), signed, "sha256").hex())
    assert "authorization" in host.requests[0].headers
    assert "authorization" not in request.headers


def test_a_deleted_webhook_is_told_nothing_and_forgotten(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(500))
    place.happen(event())
    place.webhooks = {}
    place.pass_time(700)
    assert len(host.requests) == 1
    assert place.records() == []


# -- endpoints that fail


def test_a_receiver_that_is_down_for_an_hour_gets_everything_at_its_times(place: Place) -> None:
    """At 0, 5 s, 5 min and 30 min behind each failure; the same id and octets each time, signed anew."""
    place.webhook()
    host = place.host()
    host.up = False
    (told,) = place.happen(event())
    place.pass_time(3600)
    assert [(record["status"], record["attempt"]) for record in place.records()] == [("failed", 4)]
    assert "no connection" in place.records()[0]["problem"]
    host.up = True
    place.pass_time(2 * 3600)
    assert host.times() == [pytest.approx(5 + 300 + 1800 + 7200, abs=5)]
    request = host.requests[0]
    assert (request.id, request.body, request.headers["x-lettermint-attempt"]) == (told.id, told.payload, "5")
    assert place.records()[0]["status"] == "success"


def test_an_endpoint_that_answers_500_is_tried_by_the_schedule_and_signed_anew(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(500))
    (told,) = place.happen(event())
    place.pass_time(320)
    assert host.times() == [0, pytest.approx(5, abs=1), pytest.approx(305, abs=2)]
    assert {(request.id, request.body) for request in host.requests} == {(told.id, told.payload)}
    assert [request.headers["x-lettermint-attempt"] for request in host.requests] == ["1", "2", "3"]
    for request in host.requests:
        moment = request.headers["webhook-timestamp"]
        assert int(moment) == int(NOW + request.at)
        assert request.headers["x-lettermint-delivery"] == moment
        assert request.headers["x-lettermint-signature"].startswith(f"t={moment},v1=")
    assert len({request.headers["webhook-signature"] for request in host.requests}) == 3
    (record,) = place.records()
    assert (record["status"], record["http_status"], record["response"]) == ("server_error", 500, "body")
    assert record["due"] == pytest.approx(NOW + 305 + 1800, abs=3)


def test_behind_the_last_attempt_it_is_given_up_and_stays_on_record(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(404))
    place.happen(event())
    place.pass_time(4 * 86_400, step=30)
    assert len(host.requests) == 10
    (record,) = place.records()
    assert (record["status"], record["attempt"], record["due"]) == ("client_error", 10, None)


def test_429_with_retry_after_leaves_the_whole_endpoint_alone_for_so_long(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(429, "Retry-After: 90"))
    first, second = event(message="m1"), event(message="m2")
    place.happen(first)
    place.happen(second)
    host.answering = answer(OK)
    place.pass_time(85)
    assert host.ids() == [first.id], "neither its retry nor another event before the time is over"
    place.pass_time(10)
    assert Counter(host.ids()) == {first.id: 2, second.id: 1}
    assert min(request.at for request in host.requests[1:]) == pytest.approx(90, abs=2)


def test_retry_after_as_a_date(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(503, "Retry-After: Mon, 21 Sep 2026 14:16:40 GMT"))  # NOW + 200 s
    place.happen(event())
    host.answering = answer(OK)
    place.pass_time(230)
    assert host.times() == [0, pytest.approx(200, abs=2)]


@pytest.mark.parametrize("code", [429, 502, 504])
def test_too_much_without_retry_after_is_a_pause(place: Place, code: int) -> None:
    place.webhook()
    host = place.host(answering=status(code))
    place.happen(event(message="m1"))
    place.happen(event(message="m2"))
    assert len(host.requests) == 1
    place.pass_time(1.5, step=0.5)
    assert len(host.requests) == 2


def test_a_hanging_endpoint_is_given_15_seconds(place: Place) -> None:
    place.webhook()
    host = place.host(answering=lambda request, wire: None)
    place.happen(event())
    place.pass_time(14)
    assert place.records()[0]["status"] == "pending"
    place.pass_time(2)
    (record,) = place.records()
    assert (record["status"], record["attempt"], record["http_status"]) == ("timeout", 1, None)
    assert record["seconds"] == pytest.approx(15, abs=1)
    assert host.wires[0].closed


def test_an_answer_that_trickles_is_given_15_seconds_in_all(place: Place) -> None:
    def trickle(request: Request, wire: Wire) -> None:
        wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for second in range(1, 100):
            place.callLater(second, wire.say, b"x")

    place.webhook()
    host = place.host(answering=trickle)
    place.happen(event())
    place.pass_time(20)
    assert place.records()[0]["status"] == "timeout"
    assert host.wires[0].closed
    assert host.wires[0].to_client < 200


def test_an_endless_body_is_not_read_to_its_end(place: Place) -> None:
    def endless(request: Request, wire: Wire) -> None:
        def more() -> None:
            if not wire.closed:
                wire.say(b"x" * 8192)
                place.callLater(0, more)

        wire.write(b"HTTP/1.1 500 No\r\n\r\n")
        more()

    place.webhook()
    host = place.host(answering=endless)
    place.happen(event())
    place.pass_time(3)
    (record,) = place.records()
    assert (record["status"], record["http_status"], record["response"]) == ("server_error", 500, "x" * 4096)
    assert host.wires[0].to_client < 300_000
    assert host.wires[0].closed


def test_endless_header_fields_end_the_connection(place: Place) -> None:
    def endless(request: Request, wire: Wire) -> None:
        def more() -> None:
            if not wire.closed:
                wire.say(b"X-Field: y\r\n" * 800)
                place.callLater(0, more)

        wire.write(b"HTTP/1.1 200 OK\r\n")
        more()

    place.webhook()
    host = place.host(answering=endless)
    place.happen(event())
    place.pass_time(3)
    assert place.records()[0]["status"] == "failed"
    assert host.wires[0].to_client < 300_000


def test_closing_what_is_closed_already_leaves_nothing_behind(place: Place) -> None:
    """A TLS connection that is cut when it is gone raises."""
    factory = _BoundingFactory(Factory.forProtocol(Protocol), place)
    before = len(place.getDelayedCalls())
    connection = factory.buildProtocol(IPv4Address("TCP", HOST, 443))
    connection.makeConnection(Wire(place, place.host(), connection))
    connection.loseConnection()
    assert len(place.getDelayedCalls()) > before
    place.settle()
    connection.loseConnection()
    assert len(place.getDelayedCalls()) == before


def test_a_retry_after_of_nothing_is_no_leave_to_go_on_at_full_speed(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(429, "Retry-After: 0"))
    place.happen(*[event(message=f"m{number}") for number in range(100)])
    place.pass_time(30)
    assert len(host.requests) < 30


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_to_loopback_is_not_followed(place: Place, code: int) -> None:
    place.webhook()
    inside = place.host("127.0.0.1")
    place.host(answering=status(code, "Location: http://127.0.0.1/admin"))
    place.happen(event())
    place.pass_time(2)
    (record,) = place.records()
    assert (record["status"], record["http_status"]) == ("failed", code)
    assert "http://127.0.0.1/admin" in record["problem"]
    assert (inside.requests, inside.wires) == ([], [])


@pytest.mark.parametrize(
    ("octets", "body"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nbye", "bye"),
        (b"HTTP/1.1 200 OK\r\n\r\nbye", "bye"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n", "bye"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye", "bye"),
        (b"HTTP/1.1 299 \xff\r\nContent-Length: 2\r\n\r\n\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_every_form_of_an_answer_that_says_done_is_done(place: Place, octets: bytes, body: str) -> None:
    def answering(request: Request, wire: Wire) -> None:
        wire.write(octets)
        if octets.endswith(b"\r\n\r\nbye") and b"Length" not in octets:  # its end is the connection's
            wire.hang_up()

    place.webhook()
    host = place.host(answering=answering)
    place.happen(event(), event())
    assert len(host.requests) == 2
    assert [(record["status"], record["response"]) for record in place.records()] == [("success", body)] * 2


def test_an_endpoint_that_closes_each_connection_without_a_word_is_no_failing_one(place: Place) -> None:
    """A request that meets a connection which is just being closed goes out again on a new one, at once."""
    dropped = 0

    def closing(request: Request, wire: Wire) -> None:
        nonlocal dropped
        if wire.answered:
            dropped += 1
            return
        wire.answered = True
        wire.write(OK)
        wire.hang_up()

    place.webhook()
    host = place.host(answering=closing)
    told = place.happen(event(), event(), event())
    assert dropped > 0
    assert list(dict.fromkeys(host.ids())) == [one.id for one in told]
    assert {(record["status"], record["attempt"]) for record in place.records()} == {("success", 1)}


def test_connections_that_were_all_closed_meanwhile_are_no_failure_either(place: Place) -> None:
    """Also where others of the same moment have to open new ones."""
    place.webhook()
    host = place.host(answering=lambda request, wire: None)
    place.happen(*(event(message=f"a{number}") for number in range(4)))
    for wire in host.wires:
        wire.answered = True
        wire.write(OK)
    place.settle()
    closing = list(host.wires)

    def answering(request: Request, wire: Wire) -> None:
        if wire in closing:
            wire.hang_up()
        else:
            wire.write(OK)

    host.answering = answering
    place.happen(*(event(message=f"b{number}") for number in range(10)))
    assert [(record["status"], record["attempt"]) for record in place.records()] == [("success", 1)] * 14


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(place: Place) -> None:
    place.webhook()
    host = place.host(answering=lambda request, wire: wire.hang_up())
    place.happen(event())
    assert len(host.requests) == 1
    assert place.records()[0]["status"] == "failed"


def test_no_answer_that_is_http_is_a_failure(place: Place) -> None:
    place.webhook()
    host = place.host(answering=answer(b"HTTP/"))
    place.happen(event())
    host.wires[0].hang_up()
    place.pass_time(2)
    assert place.records()[0]["status"] == "failed"


@pytest.mark.parametrize("code", [302, 429])
def test_fields_that_are_no_text_leave_the_answer_what_it_is(place: Place, code: int) -> None:
    place.webhook()
    place.host(answering=answer(b"HTTP/1.1 %d X\r\nLocation: \xff\x1b[31mred\r\nRetry-After: \xfe\r\nContent-Length: 0\r\n\r\n" % code))
    place.happen(event())
    record = place.records()[0]
    assert (record["status"], record["http_status"]) == ({302: "failed", 429: "client_error"}[code], code)
    assert record["problem"].isprintable(), "it is shown on terminals"


@pytest.mark.parametrize(
    ("written", "sent"), [("", "/"), ("/", "/"), ("?a=1", "/?a=1"), ("/a;b=1?c=%20&d", "/a;b=1?c=%20&d"), ("//a//", "//a//")]
)
def test_the_path_and_the_query_are_sent_as_they_are_written(place: Place, written: str, sent: str) -> None:
    place.webhook(f"http://{HOST}{written}")
    host = place.host()
    place.happen(event())
    assert host.requests[0].path == sent


@pytest.mark.parametrize(("written", "host"), [(HOST, HOST), (f"{HOST}:80", HOST), (f"{HOST}:443", f"{HOST}:443")])
def test_the_host_is_named_once_and_without_the_schemes_own_port(place: Place, written: str, host: str) -> None:
    place.webhook(f"http://{written}/hook")
    got = place.host()
    place.happen(event())
    (request,) = got.requests
    assert [name.lower() for name in request.names].count("host") == 1
    assert request.headers["host"] == host


def test_another_endpoint_does_not_wait_for_what_the_old_one_said(place: Place) -> None:
    place.webhook()
    place.host(answering=status(429, "Retry-After: 80000"))
    place.happen(event(message="m1"))
    new = place.host(OTHER)
    place.change("w1", url=f"http://{OTHER}/hook")
    place.happen(event(message="m2"))
    place.pass_time(6)
    assert len(new.requests) == 1


def test_an_answer_of_the_old_endpoint_says_nothing_of_the_new_one(place: Place) -> None:
    place.webhook()
    old = place.host(answering=lambda request, wire: None)
    place.happen(event())
    place.change("w1", url=f"http://{OTHER}/hook")
    place.host(OTHER)
    place.pass_time(2)
    status(410)(old.requests[0], old.wires[0])
    place.pass_time(10)
    assert place.gone == []


def test_what_is_switched_on_again_does_not_wait_for_what_was_before(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(429, "Retry-After: 80000"))
    place.happen(event(message="m1"))
    place.change("w1", disabled=NOW, disabled_reason="switched off by its owner")
    place.pass_time(2)
    place.change("w1", disabled=None)
    host.answering = status(200)
    place.happen(event(message="m2"))
    assert len(host.requests) == 2


def test_410_switches_it_off_loudly_and_what_waits_goes_on_when_it_is_on_again(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(410))
    first, second = event(message="m1"), event(message="m2")
    place.happen(first)
    assert [webhook.id for webhook in place.gone] == ["w1"]
    host.answering = answer(OK)
    place.happen(second)
    place.pass_time(3600)
    assert host.ids() == [first.id], "it is off"
    place.change("w1", disabled=None, disabled_reason="")
    place.pass_time(2)
    assert host.ids() == [first.id, first.id]
    assert place.records()[0]["status"] == "success"


# -- many, dead and alive


def test_a_dead_endpoint_harms_no_other_and_keeps_no_memory(place: Place) -> None:
    place.webhook(f"http://{HOST}/", "dead")
    place.webhook(f"http://{OTHER}/", "alive")
    place.host(answering=lambda request, wire: None)
    alive = place.host(OTHER)
    told = [event(message=f"m{number}") for number in range(1000)]
    for start in range(0, 1000, 100):
        place.happen(*told[start : start + 100])
    assert alive.ids() == [one.id for one in told]
    assert alive.times()[-1] == 0
    queue = place.sender._endpoints["dead"].queue
    assert len(queue._in_hand) <= KEEP
    assert len(place.records("dead")) == 1000
    place.pass_time(600)
    assert len(queue._in_hand) <= KEEP_FAILING


def test_an_endpoint_that_is_down_is_probed_and_then_gets_everything_soon(place: Place) -> None:
    """A thousand events in a dead hour don't make a thousand attempts, and they don't wait for the next day either."""
    place.webhook()
    host = place.host(answering=status(500))
    told = [event(message=f"m{number}") for number in range(1000)]
    place.happen(*told)
    place.pass_time(3600)
    assert len(host.requests) < 150
    host.answering = answer(OK)
    host.requests.clear()
    place.pass_time(100)
    # Those that were attempted have their own times; all others are through.
    assert len(set(host.ids())) > 800
    place.pass_time(86_400, step=20)
    assert set(host.ids()) == {one.id for one in told}
    assert {record["status"] for record in place.records()} == {"success"}


def test_only_so_many_requests_are_under_way_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path / "deliveries", concurrency=3)
    place.sender.start()
    place.webhook()
    host = place.host(answering=lambda request, wire: None)
    place.happen(*[event(message=f"m{number}") for number in range(20)])
    assert (len(host.requests), len(host.wires)) == (3, 3)


def test_what_waits_too_long_is_given_up_and_old_records_are_forgotten(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(500))
    place.happen(*[event(message=f"m{number}") for number in range(400)])
    place.pass_time(7 * 86_400, step=60)
    records = place.records()
    assert all(record["due"] is None for record in records)
    assert any("given up" in record["problem"] for record in records)
    host.answering = answer(OK)
    place.pass_time(8 * 86_400, step=3600)
    assert place.records() == []


# -- crashes


def test_whatever_the_moment_of_a_crash_each_event_arrives_with_the_same_id_and_octets(place: Place) -> None:
    """Before the request, while it is under way, and between its answer and the record of it."""
    place.webhook()
    host = place.host(answering=lambda request, wire: None)
    told = [event(message=f"m{number}") for number in range(50)]
    place.happen(*told)
    assert len(host.requests) == 10
    place.restart()  # ten requests are under way
    place.settle()
    assert len(host.requests) == 20
    host.answering = answer(OK)
    for _ in range(9):
        place.advance(0)
    place.restart()  # some answers have come and are not on record
    place.pass_time(5)
    assert set(host.ids()) == {one.id for one in told}
    octets = {one.id: one.payload for one in told}
    assert all(request.body == octets[request.id] for request in host.requests)
    assert {record["status"] for record in place.records()} == {"success"}


def test_retries_outlive_a_crash(place: Place) -> None:
    place.webhook()
    host = place.host(answering=status(500))
    place.happen(event())
    place.pass_time(10)
    place.restart()
    place.pass_time(320)
    assert [request.headers["x-lettermint-attempt"] for request in host.requests] == ["1", "2", "3"]
    assert host.times() == [0, pytest.approx(5, abs=1), pytest.approx(305, abs=2)]


# -- addresses


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "0.0.0.0"]
)
def test_addresses_inside_are_refused(place: Place, address: str) -> None:
    host = place.host(address)
    place.webhook(f"http://[{address}]/" if ":" in address else f"http://{address}/", "literal")
    place.names["inside.example"] = [address]
    place.webhook("http://inside.example/", "named")
    place.happen(event())
    for webhook in ("literal", "named"):
        (record,) = place.records(webhook)
        assert record["status"] == "failed"
        assert "webhook_allow_networks" in record["problem"]
    assert host.wires == []


def test_it_is_connected_to_what_was_checked(place: Place) -> None:
    """A name that changes between look-ups is checked anew for each connection, and asked once for each."""
    place.names["shop.example"] = [HOST]
    place.webhook("http://shop.example/hook")
    host, inside = place.host(), place.host("127.0.0.1")
    place.happen(event())
    assert (place.look_ups, len(host.requests)) == (["shop.example"], 1)
    assert host.requests[0].headers["host"] == "shop.example"
    place.names["shop.example"] = ["127.0.0.1"]
    place.happen(event())
    assert (place.look_ups, len(host.requests)) == (["shop.example"], 2), "the connection that stands was checked"
    place.pass_time(10)
    place.happen(event())
    assert place.look_ups == ["shop.example"] * 2
    assert (len(host.requests), inside.wires) == (2, [])
    assert place.records()[-1]["status"] == "failed"


def test_of_several_addresses_the_allowed_ones_are_tried_in_turn(place: Place) -> None:
    place.names["shop.example"] = ["10.0.0.1", "203.0.113.9", HOST]
    place.webhook("http://shop.example/")
    host = place.host()
    place.happen(event())
    place.pass_time(1)
    assert len(host.requests) == 1


def test_a_name_server_that_hangs_is_asked_once_at_a_time(place: Place) -> None:
    place.names["slow.example"] = Deferred()
    place.webhook("http://slow.example/")
    place.happen(*[event(message=f"m{number}") for number in range(20)])
    assert place.look_ups == ["slow.example"]
    place.pass_time(20)
    assert {record["status"] for record in place.records()[:10]} == {"timeout"}


def test_a_name_that_does_not_exist_is_told(place: Place) -> None:
    place.webhook("http://nowhere.example/")
    place.happen(event())
    assert place.records()[0]["problem"] == "nowhere.example can't be resolved"


# -- how it goes


def test_how_it_goes_is_told_for_metrics_and_health(place: Place) -> None:
    place.webhook(f"http://{HOST}/", "bad")
    place.webhook(f"http://{OTHER}/", "good")
    place.host(answering=status(500))
    place.host(OTHER)
    place.happen(event())
    place.pass_time(400)
    (condition,) = [Deferred.fromCoroutine(place.sender.condition()).result]
    assert condition["attempts"] == {"success": 1, "server_error": 3}
    assert condition["pending"] == 1
    assert condition["oldest"] == pytest.approx(400, abs=2)
    assert list(condition["failing"]) == ["bad"]
    assert "status 500" in condition["failing"]["bad"]


def test_stopping_lets_what_is_under_way_end(place: Place) -> None:
    held: list[Wire] = []
    place.webhook()
    place.host(answering=lambda request, wire: held.append(wire))
    place.happen(event())
    stopped = Deferred.fromCoroutine(place.sender.stop())
    place.settle()
    assert not stopped.called
    held[0].say(OK)
    place.deliveries.close = lambda: succeed(None)  # to look into it
    place.pass_time(1, step=0.05)
    assert stopped.called
    assert place.records()[0]["status"] == "success"
