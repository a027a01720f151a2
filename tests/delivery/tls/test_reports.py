"""Reports on TLS: what is counted, kept and told, and whom it is sent to (RFC 8460)."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from dns.rdata import from_text
from dns.rdataclass import IN
from dns.rdatatype import TXT, RdataType
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from lettermta.accounts.directory import Directory
from lettermta.accounts.model import Care, care_of, without_care
from lettermta.accounts.store import AccountStore
from lettermta.delivery.dns_cache import Answer as Records
from lettermta.delivery.dns_wire import Server, TryFailed
from lettermta.delivery.resolver import NoSuchDomain, TemporaryDNSFailure
from lettermta.delivery.tls import ledger as ledger_module
from lettermta.delivery.tls.https import HTTPSFailed
from lettermta.delivery.tls.ledger import DayFiles, Ledger, day_of
from lettermta.delivery.tls.policy import Reported
from lettermta.delivery.tls.report_mail import ReportMail
from lettermta.delivery.tls.report_text import Report, Submitter
from lettermta.delivery.tls.reporting import LOOK_SECONDS, PAUSE_SECONDS, SPREAD_SECONDS, NotNow, Targets, TLSReports, targets
from lettermta.delivery.tls.tally import MOST_KINDS, DomainDay, Failed
from lettermta.interfaces import ISpoolListener
from lettermta.message import QueueEntry
from lettermta.smtp.client_tls import Fault
from lettermta.testing.spool import MemorySpool

NOON = 1_795_000_000.0 // 86_400 * 86_400 + 43_200
TODAY = day_of(NOON)
STS = Reported("in.test", "sts", ("version: STSv1", "mode: testing", "mx: *.in.test", "max_age: 60"), ("*.in.test",))
NONE = Reported("in.test", "no-policy-found")
DANE = Reported("in.test", "tlsa", ("3 1 1 ab",), base="mx.in.test")
EXPIRED = Fault("certificate-expired", "it has\n expired")
US = Submitter("Example Ltd", "tls@out.test", "mta.out.test")
SERVFAIL = TemporaryDNSFailure("in.test", TXT, [TryFailed(Server("127.0.0.1", 53), "SERVFAIL", rcode="SERVFAIL")])


class World:
    """A ledger, a day that passes, and whoever wants reports. What is an exception is raised."""

    def __init__(self, folder: Path, submitter: Submitter | None = US) -> None:
        self.clock = Clock()
        self.clock.advance(NOON)
        self.folder = folder
        self.submitter = submitter
        self.record: str | Exception = "v=TLSRPTv1; rua=mailto:reports@in.test"
        self.status: int | Exception = 201
        self.refusal: str | None = None
        self.mailed: list[tuple[Report, Sequence[str]]] = []
        self.posted: list[tuple[str, str, bytes]] = []
        self.start()

    def start(self) -> None:
        """As after a restart."""
        self.ledger = Ledger(DayFiles(self.folder), self.clock.seconds, maybeDeferred)
        self.reports = TLSReports(self.ledger, self, self, self, self.submitter, self.clock, self.clock.seconds)  # type: ignore[arg-type]
        self.done(self.reports.start())

    def stop(self) -> None:
        self.done(self.reports.stop())

    def done(self, coroutine: Any) -> None:
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        assert results == [None], results

    def pass_midnight(self) -> None:
        """To when reports of the day before are due."""
        self.clock.pump([LOOK_SECONDS] * (int(43_200 + SPREAD_SECONDS) // int(LOOK_SECONDS) + 2))

    def kept(self, day: str = TODAY) -> Mapping[str, DomainDay]:
        return {each.domain: each for each in DayFiles(self.folder).load(day)}

    def lookup(self, name: str, rdtype: RdataType) -> Deferred[Records]:
        assert name == "_smtp._tls.in.test" and rdtype == TXT
        if isinstance(self.record, Exception):
            return fail(self.record)
        return succeed(Records(name, (from_text(IN, TXT, f'"{self.record}"'),), False, 0.0))

    async def post(self, url: str, media_type: str, body: bytes) -> int:
        self.posted.append((url, media_type, body))
        if isinstance(self.status, Exception):
            raise self.status
        return self.status

    async def mail(self, report: Report, recipients: Sequence[str]) -> None:
        if self.refusal is not None:
            raise NotNow(self.refusal)
        self.mailed.append((report, recipients))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "tls-reports")


def count(world: World, reported: Reported = STS, fault: Fault | None = None, times: int = 1) -> None:
    for _ in range(times):
        world.ledger.count(reported, fault, "mx.in.test", "192.0.2.1", "198.51.100.7")


def test_the_document_is_as_the_rfc_has_it(world: World) -> None:
    """RFC 8460 section 4.4 and appendix B."""
    count(world, times=3)
    count(world, fault=EXPIRED, times=2)
    count(world, NONE)
    world.pass_midnight()
    [(report, recipients)] = world.mailed
    assert recipients == ("reports@in.test",)
    told = json.loads(gzip.decompress(report.packed()))
    assert told == {
        "organization-name": "Example Ltd",
        "date-range": {"start-datetime": f"{TODAY}T00:00:00Z", "end-datetime": f"{TODAY}T23:59:59Z"},
        "contact-info": "tls@out.test",
        "report-id": f"{TODAY}_in.test@mta.out.test",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: testing", "mx: *.in.test", "max_age: 60"],
                    "policy-domain": "in.test",
                    "mx-host": ["*.in.test"],
                },
                "summary": {"total-successful-session-count": 3, "total-failure-session-count": 2},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "198.51.100.7",
                        "receiving-mx-hostname": "mx.in.test",
                        "receiving-ip": "192.0.2.1",
                        "failed-session-count": 2,
                        "failure-reason-code": "it has expired",
                    }
                ],
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "in.test"},
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
        ],
    }
    assert report.packed() == report.packed()


def test_a_dane_policy_is_the_hosts_and_its_report_the_recipients_domains(world: World) -> None:
    """RFC 8460 section 1.1: the policy domain of DANE is the TLSA base domain; that outlives a restart."""
    count(world, DANE)
    world.stop()
    world.start()
    world.pass_midnight()
    [(report, _)] = world.mailed
    [policy] = json.loads(gzip.decompress(report.packed()))["policies"]
    assert policy["policy"] == {"policy-type": "tlsa", "policy-string": ["3 1 1 ab"], "policy-domain": "mx.in.test"}
    assert report.domain.domain == "in.test"


def test_a_day_that_an_older_version_has_counted_is_read() -> None:
    """It did not keep the TLSA base domain."""
    policy = {"type": "tlsa", "strings": ["3 1 1 ab"], "mx_hosts": [], "successes": 2, "failures": []}
    read = DomainDay.read({"domain": "in.test", "fate": "", "policies": [policy]})
    assert [each.policy_domain for each in read.policies] == ["in.test"]


def test_a_report_is_sent_once_and_not_before_its_day_is_over(world: World) -> None:
    count(world)
    world.clock.pump([LOOK_SECONDS] * (int(43_200 // LOOK_SECONDS) - 1))
    assert world.mailed == []
    world.pass_midnight()
    world.pass_midnight()
    world.stop()
    world.start()
    world.pass_midnight()
    assert len(world.mailed) == 1
    assert world.kept()["in.test"].fate == "sent to reports@in.test"


def test_what_was_counted_outlives_a_restart_and_only_its_owner_reads_it(world: World) -> None:
    count(world, fault=EXPIRED)
    world.stop()
    [path] = world.folder.iterdir()
    assert path.name == f"{TODAY}.jsonl" and stat.S_IMODE(path.stat().st_mode) == 0o600
    world.start()
    count(world)
    world.pass_midnight()
    [(report, _)] = world.mailed
    assert report.domain.policies[STS].successes == 1 and report.domain.policies[STS].failed == 1


def test_what_was_counted_is_written_once_a_minute(world: World) -> None:
    count(world)
    assert world.kept() == {}
    world.clock.advance(LOOK_SECONDS)
    assert world.kept()["in.test"].policies[STS].successes == 1


def test_a_damaged_line_takes_nothing_with_it(world: World) -> None:
    count(world)
    world.stop()
    [path] = world.folder.iterdir()
    path.write_bytes(b'{"domain": 7}\n\xff\n[]\n' + path.read_bytes())
    world.start()
    world.pass_midnight()
    assert len(world.mailed) == 1


def test_a_file_that_can_not_be_read_stops_no_start(world: World) -> None:
    count(world)
    world.stop()
    [path] = world.folder.iterdir()
    path.unlink()
    path.mkdir()
    world.start()
    count(world, fault=EXPIRED)
    world.clock.advance(LOOK_SECONDS)
    assert [each.fate for each in world.ledger._days[TODAY].values()] == [""], "what can't be written stays in memory"


@pytest.mark.parametrize("record", [NoSuchDomain("x"), "v=spf1 -all", "v=TLSRPTv1; rua=ftp://x"])
def test_a_domain_that_asks_for_none_gets_none(world: World, record: str | Exception) -> None:
    count(world)
    world.record = record
    world.pass_midnight()
    assert world.mailed == [] and world.kept()["in.test"].fate == "nobody asks for it"


def test_a_report_by_https_is_posted_compressed(world: World) -> None:
    """RFC 8460 section 5.4."""
    count(world)
    world.record = "v=TLSRPTv1; rua=https://in.test/tlsrpt"
    world.pass_midnight()
    [(url, media_type, body)] = world.posted
    assert (url, media_type) == ("https://in.test/tlsrpt", "application/tlsrpt+gzip")
    assert json.loads(gzip.decompress(body))["report-id"] == f"{TODAY}_in.test@mta.out.test"


@pytest.mark.parametrize("trouble", ["dns", "https", "status", "mail"])
def test_what_can_not_be_delivered_is_tried_again_and_given_up_in_the_end(world: World, trouble: str) -> None:
    count(world)
    if trouble == "dns":
        world.record = SERVFAIL
    elif trouble == "mail":
        world.refusal = "no room"
    else:
        world.record = "v=TLSRPTv1; rua=https://in.test/tlsrpt"
        world.status = HTTPSFailed("refused") if trouble == "https" else 503
    world.pass_midnight()
    assert world.kept()["in.test"].fate == ""
    tries = len(world.posted)
    world.clock.pump([LOOK_SECONDS] * int(PAUSE_SECONDS / LOOK_SECONDS + 1))
    assert tries < len(world.posted) <= tries + 2 or trouble in ("dns", "mail")
    world.clock.pump([3600.0] * 72)
    assert world.kept()["in.test"].fate.startswith("given up: ")
    assert world.mailed == []


@pytest.mark.parametrize("recovers", [True, False])
def test_a_report_that_one_of_two_takes_is_tried_again_with_the_other_alone(world: World, recovers: bool) -> None:
    """RFC 8460 section 3 has several URIs, each of which is to get it; a restart does not forget who has."""
    count(world)
    world.record = "v=TLSRPTv1; rua=https://in.test/tlsrpt,mailto:reports@in.test"
    world.status = 500
    world.pass_midnight()
    assert len(world.mailed) == 1 and world.kept()["in.test"].fate == ""
    world.stop()
    world.start()
    world.status = 201 if recovers else 500
    world.clock.pump([3600.0] * 72)
    assert [list(recipients) for _, recipients in world.mailed] == [["reports@in.test"]]
    told = "reports@in.test, https://in.test/tlsrpt" if recovers else "reports@in.test; given up: https://in.test/tlsrpt answers 500"
    assert world.kept()["in.test"].fate == f"sent to {told}"


def test_without_a_submitter_days_are_kept_for_the_tool_alone(tmp_path: Path) -> None:
    world = World(tmp_path, None)
    count(world)
    world.pass_midnight()
    assert world.mailed == [] and "tls_report_from" in world.kept()["in.test"].fate
    world.clock.pump([86_400.0] * 9)
    assert list(tmp_path.iterdir()) == [], "for a week"


def test_reports_of_many_domains_are_spread(world: World) -> None:
    """RFC 8460 section 4.1."""
    dues = {world.reports._due(TODAY, f"{number}.test") for number in range(100)}
    assert len(dues) > 90 and max(dues) - min(dues) > SPREAD_SECONDS / 2


def test_memory_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MOST_DOMAINS", 3)
    for number in range(10):
        count(world, Reported(f"{number}.test", "sts"))
    for number in range(MOST_KINDS + 50):
        world.ledger.count(Reported("0.test", "sts"), EXPIRED, f"mx{number}.test", "", "")
    for number in range(50):
        world.ledger.count(Reported("1.test", "sts", (str(number),)), None, "", "", "")
    world.stop()
    kept = world.kept()
    assert len(kept) == 3
    [tally] = kept["0.test"].policies.values()
    assert len(tally.failures) == MOST_KINDS + 1 and tally.failures[Failed("certificate-expired")] == 50
    assert len(kept["1.test"].policies) == 20 and sum(each.successes for each in kept["1.test"].policies.values()) == 51


def test_a_server_that_does_not_answer_holds_up_no_stop(world: World) -> None:
    count(world)
    world.record = "v=TLSRPTv1; rua=https://in.test/tlsrpt"
    waiting: Deferred[int] = Deferred()

    async def post(url: str, media_type: str, body: bytes) -> int:
        try:
            return await waiting
        except CancelledError:
            raise HTTPSFailed("it took too long") from None

    world.post = post  # type: ignore[method-assign]
    world.pass_midnight()
    world.stop()
    assert world.kept()["in.test"].fate == ""


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["v=TLSRPTv1;rua=mailto:a@in.test"], Targets(("a@in.test",))),
        (
            ["v=TLSRPTv1; rua=https://in.test/x?y=1 , mailto:a%2Bb@in.test?subject=x;"],
            Targets(("a+b@in.test",), ("https://in.test/x?y=1",)),
        ),
        (["other", "v=TLSRPTv1; ext=1; rua=mailto:a@in.test"], Targets(("a@in.test",))),
        (["v=TLSRPTv1; rua=mailto:a@in.test", "v=TLSRPTv1; rua=mailto:b@in.test"], Targets()),
        (["v=TLSRPTv1; rua=mailto:a@in.test%0D%0ABcc:x@y"], Targets()),
        (["v=TLSRPTv1; rua=mailto:a b@in.test, mailto:, http://in.test, https://"], Targets()),
        (["v=TLSRPTv2; rua=mailto:a@in.test"], Targets()),
        ([], Targets()),
        (["v=TLSRPTv1; rua=" + ",".join(f"mailto:{n}@in.test" for n in range(50))], Targets(tuple(f"{n}@in.test" for n in range(10)))),
    ],
)
def test_who_wants_reports(texts: list[str], wanted: Targets) -> None:
    """RFC 8460 section 3."""
    assert targets(texts) == wanted


@implementer(ISpoolListener)
class Listener:
    """What a spool tells of."""

    def __init__(self) -> None:
        self.entries: list[QueueEntry] = []

    def entries_stored(self, entries: Sequence[QueueEntry]) -> None:
        self.entries += entries

    def events_stored(self, events: object) -> None:
        assert not events, "nobody hears of it"


def test_a_report_by_mail_is_of_the_project_that_can_sign_it(tmp_path: Path) -> None:
    """RFC 8460 sections 3 and 5.3."""
    with AccountStore(tmp_path) as store:
        store.create_project("demo")
        store.create_domain("demo", "out.test")
    directory = Directory(tmp_path)
    spool = MemorySpool()
    listener = Listener()
    spool.subscribe(listener)
    mailer = ReportMail(spool, directory, 3600.0, lambda: NOON)
    domain = DomainDay("in.test")
    domain.count(STS, Failed("certificate-expired", "mx.in.test"))
    done: list[Any] = []
    Deferred.fromCoroutine(mailer.mail(Report(US, TODAY, domain), ["reports@in.test"])).addBoth(done.append)
    assert done == [None]
    [entry] = listener.entries
    assert (entry.sender, [each.address for each in entry.recipients]) == ("", ["reports@in.test"])
    assert care_of(entry.lane.route_id) is Care.WHATEVER_TLS
    route = directory.route_by_id(entry.lane.route_id)
    assert route is not None and route.id == without_care(entry.lane.route_id) and route.slug == "outgoing"
    contents: list[Any] = []
    spool.load(entry).addCallback(lambda content: contents.append(content.whole()))
    message = message_from_bytes(contents[0], policy=default)
    assert message["From"] == "tls@out.test" and message["TLS-Required"] == "No"
    assert message["TLS-Report-Domain"] == "in.test" and message["TLS-Report-Submitter"] == "mta.out.test"
    assert message["Subject"] == f"Report Domain: in.test Submitter: mta.out.test Report-ID: <{TODAY}_in.test@mta.out.test>"
    assert (message.get_content_type(), message.get_param("report-type")) == ("multipart/report", "tlsrpt")
    words, attached = message.iter_parts()
    assert "Example Ltd" in words.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename().startswith("mta.out.test!in.test!") and attached.get_filename().endswith(".json.gz")
    assert json.loads(gzip.decompress(attached.get_content()))["contact-info"] == "tls@out.test"
    for line in contents[0].split(b"\r\n"):
        assert len(line) < 999 and b"\n" not in line
    stranger = Submitter("x", "tls@stranger.test", "mta.out.test")
    Deferred.fromCoroutine(mailer.mail(Report(stranger, TODAY, domain), ["reports@in.test"])).addErrback(done.append)
    assert isinstance(done[-1].value, NotNow) and "no project owns stranger.test" in str(done[-1].value)
    directory.close()
