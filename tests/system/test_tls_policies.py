"""DANE and MTA-STS against real servers: a signed zone behind a validating resolver, certificates right and wrong, policies by HTTPS.

One daemon, configured as an operator would, sends a message to a domain for each case; what its trace says is what is looked at.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import orjson
import pytest

from lettermta.delivery.tls.ledger import FOLDER, DayFiles, day_of
from lettermta.delivery.tls.policy import Reported
from lettermta.delivery.tls.sts_files import Kept, PolicyFiles
from lettermta.delivery.tls.sts_policy import Mode, STSPolicy
from lettermta.delivery.tls.tally import DomainDay, Failed
from lettermta.delivery.tls.tlsa import TLSA
from lettermta.ops.queue import main as lettermta_queue
from lettermta.testing.mx import EXTENSIONS
from tests.delivery.tls.certificates import Signed, alone, root
from tests.system.program import PATIENCE
from tests.system.secured import Postfix, WebServer, Zones
from tests.system.site import Daemon, Receiver, Site, free_port, mail

SIGNED, PLAIN, LATE = "signed.test", "plain.test", "late.test"


class Internet:
    """Domains, each with what a case needs. All hosts take mail at the same port, each on an address of its own."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder = folder
        self.site = site
        self._block = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}"
        self._hosts = 0
        self.web = self.address()
        self.port = free_port(*(f"{self._block}.{number}" for number in range(2, 9)))
        self.signed: list[str] = []
        self.plain: list[str] = []
        self.pages: dict[str, str] = {}
        self.pairs: dict[str, Path] = {}
        self.receivers: dict[str, Receiver] = {}
        self.resolver = 0
        self.postfix: Postfix

    def address(self) -> str:
        """Another address of this machine's."""
        self._hosts += 1
        return f"{self._block}.{self._hosts}"

    def pair(self, name: str, certificate: Signed, *, key_first: bool = False) -> Path:
        """A file of a certificate and its key."""
        return certificate.write(self.folder / f"{name}.pem", key_first=key_first)

    def host(self, name: str, certificate: Signed | None, *extensions: str) -> str:
        """A receiver, with STARTTLS if it has a certificate; returns its address."""
        address = self.address()
        options: dict[str, Any] = {"extensions": [*EXTENSIONS, *extensions]}
        if certificate is not None:
            pair = str(self.pair(name, certificate))
            options.update(certificate=pair, key=pair)
        self.receivers[name] = Receiver(address, self.port, **options)
        self.site.keep(self.receivers[name])
        return address

    def dane(self, name: str, address: str, *records: TLSA) -> None:
        """A domain in the signed zone, whose host has these TLSA records."""
        self.signed += [f"{name} MX 10 mx.{name}", f"mx.{name} A {address}"]
        self.signed += [f"_{self.port}._tcp.mx.{name} TLSA {record}" for record in records]

    def sts(self, name: str, address: str, text: str | None = None, web: Path | None = None) -> None:
        """A domain in the zone without signatures, with an MTA-STS policy."""
        self.plain += [f"{name} MX 10 mx.{name}", f"mx.{name} A {address}"]
        if text is not None:
            self.plain += self.announced(name, PLAIN, text, web)

    def announced(self, name: str, zone: str, text: str, web: Path | None = None, at: str | None = None) -> list[str]:
        """The records of an MTA-STS policy; ``at``: another name that has the web server's address."""
        host = f"mta-sts.{name}.{zone}"
        self.pages[host] = text
        self.pairs[host] = web or self.folder / "web.pem"
        return [f'_mta-sts.{name} TXT "v=STSv1; id=1;"', f"mta-sts.{name} " + (f"CNAME {at}" if at else f"A {self.web}")]


STS_NAMES = [f"{mode}{case}" for mode in ("enforce", "testing", "none") for case in ("", "-wrong", "-stripped", "-mismatch")]
WEB_NAMES = ["cname-web", "redirect", "oversized", "renewed", "web-down"]


def policy(mode: str, *hosts: str) -> str:
    """The text of a policy."""
    return "\n".join(["version: STSv1", f"mode: {mode}", *(f"mx: {host}" for host in hosts), "max_age: 86400", ""])


def populate(net: Internet, authority: Signed) -> tuple[Postfix, dict[str, str]]:
    """All domains there are; returns the Postfix among them, and what is to be spoilt in the signed zone."""
    right = authority.issue(f"mx.ta.{SIGNED}", *(f"mx.{name}.{PLAIN}" for name in STS_NAMES + WEB_NAMES))
    other, old, elsewhere = alone("other.test"), alone("other.test", days=-1), authority.issue("other.test")
    good, wrong, expired, misnamed = (
        net.host(name, certificate) for name, certificate in (("good", right), ("wrong", other), ("old", old), ("misnamed", elsewhere))
    )
    bare = net.host("bare", None)
    net.pair(
        "web", authority.issue(*(f"mta-sts.{name}.{PLAIN}" for name in [*STS_NAMES, *WEB_NAMES, "no-policy"]), f"mta-sts.both.{SIGNED}")
    )

    by_postfix = authority.issue(f"mx.ee.{SIGNED}")
    address = net.address()
    postfix = Postfix(net.folder / "postfix", address, net.port, net.pair("postfix", by_postfix, key_first=True), f"ee.{SIGNED}")
    net.dane("ee", address, by_postfix.tlsa(3, 1, 1))
    net.dane("ta", good, authority.tlsa(2, 0, 1))
    net.dane("ta-name", misnamed, authority.tlsa(2, 0, 1))
    net.dane("ee-expired", expired, old.tlsa(3, 1, 1))
    net.dane("wrong", wrong, right.tlsa(3, 1, 1))
    net.dane("stripped", bare, right.tlsa(3, 1, 1))
    net.dane("unusable", wrong, TLSA(1, 1, 1, b"\1" * 32))
    net.dane("without", wrong)
    net.dane("bogus", wrong, forged := TLSA(3, 1, 1, b"\2" * 32))
    net.dane("both", wrong, other.tlsa(3, 1, 1))
    net.signed += net.announced("both", SIGNED, policy("enforce", "elsewhere.test"))

    populate_aliases(net, good, right)
    careful = net.host("careful", right, "REQUIRETLS")
    for name in ("careful", "author"):
        net.dane(name, careful, right.tlsa(3, 1, 1))

    for mode in ("enforce", "testing", "none"):
        net.sts(mode, good, policy(mode, f"*.{mode}.{PLAIN}"))
        net.sts(f"{mode}-wrong", wrong, policy(mode, f"mx.{mode}-wrong.{PLAIN}"))
        net.sts(f"{mode}-stripped", bare, policy(mode, f"mx.{mode}-stripped.{PLAIN}"))
        net.sts(f"{mode}-mismatch", good, policy(mode, "mx.other.test"))
    net.plain.append(f'_smtp._tls.enforce-mismatch TXT "v=TLSRPTv1; rua=mailto:tls@enforce-mismatch.{PLAIN}"')
    net.plain.append(f'_smtp._tls.enforce-wrong TXT "v=TLSRPTv1; rua=https://reports.{PLAIN}/tlsrpt"')
    net.plain.append(f"reports A {net.web}")
    net.pages[f"reports.{PLAIN}"], net.pairs[f"reports.{PLAIN}"] = "201", net.pair("reports", authority.issue(f"reports.{PLAIN}"))
    net.sts("web-wrong", wrong, policy("enforce", "mx.other.test"), net.pair("web-wrong", alone(f"mta-sts.web-wrong.{PLAIN}")))
    net.sts("no-policy", wrong, "<html>welcome</html>\n")
    net.sts("still", wrong)
    net.sts("over", wrong)
    net.plain += [f"insecure-mx MX 10 mx.wrong.{SIGNED}."]

    for name in ("cname-web", "redirect", "oversized"):
        net.plain += [f"{name} MX 10 mx.{name}", f"mx.{name} A {wrong if name != 'cname-web' else good}"]
    net.plain += net.announced("cname-web", PLAIN, policy("enforce", "mx.cname-web.plain.test"), at=f"mta-sts.enforce.{PLAIN}.")
    net.plain += net.announced("redirect", PLAIN, f"https://mta-sts.enforce-mismatch.{PLAIN}/.well-known/mta-sts.txt")
    net.plain += net.announced("oversized", PLAIN, policy("enforce", "mx.other.test") + "more: of it\n" * 20_000)
    net.sts("renewed", good, policy("enforce", f"mx.renewed.{PLAIN}"))
    net.sts("web-down", good, policy("enforce", f"mx.web-down.{PLAIN}"), net.pair("web-down", alone(f"mta-sts.web-down.{PLAIN}")))
    return postfix, {forged.data.hex(): other.tlsa(3, 1, 1).data.hex()}


def populate_aliases(net: Internet, good: str, right: Signed) -> None:
    """Where TLSA records can be that are not simply the host's."""
    record, old = right.tlsa(3, 1, 1), alone("old.test").tlsa(3, 1, 1)
    net.dane("rollover", good, old, record)
    net.dane("mixed", good, TLSA(0, 0, 1, b"\3" * 32), TLSA(3, 1, 9, b"\3" * 32), record)
    tlsa = f"_{net.port}._tcp"
    net.signed += ["cname MX 10 alias.cname", "alias.cname CNAME real.cname", f"real.cname A {good}", f"{tlsa}.real.cname TLSA {record}"]
    net.signed += ["cname-out MX 10 alias.cname-out", f"alias.cname-out CNAME mx.cname-out.{PLAIN}."]
    net.signed += [f"{tlsa}.alias.cname-out TLSA {record}"]
    net.plain += [f"mx.cname-out A {good}", f"{tlsa}.mx.cname-out TLSA {old}"]
    net.dane("tlsa-cname", good)
    net.signed += [f"{tlsa}.mx.tlsa-cname CNAME _dane.tlsa-cname", f"_dane.tlsa-cname TLSA {record}"]
    net.dane("tlsa-out", good)
    net.signed += [f"{tlsa}.mx.tlsa-out CNAME _dane.tlsa-out.{PLAIN}."]
    net.plain += [f"_dane.tlsa-out TLSA {old}"]


@pytest.fixture(scope="module")
def net(site: Site) -> Iterator[Internet]:
    """The servers, all of them running."""
    folder = Path(tempfile.mkdtemp(prefix="secured-"))
    folder.chmod(0o755)  # Postfix's own user has to get to its folders
    net = Internet(folder, site)
    authority = root()
    authority.write(folder / "roots.pem")
    with ExitStack() as running:
        running.callback(shutil.rmtree, folder)
        net.postfix, spoil = populate(net, authority)
        running.callback(net.postfix.dispose)
        zones = Zones(folder / "zones")
        running.callback(zones.dispose)
        zones.add_signed(SIGNED, net.signed, spoil=spoil)
        zones.add_signed(LATE, ["@ MX 10 mx", "mx A 127.0.0.1"], expired=True)
        zones.add(PLAIN, net.plain)
        running.callback(WebServer(folder / "web", net.web, net.pages, net.pairs).dispose)
        net.resolver = zones.start()
        yield net


@pytest.fixture(scope="module")
def daemon(net: Internet, site: Site) -> Daemon:
    delivery = {"port": str(net.port), "schedule": "1h", "tls_ca_file": str(net.folder / "roots.pem"), "tls_report_from": "tls@sender.test"}
    daemon = site.daemon("sender", {"dns": {"servers": f"127.0.0.1:{net.resolver}"}, "delivery": delivery})
    kept = PolicyFiles(daemon.directory / "state" / "mta-sts")
    enforced = STSPolicy(Mode.ENFORCE, ("mx.elsewhere.test",), 86_400)
    kept.save(f"still.{PLAIN}", Kept(enforced, "1", time.time() - 1000))
    kept.save(f"over.{PLAIN}", Kept(enforced, "1", time.time() - 100_000))
    kept.save(f"renewed.{PLAIN}", Kept(enforced, "0", time.time() - 1000))
    kept.save(f"web-down.{PLAIN}", Kept(enforced, "0", time.time() - 1000))
    daemon.admin("domain", "create", "--project", "demo", "sender.test")
    count_days_ago(daemon)
    daemon.start()
    return daemon


def count_days_ago(daemon: Daemon) -> None:
    """Have reports to send that are due."""
    domains = [DomainDay(f"{name}.{PLAIN}") for name in ("enforce-mismatch", "enforce-wrong")]
    for domain in domains:
        domain.count(Reported(domain.domain, "sts"), Failed("validation-failure", f"mx.{domain.domain}"))
    day = day_of(time.time() - 2 * 86_400)
    DayFiles(daemon.directory / "state" / FOLDER).save(day, [orjson.dumps(domain.told()) for domain in domains])


# Of each domain: the policy that decides, how far TLS can be relied on, what the reply says.
DELIVERED = {
    # RFC 7672 sections 3.1.1 (neither names nor dates count) and 3.1.2.
    f"ee.{SIGNED}": ("dane", "verified", "250 2.0.0 Ok:"),
    f"ee-expired.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    f"ta.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    # Section 2.2: TLSA records of no use ask for TLS; a proven absence asks for nothing.
    f"unusable.{SIGNED}": ("dane-unusable", "unverified", "250 2.0.0"),
    f"without.{SIGNED}": ("opportunistic", "unverified", "250 2.0.0"),
    # RFC 7671 section 8.1: while a key is rolled over there are two records; what can't be used does not matter beside what can.
    f"rollover.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    f"mixed.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    # RFC 7672 section 2.2.3, RFC 7671 section 7: aliases of hosts and of records.
    f"cname.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    f"cname-out.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    f"tlsa-cname.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    f"tlsa-out.{SIGNED}": ("opportunistic", "unverified", "250 2.0.0"),
    # Section 2.2.1: a host with TLSA records, named by MX records that nobody signed.
    f"insecure-mx.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    # RFC 8461 section 2: DANE comes before a policy that would not have the host.
    f"both.{SIGNED}": ("dane", "verified", "250 2.0.0"),
    # Section 5.
    f"enforce.{PLAIN}": ("mta-sts", "verified", "250 2.0.0"),
    f"testing.{PLAIN}": ("mta-sts-testing", "verified", "250 2.0.0"),
    f"testing-wrong.{PLAIN}": ("mta-sts-testing", "unverified", "250 2.0.0"),
    f"testing-stripped.{PLAIN}": ("mta-sts-testing", "clear", "250 2.0.0"),
    f"testing-mismatch.{PLAIN}": ("mta-sts-testing", "unverified", "250 2.0.0"),
    f"none.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    f"none-wrong.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    f"none-stripped.{PLAIN}": ("opportunistic", "clear", "250 2.0.0"),
    f"none-mismatch.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    # Section 3.3: what can't be fetched is no policy. Section 3.2: nor is what has expired.
    f"web-wrong.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    f"no-policy.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    f"redirect.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    f"oversized.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
    # Section 3.3: the certificate is for the name that was asked for, wherever that is. Section 3.1: another id, another policy.
    f"cname-web.{PLAIN}": ("mta-sts", "verified", "250 2.0.0"),
    f"renewed.{PLAIN}": ("mta-sts", "verified", "250 2.0.0"),
    f"over.{PLAIN}": ("opportunistic", "unverified", "250 2.0.0"),
}
DEFERRED = {
    f"wrong.{SIGNED}": "none of the TLSA records matches it",
    f"ta-name.{SIGNED}": "it is not for mx.ta-name.signed.test or ta-name.signed.test",
    f"stripped.{SIGNED}": "TLS is required, and mx.stripped.signed.test",
    f"bogus.{SIGNED}": "Looking for TLSA records of mx.bogus.signed.test failed",
    LATE: "SERVFAIL",
    f"enforce-wrong.{PLAIN}": "it is self-signed",
    f"enforce-stripped.{PLAIN}": "TLS is required, and mx.enforce-stripped.plain.test",
    f"enforce-mismatch.{PLAIN}": "The MTA-STS policy of enforce-mismatch.plain.test does not name mx.enforce-mismatch.plain.test",
    # Known from before, and its announcement is gone: it holds all the same.
    f"still.{PLAIN}": "The MTA-STS policy of still.plain.test does not name mx.still.plain.test",
    # Its successor can't be had.
    f"web-down.{PLAIN}": "The MTA-STS policy of web-down.plain.test does not name mx.web-down.plain.test",
}


@pytest.fixture(scope="module")
def sent(daemon: Daemon) -> Mapping[str, str]:
    """A message to each domain, by its id."""
    return {domain: daemon.send(mail(), f"you@{domain}") for domain in [*DELIVERED, *DEFERRED]}


def first_attempt(daemon: Daemon, identifier: str) -> dict[str, Any]:
    """What came of it, as ``lettermta-queue trace`` shows it; run in this process, as there are many."""
    limit = time.monotonic() + PATIENCE
    while True:
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with redirect_stdout(printed):
            lettermta_queue(["-c", str(daemon.config), "trace", "--json", identifier])
        printed.seek(0)
        if lines := printed.read().splitlines():
            told: dict[str, Any] = json.loads(lines[0])
            return told
        assert time.monotonic() < limit, f"no attempt at {identifier}"


@pytest.mark.parametrize("domain", DELIVERED)
def test_mail_that_may_leave_leaves(daemon: Daemon, sent: Mapping[str, str], domain: str) -> None:
    policy, result, reply = DELIVERED[domain]
    told = first_attempt(daemon, sent[domain])
    assert (told["state"], told["tls"]["policy"], told["tls"]["result"]) == ("delivered", policy, result), told
    assert told["reply"].startswith(reply)


@pytest.mark.parametrize("domain", DEFERRED)
def test_mail_that_may_not_leave_is_kept(daemon: Daemon, sent: Mapping[str, str], domain: str) -> None:
    """HARD-CASES row 24: enforced policies and DANE defer."""
    told = first_attempt(daemon, sent[domain])
    assert told["state"] == "deferred" and told["reply"].startswith("451 4.") and DEFERRED[domain] in told["reply"], told
    if domain != LATE:
        assert told["tls"]["policy"] == ("dane" if domain.endswith(SIGNED) else "mta-sts"), told


@pytest.mark.parametrize("domain", [domain for domain in DEFERRED if domain != LATE])
def test_mail_that_does_not_require_tls_leaves_whatever_the_receiver_asks_for(daemon: Daemon, sent: Mapping[str, str], domain: str) -> None:
    """RFC 8689 section 4.2.2: neither DANE nor MTA-STS keeps it back, TLS is used where it can be had."""
    told = first_attempt(daemon, daemon.send(mail("TLS-Required: No"), f"you@{domain}"))
    result = "clear" if "stripped" in domain else "unverified"
    assert (told["state"], told["tls"]["policy"], told["tls"]["result"]) == ("delivered", "waived", result), told


def submitted(daemon: Daemon, recipient: str) -> str:
    """A message with REQUIRETLS, which wants itself back whole; the field that waives TLS is void beside it (RFC 8689 section 4.1)."""
    with daemon.client() as client:
        assert client.has_extn("requiretls")
        code, said = client.mail(f"me@author.{SIGNED}", ["REQUIRETLS", "RET=FULL"])
        assert code == 250, said
        client.rcpt(recipient)
        _, said = client.data(mail("TLS-Required: No", body="secret\r\n"))
        return said.decode().rpartition(" ")[2]


def test_requiretls_goes_all_the_way(net: Internet, daemon: Daemon) -> None:
    """RFC 8689 section 4.2.1."""
    told = first_attempt(daemon, identifier := submitted(daemon, f"you@careful.{SIGNED}"))
    assert (told["state"], told["tls"]["policy"], told["tls"]["result"]) == ("delivered", "dane", "verified"), told
    message = net.receivers["careful"].received(identifier)
    assert "REQUIRETLS" in message["parameters"] and b"TLS-Required: No\r\n" in message["content"]


@pytest.mark.parametrize("domain", [f"ta.{SIGNED}", f"cname-web.{PLAIN}", f"without.{SIGNED}", f"none-stripped.{PLAIN}"])
def test_requiretls_comes_back_where_it_is_not_offered_and_as_careful_as_it_went(net: Internet, daemon: Daemon, domain: str) -> None:
    """RFC 8689 sections 4.2.1 and 5: 5.7.30, and a report with REQUIRETLS that does not have the content in it."""
    identifier = submitted(daemon, f"you@{domain}")
    [report] = net.receivers["careful"].messages(1, where=lambda message: identifier.encode() in message["content"])
    assert b"Status: 5.7.30" in report["content"] and b"secret" not in report["content"]
    assert report["sender"] == "" and "REQUIRETLS" in report["parameters"] and report["tls"]


def test_postfix_saw_tls(net: Internet, daemon: Daemon, sent: Mapping[str, str]) -> None:
    first_attempt(daemon, sent[f"ee.{SIGNED}"])
    assert "TLSv1.3" in net.postfix.line("TLS connection established from")
    net.postfix.line(f"to=<you@ee.{SIGNED}>.*status=sent")


def test_a_report_on_tls_arrives_although_its_receivers_tls_is_what_is_wrong(net: Internet, daemon: Daemon) -> None:
    """RFC 8460 section 3: despite the policy that keeps all other mail back, signed, and not counted itself."""
    [message] = net.receivers["good"].messages(1, where=lambda message: b"TLS-Report-Domain" in message["content"])
    assert message["recipients"] == [f"tls@enforce-mismatch.{PLAIN}"] and message["sender"] == ""
    assert message["tls"]
    report = message_from_bytes(message["content"], policy=default)
    assert report["TLS-Report-Domain"] == f"enforce-mismatch.{PLAIN}" and "d=sender.test" in report["DKIM-Signature"]
    [_, attached] = report.iter_parts()
    told = json.loads(gzip.decompress(attached.get_content()))
    assert told["policies"][0]["failure-details"][0]["result-type"] == "validation-failure"


def test_a_report_by_https_is_taken_by_a_web_server(daemon: Daemon) -> None:
    """RFC 8460 section 5.4; what became of it is in the list."""
    limit = time.monotonic() + PATIENCE
    while "to come" in (listed := daemon.admin("tlsrpt", "list", "--day", day_of(time.time() - 2 * 86_400))):
        assert time.monotonic() < limit, listed
    assert f"sent to https://reports.{PLAIN}/tlsrpt" in listed and f"sent to tls@enforce-mismatch.{PLAIN}" in listed


def test_how_tls_went_is_on_record_when_the_daemon_has_stopped(daemon: Daemon, sent: Mapping[str, str]) -> None:
    """RFC 8460 section 4.3, and the tool that prints reports. Last in this file, as the daemon is stopped."""
    for identifier in sent.values():
        first_attempt(daemon, identifier)
    daemon.stop()

    kept = {each.domain: each for each in DayFiles(daemon.directory / "state" / FOLDER).load(day_of(time.time()))}

    def told(domain: str) -> tuple[str, int, list[str]]:
        [(reported, tally)] = kept[domain].policies.items()
        return reported.type, tally.successes, [failed.result for failed in tally.failures]

    assert told(f"ee.{SIGNED}") == ("tlsa", 1, [])
    assert told(f"wrong.{SIGNED}") == ("tlsa", 0, ["validation-failure"])
    assert told(f"ta-name.{SIGNED}") == ("tlsa", 0, ["certificate-host-mismatch"])
    assert told(f"stripped.{SIGNED}") == ("tlsa", 0, ["starttls-not-supported"])
    assert told(f"bogus.{SIGNED}") == ("tlsa", 0, ["dnssec-invalid"])
    assert told(f"unusable.{SIGNED}") == ("tlsa", 0, ["tlsa-invalid"])
    assert told(f"enforce.{PLAIN}") == ("sts", 1, [])
    assert told(f"enforce-mismatch.{PLAIN}") == ("sts", 0, ["validation-failure"])
    assert told(f"testing-wrong.{PLAIN}") == ("sts", 0, ["certificate-not-trusted"])
    assert told(f"testing-stripped.{PLAIN}") == ("sts", 0, ["starttls-not-supported"])
    assert told(f"testing-mismatch.{PLAIN}") == ("sts", 0, ["validation-failure"])
    assert told(f"web-wrong.{PLAIN}") == ("sts", 0, ["sts-webpki-invalid"])
    assert told(f"no-policy.{PLAIN}") == ("sts", 0, ["sts-policy-invalid"])
    assert told(f"redirect.{PLAIN}") == told(f"oversized.{PLAIN}") == ("sts", 0, ["sts-policy-fetch-error"])
    assert told(f"none.{PLAIN}") == ("no-policy-found", 1, [])
    report = json.loads(daemon.admin("tlsrpt", "show", f"cname.{SIGNED}"))
    assert report["policies"][0]["policy"]["policy-domain"] == f"real.cname.{SIGNED}"
    report = json.loads(daemon.admin("tlsrpt", "show", f"testing-wrong.{PLAIN}"))
    assert report["policies"][0]["failure-details"][0]["receiving-mx-hostname"] == f"mx.testing-wrong.{PLAIN}"
    assert f"testing-wrong.{PLAIN}" in daemon.admin("tlsrpt", "list")
    missing = daemon.tool("lettermta-admin", "tlsrpt", "show", "gone.test", check=False)
    assert missing.returncode == os.EX_NOUSER and "nothing is known" in missing.stderr
