"""``lettermta-admin domain verify`` against a DNS server that answers: what is right, wrong, missing, or not to be known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from lettermta.ops import admin
from tests.system.program import Program

ADMIN = str(Path(sys.executable).parent / "lettermta-admin")
CONFIG = """\
[mta]
state_dir = state
hostname = mta.test
[listener a]
ports = 2525
[delivery]
bounce_host = bounces.test
[dns]
servers = 127.0.0.1:{port}
timeout = 2s
"""
Zone = dict[str, Any]


@define
class Verifier:
    """Domains of a project, and the DNS that is asked about them."""

    config: Path
    zone: Path
    programs: list[Program]

    def admin(self, *arguments: str) -> str:
        """What a command that needs no DNS prints."""
        with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()):
            assert admin.main(["-c", str(self.config), *arguments]) == 0
        return out.getvalue()

    def create(self, domain: str) -> list[dict[str, Any]]:
        created = self.admin("domain", "create", "--project", "demo", domain, "--json")
        records: list[dict[str, Any]] = json.loads(created)["records"]
        return records

    def records(self, verb: str, domain: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = json.loads(self.admin("domain", verb, "--project", "demo", domain, "--json"))["records"]
        return records

    def serve(self, zone: Zone) -> None:
        """Have the DNS say this from now on."""
        hosts = {"mta.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]}, "bounces.test": {"A": ["192.0.2.1"]}}
        self.zone.write_text(json.dumps({**hosts, **zone}))
        for program in self.programs:
            program.dispose()
        dns = Program([sys.executable, "-m", "lettermta.testing.dns", "--zone", str(self.zone)])
        self.programs.append(dns)
        self.config.write_text(CONFIG.format(port=dns.line(r"^listening (\d+)$")[1]))

    def verify(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A process of its own: its reactor runs once."""
        command = [ADMIN, "-c", str(self.config), "domain", "verify", "--project", "demo", *(arguments or ("sender.test",))]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def states(self, domain: str) -> dict[str, str]:
        return {key_of(record): record["state"] for record in json.loads(self.verify(domain, "--json").stdout)["records"]}


def key_of(record: dict[str, Any]) -> str:
    return record["key"]["algorithm"] if record["key"] else record["purpose"]


def published(records: list[dict[str, Any]]) -> Zone:
    zone: Zone = {}
    for record in records:
        zone.setdefault(record["name"], {}).setdefault(record["type"], []).append(record["value"])
    return zone


@pytest.fixture
def verifier(tmp_path: Path) -> Iterator[Verifier]:
    config = tmp_path / "mta.ini"
    config.write_text(CONFIG.format(port=1))
    verifier = Verifier(config, tmp_path / "zone.json", [])
    verifier.admin("project", "create", "demo")
    yield verifier
    for program in verifier.programs:
        program.dispose()


def test_what_is_published_as_printed_is_found_and_noted(verifier: Verifier) -> None:
    verifier.serve(published(verifier.create("sender.test")))
    done = verifier.verify()
    assert done.returncode == 0, done
    assert [line.split()[-3] for line in done.stdout.splitlines()[1:]] == ["found"] * 5
    shown = verifier.records("show", "sender.test")
    assert all(record["verified"] for record in shown)
    domain = json.loads(verifier.admin("domain", "show", "--project", "demo", "sender.test", "--json"))
    assert domain["return_path_verified"]


def test_each_record_is_told_as_found_wrong_or_missing(verifier: Verifier) -> None:
    zone: Zone = {"elsewhere.test": {"A": ["192.0.2.9"]}, "_spf.test": {"TXT": ["v=spf1 ip4:192.0.2.0/28 ip6:2001:db8::/32 -all"]}}
    for name in ("cut.test", "empty.test", "other.test", "flat.test", "sub.other.test", "down.test"):
        zone.update(published(verifier.create(name)))
    by_key = {
        name: {key_of(record): record for record in verifier.records("show", name)} for name in ("cut.test", "other.test", "down.test")
    }
    rsa, ed25519 = by_key["cut.test"]["rsa"], by_key["cut.test"]["ed25519"]
    zone[rsa["name"]] = {"TXT": [rsa["value"][:255]]}  # as forms do that take no longer text
    zone[ed25519["name"]] = {"TXT": ["v=DKIM1; k=ed25519; p="]}
    zone["rp.cut.test"] = {"CNAME": ["elsewhere.test"]}
    zone["_dmarc.cut.test"] = {"TXT": ["v=DMARC1; rua=mailto:x@cut.test"]}
    zone["cut.test"] = {"TXT": ["v=spf1 mx -all", "other text"]}
    for name in [name for name in zone if name.endswith("empty.test")]:
        del zone[name]
    zone["empty.test"] = {"A": ["192.0.2.5"]}
    zone[by_key["other.test"]["rsa"]["name"]]["TXT"].append("something else")
    zone["other.test"] = {"TXT": ["v=spf1 include:_spf.test -all"]}
    zone["_dmarc.other.test"] = {"TXT": ["v=DMARC1; p=reject; rua=mailto:x@other.test"]}
    del zone["_dmarc.sub.other.test"]
    zone["sub.other.test"] = {"TXT": ["v=spf1 ip4:192.0.2.1 ~all"]}
    zone["rp.flat.test"] = {"MX": [[10, "bounces.test"]]}
    zone["flat.test"] = {"TXT": ["v=spf1 redirect=_spf.test"]}
    zone[by_key["down.test"]["rsa"]["name"]] = {"TXT": "SERVFAIL"}
    verifier.serve(zone)

    assert verifier.states("cut.test") == dict.fromkeys(("rsa", "ed25519", "return-path", "dmarc", "spf"), "wrong")
    assert verifier.states("empty.test") == dict.fromkeys(("rsa", "ed25519", "return-path", "dmarc", "spf"), "missing")
    found = dict.fromkeys(("rsa", "ed25519", "return-path", "dmarc", "spf"), "found")
    assert verifier.states("other.test") == {**found, "rsa": "wrong"}, "two records under one name"
    assert verifier.states("sub.other.test") == {**found, "spf": "wrong"}, "DMARC is inherited; the IPv6 address isn't permitted"
    assert verifier.states("flat.test") == found
    assert verifier.states("down.test") == {**found, "rsa": "unknown"}

    done = verifier.verify("cut.test")
    assert done.returncode == os.EX_DATAERR
    assert "revoked" in done.stdout
    assert "there is   elsewhere.test" in done.stdout
    assert "wanted is  bounces.test" in done.stdout
    assert verifier.verify("down.test").returncode == os.EX_TEMPFAIL


def test_what_was_right_and_is_no_longer_isnt_trusted_any_more(verifier: Verifier) -> None:
    records = verifier.create("sender.test")
    zone = published(records)
    verifier.serve(zone)
    assert verifier.verify().returncode == 0
    seen = verifier.records("show", "sender.test")
    verifier.serve({**zone, "rp.sender.test": {"CNAME": ["elsewhere.test"]}, records[0]["name"]: {"TXT": "SERVFAIL"}})
    assert verifier.verify().returncode == os.EX_DATAERR
    after = {key_of(record): record["verified"] for record in verifier.records("show", "sender.test")}
    assert after["return-path"] is None
    assert after["rsa"] == seen[0]["verified"], "a look-up that failed says nothing"


def test_new_keys_take_over_once_their_records_are_seen(verifier: Verifier) -> None:
    before = verifier.create("sender.test")
    waiting = verifier.records("rotate", "sender.test")
    verifier.serve(published([record for record in waiting if record["name"] != waiting[3]["name"]]))
    done = verifier.verify()
    assert done.returncode == os.EX_DATAERR
    assert [record["key"]["state"] for record in verifier.records("show", "sender.test")[:4]] == [
        "signing",
        "signing",
        "waiting",
        "waiting",
    ]
    verifier.serve(published(waiting))
    done = verifier.verify()
    assert done.returncode == 0
    assert "sign from now on" in done.stderr
    after = verifier.records("show", "sender.test")
    assert [record["key"]["state"] for record in after[:4]] == ["retired", "retired", "signing", "signing"]
    assert [record["name"] for record in after[:2]] == [record["name"] for record in before[:2]]


def test_keys_are_found_however_their_text_is_cut_and_blanked(verifier: Verifier) -> None:
    records = verifier.create("sender.test")
    zone = published(records)
    rsa, key = records[0]["name"], records[0]["value"].partition("p=")[2]
    zone[rsa] = {"TXT": [["v=DKIM1;  k=rsa ;\t", " p=" + key[:50], " " + key[50:200], key[200:] + " ; "]]}
    zone[records[1]["name"]] = {"CNAME": ["keys.other.test"]}
    zone["keys.other.test"] = {"TXT": [records[1]["value"]]}
    zone["rp.sender.test"] = {"CNAME": ["rp.provider.test"]}
    zone["rp.provider.test"] = {"CNAME": ["Bounces.Test"]}
    verifier.serve(zone)
    assert verifier.states("sender.test") == dict.fromkeys(("rsa", "ed25519", "return-path", "dmarc", "spf"), "found")


def test_a_record_by_which_signatures_or_bounces_come_to_nothing_is_wrong(verifier: Verifier) -> None:
    """RFC 6376 section 3.6.1: with t=y a signature counts for nothing, and v= has to be the first tag."""
    records = verifier.create("sender.test")
    zone = published(records)
    zone[records[0]["name"]] = {"TXT": [records[0]["value"].replace("; p=", "; t=s:y; p=")]}
    zone[records[1]["name"]] = {"TXT": [records[1]["value"].removeprefix("v=DKIM1; ") + "; v=DKIM1"]}
    zone["bounces.test"] = {"TXT": ["no host"]}
    verifier.serve(zone)
    assert verifier.states("sender.test") == {"rsa": "wrong", "ed25519": "wrong", "return-path": "wrong", "dmarc": "found", "spf": "found"}
    assert "bounces.test has no address" in verifier.verify().stdout
