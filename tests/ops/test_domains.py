"""``lettermta-admin domain`` and the records that it has people publish."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.rdata
import dns.zone
import pytest
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lettermta.ops import admin

CONFIG = """\
[mta]
state_dir = state
hostname = mta.test
[delivery]
bounce_host = bounces.test
[listener a]
ports = 2525
"""
DOMAIN = ("--project", "demo", "example.test")


@frozen
class Ran:
    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = json.loads(self.out)["records"]
        return records


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    config = tmp_path / "mta.ini"
    config.write_text(CONFIG)

    def run(*argv: str) -> Ran:
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        code = admin.main([*argv, "-c", str(config)])
        return Ran(code, *capsys.readouterr())

    assert run("project", "create", "demo").code == 0
    return run


def states(records: list[dict[str, Any]]) -> list[str]:
    return [record["key"]["state"] for record in records if record["purpose"] == "dkim"]


def test_a_new_domain_has_two_keys_and_all_records(run: Run) -> None:
    records = run("domain", "create", *DOMAIN, "--json").records
    rsa, ed25519, path, dmarc, spf = records
    loaded = load_der_public_key(base64.b64decode(rsa["value"].removeprefix("v=DKIM1; k=rsa; p=")))
    assert isinstance(loaded, RSAPublicKey)
    assert loaded.key_size == 2048
    assert len(base64.b64decode(ed25519["value"].removeprefix("v=DKIM1; k=ed25519; p="))) == 32
    for record in (rsa, ed25519):
        assert record["name"] == f"{record['key']['selector']}._domainkey.example.test"
    assert rsa["name"] != ed25519["name"]
    assert (path["type"], path["name"], path["value"]) == ("CNAME", "rp.example.test", "bounces.test")
    assert (dmarc["type"], dmarc["name"], dmarc["value"]) == ("TXT", "_dmarc.example.test", "v=DMARC1; p=none")
    assert (spf["type"], spf["name"], spf["value"]) == ("TXT", "example.test", "v=spf1 a:mta.test ~all")
    assert [record["needed"] for record in records] == [True, True, True, False, False]
    assert all(record["verified"] is None for record in records)
    assert run("domain", "show", *DOMAIN, "--json").records == records


def test_what_is_printed_can_be_pasted_into_a_zone(run: Run) -> None:
    """Long text has to be split into strings of at most 255 octets (RFC 1035 section 3.3.14)."""
    printed = run("domain", "create", *DOMAIN).out
    lines = [line for line in printed.splitlines() if " IN " in line]
    zone = dns.zone.from_text("$TTL 300\n@ IN SOA ns hostmaster 1 1 1 1 1\n@ IN NS ns\n" + "\n".join(lines) + "\n", "example.test.")
    for record in run("domain", "show", *DOMAIN, "--json").records:
        rdataset = zone.find_rdataset(record["name"] + ".", record["type"])
        value = rdataset[0].target.to_text(omit_final_dot=True) if record["type"] == "CNAME" else b"".join(rdataset[0].strings).decode()
        assert value == record["value"]


def test_a_project_of_strict_alignment_says_so_in_its_dmarc_hint(run: Run) -> None:
    run("project", "update", "demo", "--alignment", "strict")
    records = run("domain", "create", *DOMAIN, "--json").records
    assert records[3]["value"] == "v=DMARC1; p=none; adkim=s"


def test_the_spf_hint_permits_the_sources_that_mail_leaves_from(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "mta.ini"
    config.write_text(CONFIG + "[source a]\naddresses = 8.8.8.8, 2606:4700::1111\n[source b]\naddresses = 10.0.0.7\n")
    records = run("domain", "create", *DOMAIN, "--json").records
    assert records[-1]["value"] == "v=spf1 a:mta.test ip4:8.8.8.8 ip6:2606:4700::1111 ~all", "private addresses are nobody else's business"


def test_a_host_without_a_name_is_permitted_by_its_address(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "mta.ini"
    config.write_text(CONFIG.replace("hostname = mta.test", "hostname = [IPv6:2001:db8::1]").replace("bounce_host = bounces.test", ""))
    records = run("domain", "create", *DOMAIN, "--json").records
    assert [record["purpose"] for record in records] == ["dkim", "dkim", "dmarc", "spf"], "there is no alias of an address"
    assert records[-1]["value"] == "v=spf1 ip6:2001:db8::1 ~all"


def test_each_project_has_keys_of_its_own_for_the_same_domain(run: Run) -> None:
    run("project", "create", "other")
    ours = run("domain", "create", *DOMAIN, "--json").records
    theirs = run("domain", "create", "--project", "other", "example.test", "--json").records
    assert not {record["name"] for record in ours[:2]} & {record["name"] for record in theirs[:2]}


def test_new_keys_wait_beside_the_old_ones_until_they_are_activated(run: Run) -> None:
    before = run("domain", "create", *DOMAIN, "--json").records
    rotated = run("domain", "rotate", *DOMAIN, "--json").records
    assert states(rotated) == ["signing", "signing", "waiting", "waiting"]
    assert rotated[:2] == before[:2]
    assert run("domain", "rotate", *DOMAIN, "--json").records == rotated, "a second pair that waits would be one too many"
    activated = run("domain", "rotate", *DOMAIN, "--activate", "--json").records
    assert states(activated) == ["retired", "retired", "signing", "signing"]
    assert [record["value"] for record in activated] == [record["value"] for record in rotated], "retired ones are still to be published"


def test_no_private_key_is_shown_or_kept_in_the_open(run: Run, tmp_path: Path) -> None:
    said = run("domain", "create", *DOMAIN).out + run("domain", "show", *DOMAIN, "--json").out
    assert "PRIVATE" not in said
    database = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("accounts.db*"))
    # What each PKCS #8 key begins with, in DER and in base64.
    for opening in (b"MIIEv", b"\x30\x82\x04\xbd", b"MC4CAQAw", bytes.fromhex("302e020100300506032b6570")):
        assert opening not in database


def test_the_use_of_the_return_path_is_chosen(run: Run) -> None:
    run("domain", "create", *DOMAIN)
    assert "keeps its sender's address" in run("domain", "update", *DOMAIN, "--return-path", "auto").err
    assert "has a return path of ours" in run("domain", "update", *DOMAIN, "--return-path", "on").err
    assert json.loads(run("domain", "show", *DOMAIN, "--json").out)["return_path_use"] == "on"
