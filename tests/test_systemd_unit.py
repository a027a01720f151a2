"""The service file that ships: systemd itself finds no fault with it, and it keeps what the daemon was promised."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import need

UNIT = Path(__file__).parent.parent / "systemd" / "lettermta.service"
TWISTD = "/opt/lettermta/bin/twistd"


class _Repeated(dict[str, str]):
    """systemd adds up keys that are given more than once."""

    def __setitem__(self, key: str, value: str | list[str]) -> None:
        if isinstance(value, list) and key in self:
            value = [self[key] if isinstance(self[key], str) else "\n".join(self[key]), *value]
        super().__setitem__(key, value)


@pytest.fixture(scope="module")
def service() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, dict_type=_Repeated)
    parser.optionxform = str
    parser.read_string(UNIT.read_text())
    return parser["Service"]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit as if its virtual environment were installed: the only thing that verify cannot find on a developer's machine."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert TWISTD in text
    copy.write_text(text.replace(TWISTD, sys.executable))
    return copy


def test_systemd_finds_no_fault(installed: Path) -> None:
    tool = need("systemd-analyze", "systemd")
    result = subprocess.run([tool, "verify", str(installed)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_finds_a_fault_where_there_is_one(installed: Path) -> None:
    installed.write_text(installed.read_text().replace("ProtectHome=yes", "ProtectHome=yes\nProtectHoome=yes"))
    result = subprocess.run([need("systemd-analyze", "systemd"), "verify", str(installed)], capture_output=True, text=True, check=False)
    assert "ProtectHoome" in result.stderr


def test_little_is_exposed(installed: Path) -> None:
    """systemd's own measure, from 0 (nothing) to 10 (all): at most 2.0."""
    command = [need("systemd-analyze", "systemd"), "security", "--offline=yes", "--no-pager", "--threshold=20", str(installed)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-400:] + result.stderr


def test_only_low_ports_are_privileged(service: configparser.SectionProxy) -> None:
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert service["NoNewPrivileges"] == "yes"
    assert service["User"] == "lettermta"


def test_it_runs_as_documented(service: configparser.SectionProxy) -> None:
    assert service["ExecStart"] == f"{TWISTD} -n --pidfile= lettermta -c /etc/lettermta/mta.ini"
    assert (service["StateDirectory"], service["StateDirectoryMode"], service["UMask"]) == ("lettermta", "0700", "0077")
    assert service["ProtectSystem"] == "strict"


def test_stopping_outlasts_the_daemons_own_bound(service: configparser.SectionProxy) -> None:
    assert int(service["TimeoutStopSec"].removesuffix("s")) > 30
    assert "143" in service["SuccessExitStatus"], "twistd's status after a clean SIGTERM"
