"""The DNS double as a program, asked by dnspython's own client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from lettermta.testing.dns import DNSAuthority

ZONE = {
    "example.com": {"MX": [[10, "mx.example.com"]], "TXT": ['say "hi" ' + "x" * 300], "SOA": []},
    "mx.example.com": {"A": ["192.0.2.1", "192.0.2.2"], "ttl": 7},
    "deep.below.example.net": {"A": ["192.0.2.3"]},
    "alias.example.com": {"CNAME": ["mx.example.com"]},
    "silent.example": "silent",
    "servfail.example": "servfail",
    "truncated.example": {"A": ["192.0.2.4"], "fault": "truncated"},
    "many.example": {"A": [f"192.0.2.{n}" for n in range(1, 100)]},
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    zone = tmp_path_factory.mktemp("dns") / "zone.json"
    zone.write_text(json.dumps(ZONE))
    command = [sys.executable, "-m", "lettermta.testing.dns", "--port", "0", "--zone", str(zone)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, number = process.stdout.readline().split()
        assert word == "listening"
        yield int(number)
        process.terminate()


def udp(port: int, name: str, rdtype: str, timeout: float = 5, **how: int) -> dns.message.Message:
    return dns.query.udp(dns.message.make_query(name, rdtype, **how), "127.0.0.1", timeout, port)


def test_records_of_each_form(port: int) -> None:
    assert udp(port, "example.com", "MX").answer[0].to_text() == "example.com. 300 IN MX 10 mx.example.com."
    assert {record.to_text() for record in udp(port, "MX.example.com", "A").answer[0]} == {"192.0.2.1", "192.0.2.2"}
    assert udp(port, "mx.example.com", "A").answer[0].ttl == 7
    strings = udp(port, "example.com", "TXT").answer[0][0].strings  # type: ignore[attr-defined]
    assert b"".join(strings) == b'say "hi" ' + b"x" * 300


def test_absences(port: int) -> None:
    nothing = udp(port, "mx.example.com", "MX")
    assert (nothing.rcode(), nothing.answer) == (dns.rcode.NOERROR, [])
    assert udp(port, "below.example.net", "MX").rcode() == dns.rcode.NOERROR
    missing = udp(port, "nowhere.example", "MX")
    assert missing.rcode() == dns.rcode.NXDOMAIN
    assert missing.resolve_chaining().minimum_ttl == 60


def test_cname_is_followed(port: int) -> None:
    assert [rrset.name.to_text() for rrset in udp(port, "alias.example.com", "A").answer] == ["alias.example.com.", "mx.example.com."]


def test_faults(port: int) -> None:
    assert udp(port, "servfail.example", "A").rcode() == dns.rcode.SERVFAIL
    with pytest.raises(dns.exception.Timeout):
        udp(port, "silent.example", "A", timeout=0.1)


def test_truncation_told_and_natural(port: int) -> None:
    for name in ("truncated.example", "many.example"):
        assert udp(port, name, "A").flags & dns.flags.TC
        whole = dns.query.tcp(dns.message.make_query(name, "A"), "127.0.0.1", 5, port)
        assert len(whole.answer[0]) == len(ZONE[name]["A"])  # type: ignore[call-overload, index]
    assert not udp(port, "many.example", "A", use_edns=0, payload=4096).flags & dns.flags.TC


def test_a_zone_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    zone = tmp_path / "zone.json"
    zone.write_text('{"example.com": "slow"}')
    command = [sys.executable, "-m", "lettermta.testing.dns", "--zone", str(zone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "zone.json" in done.stderr
    assert "'slow' is neither a fault" in done.stderr


def test_faults_by_type_and_unknown_words() -> None:
    DNSAuthority({"a.example": {"A": ["192.0.2.1"], "AAAA": "REFUSED"}})
    with pytest.raises(ValueError, match="neither a fault"):
        DNSAuthority({"a.example": {"A": "192.0.2.1"}})
